"""What happens once before a search: an encoder is trained, features and class vectors are cached.

Shapes: **C** classes, **D** features, **T** examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray

from treesearch.builders import build_tree, split_builder
from treesearch.config import EncoderConfig
from treesearch.data import Dataset, Split
from treesearch.errors import DataError
from treesearch.evaluation.class_vectors import class_vectors
from treesearch.evaluation.encoders import IDENTITY, Encoder, encode, untrained_encoder
from treesearch.evaluation.features import Features
from treesearch.evaluation.joint import resolve_device, train_joint
from treesearch.evaluation.softmax_mean import SoftmaxMean
from treesearch.evaluation.threads import one_thread
from treesearch.softmax import HierarchicalSoftmax
from treesearch.tree import Tree

HOLDOUT_BLOCK = 2048  # tokens of a held-out stretch of text, fewer where a short text would have few stretches
HOLDOUT_BLOCKS_AT_LEAST = 100


@dataclass(frozen=True)
class Preparation:
    """Cached features of the encoder and the class vectors made from them."""

    train: Features  # what node classifiers learn from
    valid: Features  # what they are scored on: held-out training tokens, or the validation split
    vectors: NDArray[np.float32]  # [C, D] by which classes are clustered
    encoder: Mapping[str, NDArray[np.float32]]  # its parameters, by their names in the state
    hash: str  # of the features: evaluations are comparable only where it is equal


def prepare(
    dataset: Dataset,
    settings: EncoderConfig,
    *,
    seed: int,
    device: str = "auto",
    tree: Tree | None = None,
    holdout: float | None = None,
    max_tokens: int | None = None,
    on_step: Callable[[str, int, int], None] | None = None,
) -> Preparation:
    """Train the encoder on a Huffman tree, then on several trees made from its class vectors, and cache features.

    An encoder that has nothing to learn is left as it is: the inputs are the features.

    In the second stage each tree has an output layer of its own, and the encoder learns from the mean of their losses.
    An encoder that has learned from one tree makes that tree, and those like it, look better than they are
    (results/2026-11-24-several-trees).

    One torch thread, so that the result does not depend on the number of cores.

    Args:
        dataset: What to learn from.
        settings: Of the encoder.
        seed: Of parameters and order.
        device: Where to train.
        tree: A further one of the second stage, which then takes an epoch at least.
        holdout: Share of the training tokens, in blocks spread over the text, that neither the encoder nor class
            vectors nor node classifiers learn from: trees are scored on them, and the validation split stays unseen.
            None: trees are scored on the validation split.
        max_tokens: Training features to keep; None for all.
        on_step: Called with (stage, step, number of steps).

    Raises:
        DataError: The encoder's features are not finite, or ``holdout`` holds nothing out.
        ConfigError: Unknown encoder, builder, option or device.
    """
    counts = dataset.counts.astype(np.float64)
    train, valid = _parts(dataset, holdout, whole=settings.kind == IDENTITY)
    generator = torch.Generator().manual_seed(seed)
    encoder = untrained_encoder(settings, dataset.spec, generator)
    encoder.to(resolve_device(device))
    with one_thread():

        def learn(stage: str, epochs: int, trees: Sequence[Tree]) -> tuple[Features, NDArray[np.float32]]:
            layers = [HierarchicalSoftmax(settings.features, one, sparse=True) for one in trees]
            for layer in layers:
                layer.reset_parameters(counts, generator)
            train_joint(
                encoder,
                SoftmaxMean(layers).to(resolve_device(device)),
                train.split,
                learning_rate=settings.learning_rate,
                epochs=epochs,
                batch_size=settings.batch_size,
                seed=seed,
                on_step=None if on_step is None else partial(on_step, stage),
            )
            features = train.features(encoder)
            if not np.isfinite(features.x).all():
                raise DataError("the encoder's features are not finite; lower encoder.learning_rate")
            return features, class_vectors(features, dataset.num_classes)

        if not encoder.learns:
            features = train.features(encoder)
            return _cached(encoder, features, valid, class_vectors(features, dataset.num_classes), max_tokens)
        features, vectors = learn("encoder", settings.epochs, [build_tree("huffman", counts=counts)])
        if epochs := max(settings.refine_epochs, 0 if tree is None else 1):
            trees = [
                build_tree(name, counts=counts, vectors=vectors, seed=seed, **options)
                for name, options in map(split_builder, settings.trees)
            ]
            features, vectors = learn("encoder, refined", epochs, trees if tree is None else [*trees, tree])
        return _cached(encoder, features, valid, vectors, max_tokens)


def restore(
    dataset: Dataset,
    settings: EncoderConfig,
    parameters: Mapping[str, NDArray[np.float32]],
    *,
    device: str = "auto",
    holdout: float | None = None,
    max_tokens: int | None = None,
) -> Preparation:
    """What `prepare` gave, from the parameters of the encoder that it trained; other arguments as there.

    On the same machine it is the same to the bit, and so is the hash.
    """
    train, valid = _parts(dataset, holdout, whole=settings.kind == IDENTITY)
    encoder = untrained_encoder(settings, dataset.spec, torch.Generator())
    encoder.load_state_dict({name: torch.from_numpy(values) for name, values in parameters.items()})
    encoder.to(resolve_device(device))
    with one_thread():
        features = train.features(encoder)
        return _cached(encoder, features, valid, class_vectors(features, dataset.num_classes), max_tokens)


@dataclass(frozen=True)
class _Part:
    """Examples of a split; of one on disk, those in ``rows``."""

    split: Split
    rows: NDArray[np.int64] | None = None  # see `Features`

    def features(self, encoder: Encoder) -> Features:
        """What the output layer sees: the inputs themselves where the encoder does nothing."""
        if encoder.learns:
            return Features(encode(encoder, self.split.inputs), self.split.labels)
        return Features(self.split.inputs, self.split.labels, self.rows)


def _cached(
    encoder: Encoder, train: Features, valid: _Part, vectors: NDArray[np.float32], max_tokens: int | None
) -> Preparation:
    learned, scored = train.first(max_tokens), valid.features(encoder)
    digest = blake2b(digest_size=8)
    for features in (learned, scored):
        features.update(digest)
    state = {name: value.cpu().numpy() for name, value in encoder.state_dict().items()}
    return Preparation(learned, scored, vectors, state, digest.hexdigest())


def _parts(dataset: Dataset, holdout: float | None, *, whole: bool) -> tuple[_Part, _Part]:
    """What encoder and nodes learn from, and what nodes are scored on; ``whole`` leaves what is on disk in one piece.

    Raises:
        DataError: One of them is empty.
    """
    train = dataset.train
    if holdout is None:
        return _Part(train), _Part(dataset.valid)
    held_out = held_out_tokens(len(train), holdout)
    if not held_out.any() or held_out.all():
        raise DataError(
            f"frozen.holdout must hold out an example, but {holdout:g} of {len(train)} is none; raise it, or set it to"
            " null"
        )
    if train.mapped and whole:
        return _Part(train, _ranges(~held_out)), _Part(train, _ranges(held_out))
    kept, scored = (Split(train.inputs[mask], train.labels[mask]) for mask in (~held_out, held_out))
    return _Part(kept), _Part(scored)


def _ranges(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where it is true, as ranges [K, 2]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return edges.reshape(-1, 2).astype(np.int64)


def held_out_tokens(num_tokens: int, share: float) -> NDArray[np.bool_]:
    """Which tokens are held out, [T]: blocks of successive tokens, spread evenly over the text.

    Whole blocks, since a token's context would otherwise be learned from beside it.
    """
    size = max(1, min(HOLDOUT_BLOCK, num_tokens // HOLDOUT_BLOCKS_AT_LEAST))
    block_T = np.arange(num_tokens) // size
    held_out: NDArray[np.bool_] = np.floor((block_T + 1) * share) > np.floor(block_T * share)
    return held_out

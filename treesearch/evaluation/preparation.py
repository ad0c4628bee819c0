"""What happens once before a search: an encoder is trained, features and class vectors are cached.

Shapes: **C** classes, **D** features, **T** tokens.
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
from treesearch.data import Corpus
from treesearch.data.contexts import context_windows
from treesearch.errors import DataError
from treesearch.evaluation.class_vectors import class_vectors
from treesearch.evaluation.encoder import Encoder, encode, untrained_encoder
from treesearch.evaluation.examples import TextSplit
from treesearch.evaluation.frozen import Features
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
    corpus: Corpus,
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

    In the second stage each tree has an output layer of its own, and the encoder learns from the mean of their losses.
    An encoder that has learned from one tree makes that tree, and those like it, look better than they are
    (results/2026-11-24-several-trees).

    One torch thread, so that the result does not depend on the number of cores.

    Args:
        corpus: The text.
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
        DataError: The encoder's features are not finite.
        ConfigError: Unknown encoder, builder, option or device.
    """
    counts = corpus.counts.astype(np.float64)
    train, valid = _splits(corpus, settings.context, holdout)
    generator = torch.Generator().manual_seed(seed)
    encoder = untrained_encoder(settings, corpus.num_classes, generator)
    encoder.to(resolve_device(device))
    with one_thread():

        def learn(stage: str, epochs: int, trees: Sequence[Tree]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            layers = [HierarchicalSoftmax(settings.features, one, sparse=True) for one in trees]
            for layer in layers:
                layer.reset_parameters(counts, generator)
            train_joint(
                encoder,
                SoftmaxMean(layers).to(resolve_device(device)),
                train,
                learning_rate=settings.learning_rate,
                epochs=epochs,
                batch_size=settings.batch_size,
                seed=seed,
                on_step=None if on_step is None else partial(on_step, stage),
            )
            features = encode(encoder, train.windows)
            if not np.isfinite(features).all():
                raise DataError("the encoder's features are not finite; lower encoder.learning_rate")
            return features, class_vectors(features, train.labels, corpus.num_classes)

        train_features, vectors = learn("encoder", settings.epochs, [build_tree("huffman", counts=counts)])
        if epochs := max(settings.refine_epochs, 0 if tree is None else 1):
            trees = [
                build_tree(name, counts=counts, vectors=vectors, seed=seed, **options)
                for name, options in map(split_builder, settings.trees)
            ]
            train_features, vectors = learn("encoder, refined", epochs, trees if tree is None else [*trees, tree])
    return _cached(encoder, train, valid, train_features, vectors, max_tokens)


def restore(
    corpus: Corpus,
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
    train, valid = _splits(corpus, settings.context, holdout)
    encoder = untrained_encoder(settings, corpus.num_classes, torch.Generator())
    encoder.load_state_dict({name: torch.from_numpy(values) for name, values in parameters.items()})
    encoder.to(resolve_device(device))
    with one_thread():
        features = encode(encoder, train.windows)
        vectors = class_vectors(features, train.labels, corpus.num_classes)
    return _cached(encoder, train, valid, features, vectors, max_tokens)


def _cached(
    encoder: Encoder,
    train: TextSplit,
    valid: TextSplit,
    train_features: NDArray[np.float32],
    vectors: NDArray[np.float32],
    max_tokens: int | None,
) -> Preparation:
    with one_thread():
        scored = Features(encode(encoder, valid.windows), valid.labels)
    learned = Features(train_features[:max_tokens], train.labels[:max_tokens])
    digest = blake2b(digest_size=8)
    for split in (learned, scored):
        digest.update(np.ascontiguousarray(split.x).data)
    state = {name: value.cpu().numpy() for name, value in encoder.state_dict().items()}
    return Preparation(learned, scored, vectors, state, digest.hexdigest())


def _splits(corpus: Corpus, context: int, holdout: float | None) -> tuple[TextSplit, TextSplit]:
    """What encoder and nodes learn from, and what nodes are scored on."""
    train = TextSplit(context_windows(corpus.train, size=context, pad=corpus.eos), corpus.train)
    if holdout is None:
        return train, TextSplit(context_windows(corpus.valid, size=context, pad=corpus.eos), corpus.valid)
    held_out = held_out_tokens(len(corpus.train), holdout)
    return (
        TextSplit(train.windows[~held_out], train.labels[~held_out]),
        TextSplit(train.windows[held_out], train.labels[held_out]),
    )


def held_out_tokens(num_tokens: int, share: float) -> NDArray[np.bool_]:
    """Which tokens are held out, [T]: blocks of successive tokens, spread evenly over the text.

    Whole blocks, since a token's context would otherwise be learned from beside it.
    """
    size = max(1, min(HOLDOUT_BLOCK, num_tokens // HOLDOUT_BLOCKS_AT_LEAST))
    block_T = np.arange(num_tokens) // size
    held_out: NDArray[np.bool_] = np.floor((block_T + 1) * share) > np.floor(block_T * share)
    return held_out

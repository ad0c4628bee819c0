"""What happens once before a search: an encoder is trained on cheap trees, features and class vectors are cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray

from treesearch.builders import build_tree
from treesearch.config import EncoderConfig
from treesearch.data import Corpus
from treesearch.data.contexts import context_windows
from treesearch.errors import DataError
from treesearch.evaluation.encoder import class_means, encode, make_encoder
from treesearch.evaluation.examples import TextSplit
from treesearch.evaluation.joint import one_thread, resolve_device, train_joint
from treesearch.softmax import HierarchicalSoftmax
from treesearch.tree import Tree


@dataclass(frozen=True)
class Preparation:
    """Cached features of the encoder and the class vectors made from them."""

    train_features: NDArray[np.float32]  # [T, D]
    valid_features: NDArray[np.float32]  # [T', D]
    vectors: NDArray[np.float32]  # [C, D] class means
    hash: str  # of the features: evaluations are comparable only where it is equal


def prepare(
    corpus: Corpus,
    settings: EncoderConfig,
    *,
    seed: int,
    device: str = "auto",
    tree: Tree | None = None,
    max_tokens: int | None = None,
    on_step: Callable[[str, int, int], None] | None = None,
) -> Preparation:
    """Train the encoder on a Huffman tree, then on a tree clustered from its class means, and cache features.

    Where a ``tree`` is given, the encoder is trained on that alone, as many epochs in all.

    One torch thread, so that the result does not depend on the number of cores.

    Args:
        corpus: The text.
        settings: Of the encoder.
        seed: Of parameters and order.
        device: Where to train.
        tree: What to train on instead of cheap trees.
        max_tokens: Training features to keep; None for all.
        on_step: Called with (stage, step, number of steps).

    Raises:
        DataError: The encoder's features are not finite.
        ConfigError: Unknown encoder or device.
    """
    counts = corpus.counts.astype(np.float64)
    train, valid = (
        TextSplit(context_windows(stream, size=settings.context, pad=corpus.eos), stream)
        for stream in (corpus.train, corpus.valid)
    )
    generator = torch.Generator().manual_seed(seed)
    encoder = make_encoder(
        settings.kind,
        corpus.num_classes,
        context=settings.context,
        embedding=settings.embedding,
        features=settings.features,
    )
    encoder.reset_parameters(generator)
    encoder.to(resolve_device(device))
    stages = [("encoder", settings.epochs), ("encoder, refined", settings.refine_epochs)]
    if tree is not None:
        stages = [("encoder, refreshed", settings.epochs + settings.refine_epochs)]
    else:
        tree = build_tree("huffman", counts=counts)
    with one_thread():
        for stage, epochs in stages:
            if epochs == 0:
                continue
            layer = HierarchicalSoftmax(settings.features, tree, sparse=True)
            layer.reset_parameters(counts, generator)
            layer.to(resolve_device(device))
            train_joint(
                encoder,
                layer,
                train,
                learning_rate=settings.learning_rate,
                epochs=epochs,
                batch_size=settings.batch_size,
                seed=seed,
                on_step=None if on_step is None else lambda step, num, stage=stage: on_step(stage, step, num),  # type: ignore[misc]
            )
            train_features = encode(encoder, train.windows)
            if not np.isfinite(train_features).all():
                raise DataError("the encoder's features are not finite; lower encoder.learning_rate")
            vectors = class_means(train_features, train.labels, corpus.num_classes)
            tree = build_tree("clustered", counts=counts, vectors=vectors, seed=seed)
        valid_features = encode(encoder, valid.windows)
    train_features = train_features[:max_tokens]
    digest = blake2b(digest_size=8)
    for array in (train_features, valid_features):
        digest.update(np.ascontiguousarray(array).data)
    return Preparation(train_features, valid_features, vectors, digest.hexdigest())

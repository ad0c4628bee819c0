"""The frozen evaluator against gensim's compiled hierarchical softmax, in one process, one thread.

Both walk a Huffman tree over the same Zipf-distributed stream, d = 128: dot product, loss gradient, update. gensim's
inner loop also adds up the gradient of its input vector, which frozen features do not need.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.builders import build_tree
from treesearch.errors import MissingExtraError
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen import evaluate_frozen

NUM_CLASSES = 10_000
NUM_FEATURES = 128
NUM_TOKENS = 200_000
SENTENCE = 20
WINDOW = 2


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Nanoseconds per path node (median of ``repeats``), gensim and ours in turn, and their ratio; then other trees.

    Kernels are compiled on a small input before anything is timed.

    Raises:
        MissingExtraError: gensim is not installed.
    """
    rng = np.random.default_rng(0)
    counts = 1e6 / np.arange(2, NUM_CLASSES + 2)
    labels = rng.choice(NUM_CLASSES, NUM_TOKENS, p=counts / counts.sum()).astype(np.int32)
    vectors = rng.standard_normal((NUM_CLASSES, NUM_FEATURES)).astype(np.float32)
    noise = rng.standard_normal((NUM_TOKENS, NUM_FEATURES)).astype(np.float32)
    data = Features(np.tanh(0.5 * vectors[labels] + noise), labels)
    nothing = Features(data.x[:0], labels[:0])

    def ours(tree_name: str, **options: Any) -> tuple[Callable[[], object], float]:
        tree = build_tree(tree_name, counts=counts, vectors=vectors, **options)
        evaluate_frozen(tree, train=Features(data.x[:64], labels[:64]), valid=nothing, counts=counts, vectors=vectors)
        return (
            lambda: evaluate_frozen(tree, train=data, valid=nothing, counts=counts, vectors=vectors),
            float(tree.depths[labels].sum()),
        )

    contenders = {
        "gensim hs=1, Huffman": gensim_pass(labels),
        "frozen, Huffman": ours("huffman"),
        "frozen, clustered binary": ours("clustered"),
        "frozen, clustered 16-way": ours("clustered", arity=16),
        "frozen, two-level": ours("two-level", by="similarity"),
        "frozen, adaptive": ours("adaptive"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, (train, _) in contenders.items():
            begin = time.perf_counter()
            train()
            seconds[name].append(time.perf_counter() - begin)
    per_node = {name: float(np.median(seconds[name])) / contenders[name][1] * 1e9 for name in contenders}
    reference = per_node["gensim hs=1, Huffman"]
    return [
        {
            "what": name,
            "ns_per_path_node": value,
            "ratio_to_gensim": value / reference,
            "nodes_per_pass": contenders[name][1],
            "seconds_per_pass": float(np.median(seconds[name])),
        }
        for name, value in per_node.items()
    ]


def gensim_pass(labels: NDArray[np.int32]) -> tuple[Callable[[], object], float]:
    """One pass of `Word2Vec(hs=1)` over the labels as a corpus, and the number of path nodes in it."""
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise MissingExtraError("gensim", "interop") from None
    sentences = [[str(label) for label in labels[i : i + SENTENCE]] for i in range(0, labels.size, SENTENCE)]
    model = Word2Vec(
        vector_size=NUM_FEATURES, hs=1, negative=0, sg=1, workers=1, min_count=1, window=WINDOW, sample=0,
        shrink_windows=False,
    )  # fmt: skip
    model.build_vocab(sentences)
    code_length = {word: len(model.wv.get_vecattr(word, "code")) for word in model.wv.index_to_key}
    nodes = 0
    for sentence in sentences:
        for position, word in enumerate(sentence):
            contexts = min(position, WINDOW) + min(len(sentence) - 1 - position, WINDOW)
            nodes += contexts * code_length[word]
    return lambda: model.train(sentences, total_examples=len(sentences), epochs=1), float(nodes)

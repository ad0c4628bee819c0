"""gensim's Word2Vec on any binary tree: put one in, take one out, and score what it learns.

Needs the extra ``interop``. Shapes: **B** pairs, **C** words, **D** vector size, **N** internal nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treesearch.errors import DataError, MissingExtraError, TreeError
from treesearch.exchange.codes import Codes, Decoded, check_binary, codes_of, decode
from treesearch.exchange.labels import relabel
from treesearch.softmax import HierarchicalSoftmax
from treesearch.tree import Tree

try:
    from gensim.models import Doc2Vec, FastText, Word2Vec
    from gensim.models.callbacks import CallbackAny2Vec
except ImportError:
    raise MissingExtraError("gensim", "interop") from None

CODE, POINT = "code", "point"  # attributes of its words
SCORED_PAIRS = 1 << 15  # at once


def install(model: Any, tree: Tree) -> None:
    """Let a ``Word2Vec(hs=1)`` train on ``tree`` in place of its own Huffman tree.

    Call it after ``build_vocab`` and before ``train``. Node weights begin at zero, as gensim's own do. Classes are
    words by name where the tree has names, otherwise by position in ``model.wv.index_to_key``. A later
    ``build_vocab(update=True)`` builds gensim's Huffman tree again without a word: pass ``callbacks=[TreeGuard(tree)]``
    to ``train`` to have that refused.

    Args:
        model: A ``gensim.models.Word2Vec``.
        tree: Binary, without projections, over the words of the model.

    Raises:
        DataError: The model has no vocabulary, or was not made with ``hs=1``.
        TreeError: The tree is not binary, has projections, or is over other words.
    """
    tree = _over_its_words(model, tree)
    codes = codes_of(tree)
    for name, values in ((CODE, codes.code), (POINT, codes.point)):
        by_word = np.empty(codes.num_classes, object)
        # Copies: gensim reads each from its first byte on, and a saved model would keep what a view is a part of.
        by_word[:] = [part.copy() for part in np.split(values, codes.ptr[1:-1])]
        model.wv.expandos[name] = by_word
    model.syn1 = np.zeros((codes.num_classes, model.layer1_size), np.float32)


def extract(model: Any) -> Tree:
    """The tree of a ``Word2Vec(hs=1)``: its own Huffman tree, or the one that was installed; words are class names.

    Raises:
        DataError: The model has no vocabulary, or was not made with ``hs=1``.
        TreeError: Its codes are not those of a tree.
    """
    return _decoded(model).tree.annotate(class_names=list(model.wv.index_to_key))


def verify(model: Any, tree: Tree) -> None:
    """Refuse a model that is not on ``tree``, with the codes that `install` has set: its node weights are by these.

    Raises:
        DataError: The model has no vocabulary, or was not made with ``hs=1``.
        TreeError: It is on another tree, or over other words.
    """
    expected, found = codes_of(_over_its_words(model, tree)), _codes(model)
    if not all(np.array_equal(getattr(expected, name), getattr(found, name)) for name in ("ptr", CODE, POINT)):
        raise TreeError(
            "the model must be on the installed tree, but has other codes: build_vocab builds gensim's Huffman tree"
            " again, also with update=True; install the tree after it"
        )


class TreeGuard(CallbackAny2Vec):  # type: ignore[misc]
    """A callback of ``train`` that refuses to train on any tree but this one; see `install`.

    Args:
        tree: That was installed.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def on_train_begin(self, model: Any) -> None:
        """Called by gensim.

        Raises:
            TreeError: The model is on another tree.
        """
        verify(model, self._tree)


def layer_of(model: Any) -> HierarchicalSoftmax:
    """The model's output layer: the same probabilities for the same hidden vectors, exact where gensim's tables round.

    Its tree is `extract`'s; there is no bias.

    Raises:
        DataError: The model has no vocabulary, or was not made with ``hs=1``.
        TreeError: Its codes are not those of a tree.
    """
    decoded = _decoded(model)
    tree = decoded.tree.annotate(class_names=list(model.wv.index_to_key))
    layer = HierarchicalSoftmax(model.layer1_size, tree, bias=False)
    # A row is the logit of the canonical first child; gensim's of the child with code 0.
    rows_ND = np.where(decoded.flipped[:, None], -1, 1) * model.syn1[decoded.point]
    with torch.no_grad():
        layer.weights[0].copy_(torch.from_numpy(rows_ND[layer.layout.row_order].astype(np.float32)))
    return layer


def pairs(model: Any, sentences: Iterable[Sequence[str]]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """What the model predicts words from, in batches: hidden vectors [B, D] and words int64 [B].

    The pairs of ``model.score``: each word with each other word at most ``window`` before or behind it (skip-gram), or
    with the mean (sum, without ``cbow_mean``) of all of them (CBOW). Unlike in training, windows have their full size
    and no word is left out for being frequent. Words outside the vocabulary are removed first.

    Args:
        model: A ``gensim.models.Word2Vec``.
        sentences: Lists of words.
    """
    index, vectors = model.wv.key_to_index, model.wv.vectors
    ids: list[NDArray[np.int64]] = []
    for sentence in sentences:
        ids.append(np.array([index[word] for word in sentence if word in index], np.int64))
        if sum(map(len, ids)) * 2 * model.window >= SCORED_PAIRS:
            yield _pairs_of(ids, vectors, model)
            ids = []
    yield _pairs_of(ids, vectors, model)


def mean_nll(model: Any, sentences: Iterable[Sequence[str]]) -> float:
    """Mean negative log-likelihood of the pairs of these sentences, nats per pair; see `pairs`.

    Raises:
        DataError: There is no pair, the model has no vocabulary, or was not made with ``hs=1``.
    """
    layer = layer_of(model)
    total, number = 0.0, 0
    with torch.no_grad():
        for hidden_BD, word_B in pairs(model, sentences):
            output = layer(torch.from_numpy(hidden_BD), torch.from_numpy(word_B)).output
            total -= float(output.double().sum())
            number += word_B.size
    if not number:
        raise DataError("no word of the sentences has another one of the vocabulary beside it; give longer sentences")
    return total / number


def _pairs_of(
    ids: Sequence[NDArray[np.int64]], vectors: NDArray[np.float32], model: Any
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    word_T = np.concatenate([np.zeros(0, np.int64), *ids])
    sentence_T = np.repeat(np.arange(len(ids)), [len(one) for one in ids])
    contexts, targets = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    hidden_TD, number_T = np.zeros((word_T.size, vectors.shape[1]), np.float32), np.zeros(word_T.size, np.int64)
    for offset in (*range(-model.window, 0), *range(1, model.window + 1)):
        at = np.arange(max(0, -offset), max(0, word_T.size - max(0, offset)))
        at = at[sentence_T[at] == sentence_T[at + offset]]
        if model.sg:
            contexts.append(word_T[at + offset])
            targets.append(word_T[at])
        else:
            hidden_TD[at] += vectors[word_T[at + offset]]
            number_T[at] += 1
    if model.sg:
        return vectors[np.concatenate(contexts)], np.concatenate(targets)
    if model.cbow_mean:
        hidden_TD /= np.maximum(number_T, 1)[:, None]
    return hidden_TD[number_T > 0], word_T[number_T > 0]


def _decoded(model: Any) -> Decoded:
    return decode(_codes(model))


def _codes(model: Any) -> Codes:
    """As the model has them, unchecked; a single word has a number in place of an empty code."""
    _check(model)
    alone = len(model.wv.index_to_key) == 1
    code, point = ([] if alone else [np.atleast_1d(one) for one in model.wv.expandos[name]] for name in (CODE, POINT))
    sizes = [0] if alone else [part.size for part in code]
    return Codes(
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.concatenate([np.zeros(0, np.uint8), *code]).astype(np.uint8),
        np.concatenate([np.zeros(0, np.uint32), *point]).astype(np.uint32),
    )


def _over_its_words(model: Any, tree: Tree) -> Tree:
    """The tree with its classes numbered as the model's words."""
    _check(model)
    check_binary(tree)
    words = list(model.wv.index_to_key)
    if tree.class_names is not None:
        return relabel(tree, words)
    if tree.num_classes != len(words):
        raise TreeError(
            f"the tree must be over the model's {len(words)} words, but is over {tree.num_classes} classes; count them"
            " with the same min_count, or give the tree class names"
        )
    return tree


def _check(model: Any) -> None:
    if not isinstance(model, Word2Vec) or isinstance(model, FastText | Doc2Vec):
        raise DataError(f"the model must be a gensim.models.Word2Vec, but is {type(model).__name__}")
    if not getattr(model, "hs", 0):
        raise DataError("the model must use hierarchical softmax, but has hs=0; make it with hs=1")
    if not len(model.wv.index_to_key):
        raise DataError("the model must have a vocabulary, but has none; call build_vocab first")
    if CODE not in model.wv.expandos or len(model.wv.expandos[CODE]) != len(model.wv.index_to_key):
        raise DataError("the model must have a code for each word, but has not; call build_vocab first")

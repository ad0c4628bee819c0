"""From texts that stand for nodes to three splits: what is learned from, what is held out.

Shapes: **T** nodes of the taxonomy, **C** classes, **B** examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.applications.coding.pieces import Pieces, words_of
from treesearch.applications.coding.wordings import Wording
from treesearch.data import InputSpec, Split
from treesearch.errors import DataError
from treesearch.taxonomy import Taxonomy

SHARES = (0.5, 0.2, 0.3)  # of the inclusion terms: to learn from, to choose and calibrate by, to test on
HELD_OUT = "inclusion term"


@dataclass(frozen=True, eq=False)
class CodingTask:
    """Texts and labels. A label is a class, or C + the number of a node: *this node or anything below it*."""

    taxonomy: Taxonomy
    descriptions: tuple[str, ...]  # [T]
    pieces: Pieces
    spec: InputSpec
    train: Split
    valid: Split
    test: Split
    test_texts: tuple[str, ...]


def coding_task(taxonomy: Taxonomy, wordings: Sequence[Wording], *, seed: int) -> CodingTask:
    """Split the inclusion terms; all other texts are learned from.

    A text is known by its words, whatever case, order of punctuation or spaces. No text of the validation or test split
    is the text of an example to learn from: a term with the words of another text is never held out. A text that stands
    for several nodes is learned from for each of them.

    Args:
        taxonomy: All classes are leaves.
        wordings: Texts of its nodes.
        seed: Of the split.

    Raises:
        DataError: A class is at an inner node, or there are fewer than 10 inclusion terms that can be held out.
    """
    if (taxonomy.heights[taxonomy.class_node] > 0).any():
        raise DataError(
            "codes must be leaves of the taxonomy, but one has others below it; leave it out of the classes"
        )
    keyed = {(" ".join(words_of(one.text)), one.node): one for one in reversed(wordings)}  # the first of equals stays
    texts = [key for key, _ in keyed]
    times = dict(zip(*np.unique(texts, return_counts=True), strict=True))
    examples = [(key, one) for (key, _), one in reversed(keyed.items()) if key]
    apart = [place for place, (key, one) in enumerate(examples) if one.kind == HELD_OUT and times[key] == 1]
    if len(apart) < 10:
        raise DataError(
            f"at least 10 inclusion terms must be there to hold out, but there are {len(apart)}; take more chapters"
        )
    order = np.array(apart)[np.random.default_rng(seed).permutation(len(apart))]
    ends = np.cumsum(np.round(np.array(SHARES[:2]) * len(apart))).astype(int)
    _, valid, test = np.split(order, ends)
    held = {*valid.tolist(), *test.tolist()}
    train = [place for place in range(len(examples)) if place not in held]
    pieces = Pieces.of(examples[place][1].text for place in train)
    descriptions = [""] * taxonomy.num_nodes
    for one in wordings:
        if one.kind == "description":
            descriptions[one.node] = one.text

    def split(places: Sequence[int] | NDArray[np.int64]) -> Split:
        chosen = [examples[place][1] for place in places]
        return Split(
            pieces.bags([one.text for one in chosen]), label_ids(taxonomy, np.array([one.node for one in chosen]))
        )

    return CodingTask(
        taxonomy,
        tuple(descriptions),
        pieces,
        InputSpec(1, pieces.num_ids, pieces.padding),
        split(train),
        split(valid),
        split(test),
        tuple(examples[place][1].text for place in test),
    )


def label_ids(taxonomy: Taxonomy, node_B: NDArray[np.int64]) -> NDArray[np.int32]:
    """Labels of nodes, int32 [B]; as `treesearch.objectives.multi_level.MultiLevelLoss.label_ids` has them."""
    class_B = taxonomy.class_at[node_B]
    return np.where(class_B >= 0, class_B, taxonomy.num_classes + node_B).astype(np.int32)


def label_nodes(taxonomy: Taxonomy, label_B: NDArray[np.int32]) -> NDArray[np.int64]:
    """The nodes of labels, int64 [B]."""
    return np.concatenate([taxonomy.class_node, np.arange(taxonomy.num_nodes)])[label_B].astype(np.int64)

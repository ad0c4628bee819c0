"""What a cascade learns and decides on: documents of classes in a taxonomy, and documents of none of them.

Shapes: **B** documents of a split, **C** classes, **T** nodes of a taxonomy.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from treesearch.applications.taxonomy.run import MAX_WORDS
from treesearch.data import Dataset, SmoothedClassWarning, Split, load_documents
from treesearch.data.dataset import content_hash
from treesearch.errors import DataError, did_you_mean
from treesearch.taxonomy import Taxonomy, load_taxonomy
from treesearch.taxonomy.links import taxonomy_from_links
from treesearch.tree import Tree

ROOT_NODE = 0  # the true node of a document out of scope, and the decision to flag


@dataclass(frozen=True, eq=False)
class CascadeTask:
    """Documents and taxonomy.

    Documents out of scope have a class of their own right under the root. It is trained where the training split has
    some; else no classifier knows of them: ``dataset`` is without them, and their class, the last, has probability 0.
    """

    dataset: Dataset  # of the classes that are trained
    trained_taxonomy: Taxonomy  # over these
    taxonomy: Taxonomy  # over all classes
    out_of_scope: int | None  # the class of documents out of scope; None: there are none
    valid: Split  # all documents, labels of all classes
    test: Split

    @property
    def tree(self) -> Tree:
        """Of the decisions, with a leaf for documents out of scope where they are trained."""
        return self.taxonomy.tree

    @property
    def is_trained(self) -> bool:
        """Whether the class of documents out of scope is."""
        return self.out_of_scope is not None and self.dataset.num_classes == self.taxonomy.num_classes

    @property
    def out_of_scope_leaf(self) -> int | None:
        """The node of this class."""
        return None if self.out_of_scope is None else int(self.tree.class_leaf[self.out_of_scope])

    def truth(self, split: Split) -> Tensor:
        """The true node of each document, int64 [B]: the leaf of its class, or the root where it is out of scope."""
        leaf_C = self.tree.class_leaf.astype(np.int64)
        if self.out_of_scope is not None:
            leaf_C[self.out_of_scope] = ROOT_NODE
        return torch.from_numpy(leaf_C[split.labels])

    def all_classes(self, log_prob: Tensor) -> Tensor:
        """Log-probabilities of the trained classes, nats, as those of all classes, [B, C]."""
        if self.out_of_scope is None or self.is_trained:
            return log_prob
        return torch.nn.functional.pad(log_prob, (0, 1), value=-torch.inf)


def load_cascade_task(
    train: Path,
    valid: Path,
    test: Path,
    taxonomy: Path,
    *,
    out_of_scope: str | None = None,
    parents: str = "error",
) -> CascadeTask:
    """Documents with labels, one of which may say that a document is of no class, and the taxonomy over the others.

    Args:
        train: Documents to learn from.
        valid: Documents that choose settings, thresholds and policies.
        test: Documents of the table.
        taxonomy: As in `load_taxonomy`. The label of documents out of scope need not be in it: it is put right under
            the root.
        out_of_scope: This label; None: there are no such documents.
        parents: As in `treesearch.applications.taxonomy.load_task`.

    Raises:
        DataError: Documents cannot be used, no document has the label of those out of scope, or a label is not in
            the taxonomy.
        TreeError: The file holds no taxonomy.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmoothedClassWarning)  # no count is used that a class does not have
        dataset = load_documents(train, valid, test, context=MAX_WORDS, unseen_labels=True)
    assert dataset.class_names is not None
    names = dataset.class_names
    if out_of_scope is None:
        scope = load_taxonomy(taxonomy, classes=names, parents=parents)
        return CascadeTask(dataset, scope, scope, None, dataset.valid, dataset.test)
    if out_of_scope not in names:
        raise DataError(
            f"documents out of scope must have the label {out_of_scope!r:.60}, but none of the three files has it"
            f"{did_you_mean(out_of_scope, names)}; name the label that they have"
        )
    in_scope = [name for name in names if name != out_of_scope]
    scope = load_taxonomy(taxonomy, classes=in_scope, parents=parents)
    outside = names.index(out_of_scope)
    if (dataset.train.labels == outside).any():
        whole = _with_class_under_root(scope, out_of_scope, names)
        return CascadeTask(dataset, whole, whole, outside, dataset.valid, dataset.test)
    last = len(in_scope)
    class_C = np.arange(len(names), dtype=np.int32) - (np.arange(len(names)) > outside)
    class_C[outside] = last
    train_split, valid_split, test_split = (
        Split(split.inputs, class_C.astype(np.int32)[split.labels])
        for split in (dataset.train, dataset.valid, dataset.test)
    )
    known_valid, known_test = _without(valid_split, last, valid), _without(test_split, last, test)
    reduced = replace(
        dataset,
        train=train_split,
        valid=known_valid,
        test=known_test,
        class_names=tuple(in_scope),
        counts=np.delete(dataset.counts, outside),
        hash=content_hash(
            [split.labels for split in (train_split, known_valid, known_test)], [dataset.hash, *in_scope]
        ),
    )
    whole = _with_class_under_root(scope, out_of_scope, [*in_scope, out_of_scope])
    return CascadeTask(reduced, scope, whole, last, valid_split, test_split)


def _without(split: Split, label: int, path: Path) -> Split:
    kept = split.labels != label
    if not kept.any():
        raise DataError(f"there must be documents in scope, but {str(path)!r} has none; add some")
    return Split(split.inputs[kept], split.labels[kept])


def _with_class_under_root(scope: Taxonomy, name: str, classes: Sequence[str]) -> Taxonomy:
    """A taxonomy with one class more, right under the root; ``classes`` are the names of all in their order."""
    child = np.arange(1, scope.num_nodes + 1, dtype=np.int32)
    parent = np.append(scope.parent[1:], ROOT_NODE).astype(np.int32)
    return taxonomy_from_links([*scope.names, name], child, parent, classes=classes)

"""What can be done with an open node: split its classes, or close it with a named builder.

An action is its name; every parameter can be read off it.

    name                     what it does                                                    legal for n classes where
    ----------------------   -------------------------------------------------------------   -------------------------
    similarity-Q             two similar parts, the first with the share Q of the mass        the task has vectors
    frequency-Q              classes by falling count, cut at the share Q of the mass         always
    interpolated-W           two parts, between 2-means (W = 0) and Shannon-Fano (W = 1)      vectors
    similar-huffman          two similar parts, each of half the sum of 2 ** -code length     vectors
    kway-K                   K similar parts, the heaviest part cut again                     K < n, vectors
    category                 one part for each given category                                 2 categories inside
    taxonomy                 one part for each child of the deepest node of the taxonomy      2 of them, not all classes
                             that has all classes below it
    taxonomy-L               one part for each node of level L of the taxonomy (its root is   2 parts, not all classes
                             of level 0); classes that end above become leaves
    shortlist-S              the S most frequent classes become leaves, the rest one part     S < n - 1
    shortlist-S-kway-K       the same with the rest as K similar parts                        K < n - S, vectors
    SPLIT-start-N            similarity-Q, kway-K, shortlist-S-kway-K or similar-huffman      as without
                             from another random direction: another local optimum
    SPLIT-reassigned         similarity-Q or kway-K, perhaps with a start; then the node is   nodes can be trained
                             trained and its classes reassigned by what it has learned, twice
    SPLIT-project-F          any of these; the parts see a projection to int(D * F) inputs    see below
    close-huffman-K          K-ary Huffman tree                                               always
    close-clustered-K        recursive K-way similarity clustering                            vectors
    close-balanced-K         K-ary tree of least depth, by falling count                      always
    close-interpolated-W     binary, between 2-means (W = 0) and Shannon-Fano (W = 1)         vectors
    close-similar-huffman    binary, Huffman's code lengths with similar classes together     vectors
    close-flat               one softmax                                                      n <= 512
    close-kway-K-REST        kway-K once, each part closed with close-REST; all of it where   vectors, as close-REST,
    close-shortlist-S-       K parts are too many, or close-REST makes it flat; the same with not with close-flat
        kway-K-REST          shortlist-S-kway-K
    MODULE:CALLABLE          what the callable returns without arguments: a `SplitAction`,    as it says
                             with a `Grouping` of your own, or a `Closer`

with 0 < Q < 1, K >= 2, S, N, L >= 1, 0 < F <= 1, 0 <= W <= 1, numbers written the shortest way. No action is legal
below three classes: smaller nodes are never open. Where a taxonomy is refined, units (`envs.units`) take the place of
classes, and the splits by taxonomy are not legal: its nodes are there already. The first projection on a path may have
any size >= 1, a later one must shrink what the node sees; a part of one class, or unit, gets none.
"""

from __future__ import annotations

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.nodes import OpenNode
from envs.task import ConstructionTask
from treesearch.builders import build_tree
from treesearch.builders.assembly import ClassIds, TreeAssembly
from treesearch.builders.categories import parts_by_number
from treesearch.builders.clustering import interpolated_parts, similarity_parts
from treesearch.builders.reassignment import reassign
from treesearch.builders.similar_huffman import similar_huffman_parts
from treesearch.builders.splits import cut_at_fraction, frequency_order
from treesearch.errors import ConfigError, did_you_mean
from treesearch.taxonomy import parts_at, parts_below
from treesearch.tree import Tree

MAX_FLAT = 512  # a wider softmax is what trees are there to avoid
NO_CLASSES = np.zeros(0, np.int64)

DEFAULT_ACTIONS: tuple[str, ...] = (
    "similarity-0.25",
    "similarity-0.5",
    "similarity-0.75",
    "frequency-0.5",
    "interpolated-0.5",
    "kway-4",
    "kway-8",
    "kway-16",
    "kway-24",
    "kway-32",
    "kway-48",
    "kway-64",
    "kway-16-project-1",
    "kway-8-project-0.5",
    "kway-32-project-0.5",
    "kway-32-project-0.25",
    "shortlist-16",
    "shortlist-64",
    "shortlist-256",
    "shortlist-16-kway-32",
    "shortlist-64-kway-16",
    "shortlist-64-kway-32",
    "shortlist-128-kway-64",
    "shortlist-256-kway-32",
    "shortlist-512-kway-64",
    "shortlist-1024-kway-64",
    "shortlist-64-kway-32-project-1",
    "shortlist-128-kway-16-project-1",
    "shortlist-256-kway-16-project-0.5",
    "shortlist-512-kway-8-project-0.5",
    "close-huffman-2",
    "close-clustered-2",
    "close-clustered-4",
    "close-clustered-8",
    "close-clustered-16",
    "close-clustered-32",
    "close-clustered-64",
    "close-interpolated-0.5",
    "close-flat",
)


@dataclass(frozen=True, eq=False)
class Split:
    """The children of a node."""

    leaves: ClassIds  # classes that hang directly under it
    parts: tuple[ClassIds, ...]  # class sets of its other children, two or more rising ids each
    projection_dim: int  # of each part, 0 for none


class Action(ABC):
    """One entry of the action list; either a `SplitAction` or a `Closer`."""

    name: str

    @property
    def by_size(self) -> bool:
        """Whether what is legal depends on the number of classes and what the node sees, not on which they are."""
        return True

    @abstractmethod
    def legal(self, task: ConstructionTask, node: OpenNode) -> bool:
        """Whether the action can be taken at ``node``."""


class Grouping(ABC):
    """A way to group classes, whatever they see."""

    @abstractmethod
    def fits(self, task: ConstructionTask, size: int) -> bool:
        """Whether ``size`` >= 3 classes can be grouped so."""

    def fits_classes(self, task: ConstructionTask, classes: ClassIds) -> bool:
        """Whether these very classes can be, where their number can."""
        return True

    @abstractmethod
    def groups(self, task: ConstructionTask, classes: ClassIds) -> tuple[ClassIds, list[ClassIds]]:
        """Direct leaves, and the groups of rising ids beside them."""


@dataclass(frozen=True)
class Similarity(Grouping):
    """Two similar parts, the first with the share ``fraction`` of the mass."""

    fraction: float
    start: int = 0

    def fits(self, task: ConstructionTask, size: int) -> bool:
        """Needs vectors."""
        return task.vectors is not None

    def groups(self, task: ConstructionTask, classes: ClassIds) -> tuple[ClassIds, list[ClassIds]]:
        """2-means with a quota."""
        return NO_CLASSES, _similar(task, classes, 2, self.fraction, self.start)


@dataclass(frozen=True)
class Frequency(Grouping):
    """Frequent classes and rare ones, the frequent ones with the share ``fraction`` of the mass."""

    fraction: float

    def fits(self, task: ConstructionTask, size: int) -> bool:
        """Always."""
        return True

    def groups(self, task: ConstructionTask, classes: ClassIds) -> tuple[ClassIds, list[ClassIds]]:
        """By falling count, ties by smaller id."""
        ranked = classes[frequency_order(task.counts, classes)]
        cut = cut_at_fraction(task.counts, ranked, self.fraction)
        return NO_CLASSES, [np.sort(ranked[:cut]), np.sort(ranked[cut:])]


@dataclass(frozen=True)
class KWay(Grouping):
    """``num_parts`` similar parts of about equal mass."""

    num_parts: int
    start: int = 0

    def fits(self, task: ConstructionTask, size: int) -> bool:
        """Needs vectors and more classes than parts: as many would be a flat node."""
        return task.vectors is not None and self.num_parts < size

    def groups(self, task: ConstructionTask, classes: ClassIds) -> tuple[ClassIds, list[ClassIds]]:
        """2-means at half the mass, the heaviest part cut again."""
        return NO_CLASSES, _similar(task, classes, self.num_parts, 0.5, self.start)


@dataclass(frozen=True)
class Interpolated(Grouping):
    """Two parts along the similarity direction, cut between the best for scatter and the best for the code."""

    weight: float

    def fits(self, task: ConstructionTask, size: int) -> bool:
        """Needs vectors."""
        return task.vectors is not None

    def groups(self, task: ConstructionTask, classes: ClassIds) -> tuple[ClassIds, list[ClassIds]]:
        """One step of the builder of that name."""
        return NO_CLASSES, interpolated_parts(
            task.require_vectors(), task.attention, task.counts, classes, task.start(), self.weight
        )


@dataclass(frozen=True)
class SimilarHuffman(Grouping):
    """Two similar parts that keep the code lengths of the Huffman tree of these classes."""

    start: int = 0

    def fits(self, task: ConstructionTask, size: int) -> bool:
        """Needs vectors."""
        return task.vectors is not None

    def groups(self, task: ConstructionTask, classes: ClassIds) -> tuple[ClassIds, list[ClassIds]]:
        """One step of the builder of that name."""
        return NO_CLASSES, similar_huffman_parts(
            task.require_vectors(), task.attention, task.counts, classes, task.start(self.start)
        )


@dataclass(frozen=True)
class Category(Grouping):
    """One part for each given category."""

    def fits(self, task: ConstructionTask, size: int) -> bool:
        """Needs categories."""
        return task.categories is not None

    def fits_classes(self, task: ConstructionTask, classes: ClassIds) -> bool:
        """Needs two of them inside, and more classes than categories: as many would be a flat node."""
        assert task.categories is not None
        return 1 < np.unique(task.categories[classes]).size < classes.size

    def groups(self, task: ConstructionTask, classes: ClassIds) -> tuple[ClassIds, list[ClassIds]]:
        """By rising category."""
        assert task.categories is not None
        own = task.categories[classes]
        return NO_CLASSES, parts_by_number(classes, own)


@dataclass(frozen=True)
class TaxonomyLevel(Grouping):
    """One part for each node of a level of the taxonomy, or for each child of the deepest node above all classes."""

    level: int | None = None  # None: right below the deepest common node

    def fits(self, task: ConstructionTask, size: int) -> bool:
        """Needs a taxonomy."""
        return task.taxonomy is not None

    def fits_classes(self, task: ConstructionTask, classes: ClassIds) -> bool:
        """Needs two parts, and more classes than parts: as many would be a flat node."""
        return 1 < np.unique(self._numbers(task, classes)).size < classes.size

    def groups(self, task: ConstructionTask, classes: ClassIds) -> tuple[ClassIds, list[ClassIds]]:
        """In the order of the taxonomy."""
        return NO_CLASSES, parts_by_number(classes, self._numbers(task, classes))

    def _numbers(self, task: ConstructionTask, classes: ClassIds) -> NDArray[np.int64]:
        assert task.taxonomy is not None
        if self.level is None:
            return parts_below(task.taxonomy, classes)
        return parts_at(task.taxonomy, self.level, classes)


@dataclass(frozen=True)
class Reassigned(Grouping):
    """The parts of another grouping by similarity after classes have moved to where the trained node wants them."""

    grouping: Grouping
    rounds: int = 2

    def fits(self, task: ConstructionTask, size: int) -> bool:
        """Needs something that trains nodes."""
        return task.directions is not None and self.grouping.fits(task, size)

    def groups(self, task: ConstructionTask, classes: ClassIds) -> tuple[ClassIds, list[ClassIds]]:
        """Train and reassign, so many rounds."""
        assert task.directions is not None
        leaves, parts = self.grouping.groups(task, classes)
        for _ in range(self.rounds):
            parts = reassign(parts, task.directions(parts), counts=task.counts)
        return leaves, parts


@dataclass(frozen=True)
class Shortlist(Grouping):
    """The ``length`` most frequent classes as direct leaves, the rest as ``num_parts`` similar parts."""

    length: int
    num_parts: int = 1
    start: int = 0

    def fits(self, task: ConstructionTask, size: int) -> bool:
        """The rest must be at least two classes, and more of them than parts."""
        if self.num_parts > 1 and task.vectors is None:
            return False
        return size - self.length > self.num_parts

    def groups(self, task: ConstructionTask, classes: ClassIds) -> tuple[ClassIds, list[ClassIds]]:
        """By falling count, ties by smaller id."""
        ranked = classes[frequency_order(task.counts, classes)]
        rest = np.sort(ranked[self.length :])
        parts = [rest] if self.num_parts == 1 else _similar(task, rest, self.num_parts, 0.5, self.start)
        return ranked[: self.length], parts


def _similar(task: ConstructionTask, classes: ClassIds, num_parts: int, fraction: float, start: int) -> list[ClassIds]:
    vectors = task.require_vectors()
    return similarity_parts(vectors, task.attention, task.counts, classes, task.start(start), num_parts, fraction)


@dataclass(frozen=True)
class SplitAction(Action):
    """Group the classes; the groups stay open, perhaps under a projection."""

    name: str
    grouping: Grouping
    shrink: float | None = None  # F of the projection

    @property
    def by_size(self) -> bool:
        """Unless the grouping looks at the classes."""
        return type(self.grouping).fits_classes is Grouping.fits_classes

    def legal(self, task: ConstructionTask, node: OpenNode) -> bool:
        """See the table of the module."""
        grouping = self.grouping
        if node.size < 3 or not (grouping.fits(task, node.size) and grouping.fits_classes(task, node.classes)):
            return False
        dim = self.projection_dim(task)
        return self.shrink is None or (dim >= 1 and (not node.projected or dim < node.input_dim))

    def projection_dim(self, task: ConstructionTask) -> int:
        """Inputs of the parts under the projection; 0 for none."""
        return 0 if self.shrink is None else int(task.in_features * self.shrink)

    def parts(self, task: ConstructionTask, classes: ClassIds) -> Split:
        """Split ``classes`` (rising)."""
        leaves, groups = self.grouping.groups(task, classes)
        single = [group for group in groups if group.size == 1]
        return Split(
            leaves=np.concatenate([leaves, *single]),
            parts=tuple(group for group in groups if group.size > 1),
            projection_dim=self.projection_dim(task),
        )


class Closer(Action):
    """Finish a node."""

    @property
    @abstractmethod
    def flat_size(self) -> int:
        """Up to how many classes the subtree is one flat node, whatever they are."""

    @abstractmethod
    def close(self, task: ConstructionTask, classes: ClassIds) -> Tree:
        """The subtree over ``classes`` (rising), its class i standing for ``classes[i]``."""


@dataclass(frozen=True)
class BuilderCloser(Closer):
    """Finish a node with a named builder."""

    name: str
    builder: str
    option: tuple[str, Any] | None = None

    @property
    def flat_size(self) -> int:
        """The arity, where there is one."""
        if self.builder == "flat":
            return MAX_FLAT
        return int(self.option[1]) if self.option is not None and self.option[0] == "arity" else 2

    def legal(self, task: ConstructionTask, node: OpenNode) -> bool:
        """See the table of the module."""
        if self.builder in ("clustered", "interpolated", "similar-huffman") and task.vectors is None:
            return False
        return node.size >= 3 and (self.builder != "flat" or node.size <= MAX_FLAT)

    def close(self, task: ConstructionTask, classes: ClassIds) -> Tree:
        """What the builder makes of these classes alone."""
        counts = task.counts[classes]
        return build_tree(
            self.builder,
            counts=counts if counts.any() else np.ones_like(counts),
            vectors=None if task.vectors is None else task.vectors[classes],
            seed=task.seed,
            **dict([self.option] if self.option else []),
        )


@dataclass(frozen=True)
class SplitCloser(Closer):
    """Split a node once and finish each part with another closer, which has all that is too small for both."""

    name: str
    split: SplitAction
    rest: Closer  # must be able to close any number of classes

    @property
    def flat_size(self) -> int:
        """What the other closer makes flat is not split."""
        return self.rest.flat_size

    def legal(self, task: ConstructionTask, node: OpenNode) -> bool:
        """See the table of the module: also where nothing is left to split, so that one choice serves all nodes."""
        return task.vectors is not None and self.rest.legal(task, node)

    def close(self, task: ConstructionTask, classes: ClassIds) -> Tree:
        """The split, and what the other closer makes of its parts."""
        task.require_vectors()  # also where too few classes are left for the split
        if classes.size <= self.flat_size or not self.split.grouping.fits(task, classes.size):
            return self.rest.close(task, classes)
        split, assembly = self.split.parts(task, classes), TreeAssembly()
        root = assembly.open_node()
        assembly.add_leaves(root, np.searchsorted(classes, split.leaves))
        for part in split.parts:
            assembly.graft(root, self.rest.close(task, part), np.searchsorted(classes, part))
        return assembly.finish()[0]


# -- names -------------------------------------------------------------------------------------------------------------

_K, _S, _Q, _W = r"([2-9]|[1-9]\d+)", r"([1-9]\d*)", r"(0\.\d*[1-9])", r"(0|1|0\.\d*[1-9])"
_N = r"(?:-start-([1-9]\d*))?"
_SPLITS: dict[str, Callable[..., Grouping]] = {
    rf"similarity-{_Q}{_N}": lambda q, n: Similarity(float(q), int(n or 0)),
    rf"frequency-{_Q}": lambda q: Frequency(float(q)),
    rf"interpolated-{_W}": lambda w: Interpolated(float(w)),
    rf"similar-huffman{_N}": lambda n: SimilarHuffman(int(n or 0)),
    rf"kway-{_K}{_N}": lambda k, n: KWay(int(k), int(n or 0)),
    r"category": lambda: Category(),
    rf"taxonomy(?:-{_S})?": lambda level: TaxonomyLevel(int(level) if level else None),
    rf"similarity-{_Q}{_N}-reassigned": lambda q, n: Reassigned(Similarity(float(q), int(n or 0))),
    rf"kway-{_K}{_N}-reassigned": lambda k, n: Reassigned(KWay(int(k), int(n or 0))),
    rf"shortlist-{_S}": lambda s: Shortlist(int(s)),
    rf"shortlist-{_S}-kway-{_K}{_N}": lambda s, k, n: Shortlist(int(s), int(k), int(n or 0)),
}
_CLOSERS: dict[str, Callable[..., tuple[str, Any] | None]] = {
    rf"close-(huffman|clustered|balanced)-{_K}": lambda k: ("arity", int(k)),
    rf"close-(interpolated)-{_W}": lambda w: ("weight", float(w)),
    r"close-(similar-huffman|flat)": lambda: None,
}
_SPLIT_CLOSER = rf"close-((?:shortlist-{_S}-)?kway-{_K}{_N})-(.+)"
_PROJECTION = r"(.+?)-project-(1|0\.\d*[1-9])"


def make_action(name: str) -> Action:
    """The action of that name.

    Raises:
        ConfigError: No such action, or no such callable.
    """
    if ":" in name:
        return _imported(name)
    projection = re.fullmatch(_PROJECTION, name)
    stem, shrink = (projection[1], float(projection[2])) if projection else (name, None)
    for pattern, grouping in _SPLITS.items():
        if match := re.fullmatch(pattern, stem):
            return SplitAction(name, grouping(*match.groups()), shrink)
    for pattern, option in _CLOSERS.items():
        if match := re.fullmatch(pattern, name):
            return BuilderCloser(name, match[1], option(*match.groups()[1:]))
    if match := re.fullmatch(_SPLIT_CLOSER, name):
        try:
            split, rest = make_action(match[1]), make_action(f"close-{match[5]}")
        except ConfigError as error:
            raise ConfigError(f"action {name!r:.80} names a part that there is not: {error}") from None
        if isinstance(split, SplitAction) and isinstance(rest, Closer) and rest.name != "close-flat":
            return SplitCloser(name, split, rest)
    hint = did_you_mean(name, DEFAULT_ACTIONS)
    raise ConfigError(
        f"unknown action {name!r:.80}{hint if '?' in hint else ''}; the names are similarity-Q, frequency-Q,"
        " interpolated-W, similar-huffman, kway-K, category, taxonomy, taxonomy-L, shortlist-S, shortlist-S-kway-K,"
        " those by similarity also with -start-N, similarity-Q and kway-K also with -reassigned, each with or without"
        " -project-F, close-huffman-K, close-clustered-K, close-balanced-K, close-interpolated-W,"
        " close-similar-huffman, close-flat, close-kway-K-REST, close-shortlist-S-kway-K-REST with one of those but the"
        " last as REST, with K >= 2 and shares such as 0.5, and module:callable"
    )


def _imported(name: str) -> Action:
    module, _, attribute = name.partition(":")
    try:
        action = getattr(importlib.import_module(module), attribute)()
    except Exception as error:  # whatever a user's module does
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"action {name!r:.80} must name a callable that returns an action without arguments, but:"
            f" {type(error).__name__}: {reason:.160}"
        ) from None
    if not isinstance(action, SplitAction | Closer):
        raise ConfigError(f"action {name!r:.80} must return a SplitAction or a Closer, but got {type(action).__name__}")
    return action


def parse_actions(actions: Sequence[str | Action]) -> tuple[Action, ...]:
    """Actions from names; those that are actions already stay.

    Raises:
        ConfigError: An unknown name, a repeated one, or none at all.
    """
    if isinstance(actions, str) or not actions:
        raise ConfigError(f"actions must be a list of at least one name, but got {actions!r}; see envs.DEFAULT_ACTIONS")
    parsed = tuple(action if isinstance(action, Action) else make_action(action) for action in actions)
    names = [action.name for action in parsed]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"actions must differ, but {name!r} is listed {names.count(name)} times")
    return parsed


def parse_closer(closer: str | Action | None, task: ConstructionTask) -> Closer:
    """The default closer: by name, or None for one that suits the task.

    Raises:
        ConfigError: Not a closer, or one that cannot close every node of the task.
    """
    if closer is None:
        closer = "close-balanced-2" if task.vectors is None else "close-clustered-16"
    action = make_action(closer) if isinstance(closer, str) else closer
    if not isinstance(action, Closer):
        raise ConfigError(f"the closer must be a close-... action, but got {action.name!r}")
    widest = OpenNode(task.widest, 1.0, 0, task.in_features, False)
    if not action.legal(task.over_units, widest):
        raise ConfigError(
            f"the closer must be able to close all {widest.size} classes, but {action.name!r} cannot"
            f" (flat: at most {MAX_FLAT} classes; similarity: vectors); use 'close-balanced-2'"
        )
    return action

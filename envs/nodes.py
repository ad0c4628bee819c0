"""A node of a tree under construction whose children are not decided yet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from treesearch.builders.assembly import ClassIds
from treesearch.tree import Tree


@dataclass(frozen=True, eq=False)
class OpenNode:
    """A set of classes that waits for its split."""

    classes: ClassIds  # [n] rising; of units where a taxonomy is refined
    mass: float  # share of all examples that pass here
    depth: int  # edges from the root
    input_dim: int  # size of what this node's decision sees
    projected: bool  # a projection sits here or above
    parent: int = Tree.NO_PARENT  # provisional id in the assembly
    projection_dim: int = Tree.NO_PROJECTION  # of this node itself

    @property
    def size(self) -> int:
        """n, the number of classes."""
        return self.classes.size

    @cached_property
    def digest(self) -> bytes:
        """Identity of the class set, for memo keys."""
        return blake2b(self.classes.data, digest_size=16).digest()

"""Builders: trees from class counts and class vectors, each deterministic given its seed."""

from treesearch.builders.registry import BUILDERS, build_tree, builder_label, split_builder

__all__ = ["BUILDERS", "build_tree", "builder_label", "split_builder"]

"""Hierarchical softmax: the layer and its kernels."""

from treesearch.softmax.layer import HierarchicalSoftmax

__all__ = ["HierarchicalSoftmax"]

"""Hierarchical softmax: the layer and its kernels."""

from treesearch.softmax.forest_layer import SoftmaxForest
from treesearch.softmax.layer import HierarchicalSoftmax, NodeLogProbs, SoftmaxOutput
from treesearch.softmax.node_targets import NodeTargets
from treesearch.softmax.optim import RowwiseAdagrad, RowwiseAdam
from treesearch.softmax.topk import TopK

__all__ = [
    "HierarchicalSoftmax",
    "NodeLogProbs",
    "NodeTargets",
    "RowwiseAdagrad",
    "RowwiseAdam",
    "SoftmaxForest",
    "SoftmaxOutput",
    "TopK",
]

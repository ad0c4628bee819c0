"""Random trees with probabilities, and naive walks over them: the oracle for decisions."""

from collections.abc import Iterator

import torch
from hypothesis import settings
from hypothesis import strategies as st

from tests.nested import nested_trees
from treesearch import Tree
from treesearch.decisions.node_probs import NodeProbs

few = settings(max_examples=25, deadline=None)  # brute force takes its time, on a busy machine too


def random_probs(tree: Tree, num: int, seed: int, scale: float = 3.0) -> NodeProbs:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(num, tree.num_classes, generator=generator, dtype=torch.float64)
    return NodeProbs.of_log_prob(tree, logits.log_softmax(1))


@st.composite
def trees(draw: st.DrawFn, max_leaves: int = 12) -> Tree:
    return Tree.from_nested(draw(nested_trees(max_leaves=max_leaves)))


def path(tree: Tree, node: int) -> list[int]:
    """Root first, without the root."""
    found = []
    while node > 0:
        found.append(node)
        node = int(tree.parent[node])
    return found[::-1]


def children(tree: Tree, node: int) -> list[int]:
    return [child for child in range(1, tree.num_nodes) if tree.parent[child] == node]


def outcomes(probs: NodeProbs, row: int) -> Iterator[tuple[int, float]]:
    """The leaf and the probability of each class."""
    for cls, prob in enumerate(probs.class_log_prob[row].exp().tolist()):
        yield int(probs.tree.class_leaf[cls]), prob

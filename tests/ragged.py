"""Random taxonomies with classes at any depth, and their paths by naive walks up: the oracle for metrics."""

import numpy as np
from hypothesis import strategies as st

from treesearch.taxonomy import Taxonomy, taxonomy_from_edges

# ROOT - animal - bird - (eagle, owl); animal - fish; ROOT - rock; bird is a class too. Depths 1 to 3.
EDGES = [
    ("animal", "ROOT"),
    ("rock", "ROOT"),
    ("bird", "animal"),
    ("fish", "animal"),
    ("eagle", "bird"),
    ("owl", "bird"),
]
EAGLE, OWL, BIRD, FISH, ROCK = range(5)
ZOO = taxonomy_from_edges(EDGES, classes=["eagle", "owl", "bird", "fish", "rock"])


@st.composite
def taxonomies(draw: st.DrawFn, max_nodes: int = 12) -> Taxonomy:
    """Any taxonomy below the root; classes are all its leaves and some inner nodes, now and then the root, shuffled."""
    num = draw(st.integers(1, max_nodes))
    parents = [draw(st.integers(0, node)) for node in range(num)]  # of nodes 1 .. num
    leaves = set(range(1, num + 1)) - set(parents)
    classes = sorted(leaves | draw(st.sets(st.integers(0, num))))
    names = ["ROOT", *(f"n{node}" for node in range(1, num + 1))]
    chosen = [names[node] for node in draw(st.permutations(classes))]
    return taxonomy_from_edges([(names[node + 1], names[above]) for node, above in enumerate(parents)], classes=chosen)


def path(taxonomy: Taxonomy, cls: int) -> list[int]:
    """Nodes of a class's path, root first."""
    node, found = int(taxonomy.class_node[cls]), []
    while node >= 0:
        found.append(node)
        node = int(taxonomy.parent[node])
    return found[::-1]


def height(taxonomy: Taxonomy, node: int) -> int:
    ways = [path(taxonomy, cls) for cls in range(taxonomy.num_classes)]
    return max(len(way) - 1 - way.index(node) for way in ways if node in way)


def scores(rng: np.random.Generator, num: int, taxonomy: Taxonomy) -> np.ndarray:
    """Log-probabilities float64 [num, C] with a clear favourite in most rows."""
    logits = 3 * rng.standard_normal((num, taxonomy.num_classes))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))

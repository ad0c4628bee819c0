"""The frozen evaluator by the book: one node, or one block, after the other, in float64 and with recursion."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch import Tree
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen import initial_state

CHUNK, MINIBATCH, WIDE_MINIBATCH, VERY_WIDE = 4096, 32, 256, 512
PROJECTION_RATE, INITIAL_SQUARE = 0.03, 0.01

Array = NDArray[Any]


@dataclass
class Node:
    """What one internal node knows: its classes, and what it has learned."""

    children: list[frozenset[int]]  # classes below each
    below: "list[Node]"  # internal children
    weight: Array  # [rows, d]
    bias: Array  # [rows]
    projection: Array | None  # [d, source d]
    index: int = 0

    def __post_init__(self) -> None:
        self.classes = frozenset[int]().union(*self.children)
        self.square = np.full(len(self.bias), INITIAL_SQUARE)
        self.projection_square = np.full(self.weight.shape[1], INITIAL_SQUARE)

    def branch(self, label: int) -> int:
        return next(i for i, classes in enumerate(self.children) if label in classes)

    def logits(self, x_md: Array) -> Array:
        """One per child, [m, K]; a binary node's second child has logit 0."""
        logits = x_md @ self.weight.T + self.bias
        return logits if len(self.children) > 2 else np.hstack([logits, np.zeros_like(logits)])

    def log_probs(self, x_md: Array) -> Array:
        logits = self.logits(x_md)
        top = logits.max(1, keepdims=True)
        normalised: Array = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
        return normalised

    def decide(self, x_md: Array, branches: list[int], rate: float) -> Array:
        """Learn one decision from a minibatch; returns the gradient of its inputs."""
        if len(self.children) == 2 and len(x_md) > 1:  # binary nodes always learn row by row
            return np.vstack([self.decide(x_md[i : i + 1], branches[i : i + 1], rate) for i in range(len(x_md))])
        residual = np.exp(self.log_probs(x_md)) - np.eye(len(self.children))[branches]
        residual = residual[:, : len(self.bias)]
        grad = residual @ self.weight
        norm = ((x_md**2).sum(1) + 1) / (x_md.shape[1] + 1)
        self.square += (residual**2 * norm[:, None]).sum(0)
        change = residual * (rate / np.sqrt(self.square))
        self.weight -= change.T @ x_md
        self.bias -= change.sum(0)
        return grad

    def learn(self, x_md: Array, labels: list[int], rate: float, *, with_below: bool) -> Array:
        """Learn from a minibatch, with all nodes below if this is a block; returns the gradient of the inputs."""
        seen = x_md if self.projection is None else x_md @ self.projection.T
        grad = self.decide(seen, [self.branch(label) for label in labels], rate)
        for child in self.below if with_below else []:
            own = [i for i, label in enumerate(labels) if label in child.classes]
            if own:
                grad[own] += child.learn(seen[own], [labels[i] for i in own], rate, with_below=True)
        if self.projection is None:
            return grad
        above: Array = grad @ self.projection
        norm = (x_md**2).sum(1) / x_md.shape[1]
        self.projection_square += (grad**2 * norm[:, None]).sum(0)
        step = PROJECTION_RATE * rate / np.sqrt(self.projection_square)
        self.projection -= step[:, None] * (grad.T @ x_md)
        return above

    def score(self, x_md: Array, labels: list[int], nll: Array, *, with_below: bool) -> None:
        """Add the summed NLL of each node to ``nll`` [N]."""
        seen = x_md if self.projection is None else x_md @ self.projection.T
        branches = [self.branch(label) for label in labels]
        nll[self.index] -= self.log_probs(seen)[np.arange(len(labels)), branches].sum()
        for child in self.below if with_below else []:
            own = [i for i, label in enumerate(labels) if label in child.classes]
            child.score(seen[own], [labels[i] for i in own], nll, with_below=True)


def evaluate(
    tree: Tree,
    *,
    train: Features,
    valid: Features,
    counts: Array,
    vectors: Array | None = None,
    learning_rate: float,
    epochs: int = 1,
) -> NDArray[np.float64]:
    """Summed NLL of each node, [N]; the same algorithm as `evaluate_frozen`."""
    nodes = make_nodes(tree, train.x.shape[1], counts, vectors)
    nll = np.zeros(tree.num_internal)
    inside_block = set[int]()
    for node in nodes:
        is_block = node.projection is not None
        if is_block or node.index in inside_block:
            inside_block.update(child.index for child in node.below)
        if node.index in inside_block:
            continue
        passing = [t for t, label in enumerate(train.y.tolist()) if label in node.classes]
        size = WIDE_MINIBATCH if len(node.children) >= VERY_WIDE else MINIBATCH
        for _ in range(epochs):
            for chunk in range(0, len(train.y), CHUNK):
                tokens = [t for t in passing if chunk <= t < chunk + CHUNK]
                for low in range(0, len(tokens), size):
                    batch = tokens[low : low + size]
                    x = train.x[batch].astype(np.float64)
                    node.learn(x, train.y[batch].tolist(), learning_rate, with_below=is_block)
        passing = [t for t, label in enumerate(valid.y.tolist()) if label in node.classes]
        node.score(valid.x[passing].astype(np.float64), valid.y[passing].tolist(), nll, with_below=is_block)
    return nll


def make_nodes(tree: Tree, in_features: int, counts: Array, vectors: Array | None) -> list[Node]:
    """All internal nodes, untrained, in canonical order. Only the projections' start is taken from the evaluator."""
    mass = np.maximum(counts, 0.5)
    projections = initial_state(tree, in_features, counts, vectors)[1].projection.astype(np.float64)
    classes = class_sets(tree)
    used, dims, nodes = 0, dict[int, int](), list[Node]()
    for index in range(tree.num_internal):
        source = dims.get(int(tree.parent[index]), in_features)
        dims[index] = dim = int(tree.projection_dim[index]) or source
        projection = None
        if tree.projection_dim[index]:
            projection = projections[used : used + dim * source].reshape(dim, source)
            used += dim * source
        children = [classes[child] for child in tree.children(index).tolist()]
        log_mass = np.log([mass[list(child)].sum() for child in children])
        bias = log_mass - np.log(mass[list(classes[index])].sum())
        if len(children) == 2:
            bias = log_mass[:1] - log_mass[1:]
        nodes.append(Node(children, [], np.zeros((len(bias), dim)), bias, projection, index))
    for node in nodes[1:]:
        nodes[tree.parent[node.index]].below.append(node)
    return nodes


def class_sets(tree: Tree) -> list[frozenset[int]]:
    """Classes below each node, leaves included."""
    below: list[frozenset[int]] = [frozenset()] * tree.num_internal + [frozenset([int(c)]) for c in tree.leaf_class]
    for node in range(tree.num_internal - 1, -1, -1):
        below[node] = frozenset[int]().union(*(below[child] for child in tree.children(node)))
    return below


def class_vectors(num_classes: int, in_features: int) -> NDArray[np.float32]:
    """Vectors of the classes, [C, D], for the start of projections that shrink."""
    return np.random.default_rng(7).standard_normal((num_classes, in_features)).astype(np.float32)


def planted(
    num_classes: int, num_tokens: int, *, in_features: int = 6, noise: float = 0.5, seed: int = 0
) -> tuple[Features, Features, NDArray[np.float64]]:
    """Classes around their own centres, low ones frequent: training and validation split, and training counts."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_classes, in_features))
    splits = []
    for _ in range(2):
        labels = (rng.random(num_tokens) ** 2 * num_classes).astype(np.int32)
        x = centres[labels] + noise * rng.standard_normal((num_tokens, in_features))
        splits.append(Features(x.astype(np.float32), labels))
    train, valid = splits
    return train, valid, np.bincount(train.y, minlength=num_classes).astype(np.float64)

"""Trees as `hierarchicalsoftmax.SoftmaxNode`, the nodes over which that package computes its loss.

These are objects only: the package keeps trees in pickle files, which treesearch neither writes nor opens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treesearch.errors import MissingExtraError, TreeError
from treesearch.exchange.labels import class_labels
from treesearch.exchange.links import GrowingTree
from treesearch.tree import Tree

if TYPE_CHECKING:
    from hierarchicalsoftmax import SoftmaxNode

# Both are the package's: it recurses from level to level, and compares each new child with all its siblings.
MAX_DEPTH = 300
MAX_ARITY = 20_000


def to_softmax_node(tree: Tree) -> SoftmaxNode:
    """The root of the tree, indexed, with children in canonical order; 100,000 classes take some 4 s and 1 GB.

    A leaf's name is the label of its class and its attribute ``class_id`` the class; inner nodes are named after their
    numbers. ``root.get_node_ids(leaves)`` gives the ids that its loss takes as targets. The layer before it has
    ``root.layer_size`` outputs, one for each node but the root.

    Raises:
        MissingExtraError: hierarchicalsoftmax is not installed.
        TreeError: The tree has projections, a single class, more than `MAX_DEPTH` levels or more than `MAX_ARITY`
            children somewhere, or two classes have one name.
    """
    node_type = _node_type()
    if tree.projection_dim.any():
        raise TreeError("SoftmaxNode has no projections, but the tree has; use tree.without_projections()")
    if tree.num_classes == 1:
        raise TreeError("SoftmaxNode needs a decision, but the tree has a single class")
    if tree.max_depth > MAX_DEPTH or int(tree.arities.max()) > MAX_ARITY:
        raise TreeError(
            f"SoftmaxNode must have at most {MAX_DEPTH} levels and {MAX_ARITY} children a node, but the tree has"
            f" {tree.max_depth} and {int(tree.arities.max())}; take a flatter or narrower one"
        )
    labels = class_labels(tree)
    root = node_type("0")
    nodes: list[SoftmaxNode] = [root] * tree.num_nodes
    first_leaf, classes = tree.num_internal, tree.leaf_class.tolist()
    for above, node in zip(tree.parent[tree.child_idx].tolist(), tree.child_idx.tolist(), strict=True):
        if node < first_leaf:
            nodes[node] = node_type(str(node), parent=nodes[above])
        else:
            cls = classes[node - first_leaf]
            nodes[node] = node_type(labels[cls], parent=nodes[above], class_id=cls)
    root.set_indexes()
    return root


def from_softmax_node(root: SoftmaxNode) -> Tree:
    """The tree below a node; knobs of the training on nodes (weights, smoothing, focal loss) are left out.

    The class of a leaf is its attribute ``class_id`` where all leaves have one, as `to_softmax_node` gives it;
    otherwise classes are as `treesearch.exchange.labels.ids_of_labels` has them by the names of the leaves. Nodes with
    a single child are collapsed.

    Raises:
        MissingExtraError: hierarchicalsoftmax is not installed.
        TreeError: It is no SoftmaxNode, a leaf stands twice, or the ``class_id`` are not 0 .. C-1.
    """
    if not isinstance(root, _node_type()):
        raise TreeError(f"a SoftmaxNode must be given, but got {type(root).__name__}")
    tree = GrowingTree()
    leaves: list[tuple[int, SoftmaxNode]] = []
    stack = [(root, Tree.NO_PARENT)]
    while stack:
        node, above = stack.pop()
        if node.children:
            number = tree.add_node(above)
            stack.extend((child, number) for child in reversed(node.children))
        else:
            leaves.append((above, node))
    names = [str(leaf.name) for _, leaf in leaves]
    classes = [getattr(leaf, "class_id", None) for _, leaf in leaves]
    by_id = None not in classes
    for (above, _), label in zip(leaves, map(str, classes) if by_id else names, strict=True):
        tree.add_leaf(above, label)
    built = tree.tree()
    if not by_id:
        return built
    if built.class_names is not None:
        raise TreeError(f"class_id must be 0 .. {len(leaves) - 1}, one a leaf, but got such as {classes[0]!r:.40}")
    names_by_class = [name for _, name in sorted(zip(classes, names, strict=True))]
    named_after_ids = names_by_class == list(map(str, range(len(leaves))))
    return built if named_after_ids else built.annotate(class_names=names_by_class)


def _node_type() -> Any:
    try:
        from hierarchicalsoftmax import SoftmaxNode
    except ImportError:
        raise MissingExtraError("hierarchicalsoftmax", "interop") from None
    return SoftmaxNode

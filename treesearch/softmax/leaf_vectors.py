"""A vector for every class of a hierarchical softmax: as its parameters, or read off the rows of its nodes.

Shapes: **B** batch, **C** classes, **D** features, **M** nodes in all, **N** internal nodes, **R** logit rows.

`LeafVectorSoftmax` has leaf vectors as parameters and derives the rows of the nodes from them; `tied_leaf_vectors`
reads leaf vectors off an ordinary `HierarchicalSoftmax`. Either way a loss on leaf vectors, such as
`treesearch.objectives.contrastive.info_nce`, and the layer's own train the same parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from treesearch.errors import DataError, TreeError
from treesearch.softmax import pretrained
from treesearch.softmax.checks import check_linear, check_place
from treesearch.softmax.dispatch import Kernel, Parameters
from treesearch.softmax.initialization import draw_uniform, mass_shares, node_masses, row_children, split_entropies
from treesearch.softmax.layer import HierarchicalSoftmax
from treesearch.softmax.tree_sums import sums_down, sums_up
from treesearch.tree import Tree, check_counts


class LeafVectorSoftmax(HierarchicalSoftmax):
    """A `HierarchicalSoftmax` whose parameters are a vector and a bias for each class.

    A subtree has the count-weighted mean of the vectors of its classes, and of their biases plus the entropy of their
    shares: what `treesearch.softmax.initialization.rows_from_linear` starts a layer from, here kept throughout
    training. A wide node's rows are its children's vectors, a binary node's row is the first child's less the
    second's; so a depth-1 tree over C > 2 classes is ``nn.Linear(D, C)`` with these vectors as rows.

    Rows are derived anew at each call, in O(C D). For many calls between two steps take the layer of `to_rows`, and
    likewise for exports and other uses that need rows as parameters. Gradients are dense.

    Args:
        in_features: D.
        tree: Over C classes, without projections.
        bias: Whether classes have a bias.
        device: As in `nn.Linear`. Derivation runs on the CPU: on other devices the vectors go there and back.
        dtype: As in `nn.Linear`.
        counts: [C] weights of the classes in the means; a class without any is given half a count. None: all alike.
        kernel: As in `HierarchicalSoftmax`.

    Attributes:
        leaf_vectors: [C, D], by class.
        leaf_biases: [C], or None.
        weights: The derived rows, one matrix [R, D]; not a parameter.
        biases: The derived biases, one vector [R], or none.
        class_counts: float64 [C], part of the state: weights trained with other counts are refused.

    Raises:
        DataError: ``in_features`` is no size, the kernel is unknown, or the counts do not fit.
        TreeError: ``tree`` is none, or has projections.
    """

    leaf_vectors: nn.Parameter
    leaf_biases: nn.Parameter | None
    class_counts: Tensor

    def __init__(
        self,
        in_features: int,
        tree: Tree,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        counts: ArrayLike | None = None,
        kernel: Kernel = "auto",
    ) -> None:
        if isinstance(tree, Tree):  # else the base class says so
            _check_bare(tree)
            counts_C = np.ones(tree.num_classes) if counts is None else check_counts(counts, tree.num_classes)
        super().__init__(in_features, tree, bias, device, dtype, kernel=kernel)
        self._counts_C = counts_C.copy()
        self._share_M = mass_shares(tree, node_masses(tree, counts_C))
        self._entropy_M = sums_up(tree, self._share_M, torch.from_numpy(split_entropies(tree, self._share_M))[:, None])
        child_R, second_R, is_binary_R = row_children(self.layout)
        self._child_R, self._second_R = child_R.astype(np.int64), np.where(is_binary_R, second_R, 0).astype(np.int64)
        self._is_binary_R = is_binary_R
        self._leaf_class = tree.leaf_class.astype(np.int64)
        self.register_buffer("class_counts", torch.from_numpy(self._counts_C.copy()).to(device))

    # -- parameters --------------------------------------------------------------------------------------------------

    def _make_parameters(self, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        num_classes = self.tree.num_classes
        self.leaf_vectors = nn.Parameter(torch.empty(num_classes, self.in_features, device=device, dtype=dtype))
        self.leaf_biases = nn.Parameter(torch.empty(num_classes, device=device, dtype=dtype)) if bias else None

    @property
    def _example(self) -> Tensor:
        return self.leaf_vectors

    def reset_parameters(self, counts: ArrayLike | None = None, generator: torch.Generator | None = None) -> None:
        """Draw vectors as `nn.Linear` does; biases are zero, or predict ``counts`` where they are given.

        The biases predict counts exactly where these are also the weights of the means.

        Args:
            counts: [C] class counts; a class without any is given half a count.
            generator: Of the vectors, on the CPU.

        Raises:
            DataError: The counts do not fit the tree, or the layer has no biases to hold them.
        """
        check_place(counts, bias=self.leaf_biases is not None)
        draw_uniform(self.leaf_vectors, generator)
        if self.leaf_biases is not None:
            start_C = torch.zeros(self.tree.num_classes, dtype=torch.float64)
            if counts is not None:
                mass_M = node_masses(self.tree, counts)
                start_C = torch.from_numpy(np.log(mass_M[self.tree.class_leaf] / mass_M[0]))
            with torch.no_grad():
                self.leaf_biases.copy_(start_C)

    def subtree_vectors(self) -> Tensor:
        """Mean leaf vector below each node, [M, D]; rows N and up are the leaves', in the tree's order.

        Differentiable, and of the layer's type and device.
        """
        return self._means(self.leaf_vectors)

    @property
    def weights(self) -> list[Tensor]:  # type: ignore[override]
        """The derived rows, one matrix [R, D]."""
        return [self._rows(self.subtree_vectors())]

    @property
    def biases(self) -> list[Tensor]:  # type: ignore[override]
        """The derived biases, one vector [R]; none where the layer has no biases."""
        if self.leaf_biases is None:
            return []
        entropy_M1 = self._entropy_M.to(self.leaf_biases)
        return [self._rows(self._means(self.leaf_biases[:, None]) + entropy_M1).squeeze(1)]

    @property
    def projections(self) -> list[Tensor]:  # type: ignore[override]
        """None: an empty list."""
        return []

    def parameter_groups(self, counts: ArrayLike) -> list[dict[str, Any]]:
        """Refused: the rates are those of rows, which are no parameters here.

        Raises:
            DataError: Always.
        """
        raise DataError("rates by row need rows as parameters, but these are derived; pass layer.parameters()")

    def _means(self, values_Cd: Tensor) -> Tensor:
        """Weighted mean of ``values`` over the classes below each node, [M, d]."""
        leaf_class = torch.from_numpy(self._leaf_class).to(values_Cd.device)
        inner = values_Cd.new_zeros(self.tree.num_internal, values_Cd.shape[1])
        return sums_up(self.tree, self._share_M, torch.cat([inner, values_Cd[leaf_class]]))

    def _rows(self, values_Md: Tensor) -> Tensor:
        """Children's values, or their difference at binary nodes, [R, d]."""
        child, second, binary = (
            torch.from_numpy(array).to(values_Md.device)
            for array in (self._child_R, self._second_R, self._is_binary_R[:, None])
        )
        child_Rd = values_Md.index_select(0, child)
        return torch.where(binary, child_Rd - values_Md.index_select(0, second), child_Rd)

    # -- other layers and files ---------------------------------------------------------------------------------------

    @classmethod
    def from_linear(cls, linear: nn.Linear, tree: Tree, counts: ArrayLike | None = None, **options: Any) -> Self:
        """A layer with the rows of a flat one as leaf vectors, and its biases (zero where it has none).

        Args:
            linear: Of D features and C outputs; its device and dtype are kept.
            tree: Over C classes, without projections.
            counts: [C] weights of the classes in the means; None weighs all alike.
            **options: ``kernel`` of the layer.

        Raises:
            DataError: The layer or the counts do not fit the tree.
            TreeError: The tree has projections.
        """
        check_linear(linear)
        if linear.out_features != tree.num_classes:
            raise DataError(
                f"the flat layer must have one output per class, but has {linear.out_features} for"
                f" {tree.num_classes} classes; take a layer over the classes of the tree"
            )
        weight = linear.weight.detach()
        layer = cls(linear.in_features, tree, True, weight.device, weight.dtype, counts=counts, **options)
        with torch.no_grad():
            layer.leaf_vectors.copy_(weight)
            if linear.bias is not None and layer.leaf_biases is not None:
                layer.leaf_biases.copy_(linear.bias)
        return layer

    @torch.no_grad()
    def to_rows(self, **options: Any) -> HierarchicalSoftmax:
        """An ordinary layer with a copy of the derived rows as its parameters, and the same probabilities.

        Args:
            **options: ``sparse`` and ``kernel`` of the layer.
        """
        like = self.leaf_vectors
        bias = self.leaf_biases is not None
        settings: dict[str, Any] = {"kernel": self.kernel, **options}
        layer = HierarchicalSoftmax(self.in_features, self.tree, bias, like.device, like.dtype, **settings)
        layer.weights[0].copy_(self.weights[0])
        for own, derived in zip(layer.biases, self.biases, strict=True):
            own.copy_(derived)
        return layer.train(self.training)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tree, leaf vectors, counts (safetensors) and settings into ``folder``; as the base class does.

        Raises:
            OSError: It cannot be written.
        """
        tensors = {name: tensor for name, tensor in self.state_dict().items() if name != "tree_hash"}
        settings: dict[str, pretrained.JSON] = {
            "layer": _NAME,
            "in_features": self.in_features,
            "bias": self.leaf_biases is not None,
        }
        pretrained.save_layer(Path(folder), tree=self.tree, tensors=tensors, config=settings)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: torch.device | str | None = None, **options: Any) -> Self:
        """The layer that `save_pretrained` wrote, of the type it had.

        Args:
            folder: Written by `save_pretrained` of this class.
            device: Where to put it; None: the CPU.
            **options: ``kernel`` of the layer.

        Raises:
            TreeError: The tree is missing or damaged, or the files do not belong together.
            DataError: Vectors or settings are missing or damaged, or of another kind of layer.
        """
        saved = pretrained.load_layer(Path(folder), device=device, layer=_NAME)
        in_features, bias, num_classes = saved.config["in_features"], saved.config["bias"], saved.tree.num_classes
        shapes = {"leaf_vectors": (num_classes, in_features), "class_counts": (num_classes,)}
        if bias:
            shapes["leaf_biases"] = (num_classes,)
        found = {name: tuple(value.shape) for name, value in saved.tensors.items()}
        dtypes = {value.dtype for name, value in saved.tensors.items() if name != "class_counts"}
        if found != shapes or len(dtypes) != 1 or not next(iter(dtypes)).is_floating_point:
            raise DataError(f"the vectors in {str(folder)!r} must be those of its tree, of one type; save it again")
        counts_C = saved.tensors["class_counts"]
        if counts_C.dtype != torch.float64:
            raise DataError(f"class_counts in {str(folder)!r} must be float64, but are {counts_C.dtype}; save it again")
        layer = cls(in_features, saved.tree, bias, device, dtypes.pop(), counts=counts_C.cpu().numpy(), **options)
        layer.load_state_dict({**saved.tensors, "tree_hash": layer.tree_hash})
        return layer

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        theirs = state_dict.get(prefix + "class_counts")
        if theirs is not None and not theirs.is_meta and not np.array_equal(theirs.cpu().numpy(), self._counts_C):
            raise DataError(
                "the vectors must have been trained with this layer's counts, but were with others;"
                " build the layer with the counts that were saved with them"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _all_parameters(self) -> Parameters:
        return Parameters(self.weights, self.biases, [])

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        # Of full precision whatever the layer's type; `to_empty` has left no value in it.
        self.class_counts = torch.from_numpy(self._counts_C.copy()).to(self.class_counts.device)
        return self

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}, bias={self.leaf_biases is not None}"


_NAME = LeafVectorSoftmax.__name__


def tied_leaf_vectors(layer: HierarchicalSoftmax) -> Tensor:
    """A vector v_c for each class such that ``h . v_c`` is the sum of the logits taken on its path, without biases.

    A wide node's logit is that of the child taken, a binary node's is its row's for the first child and the negative
    for the second. So the vectors are signed sums of rows, and what a loss on them teaches goes into the rows. O(M D).

    Args:
        layer: Over a tree without projections.

    Returns:
        [C, D], by class, differentiable; of the layer's type and device.

    Raises:
        TreeError: The tree has projections.
    """
    tree = layer.tree
    _check_bare(tree)
    child_R, second_R, is_binary_R = row_children(layer.layout)
    rows_RD = layer.weights[0]
    child, second, binary, leaf = (
        torch.from_numpy(array.astype(np.int64)).to(rows_RD.device)
        for array in (child_R, second_R[is_binary_R], np.flatnonzero(is_binary_R), tree.class_leaf)
    )
    step_MD = rows_RD.new_zeros(tree.num_nodes, layer.in_features)
    step_MD = step_MD.index_copy(0, child, rows_RD).index_copy(0, second, -rows_RD[binary])
    return sums_down(tree, np.ones(tree.num_nodes), step_MD)[leaf]


def _check_bare(tree: Tree) -> None:
    num_projections = int(np.count_nonzero(tree.projection_dim))
    if num_projections:
        raise TreeError(
            f"leaf vectors need a tree without projections, but {num_projections} nodes have one;"
            " use tree.without_projections()"
        )

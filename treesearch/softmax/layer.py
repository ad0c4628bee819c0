"""`HierarchicalSoftmax`: the output layer over a tree, a drop-in for `torch.nn.AdaptiveLogSoftmaxWithLoss`.

Shapes: **B** batch, **D** features, **C** classes, **L** longest path. Wherever B stands, any leading shape will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from treesearch.errors import DataError, TreeError
from treesearch.softmax import pretrained
from treesearch.softmax.checks import check_linear, check_place, check_range, flat_input, flat_target
from treesearch.softmax.dispatch import Dispatcher, Kernel, Parameters
from treesearch.softmax.initialization import draw_uniform, log_mass_biases, rows_from_linear
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.softmax.nll import Reduction, check_settings, reduced_nll
from treesearch.softmax.node_targets import NodeTargets
from treesearch.softmax.row_rates import row_rates
from treesearch.softmax.topk import TopK, check_arguments
from treesearch.tree import Tree


class SoftmaxOutput(NamedTuple):
    """What `HierarchicalSoftmax.forward` returns, like torch's adaptive softmax."""

    output: Tensor  # [B] log-probability of each target, nats
    loss: Tensor  # scalar, mean negative log-probability


class NodeLogProbs(NamedTuple):
    """The decisions on the paths of the targets, root first."""

    log_prob: Tensor  # [B, L] log-probability of the branch taken, nats; 0 beyond the end of the path
    node: Tensor  # int64 [B, L] internal node of the tree; -1 beyond the end of the path


class HierarchicalSoftmax(nn.Module):
    """Log-probabilities of classes on a tree: one small softmax per internal node on the path.

    A binary node has one weight row, ``P(child 0) = sigmoid``; a node of arity k > 2 has k rows. Rows stand together
    per node, nodes in canonical order, so a depth-1 tree over C > 2 classes is ``nn.Linear(D, C)`` and ``log_softmax``.

    Args:
        in_features: D.
        tree: Over C classes.
        bias: Whether logits have a bias.
        device: As in `nn.Linear`.
        dtype: As in `nn.Linear`.
        sparse: Whether the gradients of all parameters are row-sparse, as those of ``nn.Embedding(sparse=True)``: a
            step then touches the rows on the batch's paths alone. For optimisers that take such gradients:
            `RowwiseAdam` and `RowwiseAdagrad` of `treesearch.softmax`, `torch.optim.SparseAdam`, SGD without momentum.
        kernel: How targets are scored. ``cpu``: compiled for float32 on the CPU; ``gpu``: dense operations of fixed
            shape without synchronisation, on any device, for `torch.compile` and `torch.export`; ``reference``: plain
            torch on any device and type; ``auto``: ``cpu`` where it can be used, ``gpu`` on other devices, else
            ``reference``. On the CPU a layer that is to be compiled whole or exported must be made with ``gpu``.

    Attributes:
        weights: One matrix [rows, width] per distinct input width, the widest (D) first.
        biases: One vector [rows] per width; empty without bias.
        projections: One matrix [d, source d] per projecting node, in canonical order.
        tree_hash: uint8 [16], part of the state: weights of another tree are refused.

    Raises:
        DataError: ``in_features`` is no size, or the kernel unknown.
        TreeError: ``tree`` is none, or a projection is larger than ``in_features``.
    """

    tree_hash: Tensor

    def __init__(
        self,
        in_features: int,
        tree: Tree,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        sparse: bool = False,
        kernel: Kernel = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(in_features, int) or in_features < 1:
            raise DataError(f"in_features must be a whole number >= 1, but got {in_features!r}")
        if not isinstance(tree, Tree):
            raise TreeError(f"tree must be a Tree, but got {type(tree).__name__}; use Tree.load or Tree.from_nested")
        self.in_features = in_features
        self.tree = tree
        self.sparse = sparse
        self.layout = SoftmaxLayout.of(tree, in_features)
        self._kernels = Dispatcher(self.layout, kernel)
        self._make_parameters(bias, device, dtype)
        self.register_buffer("tree_hash", _hash_bytes(tree).to(device))
        self.reset_parameters()
        self._kernels.move(self._example.device)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.tree.num_classes

    @property
    def kernel(self) -> Kernel:
        """How targets are scored; see the class."""
        return self._kernels.kernel

    @kernel.setter
    def kernel(self, kernel: Kernel) -> None:
        self._kernels = Dispatcher(self.layout, kernel)
        self._kernels.move(self._example.device)

    # -- parameters --------------------------------------------------------------------------------------------------

    def _make_parameters(self, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Register the parameters, without values yet."""
        self.weights, self.biases, self.projections = (
            nn.ParameterList(nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) for shape in shapes)
            for shapes in self.layout.parameter_shapes(bias)
        )

    @property
    def _example(self) -> Tensor:
        """Any parameter: all are of one type, on one device."""
        return self.weights[0]

    def reset_parameters(self, counts: ArrayLike | None = None, generator: torch.Generator | None = None) -> None:
        """Draw weights as `nn.Linear` does; biases are zero, or predict ``counts`` where they are given.

        Args:
            counts: [C] class counts; a class without any is given half a count.
            generator: Of the weights, on the CPU.

        Raises:
            DataError: The counts do not fit the tree, or the layer has no biases to hold them.
        """
        check_place(counts, bias=len(self.biases) > 0)
        starts = None if counts is None else torch.from_numpy(log_mass_biases(self.tree, counts))
        with torch.no_grad():
            for matrix in [*self.weights, *self.projections]:
                draw_uniform(matrix, generator)
            begin = 0
            for vector in self.biases:
                rows = self.layout.row_order[begin : begin + vector.numel()]
                begin += vector.numel()
                vector.copy_(torch.zeros(rows.size, device="cpu") if starts is None else starts[rows])

    def parameter_groups(self, counts: ArrayLike) -> list[dict[str, Any]]:
        """All parameters in groups for `RowwiseAdam` or `RowwiseAdagrad`, with a learning rate for each row.

        Rows of nodes that few examples pass get a lower one, down to half: see `treesearch.softmax.row_rates`. Groups
        must be made anew where the layer has moved to another device.

        Args:
            counts: [C] class counts of the training data.

        Raises:
            DataError: The counts do not fit the tree.
        """
        groups: list[dict[str, Any]] = []
        for index, rates in enumerate(row_rates(self.layout, counts)):
            params = [self.weights[index], *self.biases[index : index + 1]]
            groups.append({"params": params, "row_rates": torch.from_numpy(rates).to(self.weights[index].device)})
        if len(self.projections):
            groups.append({"params": list(self.projections)})
        return groups

    @classmethod
    def from_linear(cls, linear: nn.Linear, tree: Tree, counts: ArrayLike | None = None, **options: Any) -> Self:
        """A layer that starts from a trained flat one; see `treesearch.softmax.initialization.rows_from_linear`.

        Args:
            linear: Of D features and C outputs; its device and dtype are kept.
            tree: Over C classes.
            counts: [C] class counts, the weights of the classes in the means; None weighs all alike.
            **options: ``sparse`` and ``kernel`` of the layer.

        Raises:
            DataError: The layer or the counts do not fit the tree.
        """
        check_linear(linear)
        weight = linear.weight.detach()
        bias = None if linear.bias is None else linear.bias.detach().cpu().double().numpy()
        layout = SoftmaxLayout.of(tree, linear.in_features)
        start = rows_from_linear(layout, weight.cpu().double().numpy(), bias, counts)
        layer = cls(linear.in_features, tree, True, weight.device, weight.dtype, **options)
        with torch.no_grad():
            for parameters, values in (
                (layer.weights, start.weights),
                (layer.biases, start.biases),
                (layer.projections, start.projections),
            ):
                for parameter, value in zip(parameters, values, strict=True):
                    parameter.copy_(torch.from_numpy(value))
        return layer

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tree, weights (safetensors) and settings into ``folder``, which is made; existing files are replaced.

        Raises:
            OSError: It cannot be written.
        """
        tensors = {name: tensor for name, tensor in self.state_dict().items() if name != "tree_hash"}
        settings = {"in_features": self.in_features, "bias": len(self.biases) > 0, "sparse": self.sparse}
        pretrained.save_layer(Path(folder), tree=self.tree, tensors=tensors, config=settings)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: torch.device | str | None = None, **options: Any) -> Self:
        """The layer that `save_pretrained` wrote, of the type it had.

        Args:
            folder: Written by `save_pretrained`.
            device: Where to put it; None: the CPU.
            **options: ``sparse`` and ``kernel`` of the layer.

        Raises:
            TreeError: The tree is missing or damaged, or the files do not belong together.
            DataError: Weights or settings are missing or damaged, or of another kind of layer.
        """
        saved = pretrained.load_layer(Path(folder), device=device)
        in_features, bias, sparse = saved.config["in_features"], saved.config["bias"], saved.config.get("sparse")
        shapes = SoftmaxLayout.of(saved.tree, in_features).parameter_shapes(bias)
        named = zip(("weights", "biases", "projections"), shapes, strict=True)
        expected = {f"{name}.{i}": shape for name, own in named for i, shape in enumerate(own)}
        found = {name: tuple(value.shape) for name, value in saved.tensors.items()}
        dtypes = {value.dtype for value in saved.tensors.values()}
        if found != expected or len(dtypes) != 1 or not next(iter(dtypes)).is_floating_point:
            raise DataError(f"the weights in {str(folder)!r} must be those of its tree, of one type; save it again")
        if not isinstance(sparse, bool):
            raise DataError(f"'sparse' in {str(folder)!r} must be true or false, but is {sparse!r:.40}; save it again")
        layer = cls(in_features, saved.tree, bias, device, dtypes.pop(), **{"sparse": sparse, **options})
        layer.load_state_dict({**saved.tensors, "tree_hash": layer.tree_hash})
        return layer

    # -- targets -----------------------------------------------------------------------------------------------------

    def forward(self, input: Tensor, target: Tensor) -> SoftmaxOutput:
        """Log-probability of the targets.

        Args:
            input: [B, D], or [D] for one example.
            target: int64 [B], or a scalar.

        Returns:
            ``output`` [B] (or scalar) and ``loss``, the mean negative ``output``.

        Raises:
            DataError: Shapes or types do not fit, or a target lies outside [0, C).
        """
        output = self._target_log_prob(input, target)
        return SoftmaxOutput(output, -output.mean())

    def nll(
        self,
        input: Tensor,
        target: Tensor,
        *,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Negative log-likelihood in nats, with the arguments of `torch.nn.functional.nll_loss`.

        Args:
            input: [B, D].
            target: int64 [B].
            reduction: ``mean`` (weighted by class, over targets that count; NaN if there is none), ``sum``, ``none``.
            ignore_index: Targets of this value have loss zero and do not count.
            weight: [C] weight of each class.

        Raises:
            DataError: Shapes, types, targets or settings do not fit.
        """
        check_settings(reduction, weight, self.tree.num_classes)
        inputs, targets = self._flatten(input, target)
        loss = reduced_nll(
            self._target_log_prob, inputs, targets, reduction=reduction, ignore_index=ignore_index, weight_C=weight
        )
        return loss.reshape(target.shape) if reduction == "none" else loss

    def node_log_probs(self, input: Tensor, target: Tensor) -> NodeLogProbs:
        """Log-probability of each decision on the targets' paths; a row's sum is that of `forward`.

        For losses on the levels of a tree and for audits. On the CPU this is the reference kernel.

        Args:
            input: [B, D].
            target: int64 [B].

        Raises:
            DataError: As in `forward`.
        """
        inputs, targets = self._flatten(input, target)
        check_range(targets, self.tree.num_classes)
        log_prob, node = self._kernels.node_log_probs(inputs, targets, self._all_parameters(), sparse=self.sparse)
        shape = (*target.shape, self.tree.max_depth)
        return NodeLogProbs(log_prob.reshape(shape), node.reshape(shape))

    def node_cross_entropy(self, input: Tensor, targets: NodeTargets) -> Tensor:
        """Cross-entropy of soft targets at the decisions that ``targets`` lists, summed by row.

        A decision adds ``-sum_k mass_k log P(child k | node)``, one that is not listed nothing. The path of a class
        with one-hot masses gives the negative ``output`` of `forward`. Masses are constants. Shapes depend on the
        targets: ``gpu`` layers and other devices take the reference kernel, and compilers break the graph here.

        Args:
            input: [B, D].
            targets: Of B rows, on the device of the input.

        Returns:
            [B], nats. Gradients of parameters are row-sparse if the layer is ``sparse``.

        Raises:
            DataError: The input or the targets do not fit, or the call is traced, exported or transformed.
        """
        flat, parameters = self._flat_input(input), self._all_parameters()
        return self._kernels.node_cross_entropy(flat, targets, parameters, sparse=self.sparse).view(input.shape[:-1])

    # -- all classes -------------------------------------------------------------------------------------------------

    def log_prob(self, input: Tensor) -> Tensor:
        """Log-probabilities of all classes, [B, C], in nats; its gradients are dense.

        Raises:
            DataError: The last dimension is not D, or the type does not fit.
        """
        scores = self._kernels.full_log_prob(self._flat_input(input), self._all_parameters())
        return scores.reshape(*input.shape[:-1], self.tree.num_classes)

    def subtree_log_probs(self, input: Tensor, nodes: Tensor | None = None) -> Tensor:
        """Log-probabilities of passing the nodes of the tree, in nats; gradients are dense. By the reference kernel.

        Args:
            input: [B, D].
            nodes: int64 [K], internal nodes or leaves; None for all M.

        Returns:
            [B, K] or [B, M]: 0 at the root (node 0), at leaves the log-probabilities of their classes.

        Raises:
            DataError: The input does not fit, nodes are no integers [K] in [0, M), or the call is traced, exported or
                transformed.
        """
        flat, parameters = self._flat_input(input), self._all_parameters()
        scores = self._kernels.subtree_log_probs(flat, nodes, parameters)
        return scores.reshape(*input.shape[:-1], scores.shape[1])

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each example, int64 [B]; exact, of equals the first.

        Raises:
            DataError: As in `log_prob`.
        """
        return self.topk(input, 1).indices.squeeze(-1)

    @torch.no_grad()
    def topk(self, input: Tensor, k: int, *, max_nodes: int | None = None) -> TopK:
        """The k most probable classes of each example, best first; of equals the smaller class id first.

        On the CPU (float32, float64) the search goes down from the root, best node first, and visits no node that is
        less probable than the k-th class: at most 1 / p_(k) nodes a level. Elsewhere all classes are scored.

        Args:
            input: [B, D].
            k: Number of classes, 1 to C.
            max_nodes: Visit at most so many nodes a level, the best of it; ``exact`` says whether that changed
                nothing. None: no limit.

        Returns:
            ``log_prob`` [B, k] in nats, ``indices`` int64 [B, k], ``num_nodes`` int64 [B] visited and ``exact`` [B].
            No gradients.

        Raises:
            DataError: k or ``max_nodes`` is out of range, or the input does not fit.
        """
        flat = self._flat_input(input)
        check_arguments(k, self.tree.num_classes, max_nodes)
        found = self._kernels.topk(flat, k, self._all_parameters(), max_nodes=max_nodes)
        lead = input.shape[:-1]
        return TopK(
            found.log_prob.reshape(*lead, k),
            found.indices.reshape(*lead, k),
            found.num_nodes.reshape(lead),
            found.exact.reshape(lead),
        )

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        text = f"in_features={self.in_features}, num_classes={self.tree.num_classes}, bias={len(self.biases) > 0}"
        return text + (", sparse=True" if self.sparse else "")

    # -- checks ------------------------------------------------------------------------------------------------------

    def _all_parameters(self) -> Parameters:
        return Parameters(list(self.weights), list(self.biases), list(self.projections))

    def _target_log_prob(self, input: Tensor, target: Tensor) -> Tensor:
        inputs, targets = self._flatten(input, target)
        check_range(targets, self.tree.num_classes)
        output = self._kernels.target_log_prob(inputs, targets, self._all_parameters(), sparse=self.sparse)
        return output.reshape(target.shape)

    def _flatten(self, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self._flat_input(input), flat_target(target, input)

    def _flat_input(self, input: Tensor) -> Tensor:
        return flat_input(input, self.in_features, self._example.dtype)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        theirs = state_dict.get(prefix + "tree_hash")
        if theirs is not None and not theirs.is_meta:
            theirs_hex = bytes(theirs.cpu().to(torch.uint8).tolist()).hex()
            if theirs_hex != self.tree.hash:
                raise TreeError(
                    f"the weights must be of this layer's tree, {self.tree.hash}, but they belong to {theirs_hex};"
                    " build the layer on the tree that was saved with them"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tree_hash = _hash_bytes(self.tree).to(self.tree_hash.device)  # `to_empty` has left no value in it
        self._kernels.move(self._example.device)
        return self


def _hash_bytes(tree: Tree) -> Tensor:
    return torch.from_numpy(np.frombuffer(bytes.fromhex(tree.hash), np.uint8).copy())

"""What the features of an input add to a decision: the branch logit, shared out among them.

The *branch logit* of a decision is log P(child taken) - log P(rival), the rival another child of the node. For a layer
that is the difference of two logits, so linear in what the layer is given, whatever the arity and the projections on
the way: contributions are then weights times what the features differ from a baseline, and exact. For any other score,
through an encoder say, they are integrated gradients (Sundararajan et al. 2017, "Axiomatic Attribution for Deep
Networks"), which are complete where the integral is found: they sum to what the score differs from the baseline's.

Shapes: **B** batch, **D** features of the layer, **E** decisions, **F** input features, **L** path length, **N**
internal nodes, **M** nodes in all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from treesearch import tree_kernels
from treesearch.decisions.branches import NO_NODE
from treesearch.errors import DataError
from treesearch.metrics.base import check_whole
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.checks import flat_input
from treesearch.tree import Tree

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Shares of the features in a score, beside what they leave unexplained."""

    values: Tensor  # [B, F], in the units of the score
    gap: Tensor  # [B] sum of the values less (score - score of the baseline); 0 but for the integration's error
    num_steps: Tensor  # int64 [B] points at which gradients were taken


# -- exact, for a layer ------------------------------------------------------------------------------------------------


def linear_contributions(
    layer: HierarchicalSoftmax,
    input: Tensor,
    baseline: Tensor | None,
    node_BL: Tensor,
    taken_BL: Tensor,
    rival_BL: Tensor,
) -> Tensor:
    """Exact shares of a layer's input features in the branch logits of decisions, ``w_d * (x_d - baseline_d)``.

    They sum to the branch logit of the input less that of the baseline. Memory is twice the result, B x L x D numbers:
    pass long batches in parts.

    Args:
        layer: Any layer on a tree.
        input: [B, D].
        baseline: [D] or [B, D]; None: zeros.
        node_BL: Internal nodes, int64 [B, L]; `NO_NODE` where there is no decision.
        taken_BL: Children taken, int64 node ids [B, L].
        rival_BL: Children they are compared with, int64 node ids [B, L].

    Returns:
        [B, L, D], nats, float32 or wider, without gradients; zeros where there is no decision.

    Raises:
        DataError: Shapes do not fit, or children are not those of their nodes.
    """
    with torch.no_grad():
        weight_BLD, _ = branch_rows(layer, node_BL, taken_BL, rival_BL)
        input_BD = flat_input(input, layer.in_features, layer.weights[0].dtype).to(weight_BLD.dtype)
        if node_BL.shape[:1] != input_BD.shape[:1] or node_BL.dim() != 2:
            raise DataError(
                f"decisions must be [{len(input_BD)}, L], a path for each input, but got {tuple(node_BL.shape)}"
            )
        return weight_BLD.mul_((input_BD - check_baseline(baseline, input_BD))[:, None])


def branch_rows(layer: HierarchicalSoftmax, node: Tensor, taken: Tensor, rival: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors and offsets that give branch logits of a layer's raw input: ``weight @ x + bias``.

    Projections above a node are multiplied in.

    Args:
        layer: Any layer on a tree, over D features.
        node: Internal nodes, int64 of any shape; `NO_NODE` for none.
        taken: Children taken, int64 node ids of the same shape.
        rival: Children they are compared with, likewise.

    Returns:
        Weights, the shape and D; biases, the shape. Float32 or wider, detached; zeros where there is no decision.

    Raises:
        DataError: Shapes do not fit, or children are not those of their nodes.
    """
    tree, layout = layer.tree, layer.layout
    place_e, node_e, branch_e, rival_e = _checked_decisions(tree, node, taken, rival)
    weights, biases = layer.weights, layer.biases
    device = weights[0].device
    dtype = torch.promote_types(weights[0].dtype, torch.float32)
    weight_ED = torch.zeros(node.numel(), layer.in_features, dtype=dtype, device=device)
    bias_E = torch.zeros(node.numel(), dtype=dtype, device=device)
    row_e, binary_e = layout.node_row[node_e], tree.arities[node_e] == 2
    for width, matrix in enumerate(weights):
        # A binary node has the logit of its first child alone; a wide one has a row for each.
        for binary in (True, False):
            own = np.flatnonzero((layout.node_width[node_e] == width) & (binary_e == binary))
            if not own.size:
                continue
            place = torch.from_numpy(place_e[own]).to(device)
            if binary:
                # -1, 0 (a child against itself) or 1
                sign = torch.from_numpy((rival_e - branch_e)[own]).to(device, dtype)
                row = torch.from_numpy(row_e[own]).to(device)
                weight_ED[place, : matrix.shape[1]] = sign[:, None] * matrix.detach()[row].to(dtype)
                if biases:
                    bias_E[place] = sign * biases[width].detach()[row].to(dtype)
            else:
                rows = [torch.from_numpy((row_e + branch)[own]).to(device) for branch in (branch_e, rival_e)]
                plus, minus = (matrix.detach()[row].to(dtype) for row in rows)
                weight_ED[place, : matrix.shape[1]] = plus - minus
                if biases:
                    plus, minus = (biases[width].detach()[row].to(dtype) for row in rows)
                    bias_E[place] = plus - minus
    _through_projections(layer, weight_ED, place_e, layout.node_scope[node_e])
    return weight_ED.view(*node.shape, layer.in_features), bias_E.view(node.shape)


def _through_projections(
    layer: HierarchicalSoftmax, weight_ED: Tensor, place_e: np.ndarray, scope_e: np.ndarray
) -> None:
    """Bring vectors over projected inputs, which fill the first columns, to the raw input, in place."""
    layout, projections = layer.layout, layer.projections
    # Scopes are numbered from the top: the deepest come last, and each hands on to one before it.
    pending = {scope: [place_e[scope_e == scope]] for scope in np.unique(scope_e[scope_e >= 0]).tolist()}
    for scope in range(len(layout.scope_parent) - 1, -1, -1):
        if scope not in pending:
            continue
        places = np.concatenate(pending.pop(scope))
        place = torch.from_numpy(places).to(weight_ED.device)
        matrix = projections[scope].detach().to(weight_ED.dtype)
        weight_ED[place, : matrix.shape[1]] = weight_ED[place, : matrix.shape[0]] @ matrix
        parent = layout.scope_parent[scope]
        if parent != layout.NO_SCOPE:
            pending.setdefault(parent, []).append(places)


def _checked_decisions(
    tree: Tree, node: Tensor, taken: Tensor, rival: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Flat places of the decisions there are, their nodes, and the branches to both children, int64 [e] each."""
    if not node.shape == taken.shape == rival.shape:
        raise DataError(
            "nodes and their children must have one shape, but have"
            f" {tuple(node.shape)}, {tuple(taken.shape)} and {tuple(rival.shape)}"
        )
    arrays = []
    for name, ids in (("node", node), ("taken", taken), ("rival", rival)):
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise DataError(f"{name} must hold integer node ids, but got {ids.dtype}")
        arrays.append(ids.detach().cpu().reshape(-1).numpy().astype(np.int64))
    place_e = np.flatnonzero(arrays[0] != NO_NODE)
    node_e, *children = (array[place_e] for array in arrays)
    if node_e.size and (node_e.min() < 0 or node_e.max() >= tree.num_internal):
        raise DataError(
            f"nodes must be internal, in [0, {tree.num_internal}), or {NO_NODE} for none, but range from"
            f" {node_e.min()} to {node_e.max()}"
        )
    branch_M = tree_kernels.branch_index(tree.child_ptr, tree.child_idx) if tree.num_internal else np.zeros(1)
    for child_e in children:
        inside_e = (child_e >= 0) & (child_e < tree.num_nodes)
        wrong = np.flatnonzero(~inside_e | (tree.parent[np.where(inside_e, child_e, 0)] != node_e))
        if wrong.size:
            raise DataError(
                f"children must be those of their nodes, but {child_e[wrong[0]]} is none of node {node_e[wrong[0]]}"
            )
    branch_e, rival_e = (branch_M[child_e].astype(np.int64) for child_e in children)
    return place_e, node_e, branch_e, rival_e


# -- integrated gradients, for any score -------------------------------------------------------------------------------


def integrated_gradients(
    score: Score,
    input: Tensor,
    baseline: Tensor | None = None,
    *,
    num_steps: int = 32,
    max_steps: int = 1024,
    tolerance: float = 1e-3,
) -> Attribution:
    """Shares of the features in a score: its gradients along the line from the baseline, integrated.

    The integral is by the Gauss-Legendre rule, exact for a score that is a polynomial of degree 2 ``num_steps`` along
    the line. It is checked by completeness: where the shares do not sum to the score less the baseline's, points are
    doubled for those examples, and where ``max_steps`` do not suffice that is an error. So a result is never an
    integral that was missed, and that of an example does not depend on the others of the batch.

    Args:
        score: From features [B, F] to a number for each example, [B], of its own row alone; it is always called with
            all B, in their order, and must be deterministic (an encoder in evaluation mode).
        input: Float [B, F].
        baseline: [F] or [B, F]; None: zeros.
        num_steps: Points of the first try.
        max_steps: Points of the last try.
        tolerance: The largest gap, in units of the score or of its difference to the baseline's, whichever is more.

    Returns:
        Shares, gaps and numbers of points; float64, or float32 where the device has no float64.

    Raises:
        DataError: Shapes or settings do not fit, the score is not finite or not differentiable, or the shares do not
            add up.
    """
    check_whole("num_steps", num_steps, 1)
    check_whole("max_steps", max_steps, num_steps)
    if not 0 < tolerance < float("inf"):
        raise DataError(f"tolerance must be > 0 and finite, but got {tolerance!r}")
    if not isinstance(input, Tensor) or input.dim() != 2 or not input.is_floating_point():
        raise DataError("input must be a floating tensor [B, F]; embed ids first, and attribute to the embeddings")
    start_BF = check_baseline(baseline, input)
    input_BF = input.detach()
    with torch.no_grad():
        ends = _checked_scores(score, input_BF), _checked_scores(score, start_BF)
    rise_B = _wide(ends[0]) - _wide(ends[1])
    allowed_B = tolerance * rise_B.abs().clamp(min=1)
    values_BF, gap_B = torch.zeros_like(_wide(input_BF)), torch.full_like(rise_B, torch.inf)
    steps_B = torch.zeros_like(rise_B, dtype=torch.int64)
    open_B = torch.ones_like(rise_B, dtype=torch.bool)
    while num_steps <= max_steps and bool(open_B.any()):
        values_BF = torch.where(open_B[:, None], _integral(score, input_BF, start_BF, num_steps), values_BF)
        steps_B.masked_fill_(open_B, num_steps)
        gap_B = values_BF.sum(1) - rise_B
        open_B = ~(gap_B.abs() <= allowed_B)
        num_steps *= 2
    if not bool(open_B.any()):
        return Attribution(values_BF, gap_B, steps_B)
    worst = int((gap_B.abs() / allowed_B).nan_to_num(nan=torch.inf).argmax())
    raise DataError(
        f"contributions must sum to what the score differs from the baseline's, but those of example {worst} sum to"
        f" {float(values_BF[worst].sum()):g} for {float(rise_B[worst]):g} with {int(steps_B[worst])} steps; raise"
        " max_steps or tolerance, or take an encoder in evaluation mode"
    )


def check_baseline(baseline: Tensor | None, input_BF: Tensor) -> Tensor:
    """A baseline for each input, [B, F], of the input's type and device; None is zeros.

    Raises:
        DataError: It is neither [F] nor [B, F], or not finite.
    """
    if baseline is None:
        return torch.zeros_like(input_BF)
    if not isinstance(baseline, Tensor) or baseline.shape not in (input_BF.shape, input_BF.shape[1:]):
        shape = tuple(baseline.shape) if isinstance(baseline, Tensor) else type(baseline).__name__
        raise DataError(
            f"a baseline must be a tensor [{input_BF.shape[1]}] or {list(input_BF.shape)}, as the input is, but got"
            f" {shape}"
        )
    if not bool(baseline.isfinite().all()):
        raise DataError("a baseline must be finite, but holds NaN or infinity")
    return baseline.detach().to(input_BF).expand_as(input_BF)


def _integral(score: Score, input_BF: Tensor, start_BF: Tensor, num_steps: int) -> Tensor:
    """The difference of input and baseline times the mean gradient on the line between them, [B, F]."""
    points, shares = _gauss_legendre(num_steps)
    mean_BF = torch.zeros_like(_wide(input_BF))
    for point, share in zip(points.tolist(), shares.tolist(), strict=True):
        at_BF = torch.lerp(start_BF, input_BF, point).requires_grad_()
        with torch.enable_grad():
            total = score(at_BF).sum()
            if not total.requires_grad:
                raise DataError("the score must be differentiable in its input, but has no gradient; do not detach it")
            (gradient,) = torch.autograd.grad(total, at_BF, allow_unused=True)
        if gradient is not None:  # None: it does not depend on the input
            mean_BF += share * _wide(gradient)
    return mean_BF * (_wide(input_BF) - _wide(start_BF))


def _checked_scores(score: Score, input_BF: Tensor) -> Tensor:
    found = score(input_BF)
    if not isinstance(found, Tensor) or found.shape != input_BF.shape[:1]:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise DataError(f"a score must be one number for each of {len(input_BF)} examples, but got {shape}")
    if not bool(found.isfinite().all()):
        raise DataError("a score must be finite, but is NaN or infinite; compare with a child that is possible")
    return found


def _wide(values: Tensor) -> Tensor:
    """In the widest float of the device: sums of many small shares are compared with a difference."""
    return values.detach().to(torch.float32 if values.device.type == "mps" else torch.float64)


@lru_cache(maxsize=16)
def _gauss_legendre(num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in (0, 1) and their weights, which sum to 1."""
    points, weights = np.polynomial.legendre.leggauss(num_points)
    return (points + 1) / 2, weights / 2

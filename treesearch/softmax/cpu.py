"""The CPU kernels as a differentiable function, with the signature of `treesearch.softmax.reference`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treesearch.errors import DataError
from treesearch.paths import class_paths, input_dims
from treesearch.softmax.cpu_kernels import Layout, batch_pass
from treesearch.softmax.layout import SoftmaxLayout


def supports(input: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Whether these tensors can go to the CPU kernels: float32 on the CPU."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (input, *parameters))


def kernel_layout(layout: SoftmaxLayout) -> Layout:
    """The layout of a layer's parameters, widths one after another, for the kernels."""
    paths = class_paths(layout.tree)
    widths = np.array(layout.widths, np.int64)
    rows = np.array(layout.rows_per_width, np.int64)
    rows_before = np.cumsum(rows) - rows
    weights_before = np.cumsum(rows * widths) - rows * widths
    scope_dim = np.array(layout.scope_dim, np.int32)
    source_dim = np.array(layout.source_dim, np.int32)
    return Layout(
        path_ptr=paths.ptr,
        path_node=paths.node,
        path_branch=paths.branch,
        arity=np.array(layout.tree.arities),
        input_dim=input_dims(layout.tree, layout.in_features),
        row_ptr=rows_before[layout.node_width] + layout.node_row,
        num_rows=layout.num_rows,
        weight_ptr=weights_before[layout.node_width] + layout.node_row * widths[layout.node_width],
        scope=layout.node_scope.astype(np.int32),
        opens_scope=np.array(layout.tree.projection_dim > 0),
        scope_parent=np.array(layout.scope_parent, np.int32),
        scope_dim=scope_dim,
        source_dim=source_dim,
        projection_ptr=np.concatenate([[0], np.cumsum(scope_dim.astype(np.int64) * source_dim)]).astype(np.int64),
        projection_row_ptr=np.concatenate([[0], np.cumsum(scope_dim)]).astype(np.int64),
    )


def target_log_prob(
    layout: Layout,
    input_BD: Tensor,
    target_B: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
) -> Tensor:
    """Log-probability of each target, [B], in nats; see the reference."""
    output: Tensor = _TargetLogProb.apply(
        layout, input_BD, target_B, _flat(weights, input_BD), _flat(bias_R, input_BD), _flat(projections, input_BD)
    )  # type: ignore[no-untyped-call]
    return output


def _flat(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    if not parts:
        return like.new_zeros(0)
    return parts[0].flatten() if len(parts) == 1 else torch.cat([part.flatten() for part in parts])


class _TargetLogProb(torch.autograd.Function):
    """The backward pass goes down the paths again: that is cheaper than keeping what it needs."""

    @staticmethod
    def forward(
        ctx: Any, layout: Layout, input_BD: Tensor, target_B: Tensor, weight: Tensor, bias: Tensor, projection: Tensor
    ) -> Tensor:
        ctx.layout = layout
        ctx.save_for_backward(input_BD, target_B, weight, bias, projection)
        nll_B = torch.zeros(input_BD.shape[0])
        _run(layout, input_BD, target_B, (weight, bias, projection), nll_B)
        return nll_B.neg_()

    @staticmethod
    def backward(ctx: Any, *output_grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True; the result would lack the second derivative in silence
            raise DataError("the CPU kernels have no second derivatives; use kernel='reference'")
        input_BD, target_B, weight, bias, projection = ctx.saved_tensors
        grads = tuple(torch.zeros_like(t) for t in (weight, bias, projection))
        grad_input = torch.zeros_like(input_BD, memory_format=torch.contiguous_format)
        scale_B = output_grads[0].neg().contiguous()
        _run(ctx.layout, input_BD, target_B, (weight, bias, projection), None, scale_B, grads, grad_input)
        return None, grad_input, None, *grads


def _run(
    layout: Layout,
    input_BD: Tensor,
    target_B: Tensor,
    parameters: tuple[Tensor, ...],
    nll_B: Tensor | None,
    scale_B: Tensor | None = None,
    grads: tuple[Tensor, ...] | None = None,
    grad_input: Tensor | None = None,
) -> None:
    nothing = np.zeros(0, np.float32)
    weight, bias, projection = (p.detach().numpy() for p in parameters)
    grad_weight, grad_bias, grad_projection = (nothing,) * 3 if grads is None else (g.numpy() for g in grads)
    batch_pass(
        layout,
        weight,
        bias,
        projection,
        np.ascontiguousarray(input_BD.detach().numpy()),
        target_B.numpy(),
        nothing if scale_B is None else scale_B.numpy(),
        grads is not None,
        nothing if nll_B is None else nll_B.numpy(),
        grad_weight,
        grad_bias,
        grad_projection,
        nothing if grad_input is None else grad_input.view(-1).numpy(),
    )

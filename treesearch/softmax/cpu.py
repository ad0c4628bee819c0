"""The CPU kernels as a differentiable function, with the signature of `treesearch.softmax.reference`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treesearch.errors import DataError
from treesearch.softmax import reference
from treesearch.softmax.cpu_kernels import Saved, backward_pass, forward_pass, soft_forward_pass
from treesearch.softmax.cpu_plan import Layout
from treesearch.softmax.full_kernels import LANES, FullTables, tree_log_softmax, tree_log_softmax_gradient
from treesearch.softmax.layout import SoftmaxLayout
from treesearch.softmax.node_targets import NodeTargets
from treesearch.softmax.sparse import row_sparse

NO_ADDRESSES = np.zeros(0, np.int64)
HOST: Any = {"dtype": torch.float32, "device": "cpu"}  # of what the kernels fill, whatever torch's defaults are


class _Settings(NamedTuple):
    """What `_Decisions` is told besides tensors."""

    layout: Layout
    sparse: bool
    is_soft: bool  # whether targets are those of `NodeTargets`, or class ids
    num_weights: int
    num_biases: int
    keeps: bool  # gradients may be asked for

    @property
    def num_targets(self) -> int:
        """Tensors that say what is to be decided."""
        return 4 if self.is_soft else 1


@torch.compiler.disable  # compilers go round it
def target_log_prob(
    layout: Layout,
    input_BD: Tensor,
    target_B: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
    *,
    sparse: bool = False,
) -> Tensor:
    """Log-probability of each target, [B], in nats; see the reference. Targets must be in range: nothing checks them.

    ``bias_R`` is empty for a layer without biases. With ``sparse``, gradients of parameters are row-sparse.
    """
    settings = _Settings(layout, sparse, False, len(weights), len(bias_R), torch.is_grad_enabled())
    return _decide(settings, input_BD, (target_B,), weights, bias_R, projections)


def node_cross_entropy(
    layout: Layout,
    input_BD: Tensor,
    targets: NodeTargets,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
    *,
    sparse: bool = False,
) -> Tensor:
    """Cross-entropy of the listed decisions, summed by row, [B], in nats; see the reference and `target_log_prob`."""
    settings = _Settings(layout, sparse, True, len(weights), len(bias_R), torch.is_grad_enabled())
    tensors = (targets.row, targets.node, targets.ptr, targets.mass.detach().to(torch.float32))
    return _decide(settings, input_BD, tuple(t.contiguous() for t in tensors), weights, bias_R, projections)


def _decide(
    settings: _Settings,
    input_BD: Tensor,
    targets: tuple[Tensor, ...],
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
) -> Tensor:
    output: Tensor = _Decisions.apply(settings, input_BD, *targets, *weights, *bias_R, *projections)  # type: ignore[no-untyped-call]
    return output


@torch.compiler.disable
def full_log_prob(
    tables: FullTables,
    layout: SoftmaxLayout,
    input_BD: Tensor,
    weights: Sequence[Tensor],
    bias_R: Sequence[Tensor],
    projections: Sequence[Tensor],
) -> Tensor:
    """Log-probabilities of all classes, [B, C], in nats; see the reference."""
    if not layout.tree.num_internal:
        return reference.certain(input_BD, weights[0])[:, None]
    with torch.autocast("cpu", enabled=False):  # the kernels are in single precision
        if not torch.is_grad_enabled():
            # A block of examples at a time, so that its logits are still in cache when they are read.
            output = torch.empty(input_BD.shape[0], tables.class_leaf.size, **HOST)
            for own_BD, own_BC in zip(torch.split(input_BD, LANES), torch.split(output, LANES), strict=True):
                logit_RB = reference.all_logits(layout, own_BD, weights, bias_R, projections)
                tree_log_softmax(tables, logit_RB.numpy(), own_BC.numpy())
            return output
        logit_RB = reference.all_logits(layout, input_BD, weights, bias_R, projections)
    output = _TreeLogSoftmax.apply(tables, logit_RB)  # type: ignore[no-untyped-call]
    return output


class _TreeLogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tables: FullTables, logit_RB: Tensor) -> Tensor:
        ctx.tables = tables
        ctx.save_for_backward(logit_RB)
        output_BC = torch.empty(logit_RB.shape[1], tables.class_leaf.size, **HOST)
        tree_log_softmax(tables, logit_RB.detach().contiguous().numpy(), output_BC.numpy())
        return output_BC

    @staticmethod
    def backward(ctx: Any, *output_grads: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        (logit_RB,) = ctx.saved_tensors
        grad_RB = torch.empty_like(logit_RB, memory_format=torch.contiguous_format)
        grad_BC = output_grads[0].contiguous().numpy()
        tree_log_softmax_gradient(ctx.tables, logit_RB.contiguous().numpy(), grad_BC, grad_RB.numpy())
        return None, grad_RB


def _refuse_second_derivatives() -> None:
    if torch.is_grad_enabled():  # create_graph=True; the result would lack the second derivative in silence
        raise DataError("the CPU kernels have no second derivatives; use kernel='reference'")


class _Decisions(torch.autograd.Function):
    """Log-probability of each row's target, or (soft) the cross-entropy of its decisions."""

    @staticmethod
    def forward(ctx: Any, settings: _Settings, input_BD: Tensor, *tensors: Tensor) -> Tensor:
        targets = tensors[: settings.num_targets]
        parameters = tuple(p.detach().contiguous() for p in tensors[settings.num_targets :])  # as a rule no copies
        num_weights, num_biases = settings.num_weights, settings.num_biases
        weights, rest = parameters[:num_weights], parameters[num_weights:]
        input_BD = input_BD.contiguous()
        run = soft_forward_pass if settings.is_soft else forward_pass
        nll_B, saved = run(
            settings.layout,
            _addresses(weights),
            _addresses(rest[:num_biases]),
            num_biases > 0,
            _addresses(rest[num_biases:]),
            input_BD.detach().numpy(),
            *(target.numpy() for target in targets),
            settings.keeps and any(ctx.needs_input_grad),
            ctx.needs_input_grad[1],
        )
        ctx.settings, ctx.saved = settings, saved
        ctx.shapes = [p.shape for p in parameters]
        ctx.save_for_backward(input_BD)
        output = torch.from_numpy(nll_B)
        return output if settings.is_soft else output.neg_()

    @staticmethod
    def backward(ctx: Any, *output_grads: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        (input_BD,) = ctx.saved_tensors
        scale_B = (output_grads[0] if ctx.settings.is_soft else output_grads[0].neg()).contiguous()
        input_grad, unused = None, (None,) * ctx.settings.num_targets
        if ctx.needs_input_grad[1]:
            input_grad = torch.from_numpy(ctx.saved.input_grad).view(input_BD.shape) * scale_B[:, None]
        wanted = ctx.needs_input_grad[2 + len(unused) :]
        if not any(wanted):
            return None, input_grad, *unused, *(None for _ in wanted)
        grads = _parameter_grads(ctx.settings, ctx.saved, ctx.shapes, input_BD, scale_B)
        return None, input_grad, *unused, *grads


def _parameter_grads(
    settings: _Settings, saved: Saved, shapes: Sequence[torch.Size], input_BD: Tensor, scale_B: Tensor
) -> list[Tensor]:
    """Gradients of all parameters, dense, or with the rows alone that the batch has touched."""
    sparse, num_weights, num_biases = settings.sparse, settings.num_weights, settings.num_biases
    first_projection = num_weights + num_biases
    touched = saved.touched.tolist()
    rows = [*touched, *touched[:num_biases]] if sparse else [shape[0] for shape in shapes[:first_projection]]
    passed = set((saved.openings.scope + first_projection).tolist())
    grads = []
    for i, shape in enumerate(shapes):
        if i < first_projection:
            size = (rows[i], *shape[1:])
            grads.append(torch.empty(size, **HOST) if sparse else torch.zeros(size, **HOST))
        elif i in passed:  # filled whole
            grads.append(torch.empty(shape, **HOST))
        else:
            grads.append(torch.zeros((0, *shape[1:]) if sparse else shape, **HOST))
    indices = [torch.empty(rows[i] if sparse else 0, dtype=torch.int64, device="cpu") for i in range(num_weights)]
    backward_pass(
        settings.layout,
        saved,
        input_BD.detach().numpy(),
        scale_B.numpy(),
        sparse,
        _addresses(indices),
        _addresses(grads[:num_weights]),
        _addresses(grads[num_weights:first_projection]),
        num_biases > 0,
        _addresses(grads[first_projection:]),
    )
    if not sparse:
        return grads
    indices += indices[:num_biases]
    indices += [torch.arange(grad.shape[0], device="cpu") for grad in grads[first_projection:]]
    return [row_sparse(*parts, coalesced=True) for parts in zip(indices, grads, shapes, strict=True)]


def _addresses(tensors: Sequence[Tensor]) -> NDArray[np.int64]:
    return np.array([t.data_ptr() for t in tensors], np.int64) if tensors else NO_ADDRESSES

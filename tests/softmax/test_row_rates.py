"""Learning rates of rows: optimizers against one of each row alone, and the layer's own groups by walking the tree."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.softmax.oracle import TREES, random_layer
from tests.softmax.rowwise import gradients, parameter, row_sparse
from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax, RowwiseAdagrad, RowwiseAdam

FACTORS = torch.tensor([1.0, 0.5, 0.0, 2.0, 0.25, 0.7, 3.0])
Step = Callable[[Tensor], Tensor]


@pytest.mark.parametrize("make", [RowwiseAdam, RowwiseAdagrad])
@pytest.mark.parametrize("shape", [(7, 4), (7,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_row_moves_as_alone_at_its_own_rate(
    make: type[RowwiseAdam] | type[RowwiseAdagrad], shape: tuple[int, ...], dtype: torch.dtype, sparse: bool
) -> None:
    param, rng = parameter(shape, dtype), np.random.default_rng(0)
    alone = [nn.Parameter(param.detach()[row : row + 1].clone()) for row in range(7)]
    together = make([{"params": [param], "row_rates": FACTORS}], lr=0.1)
    each = [make([own], lr=0.1 * factor) for own, factor in zip(alone, FACTORS.tolist(), strict=True)]
    for gradient in gradients(shape, 6):
        gradient = gradient.to(dtype)
        param.grad = row_sparse(gradient, rng) if sparse else gradient
        together.step()
        for row, (own, optimizer) in enumerate(zip(alone, each, strict=True)):
            part = gradient[row : row + 1]
            own.grad = row_sparse(part, rng) if sparse else part
            optimizer.step()
    torch.testing.assert_close(param.detach(), torch.cat([own.detach() for own in alone]), rtol=1e-5, atol=1e-6)


def test_both_parameters_of_a_group_and_no_others() -> None:
    weight, bias, other = parameter((7, 3)), parameter((7,)), parameter((7,))
    starts = [param.detach().clone() for param in (weight, bias, other)]
    for param in (weight, bias, other):
        param.grad = torch.ones_like(param)
    RowwiseAdam([{"params": [weight, bias], "row_rates": FACTORS}, {"params": [other]}], lr=0.1, eps=1e-300).step()
    moved = [start - param.detach() for start, param in zip(starts, (weight, bias, other), strict=True)]
    torch.testing.assert_close(moved[0], (0.1 * FACTORS.double())[:, None].expand(7, 3))
    torch.testing.assert_close(moved[1], 0.1 * FACTORS.double())
    torch.testing.assert_close(moved[2], torch.full((7,), 0.1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (torch.ones(6), r"one for each of the 7 rows, but got torch.float32 \(6,\)"),
        (torch.ones(7).double(), "must be float32, .* but got torch.float64"),
        ([1.0] * 7, r"but got \[1.0"),
        (-torch.ones(7), "finite and >= 0"),
        (torch.full((7,), torch.nan), "finite and >= 0"),
        (torch.ones(7, device="meta"), "must be on cpu like their parameters, but are on meta"),
    ],
)
def test_factors_that_do_not_fit_are_refused(factors: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RowwiseAdam([{"params": [parameter((7, 2))], "row_rates": factors}])


def test_factors_go_with_the_state_and_are_checked_there() -> None:
    first = RowwiseAdam([{"params": [parameter((7, 2))], "row_rates": FACTORS}])
    second = RowwiseAdam([parameter((7, 2))])
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.param_groups[0]["row_rates"], FACTORS)
    other = RowwiseAdam([parameter((6, 2))], lr=9.0)
    with pytest.raises(DataError, match=r"one for each of the 6 rows, but got torch.float32 \(7,\)"):
        other.load_state_dict(first.state_dict())
    assert other.param_groups[0]["lr"] == 9.0, "nothing is changed"
    assert "row_rates" not in other.param_groups[0]


# -- of the layer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("bias", [True, False])
def test_groups_of_a_layer(name: str, bias: bool) -> None:
    tree = TREES[name]
    layer = random_layer(tree, bias=bias)
    counts = np.random.default_rng(0).pareto(0.4, tree.num_classes) + 1e-9
    groups = layer.parameter_groups(counts)
    parts = [param for group in groups for param in group["params"]]
    assert sorted(map(id, parts)) == sorted(map(id, layer.parameters()))
    for node in range(tree.num_internal):
        below = [tree.leaf_class[leaf] for leaf in range(tree.num_classes) if node in ancestors(layer, leaf)]
        share = counts[below].sum() / counts.sum()
        first, rows = int(layer.layout.node_row[node]), int(layer.layout.num_rows[node])
        found = groups[int(layer.layout.node_width[node])]["row_rates"][first : first + rows]
        np.testing.assert_allclose(found, max(share**0.2, 0.5), rtol=1e-5)
    RowwiseAdam(groups)  # shapes fit


def ancestors(layer: HierarchicalSoftmax, leaf: int) -> set[int]:
    """Internal nodes above a leaf."""
    parent, place, above = layer.tree.parent, layer.tree.num_internal + leaf, set()
    while parent[place] >= 0:
        place = int(parent[place])
        above.add(place)
    return above


def test_counts_must_fit() -> None:
    with pytest.raises(DataError, match="counts"):
        random_layer(TREES["huffman"]).parameter_groups(np.ones(7))

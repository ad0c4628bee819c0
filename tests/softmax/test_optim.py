"""Row-wise Adagrad against a loop over rows; sparse steps against dense ones."""

import copy
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.softmax.oracle import TREES, D, random_batch, random_layer
from tests.softmax.rowwise import bits, gradients, parameter, row_sparse, steps_of
from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax, RowwiseAdagrad
from treesearch.softmax.row_gradients import merge_rows

run = partial(steps_of, RowwiseAdagrad)
SHAPES = [(7, 4), (7,), (1, 1), (7, 2, 3), (0, 4)]


def naive_steps(
    start: NDArray[Any], gradients: list[NDArray[Any]], *, lr: float = 0.01, eps: float = 1e-10, initial: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters and accumulators after these steps, a row at a time."""
    values = start.astype(np.float64)
    sums = np.full(len(values), initial)
    for gradient in gradients:
        for row in range(len(values)):
            sums[row] += np.mean(np.square(gradient[row]))
            values[row] -= lr * gradient[row] / (np.sqrt(sums[row]) + eps)
    return values, sums


# -- the rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"lr": 0.3, "eps": 0.1, "initial_accumulator_value": 0.7}, {"lr": 0.0}], ids=str
)
@pytest.mark.parametrize("kind", ["dense", "sparse", "uncoalesced"])
def test_against_a_loop_over_rows(shape: tuple[int, ...], options: dict[str, float], kind: str) -> None:
    param, steps, rng = parameter(shape), gradients(shape), np.random.default_rng(2)
    naive = {name.removesuffix("_accumulator_value"): value for name, value in options.items()}
    values, sums = naive_steps(param.detach().numpy(), [gradient.numpy() for gradient in steps], **naive)
    if kind != "dense":
        steps = [row_sparse(gradient, rng, pieces=1 if kind == "sparse" else 3) for gradient in steps]
    optimizer = run(param, steps, **options)
    np.testing.assert_allclose(param.detach(), values, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(optimizer.state[param]["sum"], sums, rtol=1e-12, atol=1e-14)
    assert optimizer.state[param]["sum"].shape == shape[:1]


@pytest.mark.parametrize("shape", [(0, 4), (0,), (0, 2, 3), (3, 4), (3,), (3, 0)], ids=str)
@pytest.mark.parametrize("coalesced", [False, True])
def test_a_gradient_without_rows_moves_nothing(shape: tuple[int, ...], coalesced: bool) -> None:
    param = parameter(shape, torch.float32)
    before = param.detach().clone()
    rows, values = torch.empty(1, 0, dtype=torch.int64), torch.empty(0, *shape[1:])
    empty = torch.sparse_coo_tensor(rows, values, shape, check_invariants=True)
    optimizer = run(param, [empty.coalesce() if coalesced else empty], initial_accumulator_value=0.5)
    torch.testing.assert_close(param.detach(), before, rtol=0, atol=0)
    assert optimizer.state[param]["sum"].tolist() == [0.5] * shape[0]


@pytest.mark.parametrize("name", ["one class", "projected root", "binary root, projected"])
@pytest.mark.parametrize("num", [0, 5])
def test_layers_in_which_a_width_has_no_rows(name: str, num: int) -> None:
    """Dense and row-sparse gradients of a layer train it alike, also where its matrix of width D is empty."""
    layers = [random_layer(TREES[name], dtype=torch.float32, kernel="auto", sparse=sparse) for sparse in (False, True)]
    assert any(matrix.shape[0] == 0 for matrix in layers[0].weights)
    inputs, targets = random_batch(layers[0], num, dtype=torch.float32)
    for layer in layers:
        optimizer = RowwiseAdagrad(layer.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            layer(inputs, targets).output.sum().backward()
            optimizer.step()
    for dense, sparse in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        torch.testing.assert_close(sparse, dense)


def test_literal_steps() -> None:
    param = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64))
    # mean squares 12.5 then 12.5 + 4, and nothing for the second row
    run(
        param, [torch.tensor([[3.0, -4.0], [0.0, 0.0]]).double(), torch.tensor([[2.0, 2.0], [0.0, 0.0]]).double()], lr=1
    )
    first = [1 - 3 / 12.5**0.5 - 2 / 16.5**0.5, 2 + 4 / 12.5**0.5 - 2 / 16.5**0.5]
    np.testing.assert_allclose(param.detach(), [first, [3, 4]], rtol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "accumulator", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.float32, 0.03),
        (torch.float16, torch.float32, 0.01),
    ],
    ids=str,
)
@pytest.mark.parametrize("sparse", [False, True])
def test_types(dtype: torch.dtype, accumulator: torch.dtype, tolerance: float, sparse: bool) -> None:
    param, rng = parameter((7, 4), dtype), np.random.default_rng(2)
    steps = [gradient.to(dtype) for gradient in gradients((7, 4))]
    exact, sums = naive_steps(
        param.detach().double().numpy(), [gradient.double().numpy() for gradient in steps], lr=0.1
    )
    optimizer = run(param, [row_sparse(gradient, rng) for gradient in steps] if sparse else steps, lr=0.1)
    assert param.dtype == dtype
    assert optimizer.state[param]["sum"].dtype == accumulator
    np.testing.assert_allclose(param.detach().double(), exact, rtol=tolerance, atol=tolerance)
    # Gradients are exact in their own type, so accumulators are as good as theirs.
    np.testing.assert_allclose(optimizer.state[param]["sum"], sums, rtol=1e-5)


def test_small_gradients_still_count_for_half_precision() -> None:
    param = nn.Parameter(torch.zeros(1, 2, dtype=torch.bfloat16))
    optimizer = run(param, [torch.ones(1, 2, dtype=torch.bfloat16)] * 1000)
    assert optimizer.state[param]["sum"].item() == 1000  # bfloat16 counts to 256


def test_duplicates_are_added_in_single_precision() -> None:
    param = nn.Parameter(torch.zeros(3, 2, dtype=torch.bfloat16))
    values = torch.ones(1000, 2, dtype=torch.bfloat16)
    gradient = torch.sparse_coo_tensor(torch.ones(1, 1000, dtype=torch.int64), values, (3, 2), check_invariants=True)
    optimizer = run(param, [gradient])
    assert optimizer.state[param]["sum"].tolist() == [0, 1e6, 0]


# -- sparse steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(40, 5), (40,), (40, 2, 3)], ids=str)
def test_a_sparse_step_is_the_dense_step(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    steps = [gradient.to(dtype) for gradient in gradients(shape)]
    dense, sparse = parameter(shape, dtype), parameter(shape, dtype)
    ours = run(dense, steps), run(sparse, [row_sparse(gradient, rng) for gradient in steps])
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(sparse, dense, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours[1].state[sparse]["sum"], ours[0].state[dense]["sum"], rtol=1e-5, atol=0)


def test_rows_without_gradient_are_not_touched() -> None:
    start = torch.tensor([[-0.0, 1e-42], [torch.nan, torch.inf], [1.0, 2.0], [3.0, 4.0]])
    param = nn.Parameter(start.clone())
    optimizer = RowwiseAdagrad([param])
    param.grad = torch.sparse_coo_tensor([[2, 2]], [[1.0, 1.0], [2.0, 0.0]], (4, 2), check_invariants=True)
    optimizer.step()
    optimizer.state[param]["sum"][[0, 1, 3]] = torch.tensor([torch.nan, -1.0, torch.inf])  # neither read nor written
    optimizer.step()
    others = torch.tensor([0, 1, 3])
    assert bits(param[others]) == bits(start[others])
    assert bits(optimizer.state[param]["sum"][others]) == bits(torch.tensor([torch.nan, -1.0, torch.inf]))
    assert optimizer.state[param]["sum"][2] == 10
    assert (param[2] < start[2]).all()


def test_an_empty_sparse_gradient_changes_nothing() -> None:
    param = parameter((5, 3))
    before = param.detach().clone()
    run(
        param,
        [
            torch.sparse_coo_tensor(
                torch.empty(1, 0), torch.empty(0, 3), (5, 3), dtype=torch.float64, check_invariants=True
            )
        ]
        * 2,
    )
    assert torch.equal(param, before)


@pytest.mark.parametrize("rest", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("num", [0, 1, 2, 50])
def test_merged_rows_add_up_to_the_coalesced_gradient(rest: tuple[int, ...], num: int) -> None:
    rng = np.random.default_rng(num)
    rows = torch.from_numpy(rng.integers(0, 12, num))
    values = torch.from_numpy(rng.normal(size=(num, *rest)))
    merged_rows, merged = merge_rows(rows, values)
    assert (merged_rows.shape, merged.shape) == (rows.shape, values.shape)
    expected = torch.sparse_coo_tensor(rows[None], values, (12, *rest), check_invariants=True).coalesce()
    distinct = expected.values().shape[0]
    assert torch.equal(merged_rows[:distinct], expected.indices()[0])
    torch.testing.assert_close(merged[:distinct], expected.values(), rtol=0, atol=1e-14)
    assert merged_rows[distinct:].eq(rows.max() if num else 0).all()
    assert not merged[distinct:].any()


def test_the_sizes_of_merged_rows_do_not_depend_on_values() -> None:
    with FakeTensorMode():  # raises where the host would need a number from the device
        merged_rows, merged = merge_rows(torch.zeros(6, dtype=torch.int64), torch.zeros(6, 2))
    assert (merged_rows.shape, merged.shape) == ((6,), (6, 2))


def test_a_step_with_merged_rows_is_the_coalesced_step(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    steps = [row_sparse(gradient, rng, pieces=3) for gradient in gradients((20, 3))]
    expected, found = parameter((20, 3)), parameter((20, 3))
    coalesced = run(expected, steps)

    def as_on_a_device(grad: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return merge_rows(grad._indices()[0], grad._values().to(dtype))

    monkeypatch.setattr("treesearch.softmax.rowwise.merged_gradient", as_on_a_device)
    merged = run(found, steps)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(merged.state[found]["sum"], coalesced.state[expected]["sum"], rtol=1e-12, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sparse", [False, True])
def test_nothing_waits_for_the_device(sparse: bool) -> None:
    rng = np.random.default_rng(0)
    steps = [row_sparse(gradient, rng, pieces=3) if sparse else gradient for gradient in gradients((20, 3))]
    expected = parameter((20, 3))
    run(expected, steps)
    found = nn.Parameter(parameter((20, 3)).detach().cuda())
    on_device = [gradient.cuda() for gradient in steps]
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(found, on_device)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-12, atol=1e-14)


# -- with modules ------------------------------------------------------------------------------------------------------


def test_embeddings() -> None:
    tables = [nn.Embedding.from_pretrained(parameter((30, 4)).data, False, sparse=sparse) for sparse in (False, True)]
    rng = np.random.default_rng(0)
    optimizers = [RowwiseAdagrad(table.parameters(), lr=0.1) for table in tables]
    for _ in range(10):
        ids = torch.from_numpy((30 * rng.random((6, 2)) ** 3).astype(np.int64))
        for table, optimizer in zip(tables, optimizers, strict=True):
            optimizer.zero_grad()
            table(ids).square().sum().backward()
            optimizer.step()
    assert tables[1].weight.grad is not None
    assert tables[1].weight.grad.is_sparse
    torch.testing.assert_close(tables[1].weight, tables[0].weight, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ["mixed depths", "nested, growing again"])
def test_trains_a_hierarchical_softmax(name: str, sparse: bool) -> None:
    tree = TREES[name]
    layer = HierarchicalSoftmax(D, tree, sparse=sparse)
    layer.reset_parameters(generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(tree.num_classes, D, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(tree.num_classes)
    optimizer = RowwiseAdagrad(layer.parameters(), lr=0.5)
    for _ in range(150):
        optimizer.zero_grad()
        layer(inputs, targets).loss.backward()
        optimizer.step()
    assert layer(inputs, targets).loss < 0.2
    assert torch.equal(layer.predict(inputs), targets)


# -- an optimizer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_resumed_run_is_the_uninterrupted_one(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    steps = [row_sparse(gradient.to(dtype), rng) for gradient in gradients((9, 3), 8)]
    steps[::3] = [gradient.to_dense() for gradient in steps[::3]]
    whole, part = parameter((9, 3), dtype), parameter((9, 3), dtype)
    uninterrupted = run(whole, steps, lr=0.2)
    first = run(part, steps[:4], lr=0.2)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    again = nn.Parameter(part.detach().clone())
    second = RowwiseAdagrad([again], lr=9.0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    for gradient in steps[4:]:
        again.grad = gradient
        second.step()
    assert bits(again) == bits(whole)
    assert bits(second.state[again]["sum"]) == bits(uninterrupted.state[whole]["sum"])


def test_state_of_several_groups() -> None:
    params = [parameter((4, 2)), parameter((3,)), parameter((5, 2))]
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.5}]
    optimizer = RowwiseAdagrad(groups)
    for param in params[1:]:  # the first has no state yet
        param.grad = torch.ones_like(param)
    optimizer.step()
    twins = copy.deepcopy(params)
    twin = RowwiseAdagrad([{"params": twins[:2]}, {"params": twins[2:]}])
    twin.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in twin.param_groups] == [0.01, 0.5]
    assert twins[0] not in twin.state
    assert [twin.state[param]["sum"].tolist() for param in twins[1:]] == [[1] * 3, [1] * 5]
    optimizer.step()
    assert [twin.state[param]["sum"].tolist() for param in twins[1:]] == [[1] * 3, [1] * 5]  # copies


def test_learning_rates_by_group_and_schedule() -> None:
    slow, fast = parameter((4, 2)), parameter((4, 2))
    gradient = torch.ones(4, 2, dtype=torch.float64)
    start = slow.detach().clone()
    optimizer = RowwiseAdagrad([{"params": [slow]}, {"params": [fast], "lr": 1.0}], lr=0.25, eps=1e-300)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    for _ in range(2):
        slow.grad = fast.grad = gradient
        optimizer.step()
        schedule.step()
    moved = 1 + 0.5 / 2**0.5  # the second step at half the rate, over the root of two
    torch.testing.assert_close(start - slow, 0.25 * moved * gradient)
    torch.testing.assert_close(start - fast, moved * gradient)


def test_the_closure_computes_gradients() -> None:
    param = parameter((3, 2))
    optimizer = RowwiseAdagrad([param])

    def closure() -> float:
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    with torch.no_grad():
        losses = [optimizer.step(closure) for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert losses[2] < losses[0]
    assert optimizer.step() is None  # type: ignore[func-returns-value]


def test_parameters_without_gradient_have_no_state() -> None:
    param = parameter((3, 2))
    before = param.detach().clone()
    optimizer = RowwiseAdagrad([param])
    optimizer.step()
    assert torch.equal(param, before)
    assert not optimizer.state


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: RowwiseAdagrad([p], lr=-0.1), "lr must be finite and >= 0, but got -0.1"),
        (lambda p: RowwiseAdagrad([p], lr=float("nan")), "but got nan"),
        (lambda p: RowwiseAdagrad([p], lr=float("inf")), "but got inf"),
        (lambda p: RowwiseAdagrad([p], eps=0.0), "eps must be finite and > 0, but got 0.0"),
        (lambda p: RowwiseAdagrad([p], initial_accumulator_value=-1), "initial_accumulator_value must be .*-1"),
        (lambda p: RowwiseAdagrad([{"params": [p], "lr": -1}]), "lr must be"),
        (lambda p: RowwiseAdagrad([{"params": [p], "weight_decay": 0.1}]), "has no weight decay, but got .*0.1"),
        (lambda p: RowwiseAdagrad([p, torch.tensor(1.0)]), "must have rows, but one is a scalar"),
        (lambda p: RowwiseAdagrad([torch.zeros(2, dtype=torch.complex64)]), "but one is torch.complex64"),
        (lambda p: RowwiseAdagrad([torch.zeros(2, dtype=torch.int64)]), "float32, float64, but one is torch.int64"),
    ],
)
def test_settings_that_cannot_be(make: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        make(parameter((3, 2)))
    assert "\n" not in str(caught.value)


def test_a_refused_group_is_not_added() -> None:
    optimizer = RowwiseAdagrad([parameter((3, 2))])
    with pytest.raises(DataError, match="eps"):
        optimizer.add_param_group({"params": parameter((2, 2)), "eps": -1.0})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": parameter((2, 2))})
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize(
    "gradient",
    [torch.eye(3).double().to_sparse(), torch.zeros(3, 3).double().to_sparse(2)],
    ids=["entries", "empty"],
)
def test_gradients_that_are_sparse_in_another_way(gradient: Tensor) -> None:
    param = parameter((3, 3))
    with pytest.raises(DataError, match=r"sparse by rows, but got torch.sparse_coo of shape \(3, 3\)"):
        run(param, [gradient])


@pytest.mark.parametrize("other", ["Adagrad", "rows", "SGD"])
def test_state_that_does_not_fit(other: str) -> None:
    param = parameter((3, 2))
    param.grad = torch.ones_like(param)
    theirs: torch.optim.Optimizer = {
        "Adagrad": lambda: torch.optim.Adagrad([param]),
        "rows": lambda: run(parameter((4, 2)), [torch.ones(4, 2).double()]),
        "SGD": lambda: torch.optim.SGD([param], momentum=0.5),
    }[other]()
    theirs.step()
    optimizer = run(param, [param.grad])
    before = optimizer.state_dict()
    with pytest.raises(DataError, match=r"one 'sum' per row, \(3,\), but got (\(3, 2\)|\(4,\)|None);"):
        optimizer.load_state_dict(theirs.state_dict())
    assert optimizer.state_dict() == before

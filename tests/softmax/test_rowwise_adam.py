"""Row-wise Adam against a loop over rows, against torch's own Adam, and compiled against plain torch."""

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

from tests.softmax.oracle import TREES, D, random_batch, random_layer
from tests.softmax.rowwise import bits, gradients, parameter, row_sparse, steps_of
from treesearch.errors import DataError
from treesearch.softmax import HierarchicalSoftmax, RowwiseAdagrad, RowwiseAdam, rowwise
from treesearch.softmax.row_gradients import merge_rows

run = partial(steps_of, RowwiseAdam)
SHAPES = [(7, 4), (7,), (1, 1), (7, 2, 3), (0, 4)]
STATE = ("mean", "mean_square")


def naive_steps(
    start: NDArray[Any],
    gradients: list[NDArray[Any]],
    *,
    touched: bool,
    lr: float = 0.001,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-8,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Parameters and moments after these steps, a row at a time; rows of zeros rest where ``touched`` is asked for."""
    values = start.astype(np.float64)
    mean, square = np.zeros_like(values), np.zeros(len(values))
    for step, gradient in enumerate(gradients, 1):
        for row in range(len(values)):
            if touched and not gradient[row].any():
                continue
            mean[row] = betas[0] * mean[row] + (1 - betas[0]) * gradient[row]
            square[row] = betas[1] * square[row] + (1 - betas[1]) * np.mean(np.square(gradient[row]))
            root = np.sqrt(square[row] / (1 - betas[1] ** step)) + eps
            values[row] -= lr / (1 - betas[0] ** step) * mean[row] / root
    return values, mean, square


def on_a_device(grad: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What `merged_gradient` gives on a device: places are left over."""
    return merge_rows(grad._indices()[0], grad._values().to(dtype))


# -- the rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"lr": 0.3, "betas": (0.5, 0.0), "eps": 0.1}, {"lr": 0.0}], ids=str)
@pytest.mark.parametrize("kind", ["dense", "sparse", "uncoalesced", "merged on a device"])
def test_against_a_loop_over_rows(
    shape: tuple[int, ...], options: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    param, steps, rng = parameter(shape), gradients(shape, 7), np.random.default_rng(2)
    arrays = [gradient.numpy() for gradient in steps]
    expected = naive_steps(param.detach().numpy(), arrays, touched=kind != "dense", **options)
    if kind == "merged on a device":
        monkeypatch.setattr(rowwise, "merged_gradient", on_a_device)
    if kind != "dense":
        steps = [row_sparse(gradient, rng, pieces=1 if kind == "sparse" else 3) for gradient in steps]
    optimizer = run(param, steps, **options)
    state = optimizer.state[param]
    assert [state[name].shape for name in STATE] == [shape, shape[:1]]
    for found, naive in zip((param.detach(), *(state[name] for name in STATE)), expected, strict=True):
        np.testing.assert_allclose(found, naive, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [(40, 5), (40,), (40, 2, 3), (300, 64)], ids=str)
def test_compiled_steps_are_those_in_torch(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    steps = [row_sparse(gradient.float(), rng) for gradient in gradients(shape, 6)]
    compiled, plain = parameter(shape, torch.float32), parameter(shape, torch.float32)
    ours = run(compiled, steps, lr=0.1)
    monkeypatch.setattr(rowwise, "_fits_kernel", lambda param, gradient: False)
    theirs = run(plain, steps, lr=0.1)
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)
    for name in STATE:
        torch.testing.assert_close(ours.state[compiled][name], theirs.state[plain][name], rtol=1e-5, atol=1e-4)


def test_a_vector_with_dense_gradients_is_torchs_adam() -> None:
    steps = gradients((9,), 20)
    own, other = parameter((9,)), parameter((9,))
    run(own, steps, lr=0.05)
    steps_of(torch.optim.Adam, other, steps, lr=0.05, betas=(0.9, 0.99))
    torch.testing.assert_close(own, other, rtol=1e-11, atol=1e-13)


def test_one_number_a_row_with_sparse_gradients_is_torchs_sparse_adam() -> None:
    rng = np.random.default_rng(0)
    steps = [row_sparse(gradient, rng, pieces=2) for gradient in gradients((9, 1), 20)]
    own, other = parameter((9, 1)), parameter((9, 1))
    settings = {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-300}  # torch adds eps before it corrects the root
    run(own, steps, **settings)
    steps_of(torch.optim.SparseAdam, other, steps, **settings)
    torch.testing.assert_close(own, other, rtol=1e-11, atol=1e-13)


def test_literal_steps() -> None:
    param = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64))
    # Mean squares 12.5 and 4. The first step moves by the gradient over its root mean square.
    steps = [[[3.0, -4.0], [0.0, 0.0]], [[2.0, 2.0], [0.0, 0.0]]]
    run(param, [torch.tensor(step).double() for step in steps], lr=1, betas=(0.5, 0.5), eps=1e-300)
    root = ((0.25 * 12.5 + 0.5 * 4) / 0.75) ** 0.5
    first = [1 - 3 / 12.5**0.5 - 1.75 / 0.75 / root, 2 + 4 / 12.5**0.5 - 0 / root]
    np.testing.assert_allclose(param.detach()[0], first, rtol=1e-12)
    assert param.detach()[1].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("dtype", "state", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-11),
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.float32, 0.03),
        (torch.float16, torch.float32, 0.01),
    ],
    ids=str,
)
@pytest.mark.parametrize("sparse", [False, True])
def test_types(dtype: torch.dtype, state: torch.dtype, tolerance: float, sparse: bool) -> None:
    param, rng = parameter((7, 4), dtype), np.random.default_rng(2)
    steps = [gradient.to(dtype) for gradient in gradients((7, 4))]
    arrays = [gradient.double().numpy() for gradient in steps]
    exact, *moments = naive_steps(param.detach().double().numpy(), arrays, touched=sparse, lr=0.1)
    optimizer = run(param, [row_sparse(gradient, rng) for gradient in steps] if sparse else steps, lr=0.1)
    assert param.dtype == dtype
    np.testing.assert_allclose(param.detach().double(), exact, rtol=tolerance, atol=tolerance)
    for name, moment in zip(STATE, moments, strict=True):
        assert optimizer.state[param][name].dtype == state
        np.testing.assert_allclose(optimizer.state[param][name], moment, rtol=1e-4, atol=1e-6)


# -- sparse steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_rows_without_gradient_rest_and_so_do_their_moments(dtype: torch.dtype) -> None:
    start = torch.tensor([[-0.0, 1e-42], [torch.nan, torch.inf], [1.0, 2.0], [3.0, 4.0]], dtype=dtype)
    param = nn.Parameter(start.clone())
    values = torch.tensor([[1.0, 1.0], [2.0, 0.0]], dtype=dtype)
    gradient = torch.sparse_coo_tensor([[2, 2]], values, (4, 2), check_invariants=True)
    optimizer = run(param, [gradient])
    others, odd = torch.tensor([0, 1, 3]), torch.tensor([torch.nan, -1.0, torch.inf], dtype=dtype)
    optimizer.state[param]["mean"][others] = odd[:, None].expand(3, 2)  # neither read nor written
    optimizer.state[param]["mean_square"][others] = odd
    optimizer.step()
    assert bits(param[others]) == bits(start[others])
    assert bits(optimizer.state[param]["mean_square"][others]) == bits(odd)
    assert bits(optimizer.state[param]["mean"][others, 0]) == bits(odd)
    assert (param[2] < start[2]).all()


@pytest.mark.parametrize("shape", [(0, 4), (0,), (3, 4), (3,), (3, 0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_gradient_without_rows_moves_nothing_but_is_a_step(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    param = parameter(shape, dtype)
    before = param.detach().clone()
    rows, values = torch.empty(1, 0, dtype=torch.int64), torch.empty(0, *shape[1:], dtype=dtype)
    optimizer = run(param, [torch.sparse_coo_tensor(rows, values, shape, check_invariants=True)] * 2)
    torch.testing.assert_close(param.detach(), before, rtol=0, atol=0)
    assert not optimizer.state[param]["mean"].any()
    assert optimizer.param_groups[0]["step"] == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sparse", [False, True])
def test_nothing_waits_for_the_device(sparse: bool) -> None:
    rng = np.random.default_rng(0)
    steps = [row_sparse(gradient, rng, pieces=3) if sparse else gradient for gradient in gradients((20, 3))]
    expected = parameter((20, 3))
    run(expected, steps)
    found = nn.Parameter(parameter((20, 3)).detach().cuda())
    moved = [gradient.cuda() for gradient in steps]
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(found, moved)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-11, atol=1e-13)


# -- with modules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one class", "projected root", "binary root, projected", "nested, growing again"])
def test_layers_with_kernel_and_in_torch_are_trained_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [random_layer(TREES[name], dtype=torch.float32, kernel="auto", sparse=True) for _ in range(2)]
    inputs, targets = random_batch(layers[0], 5, dtype=torch.float32)
    for layer in layers:
        optimizer = RowwiseAdam(layer.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            torch.autograd.backward(layer(inputs, targets).output.sum())
            optimizer.step()
        monkeypatch.setattr(rowwise, "_fits_kernel", lambda param, gradient: False)
    for own, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ["mixed depths", "nested, growing again"])
def test_trains_a_hierarchical_softmax(name: str, sparse: bool) -> None:
    tree = TREES[name]
    layer = HierarchicalSoftmax(D, tree, sparse=sparse)
    layer.reset_parameters(generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(tree.num_classes, D, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(tree.num_classes)
    optimizer = RowwiseAdam(layer.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward(layer(inputs, targets).loss)
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
    uninterrupted = run(whole, steps, lr=0.2, betas=(0.8, 0.9))
    buffer = io.BytesIO()
    torch.save(run(part, steps[:4], lr=0.2, betas=(0.8, 0.9)).state_dict(), buffer)
    buffer.seek(0)
    again = nn.Parameter(part.detach().clone())
    second = RowwiseAdam([again], lr=9.0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    for gradient in steps[4:]:
        again.grad = gradient
        second.step()
    assert bits(again) == bits(whole)
    for name in STATE:
        assert bits(second.state[again][name]) == bits(uninterrupted.state[whole][name])
    assert second.param_groups[0]["step"] == 8


def test_loaded_moments_in_another_order_of_memory() -> None:
    rng = np.random.default_rng(0)
    steps = [row_sparse(gradient.float(), rng) for gradient in gradients((9, 3), 4)]
    param = parameter((9, 3), torch.float32)
    state = copy.deepcopy(run(param, steps[:2]).state_dict())
    twin = nn.Parameter(param.detach().clone())
    loaded = RowwiseAdam([twin])
    state["state"][0]["mean"] = state["state"][0]["mean"].t().contiguous().t()
    loaded.load_state_dict(state)
    original = RowwiseAdam([param])
    original.load_state_dict(copy.deepcopy(state))
    for own, optimizer in ((param, original), (twin, loaded)):
        own.grad = steps[2]
        optimizer.step()
    assert loaded.state[twin]["mean"].is_contiguous()
    assert bits(twin) == bits(param)


def test_settings_by_group() -> None:
    slow, fast = parameter((4, 2)), parameter((4, 2))
    gradient = torch.ones(4, 2, dtype=torch.float64)
    start = slow.detach().clone()
    optimizer = RowwiseAdam([{"params": [slow]}, {"params": [fast], "lr": 1.0}], lr=0.25, eps=1e-300)
    for _ in range(2):
        slow.grad = fast.grad = gradient
        optimizer.step()
    torch.testing.assert_close(start - slow, 0.5 * gradient)  # equal gradients: a step is as long as the rate
    torch.testing.assert_close(start - fast, 2 * gradient)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: RowwiseAdam([p], lr=-0.1), "lr must be finite and >= 0, but got -0.1"),
        (lambda p: RowwiseAdam([p], lr=float("nan")), "but got nan"),
        (lambda p: RowwiseAdam([p], lr=float("inf")), "but got inf"),
        (lambda p: RowwiseAdam([p], eps=0.0), "eps must be finite and > 0, but got 0.0"),
        (lambda p: RowwiseAdam([p], betas=(0.9, 1.0)), r"betas must be two numbers in \[0, 1\), but got \(0.9, 1.0\)"),
        (lambda p: RowwiseAdam([p], betas=(-0.1, 0.9)), "betas must be"),
        (lambda p: RowwiseAdam([{"params": [p], "betas": (0.9,)}]), "betas must be"),
        (lambda p: RowwiseAdam([{"params": [p], "weight_decay": 0.1}]), "RowwiseAdam has no weight decay, .*0.1"),
        (lambda p: RowwiseAdam([p, torch.tensor(1.0)]), "must have rows, but one is a scalar"),
        (lambda p: RowwiseAdam([torch.zeros(2, dtype=torch.complex64)]), "but one is torch.complex64"),
        (lambda p: RowwiseAdam([torch.zeros(2, dtype=torch.int64)]), "float32, float64, but one is torch.int64"),
    ],
)
def test_settings_that_cannot_be(make: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        make(parameter((3, 2)))
    assert "\n" not in str(caught.value)


def test_gradients_that_are_sparse_in_another_way() -> None:
    with pytest.raises(DataError, match=r"sparse by rows, but got torch.sparse_coo of shape \(3, 3\)"):
        run(parameter((3, 3)), [torch.eye(3).double().to_sparse()])


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (lambda p: torch.optim.Adam([p]), r"one 'mean' per entry, \(3, 2\), but got None"),
        (lambda p: RowwiseAdagrad([p]), "load the state of a RowwiseAdam on these parameters"),
        (lambda p: run(parameter((4, 2)), [torch.ones(4, 2).double()]), r"\(3, 2\), but got \(4, 2\)"),
    ],
    ids=["Adam", "RowwiseAdagrad", "rows"],
)
def test_state_that_does_not_fit(theirs: Callable[[Tensor], torch.optim.Optimizer], message: str) -> None:
    param = parameter((3, 2))
    param.grad = torch.ones_like(param)
    other = theirs(param)
    other.step()
    optimizer = run(param, [param.grad])
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(DataError, match=message):
        optimizer.load_state_dict(other.state_dict())
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_settings_of_another_optimizer() -> None:
    """Also where no parameter has a state yet."""
    optimizer = RowwiseAdam([parameter((3, 2))])
    with pytest.raises(DataError, match=r"lr, betas, eps, step, but one lacks betas, step; load .* RowwiseAdam"):
        optimizer.load_state_dict(RowwiseAdagrad([parameter((3, 2))]).state_dict())
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.99)

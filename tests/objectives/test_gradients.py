"""Gradients of several losses: closed forms in two dimensions, the promise of PCGrad, and plain backward."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from treesearch.errors import DataError
from treesearch.objectives.gradients import GradientReport, Handling, combine_gradients


def update(*gradients: list[float], **options: object) -> tuple[list[float], GradientReport]:
    """What comes of losses with these gradients, over one parameter."""
    parameter = nn.Parameter(torch.zeros(len(gradients[0]), dtype=torch.float64))
    losses = [parameter @ torch.tensor(gradient, dtype=torch.float64) + 1 for gradient in gradients]
    report = combine_gradients(losses, [parameter], **options)  # type: ignore[arg-type]
    assert parameter.grad is not None
    return parameter.grad.tolist(), report


def test_closed_forms_in_two_dimensions() -> None:
    first, second = [1.0, 0.0], [-3.0, 4.0]  # cosine -0.6
    total, report = update(first, second)
    assert total == [-2, 4]
    assert report.losses == (1, 1)
    assert report.norms == (1, 5)
    assert report.cosines == ((1, pytest.approx(-0.6)), (pytest.approx(-0.6), 1))
    assert report.num_conflicts == 1
    # (1, 0) less its part along (-3, 4) is (0.64, 0.48); (-3, 4) less its part along (1, 0) is (0, 4).
    assert update(first, second, handling="pcgrad")[0] == pytest.approx([0.64, 4.48])
    assert update(first, second, handling="pcgrad", weights=[2, 1])[0] == pytest.approx([1.28, 4.96])
    assert update(first, second, handling="normalised", weights=[1, 2])[0] == pytest.approx([1 - 1.2, 1.6])
    assert update(first, [1.0, 1.0], handling="pcgrad")[0] == [2, 1]
    assert update(first, [0.0, 0.0], handling="normalised")[0] == [1, 0]
    assert update(first, [0.0, 0.0])[1].cosines == ((1, 0), (0, 0))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=2, max_size=2))
def test_pcgrad_of_two_raises_neither_loss(gradients: list[list[float]]) -> None:
    total, _ = update(*gradients, handling="pcgrad")
    for gradient in gradients:
        assert sum(a * b for a, b in zip(total, gradient, strict=True)) >= -1e-9


def test_pcgrad_of_three_goes_through_the_others_in_the_order_drawn() -> None:
    gradients = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    orders = torch.Generator().manual_seed(5)
    expected = torch.zeros(4, dtype=torch.float64)
    for i in range(3):
        own = gradients[i]
        for j in torch.randperm(3, generator=orders).tolist():
            if j != i and own @ gradients[j] < 0:
                own = own - (own @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        expected += own
    assert not torch.allclose(expected, gradients.sum(0))
    found, report = update(*gradients.tolist(), handling="pcgrad", generator=torch.Generator().manual_seed(5))
    assert found == pytest.approx(expected.tolist())
    assert report.num_conflicts == sum(bool(gradients[i] @ gradients[j] < 0) for i in range(3) for j in range(i))


def two_losses(model: nn.ModuleList) -> list[Tensor]:
    """Losses that share the middle module only; the last module is reached by neither."""
    input = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
    return [model[1](model[0](input)).square().mean(), (model[1].weight.sum(0) @ model[2].weight).tanh().sum()]


def a_model() -> nn.ModuleList:
    generator = torch.Generator().manual_seed(0)
    model = nn.ModuleList(nn.Linear(3, 3, dtype=torch.float64) for _ in range(4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def test_sum_is_plain_backward_and_adds_to_what_is_there() -> None:
    ours, plain = a_model(), a_model()
    for _ in range(2):
        combine_gradients(two_losses(ours), ours.parameters(), weights=[0.5, 2.0])
        first, second = two_losses(plain)
        (0.5 * first + 2 * second).backward()
    for own, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        assert (own.grad is None) == (theirs.grad is None)
        if own.grad is not None:
            torch.testing.assert_close(own.grad, theirs.grad)


@pytest.mark.parametrize("handling", ["sum", "normalised", "pcgrad"])
def test_what_one_loss_reaches_alone_takes_no_part_in_handling(handling: Handling) -> None:
    model = a_model()
    first, second = two_losses(model)
    second = -second  # in conflict
    alone = [torch.autograd.grad(first, model[0].weight, retain_graph=True)[0]]
    alone += torch.autograd.grad(second, model[2].weight, retain_graph=True)
    both = [torch.autograd.grad(loss, model[1].weight, retain_graph=True)[0].flatten() for loss in (first, second)]
    # The first loss reaches the shared module's bias too, which the second does not.
    away = both[0] @ both[1]
    assert away < 0
    expected = {
        "sum": both[0] + both[1],
        "normalised": both[0] + both[1] * both[0].norm() / both[1].norm(),
        "pcgrad": both[0] * (1 - away / both[0].square().sum()) + both[1] * (1 - away / both[1].square().sum()),
    }
    report = combine_gradients([first, second], model.parameters(), handling=handling)
    assert report.cosines[0][1] == pytest.approx(float(torch.cosine_similarity(*both, dim=0)))
    assert model[1].weight.grad is not None
    torch.testing.assert_close(model[1].weight.grad.flatten(), expected[handling])
    scale = float(both[0].norm() / both[1].norm()) if handling == "normalised" else 1.0
    torch.testing.assert_close(model[0].weight.grad, alone[0])
    torch.testing.assert_close(model[2].weight.grad, scale * alone[1])


def test_what_does_not_fit_is_refused() -> None:
    x = nn.Parameter(torch.ones(3))
    table = nn.Embedding(4, 3, sparse=True)
    loss: Callable[[], Tensor] = lambda: (x * x).sum()  # noqa: E731
    for losses, parameters, options, words in (
        ([loss()], [x], {"handling": "mean"}, "'sum', 'pcgrad', 'normalised'"),
        ([], [x], {}, "got 0 and 1"),
        ([loss()], [torch.ones(3)], {}, "got 1 and 0"),
        ([loss()], [x, x], {}, "distinct"),
        ([x * x], [x], {}, "scalar"),
        ([loss().detach()], [x], {}, "scalar"),
        ([loss()], [x], {"weights": [-1.0]}, "weights"),
        ([loss()], [x], {"weights": [1.0, 1.0]}, "weights"),
        ([loss(), loss(), loss()], [x], {"handling": "pcgrad"}, "torch.Generator"),
        ([loss()], [nn.Parameter(torch.ones(2))], {}, "reaches none"),
        ([table(torch.tensor([1])).sum()], [table.weight], {}, "row-sparse"),
    ):
        with pytest.raises(DataError, match=words):
            combine_gradients(losses, parameters, **options)  # type: ignore[arg-type]
    assert x.grad is None


def test_tiny_gradients_conflict_without_dividing_by_nothing() -> None:
    x = torch.zeros(4, requires_grad=True)
    report = combine_gradients([(x * 1.0).sum(), (x * -1e-25).sum()], [x], handling="pcgrad")
    assert report.cosines[0][1] == pytest.approx(-1)
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())

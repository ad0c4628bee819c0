"""Numbers at the edge: logits up to 1e4, sixty levels, 100,000 classes, half precision and autocast.

The bound in single precision. With a_c the rounding error of class c's log-probability l_c, the sum of probabilities
is off by about sum_c p_c a_c. The sum l_c of n decisions is rounded n times, by at most |l_c| 2^-24 each, so this part
is at most n H 2^-24, H <= ln C the entropy: 4e-5 for sixty decisions and 100,000 classes. A decision's own value is off
by some 2^-22 of itself and of the ln K of its node, which is less, provided that neither the largest logit is added to
a small logarithm nor small terms to a large sum. Large logits do no harm: where p_c counts, l_c is small.
"""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import nested as naive
from tests.softmax.oracle import KERNELS, TREES, D, random_batch, random_layer, random_tree
from treesearch import Tree, build_tree
from treesearch.softmax import HierarchicalSoftmax, reference
from treesearch.softmax.layer import Kernel

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 1e-4}  # of the sum of all probabilities
PRECISIONS: list[tuple[Kernel, torch.dtype]] = [
    ("reference", torch.float64),
    ("gpu", torch.float64),
    ("reference", torch.float32),
    ("cpu", torch.float32),
    ("gpu", torch.float32),
    ("reference", torch.bfloat16),
    ("gpu", torch.bfloat16),
]
BF16 = torch.bfloat16


def chain(num_nodes: int, arity: int) -> Tree:
    """All nodes on one path."""
    classes = itertools.count()
    nested: naive.Naive = [next(classes) for _ in range(arity)]
    for _ in range(num_nodes - 1):
        nested = [*(next(classes) for _ in range(arity - 1)), nested]
    return Tree.from_nested(nested)


def fibonacci_huffman(num_classes: int) -> Tree:
    """The deepest Huffman tree for its number of classes."""
    counts = [1.0, 1.0]
    while len(counts) < num_classes:
        counts.append(counts[-1] + counts[-2])
    return build_tree("huffman", counts=np.array(counts))


def bushy_below_a_chain(num_classes: int) -> Tree:
    """Groups of two to five at random, the root of which hangs on a chain of fifty: sixty levels in all."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(num_classes).tolist()
    parts: list[naive.Naive] = labels[50:]
    while len(parts) > 1:
        cuts = np.cumsum(rng.integers(2, 6, len(parts)))
        bounds = [0, *cuts[cuts < len(parts) - 1].tolist(), len(parts)]
        parts = [parts[low:high] for low, high in itertools.pairwise(bounds)]
    nested = parts[0]
    for cls in labels[:50]:
        nested = [cls, nested]
    return Tree.from_nested(nested)


SMALL: dict[str, Callable[[], Tree]] = {
    "one class": lambda: TREES["one class"],
    "two classes": lambda: TREES["two classes"],
    "mixed depths": lambda: TREES["mixed depths"],
    "projected": lambda: TREES["nested, growing again"],
    "chain of 60": lambda: chain(60, 2),
    "wide chain of 60": lambda: chain(60, 4),
    "fibonacci": lambda: fibonacci_huffman(61),
    "flat": lambda: build_tree("flat", counts=np.ones(1000)),
    "random": lambda: random_tree(np.random.default_rng(0), 2000, 4),
}
LARGE: dict[str, Callable[[], Tree]] = {
    "flat": lambda: build_tree("flat", counts=np.ones(100_000)),
    "huffman": lambda: build_tree("huffman", counts=1 / np.arange(1, 100_001)),
    "bushy": lambda: bushy_below_a_chain(100_000),
}


def with_logits_up_to(layer: HierarchicalSoftmax, top: float, num: int = 8) -> Tensor:
    """Inputs for which the largest logit of each example has this size (biases are zero)."""
    with torch.no_grad():
        for vector in layer.biases:
            vector.zero_()
    inputs, _ = random_batch(layer, num)
    if layer.tree.num_internal:
        biases = [torch.zeros(len(matrix), dtype=torch.float64) for matrix in layer.weights]
        weights, projections = [w.double() for w in layer.weights], [p.double() for p in layer.projections]
        inputs *= top / reference.all_logits(layer.layout, inputs, weights, biases, projections).abs().amax(0)[:, None]
    return inputs.detach().to(layer.weights[0].dtype)


def largest_error(scores: Tensor) -> float:
    """By how much the probabilities of an example fail to add up to one; added up in double precision."""
    assert not scores.isnan().any()
    assert scores.max() <= 0
    return abs(scores.double().logsumexp(-1)).max().item()


# -- probabilities add up to one ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("kernel", "dtype"), PRECISIONS, ids=str)
def test_probabilities_add_up_to_one(name: str, kernel: Kernel, dtype: torch.dtype) -> None:
    layer = random_layer(SMALL[name](), kernel=kernel, dtype=dtype)
    for top in (1.0, 30.0, 1e3, 1e4):
        inputs = with_logits_up_to(layer, top)
        assert largest_error(layer.log_prob(inputs)) <= TOLERANCE[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize(("kernel", "dtype"), PRECISIONS, ids=str)
def test_probabilities_of_100_000_classes_add_up_to_one(name: str, kernel: Kernel, dtype: torch.dtype) -> None:
    layer = random_layer(LARGE[name](), kernel=kernel, dtype=dtype)
    for top in (1.0, 30.0, 1e4):
        inputs = with_logits_up_to(layer, top, num=2)
        assert largest_error(layer.log_prob(inputs)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("kernel", "dtype"), PRECISIONS[:5], ids=str)
def test_class_by_class_they_add_up_to_one_too(name: str, kernel: Kernel, dtype: torch.dtype) -> None:
    layer = random_layer(SMALL[name](), kernel=kernel, dtype=dtype)
    classes = torch.arange(layer.tree.num_classes)
    for row in with_logits_up_to(layer, 30.0, num=2):
        assert largest_error(layer(row.expand(len(classes), -1), classes).output) <= TOLERANCE[dtype]


@pytest.mark.parametrize(("kernel", "dtype"), PRECISIONS, ids=str)
@pytest.mark.parametrize("gap", [10, 12, 17])
def test_a_likely_class_among_100_000_unlikely_ones(kernel: Kernel, dtype: torch.dtype, gap: int) -> None:
    # exp(-17) = 4e-8 is lost in single precision when it is added to one, and 100,000 of them are 4e-3.
    layer = random_layer(LARGE["flat"](), kernel=kernel, dtype=dtype)
    with torch.no_grad():
        layer.weights[0].zero_()
        layer.biases[0].fill_(-gap)
        layer.biases[0][0] = 0
    inputs = torch.zeros(2, D, dtype=dtype)
    expected = -np.log1p(99_999 * np.exp(-gap))
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    assert layer.log_prob(inputs)[0, 0].item() == pytest.approx(expected, abs=tolerance)
    assert layer(inputs, torch.tensor([0, 7])).output.tolist() == pytest.approx(
        [expected, expected - gap], abs=tolerance
    )
    assert largest_error(layer.log_prob(inputs)) <= tolerance


# -- logits of 1e4 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("kernel", "dtype"), PRECISIONS, ids=str)
def test_gradients_are_finite_where_logits_are_large(name: str, kernel: Kernel, dtype: torch.dtype) -> None:
    layer = random_layer(SMALL[name](), kernel=kernel, dtype=dtype)
    inputs = with_logits_up_to(layer, 1e4).requires_grad_()
    _, targets = random_batch(layer, 8)
    for value in (layer(inputs, targets).loss, layer.log_prob(inputs).mean()):
        assert value.isfinite()
        grads = torch.autograd.grad(value, [inputs, *layer.parameters()], allow_unused=True)
        assert all(grad.isfinite().all() for grad in grads if grad is not None)


@pytest.mark.parametrize(("kernel", "dtype"), PRECISIONS, ids=str)
def test_equal_logits_of_any_size_share_alike(kernel: Kernel, dtype: torch.dtype) -> None:
    for num_classes in (3, 11, 266):
        layer = random_layer(build_tree("flat", counts=np.ones(num_classes)), kernel=kernel, dtype=dtype)
        inputs, classes = torch.zeros(num_classes, D, dtype=dtype), torch.arange(num_classes)
        for logit in (0.0, 1e4, -1e4):
            with torch.no_grad():
                layer.biases[0].fill_(logit)
            for scores in (layer.log_prob(inputs), layer(inputs, classes).output):
                assert largest_error(scores.reshape(-1, num_classes)) <= TOLERANCE[dtype]
                assert scores.min() == scores.max()


@pytest.mark.parametrize(("kernel", "dtype"), PRECISIONS, ids=str)
def test_a_hopeless_target_costs_its_logits(kernel: Kernel, dtype: torch.dtype) -> None:
    big = torch.tensor(1e4, dtype=dtype).item()  # 9984 in bfloat16
    one = torch.ones(1, D, dtype=dtype) / D
    for name, target, decisions in (("two classes", 1, 1), ("flat", 5, 1), ("chain of 60", 60, 60)):
        layer = random_layer(SMALL[name](), kernel=kernel, dtype=dtype)
        if name == "chain of 60":  # classes 0 and 1 are the deepest: child 0 leads to them, and from there to class 0
            target = 1
        with torch.no_grad():
            layer.weights[0].zero_()
            layer.biases[0].zero_()
            layer.biases[0][: 1 if name == "flat" else None] = big  # to child 0
            if name == "chain of 60":
                layer.biases[0][:-1] = -big
        nll = layer.nll(one, torch.tensor([target]))
        assert nll.item() == pytest.approx(decisions * big, rel=1e-6)
        assert layer.log_prob(one)[0, target].item() == pytest.approx(-decisions * big, rel=1e-6)


# -- half precision and autocast ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, BF16])
@pytest.mark.parametrize("name", ["mixed depths", "nested, growing again"])
@pytest.mark.parametrize("kernel", ["auto", "reference", "gpu"])
def test_to_another_type_and_back(kernel: Kernel, name: str, dtype: torch.dtype) -> None:
    layer = random_layer(TREES[name], kernel=kernel, dtype=torch.float32)
    inputs, targets = random_batch(layer, 30, dtype=torch.float32)
    before = layer(inputs, targets).output, layer.log_prob(inputs)
    layer.to(dtype)
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
    assert layer.tree_hash.dtype == torch.uint8
    after = layer(inputs.to(dtype), targets).output, layer.log_prob(inputs.to(dtype))
    tolerance = {torch.float64: 1e-5, torch.float16: 2e-2, BF16: 1e-1}[dtype]
    for old, new in zip(before, after, strict=True):
        assert new.dtype == torch.promote_types(dtype, torch.float32)  # logits are normalised in single precision
        torch.testing.assert_close(new.float(), old, rtol=tolerance, atol=tolerance)
    torch.autograd.backward(layer.nll(inputs.to(dtype), targets))
    assert {p.grad.dtype for p in layer.parameters() if p.grad is not None} == {dtype}
    layer.float()
    if dtype == torch.float64:
        assert torch.equal(layer(inputs, targets).output, before[0])


@pytest.mark.parametrize("dtype", [torch.float32, BF16, torch.float16])
@pytest.mark.parametrize("kernel", ["auto", *KERNELS])
@pytest.mark.parametrize("name", ["one class", "huffman", "flat", "nested, growing again"])
@pytest.mark.parametrize("sparse", [False, True])
def test_autocast(kernel: Kernel, name: str, dtype: torch.dtype, sparse: bool) -> None:
    layer = random_layer(TREES[name], kernel=kernel, dtype=torch.float32, sparse=sparse)
    inputs, targets = random_batch(layer, 30, dtype=torch.float32)
    exact, scores = layer(inputs, targets), layer.log_prob(inputs)
    with torch.autocast("cpu", BF16):
        output, loss = layer(inputs.to(dtype), targets)
        found = layer.log_prob(inputs.to(dtype))
        node = layer.node_log_probs(inputs.to(dtype), targets).log_prob
        best = layer.topk(inputs.to(dtype), 1)
        nll = layer.nll(inputs.to(dtype), targets)
    assert {output.dtype, loss.dtype, found.dtype, node.dtype, best.log_prob.dtype} == {torch.float32}
    torch.testing.assert_close(loss, exact.loss, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(nll, loss)
    for own, expected in ((output, exact.output), (found, scores), (node.sum(-1), exact.output)):
        torch.testing.assert_close(own, expected, rtol=2e-2, atol=5e-2)
    torch.testing.assert_close(best.log_prob[:, 0], scores.amax(-1), rtol=2e-2, atol=5e-2)
    assert largest_error(found) <= TOLERANCE[BF16]
    torch.autograd.backward(loss)  # outside of autocast, as torch advises
    assert {p.grad.dtype for p in layer.parameters() if p.grad is not None} <= {torch.float32}

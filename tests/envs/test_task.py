"""The instance: what it derives and what it refuses."""

import numpy as np
import pytest

from envs import ConstructionTask, zipf_task
from treesearch.errors import ConfigError, DataError

COUNTS = [4.0, 3.0, 2.0]


def test_derived_arrays() -> None:
    task = ConstructionTask(np.array([1, 4, 3]), np.eye(3, 5))
    assert task.in_features == 5
    assert task.counts.dtype == np.float64
    assert task.probability.tolist() == [0.125, 0.5, 0.375]
    np.testing.assert_allclose(task.attention, np.sqrt([1, 4, 3]), rtol=1e-6)
    assert task.start().shape == task.start(3).shape == (5,)
    assert ConstructionTask(task.counts, task.vectors, seed=1).start().tolist() != task.start().tolist()


def test_variance_is_the_weighted_mean_squared_distance() -> None:
    task = ConstructionTask(np.array([1.0, 9.0, 5.0]), np.array([[0.0], [4.0], [1.0]]))
    mean = (1 * 0 + 3 * 4) / 4  # attention is the root of the count
    assert task.variance(np.array([0, 1])) == pytest.approx((1 * mean**2 + 3 * (4 - mean) ** 2) / 4)
    assert task.variance(np.array([2])) == 0
    assert ConstructionTask(np.ones(3), in_features=1).total_variance == 0


def test_variance_of_classes_without_mass_is_unweighted() -> None:
    task = ConstructionTask(np.array([1.0, 0.0, 0.0]), np.array([[9.0], [0.0], [2.0]]))
    assert task.variance(np.array([1, 2])) == pytest.approx(1.0)


def test_zipf_task() -> None:
    task = zipf_task(50, in_features=4, seed=3)
    np.testing.assert_allclose(task.counts[0] / task.counts, np.arange(1, 51))
    assert task.require_vectors().shape == (50, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"counts": COUNTS}, ConfigError, "pass it or vectors"),
        ({"counts": COUNTS[:2], "in_features": 4}, DataError, ">= 3 classes, but got 2"),
        ({"counts": [1, 2, -1], "in_features": 4}, DataError, "class 2 has -1"),
        ({"counts": COUNTS, "vectors": np.ones((2, 4))}, DataError, r"shape \(3, D >= 1\)"),
        ({"counts": COUNTS, "in_features": 4, "cost_weight": -1}, ConfigError, "cost_weight must be"),
        ({"counts": COUNTS, "in_features": 4, "cost_weight": float("nan")}, ConfigError, "cost_weight must be"),
        ({"counts": COUNTS, "in_features": 4, "seed": -1}, ConfigError, "seed must be"),
    ],
)
def test_refusals(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ConstructionTask(**arguments)


def test_similarity_without_vectors() -> None:
    with pytest.raises(DataError, match="need class vectors"):
        _ = ConstructionTask(np.ones(3), in_features=1).start()

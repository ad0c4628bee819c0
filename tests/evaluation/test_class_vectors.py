"""Class means and the vectors made from them, against loops and the definition of the covariance."""

import numpy as np
import pytest

from treesearch.evaluation.class_vectors import class_means, class_vectors
from treesearch.evaluation.features import Features

RNG = np.random.default_rng(0)
LABELS = RNG.choice([0, 1, 3, 4, 7], size=200).astype(np.int32)
FEATURES = (
    RNG.standard_normal((200, 6)) @ (np.eye(6) + RNG.random((6, 6)) / 6) + RNG.standard_normal((9, 6))[LABELS]
).astype(np.float32)


@pytest.mark.parametrize("prior", [1.0, 0.25])
def test_class_means_against_a_loop(prior: float) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((200, 6)).astype(np.float32)
    labels = rng.choice([0, 1, 3, 4, 7], size=200).astype(np.int32)
    overall = features.astype(np.float64).mean(0)
    means = class_means(Features(features, labels), 9, prior=prior)
    assert means.dtype == np.float32
    for cls in range(9):
        own = features[labels == cls].astype(np.float64)
        np.testing.assert_allclose(means[cls], (own.sum(0) + prior * overall) / (len(own) + prior), rtol=1e-5)


def test_a_class_without_tokens_gets_the_overall_mean() -> None:
    means = class_means(Features(np.array([[1, 0], [3, 0], [2, 6]], np.float32), np.array([0, 0, 2], np.int32)), 4)
    # overall mean (2, 2): one token of it beside the two of class 0 and the one of class 2
    np.testing.assert_allclose(means, np.array([[2, 2 / 3], [2, 2], [2, 4], [2, 2]]), rtol=1e-6)


@pytest.mark.parametrize("power", [0.0, -0.25, -1.0])
def test_class_vectors_are_means_times_a_power_of_the_covariance_within(power: float) -> None:
    covariance = np.zeros((6, 6))
    for cls in np.unique(LABELS):
        own = FEATURES[np.flatnonzero(cls == LABELS)].astype(np.float64)
        residual = own - own.mean(0)
        covariance += residual.T @ residual / len(FEATURES)
    variance, axes = np.linalg.eigh(covariance)
    assert variance[0] > 1e-3 * variance[-1]  # nothing is cut off
    expected = class_means(Features(FEATURES, LABELS), 9, prior=2.0) @ axes @ np.diag(variance**power) @ axes.T
    vectors = class_vectors(Features(FEATURES, LABELS), 9, prior=2.0, power=power)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


def test_a_direction_in_which_nothing_differs_does_not_explode() -> None:
    features = np.column_stack([FEATURES, np.full(200, 0.5, np.float32)])
    assert np.abs(class_vectors(Features(features, LABELS), 9)).max() < 20 * np.abs(FEATURES).max()


def test_features_that_are_the_same_within_every_class_stay_means() -> None:
    features = np.eye(9, dtype=np.float32)[LABELS]
    np.testing.assert_allclose(
        class_vectors(Features(features, LABELS), 9, prior=1.0),
        class_means(Features(features, LABELS), 9, prior=1.0),
        rtol=1e-6,
    )

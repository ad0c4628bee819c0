import numpy as np
import pytest

from treesearch.bench import autocomplete
from treesearch.bench.autocomplete_rivals import RangeMaxima, by_partition, by_scan


@pytest.mark.slow
def test_rows_of_a_small_size():
    rows = autocomplete.run(sizes=(300,), num_prefixes=20, repeats=1)
    assert [(row["tree"], row["completions"]) for row in rows] == [("huffman", 300), ("balanced", 300)]
    for row in rows:
        assert row["entropy_bits"] <= row["decisions"] <= row["balanced_decisions"]
        assert row["flat_cost"] == 16
        assert 0 < row["median_ms"] <= row["p99_ms"]


def test_rivals_equal_a_sort():
    rng = np.random.default_rng(0)
    for size in (1, 2, 37, 200):
        value = rng.integers(6, size=size).astype(float)
        maxima = RangeMaxima(value)
        for _ in range(50):
            low, high = sorted(rng.integers(size + 1, size=2).tolist())
            k = int(rng.integers(1, 12))
            best = low + np.argsort(-value[low:high], kind="stable")[:k]
            for found in (by_scan(value, low, high, k), by_partition(value, low, high, k), maxima.top(low, high, k)):
                assert found.tolist() == best.tolist()


def test_queries_are_the_same_for_a_seed():
    first, second = (autocomplete.synthetic_queries(1000, np.random.default_rng(3)) for _ in range(2))
    assert first == second
    assert len(first) == 1000
    assert min(first.values()) == 1
    assert max(first.values()) == 1000

"""The contract of every builder: deterministic, valid for any input, one-line errors."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treesearch import Tree, TreeSearchError, build_tree
from treesearch.builders import BUILDERS, builder_label, split_builder
from treesearch.errors import ConfigError, DataError
from treesearch.taxonomy import taxonomy_from_paths

ROOT = Path(__file__).parents[2]
DIM = 16

# A new builder belongs here; the tests below then run on it.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("flat", {}),
    ("random", {"arity": 3}),
    ("balanced", {}),
    ("balanced", {"arity": 4, "order": "given"}),
    ("huffman", {}),
    ("huffman", {"arity": 5}),
    ("similar-huffman", {}),
    ("clustered", {}),
    ("clustered", {"arity": 16, "quantile": 0.3}),
    ("clustered", {"balance": "count", "leaf_size": 4}),
    ("interpolated", {"weight": 0.0}),
    ("interpolated", {}),
    ("interpolated", {"weight": 1.0}),
    ("two-level", {}),
    ("two-level", {"by": "similarity"}),
    ("adaptive", {}),
    ("reassigned", {"arity": 4, "rounds": 1}),
    ("categories", {"arity": 3}),
    ("categories", {"within": "similar-huffman", "top": "flat"}),
    ("taxonomy", {}),
]
every_variant = pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=[builder_label(name, options) for name, options in VARIANTS]
)


def inputs(num_classes: int, seed: int = 0) -> dict[str, Any]:
    """Zipf counts in random order and Gaussian vectors."""
    rng = np.random.default_rng(seed)
    counts = rng.permutation(1000 // np.arange(1, num_classes + 1) + 1)
    vectors = rng.standard_normal((num_classes, DIM)).astype(np.float32)

    def directions(parts: list[np.ndarray]) -> np.ndarray:
        """Without training: by each part's mean vector."""
        means = np.stack([vectors[part].mean(0) for part in parts])
        return np.einsum("nd,kd->nk", vectors[np.sort(np.concatenate(parts))], means).astype(np.float64)

    categories = np.arange(num_classes) % 4
    return {
        "counts": counts,
        "vectors": vectors,
        "directions": directions,
        "categories": categories,
        "taxonomy": taxonomy_from_paths([f"{category}/{cls}" for cls, category in enumerate(categories)]),
    }


def hashes(seed: int) -> list[str]:
    """The hash of each variant; also called by another process."""
    return [build_tree(name, **inputs(200), seed=seed, **options).hash for name, options in VARIANTS]


def test_every_builder_has_a_variant() -> None:
    assert {name for name, _ in VARIANTS} == set(BUILDERS)


@every_variant
@pytest.mark.parametrize("num_classes", [1, 2, 3, 5, 17, 300])
def test_valid_for_any_number_of_classes(name: str, options: dict[str, Any], num_classes: int) -> None:
    tree = build_tree(name, **inputs(num_classes), **options)
    assert tree.num_classes == num_classes
    again = Tree.from_parents(tree.parent, tree.leaf_class, projection_dim=tree.projection_dim)
    assert again == tree
    assert (tree.metadata["builder"], tree.metadata["seed"]) == (name, 0)
    # The builder of a taxonomy adds where it came from, and what it is.
    assert {key: value for key, value in tree.metadata["options"].items() if key != "taxonomy"} == options
    assert tree.metadata.keys() - {"taxonomy"} == {"builder", "options", "seed"}


def _some_zero(counts: np.ndarray) -> np.ndarray:
    return np.where(np.arange(counts.size) % 3, counts, 0)


def _dominated(counts: np.ndarray) -> np.ndarray:
    return np.where(np.arange(counts.size) == counts.size // 2, 1e12, counts)


@every_variant
@pytest.mark.parametrize("num_classes", [2, 3, 40])
@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("vectors", np.ones_like),
        ("vectors", np.zeros_like),
        ("vectors", lambda vectors: vectors * 1e18),
        ("vectors", lambda vectors: vectors * 1e-25),
        ("counts", _some_zero),
        ("counts", lambda counts: np.eye(counts.size)[-1]),
        ("counts", _dominated),
        ("counts", np.ones_like),
        ("counts", lambda counts: counts * 1e-300),
    ],
    ids=["equal", "zero", "large", "tiny", "zeros", "one", "dominated", "uniform", "small"],
)
def test_valid_for_degenerate_inputs(
    name: str, options: dict[str, Any], num_classes: int, change: str, value: Any
) -> None:
    given = inputs(num_classes)
    given[change] = value(given[change])
    tree = build_tree(name, **given, **options)
    assert tree.num_classes == num_classes
    assert build_tree(name, **given, **options) == tree


def test_same_seed_same_trees_in_another_process_with_another_hash_seed() -> None:
    code = "from tests.builders.test_registry import hashes; print(*hashes(7))"
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == hashes(7)


def test_the_seed_decides_random_trees() -> None:
    trees = [build_tree("random", counts=np.ones(50), seed=seed) for seed in (0, 0, 1)]
    assert trees[0] == trees[1] != trees[2]


@every_variant
def test_input_types_do_not_matter(name: str, options: dict[str, Any]) -> None:
    given = inputs(30)
    as_lists = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in given.items()}
    given["vectors"] = np.asfortranarray(given["vectors"].astype(np.float32))
    assert build_tree(name, **as_lists, **options) == build_tree(name, **given, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("huffman", {"arity": np.int64(3)}),
        ("clustered", {"quantile": np.float32(0.5)}),
        ("adaptive", {"cutoffs": np.array([2, 5])}),
        ("adaptive", {"cutoffs": (2, 5)}),
    ],
)
def test_numpy_options_can_be_saved(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    tree = build_tree(name, **inputs(20), **options)
    tree.save(tmp_path / "tree.npz")
    assert Tree.load(tmp_path / "tree.npz") == tree


def test_builder_label() -> None:
    assert builder_label("huffman", {}) == "huffman"
    assert builder_label("clustered", {"quantile": 0.5, "arity": 16}) == "clustered(arity=16, quantile=0.5)"


GOOD: dict[str, Any] = {"counts": [3, 2, 1], "vectors": [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]}
NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "given", "kind", "message"),
    [
        ("hufman", {}, ConfigError, "unknown builder 'hufman'; did you mean 'huffman'"),
        ("xyz", {}, ConfigError, "unknown builder 'xyz'; known: flat, random"),
        ("huffman", {"arty": 3}, ConfigError, "builder 'huffman' has no option 'arty'; did you mean 'arity'"),
        ("huffman", {"colour": 3}, ConfigError, "no option 'colour'; known: arity"),
        ("flat", {"arity": 3}, ConfigError, "builder 'flat' has no option 'arity'; it takes none"),
        ("huffman", {"arity": 1}, ConfigError, "arity must be an integer >= 2, but got 1"),
        ("balanced", {"arity": 2.0}, ConfigError, "arity must be an integer >= 2, but got 2.0"),
        ("random", {"arity": True}, ConfigError, "arity must be an integer >= 2, but got True"),
        ("clustered", {"arity": "4"}, ConfigError, "arity must be an integer >= 2, but got '4'"),
        ("random", {"seed": -1}, ConfigError, "seed must be an integer >= 0, but got -1"),
        ("huffman", {"seed": "a"}, ConfigError, "seed must be an integer >= 0, but got 'a'"),
        ("balanced", {"order": "size"}, ConfigError, "order must be 'frequency' or 'given', but got 'size'"),
        ("clustered", {"quantile": 0}, ConfigError, r"quantile must lie inside \(0, 1\), but got 0"),
        ("clustered", {"quantile": 1.0}, ConfigError, r"quantile must lie inside \(0, 1\), but got 1.0"),
        ("clustered", {"quantile": NAN}, ConfigError, r"quantile must lie inside \(0, 1\), but got nan"),
        ("clustered", {"quantile": "half"}, ConfigError, r"quantile must lie inside \(0, 1\), but got 'half'"),
        ("clustered", {"balance": "size"}, ConfigError, "balance must be 'mass' or 'count', but got 'size'"),
        ("clustered", {"leaf_size": 0}, ConfigError, "leaf_size must be an integer >= 1, but got 0"),
        ("clustered", {"leaf_size": 1.5}, ConfigError, "leaf_size must be an integer >= 1, but got 1.5"),
        ("interpolated", {"weight": 1.1}, ConfigError, r"weight must lie inside \[0, 1\], but got 1.1"),
        ("interpolated", {"weight": NAN}, ConfigError, r"weight must lie inside \[0, 1\], but got nan"),
        ("interpolated", {"weight": None}, ConfigError, r"weight must lie inside \[0, 1\], but got None"),
        ("two-level", {"by": "size"}, ConfigError, "by must be 'frequency' or 'similarity', but got 'size'"),
        ("adaptive", {"cutoffs": [2, 1]}, ConfigError, r"rise strictly inside \(0, 3\), but got \[2, 1\]"),
        ("adaptive", {"cutoffs": [1, 3]}, ConfigError, r"rise strictly inside \(0, 3\), but got \[1, 3\]"),
        ("adaptive", {"cutoffs": []}, ConfigError, r"rise strictly inside \(0, 3\), but got \[\]"),
        ("adaptive", {"cutoffs": 2}, ConfigError, r"cutoffs must .* but got 2"),
        ("adaptive", {"cutoffs": [1.5]}, ConfigError, r"cutoffs must .* but got \[1.5\]"),
        ("adaptive", {"div_value": 0.5}, ConfigError, "div_value must be >= 1, but got 0.5"),
        ("adaptive", {"div_value": "a"}, ConfigError, "div_value must be >= 1, but got 'a'"),
        ("adaptive", {"div_value": 4, "cutoffs": [1, 2]}, ConfigError, r"must be >= 1, but got projections \[0, 0\]"),
        ("adaptive", {"in_features": 0, "cutoffs": [1]}, ConfigError, "in_features must be an integer >= 1, but got 0"),
        ("adaptive", {"in_features": 8.0}, ConfigError, "in_features must be an integer >= 1, but got 8.0"),
        ("adaptive", {"vectors": None}, ConfigError, "needs in_features"),
        ("clustered", {"vectors": None}, DataError, "'clustered' .* needs vectors .* but got none"),
        ("interpolated", {"vectors": None}, DataError, "'interpolated' .* needs vectors .* but got none"),
        ("two-level", {"vectors": None, "by": "similarity"}, DataError, "'two-level' .* needs vectors .* but got none"),
        ("clustered", {"vectors": [[1, 2]]}, DataError, r"must have shape \(3, D >= 1\), but got \(1, 2\)"),
        ("clustered", {"vectors": [1, 2, 3]}, DataError, r"must have shape \(3, D >= 1\), but got \(3,\)"),
        ("clustered", {"vectors": [[], [], []]}, DataError, r"must have shape \(3, D >= 1\), but got \(3, 0\)"),
        ("clustered", {"vectors": [[1], [NAN], [2]]}, DataError, "the row of class 1 holds NaN"),
        ("clustered", {"vectors": [[1], [2], [np.inf]]}, DataError, "the row of class 2 holds NaN or infinity"),
        ("clustered", {"vectors": [[1e39], [2], [3]]}, DataError, "the row of class 0 holds NaN or infinity"),
        ("clustered", {"vectors": [["a"], ["b"], ["c"]]}, DataError, "vectors must be a matrix of numbers"),
        ("clustered", {"vectors": [[1], [2, 3], [4]]}, DataError, "vectors must be a matrix of numbers"),
        ("huffman", {"counts": [1, -2]}, DataError, "class 1 has -2.0"),
        ("huffman", {"counts": [0, 0]}, DataError, "all are 0"),
        ("huffman", {"counts": [1, NAN]}, DataError, "class 1 has nan"),
        ("huffman", {"counts": []}, DataError, r"got shape \(0,\)"),
        ("huffman", {"counts": 3}, DataError, r"got shape \(\)"),
        ("huffman", {"counts": ["many"]}, DataError, "counts must be numbers"),
    ],
)
def test_errors_are_one_line(name: str, given: dict[str, Any], kind: type[TreeSearchError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        build_tree(name, **(GOOD | given))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [{"name": "huffman", "taxonomy": "f"}, {"name": "clustered", "categories": "f"}, {"name": "flat", "directions": 1}],
)
def test_what_a_run_gives_is_no_option(entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="from the run; leave"):
        split_builder(entry)


def test_two_builders_name_what_they_take() -> None:
    for name in ("categories", "taxonomy"):
        assert split_builder({"name": name, name: "f"}) == (name, {name: "f"})

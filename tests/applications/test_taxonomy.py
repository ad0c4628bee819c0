"""`treesearch apply taxonomy`: a whole run on a taxonomy that its documents follow."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import treesearch
from treesearch.applications.taxonomy import CLASSIFIERS, TrainingSettings, compare_classifiers, load_task
from treesearch.errors import ConfigError, TreeError

KEYS = ["name", "accuracy", "accuracy_by_level", "rare_accuracy", "severity", "nll", "violations", "seconds"]


def write_task(folder: Path) -> dict[str, str]:
    """Twelve classes, one at an inner node; a document has a word of its group and perhaps one of its class."""
    rng = np.random.default_rng(0)
    links = [(f"group{g}", "ROOT") for g in range(3)] + [(f"class{c}", f"group{c % 3}") for c in range(11)]
    labels = [f"class{c}" for c in range(11)] + ["group0"]
    for name, size in (("train", 30), ("valid", 4), ("test", 6)):
        lines = []
        for place, label in enumerate(labels):
            group = label if label == "group0" else f"group{place % 3}"
            for _ in range(2 if name == "train" and place < 2 else size):
                lines.append(f"a {group} {label if rng.random() < 0.7 else 'thing'} here\t{label}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "taxonomy.tsv").write_text("".join(f"{child}\t{parent}\n" for child, parent in links))
    return {name: str(folder / f"{name}.tsv") for name in ("train", "valid", "test", "taxonomy")}


def arguments(paths: dict[str, str], **changes: str) -> list[str]:
    return [part for name, path in (paths | changes).items() for part in (f"--{name}", path)]


@pytest.mark.slow
def test_all_classifiers_learn(tmp_path: Path) -> None:
    paths = write_task(tmp_path)
    done = treesearch("apply", "taxonomy", *arguments(paths), "--seeds", "2", "--epochs", "8", "--json")
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = json.loads(done.out)
    assert [row["name"] for row in rows] == list(CLASSIFIERS)
    for row in rows:
        assert list(row)[:8] == KEYS
        assert row["accuracy"] > 0.5
        assert row["accuracy_by_level"][0] > 0.9  # the groups are told outright
        assert len(row["accuracy_by_level"]) == 2
        assert 0 <= row["rare_accuracy"] <= 1
        assert 1 <= row["severity"] <= 2
        assert 0 < row["nll"] < np.log(12)
        assert set(row["against_flat"]) >= {"accuracy", "nll", "rare_accuracy"}
        assert len(row["runs"]) == 2
    assert all(row["violations"] == 0 for row in rows if row["name"].startswith(("flat", "hs")))


def test_the_same_seeds_give_the_same_rows(tmp_path: Path) -> None:
    paths = write_task(tmp_path)
    dataset, taxonomy = load_task(*(Path(paths[name]) for name in ("train", "valid", "test", "taxonomy")))
    settings = TrainingSettings(epochs=2, learning_rates=(0.01,))
    both = [compare_classifiers(dataset, taxonomy, names=["hs + multi-level"], settings=settings) for _ in range(2)]
    for rows in both:
        del rows[0]["seconds"], rows[0]["intervals"]["seconds"], rows[0]["runs"][0]["seconds"]
    assert both[0] == both[1]


def test_the_table_and_labels_that_are_never_learned_from(tmp_path: Path) -> None:
    paths = write_task(tmp_path)
    with open(paths["test"], "a") as file:
        file.write("a group1 new thing\tnew\n")
    with open(paths["taxonomy"], "a") as file:
        file.write("new\tgroup1\n")
    done = treesearch("apply", "taxonomy", *arguments(paths), "--epochs", "1", "--models", "flat", "--models", "hs")
    assert done.code == 0, done.err
    assert "13 classes in 2 levels" in done.err
    assert max(map(len, done.out.splitlines())) <= 100
    assert [line.split()[0] for line in done.out.splitlines() if line.strip()][-2:] == ["flat", "hs"]


def test_a_rule_for_several_parents(tmp_path: Path) -> None:
    paths = write_task(tmp_path)
    with open(paths["taxonomy"], "a") as file:
        file.write("class1\tROOT\nclass0\tgroup0\n")
    load = functools.partial(load_task, *(Path(paths[name]) for name in ("train", "valid", "test", "taxonomy")))
    for rule, depth in (("first", 2), ("shallowest", 1)):
        taxonomy = load(parents=rule)[1]
        assert taxonomy.depth[taxonomy.node("class1")] == depth
    with pytest.raises(TreeError, match="'class1' is given 2 times"):
        load()
    done = treesearch("apply", "taxonomy", *arguments(paths, parents="first"), "--epochs", "1", "--models", "flat")
    assert done.code == 0, done.err
    (tmp_path / "paths").write_text("".join(f"class{c}\n" for c in range(11)) + "group0\n")
    assert load_task(*map(Path, [paths["train"], paths["valid"], paths["test"], tmp_path / "paths"]))[1].num_levels == 1


@pytest.mark.slow
def test_bad_input(tmp_path: Path) -> None:
    paths = write_task(tmp_path)
    tree = tmp_path / "other.tsv"
    for content, message in (
        ("class0\tROOT\n", "every class must be in the taxonomy, but 11 of 12 are not"),
        ("a\tb\nb\ta\n", "no cycle"),
        ("a\tb\n", "'b', the parent of 'a', has none"),
        ("a\tROOT\nb\tROOT\na\tb\n", "'a' is given 2 times, under 'ROOT', 'b'; give it one, or a rule"),
        ("", "is empty"),
    ):
        tree.write_text(content)
        done = treesearch("apply", "taxonomy", *arguments(paths, taxonomy=str(tree)))
        assert done.code == 2
        assert message in done.err
        assert "Traceback" not in done.err
    (tmp_path / "paths").write_text("".join(f"class{c}\n" for c in range(11)) + "group0\n")
    (tmp_path / "bad.tsv").write_text("no label\n")
    for changes, message in (
        ({"train": str(tmp_path / "bad.tsv")}, "lines must be 'text TAB label'"),
        ({"test": str(tmp_path / "none.tsv")}, "cannot be read"),
        ({"smoothing": "1"}, r"smoothing must lie in [0, 1)"),
        ({"parents": "best"}, "parents must be one of 'error', 'first', 'shallowest', 'deepest', but got 'best'"),
        (
            {"taxonomy": str(tmp_path / "paths"), "parents": "first"},
            "a list of paths, takes the option separator alone",
        ),
        ({"penalty": "-1"}, "penalty must be finite and >= 0"),
        ({"models": "HS"}, "unknown classifier 'HS'"),
    ):
        done = treesearch("apply", "taxonomy", *arguments(paths, **changes), "--epochs", "1")
        assert done.code == 2, (changes, done)
        assert message in done.err
    with pytest.raises(ConfigError, match="seeds must be >= 1"):
        compare_classifiers(*load_task(*map(Path, paths.values())), num_seeds=0)

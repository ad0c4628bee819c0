"""Whole searches on features, labels and interactions: they run, know what they are about, and can be resumed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.slow import slow_but
from tests.tiny import treesearch
from treesearch import Tree
from treesearch.config import make_config
from treesearch.evaluation.preparation import held_out_tokens
from treesearch.launch import load_data, prepare_run
from treesearch.progress import ProgressReporter

CLASSES = 24
SMALL = {
    "joint": {"learning_rates": [0.02], "batch_size": 64},
    "confirm": {"promote": 1, "seeds": 2, "timing": False},
    "environment": {"max_decisions": 4},
    "search": {
        "evaluations": 12,
        "batch_size": 4,
        "executor": "local",
        "builders": [{"name": "huffman"}, {"name": "clustered", "arity": 4}],
    },
}


def features(folder: Path, *, as_folders: bool) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, 6))
    paths = {}
    for name, size in (("train", 1500), ("valid", 200), ("test", 200)):
        y = np.concatenate([np.arange(CLASSES), rng.integers(CLASSES, size=size - CLASSES)])
        rng.shuffle(y)
        x = (centres[y] + 0.5 * rng.standard_normal((size, 6))).astype(np.float16)
        path = folder / (name if as_folders else f"{name}.npz")
        if as_folders:
            path.mkdir()
            np.save(path / "x.npy", x)
            np.save(path / "y.npy", y)
        else:
            np.savez(path, x=x, y=y)
        paths[name] = str(path)
    return {"data": {"kind": "features", **paths}, "frozen": {"holdout": 0.2}}


def documents(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    paths = {}
    for name, size in (("train", 1200), ("valid", 100), ("test", 100)):
        labels = np.concatenate([np.arange(CLASSES), rng.integers(CLASSES, size=size - CLASSES)])
        lines = [
            " ".join(f"w{(label * 3 + rng.integers(5)) % 70}" for _ in range(4)) + f"\tl{label}" for label in labels
        ]
        (folder / f"{name}.tsv").write_text("\n".join(lines))
        paths[name] = str(folder / f"{name}.tsv")
    encoder = {"features": 8, "embedding": 8, "context": 6, "batch_size": 64}
    return {"data": {"kind": "labels", **paths}, "encoder": encoder}


def vectors(folder: Path) -> dict[str, Any]:
    settings = features(folder, as_folders=False)
    return {"data": settings["data"] | {"kind": "labels"}, "encoder": {"features": 8, "batch_size": 64}}


def interactions(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    lines = ["user\titem\ttimestamp"]
    for user in range(80):
        item = int(rng.integers(CLASSES))
        for time in range(12):
            lines.append(f"u{user}\ti{item}\t{time}")
            item = (item * 5 + 1 + int(rng.integers(2))) % CLASSES
    (folder / "events.tsv").write_text("\n".join(lines))
    encoder = {"features": 8, "embedding": 8, "context": 4, "batch_size": 64}
    by = {"name": "clustered", "arity": 4, "similarity": "cooccurrence"}
    search = {**SMALL["search"], "builders": [*SMALL["search"]["builders"], by]}
    return {"data": {"kind": "interactions", "path": str(folder / "events.tsv")}, "encoder": encoder, "search": search}


KINDS = {
    "features": lambda folder: features(folder, as_folders=False),
    "features on disk": lambda folder: features(folder, as_folders=True),
    "documents": documents,
    "vectors": vectors,
    "interactions": interactions,
}
METRICS = {"interactions": {"hit_rate@10", "ndcg@10"}}


def write(folder: Path, settings: dict[str, Any]) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **settings}))
    return path


def comparison(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "comparison.json").read_text())
    return found


@pytest.mark.parametrize("kind", slow_but(["documents"], KINDS))
def test_a_search(tmp_path: Path, kind: str) -> None:
    config, run = write(tmp_path, KINDS[kind](tmp_path)), tmp_path / "run"
    done = treesearch("search", config, "--out", run)
    assert done.code == 0, done.err
    rows = comparison(run)["rows"]
    assert rows[0]["name"] == "huffman"
    assert {row["kind"] for row in rows} >= {"baseline", "found"}
    tree = Tree.load(run / "best.tree.json")
    assert tree.num_classes == CLASSES
    assert (tree.class_names is None) == kind.startswith(("features", "vectors"))
    by_chance = np.log(CLASSES)
    for row in rows:
        assert row["test_nll"]["mean"] < by_chance - 0.1
        assert set(row["metrics"]) == METRICS.get(kind, {"accuracy"})
        assert all(1.5 / CLASSES < metric["mean"] <= 1 for metric in row["metrics"].values())
    assert ("accuracy" in done.out) != ("HR@10" in done.out)
    again = treesearch("resume", run, "--set", "search.evaluations=16")
    assert again.code == 0, again.err
    assert comparison(run)["evaluations"] == 16
    for command in (("show", run), ("compare", run), ("compare", run, "--json")):
        shown = treesearch(*command)
        assert shown.code == 0, shown.err


@pytest.mark.slow
def test_on_disk_and_in_memory_are_one_search(tmp_path: Path) -> None:
    found = []
    for as_folders in (False, True):
        folder = tmp_path / str(as_folders)
        folder.mkdir()
        config = write(folder, features(folder, as_folders=as_folders))
        done = treesearch("search", config, "--out", folder / "run", "--set", "confirm.seeds=0")
        assert done.code == 0, done.err
        found.append(treesearch("compare", folder / "run", "--evaluations").out)
    columns = [[line.split("\t")[:9] for line in text.splitlines()] for text in found]
    assert len(columns[0]) == 13
    assert columns[0] == columns[1]


@pytest.mark.slow
def test_workers_of_a_cluster_read_features_from_disk(tmp_path: Path) -> None:
    config = write(tmp_path, features(tmp_path, as_folders=True))
    outcomes = []
    for executor in ("local", "ray"):
        run = tmp_path / executor
        done = treesearch("search", config, "--out", run, "--set", f"search.executor={executor}")
        assert done.code == 0, done.err
        outcomes.append([row["test_nll"] for row in comparison(run)["rows"]])
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encoder": {"kind": "gru"}}, "encoder.kind 'gru' reads ids, but the data are numbers"),
        ({"encoder": {"features": 99}}, "encoder.features must be 6, the size of the features, but got 99"),
        ({"environment": {"categories": "x", "actions": ["category"]}}, "the data have none; set data.class_names"),
        (
            {
                "search": {
                    **SMALL["search"],
                    "builders": [{"name": "huffman"}, {"name": "clustered", "similarity": "mine"}],
                }
            },
            "similarity of builder 'clustered' must be one of [] for these data, but got 'mine'",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_training(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    config = write(tmp_path, features(tmp_path, as_folders=False) | changes)
    done = treesearch("search", config, "--out", tmp_path / "run")
    assert done.code == 2
    assert says in done.error_line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_features_that_have_changed_are_not_resumed(tmp_path: Path) -> None:
    config = write(tmp_path, features(tmp_path, as_folders=False))
    assert treesearch("search", config, "--out", tmp_path / "run", "--set", "confirm.seeds=0").code == 0
    with np.load(tmp_path / "train.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    np.savez(tmp_path / "train.npz", x=x[::-1], y=y[::-1])
    done = treesearch("resume", tmp_path / "run", "--set", "search.evaluations=16")
    assert done.code == 2
    assert "data must be those of the search" in done.err


@pytest.mark.slow
def test_a_tree_by_cooccurrence_without_a_search(tmp_path: Path) -> None:
    config = write(tmp_path, interactions(tmp_path))
    done = treesearch("build", "huffman", "--config", config, "--out", tmp_path / "tree.json")
    assert done.code == 0, done.err
    out = tmp_path / "by.json"
    done = treesearch("build", "clustered", "--config", config, "--option", "similarity=cooccurrence", "--out", out)
    assert done.code == 0, done.err
    assert Tree.load(out) != Tree.load(tmp_path / "tree.json")


@pytest.mark.parametrize("as_folders", [False, True])
@pytest.mark.parametrize("kind", ["identity", "mlp"])
def test_what_is_held_out_is_not_learned_from(tmp_path: Path, as_folders: bool, kind: str) -> None:
    settings = features(tmp_path, as_folders=as_folders) | {"encoder": {"kind": kind, "batch_size": 64}}
    config, dataset = load_data(make_config(settings))
    prepared = prepare_run(config, dataset, ProgressReporter(quiet=True))
    held_out = held_out_tokens(len(dataset.train), 0.2)
    np.testing.assert_array_equal(prepared.train.labels, dataset.train.labels[~held_out])
    np.testing.assert_array_equal(prepared.valid.labels, dataset.train.labels[held_out])


def test_a_holdout_of_nothing(tmp_path: Path) -> None:
    config = write(tmp_path, features(tmp_path, as_folders=False))
    done = treesearch("search", config, "--out", tmp_path / "run", "--set", "frozen.holdout=0.0001")
    assert done.code == 2
    assert "frozen.holdout must hold out an example, but 0.0001 of 1500 is none" in done.err


@pytest.mark.slow
def test_a_study_on_other_data_is_refused(tmp_path: Path) -> None:
    config = write(tmp_path, features(tmp_path, as_folders=True))
    study = ("study", config, "--out", tmp_path / "study", "--seeds", "1", "--variant", "random_search")
    assert treesearch(*study).code == 0
    y = np.load(tmp_path / "train" / "y.npy")
    np.save(tmp_path / "train" / "y.npy", CLASSES - 1 - y)
    done = treesearch(*study, "--variant", "evolution")
    assert done.code == 2
    assert "holds a study of other data" in done.err


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"name": "two-level", "similarity": "cooccurrence"}, "applies to by: similarity, but got None"),
        ({"name": "clustered", "similarity": ["cooccurrence"]}, "must be one of ['cooccurrence']"),
        (
            {"name": "huffman", "similarity": "cooccurrence"},
            "search.builders: huffman(similarity=cooccurrence): builder",
        ),
    ],
)
def test_similarities_that_do_not_apply(tmp_path: Path, entry: dict[str, Any], says: str) -> None:
    settings = interactions(tmp_path)
    settings["search"] = {**SMALL["search"], "builders": [{"name": "huffman"}, entry]}
    done = treesearch("search", write(tmp_path, settings), "--out", tmp_path / "run")
    assert done.code == 2
    assert says in done.err


def test_a_builder_that_trains_nodes_without_a_search(tmp_path: Path) -> None:
    config, out = write(tmp_path, features(tmp_path, as_folders=True)), tmp_path / "tree.json"
    done = treesearch("build", "reassigned", "--config", config, "--option", "arity=4", "--out", out)
    assert done.code == 0, done.err
    assert Tree.load(out).num_classes == CLASSES

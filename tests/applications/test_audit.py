"""`treesearch apply audit`: a saved layer and features from files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import treesearch
from treesearch import HierarchicalSoftmax
from treesearch.applications.audit import audit_features, coverage_table, load_task
from treesearch.decisions.audit import explain
from treesearch.errors import DataError
from treesearch.softmax import RowwiseAdagrad
from treesearch.taxonomy import taxonomy_from_edges

CLASSES, D = 6, 4


def write_task(folder: Path) -> tuple[str, str]:
    """A trained layer with names, and 40 examples that it mostly knows."""
    links = [("left", "ROOT"), ("right", "ROOT")] + [(f"c{c}", "left" if c < 3 else "right") for c in range(CLASSES)]
    tree = taxonomy_from_edges(links, classes=[f"c{c}" for c in range(CLASSES)]).tree
    rng = np.random.default_rng(0)
    centres, y = rng.standard_normal((CLASSES, D)), rng.integers(CLASSES, size=40)
    x = (centres[y] + 0.5 * rng.standard_normal((40, D))).astype(np.float32)
    torch.manual_seed(0)
    layer = HierarchicalSoftmax(D, tree)
    optimizer = RowwiseAdagrad(layer.parameters(), lr=0.5)
    for _ in range(30):
        layer.zero_grad()
        layer(torch.from_numpy(x), torch.from_numpy(y)).loss.backward()
        optimizer.step()
    layer.save_pretrained(folder / "layer")
    np.savez(folder / "test.npz", x=x, y=y)
    return str(folder / "layer"), str(folder / "test.npz")


def test_a_whole_audit(tmp_path: Path) -> None:
    layer, inputs = write_task(tmp_path)
    (tmp_path / "names").write_text("a\nb\nc\nd\n")
    lines = tmp_path / "audit.jsonl"
    done = treesearch(
        *("apply", "audit", "--layer", layer, "--inputs", inputs, "--out", lines, "--features", "2", "--json"),
        *("--show", "2", "--alternatives", "1", "--feature-names", tmp_path / "names"),
    )
    assert done.code == 0, done.err
    found, records = json.loads(done.out), [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(records) == found["num_examples"] == 40
    assert found["examples"] == records[:2]
    assert [record["example"] for record in records] == list(range(40))
    x, y = (np.load(inputs)[name] for name in "xy")
    own = HierarchicalSoftmax.from_pretrained(layer)
    expected = explain(own, torch.from_numpy(x), num_alternatives=1, num_features=2, feature_names=["a", "b", "c", "d"])
    assert records == expected.records()
    correct = np.array([record["class"] for record in records]) == y
    assert found["accuracy"] == pytest.approx(correct.mean())
    assert found["accuracy"] > 0.5
    for row, values in zip(found["coverage"], ("prob", "minimum"), strict=True):
        confidence = np.array([record[values] for record in records])
        for point in row["points"]:
            answered = confidence >= point["threshold"]
            assert answered.mean() == pytest.approx(point["answered"])
            assert point["answered"] >= point["coverage"] - 1e-9
            assert point["accuracy"] == pytest.approx(correct[answered].mean())


def test_paths_and_table_for_people(tmp_path: Path) -> None:
    layer, inputs = write_task(tmp_path)
    done = treesearch("apply", "audit", "--layer", layer, "--inputs", inputs, "--show", "1", "--features", "1")
    assert done.code == 0, done.err
    for part in ("example 0: c", "ROOT > ", "or ", "feature ", "product", "minimum", "AURC", "100 %"):
        assert part in done.out
    assert "example 1:" not in done.out
    assert max(map(len, done.out.splitlines())) <= 100
    assert "40 examples, accuracy" in done.err


def test_parts_of_a_batch_are_numbered_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task(*map(Path, write_task(tmp_path)))
    whole = audit_features(task, num_shown=7)
    monkeypatch.setattr("treesearch.applications.audit.run.EXAMPLES_AT_ONCE", 3)
    parts = audit_features(task, num_shown=7, out=tmp_path / "lines")
    assert [record["example"] for record in parts.records] == list(range(7))
    assert [str(view.label).split(":")[0] for view in parts.views] == [f"example {place}" for place in range(7)]
    assert len((tmp_path / "lines").read_text().splitlines()) == 40
    assert [record["class"] for record in parts.records] == [record["class"] for record in whole.records]
    assert parts.accuracy == whole.accuracy
    coverage_table(parts.coverage)


def test_examples_without_classes(tmp_path: Path) -> None:
    layer, inputs = write_task(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "x.npy", np.load(inputs)["x"].astype(np.float16))
    np.savez(tmp_path / "x.npz", x=np.load(inputs)["x"])
    for place in (folder, tmp_path / "x.npz"):
        found = audit_features(load_task(Path(layer), place), num_shown=1)
        assert (found.accuracy, found.coverage, found.num_examples, len(found.records)) == (None, [], 40, 1)
    done = treesearch("apply", "audit", "--layer", layer, "--inputs", folder)
    assert done.code == 0, done.err
    assert "nothing is said of accuracy" in done.err


def test_bad_input(tmp_path: Path) -> None:
    layer, inputs = map(Path, write_task(tmp_path))
    x, y = (np.load(inputs)[name] for name in "xy")
    bad = tmp_path / "bad.npz"
    for arrays, message in (
        ({"x": x[:, :3], "y": y}, "inputs must have the layer's 4 features, but .* has 3"),
        ({"x": x, "y": y + 1}, r"classes must lie in \[0, 6\), those of the layer, but .* has 6"),
        ({"x": x, "y": y[:3]}, "a class for each row of x"),
        ({"x": np.full_like(x, np.nan)}, "must be finite"),
        ({"y": y}, "must be an .npz with the arrays x"),
    ):
        np.savez(bad, **arrays)
        with pytest.raises(DataError, match=message):
            load_task(layer, bad)
    with pytest.raises(DataError, match="no features at"):
        load_task(layer, tmp_path / "none.npz")
    with pytest.raises(DataError, match="cannot be written"):
        audit_features(load_task(layer, inputs), out=tmp_path / "none" / "audit.jsonl")
    done = treesearch("apply", "audit", "--layer", tmp_path / "none", "--inputs", inputs)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "Traceback" not in done.err

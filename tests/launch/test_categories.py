"""Categories by name, where a search takes them: builders, and splits by category."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treesearch import build_tree
from treesearch.config import Config, make_config
from treesearch.data import Dataset
from treesearch.data.categories import number_categories
from treesearch.data.morphology import morphology_categories, stream_positions
from treesearch.data.syntax import syntax_categories
from treesearch.errors import ConfigError, DataError
from treesearch.launch import check_choices, load_data, prepare_run
from treesearch.launch.categories import resolve_categories
from treesearch.launch.parts import builder_candidates, make_task
from treesearch.progress import ProgressReporter

TEXT = "un ##do ##ing it , walk ##ing un ##walk ##s , walk it 7\n"
NAMES = ("<num>", "def", "x", "return", "y")


def load(folder: Path, builder: dict[str, Any], **environment: Any) -> tuple[Config, Dataset]:
    path = folder / "text.txt"
    path.write_text(TEXT * 5)
    section = {"kind": "text", **dict.fromkeys(("train", "valid", "test"), str(path))}
    return load_data(
        make_config(
            {
                "data": section,
                "encoder": {"features": 4},
                "environment": environment,
                "search": {"builders": [{"name": "huffman"}, builder]},
            }
        )
    )


def test_builders_and_splits_take_rules_by_name(tmp_path: Path) -> None:
    builder = {"name": "categories", "categories": "morphology", "within": "clustered", "top": "flat"}
    actions = ["close-flat", "category"]
    config, dataset = load(tmp_path, builder, categories="morphology", actions=actions)
    assert dataset.class_names is not None
    check_choices(config, dataset)
    with ProgressReporter() as progress:
        task = make_task(config, dataset, prepare_run(config, dataset, progress))
    found = builder_candidates(config, dataset, task)[1]
    labels = morphology_categories(
        dataset.class_names, stream_positions(dataset.class_names, dataset.train.labels), convention="wordpiece"
    )
    assert set(labels) == {"word", "prefix", "stem", "suffix", "other"}
    assert np.array_equal(task.categories, number_categories(labels))
    expected = build_tree(
        "categories", counts=task.counts, vectors=task.vectors, categories=labels, within="clustered", top="flat"
    )
    assert found.tree == expected
    assert found.label == "categories(categories=morphology, top=flat, within=clustered)"


def test_rules_and_files_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve_categories("syntax", NAMES, where="categories")
    assert np.array_equal(found, number_categories(syntax_categories(NAMES)))
    assert found.tolist() == [0, 1, 2, 1, 2]
    units = ("un", "##do", "it")
    assert resolve_categories("morphology", units, where="categories").tolist() == [0, 1, 0], "by the markers alone"
    (tmp_path / "syntax").write_text("x\tname\n")
    assert resolve_categories(tmp_path / "syntax", NAMES, where="categories").tolist() == [0, 0, 1, 0, 0]
    monkeypatch.setenv("LISTS", str(tmp_path))
    entry = {"name": "categories", "categories": "$LISTS/syntax"}
    config = make_config({"search": {"builders": [{"name": "huffman"}, entry]}})
    assert config.search.builders[1]["categories"] == f"{tmp_path}/syntax"


@pytest.mark.parametrize(
    ("wanted", "names", "kind", "says"),
    [
        ("morpholgy", NAMES, ConfigError, "but got 'morpholgy'; did you mean 'morphology'?"),
        ("none.tsv", NAMES, DataError, "none.tsv cannot be read"),
        ("syntax", None, ConfigError, "the data have none; set data.class_names"),
        ([0, 1], NAMES, ConfigError, r"must be syntax, morphology or the path of a file, but got \[0, 1\]"),
        ("morphology", NAMES, DataError, "a marker of word boundaries"),
    ],
)
def test_names_that_cannot_be_used(wanted: Any, names: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        resolve_categories(wanted, names, where="categories")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("builder", "trees", "says"),
    [
        ({"name": "categories"}, {"name": "flat"}, "categories of builder 'categories' must be given"),
        ({"name": "categories", "categories": "morphology", "within": "x"}, {"name": "flat"}, "search.builders: "),
        ({"name": "flat"}, {"name": "categories", "categories": "syntax"}, "encoder.trees cannot hold"),
    ],
)
def test_what_does_not_fit_is_told_before_training(tmp_path: Path, builder: Any, trees: Any, says: str) -> None:
    config, dataset = load(tmp_path, builder)
    config = config.model_copy(update={"encoder": config.encoder.model_copy(update={"trees": (trees,)})})
    with pytest.raises(ConfigError, match=says):
        check_choices(config, dataset)

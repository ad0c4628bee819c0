"""Every metric that searches write is in the glossary, and the glossary has no other: found by running them."""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console

import treesearch.launch.run as launch
from agents import AGENTS
from tests import tiny
from tests.launch.test_data_kinds import KINDS, SMALL
from tests.report.page.headings import page_metrics
from treesearch.config import Config, load_config
from treesearch.errors import ConfigError
from treesearch.launch.study import study_rows
from treesearch.progress import ProgressReporter
from treesearch.report.glossary import (
    GLOSSARY,
    PLACES,
    Metric,
    glossary_markdown,
    glossary_rows,
    glossary_table,
    lookup,
    print_glossary,
)
from treesearch.report.glossary_page import VIEWER_TERMS
from treesearch.report.glossary_terms import COMPARISON, FRONT, LEDGER, PAGE, RUNS, STUDY, SWEEP, TRACKER
from treesearch.report.page.document import run_page, runs_page
from treesearch.report.page.run_view import find_runs
from treesearch.report.runs import file_row, run_row
from treesearch.search.evaluation_row import EvaluationRow
from treesearch.search.run_folder import RunFolder
from treesearch.trackers.base import Trackers
from treesearch.trackers.tensorboard import TensorBoardTracker
from treesearch.trackers.wandb import WandbTracker
from treesearch.tune import sweep

Seen = set[tuple[str, str]]  # (place, name)

# The settings in these are explained where configs are.
SETTINGS = {"cost_model", "training", "settings"}
TABLES = {"comparison": COMPARISON, "pareto_front": FRONT}  # what a tracker's columns are of
# Entries that these runs cannot show, and why.
UNSEEN = {(PAGE, metric.name): "the script of the viewer writes it" for metric in VIEWER_TERMS}
UNSEEN[PAGE, "measured cost"] = "timing nodes takes long"


@dataclass
class Collected:
    """What was written where."""

    seen: Seen = field(default_factory=set)

    def walk(self, place: str, value: Any) -> None:
        """Take the keys of all dictionaries in a JSON-able value."""
        if isinstance(value, Mapping):
            for key, inner in value.items():
                self.seen.add((place, key))
                if key not in SETTINGS:
                    self.walk(FRONT if key == "fronts" else place, inner)
        elif isinstance(value, list):
            for inner in value:
                self.walk(place, inner)


class Recorder(WandbTracker):
    """What Weights & Biases is sent, without its process."""

    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    def _put(self, message: dict[str, Any]) -> None:
        if "log" in message:
            self._collected.seen |= {(TRACKER, name) for name in message["log"]}
            return
        for name, (columns, _) in message["tables"].items():
            self._collected.seen.add((TRACKER, name))
            self._collected.seen |= {(TABLES.get(name, TRACKER), column) for column in columns}

    def close(self) -> None:
        """Nothing is open."""


class TensorBoardRecorder(TensorBoardTracker):
    """What TensorBoard's files are given, without the files."""

    def __init__(self, collected: Collected, config: Config, folder: Path) -> None:
        self._collected = collected
        super().__init__(config, folder)

    def _write(self, event: Any) -> None:
        tags = (value.tag.removesuffix("/text_summary") for value in event.summary.value)
        self._collected.seen |= {(TRACKER, tag) for tag in tags}


def configs(folder: Path) -> Iterator[tuple[str, Path]]:
    """A search for every agent, one of them asynchronous; confirmed ones for what different data are asked."""
    tiny.write_config(folder)
    text = tiny.config(folder)
    quick = {"search": {**text["search"], "evaluations": 27}, "confirm": {"promote": 1, "seeds": 0}}
    raw: dict[str, dict[str, Any]] = {}
    for agent in AGENTS:
        asynchronous = {"asynchronous": True} if agent == "evolution" else {}
        raw[agent] = {**text, **quick, "search": {**quick["search"], "agent": agent, **asynchronous}}
    everything = {"promote": 1, "screen": 2, "seeds": 2, "timing": True, "timing_rounds": 1}
    cheap = [*text["search"]["builders"], {"name": "clustered", "arity": 16}]  # a rival for found trees
    raw["text"] = {**text, "cost": {"weights": [0.001, 0.02]}, "confirm": everything}
    raw["text"]["search"] = {**text["search"], "builders": cheap}
    for kind in ("features", "interactions"):
        (folder / kind).mkdir()
        raw[kind] = {**SMALL, **KINDS[kind](folder / kind)}
    for name, settings in raw.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        yield name, path


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """All that tiny searches write."""
    folder, collected = tmp_path_factory.mktemp("glossary"), Collected()
    collected.seen |= {(LEDGER, column.name) for column in fields(EvaluationRow)}
    with pytest.MonkeyPatch.context() as patch, ProgressReporter(quiet=True) as progress:

        def both(config: Config, folder: Path, **_: Any) -> Trackers:
            return Trackers([Recorder(collected), TensorBoardRecorder(collected, config, folder)])

        patch.setattr(launch, "make_tracker", both)
        for name, path in configs(folder):
            run = RunFolder(folder / "runs" / name)
            comparison = launch.run_search(load_config(path), run, progress)
            collected.walk(COMPARISON, comparison)
            collected.walk(RUNS, run_row(run.path))
            collected.walk(COMPARISON, file_row(run.best_tree_file, None))
    views = find_runs([folder / "runs"])
    for page in (*map(run_page, views), runs_page([replace(view, group="one") for view in views])):
        collected.seen |= {(PAGE, name) for name in page_metrics(page)}
    collected.walk(STUDY, study_rows({"a": [[-3.0, -2.0], [-4.0, -3.0]], "b": [[-3.0, -1.5], [-5.0, -2.5]]}, "a"))
    result = SimpleNamespace(metrics=sweep._figures(comparison), path="trial", config={"seed": 1}, error=None)
    collected.walk(SWEEP, sweep._row(sweep.SweepConfig(space={"seed": {"grid": [1]}}), result))
    return collected.seen


def unexplained(seen: Seen, glossary: Iterable[Metric] = GLOSSARY) -> list[tuple[str, str]]:
    """What has no entry."""
    return sorted(seen - {(place, metric.name) for metric in glossary for place in metric.where})


def stale(seen: Seen, glossary: Iterable[Metric] = GLOSSARY) -> list[tuple[str, str]]:
    """Entries of nothing."""
    return sorted({(place, metric.name) for metric in glossary for place in metric.where} - seen - UNSEEN.keys())


@pytest.mark.slow
def test_every_metric_has_an_entry_and_every_entry_is_of_a_metric(seen: Seen) -> None:
    assert unexplained(seen) == []
    assert stale(seen) == []
    assert {place for place, _ in seen} == set(PLACES), "no place is forgotten"


def test_a_metric_without_an_entry_is_reported(seen: Seen) -> None:
    collected = Collected(set(seen))
    Recorder(collected).log(1, {"agent/temperature": 1.0})
    Recorder(collected).finish({"worst": (["depth"], [])}, Path("tree"))
    collected.walk(
        COMPARISON, {"fronts": {"warm": {"points": [{"age": 1}]}}, "rows": [{"metrics": {"mrr": {"mean": 1}}}]}
    )
    assert unexplained(collected.seen) == [
        (COMPARISON, "mrr"),
        (FRONT, "age"),
        (FRONT, "warm"),
        *((TRACKER, name) for name in ("agent/temperature", "depth", "worst")),
    ]


def test_an_entry_that_is_removed_is_missed_and_one_too_many_is_stale(seen: Seen) -> None:
    for metric in GLOSSARY:
        rest = [one for one in GLOSSARY if one is not metric]
        assert set(unexplained(seen, rest)) == {(place, metric.name) for place in metric.where} & seen
        renamed = replace(metric, name=f"{metric.name}!")
        assert stale(seen, [*rest, renamed]) == sorted((place, renamed.name) for place in metric.where)


# -- the entries


def test_a_name_means_one_thing_in_one_place() -> None:
    pairs = [(place, metric.name) for metric in GLOSSARY for place in metric.where]
    assert len(pairs) == len(set(pairs))
    assert {place for place, _ in pairs} == set(PLACES)
    assert len({metric.meaning for metric in GLOSSARY}) == len(GLOSSARY)


def test_entries_are_plain() -> None:
    for metric in GLOSSARY:
        assert metric.name.isprintable(), metric
        assert metric.meaning.isprintable(), metric
        assert metric.meaning.endswith("."), metric
        assert "  " not in metric.meaning, metric
        assert 10 < len(metric.meaning) <= 320, metric
        assert metric.where, metric
        assert set(metric.where) <= set(PLACES), metric
        assert list(metric.where) == sorted(metric.where, key=PLACES.index), metric


def test_units_are_consistent() -> None:
    units = {metric.unit for metric in GLOSSARY}
    assert units == {
        "nats per token",
        "nats",
        "binary nodes",
        "µs per example",
        "seconds",
        "edges",
        "share",
        "none",
        "dot products",
        "nats per unit",
        "nats x e-folds of cost",
        "1 / second",
        "updates",
        "evaluations",
        "of the value",
        "bits",
        "minutes",
    }
    by_name: dict[str, set[str]] = {}
    for metric in GLOSSARY:
        by_name.setdefault(metric.name, set()).add(metric.unit)
        if metric.name.endswith("_us"):
            assert metric.unit == "µs per example"
        if metric.name.endswith(("nll", "reward")) or "reward" in metric.name.split("_"):
            assert metric.unit == "nats per token"
    assert {name: found for name, found in by_name.items() if len(found) > 1} == {}


# -- the functions


def test_lookup() -> None:
    assert lookup("tree_hash").where == (LEDGER,)
    assert lookup("reward", where=LEDGER).where == (LEDGER,)
    for place, name in ((place, metric.name) for metric in GLOSSARY for place in metric.where):
        assert place in lookup(name, where=place).where
    with pytest.raises(ConfigError, match=r"^the glossary has no metric 'perplexty'; did you mean 'perplexity'\?$"):
        lookup("perplexty")
    with pytest.raises(ConfigError, match=r"^the glossary of ledger has no metric 'perplexity'"):
        lookup("perplexity", where=LEDGER)
    with pytest.raises(ConfigError, match=r"^'reward' must come with where, .*: ledger; .*; page$"):
        lookup("reward")
    with pytest.raises(ConfigError, match=r"^where must be one of ledger, .*, but got 'nowhere'$"):
        glossary_rows("nowhere")


def test_rows_of_a_place() -> None:
    assert glossary_rows() == list(GLOSSARY)
    assert [metric.name for metric in glossary_rows(FRONT)] == [m.name for m in GLOSSARY if FRONT in m.where]


def test_markdown() -> None:
    head, rule, *lines = glossary_markdown().splitlines()
    assert (head.count("|"), rule) == (5, "|---|---|---|---|")
    assert len(lines) == len(GLOSSARY)
    for line, metric in zip(lines, GLOSSARY, strict=True):
        name, unit, meaning, where = (cell.strip() for cell in line.strip("|").split("|"))
        assert (name, unit, where) == (f"`{metric.name}`", metric.unit, ", ".join(metric.where))
        assert meaning.replace("&#42;", "*").replace("&#124;", "|") == metric.meaning
    assert len(glossary_markdown(STUDY).splitlines()) == 2 + len(glossary_rows(STUDY))


@pytest.mark.parametrize("width", [100, 200])
def test_the_table_fits_and_nothing_is_cut(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    print_glossary(console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = set(text.split())
    for metric in GLOSSARY:
        assert {*metric.name.split(), *metric.meaning.split(), *metric.unit.split()} <= words
    assert glossary_table(glossary_rows(LEDGER)).row_count == len(glossary_rows(LEDGER))

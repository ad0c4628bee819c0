"""Tables of runs and fronts: no line is longer than 100 columns, no number is cut."""

import io
import shutil
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.tiny import EVALUATIONS
from treesearch.config import with_overrides
from treesearch.report.runs import (
    SHARED,
    differences,
    front_table,
    outdated_line,
    run_outdated,
    run_row,
    runs_table,
    shared_settings,
)
from treesearch.search.run_folder import RunFolder

LONG = "clustered(arity=32, weight=0.25, projection=64, balance=0.125, vectors=similarity, within=huffman)"


def printed(table):
    console = Console(file=io.StringIO(), width=100, highlight=False, markup=False)
    console.print(table)
    text = console.file.getvalue()
    assert max(map(cell_len, text.splitlines())) <= 100
    assert "…" not in text
    return text


def test_runs_with_long_paths():
    path = "/home/somebody/experiments/" + "a-very-long-name-of-a-run/" * 8 + "漢字\x1b[2J"
    test = {"mean": 12.3456, "low": 12.1234, "high": 12.5678, "n": 5}
    row = {"name": path, "agent": "an-agent-of-ones-own" * 3, "evaluations": 1_000_000, "test_nll": test}
    text = printed(runs_table([row | {"reward": -12.34567, "cost": 12345.678}, row | {"reward": None, "cost": None}]))
    for cell in ("1000000", "12.346 [12.123, 12.568]", "-12.3457", "12345.68"):
        assert cell in text
    assert r"漢字\x1b[2J" in "".join(line.split("  ")[0] for line in text.splitlines()).replace(" ", "")


SHARED_ROW = {
    "evaluations": 40,
    "corpus": "abc",
    "cost_model": {"kind": "measured", "weight": 0.005, "phase": "training"},
    "cost_table": "123",
    "training": {"encoder": {}, "joint": {}, "seeds": 5},
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, []),
        ({"evaluations": 48}, ["not comparable: the runs' budgets (evaluations) differ: 40, 48"]),
        ({"corpus": "xyz"}, ["not comparable: the runs' corpora differ: abc, xyz"]),
        ({"corpus": None, "cost_table": None}, []),  # of one that has just begun
        ({"cost_table": "456"}, ["not comparable: the runs' cost tables differ"]),
        ({"cost_model": {"kind": "analytic"}, "cost_table": None}, ["not comparable: the runs' cost models differ"]),
        (
            {"training": {"encoder": {}, "joint": {}, "seeds": 3}},
            ["not comparable: the runs' encoder, joint training or number of seeds differ"],
        ),
    ],
)
def test_what_runs_must_share(change, says):
    assert differences([SHARED_ROW, SHARED_ROW | change]) == says
    assert differences([SHARED_ROW | change, SHARED_ROW, SHARED_ROW | change]) == [
        line.replace("40, 48", "48, 40, 48").replace("abc, xyz", "xyz, abc, xyz") for line in says
    ]


def test_what_an_unfinished_run_shares_is_known_from_its_beginning(local_run, tmp_path):
    """All but its budget, which is the configured one, as a finished run tells it."""
    finished = RunFolder(local_run)
    begun = RunFolder(tmp_path / "begun")
    with begun.create(with_overrides(finished.config(), ["search.evaluations=40"])) as ledger:
        early = shared_settings(begun)
        with finished.read() as other:
            ledger.set_meta("corpus", other.meta("corpus"))
    row = run_row(local_run)
    assert {key: row[key] for key in SHARED} == shared_settings(finished)
    assert shared_settings(begun) == shared_settings(finished) | {"evaluations": 40}
    assert differences([row, early]) == differences([row, shared_settings(begun)])
    assert differences([row, early]) == [f"not comparable: the runs' budgets (evaluations) differ: {EVALUATIONS}, 40"]


@pytest.mark.parametrize(
    ("then", "now", "running", "complete", "says"),
    [
        (5, 5, False, True, None),
        (5, 5, False, None, None),
        (5, 5, False, False, "before it had confirmed again; go on with: treesearch resume run"),
        (5, 7, False, False, "after 5 evaluations; the run went on and was stopped at 7"),
        (5, 7, False, None, "after 5 evaluations; the run went on and was stopped at 7"),
        (5, 7, True, False, "A process works on this run, which has 7 evaluations; this was confirmed after 5."),
    ],
)
def test_what_is_said_of_a_run_that_went_on(then, now, running, complete, says):
    line = outdated_line(Path("run"), then, now, running=running, complete=complete)
    assert (line is None) if says is None else (line is not None and says in line)


def test_a_comparison_without_its_ledger_is_taken_as_it_is(local_run, tmp_path):
    folder = RunFolder(shutil.copytree(local_run, tmp_path / "run"))
    comparison = folder.comparison()
    assert run_outdated(folder, comparison) is None
    folder.ledger_file.write_bytes(b"no database")
    assert "search.db" in (run_outdated(folder, comparison) or "")
    folder.ledger_file.unlink()
    assert run_outdated(folder, comparison) is None


def test_a_front_with_long_names():
    point = {"cost": 12345.678, "valid_nll": 12.34567, "name": LONG, "kind": "baseline"}
    text = printed(front_table("joint", {"cost_kind": "measured", "points": [point, point | {"name": "漢" * 90}]}))
    assert text.count("12345.68") == text.count("12.346") == text.count("baseline") == 2
    assert text.count("漢") == 90
    assert "".join(LONG.split()) in "".join("".join(line[19:-10].split()) for line in text.splitlines())

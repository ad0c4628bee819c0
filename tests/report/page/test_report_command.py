"""The command line of the report: what it refuses in one line."""

from __future__ import annotations

import json

import pytest

from tests import tiny
from tests.report.page import runs
from treesearch.report.page.comparison_table import comparison_section
from treesearch.report.page.headline import headline
from treesearch.report.page.run_view import load_run
from treesearch.search.promotion import FOUND


def refused(*arguments: object) -> str:
    """What the command says, where it ends with 2 and one line."""
    done = tiny.treesearch("report", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    return done.err.strip()


def test_a_file_in_the_place_of_a_folder(tmp_path):
    file = tmp_path / "tree.json"
    file.write_text("{}")
    assert refused(file) == f"error: {file} is no folder; give the folder of a search, a study or a sweep"


def test_a_page_below_a_file(tmp_path):
    run, file = runs.unfinished(tmp_path / "run"), tmp_path / "file"
    file.write_text("kept")
    out = file / "page.html"
    assert refused(run.path, "--out", out) == f"error: {out} cannot be written (Not a directory); choose another --out"
    assert file.read_text() == "kept"


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "1e9"])
def test_an_interval_that_no_page_can_wait(interval, tmp_path):
    run = runs.unfinished(tmp_path / "run")
    with run.lock():
        assert "'--interval'" in refused(run.path, "--watch", "--interval", interval)
    assert not run.report_file.exists()


def test_options_that_have_no_effect_are_refused(tmp_path):
    run = runs.unfinished(tmp_path / "run").path
    assert refused(run, "--interval", 5) == "error: --interval applies to --watch; leave it out"
    for extra in ([run], ["--watch"], ["--out", tmp_path / "page.html"]):
        assert refused("--glossary", *extra).startswith("error: --glossary is of all runs")


def test_a_cut_off_comparison_has_a_way_out(tmp_path):
    run = runs.hostile(tmp_path / "run")
    run.comparison_file.write_text(run.comparison_file.read_text()[:100])
    assert refused(run.path).endswith(f"; write it again with: treesearch resume {run.path}")


def test_a_search_stopped_in_its_confirmation_says_so(tmp_path):
    run = runs.hostile(tmp_path / "run")
    run.comparison_file.unlink()
    done = len(load_run(run.path).frozen)
    assert done == run.config().search.evaluations
    assert headline(load_run(run.path)).sentences[0] == (
        f"All {done} evaluations are done, but the search was stopped before the best trees were confirmed; go on with:"
        f" treesearch resume {run.path}"
    )


def test_a_perplexity_without_end_does_not_make_a_column_without_end(tmp_path):
    """Of a training that diverged; a cell of the terminal's table is as short."""
    comparison = json.loads(runs.hostile(tmp_path / "run").comparison_file.read_text())
    comparison["rows"][-1]["perplexity"] = 1e300
    page = comparison_section(comparison)
    assert ">1.000e+300<" in page
    assert "0" * 100 not in page


def test_bold_rows_are_those_that_the_search_reports(tmp_path):
    comparison = json.loads(runs.hostile(tmp_path / "run").comparison_file.read_text())
    rows = comparison["rows"]
    found = [row for row in rows if row["kind"] == FOUND]
    found[-1]["kind"] = "candidate"
    page = comparison_section(comparison)
    assert page.count('<tr class="strong">') == len(found) - 1
    assert "In bold is what the search reports" in page

"""What a report says of a run in words, by runs whose truth is known."""

import math
from dataclasses import replace

import pytest

from tests.report.page.views import TREE, row, view_of
from treesearch.cost import TIMING_ERROR
from treesearch.report.page.document import run_page
from treesearch.report.page.figures.pareto import pareto_figure
from treesearch.report.page.figures.runs import fronts_of_runs, progress_of_runs
from treesearch.report.page.headline import headline
from treesearch.search.evaluation_row import STOPPED


def interval(mean):
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "n": 3}


def confirmed(name, kind, nll, **more):
    """A row of comparison.json."""
    change = {key: math.expm1(value - 2.0) for key, value in interval(nll).items() if key != "n"}
    known = {"name": name, "kind": kind, "test_nll": interval(nll), "valid_nll": nll, "cost": 5.0, "reward": -nll}
    known |= {"perplexity": math.exp(nll), "expected_depth": 3.0, "tree": TREE.hash, "perplexity_change": change}
    return known | more


def comparison(evaluations, **huffman):
    rows = [confirmed("huffman", "baseline", 2.0, **huffman), confirmed("found #2", "found", 1.5, **huffman)]
    return {"rows": rows, "gains": [], "evaluations": evaluations, "seeds": 3}


@pytest.fixture
def view(tmp_path):
    scored = {"tree_hash": TREE.hash}
    huffman = row(1, agent="builder", label="huffman", valid_nll=2.0, **scored)
    return view_of(tmp_path / "run", [huffman, row(2, valid_nll=1.5, **scored), row(3)])


def test_a_finished_run_is_not_outdated(view):
    found = headline(replace(view, comparison=comparison(3)))
    assert not any("confirmed after" in sentence for sentence in found.sentences)
    assert '<p class="state">finished;' in run_page(replace(view, comparison=comparison(3)))


@pytest.mark.parametrize(
    ("running", "says", "state"),
    [
        (True, "A process works on this run, which has 3 evaluations; this was confirmed after 2.", "running"),
        (
            False,
            "This was confirmed after 2 evaluations; the run went on and was stopped at 3; go on with: treesearch"
            " resume",
            "stopped before its end",
        ),
    ],
)
def test_a_run_that_went_on_after_it_was_confirmed_says_so(view, running, says, state):
    resumed = replace(view, comparison=comparison(2), running=running)
    assert headline(resumed).sentences[0].startswith(says)
    assert f'<p class="state">{state};' in run_page(resumed)


def test_measured_cost_is_what_is_compared_where_the_reward_charges_it(view):
    measured = comparison(3)
    measured["rows"][0]["cost_measured_us"], measured["rows"][1]["cost_measured_us"] = 4.0, 1.0
    assert headline(replace(view, comparison=measured)).verdict.endswith("at 0.25 of its measured cost.")
    assert headline(replace(view, comparison=comparison(3))).verdict.endswith("at 1.00 of its cost.")


def test_a_new_encoder_without_a_score_is_no_search_without_evaluations(view):
    assert headline(replace(view, encoder="e1")).verdict == (
        "The encoder was trained again, and no evaluation under it has a score yet."
    )


def test_nothing_but_stops(tmp_path):
    stopped = view_of(tmp_path / "stopped", [row(1, status=STOPPED)])
    assert headline(stopped).verdict == "No evaluation has a score: all were stopped early."
    assert headline(view_of(tmp_path / "empty", [])).verdict == "No evaluation has finished yet."


def test_a_perplexity_beyond_floats_is_infinite(tmp_path):
    terrible = view_of(tmp_path / "run", [row(1, valid_nll=800.0)])
    assert "validation perplexity inf" in headline(terrible).verdict
    assert "validation perplexity inf" in run_page(terrible)


def test_runs_that_have_found_the_same_share_it(tmp_path):
    views = [view_of(tmp_path / name, [row(1, valid_nll=2.0), row(2, valid_nll=1.5, cost=2.0)]) for name in ("a", "b")]
    assert progress_of_runs(views).summary.startswith("Of 2 runs 2 share the best reward so far, -1.5")
    fronts = fronts_of_runs(views)
    assert "the common front has 2 trees, 2 of them in each of 2 runs" in fronts.summary
    assert [cells[3] for cells in fronts.table.rows] == ["2", "2"]


def test_a_run_without_a_score_does_not_hide_its_group(tmp_path):
    one = view_of(tmp_path / "a", [row(1, valid_nll=2.0)])
    none = replace(view_of(tmp_path / "b", [row(1)]), group=one.group)
    for views in ([one, none], [none, one]):
        assert [trace["name"] for trace in progress_of_runs(views).variants[0].data] == ["a"]
        assert [trace["showlegend"] for trace in fronts_of_runs(views).variants[0].data] == [True]


def test_times_that_cannot_be_told_apart_are_huffmans_cost(tmp_path):
    def summary(kind, found_us):
        rows = [
            row(1, agent="builder", label="huffman", valid_nll=2.0, cost=3.0, cost_measured_us=3.0, expected_depth=3.0),
            row(2, valid_nll=1.5, cost=found_us, cost_measured_us=found_us),
        ]
        view = view_of(tmp_path / f"{kind}-{found_us}", rows)
        cost = view.config.cost.model_copy(update={"kind": kind})
        return pareto_figure(replace(view, config=view.config.model_copy(update={"cost": cost}))).summary

    barely = 3.0 * (1 + TIMING_ERROR / 2)
    assert "of at most Huffman's cost found #2 is best" in summary("measured", barely)
    for kind, found_us in (("analytic", barely), ("measured", 3.0 * (1 + 2 * TIMING_ERROR))):
        assert "none of at most Huffman's cost" in summary(kind, found_us)

"""The plots: plotly takes them, they hold the points that they should, and text from outside stays text."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import pytest
from scipy import stats

from tests.report.page import runs
from tests.report.page.views import row, view_of
from treesearch.report.page.figure import Figure, plotly_text
from treesearch.report.page.figures import run_figures, runs_figures
from treesearch.report.page.figures.confirmed import confirmed_figure
from treesearch.report.page.figures.learning import learning_figure
from treesearch.report.page.figures.pareto import in_brief, pareto_figure
from treesearch.report.page.figures.progress import progress_figure
from treesearch.report.page.figures.rungs import rung_pairs, rungs_figure
from treesearch.report.page.figures.runs import progress_of_runs
from treesearch.report.page.figures.style import MAX_POINTS, MAX_ROWS, inner_range, short
from treesearch.report.page.figures.times import failures_figure, times_figure
from treesearch.report.page.places import front, frozen_places
from treesearch.report.page.run_view import load_run
from treesearch.report.page.work import seconds_by_load
from treesearch.search.evaluation_row import CACHED, JOINT, STOPPED, WARM

TOKENS = {"found", "baseline", "huffman", "text", "muted", "border", "surface", "accent", "bad", "sequential"}
TOKENS |= {f"series-{number}" for number in range(1, 9)}
HOSTILE = ("<b>bold</b>", "%{x}<extra>gone</extra>", "--found", "\x1b[31m\u202egnp", "a&lt;b", "$x^2$", "", "x" * 300)


def with_colours(part):
    """A plot as the page gives it to plotly."""
    if isinstance(part, dict):
        return {key: with_colours(value) for key, value in part.items()}
    if isinstance(part, list):
        return [with_colours(value) for value in part]
    if isinstance(part, str) and part.startswith("--"):
        assert part[2:] in TOKENS
        return "Viridis" if part == "--sequential" else "#000"
    return part


def check(figure: Figure) -> None:
    """Raise where the page or plotly could not use a figure."""
    assert figure.summary
    assert figure.summary.endswith(".")
    assert all(text.isprintable() for text in (figure.title, figure.summary))
    for variant in figure.variants:
        json.dumps([variant.data, variant.layout], allow_nan=False)
        go.Figure(data=with_colours(variant.data), layout=with_colours(variant.layout))
        assert not {"template", "paper_bgcolor", "plot_bgcolor", "font"} & set(variant.layout)
    assert len({variant.name for variant in figure.variants}) == len(figure.variants)
    if figure.table is not None:
        assert len(figure.table.rows) <= MAX_ROWS
        for cells in figure.table.rows:
            assert len(cells) == len(figure.table.headings)
            assert all(isinstance(cell, str) and cell.isprintable() for cell in cells)


def strings(part):
    """All texts in a plot."""
    if isinstance(part, dict):
        return [text for value in part.values() for text in strings(value)]
    if isinstance(part, list):
        return [text for value in part for text in strings(value)]
    return [part] if isinstance(part, str) else []


def full_rows(names=("close", "split"), num=40, seed=0):
    """Rows of all rungs; ``names`` stand wherever a name from outside may."""
    rng = np.random.default_rng(seed)
    rows = [row(1, valid_nll=3.0, cost=9.0, agent="builder", label="huffman", tree_hash="h", num_nodes=2)]
    rows.append(row(2, valid_nll=2.9, cost=5.0, agent="builder", label=names[0], tree_hash="b"))
    for number in range(3, num + 1):
        actions = [names[int(a)] for a in rng.integers(0, len(names), 3)]
        values = {"actions": json.dumps(actions), "decisions": "[[0, 1.0], [1, 0.25], [2, 0.0625]]"}
        values |= {"batch": number // 4, "cost": float(rng.uniform(2, 60)), "valid_nll": float(rng.uniform(2, 4))}
        values |= {"nodes_trained": number % 3, "num_nodes": 2, "seconds": float(rng.uniform(0.01, 3))}
        if number % 9 == 0:
            values |= {"valid_nll": None, "reason": names[-1]}
        elif number % 13 == 0:
            values |= {"valid_nll": None, "reason": "not worth finishing", "status": STOPPED}
        elif number % 7 == 0:
            values |= {"status": CACHED, "seconds": 0.0}
        rows.append(row(number, **values))
    promoted = [one for one in rows if one.valid_nll is not None][:8]
    for one in promoted:
        for rung, shift in ((WARM, 0.5), (JOINT, 0.7)):
            label = one.label or f"found #{one.id}"
            nll = one.valid_nll - shift + float(rng.normal(0, 0.2))
            values = {"tree_hash": one.tree_hash, "agent": one.agent, "label": label, "cost": one.cost}
            rows.append(row(len(rows) + 1, rung=rung, valid_nll=nll, **values))
    return rows


METRICS = [{}, *({"entropy": 2.0 - n / 10, "approx_kl": 0.01 * n, "strange": 1.0} for n in range(1, 11))]


def by_key(figures):
    return {figure.key: figure for figure in figures}


def test_plotly_takes_the_figures_of_a_whole_run(tmp_path):
    view = view_of(tmp_path / "run", full_rows(), metrics=METRICS)
    figures = by_key(run_figures(view))
    for figure in figures.values():
        check(figure)
    drawn = {key for key, figure in figures.items() if figure.variants}
    assert drawn == {"pareto", "progress", "learning", "actions", "rungs", "times"}
    assert [variant.name for variant in figures["pareto"].variants] == ["frozen encoder", "joint training"]
    for figure in runs_figures([view]):
        check(figure)
        assert figure.variants


@pytest.mark.parametrize("make", [runs.failures_only, runs.unfinished, runs.hostile])
def test_no_run_is_too_strange(make, tmp_path):
    view = load_run(make(tmp_path / "run").path)
    figures = run_figures(view)
    for figure in (*figures, *runs_figures([view, view_of(tmp_path / "other", full_rows())])):
        check(figure)
    if make is not runs.hostile:
        assert {figure.key for figure in figures if figure.variants} <= {"times"}


@pytest.mark.parametrize(
    ("rows", "metrics"),
    [
        ([row(1, valid_nll=2.0)], []),  # no builder, no Huffman
        ([row(1, valid_nll=2.0, cost=0.0)], [{"entropy": 0.0}]),  # one class
        ([row(1, valid_nll=2.0, cost=None, finished_at=None)], []),
        ([row(1, valid_nll=2.0, finished_at=None), row(2, rung=JOINT)], []),
        ([row(1, valid_nll=1e6, cost=1e300), row(2, valid_nll=1.0, cost=1e-300)], []),
        ([row(1, valid_nll=math.inf, seconds=math.inf, cost=math.inf)], [{"entropy": math.nan}]),
        ([row(1, valid_nll=2.0, actions="[]", decisions="[]")], []),
    ],
)
def test_odd_rows_raise_nothing(rows, metrics, tmp_path):
    view = view_of(tmp_path / "run", rows, metrics=metrics)
    for figure in (*run_figures(view), *runs_figures([view])):
        check(figure)


def test_names_from_outside_stay_text(tmp_path):
    rows = full_rows(HOSTILE)
    rows = [replace(one, agent=HOSTILE[0]) if one.agent == "hybrid" else one for one in rows]
    metrics = [{}, *({name or "none": 1.0 for name in HOSTILE} for _ in range(10))]
    view = view_of(tmp_path / "run", rows, metrics=metrics, name=HOSTILE[1])
    view = replace(view, group=HOSTILE[2])
    figures = [*run_figures(view), *runs_figures([view])]
    assert len([figure for figure in figures if figure.variants]) == 8
    for figure in figures:
        check(figure)  # among others: --found is no name of a colour that the page would put in
        for variant in figure.variants:
            for trace in variant.data:
                template = trace.get("hovertemplate", "")
                assert not any(name[:8] in template for name in HOSTILE[:2])
            texts = strings([{**trace, "hovertemplate": ""} for trace in variant.data]) + strings(variant.layout)
            assert not any("<b>" in text or "<extra>" in text or "\x1b" in text for text in texts)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain", "plain"),
        ("<b>&amp;</b>", "&lt;b&gt;&amp;amp;&lt;/b&gt;"),
        ("\x1b[0m\n", "\\x1b[0m\\n"),
        ("--found", "&#45;-found"),
        ("'\"", "'\""),
    ],
)
def test_text_for_plotly(text, escaped):
    assert plotly_text(text) == escaped


def points_of(variant):
    """Places and names of all markers that have a name."""
    return {
        (cell[0], x, y)
        for trace in variant.data
        if trace["mode"] == "markers"
        for x, y, cell in zip(trace["x"], trace["y"], trace["customdata"], strict=True)
    }


def test_the_pareto_plot_has_every_tree_and_the_front(tmp_path):
    view = view_of(tmp_path / "run", full_rows())
    variant = pareto_figure(view).variants[0]
    places = frozen_places(view)
    assert points_of(variant) == {(one.name, short(one.cost), short(one.nll)) for one in places}
    line = next(trace for trace in variant.data if trace["name"] == "front")
    assert line["x"] == [short(one.cost) for one in front(places)]
    by_name = {trace["name"]: trace for trace in variant.data}
    assert by_name["Huffman"]["x"] == [9.0]
    assert by_name["builders"]["x"] == [5.0]
    symbols = [by_name[name]["marker"]["symbol"] for name in ("found", "builders", "Huffman")]
    assert symbols == ["circle", "square", "star"]
    assert variant.layout["xaxis"]["type"] == "log"


def test_terrible_and_too_many_trees_are_told_of(tmp_path):
    rng = np.random.default_rng(0)
    rows = [row(1, valid_nll=3.0, cost=9.0, agent="builder", label="huffman")]
    rows += [row(n, valid_nll=float(rng.uniform(2, 3)), cost=float(rng.uniform(5, 9))) for n in range(2, 101)]
    rows.append(row(101, valid_nll=500.0, cost=9.0))
    view = view_of(tmp_path / "run", rows)
    figure = pareto_figure(view)
    assert "1 tree lies outside the plot" in figure.summary
    assert figure.variants[0].layout["yaxis"]["range"][1] < 5
    many = [replace(rows[0], id=n, tree_hash=str(n), label=None, agent="a", cost=9.0 + n) for n in range(2, 5002)]
    view = replace(view, rows=(rows[0], *many))
    figure = pareto_figure(view)
    assert f"Of 5,000 found trees off the front {MAX_POINTS:,} are drawn" in figure.summary
    assert len(points_of(figure.variants[0])) == MAX_POINTS + 1


def test_actions_in_brief():
    assert in_brief([]) == ""
    assert in_brief(["a", "a"]) == "a x2"
    assert in_brief(["b", "a", "a"]) == "first b; a x2, b"
    assert in_brief(list("abcdef")).endswith(", 2 more")


def test_best_so_far_by_evaluations_and_by_time(tmp_path):
    rows = [
        row(1, valid_nll=3.0, cost=0.0, agent="builder", label="huffman", finished_at=1060.0),
        row(2, valid_nll=2.5, cost=0.0, finished_at=1180.0),
        row(3, valid_nll=2.0, cost=0.0, finished_at=1120.0),  # recorded before the second
        row(4, valid_nll=9.0, cost=0.0, encoder="e1", finished_at=1240.0),
    ]
    by_number, by_time = progress_figure(view_of(tmp_path / "run", rows)).variants
    own = {trace["name"]: trace for trace in by_number.data if "lines" in trace["mode"]}
    assert set(own) == {"hybrid", "builders", "Huffman"}
    assert (own["hybrid"]["x"], own["hybrid"]["y"]) == ([2, 3, 3, 4, 4, 4], [-2.5, -2.0, -2.0, None, -9.0, -9.0])
    assert own["Huffman"]["x"] == [1, 3, None]
    assert [shape["x0"] for shape in by_number.layout["shapes"]] == [4]
    timed = next(trace for trace in by_time.data if trace["name"] == "hybrid")
    assert (timed["x"], timed["y"]) == ([2, 3, 4, 4, 4], [-2.0, -2.0, None, -9.0, -9.0])


def test_an_agent_without_a_policy(tmp_path):
    rows = [replace(one, agent="random") if one.agent == "hybrid" else one for one in full_rows()]
    view = view_of(tmp_path / "run", rows, config={"search": {"agent": "random"}})
    figure = learning_figure(view)
    check(figure)
    assert "random has no policy" in figure.summary
    assert len(figure.variants[0].data) == 3  # quartiles, mean, best


def test_metrics_are_small_plots_over_one_axis_with_units(tmp_path):
    variant = learning_figure(view_of(tmp_path / "run", full_rows(), metrics=METRICS)).variants[0]
    assert {trace["xaxis"] for trace in variant.data} == {"x"}
    assert [trace["yaxis"] for trace in variant.data] == ["y", "y", "y", "y2", "y3", "y4"]
    assert [note["text"] for note in variant.layout["annotations"]][1:] == [
        "entropy, nats",
        "approx_kl, nats",
        "strange",
    ]
    domains = [variant.layout[f"yaxis{suffix}"]["domain"] for suffix in ("", "2", "3", "4")]
    assert all(upper[0] > lower[1] for upper, lower in pairwise(domains))
    assert domains[-1][0] >= 0


def test_rungs_agree_as_scipy_says(tmp_path):
    view = view_of(tmp_path / "run", full_rows())
    pairs = {(pair.lower, pair.upper): pair for pair in rung_pairs(view)}
    nll = {(one.rung, one.tree_hash): one.valid_nll for one in view.rows}
    for (lower, upper), pair in pairs.items():
        trees = [tree for rung, tree in nll if rung == upper]
        assert len(pair.trees) == len(trees) == 8
        tau = stats.kendalltau([nll[lower, tree] for tree in trees], [nll[upper, tree] for tree in trees]).statistic
        assert pair.tau == pytest.approx(tau)
    tau = pairs["frozen", "joint"].tau
    assert f"Frozen against joint: Kendall's τ {tau:.2f} on 8 trees" in rungs_figure(view).summary


def test_times_by_load_and_reasons(tmp_path):
    view = view_of(tmp_path / "run", full_rows())
    found = seconds_by_load(view.rows)
    scored = [one for one in view.frozen if one.valid_nll is not None and one.status != CACHED]
    assert sum(len(found[load]) for load in found if load.startswith("frozen")) == len(scored)
    known = [one.seconds for one in scored if one.nodes_trained == 0]
    assert found["frozen, all nodes known"] == known
    box = next(trace for trace in times_figure(view).variants[1].data if trace["name"] == "frozen,<br>all nodes known")
    assert box["median"] == [short(float(np.median(known)))]
    failed = failures_figure(view)
    lost = [one for one in view.rows if one.reason]
    assert sum(int(cells[0]) for cells in failed.table.rows) == len(lost)
    assert failed.table.rows[0] == ("4", "failed", "frozen", "#9", "split")


def confirmed(name, kind, mean, half, seeds=3):
    change = {"mean": mean, "low": mean - half, "high": mean + half}
    test = {"mean": 2.0, "low": 1.9, "high": 2.1, "n": seeds}
    row = {"name": name, "kind": kind, "test_nll": test, "perplexity": 7.4, "cost": 3.0}
    return row | {"perplexity_change": change}


def test_confirmed_trees_are_drawn_with_their_intervals(tmp_path):
    rows = [
        confirmed("huffman", "baseline", 0.0, 0.0),
        confirmed("<b>", "baseline", 0.02, 0.01),
        confirmed("found #3", "found", -0.1, 0.02),
        confirmed("found #4", "candidate", -0.05, 0.06),
    ]
    view = replace(view_of(tmp_path / "run", full_rows()), comparison={"rows": rows})
    figure = confirmed_figure(view)
    check(figure)
    assert figure.summary.startswith("1 of 3 confirmed trees")
    assert "found #3: -10.00 % [-12.00, -8.00]" in figure.summary
    drawn = {trace["name"]: trace for trace in figure.variants[0].data}
    assert [drawn["found"]["x"], drawn["found"]["error_x"]["array"]] == [[-10.0], [2.0]]
    assert [note["text"] for note in figure.variants[0].layout["annotations"]] == ["found #3", "found #4", "&lt;b&gt;"]
    assert [cells[0] for cells in figure.table.rows] == ["found #3", "found #4", "<b>"]
    alone = confirmed_figure(replace(view, comparison={"rows": [confirmed("a", "found", -0.1, 0.0, seeds=1)]}))
    assert "so there is no interval" in alone.summary


def test_runs_of_a_group_become_a_mean_and_a_band(tmp_path):
    views = []
    for seed, best in enumerate((-2.0, -3.0)):
        rows = [row(1, valid_nll=4.0 + seed, cost=0.0), row(2 + seed, valid_nll=-best, cost=0.0)]
        view = view_of(tmp_path / f"run{seed}", rows, config={"seed": seed}, name=f"study, seed {seed}")
        views.append(replace(view, group="study", path=tmp_path / f"study/seed-{seed}.db"))
    alone = view_of(tmp_path / "alone", [row(1, valid_nll=1.0, cost=0.0)])
    figure = progress_of_runs([*views, alone])
    check(figure)
    assert "alone has the best reward so far, -1.0000 nats" in figure.summary
    band, mean, single = figure.variants[0].data
    assert (mean["name"], mean["x"], mean["y"]) == ("study (mean of 2)", [1, 2], [-4.5, -2.5])
    assert (min(band["y"]), max(band["y"]), band["fill"]) == (-5.0, -2.0, "toself")
    assert single["name"] == "alone"
    assert figure.table.rows[0][2:] == ("2", "4", "-2.5000", "-3.0000", "-2.0000")
    assert "not finished" not in figure.summary


def test_unfinished_runs_of_a_group_are_in_no_mean(tmp_path):
    """Two that have finished, and one that is ahead of them after its first evaluations."""
    views = []
    for seed, nll in enumerate((2.0, 4.0, 1.0)):
        rows = [row(number, valid_nll=nll, cost=0.0) for number in range(1, 5 - 2 * (seed == 2))]
        view = view_of(tmp_path / f"run{seed}", rows, config={"seed": seed}, name=f"study, seed {seed}")
        views.append(replace(view, group="study", path=tmp_path / f"seed-{seed}.db", complete=seed < 2))
    figure = progress_of_runs(views)
    check(figure)
    assert figure.summary.startswith("Of 3 runs study, seed 2 has the best reward so far, -1.0000 nats.")
    assert "1 run not finished: a thin line, and in no mean." in figure.summary
    _, mean, thin = figure.variants[0].data
    assert (mean["name"], mean["x"], mean["y"]) == ("study (mean of 2)", [1, 4], [-3.0, -3.0])
    assert (thin["text"], thin["x"], thin["y"]) == ("study, seed 2", [1, 2], [-1.0, -1.0])
    assert not thin["showlegend"]
    assert thin["line"]["color"] == mean["line"]["color"]
    assert figure.table.rows[0][2:] == ("2", "10", "-3.0000", "-4.0000", "-2.0000")
    young = progress_of_runs([replace(view, complete=False) for view in views])
    lines = young.variants[0].data
    assert [line["text"] for line in lines] == [view.name for view in views]
    assert [(line["name"], line["showlegend"]) for line in lines] == [
        ("study", True),
        ("study", False),
        ("study", False),
    ]
    assert young.table.rows[0][2:] == ("0", "10", "-", "-", "-")


def test_runs_of_a_group_that_have_nothing_in_common(tmp_path):
    """One has a score only after the other has ended: there is no mean, and no line."""
    views = []
    for seed, rows in enumerate(([row(1, valid_nll=2.0, cost=0.0)], [row(1), row(2, valid_nll=2.0, cost=0.0)])):
        view = view_of(tmp_path / f"run{seed}", rows, config={"seed": seed}, name=f"study, seed {seed}")
        views.append(replace(view, group="study", path=tmp_path / f"study/seed-{seed}.db"))
    assert progress_of_runs(views).variants == ()


def test_no_runs_give_no_figures():
    assert runs_figures([]) == []


def test_a_range_leaves_out_few_terrible_values_alone():
    assert inner_range([1.0, 2.0, 3.0]) == (1.0, 3.0)
    low, high = inner_range([*map(float, range(20)), 1e9])
    assert (low, high < 100) == (0.0, True)
    assert inner_range([*map(float, range(20)), 1e9], [1e9])[1] == 1e9

"""The page of a run, and that of several: their sections in order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from treesearch.config import dump_config
from treesearch.evaluation.comparison import t_interval
from treesearch.report.cells import NONE, mean_cell
from treesearch.report.glossary import GLOSSARY
from treesearch.report.page import html
from treesearch.report.page.comparison_table import comparison_section, runs_section
from treesearch.report.page.figure import Figure
from treesearch.report.page.figures import run_figures, runs_figures
from treesearch.report.page.frame import Page, Section, render
from treesearch.report.page.headline import Headline, best_scored, headline
from treesearch.report.page.html import Column
from treesearch.report.page.run_view import RunView
from treesearch.report.page.tree_data import ViewedTree, viewer_data
from treesearch.report.page.viewed_trees import tree_basis, viewed_of_runs, viewed_trees
from treesearch.report.runs import SHARED, differences, run_results, shared_settings
from treesearch.search.run_folder import RunFolder

TOP_FIGURES = ("pareto", "confirmed")  # keys of the figures that stand above the tree, before and after the table
MAX_VERDICTS = 12  # runs that are each told of in words where they are compared


def run_page(view: RunView, *, refresh: float | None = None) -> str:
    """The page of one run.

    Args:
        view: The run.
        refresh: Seconds after which the page loads itself again; None: never.
    """
    figures, tree = run_figures(view), _viewer(view, viewed_trees(view))
    before, after = ("".join(_figure(one) for one in figures if one.key == key) for key in TOP_FIGURES)
    rest = [figure for figure in figures if figure.key not in TOP_FIGURES]
    done = view.comparison
    table = comparison_section(done) if done is not None and done["rows"] else ""
    sections = [
        Section("result", "Result", f"{_headline(headline(view))}{before}{table}{after}"),
        Section("tree", "The tree", _tree_section(view, tree)),
        Section("search", "The search", "".join(map(_figure, rest))),
        Section("settings", "Configuration and environment", _settings([view])),
        Section("glossary", "What the figures mean", _glossary()),
    ]
    return render(Page(view.name, _state(view), tuple(sections), tuple(figures), tree, refresh))


def runs_page(views: Sequence[RunView], *, refresh: float | None = None) -> str:
    """The page that compares runs; arguments as in `run_page`."""
    figures = runs_figures(views)
    bests = [best_scored(view) for view in views]
    rewards = [None if best is None else view.reward(best) for view, best in zip(views, bests, strict=True)]
    rows, shared = [], []
    for view, reward in zip(views, rewards, strict=True):
        row = {"name": view.name, "agent": view.agent, "evaluations": len(view.frozen), "state": _state(view)}
        row |= dict.fromkeys(("best", "test_nll", "reward", "cost"))
        settings: dict[str, Any] = dict.fromkeys(SHARED)  # a study sees to the others
        settings["evaluations"] = view.config.search.evaluations
        if not view.in_study:
            settings = shared_settings(RunFolder(view.path))
            if view.comparison is not None:
                known = run_results(view.comparison)
                row |= {key: known[key] for key in ("best", "test_nll", "reward", "cost")}
                settings |= {} if view.outdated else {"evaluations": known["evaluations"]}
        shared.append(settings)
        rows.append(row | {"frozen_reward": reward})
    first = tree_basis(views)
    tree = _viewer(first, viewed_of_runs(views))
    verdicts = "".join(f"<li>{html.name(view.name)}: {html.text(headline(view).verdict)}</li>" for view in views)
    said = f"<ul>{verdicts}</ul>" if len(views) <= MAX_VERDICTS else ""
    sections = [
        Section(
            "result",
            "Runs side by side",
            _groups(views, rewards) + runs_section(rows, differences(shared)) + said,
        ),
        *([] if tree is None else [Section("tree", "Their trees", _tree_section(first, tree))]),
        Section("search", "The searches", "".join(map(_figure, figures))),
        Section("settings", "Configurations", _settings(views)),
        Section("glossary", "What the figures mean", _glossary()),
    ]
    running = sum(view.running for view in views)
    state = f"{len(views)} runs" + (f", {running} running" if running else ", more to come" if refresh else "")
    return render(Page("Comparison of runs", state, tuple(sections), tuple(figures), tree, refresh))


# -- sections ---------------------------------------------------------------------------------------------------------


def _state(view: RunView) -> str:
    if view.running:
        return "running"
    return "finished" if view.finished else "stopped before its end"


def _headline(found: Headline) -> str:
    facts = "".join(
        f'<div class="fact"><dt>{html.text(fact.label)}</dt><dd><strong>{html.text(fact.value)}</strong>'
        f"<small>{html.text(fact.note)}</small></dd></div>"
        for fact in found.facts
    )
    sentences = "".join(f"<p>{html.text(sentence)}</p>" for sentence in found.sentences)
    return f'<p class="verdict">{html.text(found.verdict)}</p>{sentences}<dl class="facts">{facts}</dl>'


def _groups(views: Sequence[RunView], best_rewards: Sequence[float | None]) -> str:
    """Groups of runs that differ in their seed alone, with the mean of the best rewards of those that have finished."""
    groups: dict[str, list[float]] = {}
    for view, reward in zip(views, best_rewards, strict=True):
        groups.setdefault(view.group, []).extend([reward] if reward is not None and view.finished else [])
    if len(groups) == len(views):
        return ""
    rows = []
    for group, rewards in groups.items():
        cell = mean_cell(t_interval(rewards).as_dict() if rewards else None, 4)
        rows.append([html.name(group), str(len(rewards)), cell.mean, cell.interval or NONE])
    columns = [
        Column("variant", number=False),
        Column("searches"),
        Column("best reward (mean)", "Of the frozen rung, nats"),
        Column("95 % interval"),
    ]
    open_ones = sum(not view.finished for view in views)
    note = f"<p>{open_ones} of {len(views)} searches have not finished, and are left out here.</p>" if open_ones else ""
    return html.table(columns, rows, label="Variants") + note


def _figure(figure: Figure) -> str:
    """Its place; page.js draws it there."""
    table = ""
    if figure.table is not None:
        columns = [Column(heading, number=False) for heading in figure.table.headings]
        rows = [[html.text(cell) for cell in row] for row in figure.table.rows]
        note = f"<p>{html.text(figure.table.note)}</p>" if figure.table.note else ""
        table = html.details("The same as a table", html.table(columns, rows, label=figure.title) + note)
    plot = ""
    if figure.variants:
        plot = f'<div class="plot" id="plot-{figure.key}" data-figure="{figure.key}"></div>'
    return (
        f'<figure id="figure-{figure.key}"><h3>{html.text(figure.title)}</h3>'
        f"<figcaption>{html.text(figure.summary)}</figcaption>{plot}{table}</figure>"
    )


def _viewer(view: RunView, trees: Sequence[ViewedTree]) -> dict[str, Any] | None:
    """The data of the viewer, by counts, names and vectors of this run."""
    if not trees or view.counts is None or not view.counts.sum() > 0:
        return None
    return viewer_data(
        trees,
        counts=view.counts,
        class_names=view.class_names,
        vectors=view.class_vectors,
        in_features=view.config.encoder.features,
    )


def _tree_section(view: RunView, tree: dict[str, Any] | None) -> str:
    if tree is None:
        return "<p>There is no tree to show: the Huffman tree, with which others are compared, has no score yet.</p>"
    notes = []
    if view.class_vectors is None:
        many = "with this many classes the ledger keeps no class vectors"
        why = many if view.sessions else "the run was written before ledgers kept class vectors"
        notes.append(f"Nodes are named by their most frequent classes, and neighbours are left out: {why}.")
    if view.class_names is None:
        notes.append("The classes have no names, so their ids are shown.")
    return "".join(f"<p>{html.text(note)}</p>" for note in notes) + '<div id="tree-viewer"></div>'


def _settings(views: Sequence[RunView]) -> str:
    parts = []
    for view in views:
        content = html.lines(dump_config(view.config))
        if view.environment is not None:
            content += html.lines(json.dumps(view.environment, indent=2, ensure_ascii=False))
        parts.append(html.details(f"{html.name(view.path)}", content))
    return "".join(parts)


def _glossary() -> str:
    columns = [Column("metric", number=False), Column("unit", number=False), Column("meaning", number=False)]
    columns.append(Column("where", number=False))
    rows = [
        [f"<code>{html.text(one.name)}</code>", html.text(one.unit), html.text(one.meaning), ", ".join(one.where)]
        for one in GLOSSARY
    ]
    return html.details("All metrics", html.table(columns, rows, label="Metrics"))

"""The plots of the page, as plotly dictionaries."""

from __future__ import annotations

from collections.abc import Sequence

from treesearch.report.page.figure import Figure
from treesearch.report.page.figures.actions import actions_figure
from treesearch.report.page.figures.confirmed import confirmed_figure
from treesearch.report.page.figures.learning import learning_figure
from treesearch.report.page.figures.pareto import pareto_figure
from treesearch.report.page.figures.progress import progress_figure
from treesearch.report.page.figures.rungs import rungs_figure
from treesearch.report.page.figures.runs import fronts_of_runs, progress_of_runs
from treesearch.report.page.figures.times import failures_figure, times_figure
from treesearch.report.page.run_view import RunView

__all__ = ["run_figures", "runs_figures"]

_OF_ONE_RUN = (
    confirmed_figure,
    pareto_figure,
    progress_figure,
    learning_figure,
    actions_figure,
    rungs_figure,
    times_figure,
    failures_figure,
)


def run_figures(view: RunView) -> list[Figure]:
    """The plots of one run; those without anything to draw have no variants, and say why."""
    return [make(view) for make in _OF_ONE_RUN]


def runs_figures(views: Sequence[RunView]) -> list[Figure]:
    """The plots of several runs over each other; nothing for no runs."""
    return [make(views) for make in (progress_of_runs, fronts_of_runs)] if views else []

"""The commands `treesearch apply NAME`, a module each; what they run is imported when they run."""

from __future__ import annotations

import typer

from treesearch.applications.commands.audit import audit
from treesearch.applications.commands.autocomplete import autocomplete
from treesearch.applications.commands.cascade import cascade
from treesearch.applications.commands.chess import chess
from treesearch.applications.commands.coding import coding
from treesearch.applications.commands.taxonomy import taxonomy

apply = typer.Typer(
    help="Run an application: what the toolbox is for, on your own data.", no_args_is_help=True, rich_markup_mode=None
)


@apply.callback()
def _applications() -> None:
    """Run an application: what the toolbox is for, on your own data."""


for _command in (audit, autocomplete, cascade, chess, coding, taxonomy):
    apply.command()(_command)

"""The commands `treesearch apply NAME`, a module each; what they run is imported when they run."""

from __future__ import annotations

import typer

from treesearch.applications.commands.audit import audit
for _command in (audit, chess, coding, taxonomy):
    apply.command()(_command)

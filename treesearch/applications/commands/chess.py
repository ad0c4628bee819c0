"""`treesearch apply chess`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from treesearch.console import print_rows, stdout, tell


def chess(
    openings: Annotated[
        Path, typer.Option(help="Folder with a.tsv to e.tsv of lichess-org/chess-openings: eco, name, pgn.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Splits and trainings; intervals from two on.")] = 1,
    moves: Annotated[
        str | None,
        typer.Option(help="Explain this position, such as '1. e4 e6 2. d4 d5', in place of the table."),
    ] = None,
    trees: Annotated[
        list[Path] | None, typer.Option("--tree", help="A searched tree for each seed, in their order. Repeatable.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write each seed's split here, to search a tree on, and train nothing.")
    ] = None,
    min_lines: Annotated[int, typer.Option(min=3, help="Lines of a family that is a class of its own.")] = 10,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the positions.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name openings of chess, and compare the reasons of each decision with an expert's."""
    from treesearch.applications.chess import (
        Openings,
        TrainingSettings,
        compare_models,
        explain_moves,
        export_splits,
        positions_after,
        record_lines,
        study_table,
    )
    from treesearch.errors import ConfigError
    from treesearch.evaluation.threads import one_thread
    from treesearch.progress import ProgressReporter
    from treesearch.tree import Tree

    given = {"--moves": moves is not None, "--export": export is not None, "--tree": bool(trees)}
    if sum(given.values()) > 1:
        both = " and ".join(name for name, value in given.items() if value)
        raise ConfigError(f"--moves, --export and --tree ask for different things, but {both} were given; give one")
    asked = None if moves is None else positions_after(moves, "--moves")[-1].features  # refused before all else
    searched = [Tree.load(path) for path in trees or ()]
    loaded = Openings.load(openings, min_lines=min_lines)
    tell(
        f"{len(loaded.lines)} lines of {loaded.taxonomy.num_classes} families, {loaded.num_pooled} of them pooled as"
        f" other openings of their volume; {loaded.num_dropped} left out"
    )
    if export is not None:
        try:
            export_splits(loaded, export, num_seeds=seeds)
        except OSError as error:
            raise ConfigError(f"{export} cannot be written ({error.strerror}); choose another --export") from None
        tell(f"{seeds} splits written to {str(export)!r}")
        return
    settings = TrainingSettings(epochs=epochs)
    with one_thread(), ProgressReporter() as progress:  # small products: more threads wait for each other

        def on_step(name: str, done: int, total: int) -> None:
            progress.update("training", done, total, name)

        if moves is not None and asked is not None:
            record = explain_moves(loaded, asked, moves=moves, settings=settings, on_step=on_step)
        else:
            rows = compare_models(loaded, num_seeds=seeds, trees=searched, settings=settings, on_step=on_step)
    if asked is None:
        print_rows(rows, study_table, as_json=as_json)
    elif as_json:
        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        stdout().print("\n".join(record_lines(record)), soft_wrap=True)

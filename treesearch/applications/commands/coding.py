"""`treesearch apply coding`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from treesearch.console import stdout, tell

DEFAULT_CHAPTERS = "9,10"


def coding(
    chapters: Annotated[
        str | None,
        typer.Option(
            help=f"Chapters of ICD-10-CM by number, 'all' for all 74,719 codes.  [default: {DEFAULT_CHAPTERS}]"
        ),
    ] = None,
    query: Annotated[list[str] | None, typer.Option(help="Code this text. Repeatable.")] = None,
    confidence: Annotated[float, typer.Option(help="Stop at the deepest node of at least this probability.")] = 0.9,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings, each with a split of its own.  [default: 1]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the texts; by default 20, of many codes 8.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the coder of the first seed into this folder.")] = None,
    load: Annotated[Path | None, typer.Option(help="Code the queries with a coder that was saved.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print 'queries' and 'rows' as JSON.")] = False,
) -> None:
    """Code short diagnostic texts by ICD-10-CM: chapter, block, category, code, with the probability at each level.

    Learns from the descriptions of the codes and from a part of their other wordings; the tables are of the wordings
    that were held out. Without a query, and with at most 5,000 codes, a flat softmax is trained beside.

    Not for clinical use: terms of the classification are no clinical notes.
    """
    from treesearch.applications.coding import (
        MOST_FLAT,
        Coder,
        icd10cm_chapters,
        icd10cm_wordings,
        levels_table,
        narrow,
        narrowing_lines,
        safe_table,
        train_and_score,
    )
    from treesearch.applications.coding.coder import check_query
    from treesearch.applications.coding.narrowing import check_confidence
    from treesearch.applications.coding.task import coding_task
    from treesearch.applications.coding.training import Head
    from treesearch.errors import ConfigError
    from treesearch.evaluation.threads import one_thread
    from treesearch.progress import ProgressReporter

    check_confidence(confidence)
    given = {"chapters": chapters, "seeds": seeds, "epochs": epochs, "save": save}
    unused = [f"--{name}" for name, value in given.items() if load is not None and value is not None]
    if unused:
        raise ConfigError(f"{unused[0]} is of a training, but --load takes a coder that is trained; leave one out")
    if load is not None and not query:
        raise ConfigError("--load needs a text to code; give --query TEXT")
    rows: list[dict[str, Any]] = []
    if load is not None:
        coder = Coder.load(load)
    else:
        numbers = (chapters or DEFAULT_CHAPTERS).split(",")
        codes = icd10cm_chapters(None if numbers == ["all"] else [number.strip() for number in numbers])
        wordings = icd10cm_wordings(codes)
        known = coding_task(codes, wordings, seed=0)
        for text in query or ():  # what cannot be coded is refused before the training
            check_query(text, known.pieces)
        tell(f"{codes.num_classes} codes, {len(known.train)} texts to learn from, {len(known.test)} terms to test on")
        heads: tuple[Head, ...] = ("hs",) if query or codes.num_classes > MOST_FLAT else ("hs", "flat")
        with one_thread(), ProgressReporter() as progress:  # small products: more threads wait for each other
            rows, coder = train_and_score(
                codes,
                wordings,
                num_seeds=seeds or 1,
                heads=heads,
                epochs=epochs,
                on_step=lambda head, done, total: progress.update("training", done, total, head),
            )
        if save is not None:
            coder.save(save)
            tell(f"coder written to {save}")
    records = narrow(coder, query or [], confidence=confidence) if query else []
    if as_json:
        print(json.dumps({"queries": records, "rows": rows}, indent=2, ensure_ascii=False))
        return
    for record in records:
        stdout().print("\n".join([*narrowing_lines(record), ""]), soft_wrap=True)
    if rows:
        stdout().print(levels_table(rows))
        stdout().print(safe_table(rows))
    tell("Not for clinical use: the tables are of short terms of the classification, which differ from clinical notes.")

"""`treesearch apply autocomplete`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from treesearch.console import print_rows, stdout, tell
from treesearch.errors import ConfigError

if TYPE_CHECKING:
    from treesearch.applications.autocomplete import Completion, Completions, ContextModel, ContextSettings
    from treesearch.tree import Tree


def autocomplete(
    queries: Annotated[
        Path, typer.Option(help="Lines 'query TAB count', or 'query' for a count of one; counts of equals add up.")
    ],
    prefix: Annotated[
        str | None, typer.Option(help="What has been typed; left out: a prompt, a prefix a line on standard input.")
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="Completions to print, best first; of equals the first in order.")
    ] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of completions with probabilities; at the prompt one a line.")
    ] = False,
    tree: Annotated[
        str | None,
        typer.Option(help="huffman (default), balanced, categories, or a tree file or run folder over these queries."),
    ] = None,
    categories: Annotated[
        Path | None, typer.Option(help="Of --tree categories: lines 'query TAB category'; the rest is one of its own.")
    ] = None,
    ignore_case: Annotated[bool, typer.Option("--ignore-case", help="Match whatever the case.")] = False,
    contexts: Annotated[
        Path | None, typer.Option(help="Lines 'context TAB query': train a model that sees what has gone before.")
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="What has gone before, for such a model; at the prompt also before a tab.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of its training.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of its training.")] = 0,
    save: Annotated[Path | None, typer.Option(help="Keep the trained model in this new folder.")] = None,
    load: Annotated[Path | None, typer.Option(help="Use a model that was kept, with its tree; same queries.")] = None,
) -> None:
    """Complete queries: the most probable ones that begin with a prefix, exactly, by best-first search down a tree."""
    from treesearch.applications.autocomplete import (
        CompletionIndex,
        ContextIndex,
        ContextModel,
        ContextSettings,
        answer_lines,
        completion_rows,
        completion_table,
        completion_tree,
        load_completions,
        size_rows,
        size_table,
        typed_lines,
    )

    if contexts is not None and load is not None:
        raise ConfigError("give --contexts to train a model, or --load to use one, not both")
    if load is not None and (tree, categories) != (None, None):
        raise ConfigError("--load has its own tree; leave --tree and --categories out")
    if save is not None and contexts is None:
        raise ConfigError("--save keeps a model that --contexts trains; give both")
    if context is not None and contexts is None and load is None:
        raise ConfigError("--context needs a model that sees it; give --contexts FILE or --load FOLDER")
    completions = load_completions(queries)
    model = None if load is None else ContextModel.load(load, completions)
    name = "saved" if load is not None else tree or "huffman"
    own = completion_tree(name, completions, categories=categories) if model is None else model.layer.tree
    if contexts is not None:
        model = _train(completions, own, contexts, ContextSettings(epochs=epochs, seed=seed), save)
        own = model.layer.tree
    index = CompletionIndex(completions, own, ignore_case=ignore_case)
    with_context = None if model is None else ContextIndex(index, model)

    def answer(line: str, before: str) -> list[Completion]:
        return index.complete(line, top) if with_context is None else with_context.complete(line, top, context=before)

    def answer_typed(line: str) -> list[Completion]:
        before, tab, typed = line.rpartition("\t") if with_context is not None else ("", "", line)
        return answer(typed, before if tab else context or "")

    if prefix is not None:
        print_rows(completion_rows(answer(prefix, context or "")), completion_table, as_json=as_json)
    if not as_json:
        stdout().print(size_table(completions, size_rows(completions, {name: own})))
    if prefix is None:
        tell("a prefix a line; an empty line ends")
        answer_lines(answer_typed, typed_lines(), as_json=as_json)


def _train(
    completions: Completions, tree: Tree, path: Path, settings: ContextSettings, save: Path | None
) -> ContextModel:
    from treesearch.applications.autocomplete import load_contexts, train_context_model
    from treesearch.evaluation.threads import one_thread
    from treesearch.progress import ProgressReporter

    if save is not None and save.exists():
        raise ConfigError(f"--save must be a new folder, but there is something at {save}; choose another one")
    contexts = load_contexts(path, completions)
    unknown = f", {contexts.num_unknown} lines whose query is no completion left out" if contexts.num_unknown else ""
    tell(f"{len(contexts.split)} contexts, {len(contexts.word_ids)} words{unknown}")
    with one_thread(), ProgressReporter() as progress:  # small products: more threads wait for each other
        trained = train_context_model(
            tree,
            completions,
            contexts,
            settings=settings,
            on_epoch=lambda done, total: progress.update("training", done, total),
        )
    if trained.nll is not None:
        tell(f"held out: {trained.nll:.3f} nats, of the counts {trained.count_nll:.3f}, epoch {trained.epoch}")
    if save is not None:
        try:
            trained.model.save(save)
        except OSError as error:
            raise ConfigError(f"{save} cannot be written ({error.strerror}); choose another --save") from None
    return trained.model

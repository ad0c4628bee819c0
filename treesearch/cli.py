"""The command line.

Data goes to stdout, progress and logs to stderr. Exit codes: 0 done, 1 failure, 2 wrong usage or input,
130 interrupted.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from treesearch.applications.commands import apply
from treesearch.console import print_rows, stdout, tell
from treesearch.errors import ConfigError, ExecutionError, TreeSearchError
from treesearch.exchange import FORMATS, export_tree, format_help, import_tree
from treesearch.interrupts import outside_kernels, plain_interrupts
from treesearch.visible import visible

if TYPE_CHECKING:
    from treesearch.search.run_folder import RunFolder
    from treesearch.tree import Tree

app = typer.Typer(
    name="treesearch",
    help="Search for a better tree for hierarchical softmax.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(apply, name="apply")

INTERRUPTED = 130  # exit code
LOADING = "load torch"  # a stage, seconds long

SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: a.b=value. Repeatable.")]


@app.command()
def search(
    config: Annotated[Path, typer.Argument(help="YAML file, such as configs/quickstart.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Run folder, new or empty; default runs/CONFIG-N.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Start from the policy of another run: its folder, or a file with its state.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Search for a tree: prepare, search, confirm, compare, export."""
    from treesearch.config import load_config

    resolved = load_config(config, set_ or ())  # a mistake in it is told before torch is loaded
    from treesearch.progress import ProgressReporter
    from treesearch.search.run_folder import RunFolder, default_folder

    folder = RunFolder(default_folder(config) if out is None else out)
    folder.check_free()  # likewise
    with ProgressReporter(title=f"treesearch search, {folder.path}") as progress:
        with progress.step(LOADING):
            from treesearch.launch import run_search
        comparison = run_search(resolved, folder, progress, policy=policy)
    _present(folder, comparison)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="Run folder of a search that was stopped, or that is to go on.")],
    set_: SetOption = None,
) -> None:
    """Go on with a search: nothing that is finished is done again. A larger search.evaluations lets it go on longer."""
    from treesearch.progress import ProgressReporter
    from treesearch.search.run_folder import RunFolder

    folder = RunFolder(run)
    with ProgressReporter(title=f"treesearch resume, {folder.path}") as progress:
        with progress.step(LOADING):
            from treesearch.launch import resume_search
        comparison = resume_search(folder, progress, overrides=set_ or ())
    _present(folder, comparison)


@app.command()
def compare(
    paths: Annotated[list[Path], typer.Argument(help="A run folder, several of them, or tree files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of rows.")] = False,
    counts: Annotated[Path | None, typer.Option(help="Class counts for tree files, see build.")] = None,
    front: Annotated[bool, typer.Option("--front", help="Print the Pareto front of a run instead.")] = False,
    evaluations: Annotated[
        bool, typer.Option("--evaluations", help="Print every evaluation of a run instead, tab-separated.")
    ] = False,
) -> None:
    """Print the comparison of a run with Huffman, runs side by side, or the sizes of tree files."""
    from treesearch.report import runs
    from treesearch.search.run_folder import RunFolder

    folders = all(path.is_dir() for path in paths)
    if counts is not None and folders:
        raise ConfigError("--counts applies to tree files; runs have their own")
    if front and evaluations:
        raise ConfigError("give at most one of --front and --evaluations")
    if evaluations:
        _print_evaluations(_only_run(paths, "--evaluations"))
    elif front:
        _print_front(_only_run(paths, "--front"), as_json=as_json)
    elif folders and len(paths) > 1:
        rows = [runs.run_row(path) for path in paths]
        print_rows(rows, runs.runs_table, as_json=as_json)
        for line in runs.differences(rows):
            tell(visible(line))
    elif folders:
        folder = RunFolder(paths[0])
        comparison = folder.comparison()
        if as_json:
            print(json.dumps(comparison["rows"], indent=2, ensure_ascii=False))
        else:
            _print_comparison(comparison)
        if (stale := runs.run_outdated(folder, comparison)) is not None:
            tell(visible(stale))
    else:
        from treesearch.report.tables import comparison_table

        rows = [runs.file_row(path, counts) for path in paths]
        if counts is None:
            tell("no --counts, so every class weighs the same")
        print_rows(rows, comparison_table, as_json=as_json)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A run folder or a tree file.")],
    format: Annotated[str, typer.Option(help=format_help(FORMATS.values()))],
    out: Annotated[Path, typer.Option(help="File to write, or new folder for a format that is one.")],
    drop_projections: Annotated[
        bool, typer.Option("--drop-projections", help="Leave projections out, for a format that has no place for them.")
    ] = False,
    binarize: Annotated[
        bool, typer.Option("--binarize", help="Make every node binary, for a format that holds nothing else.")
    ] = False,
    counts: Annotated[
        Path | None, typer.Option(help="Class counts by which --binarize merges, see build; a run folder has its own.")
    ] = None,
    lambda_: Annotated[
        float | None, typer.Option("--lambda", min=0, help="Of a run: the best tree of its front under this λ.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Of a run: the best tree of its front that costs no more.")
    ] = None,
) -> None:
    """Write the best tree of a run, another one of its front, or a tree file, in another format."""
    from treesearch.data.counts import load_counts
    from treesearch.report.runs import load_tree, run_counts

    if counts is not None and not binarize:
        raise ConfigError("--counts applies to --binarize; leave it out")
    if lambda_ is None and max_cost is None:
        tree, what = load_tree(source), ""
    else:
        tree, what = _tree_of_front(source, lambda_, max_cost)
    weights = None
    if binarize:
        weights = run_counts(source) if counts is None else load_counts(counts)[0]
    with _writing(out):
        export_tree(tree, out, format=format, drop_projections=drop_projections, binarize=binarize, counts=weights)
    tell(f"wrote {out}{what}")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A file, or the folder of a format that is one.")],
    format: Annotated[str, typer.Option(help=format_help(one for one in FORMATS.values() if one.read))],
    out: Annotated[Path, typer.Option(help="Tree file to write, .json or .npz.")],
    names: Annotated[
        Path | None, typer.Option(help="Class names, one a line: the first is class 0. Default: in order of the file.")
    ] = None,
) -> None:
    """Read a tree of another format, and write it as a tree file."""
    from treesearch.data.names import read_names

    _check_tree_file(out)
    tree = import_tree(path, format=format, class_names=None if names is None else read_names(names))
    with _writing(out):
        tree.save(out)
    tell(f"wrote {out}: {tree!r}")


@app.command()
def show(
    source: Annotated[Path, typer.Argument(help="A run folder or a tree file.")],
    counts: Annotated[
        Path | None, typer.Option(help="Class counts to weigh by, see build; a run folder has its own.")
    ] = None,
    levels: Annotated[int, typer.Option(min=0, help="Levels to draw.")] = 2,
    width: Annotated[int, typer.Option(min=1, help="Children to draw per node, heaviest first.")] = 8,
) -> None:
    """Print a tree's sizes and the top of it."""
    from treesearch.data.counts import load_counts
    from treesearch.report.describe import statistics_lines, top_of_tree, tree_statistics
    from treesearch.report.runs import load_tree, run_counts, run_features, run_vectors

    tree = load_tree(source)
    weights = run_counts(source) if counts is None else load_counts(counts)[0]
    console = stdout()
    for line in statistics_lines(tree_statistics(tree, weights, run_features(source)), width=console.width):
        print(line)
    vectors = run_vectors(source)
    console.print(top_of_tree(tree, levels=levels, width=width, counts=weights, vectors=vectors))


@app.command()
def report(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Folder of a search, a study or a sweep; several are compared.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="HTML file; default report.html in the run folder, or here for several.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again and again while the search runs; the page follows.")
    ] = False,
    interval: Annotated[
        float | None, typer.Option(min=1, max=86_400, help="Seconds between two writings with --watch; default 10.")
    ] = None,
    glossary: Annotated[bool, typer.Option("--glossary", help="Print what every metric means instead.")] = False,
) -> None:
    """Write a run, finished or going on, as one HTML file that needs no network."""
    from treesearch.report.page.write import watch_report, write_report

    if interval is not None and not watch:
        raise ConfigError("--interval applies to --watch; leave it out")
    if glossary:
        if paths or out is not None or watch:
            raise ConfigError("--glossary is of all runs and is printed; leave out folders, --out and --watch")
        from treesearch.report.glossary import print_glossary

        print_glossary(stdout())
    elif not paths:
        raise ConfigError("report needs the folder of a search, such as runs/quickstart-1")
    elif watch:
        seconds = 10.0 if interval is None else interval
        watch_report(paths, out, interval=seconds, told=lambda line: tell(visible(line)))
    else:
        tell(f"wrote {visible(str(write_report(paths, out)))}")


@app.command()
def build(
    builder: Annotated[str, typer.Argument(help="Name of a builder, such as huffman.")],
    out: Annotated[Path, typer.Option(help="Tree file to write, .json or .npz.")],
    counts: Annotated[
        Path | None, typer.Option(help="Class counts: .npy, or lines 'name TAB count' or 'count'.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Take counts, and class vectors where needed, from the data of this config.")
    ] = None,
    vectors: Annotated[Path | None, typer.Option(help="Class vectors [C, D] as .npy.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="Option of the builder: arity=16. Repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Of the builder.")] = 0,
    set_: SetOption = None,
) -> None:
    """Build one tree with a named builder."""
    from treesearch.builders import BUILDERS, build_tree
    from treesearch.builders.registry import given_by_caller
    from treesearch.config import load_config, parse_value
    from treesearch.data.counts import load_counts, load_vectors
    from treesearch.errors import did_you_mean

    if builder not in BUILDERS:
        raise ConfigError(f"unknown builder {builder!r}{did_you_mean(builder, BUILDERS)}")
    if (counts is None) == (config is None):
        raise ConfigError("give exactly one of --counts and --config")
    _check_tree_file(out)
    options: dict[str, Any] = {}
    for assignment in option or ():
        key, sign, text = assignment.partition("=")
        if not sign or key == "name" or given_by_caller(builder, key):
            raise ConfigError(
                f"--option needs key=value of the builder's own, such as arity=16, but got {assignment!r}"
            )
        options[key] = parse_value(text)
    class_vectors, directions, categories = None if vectors is None else load_vectors(vectors), None, None
    taxonomy = None
    if counts is not None:
        class_counts, names = load_counts(counts)
        if builder == "categories":
            from treesearch.launch.categories import named_categories

            categories, options = named_categories(builder, options, names, None)
        if builder == "taxonomy":
            from treesearch.taxonomy import load_taxonomy

            taxonomy = load_taxonomy(_taxonomy_file(options), classes=names)
    else:
        from treesearch.launch import SIMILARITY, load_data, make_directions, named_vectors, prepare_run
        from treesearch.launch.categories import named_categories, token_stream
        from treesearch.progress import ProgressReporter

        assert config is not None
        resolved = load_config(config, set_ or ())
        resolved, dataset = load_data(resolved)
        class_counts, names = dataset.counts.astype(float), dataset.class_names
        if class_vectors is not None and SIMILARITY in options:
            raise ConfigError(f"give either --vectors or --option {SIMILARITY}={options[SIMILARITY]}, not both")
        class_vectors, options = named_vectors(builder, options, class_vectors, dataset)
        categories, options = named_categories(builder, options, names, token_stream(resolved, dataset))
        if builder == "taxonomy":
            from treesearch.launch.taxonomy import named_taxonomy, run_taxonomy

            own = run_taxonomy(resolved, names)
            taxonomy, options = named_taxonomy(builder, options, names, own=own)
        if class_vectors is None and needs_vectors(builder, options):
            with ProgressReporter() as progress:
                preparation = prepare_run(resolved, dataset, progress)
            class_vectors, directions = preparation.vectors, make_directions(resolved, dataset, preparation)
    tree = build_tree(
        builder,
        counts=class_counts,
        vectors=class_vectors,
        seed=seed,
        directions=directions,
        categories=categories,
        taxonomy=taxonomy,
        **options,
    )
    with _writing(out):
        tree.annotate(class_names=names).save(out)
    tell(f"wrote {out}: {tree!r}")


@app.command()
def study(
    config: Annotated[Path, typer.Argument(help="What the searches have in common.")],
    variant: Annotated[
        list[str],
        typer.Option(help="NAME of an agent, or NAME:key=value;key=value with settings of its own. Repeatable."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study; what it holds already is not run again.")],
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each variant.")] = 5,
    processes: Annotated[int, typer.Option(min=1, help="Searches at a time.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of rows.")] = False,
    set_: SetOption = None,
) -> None:
    """Compare agents and settings: searches on the frozen rung with one encoder, one budget and several seeds."""
    from treesearch.config import load_config

    resolved = load_config(config, set_ or ())
    from treesearch.progress import ProgressReporter

    with ProgressReporter() as progress:
        with progress.step(LOADING):
            from treesearch.launch.study import Variant, run_study, study_table
        rows = run_study(
            resolved,
            [Variant.parse(text) for text in variant],
            num_seeds=seeds,
            folder=out,
            num_processes=processes,
            progress=progress,
        )
    print_rows(rows, study_table, as_json=as_json)


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(help="Config with a section sweep, such as configs/sweep.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder of the sweep; one that was stopped goes on.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of rows.")] = False,
    set_: SetOption = None,
) -> None:
    """Run whole searches with different settings through Ray Tune, and print which are best."""
    from treesearch.progress import ProgressReporter

    with ProgressReporter() as progress:
        with progress.step(LOADING):
            from treesearch.tune.sweep import load_sweep, run_sweep, sweep_table
        resolved, space = load_sweep(config, set_ or ())
        rows = run_sweep(resolved, space, out, progress)
    print_rows(rows, sweep_table, as_json=as_json)
    if all(row["error"] for row in rows):
        raise ExecutionError(f"all searches of the sweep failed, the first with: {rows[0]['error']}")


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="audit, autocomplete, cost, distributed, exchange, faults, frozen, gpu, report, search, softmax or"
            " trees."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of rows.")] = False,
) -> None:
    """Run a benchmark and print its table."""
    from treesearch.bench import BENCHMARKS, benchmark_table
    from treesearch.errors import did_you_mean

    if name not in BENCHMARKS:
        raise ConfigError(f"unknown benchmark {name!r}{did_you_mean(name, BENCHMARKS)}")
    rows = BENCHMARKS[name]()
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        stdout().print(benchmark_table(name, rows))


def _taxonomy_file(options: dict[str, Any]) -> str:
    """Take the file that the builder ``taxonomy`` reads out of its options."""
    path = options.pop("taxonomy", None)
    if not isinstance(path, str):
        raise ConfigError(f"builder 'taxonomy' needs --option taxonomy=FILE, but got {path!r:.60}")
    return path


def needs_vectors(builder: str, options: dict[str, Any]) -> bool:
    """Whether a builder groups by similarity."""
    if builder == "two-level":
        return options.get("by") == "similarity"
    if builder == "adaptive":
        return "in_features" not in options
    if builder == "categories":
        builder = str(options.get("within"))
    return builder in ("clustered", "interpolated", "reassigned", "similar-huffman")


def main() -> None:
    """Entry point: runs a command and turns errors into one line and an exit code."""
    warnings.showwarning = lambda message, *_, **__: tell(f"warning: {message}")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, outside_kernels(signal.default_int_handler))
    try:
        with plain_interrupts():
            returned = app(standalone_mode=False)  # typer makes of an interrupt, and of an exit, what it returns
        code = returned if isinstance(returned, int) else 0
    except (typer.Exit, SystemExit) as stop:
        code = stop.exit_code if isinstance(stop, typer.Exit) else int(stop.code or 0)
    except typer._click.exceptions.NoArgsIsHelpError as error:
        tell(error.format_message())
        code = 2
    except typer._click.exceptions.ClickException as error:
        tell(f"error: {error.format_message()}")
        code = 2
    except ExecutionError as error:
        tell(f"error: {visible(str(error))}")
        code = 1
    except TreeSearchError as error:
        tell(f"error: {visible(str(error))}")
        code = 2
    except OSError as error:  # of a file that no command expects to be refused
        what = "" if error.filename is None else f"{error.filename}: "
        tell(f"error: {visible(f'{what}{error.strerror or error}')}")
        code = 1
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        tell("interrupted")
    sys.exit(code)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turn the failure to write ``out`` into a message."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); choose another --out") from None


def _check_tree_file(out: Path) -> None:
    if out.suffix not in (".json", ".npz"):
        raise ConfigError(f"--out must end in .json or .npz, but got {out.name!r}")


def _tree_of_front(source: Path, cost_weight: float | None, max_cost: float | None) -> tuple[Tree, str]:
    """The tree of a run's front that these choose, with names, and a description of it."""
    from treesearch.launch import pick_from_front
    from treesearch.report.runs import run_front
    from treesearch.search.run_folder import RunFolder

    if not source.is_dir():
        raise ConfigError(f"--lambda and --max-cost choose from the front of a run, but {source} is no run folder")
    if not all(value is None or math.isfinite(value) for value in (cost_weight, max_cost)):
        raise ConfigError(f"--lambda and --max-cost must be finite, but got {cost_weight} and {max_cost}")
    folder = RunFolder(source)
    comparison = folder.comparison()
    rung, front = run_front(comparison, source)
    point = pick_from_front(comparison, cost_weight=cost_weight, max_cost=max_cost)
    if point is None:
        cheapest = min(one["cost"] for one in front["points"])
        raise ConfigError(f"no tree on the front costs {max_cost} or less; the cheapest costs {cheapest:.4g}")
    with folder.read() as ledger:
        tree = ledger.tree(point["tree"])
    provenance = {key: point[key] for key in ("name", "kind", "cost", "valid_nll")} | {"rung": rung}
    what = f": {point['name']}, cost {point['cost']:.2f}, validation NLL {point['valid_nll']:.3f} ({rung} rung)"
    return tree.annotate(class_names=folder.best_tree().class_names, metadata=provenance), what


def _present(folder: RunFolder, comparison: dict[str, Any]) -> None:
    """Print what a search has found, and write its report; where that fails the results stand all the same."""
    from treesearch.report.page.write import write_report

    _print_comparison(comparison)
    tell(f"best tree: {visible(str(folder.best_tree_file))}")
    try:
        tell(f"report: {visible(str(write_report([folder.path])))}")
    except TreeSearchError as error:
        tell(f"warning: no report: {visible(str(error))}")


def _only_run(paths: list[Path], option: str) -> Path:
    if len(paths) != 1:
        raise ConfigError(f"{option} needs exactly one run folder, but got {len(paths)} paths")
    return paths[0]


def _print_front(path: Path, *, as_json: bool) -> None:
    from treesearch.report.runs import front_table, hypervolume_line, run_front
    from treesearch.search.run_folder import RunFolder

    rung, front = run_front(RunFolder(path).comparison(), path)
    if as_json:
        print(json.dumps({"rung": rung, **front}, indent=2, ensure_ascii=False))
    else:
        stdout().print(front_table(rung, front))
        print(hypervolume_line(front))


def _print_comparison(comparison: dict[str, Any]) -> None:
    from treesearch.report.tables import comparison_notes, comparison_table

    console = stdout()
    console.print(comparison_table(comparison["rows"], width=console.width))
    for note in comparison_notes(comparison["rows"], comparison.get("gains", ())):
        print(visible(note))
    for key, rung in (("rank_correlation", "frozen"), ("screen_correlation", "warm")):
        tau = (comparison.get(key) or {}).get("kendall_tau")
        if tau is not None:
            print(f"Kendall's tau of {rung} and joint validation NLL: {tau:.2f}")
    stopped = f", {comparison['stopped']} stopped early" if comparison.get("stopped") else ""
    evaluations = f"{comparison['evaluations']} frozen evaluations ({comparison['failures']} failed{stopped})"
    print(f"{evaluations}, agent {visible(comparison['agent'])}")


def _print_evaluations(path: Path) -> None:
    from dataclasses import asdict

    from treesearch.search.run_folder import RunFolder

    with RunFolder(path).read() as ledger:
        records = [asdict(row) for row in ledger.rows()]
    for index, record in enumerate(records):
        if index == 0:
            print("\t".join(record))
        print("\t".join("" if value is None else visible(str(value)) for value in record.values()))


if __name__ == "__main__":
    main()

"""The command line as a user meets it: processes, exit codes, stdout for data, one line on stderr for a mistake."""

import json
import os
import re
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from treesearch import Tree
from treesearch.cli import main
from treesearch.config import dump_config, load_config
from treesearch.cost import tree_cost
from treesearch.exchange import FORMATS
from treesearch.report.glossary import GLOSSARY
from treesearch.report.runs import run_counts
from treesearch.search.ledger import Ledger

COMMANDS = ("search", "compare", "export", "import", "show", "report", "build", "bench")
NAMES = ["the", "of", "and", 'quo"te', "[bold]"]
COUNTS = [8, 4, 2, 1, 1]


@pytest.fixture
def work(tmp_path, tiny_config):
    """A working directory with input files, good and bad."""
    folder = tmp_path / "work"
    folder.mkdir()
    tree = Tree.from_nested([0, [1, [2, [3, 4]]]], class_names=NAMES)
    tree.save(folder / "tree.json")
    Tree.from_parents([-1, 0, 0], [0, 1], projection_dim=[3]).save(folder / "projected.json")
    (folder / "truncated.json").write_bytes((folder / "tree.json").read_bytes()[:-40])
    (folder / "counts.tsv").write_text("".join(f"{n}\t{c}\n" for n, c in zip(NAMES, COUNTS, strict=True)))
    (folder / "negative.tsv").write_text("3\n-1\n2\n")
    (folder / "zero.tsv").write_text("0\n0\n0\n")
    (folder / "nan.tsv").write_text("1\nnan\n2\n")
    (folder / "words.tsv").write_text("one\ntwo\n")
    np.save(folder / "vectors.npy", np.arange(10, dtype=np.float32).reshape(5, 2))
    np.save(folder / "nan.npy", np.full((5, 2), np.nan, np.float32))
    np.save(folder / "short.npy", np.ones((4, 2), np.float32))
    (folder / "empty.txt").write_text("")
    (folder / "one-word.txt").write_text("word\n" * 10)
    (folder / "two-classes.txt").write_text("word word\n" * 10)  # and <eos>
    (folder / "latin-1.txt").write_bytes(b"caf\xe9 au lait\n")
    (folder / "tiny.yaml").write_bytes(tiny_config.read_bytes())
    (folder / "no-tab.tsv").write_text("w00 animal\n")
    (folder / "strangers.tsv").write_text("unicorn\tmyth\n")
    (folder / "groups.tsv").write_text('of\tnoun\nquo"te\tnoun\n')
    (folder / "list.yaml").write_text("[1, 2]")
    (folder / "broken.yaml").write_text("a: [1")
    (folder / "not-a-run").mkdir()
    return folder


def refusal(work, *arguments, code=2):
    """The one line with which a command refuses; it leaves nothing behind."""
    before = tiny.snapshot(work)
    done = tiny.treesearch(*arguments, cwd=work)
    assert "Traceback" not in done.err
    assert (done.code, done.out) == (code, ""), done.err
    assert len(done.error_line) < 1000
    assert tiny.snapshot(work) == before
    return done.error_line


def words(arguments):
    """Split at spaces, but not inside braces."""
    return re.split(r" (?![^{]*\})", arguments)


def accept(work, *arguments):
    done = tiny.treesearch(*arguments, cwd=work)
    assert done.code == 0, done.err
    return done


# -- help and usage


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command, tmp_path):
    done = tiny.treesearch(*command.split(), "--help", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: treesearch")
    if not command:
        assert [name for name in COMMANDS if f"\n  {name} " in done.out] == list(COMMANDS)


def test_help_lists_the_formats(tmp_path):
    for command, names in (("export", set(FORMATS)), ("import", {name for name, one in FORMATS.items() if one.read})):
        out = " ".join(tiny.treesearch(command, "--help", cwd=tmp_path).out.split())
        assert {name for name, one in FORMATS.items() if f"{name}: {one.help}" in out} == names


def test_no_command_prints_the_help_and_is_wrong_usage(tmp_path):
    done = tiny.treesearch(cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: treesearch")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("serch tiny.yaml", "No such command 'serch'"),
        ("search", "Missing argument 'config'"),
        ("compare", "Missing argument 'paths"),
        ("export tree.json --out x.dot", "Missing option '--format'"),
        ("export tree.json --format dot", "Missing option '--out'"),
        ("import tree.json --out x.json", "Missing option '--format'"),
        ("show", "Missing argument 'source'"),
        ("build huffman --counts counts.tsv", "Missing option '--out'"),
        ("bench", "Missing argument 'name'"),
        ("search tiny.yaml --sett seed=1", "--sett"),
        ("search tiny.yaml another.yaml", "another.yaml"),
        ("show tree.json --levels many", "--levels"),
        ("show tree.json --levels -1", "--levels"),
        ("show tree.json --width 0", "--width"),
        ("build huffman --counts counts.tsv --out x.json --seed x", "--seed"),
        ("report not-a-run --glossary", "--glossary"),
        ("report not-a-run --watch --interval inf", "--interval"),
        ("bench tree", "unknown benchmark 'tree'; did you mean 'trees'?"),
    ],
)
def test_wrong_usage(work, arguments, says):
    assert says.lower() in refusal(work, *arguments.split()).lower()


@pytest.mark.parametrize("arguments", ["report {0} --out x.html", "compare {0}", "show {0}"])
def test_a_name_that_no_file_can_have(work, arguments):
    says = refusal(work, *arguments.format("n" * 300).split(), code=1)
    assert says.endswith("nnn: File name too long")


def test_the_module_runs_like_the_command(work):
    """From nothing, without the server that the other tests share."""
    done = tiny.run_module("show", "none.json", cwd=work)
    assert done == (2, "", "error: no run folder or tree file at none.json\n")
    done = tiny.run_module("compare", "tree.json", "--json", cwd=work)
    assert (done.code, json.loads(done.out)[0]["name"]) == (0, "tree.json")


# -- search


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("none.yaml", "no config file at none.yaml"),
        ("list.yaml", "holds a list"),
        ("broken.yaml", "not readable YAML"),
        ("not-a-run", "not readable YAML"),
        ("tree.json", "unknown key 'format'"),
        ("tiny.yaml --set serch.evaluations=1", "did you mean 'search'?"),
        ("tiny.yaml --set search.evaluation=1", "did you mean 'evaluations'?"),
        ("tiny.yaml --set search.evaluations=many", "search.evaluations"),
        ("tiny.yaml --set search.evaluations=3", "must exceed the number of builders"),
        ("tiny.yaml --set seed", "--set needs key=value"),
        ("tiny.yaml --set seed.x=1", "seed is a value, not a section"),
        ("tiny.yaml --set seed=2024-13-45", "must be YAML"),
        ("tiny.yaml --set data.train=$NO_SUCH_VARIABLE/x", "environment variable NO_SUCH_VARIABLE is not set"),
        ("tiny.yaml --set data.train=none.txt", "'none.txt' does not exist"),
        ("tiny.yaml --set data.test=not-a-run", "is a directory"),
        ("tiny.yaml --set data.train=empty.txt", "must not be empty"),
        ("tiny.yaml --set data.valid=empty.txt", "the valid text must not be empty"),
        ("tiny.yaml --set data.test=latin-1.txt", "must be UTF-8"),
        ("tiny.yaml --set encoder.kind=transformer", "encoder.kind"),
        ("tiny.yaml --set joint.device=toaster", "device 'toaster' cannot be used"),
        ("tiny.yaml --set search.agent=random_serch", "did you mean 'random_search'?"),
        ("tiny.yaml --set search.settings.clip=1", "has no setting 'clip'; did you mean 'clip_coef'?"),
        ("tiny.yaml --set search.settings.learning_rate=fast", "'fast'"),
        ("tiny.yaml --set search.settings.learning_rate=-1", "learning_rate"),
        ("tiny.yaml --set search.settings.seed=1", "seed"),
        ("tiny.yaml --set environment.actions=[]", "at least one"),
        ("tiny.yaml --set environment.actions=[clos]", "clos"),
        ("tiny.yaml --set environment.closer=nothing", "nothing"),
        ("tiny.yaml --set cost.weights=[]", "cost.weights: "),
        ("tiny.yaml --set cost.weights={low: 2, high: 1}", "low must be below high"),
        ("tiny.yaml --set frozen.subset_tokens=9", "subset_tokens needs stop_margin"),
        ("tiny.yaml --set confirm.finalists=0", "confirm.finalists"),
        ("tiny.yaml --set environment.actions=[category]", "action 'category' needs categories"),
        ("tiny.yaml --set environment.categories=no-tab.tsv", "applies to the action 'category'"),
        ("tiny.yaml --set environment={actions: [category], categories: none.tsv}", "none.tsv cannot be read"),
        ("tiny.yaml --set environment={actions: [category], categories: no-tab.tsv}", "no-tab.tsv, line 1"),
        (
            "tiny.yaml --set environment={actions: [category], categories: strangers.tsv}",
            "names none of the 61 classes",
        ),
        ("tiny.yaml --policy none", "policy none cannot be read"),
        ("tiny.yaml --policy not-a-run", "no ledger at not-a-run/search.db"),
        ("tiny.yaml --policy tree.json", "a packed state must be an archive"),
        ("tiny.yaml --policy vectors.npy", "a packed state must be an archive"),
        ("tiny.yaml --policy tree.json --set search.agent=random_search", "--policy needs an agent with a policy"),
        ("tiny.yaml --set search.builders=[huffman]", "search.builders.0"),
        ("tiny.yaml --set search.builders=[]", "builders must contain {name: huffman}"),
    ],
)
def test_search_refuses(work, arguments, says):
    assert says in refusal(work, "search", *words(arguments), "--out", "run")


@pytest.mark.slow
def test_search_refuses_the_policy_of_another_agent_or_other_actions(work, local_run):
    search = ("search", "tiny.yaml", "--out", "run", "--policy", local_run)
    assert "needs an agent with a policy" in refusal(work, *search, "--set=search.agent=evolution")
    assert "the same actions" in refusal(work, *search, "--set=environment.actions=[close-flat, kway-4]")
    assert "hidden_size 5" in refusal(work, *search, "--set=search.settings.hidden_size=5")


@pytest.mark.slow
def test_search_starts_from_the_policy_of_a_run(work, local_run):
    settings = ["--set=search.evaluations=22", "--set=confirm.seeds=0"]
    accept(work, "search", "tiny.yaml", "--out", "warm", "--policy", local_run, *settings)
    accept(work, "search", "tiny.yaml", "--out", "cold", *settings)
    warm, cold = (accept(work, "compare", run, "--evaluations").out for run in ("warm", "cold"))
    assert len(warm.splitlines()) == len(cold.splitlines()) == 1 + 22
    assert warm != cold


@pytest.mark.parametrize(
    ("builder", "says"),
    [
        ("{name: hufman}", "unknown builder 'hufman'; did you mean 'huffman'?"),
        ("{name: huffman, aryty: 4}", "has no option 'aryty'; did you mean 'arity'?"),
        ("{name: huffman, arity: 1}", "arity"),
        ("{name: huffman, arity: wide}", "'wide'"),
        ("{name: random, seed: 3}", "takes seed from the run"),
    ],
)
def test_search_refuses_builders(work, builder, says):
    assert says in refusal(
        work, "search", "tiny.yaml", "--out", "run", "--set", f"search.builders=[{{name: huffman}}, {builder}]"
    )


@pytest.mark.parametrize("text", ["empty", "one-word", "two-classes"])
def test_search_refuses_a_corpus_with_nothing_to_decide(work, text):
    settings = [f"--set=data.{split}={text}.txt" for split in ("train", "valid", "test")]
    message = refusal(work, "search", "tiny.yaml", "--out", "run", *settings)
    assert ("must not be empty" if text == "empty" else "needs at least 3 classes") in message


def test_search_refuses_an_occupied_folder(work, local_run):
    before = tiny.snapshot(local_run)
    assert "already holds a run" in refusal(work, "search", "tiny.yaml", "--out", local_run)
    assert tiny.snapshot(local_run) == before
    assert "must be a new or empty folder" in refusal(work, "search", "tiny.yaml", "--out", ".")
    assert "must be a new or empty folder" in refusal(work, "search", "tiny.yaml", "--out", "tree.json")


def test_search_refuses_a_folder_that_cannot_be_made(work):
    assert "cannot be written" in refusal(work, "search", "tiny.yaml", "--out", "tree.json/run")


def test_no_write_permission(work, read_only_folder):
    assert "cannot be written" in refusal(work, "search", "tiny.yaml", "--out", read_only_folder / "run")
    assert "cannot be written" in refusal(work, "export", "tree.json", "--format=dot", "--out", read_only_folder / "x")
    build = ("build", "huffman", "--counts", "counts.tsv", "--out")
    assert "cannot be written" in refusal(work, *build, read_only_folder / "x.json")
    assert list(read_only_folder.iterdir()) == []


@pytest.mark.slow
def test_search_tells_its_results_on_stdout_and_its_progress_on_stderr(work):
    settings = ["--set=search.evaluations=5", "--set=confirm.seeds=0", "--set=encoder.refine_epochs=0"]
    done = accept(work, "search", "tiny.yaml", *settings)
    assert "5 frozen evaluations (0 failed), agent hybrid" in done.out
    assert "search: 5/5" in done.err
    assert "best tree: runs/tiny-1/best.tree.json" in done.err
    assert Tree.load(work / "runs/tiny-1/best.tree.json").num_classes == tiny.NUM_WORDS + 1
    assert json.loads(accept(work, "compare", "runs/tiny-1", "--json").out) == []


def test_ctrl_c_within_compiled_code_says_how_to_go_on(tiny_config, tmp_path, monkeypatch, capfd):
    def interrupted(proposer):
        raise SystemError("<function kernel> returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr("treesearch.launch.proposer.AgentProposer.demonstrate", interrupted)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # of which the command makes its own
    monkeypatch.setattr(sys, "argv", ["treesearch", "search", str(tiny_config), "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capfd.readouterr().err.endswith(f"go on with: treesearch resume {tmp_path / 'run'}\ninterrupted\n")


def test_ctrl_c_within_compiled_code_ends_every_command_alike(monkeypatch, capfd):
    def interrupted(**options):
        raise SystemError("<function kernel> returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr("treesearch.cli.app", interrupted)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capfd.readouterr().err == "interrupted\n"


# -- compare, show, export


def test_compare_a_run(work, local_run):
    rows = json.loads(accept(work, "compare", local_run, "--json").out)
    assert rows == json.loads((local_run / "comparison.json").read_text())["rows"]
    table = accept(work, "compare", local_run)
    assert table.err == ""
    assert all(row["name"] in table.out for row in rows)
    *lines, summary = table.out.splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert f"{tiny.EVALUATIONS} frozen evaluations (0 failed), agent hybrid" in summary


def edited(work, local_run, name, *, comparison=None, config=(), corpus=None):
    """A copy of the run that differs in some things."""
    folder = work / name
    shutil.copytree(local_run, folder)
    content = json.loads((folder / "comparison.json").read_text())
    (folder / "comparison.json").write_text(json.dumps(content | (comparison or {})))
    if config:
        (folder / "config.yaml").write_text(dump_config(load_config(folder / "config.yaml", config)))
    if corpus is not None:
        with Ledger(folder / "search.db") as ledger:
            ledger.set_meta("corpus", {"hash": corpus})
    return folder


def test_compare_runs(work, local_run):
    edited(work, local_run, "twin")
    done = accept(work, "compare", local_run, "twin")
    assert done.err == "", "runs of equal budget, corpus, cost and training"
    assert all(len(line) <= 100 for line in done.out.splitlines())
    rows = json.loads(accept(work, "compare", local_run, "twin", "--json").out)
    assert [row["name"] for row in rows] == [str(local_run), "twin"]
    comparison = json.loads((local_run / "comparison.json").read_text())
    found = [row for row in comparison["rows"] if row["kind"] == "found"]
    best = max(found, key=lambda row: -row["valid_nll"] - 0.005 * row["cost"])
    for row in rows:
        assert (row["agent"], row["evaluations"]) == ("hybrid", tiny.EVALUATIONS)
        assert {key: row[key] for key in ("test_nll", "reward", "cost")} == {
            key: best[key] for key in ("test_nll", "reward", "cost")
        }
        assert row["best"] == best["name"]
    shown = [line for line in done.out.splitlines() if "twin" in line]
    assert len(shown) == 1
    assert f"{best['test_nll']['mean']:.3f} [" in shown[0]
    assert f"{best['reward']:.4f}" in shown[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"comparison": {"evaluations": 99}}, f"budgets (evaluations) differ: {tiny.EVALUATIONS}, 99"),
        ({"corpus": "1234"}, "corpora differ: "),
        ({"config": ["cost.weight=0.1"]}, "cost models differ"),
        ({"config": ["cost.kind=measured"]}, "cost models differ"),
        ({"config": ["joint.epochs=2"]}, "encoder, joint training or number of seeds differ"),
        ({"config": ["encoder.features=9"]}, "encoder, joint training or number of seeds differ"),
        ({"config": ["confirm.seeds=5"]}, "encoder, joint training or number of seeds differ"),
    ],
    ids=str,
)
def test_compare_never_silently_compares_what_differs(work, local_run, changes, says):
    edited(work, local_run, "other", **changes)
    done = accept(work, "compare", local_run, "other")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("not comparable: the runs' ")
    assert says in done.err
    assert "other" in done.out
    done = accept(work, "compare", local_run, "other", "--json")
    assert says in done.err


def test_what_the_agents_differ_in_is_what_is_compared(work, local_run):
    edited(work, local_run, "other", comparison={"agent": "evolution"}, config=["search.agent=evolution", "seed=4"])
    done = accept(work, "compare", local_run, "other")
    assert done.err == ""
    assert "evolution" in done.out


def test_compare_runs_without_a_found_tree(work, local_run):
    comparison = json.loads((local_run / "comparison.json").read_text())
    builders = [row for row in comparison["rows"] if row["kind"] != "found"]
    edited(work, local_run, "none-found", comparison={"rows": builders})
    edited(work, local_run, "none-confirmed", comparison={"rows": []})
    out = accept(work, "compare", "none-found", "none-confirmed").out
    assert [line.split()[-4:] for line in out.splitlines() if "none-" in line] == [
        [str(tiny.EVALUATIONS), "-", "-", "-"]
    ] * 2


def test_the_front_of_a_run(work, local_run):
    comparison = json.loads((local_run / "comparison.json").read_text())
    front = comparison["fronts"]["joint"]
    done = accept(work, "compare", local_run, "--front")
    assert done.err == ""
    assert all(len(line) <= 100 for line in done.out.splitlines())
    for point in front["points"]:
        (line,) = [line for line in done.out.splitlines() if f" {point['name']} " in line]
        assert line.split()[:2] == [f"{point['cost']:.2f}", f"{point['valid_nll']:.3f}"]
        assert line.split()[-1] == point["kind"]
    last = done.out.splitlines()[-1]
    assert f"found {front['hypervolume']['found']:.4f}, builders {front['hypervolume']['baseline']:.4f}" in last
    found = json.loads(accept(work, "compare", local_run, "--front", "--json").out)
    assert found == {"rung": "joint", **front}
    nothing = {"points": [], "hypervolume": {}, "cost_kind": "analytic"}  # as where confirm.seeds is 0
    edited(work, local_run, "frozen", comparison={"fronts": comparison["fronts"] | {"joint": nothing}})
    assert "frozen rung" in accept(work, "compare", "frozen", "--front").out


def test_notes_stand_under_the_comparison(work, local_run):
    content = json.loads((local_run / "comparison.json").read_text())
    rows = content["rows"]
    gain = {"mean": 0.001, "low": -0.002, "high": 0.004, "n": 3}
    rows = [row | {"best_builder": "clustered(arity=32)", "reward_gain": gain} for row in rows]
    edited(work, local_run, "other", comparison={"rows": rows, "stopped": 4})
    *table, last = accept(work, "compare", "other").out.splitlines()
    while table[-1].startswith("Kendall's tau of "):  # of the rungs, between the notes and the last line
        table.pop()
    found = [row["name"] for row in rows if row["kind"] == "found"]
    assert table[-len(found) :] == [
        f"{name}: not significant against clustered(arity=32): +0.0010 [-0.0020, +0.0040] nats" for name in found
    ]
    assert f"{tiny.EVALUATIONS} frozen evaluations (0 failed, 4 stopped early), agent hybrid" in last


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("compare RUN RUN --front", "--front needs exactly one run folder, but got 2 paths"),
        ("compare RUN RUN --evaluations", "--evaluations needs exactly one run folder, but got 2 paths"),
        ("compare RUN --front --evaluations", "at most one of --front and --evaluations"),
        ("compare RUN --counts counts.tsv", "--counts applies to tree files"),
        ("compare RUN not-a-run", "not-a-run holds no comparison.json"),
        ("compare not-a-run --front", "not-a-run holds no comparison.json"),
        ("compare tree.json --front", "tree.json holds no comparison.json"),
        ("compare old --front", "old holds no front of trees"),
        ("export old --format dot --out x.dot --lambda 1", "old holds no front of trees"),
        (
            "export RUN --format dot --out x.dot --max-cost 0.001",
            "no tree on the front costs 0.001 or less; the cheapest",
        ),
        ("export RUN --format dot --out x.dot --lambda -1", "--lambda"),
        ("export RUN --format dot --out x.dot --lambda inf", "must be finite, but got inf"),
        ("export RUN --format dot --out x.dot --max-cost nan", "--max-cost"),
        ("export RUN --format dot --out x.dot --lambda many", "--lambda"),
        ("export tree.json --format dot --out x.dot --lambda 1", "tree.json is no run folder"),
        ("export tree.json --format dot --out x.dot --max-cost 1", "tree.json is no run folder"),
        ("export none --format dot --out x.dot --max-cost 1", "none is no run folder"),
        ("export not-a-run --format dot --out x.dot --max-cost 1", "no comparison.json"),
    ],
)
def test_runs_and_fronts_refuse(work, local_run, arguments, says):
    old = edited(work, local_run, "old")
    content = json.loads((old / "comparison.json").read_text())
    del content["fronts"]
    (old / "comparison.json").write_text(json.dumps(content))
    assert says in refusal(work, *[local_run if word == "RUN" else word for word in arguments.split()])


@pytest.mark.slow
def test_export_from_the_front(work, local_run):
    """Each point is chosen by some weight or cost, and comes with its names from the ledger."""
    comparison = json.loads((local_run / "comparison.json").read_text())
    points = comparison["fronts"]["joint"]["points"]
    names = Tree.load(local_run / "best.tree.json").class_names
    for point in points:
        done = accept(work, "export", local_run, "--format=json", "--out=x.json", "--max-cost", point["cost"])
        tree = Tree.load(work / "x.json")
        assert (tree.hash, tree.class_names) == (point["tree"], names)
        assert tree.metadata["name"] == point["name"]
        assert f"wrote x.json: {point['name']}, cost {point['cost']:.2f}" in done.err
    for weight in (0, 0.01, 1e3):
        accept(work, "export", local_run, "--format=json", "--out=x.json", "--lambda", weight)
        best = min(points, key=lambda point: point["valid_nll"] + weight * point["cost"])
        assert Tree.load(work / "x.json").hash == best["tree"]
    both = accept(
        work, "export", local_run, "--format=npz", "--out=x.npz", "--lambda=0", "--max-cost", points[0]["cost"]
    )
    assert points[0]["name"] in both.err
    assert Tree.load(work / "x.npz").hash == points[0]["tree"]


def test_compare_tree_files(work):
    accept(work, "build", "balanced", "--counts", "counts.tsv", "--out", "other.npz")
    done = accept(work, "compare", "tree.json", "other.npz", "--counts", "counts.tsv", "--json")
    rows = json.loads(done.out)
    assert [row["name"] for row in rows] == ["tree.json", "other.npz"]
    assert (rows[0]["cost"], rows[0]["expected_depth"], rows[0]["max_depth"]) == (1.875, 1.875, 4)
    assert done.err == ""
    assert "tree.json" in accept(work, "compare", "tree.json", "other.npz").out


def test_compare_says_that_classes_weigh_the_same_without_counts(work):
    done = accept(work, "compare", "tree.json", "--json")
    assert json.loads(done.out)[0]["expected_depth"] == (1 + 2 + 3 + 4 + 4) / 5
    assert "every class weighs the same" in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("compare none.json", "no run folder or tree file at none.json"),
        ("compare not-a-run", "no comparison.json"),
        ("compare truncated.json", "truncated.json is not a usable tree file"),
        ("compare tree.json not-a-run", "no best.tree.json"),
        ("compare tree.json --counts negative.tsv", "counts"),
        ("compare tree.json --counts none.tsv", "none.tsv"),
        ("show none.json", "no run folder or tree file at none.json"),
        ("show not-a-run", "no best.tree.json"),
        ("show truncated.json", "truncated.json is not a usable tree file"),
        ("show counts.tsv", "must end in .json or .npz"),
        ("show vectors.npy", "must end in .json or .npz"),
        ("show tree.json --counts words.tsv", "line 1"),
        ("show tree.json --counts zero.tsv", "5 classes"),
        ("export none.json --format dot --out x.dot", "no run folder or tree file"),
        ("export truncated.json --format dot --out x.dot", "truncated.json is not a usable tree file"),
        ("export tree.json --format dto --out x.dot", "unknown format 'dto'; did you mean 'dot'?"),
        ("export tree.json --format dot --out none/x.dot", "cannot be written"),
        ("export tree.json --format dot --out tree.json/x.dot", "cannot be written"),
        ("export tree.json --format dot --out not-a-run", "cannot be written"),
        ("export tree.json --format pecos --out counts.tsv", "must be new or empty"),
        ("export tree.json --format pecos --out none/x", "cannot be written"),
        ("export projected.json --format newick --out x", "leave them out with --drop-projections"),
        ("export tree.json --format hierarchicalsoftmax --out x", "to_softmax_node"),
        ("import tree.json --format jsn --out x.json", "unknown format 'jsn'; did you mean 'json'?"),
        ("import tree.json --format dot --out x.json", "'dot' is written only"),
        ("import tree.json --format newick --out x.json", "tree.json is not a usable Newick file"),
        ("import none.nwk --format newick --out x.json", "no Newick file at none.nwk"),
        ("import tree.json --format json --out x.txt", "--out must end in .json or .npz"),
        ("import tree.json --format json --out none/x.json", "cannot be written"),
        ("import tree.json --format json --out x.json --names words.tsv", "does not fit the class names"),
        ("import tree.json --format json --out x.json --names none.txt", "none.txt cannot be read"),
        ("import tree.json --format json --out x.json --names latin-1.txt", "must be UTF-8"),
        ("import not-a-run --format pecos --out x.json", "not-a-run is not a usable PECOS cluster chain"),
    ],
)
def test_compare_show_and_export_refuse(work, arguments, says):
    assert says in refusal(work, *arguments.split())


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"rows": 1}'])
def test_compare_refuses_a_broken_comparison(work, content):
    (work / "not-a-run" / "comparison.json").write_text(content)
    assert "not-a-run" in refusal(work, "compare", "not-a-run")


def test_show(work, local_run):
    out = accept(work, "show", "tree.json", "--counts", "counts.tsv", "--levels", "9").out
    assert "expected depth: 1.875" in out
    assert all(f"%  {name}" in out for name in NAMES)
    of_run = accept(work, "show", local_run)
    assert f"classes: {tiny.NUM_WORDS + 1}" in of_run.out
    assert of_run.err == ""
    best, counts = Tree.load(local_run / "best.tree.json"), run_counts(local_run)
    features = tiny.config(work)["encoder"]["features"]
    assert f" cost: {round(tree_cost(best, counts, in_features=features).cost, 4)}\n" in of_run.out


@pytest.mark.parametrize("format", ["json", "npz", "dot"])
def test_export(work, local_run, format):
    for source in ("tree.json", local_run):
        done = accept(work, "export", source, "--format", format, "--out", f"out.{format}")
        assert (done.out, done.err) == ("", f"wrote out.{format}\n")
    best = Tree.load(local_run / "best.tree.json")
    if format == "dot":
        assert (work / "out.dot").read_text().count("->") == best.num_nodes - 1
    else:
        assert Tree.load(work / f"out.{format}").class_names == best.class_names
        assert Tree.load(work / f"out.{format}") == best


@pytest.mark.parametrize("format", ["newick", "networkx", "nbdt", "pecos"])
def test_export_and_import(work, format):
    """A tree goes out and comes back; names decide the classes."""
    (work / "names.txt").write_text("".join(f"{name}\n" for name in NAMES))
    accept(work, "export", "tree.json", "--format", format, "--out", "foreign")
    done = accept(work, "import", "foreign", "--format", format, "--out", "back.npz", "--names", "names.txt")
    again = Tree.load(work / "back.npz")
    assert (again, again.class_names) == (Tree.load(work / "tree.json"), tuple(NAMES))
    assert (done.out, done.err) == ("", f"wrote back.npz: {again!r}\n")


def test_import_numbers_names_as_they_appear(work):
    (work / "tree.nwk").write_text("(the,(of,[x]'quo\"te'));")
    accept(work, "import", "tree.nwk", "--format", "newick", "--out", "back.json")
    assert Tree.load(work / "back.json").class_names == ("the", "of", 'quo"te')


def test_export_without_projections(work):
    arguments = ("export", "projected.json", "--format=newick", "--drop-projections", "--out=x.nwk")
    accept(work, *arguments)
    assert (work / "x.nwk").read_text() == "(0,1);"


# -- build


@pytest.mark.parametrize(
    ("arguments", "depth"),
    [
        ("huffman", 1.875),
        ("huffman --option arity=3", 1 + 4 / 16),
        ("flat", 1),
        ("clustered --vectors vectors.npy", None),
        ("random --seed 3", None),
        ("categories --option categories=groups.tsv", 1 + 19 / 16),  # {the, and, [bold]} and {of, quo"te}
    ],
)
def test_build(work, arguments, depth):
    accept(work, "build", *arguments.split(), "--counts", "counts.tsv", "--out", "built.json")
    tree = Tree.load(work / "built.json")
    assert tree.class_names == tuple(NAMES)
    if depth is not None:
        assert tree.expected_depth(COUNTS) == pytest.approx(depth)


@pytest.mark.slow
def test_build_from_a_config(work):
    accept(work, "build", "huffman", "--config", "tiny.yaml", "--set", "data.max_classes=20", "--out", "built.json")
    tree = Tree.load(work / "built.json")
    assert tree.num_classes == 20
    assert {"<eos>", "<unk>"} < set(tree.class_names)
    done = accept(work, "build", "clustered", "--config", "tiny.yaml", "--out", "similar.npz")
    assert "encoder" in done.err, "class vectors need an encoder"
    assert Tree.load(work / "similar.npz").num_classes == tiny.NUM_WORDS + 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("hufman --counts counts.tsv", "unknown builder 'hufman'; did you mean 'huffman'?"),
        ("huffman", "give exactly one of --counts and --config"),
        ("huffman --counts counts.tsv --config tiny.yaml", "give exactly one of --counts and --config"),
        ("huffman --counts none.tsv", "none.tsv cannot be read"),
        ("huffman --counts empty.txt", "holds no counts"),
        ("huffman --counts words.tsv", "line 1"),
        ("huffman --counts negative.tsv", "class 1 has -1.0"),
        ("huffman --counts zero.tsv", "at least one count must be > 0"),
        ("huffman --counts nan.tsv", "class 1 has nan"),
        ("huffman --counts counts.tsv --option aryty=3", "did you mean 'arity'?"),
        ("huffman --counts counts.tsv --option arity", "--option needs key=value"),
        ("huffman --counts counts.tsv --option arity=1", "arity"),
        ("huffman --counts counts.tsv --option arity=x", "'x'"),
        ("huffman --counts counts.tsv --option arity=[", "must be YAML"),
        ("huffman --counts counts.tsv --option counts=3", "--option needs key=value"),
        ("huffman --counts counts.tsv --option seed=3", "--option needs key=value"),
        ("huffman --counts counts.tsv --seed -1", "seed must be an integer >= 0"),
        ("clustered --counts counts.tsv", "vectors"),
        ("clustered --counts counts.tsv --vectors nan.npy", "the row of class 0 holds NaN"),
        ("clustered --counts counts.tsv --vectors short.npy", "must have shape (5, D >= 1)"),
        ("clustered --counts counts.tsv --vectors none.npy", "none.npy"),
        ("clustered --counts counts.tsv --vectors counts.tsv", "cannot be read as .npy"),
        ("categories --counts counts.tsv", "categories of builder 'categories' must be given: syntax, morphology, or"),
        ("categories --counts counts.tsv --option categories=sintax", "did you mean 'syntax'?"),
        ("categories --counts counts.tsv --option categories=none.tsv", "none.tsv cannot be read"),
        ("huffman --config none.yaml", "no config file at none.yaml"),
        ("huffman --config tiny.yaml --set data.trian=x", "did you mean 'train'?"),
        ("huffman --config tiny.yaml --set data.train=none.txt", "does not exist"),
    ],
)
def test_build_refuses(work, arguments, says):
    assert says in refusal(work, "build", *arguments.split(), "--out", "built.json")


@pytest.mark.parametrize("out", ["built.txt", "built", "none/built.json", "tree.json/built.json"])
def test_build_refuses_where_it_cannot_write(work, out):
    assert out in refusal(work, "build", "huffman", "--counts", "counts.tsv", "--out", out)


def test_build_replaces_a_file_whole(work):
    accept(work, "build", "huffman", "--counts", "counts.tsv", "--out", "tree.json")
    assert Tree.load(work / "tree.json").metadata["builder"] == "huffman"
    assert not [name for name in os.listdir(work) if name.startswith(".")], "no half-written file stays"


# -- report


@pytest.mark.slow
def test_report_of_a_run_and_of_two(local_run, tmp_path):
    shutil.copytree(local_run, tmp_path / "one")
    shutil.copytree(local_run, tmp_path / "two")
    done = accept(tmp_path, "report", "one")
    assert (done.out, done.err) == ("", f"wrote {Path('one/report.html')}\n")
    assert "<h1><bdi>one</bdi></h1>" in (tmp_path / "one/report.html").read_text()
    done = accept(tmp_path, "report", "one", "two", "--out", "both.html")
    assert (done.out, done.err) == ("", "wrote both.html\n")
    assert "Runs side by side" in (tmp_path / "both.html").read_text()
    done = accept(tmp_path, "report", "two", "--watch", "--interval", "1")
    assert done.err == f"wrote {Path('two/report.html')}; no process works on it any more\n"


def test_report_explains_every_metric(tmp_path):
    done = accept(tmp_path, "report", "--glossary")
    words = " ".join(done.out.split())
    assert done.err == ""
    assert [one.name for one in GLOSSARY if one.name not in words] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "report needs the folder of a search, such as runs/quickstart-1"),
        ("not-a-run", "not-a-run holds no search.db and no study; give the folder of a search, a study or a sweep"),
        ("none", "none is no folder"),
        ("tree.json", "tree.json is no folder"),
        ("not-a-run --interval 0", "--interval"),
        ("not-a-run --watch", "holds no search.db"),
        ("not-a-run --out tree.json", "tree.json exists and is no report of treesearch; choose another --out"),
    ],
)
def test_report_refuses(work, arguments, says):
    assert says in refusal(work, "report", *arguments.split())

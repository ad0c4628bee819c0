"""Whole searches that start from a taxonomy, and what is refused before training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs import DEFAULT_ACTIONS, ConstructionTask
from tests.launch.test_data_kinds import CLASSES, SMALL, comparison, documents, write
from tests.tiny import treesearch
from treesearch import Tree
from treesearch.config import load_config, make_config, with_settings
from treesearch.errors import ConfigError
from treesearch.launch import resume_search, run_search
from treesearch.launch.proposer import make_proposer
from treesearch.progress import ProgressReporter
from treesearch.search.evaluation_row import FROZEN
from treesearch.search.ledger import Ledger, Position
from treesearch.search.run_folder import RunFolder
from treesearch.taxonomy import Taxonomy, load_taxonomy, taxonomy_from_paths

Changes = dict[str, Any]


def settings(folder: Path, **environment: Any) -> Changes:
    (folder / "topics.tsv").write_text(
        "".join(f"l{label}\tgroup{label % 2}{label // 12}\n" for label in range(CLASSES))
        + "".join(f"group{a}{b}\thalf{a}\n" for a in range(2) for b in range(2))
        + "half0\tROOT\nhalf1\tROOT\n"
    )
    taxonomy = {"taxonomy": str(folder / "topics.tsv")}
    small = SMALL["environment"] | taxonomy | environment
    return {**documents(folder), "environment": small, "confirm": {**SMALL["confirm"], "seeds": 1}}


def evaluated(run: Path) -> list[tuple[str, str, float | None]]:
    with RunFolder(run).read() as ledger:
        return [(row.tree_hash, row.agent, row.reward) for row in ledger.rows(FROZEN)]


class Killed(BaseException):
    """As by a signal."""


@pytest.mark.slow
def test_a_refinement_that_is_killed_ends_like_one_that_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {**SMALL["search"], "evaluations": 44}
    config = load_config(write(tmp_path, settings(tmp_path, refine="anywhere") | {"search": search}))
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    finish = Ledger.finish_batch

    def once(ledger: Ledger, position: Position, *rest: Any) -> None:
        finish(ledger, position, *rest)
        if position.batch == 2:
            raise Killed

    with ProgressReporter(quiet=True) as progress:
        run_search(config, whole, progress)
        monkeypatch.setattr(Ledger, "finish_batch", once)
        with pytest.raises(Killed):
            run_search(config, killed, progress)
        monkeypatch.undo()
        assert len(evaluated(killed.path)) < len(evaluated(whole.path)) == 44
        resume_search(killed, progress)
    assert evaluated(killed.path) == evaluated(whole.path)
    kinds = {row["name"]: row["kind"] for row in comparison(whole.path)["rows"]}
    assert kinds["taxonomy"] == kinds["huffman"] == "baseline"
    best = Tree.load(whole.path / "best.tree.json")
    taxonomy = load_taxonomy(tmp_path / "topics.tsv", classes=best.class_names)
    assert Taxonomy.of(best).names == taxonomy.names
    with whole.read() as ledger:
        agents = {row.tree_hash: row.agent for row in ledger.rows(FROZEN)}
        found = [ledger.tree(tree) for tree, agent in agents.items() if agent == "hybrid"]
    assert len(found) > 9
    assert all((taxonomy.nodes_in(tree) >= 0).all() for tree in found)
    assert taxonomy.tree.hash in agents


def test_splits_by_taxonomy_join_the_default_actions() -> None:
    taxonomy = taxonomy_from_paths(["a/0", "a/1", "b/2", "b/3"])
    task = ConstructionTask(np.ones(4), in_features=2, taxonomy=taxonomy)
    for environment, extra in (
        ({"taxonomy": "x"}, ["taxonomy"]),
        ({"taxonomy": "x", "refine": "anywhere"}, []),
        ({}, []),
    ):
        actions = make_proposer(make_config({"environment": environment}), task).agent.actions
        assert [action.name for action in actions] == [*DEFAULT_ACTIONS, *extra]


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"taxonomy": "none.tsv"}, "taxonomy 'none.tsv' cannot be read (No such file or directory)"),
        ({"actions": ["taxonomy-3", "kway-2"], "taxonomy": "l"}, "must name a level of the taxonomy, 1 .. 2"),
        ({"taxonomy": "l0"}, "every class must be in the taxonomy, but 1 of 24 are not ('l0')"),
        ({"refine": "parents", "taxonomy": "pairs"}, "needs a node of the taxonomy with >= 3 classes right below it"),
        ({"refine": "parents", "actions": ["kway-16"]}, "some action must be legal at a node of the taxonomy (6 cl"),
    ],
)
def test_what_does_not_fit_is_told_before_training(tmp_path: Path, environment: Changes, says: str) -> None:
    base = settings(tmp_path)
    (tmp_path / "l").write_text("\n".join(f"{label % 2}/l{label}" for label in range(CLASSES)))
    (tmp_path / "l0").write_text("\n".join(f"{label % 2}/l{label}" for label in range(1, CLASSES)))
    (tmp_path / "pairs").write_text("\n".join(f"{label // 2}/l{label}" for label in range(CLASSES)))
    config = write(tmp_path, base | {"environment": base["environment"] | environment})
    done = treesearch("search", config, "--out", tmp_path / "run", cwd=tmp_path)
    assert done.code == 2
    assert says in done.error_line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"refine": "parents"}, "config: environment: refine: parents needs taxonomy, a file"),
        ({"actions": ["taxonomy-2"]}, "config: environment: action 'taxonomy-2' needs taxonomy, a file"),
        (
            {"taxonomy": "x", "refine": "all"},
            "refine: input should be 'parents' or 'anywhere', but got 'all'",
        ),
        (
            {"taxonomy": "x", "refine": "anywhere", "actions": ["taxonomy", "kway-2"]},
            "what refine: anywhere has",
        ),
        ({"taxonomy": "$NOWHERE/x"}, "environment.taxonomy is '$NOWHERE/x', but the environment variable NOWHERE"),
    ],
)
def test_settings_that_do_not_fit_each_other(environment: Changes, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({"environment": environment})
    assert says in str(caught.value)


def test_the_taxonomys_tree_is_built_and_confirmed_once() -> None:
    config = make_config({"environment": {"taxonomy": "x"}})
    assert config.search.builders[-1] == {"name": "taxonomy"}
    assert config.confirm.families == ("taxonomy",)
    again = make_config(config.model_dump(mode="json"))
    assert again == config
    without = make_config({"search": {"builders": [{"name": "huffman"}]}})
    assert without.search.builders == ({"name": "huffman"},)


@pytest.mark.slow
def test_builders_by_taxonomy(tmp_path: Path) -> None:
    base = settings(tmp_path)
    entry = {"name": "taxonomy", "taxonomy": str(tmp_path / "other.txt")}
    (tmp_path / "other.txt").write_text("\n".join(f"{label % 3}/l{label}" for label in range(CLASSES)))
    config = write(tmp_path, base | {"search": {**SMALL["search"], "builders": [{"name": "huffman"}, entry]}})
    done = treesearch("search", config, "--out", tmp_path / "run", "--set", "confirm.seeds=0")
    assert done.code == 0, done.err
    assert [agent for _, agent, _ in evaluated(tmp_path / "run")].count("builder") == 3
    (tmp_path / "counts.tsv").write_text("".join(f"l{label}\t{label + 1}\n" for label in range(CLASSES)))
    ways = (("--counts", tmp_path / "counts.tsv"), ("--config", config))
    built = []
    for number, way in enumerate(ways):
        out = tmp_path / f"{number}.tree.json"
        done = treesearch("build", "taxonomy", *way, "--option", f"taxonomy={tmp_path / 'other.txt'}", "--out", out)
        assert done.code == 0, done.err
        built.append(Tree.load(out))
    assert [sorted(tree.arities.tolist()) for tree in built] == [[3, 8, 8, 8]] * 2
    done = treesearch("build", "taxonomy", "--config", config, "--out", tmp_path / "own.tree.json")
    assert done.code == 0, done.err
    assert Tree.load(tmp_path / "own.tree.json").node_names is not None
    for arguments, says in (
        (("--counts", tmp_path / "counts.tsv"), "builder 'taxonomy' needs --option taxonomy=FILE, but got None"),
        (("--counts", tmp_path / "counts.tsv", "--option", f"taxonomy={tmp_path}/no"), "cannot be read"),
    ):
        done = treesearch("build", "taxonomy", *arguments, "--out", tmp_path / "x.json")
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert says in done.err


def test_a_taxonomy_that_is_overridden_leaves_nothing_behind(tmp_path: Path) -> None:
    config = make_config(settings(tmp_path, refine="anywhere"))
    assert {"name": "taxonomy"} in config.search.builders
    without = with_settings(config, {"environment.taxonomy": None, "environment.refine": None})
    assert {"name": "taxonomy"} not in without.search.builders
    assert "taxonomy" not in without.confirm.families

"""The agent behind Tune's interface: called as Tune does, and (slow) by Tune itself."""

import subprocess
import sys

import numpy as np
import pytest
from ray import tune
from ray.tune.search import ConcurrencyLimiter

from agents import make_agent
from envs import StructuralReward, zipf_task
from treesearch import Tree
from treesearch.cost import CostModel
from treesearch.errors import ConfigError
from treesearch.tune.searcher import COST_WEIGHT, NODE_NLL, TREE, TreeSearcher, load_tree

TASK = zipf_task(40, in_features=8, seed=1)
ACTIONS = ("similarity-0.5", "frequency-0.5", "close-huffman-2", "close-clustered-4")
REWARD = StructuralReward(TASK)


def agent(name: str = "evolution", **settings: object):
    return make_agent(name, task=TASK, actions=ACTIONS, max_decisions=6, closer=None, seed=0, **settings)


def searcher(folder, name="evolution", settings=None, **options):
    options = {"metric": "loss", "mode": "min", "batch_size": 4} | options
    return TreeSearcher(agent(name, **(settings or {})), folder, **options)


def nll(tree: Tree) -> np.ndarray:
    """Nats of each node: what a code of equal branches takes."""
    return tree.pass_shares(TASK.counts) * np.log(tree.arities)


def answer(one: TreeSearcher, trial: str, config: dict, *, nodes: bool = False, **more: object) -> None:
    tree = load_tree(config)
    result = {
        "loss": float(nll(tree).sum()),
        "training_iteration": 1,
        **({NODE_NLL: nll(tree)} if nodes else {}),
        **more,
    }
    one.on_trial_result(trial, result)
    one.on_trial_complete(trial, result)


def converse(one: TreeSearcher, trials: range, *, nodes: bool = False) -> list[tuple[str, float]]:
    """What is suggested, each trial answered before the next is asked for."""
    seen = []
    for trial in trials:
        config = one.suggest(f"t{trial}")
        assert config is not None
        assert set(config) == {TREE, COST_WEIGHT}
        seen.append((load_tree(config).hash, config[COST_WEIGHT]))
        answer(one, f"t{trial}", config, nodes=nodes)
    return seen


def test_trees_go_by_reference(tmp_path):
    config = searcher(tmp_path / "trees").suggest("t0")
    assert len(str(config)) < 1000
    assert load_tree(config).num_classes == TASK.counts.size
    assert [file.suffix for file in (tmp_path / "trees").iterdir()] == [".npz"]


def test_the_agents_demonstrations_come_first_and_then_what_it_makes_of_them(tmp_path):
    shown = [proposal.tree.hash for proposal in agent().demonstrate()]
    one = searcher(tmp_path)
    configs = [one.suggest(f"t{i}") for i in range(len(shown))]
    assert [load_tree(config).hash for config in configs] == shown
    assert one.suggest("waits") is None, "nothing is asked of an agent that has not been told"
    for i, config in enumerate(configs):
        answer(one, f"t{i}", config)
    assert one.suggest("goes on") is not None


@pytest.mark.parametrize(
    ("name", "settings", "nodes"), [("hybrid", {}, True), ("policy_gradient", {"credit": "terminal"}, False)]
)
def test_the_agent_is_told_what_the_search_would_tell_it(tmp_path, name, settings, nodes):
    """Reward: minus the loss and λ times cost; with the loss of each node where trials report it."""
    one = searcher(tmp_path, name, settings)
    told = []
    one._agent.tell = told.extend
    converse(one, range(len(agent().demonstrate()) + 8), nodes=nodes)
    assert len(told) == 8
    model = CostModel(TASK.in_features, TASK.cost_weight)
    for item in told:
        tree, verdict = item.proposal.tree, item.evaluation
        expected = nll(tree).sum() + TASK.cost_weight * model.node_units(tree, TASK.counts).sum()
        assert -verdict.reward == pytest.approx(expected)
        if nodes:
            cost = TASK.cost_weight * model.node_units(tree, TASK.counts)
            np.testing.assert_allclose(verdict.node_loss, nll(tree) + cost)


def test_more_is_better_where_mode_says_so(tmp_path):
    one = searcher(tmp_path, mode="max", batch_size=1)
    shown = len(agent().demonstrate())
    converse(one, range(shown))  # of which the sign does not matter here
    told = []
    one._agent.tell = told.extend
    one.on_trial_complete("x", {"loss": -3.0}) or one.suggest("y")
    one.on_trial_complete("y", {"loss": -3.0})
    units = CostModel(TASK.in_features, TASK.cost_weight).node_units(told[0].proposal.tree, TASK.counts).sum()
    assert told[0].evaluation.reward == pytest.approx(-3.0 - TASK.cost_weight * units)


@pytest.mark.parametrize("name", ["hybrid", "local_search", "policy_gradient"])
def test_agents_that_learn_from_nodes_say_so(tmp_path, name):
    with pytest.raises(ConfigError, match=r"must report 'node_nll'; do that, or take evolution"):
        converse(searcher(tmp_path, name), range(20))


def test_losses_of_other_nodes_are_refused_at_once_and_break_nothing(tmp_path):
    one = searcher(tmp_path, "hybrid")
    config = one.suggest("a")
    with pytest.raises(ConfigError, match=r"must have the \d+ nodes of the tree, but got \(2,\)"):
        one.on_trial_result("a", {"loss": 1.0, NODE_NLL: [0.5, 0.5]})
    one.on_trial_complete("a", None, error=True)
    assert load_tree(config)
    assert len(converse(one, range(20), nodes=True)) == 20


def test_of_a_trial_that_ends_without_a_word_the_last_one_stands(tmp_path):
    """As of one that a scheduler has paused and then stops."""
    one = searcher(tmp_path, batch_size=1, max_t=4)
    converse_whole = [one.suggest(f"t{i}") for i in range(len(agent().demonstrate()))]
    for i, config in enumerate(converse_whole):
        answer(one, f"t{i}", config, training_iteration=4)
    told = []
    one._agent.tell = told.extend
    config = one.suggest("paused")
    loss = float(nll(load_tree(config)).sum())
    one.on_trial_result("paused", {"loss": loss, "training_iteration": 2})
    one.on_trial_complete("paused")
    assert told[0].evaluation is not None
    assert not told[0].exact


def test_failures_are_told_as_failures(tmp_path):
    one = searcher(tmp_path, batch_size=3)
    converse(one, range(len(agent().demonstrate())))
    told = []
    one._agent.tell = told.extend
    for trial in "abc":
        assert one.suggest(trial)
    one.on_trial_complete("a", None, error=True)
    one.on_trial_complete("b", {"loss": float("nan")})
    one.on_trial_complete("c", {"other": 1.0})
    assert [item.evaluation for item in told] == [None, None, None]


def test_what_asha_stops_is_told_as_an_estimate(tmp_path):
    """Whole trainings end at half the loss of their first step, so that is expected of the others."""
    one = searcher(tmp_path, batch_size=2, max_t=4)
    demonstrated = len(agent().demonstrate())
    told = []
    one._agent.warm_start = told.extend
    one._agent.tell = told.extend

    def train(trial: str, steps: int) -> None:
        config = one.suggest(trial)
        loss = float(nll(load_tree(config)).sum())
        results = [{"loss": loss * {1: 2.0, 4: 1.0}[step], "training_iteration": step} for step in (1, 4)[:steps]]
        for result in results:
            one.on_trial_result(trial, result)
        one.on_trial_complete(trial, results[-1])

    for trial in range(demonstrated):
        train(f"whole {trial}", 2)
    for trial in range(2):
        train(f"stopped {trial}", 1)
    assert [item.exact for item in told] == [True] * demonstrated + [False, False]
    model = CostModel(TASK.in_features, TASK.cost_weight)
    for item in told:
        tree = item.proposal.tree
        cost = TASK.cost_weight * model.node_units(tree, TASK.counts).sum()
        assert -item.evaluation.reward == pytest.approx(nll(tree).sum() + cost)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "nodes"), [("evolution", False), ("hybrid", True)])
@pytest.mark.parametrize("moment", [2, 9, 14])
def test_a_restored_searcher_goes_on_as_it_would_have(tmp_path, name, nodes, moment):
    whole, stopped = (searcher(tmp_path / each, name) for each in ("whole", "stopped"))
    assert converse(whole, range(moment), nodes=nodes) == converse(stopped, range(moment), nodes=nodes)
    configs = [one.suggest("under way") for one in (whole, stopped)]
    stopped.save(str(tmp_path / "state"))
    restored = searcher(tmp_path / "restored", name)
    restored.restore(str(tmp_path / "state"))
    for one, config in zip((whole, restored), configs, strict=True):
        if config is not None:
            answer(one, "under way", config, nodes=nodes)
    assert converse(whole, range(50, 70), nodes=nodes) == converse(restored, range(50, 70), nodes=nodes)


def test_what_cannot_work_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        searcher(tmp_path, batch_size=0)
    with pytest.raises(ConfigError, match="metric and mode must be given"):
        searcher(tmp_path, metric=None, mode=None).suggest("t")
    one = searcher(tmp_path, metric=None, mode=None)
    assert one.set_search_properties("loss", "min", {"constant": 1})
    assert one.suggest("t")
    for domain in (tune.uniform(0, 1), tune.grid_search([1])):
        with pytest.raises(ConfigError, match=r"constants beside a TreeSearcher, but 'a.b' is to be drawn"):
            one.set_search_properties(None, None, {"a": {"b": domain}})


def test_in_a_concurrency_limiter(tmp_path):
    limited = ConcurrencyLimiter(searcher(tmp_path), max_concurrent=2)
    assert limited.suggest("a")
    assert limited.suggest("b")
    assert limited.suggest("c") is None
    limited.on_trial_complete("a", {"loss": 1.0})
    assert limited.suggest("c")


TUNED = """
import os, sys
from pathlib import Path
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from tests.tune.test_searcher import agent, nll, searcher
from treesearch.tune.searcher import load_tree

folder, what = Path(sys.argv[1]), sys.argv[2]
GOES_DOWN = 14  # trials until the driver dies
log = folder / "log"

def train(config):
    with log.open("a") as file:
        file.write(f"{config['tree']}\\n")
    if what == "dies" and len(log.read_text().splitlines()) == GOES_DOWN:
        os.kill(DRIVER, 9)
    for step in range(1, 5):
        tune.report({"loss": float(nll(load_tree(config)).sum()) * (1 + 1 / step)})

DRIVER = os.getpid()
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
place = folder / "experiment" / "trees"
if what == "goes on":
    tuner = tune.Tuner.restore(str(place), train, resume_errored=True)
else:
    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=24,
            search_alg=ConcurrencyLimiter(searcher(folder / "files", max_t=4), max_concurrent=2),
            scheduler=ASHAScheduler(max_t=4, grace_period=1, reduction_factor=2),
            reuse_actors=False,
        ),
        run_config=tune.RunConfig(name="trees", storage_path=str(folder / "experiment"), verbose=0),
    )
results = tuner.fit()
assert len(results) == 24 and results.num_errors == 0, results
steps = [result.metrics["training_iteration"] for result in results]
assert min(steps) < 4 == max(steps), f"some are stopped early, not all: {steps}"
best = results.get_best_result()
print(load_tree(best.config).hash, best.metrics["loss"])
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_tune_itself_with_asha_and_a_limit_and_again_after_the_death_of_its_driver(tmp_path):
    def run(what: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", TUNED, str(tmp_path), what]
        return subprocess.run(command, capture_output=True, text=True, timeout=550)

    died = run("dies")
    assert died.returncode == -9, died.stderr[-2000:]
    done = run("goes on")
    assert done.returncode == 0, done.stderr[-2000:]
    shown = min(float(nll(proposal.tree).sum()) for proposal in agent().demonstrate())
    assert float(done.stdout.split()[-1]) <= 1.25 * shown + 1e-6, "it ends no worse than where it started"

"""Refusals of settings, one line each."""

from dataclasses import dataclass

import pytest

from agents import make_agent
from agents.settings import check_settings
from tests.agents.conversation import make
from treesearch.errors import ConfigError


@dataclass
class Example:
    number: int = 3
    share: float = 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"number": 0}, r"number must be finite and >= 1, but got 0"),
        ({"number": 1.0}, r"number must be an integer, but got 1.0"),
        ({"number": True}, r"number must be an integer, but got True"),
        ({"number": float("nan")}, r"number must be finite and >= 1, but got nan"),
        ({"share": 0}, r"share must be finite and > 0, but got 0"),
        ({"share": 1.5}, r"share must be finite and <= 1, but got 1.5"),
        ({"share": float("inf")}, r"share must be finite and > 0, but got inf"),
        ({"share": float("nan")}, r"share must be finite and > 0, but got nan"),
        ({"share": True}, r"share must be a number, but got True"),
        ({"share": "0.5"}, r"share must be a number, but got '0.5'"),
        ({"number": None}, r"number must be an integer, but got None"),
    ],
)
def test_check_settings(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(Example(**given), at_least={"number": 1}, above={"share": 0}, at_most={"share": 1})


def test_what_is_in_range_is_accepted() -> None:
    for example in (Example(), Example(1, 1), Example(1, 1e-9)):
        check_settings(example, at_least={"number": 1}, above={"share": 0}, at_most={"share": 1})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("evolution", {"population_size": 1}, r"population_size must be finite and >= 2"),
        ("evolution", {"tournament_size": 0}, r"tournament_size must be finite and >= 1"),
        ("evolution", {"closer_share": 1.01}, r"closer_share must be finite and <= 1"),
        ("evolution", {"closer_share": -0.1}, r"closer_share must be finite and >= 0"),
        ("evolution", {"num_elites": 3}, r"agent 'evolution' has no setting 'num_elites'"),
        ("local_search", {"num_elites": 0}, r"num_elites must be finite and >= 1"),
        ("local_search", {"num_elites": 2.5}, r"num_elites must be an integer"),
        ("local_search", {"mass_power": -1}, r"mass_power must be finite and >= 0"),
        ("policy_gradient", {"baseline": "none"}, r"baseline must be 'leave_one_out' or 'value', but got 'none'"),
        ("policy_gradient", {"imitation_trees": -1}, r"imitation_trees must be finite and >= 0"),
        ("policy_gradient", {"imitation_epochs": 0.5}, r"imitation_epochs must be an integer"),
        ("policy_gradient", {"replay_trees": True}, r"replay_trees must be an integer"),
        ("policy_gradient", {"replay_coef": float("inf")}, r"replay_coef must be finite and >= 0"),
        ("policy_gradient", {"ent_decay_trees": 0}, r"ent_decay_trees must be finite and > 0"),
        ("policy_gradient", {"hidden_size": 0}, r"hidden_size must be finite and > 0"),
        ("policy_gradient", {"policy_share": 0.5}, r"agent 'policy_gradient' has no setting 'policy_share'"),
        ("hybrid", {"policy_share": 2}, r"policy_share must be finite and <= 1"),
        ("hybrid", {"change_root": -1}, r"change_root must be finite and >= 0"),
        ("hybrid", {"change_other": 1.5}, r"change_other must be finite and <= 1"),
        ("hybrid", {"untried_share": 1.5}, r"untried_share must be finite and <= 1"),
        ("hybrid", {"near_best": 0}, r"near_best must be finite and > 0"),
        ("hybrid", {"policy_temperature": 0}, r"policy_temperature must be finite and > 0"),
        ("hybrid", {"clip_coef": 0}, r"clip_coef must be finite and > 0"),
        ("random_search", {"seed_size": 1}, r"agent 'random_search' has no setting 'seed_size'"),
    ],
)
def test_agents_refuse(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, **settings)


@pytest.mark.parametrize("name", ["evolution", "local_search", "hybrid", "policy_gradient"])
def test_a_wrong_name_is_answered_with_the_nearest(name: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{name}'"):
        make_agent(name[:-1], task=make("random_search").task, actions=["kway-4"], max_decisions=1, closer=None, seed=0)

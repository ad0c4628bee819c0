"""Alignment with an expert, on models whose attributions are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treesearch.decisions.alignment import Alignment, align, audit_attribution
from treesearch.decisions.audit import explain
from treesearch.decisions.expert import ExpertRule, FactorGroups, RuleBook
from treesearch.errors import ConfigError, DataError
from treesearch.softmax import HierarchicalSoftmax
from treesearch.tree import Tree

# ROOT -> fish (0, 1), bird (2, 3); features: gills, fins, wings, beak, colour
TREE = Tree.from_nested([[0, 1], [2, 3]]).annotate(
    class_names=["cod", "eel", "owl", "emu"], node_names=["", "fish", "bird"]
)
GROUPS = FactorGroups.of({"water": [0, 1], "air": [2], "mouth": [3]}, num_features=5)
FISH, BIRD, COD, EEL, OWL, EMU = 1, 2, 3, 4, 5, 6
RULES = (
    ExpertRule("ROOT", "fish", "water", +1, "gills and fins"),
    ExpertRule("ROOT", "bird", "air", +1, "wings"),
    ExpertRule("bird", "owl", "air", +1, "it flies"),
    ExpertRule("bird", "emu", "air", -1, "it does not"),
)
BOOK = RuleBook.of(TREE, GROUPS, RULES)


def linear(weights: np.ndarray, x: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Attributions of linear logits, exact: ``weights`` [L, F] of the branches taken against their rivals."""
    return weights[None] * (x - baseline)[:, None]


def audit(branch: list[list[int]], attribution: np.ndarray, state: np.ndarray) -> Alignment:
    return align(BOOK, branch=branch, attribution=attribution, state=state)


def test_a_model_that_reasons_as_the_expert_does() -> None:
    x = np.array([[0, 0, 1.0, 0, 1]])
    weights = np.array([[-1, -1, 2, 0.5, 0.1], [0, 0, 3, 1, 0.0]])  # bird, then owl
    found = audit([[BIRD, OWL]], linear(weights, x, np.zeros(5)), x)
    assert found.contribution.tolist() == [[[0, 2, 0], [0, 3, 0]]]
    assert found.driver.tolist() == [[1, 1]]
    for measure in ("driver", "direction"):
        assert found.counts[measure].all()
        assert found.agrees[measure].all()
        assert found.path_agrees(measure).tolist() == [True]
    assert not found.wrong_reason([True]).any()


def test_a_model_that_is_right_for_the_wrong_reason() -> None:
    """It tells birds by their beaks, and an owl by something outside all factors although wings speak against it."""
    x = np.array([[0, 0, 1.0, 1, 1]])
    weights = np.array([[0, 0, 0.5, 4, 0], [0, 0, -1, 0.2, 9.0]])
    found = audit([[BIRD, OWL]], linear(weights, x, np.zeros(5)), x)
    assert [GROUPS.names[place] for place in found.driver[0]] == ["mouth", "air"]
    assert found.agrees["driver"].tolist() == [[False, True]]  # colour is no factor: among these, air drives
    assert found.agrees["direction"].tolist() == [[True, False]]
    assert not found.path_agrees("driver").any()
    assert not found.path_agrees("direction").any()
    assert found.wrong_reason([True]).tolist() == [True]
    assert found.wrong_reason([False]).tolist() == [False]


def test_what_has_fallen_speaks_for_a_branch_that_its_rise_speaks_against() -> None:
    baseline = np.full(5, 0.5)
    x = np.array([[0.5, 0.5, 0, 0.5, 0.5], [0.5, 0.5, 1, 0.5, 0.5]])  # no wings, and wings after all
    emu = linear(np.array([[0, 0, -2.0, 0, 0]]), x, baseline)  # wings take from emu
    found = audit([[EMU], [EMU]], emu, x - baseline)
    assert emu[:, 0, 2].tolist() == [1, -1]
    assert found.agrees["direction"].all()
    against = audit([[EMU], [EMU]], -emu, x - baseline)
    assert not against.agrees["direction"].any()
    assert against.counts["direction"].all()


def test_decisions_that_do_not_count() -> None:
    x = np.array([[0, 0, 0, 1.0, 0]])
    found = audit([[FISH, EEL, -1]], np.zeros((1, 3, 5)), x)
    assert found.counts["driver"].tolist() == [[True, False, False]]  # no rule for the eel, no decision behind it
    assert found.agrees["driver"].tolist() == [[False, False, False]]
    assert found.driver.tolist() == [[FactorGroups.NO_FACTOR] * 3]
    assert not found.counts["direction"].any()  # no gills, no fins: not in play
    rate = found.rate("direction")
    assert math.isnan(rate.value)
    assert rate.num == 0
    chance = {"uniform": None, "in play": None}
    assert rate.as_dict() == {"value": None, "low": None, "high": None, "num": 0, "chance": chance}
    assert not found.wrong_reason([False]).any()


def test_rules_of_one_branch_are_alternatives() -> None:
    book = RuleBook.of(TREE, GROUPS, [*RULES, ExpertRule("ROOT", "bird", "mouth", +1, "beak")])
    assert book.direction[BIRD].tolist() == [0, 1, 1]
    x = np.array([[0, 0, 1.0, 1, 0]])
    attribution = np.array([[[0, 0, -1.0, 3, 0]]])
    found = align(book, branch=[[BIRD]], attribution=attribution, state=x)
    assert found.agrees["driver"].all()
    assert found.agrees["direction"].all()  # of the beak, which is stronger than the wings
    assert found.chance["driver"]["uniform"].tolist() == [[2 / 3]]
    assert found.chance["driver"]["in play"].tolist() == [[1]]
    assert found.chance["direction"]["in play"].tolist() == [[0.5]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_rates_and_chance_against_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    paths = [[FISH, COD], [FISH, EEL], [BIRD, OWL], [BIRD, EMU], [FISH, -1]]
    branch = [paths[rng.integers(5)] for _ in range(6)]
    attribution = rng.integers(-2, 3, (6, 2, 5)).astype(float)
    state = rng.integers(-1, 2, (6, 5)).astype(float)
    found = audit(branch, attribution, state)
    wanted = {FISH: ("water", 1), BIRD: ("air", 1), OWL: ("air", 1), EMU: ("air", -1)}
    members = {"water": [0, 1], "air": [2], "mouth": [3]}
    names = list(members)
    hits: dict[str, list[list[bool]]] = {"driver": [], "direction": []}
    drivers, in_play = [], []
    for row in range(6):
        own: dict[str, list[bool]] = {"driver": [], "direction": []}
        for place, node in enumerate(branch[row]):
            if node not in wanted:
                continue
            factor, direction = wanted[node]
            sums = {name: sum(attribution[row, place, one] for one in members[name]) for name in names}
            strongest = max(map(abs, sums.values()))
            driver = next((name for name in names if abs(sums[name]) == strongest), None) if strongest else None
            drivers.append(driver)
            playing = [name for name in names if sums[name]]
            in_play.append((factor in playing) / len(playing) if playing else 0.0)
            own["driver"].append(driver == factor)
            moved = sum(state[row, one] for one in members[factor])
            if moved:
                own["direction"].append(sums[factor] * moved * direction > 0)
        for measure, values in own.items():
            hits[measure].append(values)
    for measure, lists in hits.items():
        flat = [one for values in lists for one in values]
        rate = found.rate(measure, num_samples=50)
        assert rate.num == len(flat)
        if flat:
            assert rate.value == pytest.approx(np.mean(flat))
            assert rate.low <= rate.value <= rate.high
        counted = [values for values in lists if values]
        by_path = found.rate(measure, per="path", num_samples=50)
        assert by_path.num == len(counted)
        if counted:
            assert by_path.value == pytest.approx(np.mean([all(values) for values in counted]))
    chance = found.rate("driver", num_samples=1).chance
    assert chance["uniform"] == pytest.approx(1 / 3)
    assert chance["in play"] == pytest.approx(np.mean(in_play))
    asked = [wanted[node][0] for row in branch for node in row if node in wanted]
    assert chance["shuffled"] == pytest.approx(np.mean([driver == one for driver in drivers for one in asked]))


def test_a_model_without_reasons_is_at_chance() -> None:
    rng = np.random.default_rng(0)
    num = 4000
    branch = np.array([[FISH, COD], [BIRD, OWL]])[rng.integers(2, size=num)]
    attribution = rng.normal(size=(num, 2, 5))
    attribution[..., 1] = 0  # a factor of two features would be stronger
    found = audit(branch.tolist(), attribution, rng.normal(size=(num, 5)))
    driver, direction = found.rate("driver"), found.rate("direction")
    for rate, chance in ((driver, 1 / 3), (direction, 0.5)):
        assert rate.low < chance < rate.high
        assert rate.high - rate.low < 0.05
        for kind, level in rate.chance.items():
            assert level == pytest.approx(chance, abs=0.02), kind
    assert found.rate("driver", per="path").chance["uniform"] == pytest.approx((1 / 3 + 1 / 9) / 2, abs=0.01)
    assert found.rate("driver") == driver


def test_permuted_groups_keep_sizes() -> None:
    mixed = GROUPS.permuted(np.random.default_rng(1))
    assert mixed.names == GROUPS.names
    assert sorted(mixed.factor) == sorted(GROUPS.factor)
    assert mixed.sums(np.eye(5)).sum() == 4  # one feature is still in no factor
    assert BOOK.with_groups(mixed).direction is BOOK.direction
    with pytest.raises(DataError, match="the names of the factors"):
        BOOK.with_groups(FactorGroups.of({"sea": [0]}, num_features=5))


def test_audits_are_compared_with_the_expert() -> None:
    """A layer that tells fish by their fins and owls by their wings; cod and eel it tells by nothing at all."""
    layer = HierarchicalSoftmax(5, TREE, dtype=torch.float64)
    with torch.no_grad():
        layer.weights[0].copy_(torch.tensor([[0, 3.0, -1, 0, 0.5], [0, 0, 0, 0, 0], [0, 0, 2.0, 0.5, 0]]))
    input = torch.tensor([[1.0, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 1, 0, 1]], dtype=torch.float64)
    audit_ = explain(layer, input, num_features=5)
    attribution = audit_attribution(audit_, num_features=5)
    assert audit_.taken.tolist() == [[FISH, COD], [BIRD, OWL], [BIRD, OWL]]
    assert attribution[1].tolist() == [[0, 0, 1, 0, -0.5], [0, 0, 2, 0.5, 0]]
    found = align(BOOK, branch=audit_.taken, attribution=attribution, state=input)
    assert found.driver[:, 0].tolist() == [0, 1, 1]
    assert found.path_agrees("driver").all()
    assert found.path_agrees("direction").all()
    with pytest.raises(DataError, match=r"must list all 5 features .* but lists 2; call explain with num_features=5"):
        audit_attribution(explain(layer, input, num_features=2), num_features=5)


def test_levels_are_parts_of_all_decisions() -> None:
    rng = np.random.default_rng(3)
    found = audit([[FISH, COD], [BIRD, OWL], [BIRD, EMU]], rng.normal(size=(3, 2, 5)), rng.normal(size=(3, 5)))
    for measure in ("driver", "direction"):
        levels = [found.at_level(level).rate(measure) for level in range(2)]
        assert [level.num for level in levels] == [3, 2]
        assert sum(level.value * level.num for level in levels) == pytest.approx(5 * found.rate(measure).value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (ExpertRule("ROOT", "brid", "air", 1, ""), "no node 'brid'; did you mean 'bird'"),
        (ExpertRule("ROOT", "bird", "fire", 1, ""), "names the unknown factor 'fire'"),
        (ExpertRule("fish", "owl", "air", 1, ""), "'owl' is none of 'fish'"),
        (ExpertRule("ROOT", "ROOT", "air", 1, ""), "'ROOT' is none of 'ROOT'"),
        (ExpertRule("ROOT", "bird", "air", 0, ""), r"must be \+1 or -1, but is 0 for 'bird'"),
        (ExpertRule("ROOT", "bird", "air", -1, ""), "'air' speaks both for and against 'bird'"),
    ],
)
def test_rules_that_cannot_be_used(rule: ExpertRule, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RuleBook.of(TREE, GROUPS, [*RULES, rule])


def test_bad_input() -> None:
    with pytest.raises(DataError, match="must have names of nodes and classes"):
        RuleBook.of(Tree.from_nested([0, 1]), GROUPS, RULES)
    for members, message in (
        ({}, "at least one factor"),
        ({"a": []}, r"features of factor 'a' must be one or more of 0 \.\. 4"),
        ({"a": [5]}, "features of factor 'a' must be"),
        ({"a": [0], "b": [0]}, "one of 'b' is listed twice"),
        ({"a": [1, 1]}, "one of 'a' is listed twice"),
    ):
        with pytest.raises(DataError, match=message):
            FactorGroups.of(members, num_features=5)
    ok = np.zeros((1, 2, 5))
    for branch, attribution, state, message in (
        ([[1, 9]], ok, ok[:, 0], r"must be nodes \[B, L\] in \[0, 7\)"),
        ([1, 2], ok, ok[:, 0], r"must be nodes \[B, L\]"),
        ([[1, 3]], np.zeros((1, 2, 4)), ok[:, 0], "must be the 5 features"),
        ([[1, 3]], np.zeros((2, 2, 5)), ok[:, 0], "must fit branches"),
        ([[1, 3]], ok, np.zeros((3, 5)), "must fit branches"),
        ([[1, 3]], ok + np.nan, ok[:, 0], "must be finite"),
    ):
        with pytest.raises(DataError, match=message):
            align(BOOK, branch=branch, attribution=attribution, state=state)
    found = audit([[1, 3]], ok, ok[:, 0])
    with pytest.raises(ConfigError, match="unknown measure 'drivers'; did you mean 'driver'"):
        found.rate("drivers")
    with pytest.raises(ConfigError, match="per must be 'decision' or 'path'"):
        found.rate("driver", per="node")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="one value for each of 1 examples"):
        found.wrong_reason([True, False])

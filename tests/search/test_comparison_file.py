"""What comparison.json must hold: what earlier versions wrote passes, and what is damaged is told by its place."""

import copy
import json
from pathlib import Path

import pytest

from tests.search.damage import DELETED, damaged
from treesearch.search.comparison_file import checked

WRITTEN = sorted((Path(__file__).parents[2] / "results").glob("2026-11-2*/**/comparison.json"))

INTERVAL = {"mean": 5.0, "low": 4.5, "high": 5.5, "n": 2}
ROW = {
    "name": "huffman",
    "kind": "baseline",
    "tree": "00ff",
    "test_nll": INTERVAL,
    "valid_nll": 5.1,
    "perplexity": 148.4,
    "cost": 9.0,
    "expected_depth": 9.0,
    "dot_products": 9.0,
    "max_depth": 12,
    "perplexity_change": {"mean": 0.0, "low": 0.0, "high": 0.0},
}
GAIN = {"best_builder": "huffman", "reward_gain": INTERVAL}
POINT = {"tree": "00ff", "name": "huffman", "kind": "baseline", "valid_nll": 5.1, "cost": 9.0}
VOLUME = {"found": 0, "baseline": 0.0, "reference_cost": 9.0, "reference_nll": 5.1}
WHOLE = {
    "rows": [ROW, ROW | {"name": "found #3", "kind": "found", "reward": -5.0} | GAIN],
    "gains": [{"name": "found #3", "cost_weight": 0.01} | GAIN, {"name": "found #3", "cost_weight": 0.1}],
    "agent": "hybrid",
    "evaluations": 3,
    "failures": 0,
    "seeds": 2,
    "cost_weight": 0.25,
    "fronts": {
        "frozen": {"points": [POINT], "hypervolume": VOLUME, "cost_kind": "analytic"},
        "joint": {"points": [], "hypervolume": {}, "cost_kind": "analytic"},
    },
    "rank_correlation": {"kendall_tau": None, "rungs": ["frozen", "joint"]},
}


def test_there_are_files_of_earlier_versions() -> None:
    assert len(WRITTEN) >= 16


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.parent.name)
def test_what_earlier_versions_wrote_passes(path: Path) -> None:
    written = json.loads(path.read_text())
    content = checked(json.loads(path.read_text()))
    for row, own in zip(content["rows"], written["rows"], strict=True):
        assert row == own | {"reward": row["reward"]}
        if written.get("cost_kind", "analytic") == "analytic":  # as the versions since write it
            charged = written["cost_weight"] * own["cost"]
            assert row["reward"] == pytest.approx(-own["test_nll"]["mean"] - charged, abs=1e-12)
    assert {key: value for key, value in content.items() if key != "rows"} == {
        key: value for key, value in written.items() if key != "rows"
    }


def test_rows_without_a_reward_get_it() -> None:
    rows = checked(copy.deepcopy(WHOLE))["rows"]
    assert [row["reward"] for row in rows] == [-5.0 - 0.25 * 9.0, -5.0]


@pytest.mark.parametrize(
    ("place", "damage", "says"),
    [
        (("rows",), {}, "rows: input should be a valid list, but got {}"),
        (("rows", 1), "x", "rows[1]: input should be a valid dictionary, but got 'x'"),
        (("rows", 0, "cost"), DELETED, "rows[0].cost: field required"),
        (("rows", 0, "cost"), "9", "rows[0].cost: input should be a valid number, but got '9'"),
        (("rows", 0, "cost"), float("inf"), "rows[0].cost: input should be a finite number, but got inf"),
        (("rows", 0, "max_depth"), 1.5, "rows[0].max_depth: input should be a valid integer, but got 1.5"),
        (("rows", 0, "valid_nll"), 1e9, "rows[0].valid_nll: input should be less than 709, but got 1000000000.0"),
        (("rows", 1, "test_nll", "n"), 0, "rows[1].test_nll.n: input should be greater than or equal to 1, but got 0"),
        (("rows", 1, "reward_gain"), DELETED, "rows[1]: best_builder and reward_gain must be given together"),
        (("rows", 1, "reward_gain"), None, "rows[1].reward_gain: input should be a valid dictionary, but got None"),
        (
            ("rows", 1, "perplexity_change"),
            DELETED,
            "rows: perplexity_change must be in all rows beside one of huffman",
        ),
        (("rows", 1, "head_us"), 3.5, "rows: head_us must be a number in all rows or in none"),
        (("gains", 0, "best_builder"), DELETED, "gains[0]: best_builder and reward_gain must be given together"),
        (("agent",), ["a"], "agent: input should be a valid string, but got ['a']"),
        (("fronts", "frozen", "points", 0, "kind"), None, "fronts.frozen.points[0].kind: input should be a valid str"),
        (
            ("fronts", "frozen", "hypervolume", "found"),
            DELETED,
            "fronts.frozen: hypervolume of a front with points must have found",
        ),
    ],
)
def test_damage_is_told_by_its_place(place: tuple[str | int, ...], damage: object, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        checked(damaged(WHOLE, place, damage))
    assert str(caught.value).startswith(says)


def test_what_is_no_object() -> None:
    with pytest.raises(ValueError, match="the whole: input should be a valid dictionary, but got 3"):
        checked(3)

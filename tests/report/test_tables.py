import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from treesearch import Tree
from treesearch.cost import CostModel, TreeCost
from treesearch.evaluation.timing import StepTime
from treesearch.report import tables
from treesearch.report.gains import gains_by_weight
from treesearch.report.tables import CANDIDATE, comparison_notes, comparison_table
from treesearch.search.confirm import Confirmed, Finalist
from treesearch.search.evaluation_row import FROZEN, OK, EvaluationRow
from treesearch.search.promotion import BASELINE, FOUND, Promoted

T_95_TWO = 12.706204736174705  # Student's t, 97.5 % quantile, one degree of freedom
T_95_THREE = 4.302652729749462  # two degrees of freedom
CONTRACT = {"name", "kind", "test_nll", "valid_nll", "cost", "expected_depth", "dot_products", "max_depth"}


def entry(name, kind, valid, test, rate=0.004, cost=9.5):
    row = EvaluationRow(
        id=3, rung=FROZEN, batch=0, agent="a", label=None, tree_hash="h", status=OK, reward=-99.0, valid_nll=5.25
    )
    promoted = Promoted(name, kind, row, Tree.from_nested([[0, 1], 2]), TreeCost(cost, 9.25, 9.75, 14))
    return Confirmed(Finalist(promoted, rate, 5.0), valid, test)


HUFFMAN = entry("huffman", BASELINE, [5.0, 5.2], [5.1, 5.3])
FOUND_TREE = entry("found #7", FOUND, [4.8, 5.0], [5.0, 5.0])


COST_MODEL = CostModel(8, 0.01)


def comparison_rows(confirmed, **options):
    return tables.comparison_rows(confirmed, cost_model=COST_MODEL, **options)


def printed(rows, width=100):
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(comparison_table(rows))
    return console.file.getvalue()


def test_rows_have_the_contract_and_go_through_json():
    rows = comparison_rows([HUFFMAN, FOUND_TREE])
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    for row in rows:
        assert set(row) >= CONTRACT
        assert set(row["test_nll"]) == {"mean", "low", "high", "n"}
    assert [(row["name"], row["kind"]) for row in rows] == [("huffman", "baseline"), ("found #7", "found")]
    row = rows[1]
    assert [row[key] for key in ("cost", "expected_depth", "dot_products", "max_depth")] == [9.5, 9.25, 9.75, 14]
    assert (row["frozen_nll"], row["learning_rate"]) == (5.25, 0.004)
    assert row["frozen_reward"] == pytest.approx(-5.25 - 0.01 * 9.5), "at the run's λ, not the proposal's"
    assert row["reward"] == pytest.approx(-5.0 - 0.01 * 9.5), "on the test split"
    assert row["valid_nll"] == pytest.approx(4.9)


def test_the_interval_by_hand():
    # 5.1 and 5.3: mean 5.2, standard deviation 0.2 / sqrt(2), so the standard error is 0.1.
    test = comparison_rows([HUFFMAN])[0]["test_nll"]
    assert test["mean"] == pytest.approx(5.2)
    assert (test["low"], test["high"]) == pytest.approx((5.2 - T_95_TWO * 0.1, 5.2 + T_95_TWO * 0.1))
    assert test["n"] == 2


def test_the_perplexity_change_is_paired_by_seed_by_hand():
    # Differences -0.1 and -0.3: mean -0.2, standard error 0.1.
    row = comparison_rows([HUFFMAN, FOUND_TREE])[1]
    assert row["difference"]["mean"] == pytest.approx(-0.2)
    assert row["difference"]["low"] == pytest.approx(-0.2 - T_95_TWO * 0.1)
    change = row["perplexity_change"]
    assert set(change) == {"mean", "low", "high"}
    assert change["mean"] == pytest.approx(math.exp(-0.2) - 1)
    assert change["mean"] == pytest.approx(row["perplexity"] / comparison_rows([HUFFMAN])[0]["perplexity"] - 1)
    assert change["high"] == pytest.approx(math.exp(-0.2 + T_95_TWO * 0.1) - 1)


def test_noise_that_the_seeds_share_cancels():
    noise = [0.0, 3.0, -2.0]
    huffman = entry("huffman", BASELINE, noise, [5 + x for x in noise])
    found = entry("found #1", FOUND, noise, [4.9 + x + e for x, e in zip(noise, (0.01, -0.01, 0.0), strict=True)])
    row = comparison_rows([huffman, found])[1]
    half = T_95_THREE * 0.01 / math.sqrt(3)
    assert (row["difference"]["low"], row["difference"]["high"]) == pytest.approx((-0.1 - half, -0.1 + half))
    assert row["test_nll"]["high"] - row["test_nll"]["low"] > 10


def test_huffman_differs_from_itself_by_nothing():
    row = comparison_rows([HUFFMAN, FOUND_TREE])[0]
    assert row["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 2}


def test_one_seed_has_no_width():
    rows = comparison_rows([entry("huffman", BASELINE, [5.0], [5.0]), entry("found #1", FOUND, [4.0], [4.0])])
    assert rows[1]["test_nll"] == {"mean": 4.0, "low": 4.0, "high": 4.0, "n": 1}
    assert "-63.2 %" in printed(rows)
    assert "[" not in printed(rows).splitlines()[-2]


def test_no_rows():
    assert comparison_rows([]) == []
    assert "tree" in printed([])


# -- the table


def test_table_by_hand():
    *_, huffman, found, _ = printed(comparison_rows([HUFFMAN, FOUND_TREE])).splitlines()
    assert huffman.split() == ["huffman", "181.3", "-", "5.200", "5.100", "9.50", "9.25", "14"]
    change = f"{100 * math.expm1(-0.2):+.1f}"
    low, high = (100 * math.expm1(-0.2 + sign * T_95_TWO * 0.1) for sign in (-1, 1))
    assert found.split()[:7] == ["found", "#7", "148.4", change, "%", f"[{low:+.1f},", f"{high:+.1f}]"]


@pytest.mark.parametrize(
    "name",
    ["two-level(by=similarity, num_groups=128, projection=64, and=so, on=and, on_and=on)", "[bold]x[/]", "漢" * 60],
)
def test_a_long_name_is_folded_into_100_columns_and_stays_whole(name):
    text = printed(comparison_rows([HUFFMAN, entry(name, BASELINE, [4.8, 5.0], [5.0, 5.0])]))
    widths = [Console().measure(line).maximum for line in text.splitlines()]
    assert max(widths) <= 100
    first_columns = "".join("".join(line.split("  ")[0].split()) for line in text.splitlines()[4:])
    assert "".join(name.split()) in first_columns.removeprefix("huffman")
    assert "148.4" in text


def test_rows_of_tree_files_have_no_scores():
    row = dict.fromkeys(CONTRACT) | {"name": "a.json", "kind": "baseline", "cost": 1.0, "expected_depth": 2.0}
    assert printed([row | {"max_depth": 3}]).splitlines()[-2].split() == [
        *("a.json", "-", "-", "-", "-", "1.00", "2.00", "3"),
    ]


# -- rewards against the best builder


def test_the_gain_over_the_best_builder_is_paired_by_seed_by_hand():
    # NLL differences of the seeds 0.1 and 0.3, costs 9.5 and 7.5: 0.2 + 0.02, standard error 0.1.
    rival = entry("clustered", BASELINE, [4.9, 4.9], [5.1, 5.4], cost=7.5)
    found = entry("found #7", FOUND, [4.8, 4.8], [5.0, 5.1], cost=9.5)
    *_, row = comparison_rows([HUFFMAN, rival, found])
    assert row["best_builder"] == "clustered"
    gain = row["reward_gain"]
    assert gain["mean"] == pytest.approx(0.2 - 0.01 * 2.0)
    assert (gain["low"], gain["high"]) == pytest.approx((0.18 - T_95_TWO * 0.1, 0.18 + T_95_TWO * 0.1))
    assert gain["n"] == 2
    rewards = {r["name"]: r["reward"] for r in comparison_rows([HUFFMAN, rival, found])}
    assert gain["mean"] == pytest.approx(rewards["found #7"] - rewards["clustered"])


def test_the_best_builder_costs_no_more_and_is_best_on_validation_data():
    builders = [
        entry("huffman", BASELINE, [5.0, 5.0], [5.0, 5.0], cost=9.5),
        entry("dear", BASELINE, [3.0, 3.0], [3.0, 3.0], cost=20.0),  # far better, but costs more
        entry("lucky", BASELINE, [4.6, 4.6], [4.0, 4.0], cost=6.0),  # better on the test split only
        entry("good", BASELINE, [4.5, 4.5], [4.7, 4.7], cost=6.0),
        entry("equal", BASELINE, [4.4, 4.4], [4.7, 4.7], cost=8.0),
    ]

    def rival(cost):
        return comparison_rows([*builders, entry("found #1", FOUND, [4.8, 4.8], [5.0, 5.0], cost=cost)])[-1]

    assert rival(8.0)["best_builder"] == "equal"
    assert rival(8.0 - 1e-9)["best_builder"] == "good"
    assert rival(25.0)["best_builder"] == "dear"
    assert "best_builder" not in rival(5.0)
    assert "reward_gain" not in rival(5.0)
    assert all("best_builder" not in row for row in comparison_rows(builders)), "builders have no rival"


def test_of_the_found_trees_those_best_on_validation_data_are_reported():
    confirmed = [
        HUFFMAN,  # cost 9.5
        entry("found #1", FOUND, [4.0, 4.0], [4.9, 4.9], cost=20.0),  # best of any cost: -4.2
        entry("found #2", FOUND, [4.1, 4.1], [4.0, 4.0], cost=20.0),  # luckier on the test split
        entry("found #3", FOUND, [4.5, 4.5], [4.5, 4.5], cost=9.5),  # best of at most Huffman's
        entry("found #4", FOUND, [4.47, 4.47], [4.5, 4.5], cost=9.5 + 1e-9),
        entry("found #5", FOUND, [4.49, 4.56], [4.5, 4.5], cost=5.0),
        entry("clustered", BASELINE, [3.0, 3.0], [3.0, 3.0], cost=5.0),
    ]
    kinds = {row["name"]: row["kind"] for row in comparison_rows(confirmed)}
    assert kinds == {
        "huffman": BASELINE,
        "found #1": FOUND,
        "found #2": CANDIDATE,
        "found #3": CANDIDATE,  # -4.595, where #5 has -4.575
        "found #4": CANDIDATE,
        "found #5": FOUND,
        "clustered": BASELINE,
    }


def test_the_best_under_each_further_weight_is_reported_too():
    confirmed = [
        HUFFMAN,
        entry("found #1", FOUND, [4.0, 4.0], [4.9, 4.9], cost=60.0),  # best at λ = 0
        entry("found #2", FOUND, [4.1, 4.1], [4.0, 4.0], cost=20.0),  # best of any cost at the model's 0.01
        entry("found #3", FOUND, [4.5, 4.5], [4.5, 4.5], cost=9.0),  # best of at most Huffman's
        entry("found #4", FOUND, [4.8, 4.8], [4.8, 4.8], cost=3.0),  # best at λ = 0.1
        entry("found #5", FOUND, [4.9, 4.9], [4.8, 4.8], cost=3.0),
    ]
    kinds = {row["name"]: row["kind"] for row in comparison_rows(confirmed, cost_weights=(0.0, 0.01, 0.1))}
    assert [name for name, kind in kinds.items() if kind == FOUND] == [f"found #{n}" for n in (1, 2, 3, 4)]
    kinds = {row["name"]: row["kind"] for row in comparison_rows(confirmed)}
    assert [name for name, kind in kinds.items() if kind == FOUND] == ["found #2", "found #3"]


def test_one_tree_can_be_the_best_of_any_cost_and_of_huffmans():
    confirmed = [HUFFMAN, FOUND_TREE, entry("found #8", FOUND, [4.99, 4.99], [4.0, 4.0], cost=9.0)]
    assert [row["kind"] for row in comparison_rows(confirmed)] == [BASELINE, FOUND, CANDIDATE]


# -- notes


def noted(test, n=2, cost=9.5):
    rival = entry("clustered(arity=32)", BASELINE, [4.9] * n, [5.0] * n)
    found = entry("found #7", FOUND, [4.8] * n, test, cost=cost)
    huffman = entry("huffman", BASELINE, [5.5] * n, [5.5] * n)
    return comparison_notes(comparison_rows([huffman, rival, found, entry("found #8", FOUND, [5.2] * n, [5.2] * n)]))


def test_notes_by_hand():
    half = T_95_TWO * 0.001  # gains 0.1 - 0.001 and 0.1 + 0.001
    assert noted([4.901, 4.899]) == [
        f"found #7: better than clustered(arity=32): +0.1000 [{0.1 - half:+.4f}, {0.1 + half:+.4f}] nats"
    ]
    assert noted([5.101, 5.099]) == [
        f"found #7: worse than clustered(arity=32): -0.1000 [{-0.1 - half:.4f}, {-0.1 + half:+.4f}] nats"
    ]
    half = T_95_TWO * 0.1
    assert noted([4.8, 5.0]) == [
        f"found #7: not significant against clustered(arity=32): +0.1000 [{0.1 - half:+.4f}, {0.1 + half:+.4f}] nats"
    ]
    assert noted([4.9], n=1) == ["found #7: one seed, no interval, against clustered(arity=32): +0.1000 nats"]
    assert noted([4.9, 4.9], cost=1.0) == ["found #7: no builder of at most its cost was confirmed"]


def test_an_interval_that_touches_zero_includes_it():
    row = {"name": "found #1", "kind": FOUND, "best_builder": "b"}
    for low, says in ((0.0, "not significant"), (1e-12, "better")):
        (note,) = comparison_notes([row | {"reward_gain": {"mean": 0.1, "low": low, "high": 0.2, "n": 3}}])
        assert says in note


def test_no_notes_on_builders_candidates_and_files():
    assert comparison_notes(comparison_rows([HUFFMAN])) == []
    assert comparison_notes([{"name": "a.json", "kind": BASELINE}, {"name": "x", "kind": CANDIDATE}]) == []


# -- for each λ


def test_gains_for_each_weight_by_hand():
    builders = [
        HUFFMAN,
        entry("dear", BASELINE, [4.0, 4.0], [4.2, 4.4], cost=20.0),
        entry("cheap", BASELINE, [4.5, 4.5], [4.6, 4.6], cost=5.0),
    ]
    found = [
        entry("found #1", FOUND, [3.9, 3.9], [4.0, 4.0], cost=22.0),
        entry("found #2", FOUND, [4.6, 4.6], [4.7, 4.5], cost=5.5),
    ]
    gains = gains_by_weight([*builders, *found], cost_model=COST_MODEL, cost_weights=(0.0, 0.01, 0.2))
    assert json.loads(json.dumps(gains)) == gains
    assert [(g["cost_weight"], g["name"], g["best_builder"]) for g in gains] == [
        (0.0, "found #1", "dear"),
        (0.01, "found #1", "dear"),
        (0.2, "found #2", "cheap"),
    ]
    # NLL differences: 0.2 and 0.4 against "dear", -0.1 and 0.1 against "cheap"; standard error 0.1.
    assert [g["reward_gain"]["mean"] for g in gains] == pytest.approx([0.3, 0.3 - 0.02, 0.0 - 0.1])
    assert gains[1]["reward_gain"]["low"] == pytest.approx(0.28 - T_95_TWO * 0.1)
    assert comparison_notes(comparison_rows([*builders, *found]), gains)[2] == (
        f"found #2 at λ = 0.2: not significant against cheap: -0.1000 [{-0.1 - T_95_TWO * 0.1:.4f},"
        f" {-0.1 + T_95_TWO * 0.1:+.4f}] nats"
    )
    assert gains_by_weight(builders, cost_model=COST_MODEL, cost_weights=(0.1,)) == []
    (lonely,) = gains_by_weight(found, cost_model=COST_MODEL, cost_weights=(0.0,))
    assert lonely == {"cost_weight": 0.0, "name": "found #1"}
    assert comparison_notes([], [lonely]) == ["found #1 at λ = 0: no builder of at most its cost was confirmed"]


# -- times


def test_times_take_the_place_of_depths_in_100_columns():
    times = {HUFFMAN.finalist.promoted.tree.hash: StepTime(12.345, 0.1, 345.678, 2.0)}
    rows = comparison_rows([HUFFMAN, FOUND_TREE], times=times)
    assert rows[0]["head_us"] == 12.345
    text = printed(rows)
    heading, huffman = (text.splitlines()[i] for i in (2, 4))
    assert heading.split()[-5:] == ["cost", "head", "µs", "step", "µs"]
    assert "depth" not in heading
    assert huffman.split()[-3:] == ["9.50", "12.35", "345.68"]


@pytest.mark.parametrize("measured", [False, True])
def test_with_every_column_nothing_is_cut(measured):
    rows = comparison_rows([HUFFMAN, entry("found #123456", FOUND, [4.8, 5.0], [5.0, 5.0])])
    change = {"mean": -0.1234, "low": -0.1345, "high": -0.1123}
    for row in rows:
        row |= {"head_us": 1234.56, "step_us": 12345.67, "perplexity": 12345.6, "cost": 1234.5}
        row |= {"cost_measured_us": 123.45 if measured else None, "perplexity_change": change}
    text = printed(rows)
    assert max(Console().measure(line).maximum for line in text.splitlines()) <= 100
    assert "…" not in text
    for cell in ("1234.56", "12345.67", "12345.6", "1234.50", "-12.3 % [-13.5, -11.2]", "5.200"):
        assert cell in text
    assert ("123.45" in text) == measured


def test_the_difference_over_tokens_is_that_of_the_means_over_seeds() -> None:
    tokens = np.random.default_rng(0).exponential(5.0, 5000)
    shifted = [replace(HUFFMAN, token_nll=tokens), replace(FOUND_TREE, token_nll=tokens - 0.25)]
    row = tables.comparison_rows(shifted, cost_model=COST_MODEL)[1]
    over_tokens = row["difference_over_tokens"]
    assert over_tokens["n"] == 5000
    assert [over_tokens["low"], over_tokens["mean"], over_tokens["high"]] == pytest.approx([-0.25] * 3, abs=1e-5)
    assert "difference_over_tokens" not in tables.comparison_rows([HUFFMAN, FOUND_TREE], cost_model=COST_MODEL)[1]


# -- whatever the rows are, no line is too long and no number is cut

LONG_NAME = "clustered(arity=32, weight=0.25, projection=64, balance=0.125, vectors=similarity, within=huffman)"
EXTREME = {"perplexity": 123456.7, "cost": 12345.67, "expected_depth": 1234.56, "max_depth": 12345}


def full_rows(*, times, measured, metrics, interval):
    rows = comparison_rows([HUFFMAN, entry(LONG_NAME, BASELINE, [4.8, 5.0], [5.0, 5.0]), FOUND_TREE])
    for row in rows:
        row |= EXTREME | {"cost_measured_us": 123456.78 if measured else None}
        row |= {"head_us": 12345.67, "step_us": 123456.78} if times else {}
        row["metrics"] = {name: {"mean": 0.123456, "low": 0.1, "high": 0.2, "n": 2} for name in metrics}
        row["perplexity_change"] = {"mean": -0.1234, "low": interval[0], "high": interval[1]}
    return rows


@pytest.mark.parametrize("interval", [(-0.1345, -0.1123), (-0.9999, 123.456), (-1.0, 1e40)], ids=str)
@pytest.mark.parametrize("metrics", [(), ("accuracy",), ("hit_rate@10", "ndcg@10")], ids=str)
@pytest.mark.parametrize("measured", [False, True], ids=["analytic", "measured"])
@pytest.mark.parametrize("times", [False, True], ids=["untimed", "timed"])
def test_the_widest_table_fits_100_columns(times, measured, metrics, interval):
    text = printed(full_rows(times=times, measured=measured, metrics=metrics, interval=interval))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for number in ("123456.7", "12345.67", *["0.123"] * bool(metrics), *["123456.78"] * times):
        assert number in text
    low = "-13.5, -11.2" if interval[0] > -0.5 else "-100.0, +1.2e+04" if interval[1] < 1e9 else "-100.0, +1.0e+42"
    assert text.count(f"-12.3 % [{low}]") == 2
    assert "".join(LONG_NAME.split()) in "".join("".join(line.split("  ")[0].split()) for line in text.splitlines()[4:])


@pytest.mark.parametrize("width", [70, 80, 120])
def test_on_other_screens_numbers_are_left_out_but_not_cut(width):
    rows = full_rows(times=True, measured=True, metrics=("accuracy",), interval=(-0.1345, -0.1123))
    console = Console(file=io.StringIO(), width=width)
    console.print(comparison_table(rows, width=width))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "-12.3 % [-13.5, -11.2]" in text
    assert ("123456.78" in text) == (width > 80)


def test_names_of_trees_cannot_steer_the_terminal():
    text = printed(comparison_rows([HUFFMAN, entry("\x1b[2J\u202e", BASELINE, [4.8, 5.0], [5.0, 5.0])]))
    assert "\x1b" not in text
    assert r"\x1b[2J\u202e" in text

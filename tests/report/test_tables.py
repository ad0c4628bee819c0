import io
import json
import math

import pytest
from rich.console import Console

from treesearch import Tree
from treesearch.cost import TreeCost
from treesearch.report.tables import comparison_rows, comparison_table
from treesearch.search.confirm import BASELINE, FOUND, Confirmed, Finalist, Promoted
from treesearch.search.ledger import FROZEN, OK, EvaluationRow

T_95_TWO = 12.706204736174705  # Student's t, 97.5 % quantile, one degree of freedom
T_95_THREE = 4.302652729749462  # two degrees of freedom
CONTRACT = {"name", "kind", "test_nll", "valid_nll", "cost", "expected_depth", "dot_products", "max_depth"}


def entry(name, kind, valid, test, rate=0.004):
    row = EvaluationRow(
        id=3, rung=FROZEN, batch=0, agent="a", label=None, tree_hash="h", status=OK, reward=-5.5, valid_nll=5.25
    )
    promoted = Promoted(name, kind, row, Tree.from_nested([[0, 1], 2]), TreeCost(9.5, 9.25, 9.75, 14))
    return Confirmed(Finalist(promoted, rate, 5.0), valid, test)


HUFFMAN = entry("huffman", BASELINE, [5.0, 5.2], [5.1, 5.3])
FOUND_TREE = entry("found #7", FOUND, [4.8, 5.0], [5.0, 5.0])


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
    assert (row["frozen_nll"], row["frozen_reward"], row["learning_rate"]) == (5.25, -5.5, 0.004)
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

"""The headline: every sentence and figure against numbers that are computed here."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.report.page import runs
from treesearch.report.page.headline import best_found, headline
from treesearch.report.page.run_view import RunView, load_run

T_975_TWO = 4.302652729749462  # Student's t, two degrees of freedom


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("headline")


@pytest.fixture(scope="module")
def view(folder: Path) -> RunView:
    """A finished search, whose comparison tests put their own rows into."""
    return load_run(runs.large(folder / "run", num_evaluations=40, num_classes=60).path)


@pytest.fixture(scope="module")
def searched(view: RunView) -> RunView:
    """The same without a confirmation, stopped."""
    return replace(view, comparison=None)


def interval(values: list[float]) -> dict[str, float]:
    n, mean = len(values), sum(values) / len(values)
    half = 0.0
    if n > 1:
        assert n == 3
        half = T_975_TWO * math.sqrt(sum((value - mean) ** 2 for value in values) / 2 / 3)
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def row(name: str, kind: str, nll: list[float], cost: float, huffman: list[float], **more: Any) -> dict[str, Any]:
    test = interval(nll)
    change = interval([a - b for a, b in zip(nll, huffman, strict=True)])
    return {
        "name": name,
        "kind": kind,
        "test_nll": test,
        "valid_nll": test["mean"] + 0.01,
        "cost": cost,
        "perplexity": math.exp(test["mean"]),
        "reward": -test["mean"] - 0.005 * cost,
        "perplexity_change": {key: math.expm1(change[key]) for key in ("mean", "low", "high")},
        "tree": name,
    } | more


HUFFMAN = [5.0, 5.1, 5.2]


def compared(
    view: RunView,
    found: list[float] | None,
    *,
    others: list[dict[str, Any]] | None = None,
    n: int = 3,
    gain: list[float] | None = None,
    gains: list[dict[str, Any]] | None = None,
    **more: Any,
) -> RunView:
    rows = [row("huffman", "baseline", HUFFMAN[:n], 9.0, HUFFMAN[:n]), *(others or [])]
    if found is not None:
        if gain is not None:
            more |= {"best_builder": "huffman", "reward_gain": interval(gain)}
        rows.append(row("found #7", "found", found[:n], 7.2, HUFFMAN[:n], **more))
    return replace(view, comparison={"rows": rows, "gains": gains or [], "seeds": n, "evaluations": len(view.frozen)})


def test_confirmed_better(view: RunView) -> None:
    nll = [4.8, 4.9, 5.01]
    change = interval([a - b for a, b in zip(nll, HUFFMAN, strict=True)])
    assert change["high"] < 0
    said = headline(compared(view, nll, gain=[0.2, 0.21, 0.2]))
    share = 100 * (1 - math.exp(change["mean"]))
    assert said.verdict == f"found #7 has {share:.1f} % lower perplexity than the Huffman tree, at 0.80 of its cost."
    low, high = (100 * math.expm1(change[key]) for key in ("low", "high"))
    mean = sum(nll) / 3
    assert said.sentences[0].startswith(
        f"Against Huffman on the test split: perplexity {math.exp(mean):.2f} instead of {math.exp(5.1):.2f} (95 %"
        f" interval {low:+.1f} to {high:+.1f} % over 3 seeds), cost 7.20 instead of 9.00 binary-node units"
    )
    gain = interval([0.2, 0.21, 0.2])
    assert said.sentences[1].endswith(
        f"{gain['mean']:+.4f} nats [{gain['low']:+.4f}, {gain['high']:+.4f}], significantly better."
    )
    facts = {fact.label: (fact.value, fact.note) for fact in said.facts}
    assert facts["test perplexity"] == (f"{math.exp(mean):.2f}", f"Huffman {math.exp(5.1):.2f}")
    assert facts["cost, binary-node units"] == ("7.20", "Huffman 9.00")
    failed = sum(one.status == "failed" for one in view.frozen)
    assert facts["evaluations"][0] == "40"
    assert f"{failed} failed" in facts["evaluations"][1]


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        ([0.2, 0.21, 0.2], "significantly better"),
        ([-0.2, -0.21, -0.2], "significantly worse"),
        ([0.2, -0.2, 0.1], "not significant"),
    ],
)
def test_against_the_best_builder(view: RunView, gain: list[float], verdict: str) -> None:
    assert headline(compared(view, [4.8, 4.9, 5.0], gain=gain)).sentences[1].endswith(f"], {verdict}.")


def test_not_significant(view: RunView) -> None:
    said = headline(compared(view, [4.8, 5.3, 5.1]))
    assert said.verdict == (
        "found #7 and the Huffman tree do not differ significantly in perplexity, at 0.80 of its cost."
    )
    assert said.sentences[1] == "No builder of at most its cost was confirmed, so there is none to compare it with."


def test_worse(view: RunView) -> None:
    said = headline(compared(view, [5.2, 5.3, 5.4]))
    assert said.verdict.startswith(
        f"found #7 has {100 * math.expm1(0.2):.1f} % higher perplexity than the Huffman tree"
    )


def test_one_seed_has_no_interval(view: RunView) -> None:
    said = headline(compared(view, [4.9], n=1, gain=[0.109]))
    assert said.verdict.startswith(f"found #7 has {100 * (1 - math.exp(-0.1)):.1f} % lower perplexity")
    assert "(one seed, so no interval)" in said.sentences[0]
    assert said.sentences[1].endswith("+0.1090 nats, one seed, so no interval.")
    assert {fact.note for fact in said.facts} >= {"one seed"}
    assert not any("95 %" in sentence for sentence in said.sentences)


def test_a_builder_is_best(view: RunView) -> None:
    builder = row("balanced(arity=4)", "baseline", [4.7, 4.8, 4.9], 8.0, HUFFMAN)
    said = headline(compared(view, None, others=[builder]))
    assert said.verdict.startswith("balanced(arity=4) has ")
    assert "No tree of the search is among the confirmed ones: the best is a builder's own." in said.sentences


def test_huffman_is_best(view: RunView) -> None:
    assert headline(compared(view, None)).verdict == "Nothing is better than the Huffman tree here."


def test_huffman_was_not_confirmed(view: RunView) -> None:
    whole = compared(view, [4.8, 4.9, 5.0])
    assert whole.comparison is not None
    said = headline(replace(view, comparison=whole.comparison | {"rows": whole.comparison["rows"][1:]}))
    assert said.verdict == f"found #7: perplexity {math.exp(4.9):.1f} on the test split; Huffman was not confirmed."
    assert all(fact.note == "" for fact in said.facts[:2])


def test_several_weights(view: RunView) -> None:
    gains = [
        {
            "cost_weight": 0.001,
            "name": "found #7",
            "best_builder": "huffman",
            "reward_gain": interval([0.2, 0.2, 0.21]),
        },
        {"cost_weight": 0.02, "name": "found #9"},
    ]
    said = headline(compared(view, [4.8, 4.9, 5.0], gains=gains)).sentences
    assert any(line.startswith("Reward, found #7 at λ = 0.001: better than huffman: +0.2033") for line in said)
    assert "Reward, found #9 at λ = 0.02: no builder of at most its cost was confirmed." in said
    assert not any("so there is none to compare it with" in line for line in said)


def test_the_test_split_does_not_choose(view: RunView) -> None:
    """Two found trees: the one with the better validation reward is told of, though the other tests better."""
    lucky = row("found #8", "found", [4.0, 4.1, 4.2], 7.2, HUFFMAN, valid_nll=5.5)
    other = compared(view, [4.8, 4.9, 5.0], others=[lucky])
    assert other.comparison is not None
    best = best_found(other.comparison)
    assert best is not None
    assert best["name"] == "found #7"
    assert headline(other).verdict.startswith("found #7 has")


def test_times_are_told(view: RunView) -> None:
    whole = compared(view, [4.8, 4.9, 5.0], head_us=4.0, step_us=30.0)
    assert whole.comparison is not None
    whole.comparison["rows"][0] |= {"head_us": 8.0, "step_us": 40.0}
    said = headline(whole)
    assert said.sentences[0].endswith("A training step takes 0.75 times Huffman's (30.00 against 40.00 µs an example).")
    assert ("output layer, µs an example", "4.00", "Huffman 8.00") in {(f.label, f.value, f.note) for f in said.facts}


# -- without a confirmation -------------------------------------------------------------------------------------------


def test_from_the_frozen_rung(searched: RunView) -> None:
    weight = searched.config.cost.weight
    scored = [one for one in searched.frozen if one.valid_nll is not None and one.cost is not None]
    best = max(scored, key=lambda one: -(one.valid_nll or 0) - weight * (one.cost or 0))
    huffman = next(one for one in scored if one.label == "huffman")
    assert best.label is None
    assert best.valid_nll is not None
    assert huffman.valid_nll is not None
    said = headline(searched)
    assert said.verdict == (
        f"The best tree is found #{best.id}: validation perplexity {math.exp(best.valid_nll):.2f} on the frozen rung,"
        " not confirmed."
    )
    gain = huffman.valid_nll - best.valid_nll + weight * ((huffman.cost or 0) - (best.cost or 0))
    assert said.sentences[1] == (
        f"Against Huffman on the frozen rung: perplexity {math.exp(best.valid_nll):.2f} instead of"
        f" {math.exp(huffman.valid_nll):.2f}, reward {gain:+.4f} nats. One training each on fixed features: no"
        " interval."
    )


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        (
            {"running": True},
            "The search is running: 40 of 40 evaluations are done and the best trees are being trained",
        ),
        (
            {},
            "All 40 evaluations are done, but the search was stopped before the best trees were confirmed; go on with:"
            " treesearch resume ",
        ),
        (
            {"comparison": {"rows": [], "evaluations": 40}},
            "The search has finished 40 evaluations; nothing was confirmed",
        ),
        ({"path": Path("no/folder.db")}, "40 evaluations of a study; nothing is confirmed there."),
        (
            {"path": Path("no/folder.db"), "running": True, "complete": False},
            "The search, of a study, is running: 40 of 40 evaluations are done; none will be confirmed.",
        ),
        (
            {"path": Path("no/folder.db"), "complete": False},
            "The search was stopped after 40 of 40 evaluations; the same study, started again, begins it anew.",
        ),
    ],
)
def test_states(searched: RunView, changes: dict[str, Any], state: str) -> None:
    assert headline(replace(searched, **changes)).sentences[0].startswith(state)


def test_still_searching(searched: RunView) -> None:
    said = headline(replace(searched, running=True, rows=searched.frozen[:30]))
    assert said.sentences[0] == "The search is running: 30 of 40 evaluations are done."


def test_a_builder_leads_the_search(searched: RunView) -> None:
    """Then the best tree of the search's own is told of beside it; without any that is said."""
    rows = tuple(
        replace(one, valid_nll=0.5) if one.label is not None and one.label != "huffman" else one
        for one in searched.rows
    )
    leading = replace(searched, rows=rows)
    weight = searched.config.cost.weight
    own = [one for one in leading.frozen if one.label is None and one.valid_nll is not None]
    best = max(own, key=lambda one: -(one.valid_nll or 0) - weight * (one.cost or 0))
    built = min((one for one in leading.frozen if one.valid_nll == 0.5), key=lambda one: one.cost or 0)
    assert best.valid_nll is not None
    gain = 0.5 - best.valid_nll + weight * ((built.cost or 0) - (best.cost or 0))
    said = headline(leading)
    assert said.verdict.startswith(f"The best tree is {built.label}: validation perplexity {math.exp(0.5):.2f}")
    assert said.sentences[2] == (
        f"That is a builder's own tree. The best one that the search has found is found #{best.id}: perplexity"
        f" {math.exp(best.valid_nll):.2f}, reward {-gain:.4f} nats lower."
    )
    alone = replace(leading, rows=tuple(one for one in rows if one.label is not None))
    assert "That is a builder's own tree; the search has found no other yet." in headline(alone).sentences


def test_no_huffman(searched: RunView) -> None:
    rows = tuple(replace(one, valid_nll=None) if one.label == "huffman" else one for one in searched.rows)
    said = headline(replace(searched, rows=rows))
    assert "The Huffman tree has no score, so there is nothing to compare with." in said.sentences
    assert all("Huffman" not in fact.note for fact in said.facts)


def test_failures_are_told(folder: Path, searched: RunView) -> None:
    said = headline(load_run(runs.failures_only(folder / "failures").path))
    reason = "FloatingPointError: validation NLL is nan in evaluation 1"
    assert said.verdict == f"No evaluation has a score: 2 of 2 failed, the first with {reason}."
    assert said.sentences[-1] == f"2 of 2 evaluations failed; the first reason: {reason}."
    assert said.facts[-1].note.endswith("2 failed")
    few = headline(searched).sentences  # fewer than a tenth
    assert not any("the first reason" in sentence for sentence in few)


def test_nothing_yet(folder: Path) -> None:
    said = headline(load_run(runs.unfinished(folder / "unfinished").path))
    assert said.verdict == "No evaluation has finished yet."
    assert [fact.value for fact in said.facts] == ["0"]

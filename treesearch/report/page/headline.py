"""What a run has found, in words: the top of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from treesearch.report.cells import gain_cell, percent_against_huffman, signed
from treesearch.report.gains import gain_note, side_of_zero
from treesearch.report.page.places import perplexity
from treesearch.report.page.run_view import RunView
from treesearch.report.runs import best_of_kind
from treesearch.search.evaluation_row import FAILED, STOPPED, EvaluationRow
from treesearch.search.promotion import BASELINE, FOUND, HUFFMAN


@dataclass(frozen=True)
class Fact:
    """One figure with what it is, and what it is to be seen beside."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """Plain text: one sentence, what it rests on, and the figures."""

    verdict: str
    sentences: tuple[str, ...]
    facts: tuple[Fact, ...]


def headline(view: RunView) -> Headline:
    """What can be said of a run at this time."""
    if view.comparison is not None and view.comparison["rows"]:
        return _confirmed(view, view.comparison)
    return _searched(view)


# -- with a confirmation -----------------------------------------------------------------------------------------------


def best_found(comparison: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row of the found tree with the best validation reward."""
    return best_of_kind(comparison, FOUND)


def best_builder(comparison: Mapping[str, Any]) -> dict[str, Any] | None:
    """The builder's row with the best validation reward."""
    return best_of_kind(comparison, BASELINE)


def _confirmed(view: RunView, comparison: Mapping[str, Any]) -> Headline:
    rows = {row["name"]: row for row in comparison["rows"]}
    found, huffman = best_found(comparison), rows.get(HUFFMAN)
    best = found or best_builder(comparison)
    if best is None:
        return _searched(view)
    sentences = [] if view.outdated is None else [view.outdated]
    if huffman is None:
        verdict = f"{best['name']}: perplexity {best['perplexity']:.1f} on the test split; Huffman was not confirmed."
    elif best is huffman:
        verdict = "Nothing is better than the Huffman tree here."
    else:
        change = percent_against_huffman(best)
        verdict = _against_huffman(best, huffman, change)
        sentences.append(_interval(best, huffman, change))
    if found is None:
        sentences.append("No tree of the search is among the confirmed ones: the best is a builder's own.")
    else:
        sentences += _against_builder(found, rows, comparison)
    return Headline(verdict, (*sentences, *_warnings(view)), (*_figures(best, huffman, found), _evaluations(view)))


def _against_huffman(best: Mapping[str, Any], huffman: Mapping[str, Any], change: Mapping[str, float]) -> str:
    # What the reward charges: both have a measured cost, or neither.
    key, what = ("cost_measured_us", "measured cost") if huffman.get("cost_measured_us") else ("cost", "cost")
    cost = f"at {best[key] / huffman[key]:.2f} of its {what}" if huffman[key] else f"at a {what} of {best[key]:.2f}"
    if side_of_zero(change) == 0:
        return f"{best['name']} and the Huffman tree do not differ significantly in perplexity, {cost}."
    side = "lower" if change["mean"] < 0 else "higher"
    return f"{best['name']} has {abs(change['mean']):.1f} % {side} perplexity than the Huffman tree, {cost}."


def _interval(best: Mapping[str, Any], huffman: Mapping[str, Any], change: Mapping[str, float]) -> str:
    known = (
        f"95 % interval {signed(change['low'], 1)} to {signed(change['high'], 1)} % over {change['n']} seeds"
        if change["n"] > 1
        else "one seed, so no interval"
    )
    time = ""
    if best.get("step_us") and huffman.get("step_us"):
        time = (
            f" A training step takes {best['step_us'] / huffman['step_us']:.2f} times Huffman's"
            f" ({best['step_us']:.2f} against {huffman['step_us']:.2f} µs an example)."
        )
    return (
        f"Against Huffman on the test split: perplexity {best['perplexity']:.2f} instead of {huffman['perplexity']:.2f}"
        f" ({known}), cost {best['cost']:.2f} instead of {huffman['cost']:.2f} binary-node units, each trained at its"
        f" own best learning rate.{time}"
    )


def _against_builder(
    found: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], comparison: Mapping[str, Any]
) -> list[str]:
    """Against the best builder of at most its cost, under every λ of the run."""
    gains = comparison.get("gains") or []
    sentences = []
    rival = rows.get(found.get("best_builder", ""))
    if rival is not None:
        change = math.expm1(found["test_nll"]["mean"] - rival["test_nll"]["mean"])
        sentences.append(
            f"Against the best builder of at most its cost, {rival['name']}: perplexity {found['perplexity']:.2f} and"
            f" {rival['perplexity']:.2f} ({100 * change:+.1f} %), cost {found['cost']:.2f} and {rival['cost']:.2f}; the"
            f" reward counts both: {_verdict(found)}."
        )
    elif not gains:
        sentences.append("No builder of at most its cost was confirmed, so there is none to compare it with.")
    return sentences + [f"Reward, {gain_note(gain)}." for gain in gains]


def _verdict(found: Mapping[str, Any]) -> str:
    gain = found["reward_gain"]
    side = side_of_zero(gain)
    if side is None:
        return f"{gain['mean']:+.4f} nats, one seed, so no interval"
    verdict = {1: "significantly better", -1: "significantly worse", 0: "not significant"}[side]
    return f"{gain_cell(gain, 4, unit=' nats')}, {verdict}"


def _figures(
    best: Mapping[str, Any], huffman: Mapping[str, Any] | None, found: Mapping[str, Any] | None
) -> tuple[Fact, ...]:
    def beside(key: str, digits: int) -> str:
        return "" if huffman is None else f"Huffman {huffman[key]:.{digits}f}"

    facts = [
        Fact("test perplexity", f"{best['perplexity']:.2f}", beside("perplexity", 2)),
        Fact("cost, binary-node units", f"{best['cost']:.2f}", beside("cost", 2)),
    ]
    if best.get("cost_measured_us") is not None:
        facts.append(
            Fact("measured cost, µs an example", f"{best['cost_measured_us']:.2f}", beside("cost_measured_us", 2))
        )
    if best.get("head_us") is not None:
        facts.append(Fact("output layer, µs an example", f"{best['head_us']:.2f}", beside("head_us", 2)))
    if found is not None and "reward_gain" in found:
        gain = found["reward_gain"]
        note = f"{gain['low']:+.4f} to {gain['high']:+.4f}" if gain["n"] > 1 else "one seed"
        facts.append(Fact("reward over the best builder of at most its cost, nats", f"{gain['mean']:+.4f}", note))
    return tuple(facts)


# -- without ----------------------------------------------------------------------------------------------------------


def _searched(view: RunView) -> Headline:
    """From the frozen rung alone."""
    state = _state(view)
    best = best_scored(view)
    if best is None:
        return Headline(_nothing(view), (state, *_warnings(view)), (_evaluations(view),))
    reward = view.reward(best)
    assert best.valid_nll is not None
    own = f"{perplexity(best.valid_nll):.2f}"
    so_far = " so far" if view.running else ""
    verdict = (
        f"The best tree{so_far} is {view.tree_name(best)}: validation perplexity {own} on the frozen rung, not"
        " confirmed."
    )
    facts = [Fact("validation perplexity, frozen rung", own)]
    sentences = [state]
    huffman = view.huffman
    if huffman is None or huffman.valid_nll is None:
        sentences.append("The Huffman tree has no score, so there is nothing to compare with.")
    else:
        facts[0] = Fact(facts[0].label, facts[0].value, f"Huffman {perplexity(huffman.valid_nll):.2f}")
        over, rewarded = view.reward(huffman), reward
        gain = "" if over is None or rewarded is None else f", reward {rewarded - over:+.4f} nats"
        sentences.append(
            f"Against Huffman on the frozen rung: perplexity {own} instead of"
            f" {perplexity(huffman.valid_nll):.2f}{gain}. One training each on fixed features: no interval."
        )
    sentences += _best_found(view, best)
    if best.cost is not None:
        note = f"Huffman {huffman.cost:.2f}" if huffman is not None and huffman.cost is not None else ""
        facts.append(Fact("cost, binary-node units", f"{best.cost:.2f}", note))
    if best.cost_measured_us is not None:
        of = None if huffman is None else huffman.cost_measured_us
        note = "" if of is None else f"Huffman {of:.2f}"
        facts.append(Fact("measured cost, µs an example", f"{best.cost_measured_us:.2f}", note))
    return Headline(verdict, (*sentences, *_warnings(view)), (*facts, _evaluations(view)))


def best_scored(view: RunView, *, found: bool = False) -> EvaluationRow | None:
    """The row with the best validation reward of the frozen rung; of equals the first.

    Args:
        view: The run.
        found: Leave the builders' own trees out.
    """
    built = view.builders if found else {}
    rewards = [
        (reward, -row.id, row)
        for row in view.scored
        if row.tree_hash not in built and (reward := view.reward(row)) is not None
    ]
    return max(rewards, key=lambda one: one[:2])[2] if rewards else None


def _best_found(view: RunView, best: EvaluationRow) -> list[str]:
    """What the search itself has found, where a builder's tree is the best."""
    found = best_scored(view, found=True)
    if found is not None and found.tree_hash == best.tree_hash:
        return []
    if found is None:
        return ["That is a builder's own tree; the search has found no other yet."]
    below, above = view.reward(found), view.reward(best)
    if below is None or above is None or found.valid_nll is None:  # as mypy cannot know, both have a reward
        return []
    return [
        f"That is a builder's own tree. The best one that the search has found is {view.tree_name(found)}: perplexity"
        f" {perplexity(found.valid_nll):.2f}, reward {above - below:.4f} nats lower."
    ]


def _state(view: RunView) -> str:
    budget = view.config.search.evaluations
    if view.comparison is not None and not view.outdated:
        return f"The search has finished {len(view.frozen)} evaluations; nothing was confirmed (confirm.seeds is 0)."
    if view.in_study:
        return _state_in_study(view)
    if view.running:
        later = " and the best trees are being trained jointly" if len(view.frozen) >= budget else ""
        return f"The search is running: {len(view.frozen)} of {budget} evaluations are done{later}."
    if len(view.frozen) >= budget:
        return (
            f"All {len(view.frozen)} evaluations are done, but the search was stopped before the best trees were"
            f" confirmed; go on with: treesearch resume {view.path}"
        )
    return (
        f"The search was stopped after {len(view.frozen)} of {budget} evaluations; go on with: treesearch resume"
        f" {view.path}"
    )


def _state_in_study(view: RunView) -> str:
    done, budget = len(view.frozen), view.config.search.evaluations
    if view.running:
        return f"The search, of a study, is running: {done} of {budget} evaluations are done; none will be confirmed."
    if not view.finished:
        return (
            f"The search was stopped after {done} of {budget} evaluations; the same study, started again, begins it"
            " anew."
        )
    return f"{done} evaluations of a study; nothing is confirmed there."


def _nothing(view: RunView) -> str:
    if any(row.valid_nll is not None for row in view.frozen):
        return "The encoder was trained again, and no evaluation under it has a score yet."
    failed = [row for row in view.frozen if row.status == FAILED]
    if failed:
        return (
            f"No evaluation has a score: {len(failed)} of {len(view.frozen)} failed, the first with {failed[0].reason}."
        )
    return f"No evaluation has {'a score: all were stopped early' if view.frozen else 'finished yet'}."


def _evaluations(view: RunView) -> Fact:
    failed = sum(row.status == FAILED for row in view.frozen)
    stopped = sum(row.status == STOPPED for row in view.frozen)
    notes = [f"{view.agent}", f"{failed} failed", *([f"{stopped} stopped early"] if stopped else [])]
    return Fact("evaluations", f"{len(view.frozen)}", ", ".join(notes))


def _warnings(view: RunView) -> list[str]:
    failed = [row for row in view.frozen if row.status == FAILED]
    if not failed or len(failed) < len(view.frozen) / 10:
        return []
    return [f"{len(failed)} of {len(view.frozen)} evaluations failed; the first reason: {failed[0].reason}."]

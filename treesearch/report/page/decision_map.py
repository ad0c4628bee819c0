"""Which actions an agent takes, by depth of the node and by the share of examples that reach it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.report.page.run_view import RunView
from treesearch.search.evaluation_row import BUILDER

MAX_DEPTH = 8  # the last column: this deep or deeper
# Columns by share of examples: from this share on, the heaviest first.
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0)
OTHER = "other actions"


@dataclass(frozen=True, eq=False)
class Decisions:
    """All decisions of an agent's trees in order of evaluation; n decisions of a actions."""

    actions: tuple[str, ...]  # [a] names by total use, the most used first
    action: NDArray[np.int64]  # [n] index into actions
    depth: NDArray[np.int64]  # [n] of the node that was decided
    share: NDArray[np.float64]  # [n] of the examples that reach it
    third: NDArray[np.int64]  # [n] of the search: 0, 1 or 2
    num_trees: int  # that they built


def decisions(view: RunView) -> Decisions:
    """What the agent decided in the trees that it proposed; empty where the ledger does not tell."""
    codes: dict[str, int] = {}
    action: list[int] = []
    places: list[NDArray[np.float64]] = [np.zeros((0, 2))]
    thirds: list[int] = []
    rows = [
        (number, row)
        for number, row in enumerate(view.frozen)
        if row.agent != BUILDER and row.actions is not None and row.decisions is not None
    ]
    for number, row in rows:
        names, taken = row.action_names(), row.places()
        size = min(len(names), len(taken))
        action.extend([codes.setdefault(name, len(codes)) for name in names[:size]])
        places.append(taken[:size])
        thirds += [3 * number // len(view.frozen)] * size
    depth, share = np.concatenate(places).T
    used = np.bincount(np.array(action, np.int64), minlength=len(codes))
    names_by_code = list(codes)
    order = sorted(range(len(codes)), key=lambda code: (-used[code], names_by_code[code]))
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(codes))
    return Decisions(
        actions=tuple(names_by_code[code] for code in order),
        action=rank[np.array(action, np.int64)],
        depth=depth.astype(np.int64),
        share=share,
        third=np.array(thirds, np.int64),
        num_trees=len(rows),
    )


def depth_bins(depth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Column of each depth."""
    return np.clip(depth, 0, MAX_DEPTH)


def share_bins(share: NDArray[np.float64]) -> NDArray[np.int64]:
    """Column of each share of examples."""
    return np.searchsorted(-np.array(SHARES), -share)


def use_by_bin(
    action: NDArray[np.int64], bins: NDArray[np.int64], *, num_actions: int, num_bins: int
) -> NDArray[np.int64]:
    """How often each action was taken in each column: [num_actions, num_bins]."""
    return np.bincount(action * num_bins + bins, minlength=num_actions * num_bins).reshape(num_actions, num_bins)


def pooled(names: Sequence[str], *, limit: int) -> tuple[list[str], NDArray[np.int64]]:
    """The first actions by name, and the others together where there are more than ``limit``; row of each action."""
    if len(names) <= limit:
        return list(names), np.arange(len(names))
    return [*names[: limit - 1], OTHER], np.minimum(np.arange(len(names)), limit - 1)

"""What a frozen score owes to choosing, learned from trees that the warm rung has trained too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from treesearch.search.ledger import EvaluationRow

FEWEST_TREES = 8  # from fewer nothing is learned


@dataclass(frozen=True)
class Correction:
    """Nats that a frozen NLL is too low, by the number of different decisions in a tree.

    A search that chooses one of dozens of actions at every node picks up luck with the held-out tokens and with the
    encoder's features. Builders' trees and those that do the same everywhere hold little of it, trees of many
    different decisions much.
    """

    slope: float = 0.0  # nats for each e-fold of different decisions
    num_trees: int = 0  # that it was learned from

    @classmethod
    def learn(cls, frozen: Mapping[str, EvaluationRow], warm: Mapping[str, float]) -> Correction:
        """The median slope (Theil 1950, Sen 1968) of warm minus frozen NLL over the log of different decisions.

        Args:
            frozen: Rows with a validation NLL by tree hash.
            warm: Validation NLL after warm training, by tree hash.
        """
        both = [tree_hash for tree_hash in warm if tree_hash in frozen]
        logs = np.array([_log_decisions(frozen[one]) for one in both])
        if len(both) < FEWEST_TREES or np.ptp(logs) == 0:
            return cls()
        gaps = np.array([warm[one] - float(frozen[one].valid_nll or np.nan) for one in both])
        one, other = np.triu_indices(len(both), 1)
        differ = logs[one] != logs[other]
        slopes = (gaps[one] - gaps[other])[differ] / (logs[one] - logs[other])[differ]
        return cls(float(np.median(slopes)), len(both))

    def nats(self, row: EvaluationRow) -> float:
        """What to add to the frozen NLL of a tree, up to what is the same for all trees."""
        return self.slope * _log_decisions(row)


def _log_decisions(row: EvaluationRow) -> float:
    """Log of the number of different actions; a builder is one."""
    return float(np.log(1 if row.actions is None else len(set(json.loads(row.actions)))))

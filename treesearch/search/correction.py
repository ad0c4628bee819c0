"""What a frozen score owes to choosing, learned from trees that the warm rung has trained too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from treesearch.search.evaluation_row import EvaluationRow

CORRECTION = "correction"  # meta entry of the ledger
FEWEST_TREES = 8  # from fewer nothing is learned


@dataclass(frozen=True)
class Correction:
    """Nats that a frozen NLL is too low, by the number of different actions in a proposed tree.

    A search that chooses one of dozens of actions at every node picks up luck with the held-out tokens and with the
    encoder's features. Trees that do the same everywhere hold little of it, trees of many different actions much.
    """

    slope: float = 0.0  # nats for each e-fold of different actions, >= 0
    num_trees: int = 0  # that it was learned from

    @classmethod
    def learn(cls, frozen: Mapping[str, EvaluationRow], warm: Mapping[str, float]) -> Correction:
        """The median slope (Theil 1950, Sen 1968) of warm minus frozen NLL over the log of different actions.

        Builders' trees are left out: their gap differs for other reasons, and they never compete with proposed ones.

        Args:
            frozen: Rows with a validation NLL by tree hash.
            warm: Validation NLL after warm training, by tree hash.
        """
        both = [one for one in warm if one in frozen and frozen[one].actions is not None]
        logs = np.array([_log_actions(frozen[one]) for one in both])
        if len(both) < FEWEST_TREES or np.ptp(logs) == 0:
            return cls()
        gaps = np.array([warm[one] for one in both]) - np.array([frozen[one].valid_nll for one in both], np.float64)
        one, other = np.triu_indices(len(both), 1)
        differ = logs[one] != logs[other]
        slopes = (gaps[one] - gaps[other])[differ] / (logs[one] - logs[other])[differ]
        return cls(max(0.0, float(np.median(slopes))), len(both))

    def nats(self, row: EvaluationRow) -> float:
        """What to add to the frozen NLL of a tree, up to what is the same for all trees."""
        return self.slope * _log_actions(row)


def _log_actions(row: EvaluationRow) -> float:
    """Log of the number of different actions; a builder is one."""
    return float(np.log(max(1, len(set(row.action_names())))))

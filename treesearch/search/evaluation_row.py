"""One row of the ledger: what is known of an evaluation, and the words for its rung and its end."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel

OK, FAILED, CACHED, STOPPED = "ok", "failed", "cached", "stopped"
FROZEN, WARM, JOINT, CONFIRM = "frozen", "warm", "joint", "confirm"
BUILDER = "builder"  # agent of a builder's own trees


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One evaluation. ``None`` where a column does not apply to the rung or the evaluation failed."""

    id: int
    rung: str  # frozen, warm, joint or confirm
    batch: int
    agent: str  # who proposed the tree; "builder" for builders
    label: str | None  # the builder's label
    tree_hash: str
    status: str  # ok, failed, cached (the tree had been evaluated before) or stopped (not worth finishing)
    reason: str | None = None  # of a failure or a stop
    attempts: int = 1
    cost_weight: float | None = None  # λ of the reward, nats per unit
    reward: float | None = None  # nats
    valid_nll: float | None = None  # nats per token
    subset_nll: float | None = None  # nats per token, after training on the subset of tokens
    test_nll: float | None = None  # nats per token, rung confirm only
    cost: float | None = None  # analytic, binary-node units
    cost_measured_us: float | None = None  # microseconds per example, where cost.kind is measured
    expected_depth: float | None = None
    dot_products: float | None = None
    max_depth: int | None = None
    num_nodes: int | None = None  # internal nodes
    nodes_trained: int | None = None  # of these, the ones that no earlier tree had trained
    staleness: int | None = None  # updates of the agent between proposal and verdict, rung frozen
    learning_rate: float | None = None  # all rungs but frozen
    seed: int | None = None  # the same
    epochs: int | None = None  # trained, the same
    actions: str | None = None  # JSON list of the action names that built the tree
    decisions: str | None = (
        None  # JSON list, for each action [depth of the node that it decided, its share of examples]
    )
    encoder: str | None = None  # hash of the features, rung frozen
    seconds: float = 0.0  # wall time in the worker
    worker: str = ""
    finished_at: float | None = None  # Unix time; None: when it is recorded

    def action_names(self) -> list[str]:
        """The actions that built the tree; none for a builder's."""
        names: list[str] = [] if self.actions is None else json.loads(self.actions)
        return names

    def places(self) -> NDArray[np.float64]:
        """Of each action [n, 2]: depth of the node that it decided, its share of examples; none where it is not kept.

        Ten times as fast as `json`, which 10,000 trees need.
        """
        numbers = (self.decisions or "").translate(_NO_BRACKETS)
        return np.fromstring(numbers, np.float64, sep=",").reshape(-1, 2) if numbers.strip() else np.zeros((0, 2))

    def units(self, cost_model: CostModel) -> float:
        """What the tree is charged under this cost model."""
        return cost_model.charged(self.cost or 0.0, self.cost_measured_us)

    def validation_reward(self, cost_model: CostModel, weight: float | None = None) -> float:
        """Reward under this λ or the model's, whichever the tree was proposed for; minus infinity without a score."""
        if self.valid_nll is None:
            return -math.inf
        return -self.valid_nll - (cost_model.weight if weight is None else weight) * self.units(cost_model)

    def content(self) -> dict[str, Any]:
        """All that must not depend on when and where the evaluation ran."""
        return {key: value for key, value in asdict(self).items() if key not in _CIRCUMSTANCES}


_NO_BRACKETS = str.maketrans("", "", "[]")
_CIRCUMSTANCES = ("seconds", "worker", "attempts", "finished_at")

"""`OutOfScopeModel`: how probable it is that a document is out of scope, from what a classifier says of it.

Shapes: **B** documents, **F** features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from treesearch.applications.cascade.scores import Known, Scores
from treesearch.applications.cascade.task import ROOT_NODE

RIDGE = 1e-2  # of the squared weights, in all: documents that can be told apart perfectly have finite weights
STEPS = 50
LEAST_LOG = -700.0  # of a probability of 0
CLOSEST = 1e-9  # to 0 and 1 of probabilities whose log-odds are features


@dataclass(frozen=True, eq=False)
class OutOfScopeModel:
    """A logistic regression on the entropy of the classes (nats) and on log-odds.

    Those of the likeliest class, of the likeliest node under the root, and, where trained, of being out of scope.
    The classifier's own probability of the latter is that of the training split, where such documents are rarer or
    other ones than later; a classifier that has seen none has none.
    """

    mean: Tensor  # float64 [F]
    deviation: Tensor  # float64 [F]
    weight: Tensor  # float64 [F + 1], the constant last

    @classmethod
    def fit(cls, known: Known) -> Self | None:
        """Fit to documents of both kinds, by Newton's method; None where there is only one kind."""
        outside_B = (known.truth == ROOT_NODE).double()
        if not 0 < float(outside_B.sum()) < len(outside_B):
            return None
        features_BF = _features(known.scores)
        mean_F, deviation_F = features_BF.mean(0), features_BF.std(0).clamp(min=CLOSEST)
        input_BF = _inputs(features_BF, mean_F, deviation_F)
        num_weights = input_BF.shape[1]
        ridge_F = torch.full((num_weights,), RIDGE, dtype=torch.float64)
        ridge_F[-1] = CLOSEST  # the share of either kind is not held back
        weight_F = torch.zeros(num_weights, dtype=torch.float64)
        for _ in range(STEPS):
            prob_B = (input_BF @ weight_F).sigmoid()
            gradient_F = input_BF.T @ (known.weight * (prob_B - outside_B)) + ridge_F * weight_F
            curvature_B = known.weight * prob_B * (1 - prob_B)
            hessian_FF = (input_BF * curvature_B[:, None]).T @ input_BF + ridge_F.diag()
            step_F = torch.linalg.solve(hessian_FF, gradient_F)
            weight_F = weight_F - step_F.clamp(-1, 1)  # a whole step may run away far from the optimum
        return cls(mean_F, deviation_F, weight_F)

    def probability(self, scores: Scores) -> Tensor:
        """Of each document to be out of scope, float64 [B]."""
        return (_inputs(_features(scores), self.mean, self.deviation) @ self.weight).sigmoid()


def _inputs(features_BF: Tensor, mean_F: Tensor, deviation_F: Tensor) -> Tensor:
    scaled_BF = (features_BF - mean_F) / deviation_F
    return torch.cat([scaled_BF, scaled_BF.new_ones(len(scaled_BF), 1)], 1)


def _features(scores: Scores) -> Tensor:
    log_prob_BC = scores.in_scope.class_log_prob
    entropy_B = -(log_prob_BC.exp() * log_prob_BC.clamp(min=LEAST_LOG)).sum(1)
    values = [log_prob_BC.max(1).values.exp(), scores.in_scope.prob[:, scores.top_nodes].max(1).values]
    if scores.is_trained:
        values.append(scores.root_probability)
    return torch.cat([torch.stack(values, 1).logit(CLOSEST), entropy_B[:, None]], 1)

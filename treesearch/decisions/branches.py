"""`PathBranches`: the decisions on the way to a class, each with the most probable of its other children.

Only the nodes of the paths are scored, and no number is kept for any other: an audit costs what the paths cost.

Shapes: **B** batch, **D** features, **C** classes, **E** decisions of the batch (**e** of them), **G** groups of
similar size, **c** entries of the largest, **K** arity, **L** longest path of the batch, **A** alternatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from treesearch.paths import Paths
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.dispatch import Parameters
from treesearch.softmax.reference_decisions import outcomes
from treesearch.softmax.reference_plan import path_decisions
from treesearch.softmax.reference_tables import Tables
from treesearch.tree import Tree

NO_NODE = -1  # beyond the end of a path, or where there are no more alternatives
NUMBERS_AT_ONCE = 1 << 23  # logits and inputs of one part of a batch


@dataclass(frozen=True, eq=False)
class PathBranches:
    """The decisions on a path for each example, root first; on the CPU, without gradients."""

    node: Tensor  # int64 [B, L] internal node, NO_NODE beyond the end
    taken: Tensor  # int64 [B, L] child on the path
    log_prob: Tensor  # [B, L] of the child on the path, nats; 0 beyond the end
    alternative: Tensor  # int64 [B, L, A] the other children, most probable first; NO_NODE where there are no more
    alternative_log_prob: Tensor  # [B, L, A] nats; -inf where there are no more

    @classmethod
    def empty(cls, batch: int, length: int, num_alternatives: int) -> PathBranches:
        """Room for so many decisions, as if there were none."""
        return cls(
            torch.full((batch, length), NO_NODE),
            torch.full((batch, length), NO_NODE),
            torch.zeros(batch, length, dtype=torch.float64),
            torch.full((batch, length, num_alternatives), NO_NODE),
            torch.full((batch, length, num_alternatives), -torch.inf, dtype=torch.float64),
        )


def layer_branches(
    layer: HierarchicalSoftmax, input_BD: Tensor, target_B: Tensor, num_alternatives: int
) -> PathBranches:
    """The decisions of a layer on the way to the targets.

    Args:
        layer: Over C classes.
        input_BD: Of the layer's type and device.
        target_B: int64 class ids in [0, C).
        num_alternatives: A >= 1.
    """
    tree = layer.tree
    tables = Tables.of(layer.layout, input_BD.device)
    parameters = Parameters(list(layer.weights), list(layer.biases), list(layer.projections)).with_biases()
    depth_B = tree.depths[target_B.cpu().numpy()]
    found = PathBranches.empty(len(target_B), int(depth_B.max(initial=0)), num_alternatives)
    per_class = tree.path_sums(np.where(tree.arities > 2, tree.arities, 0) + 2 * layer.in_features)
    with torch.no_grad():
        for rows in parts(per_class[target_B.cpu().numpy()] + layer.in_features):
            decisions, entry_E = path_decisions(tables, target_B[rows])
            if not entry_E.numel():
                continue
            best = _BestBranches(tables.path_branch[entry_E], num_alternatives)
            for place_e, log_prob_e in outcomes(tables, decisions, best, input_BD[rows], *parameters, False):
                best.log_prob[place_e] = log_prob_e.double()
            depth_E = entry_E - tables.path_ptr[target_B[rows]][decisions.row]
            row_E, depth_E = decisions.row.cpu() + rows.start, depth_E.cpu()
            node_E = decisions.node.cpu()
            found.node[row_E, depth_E] = node_E
            found.taken[row_E, depth_E] = children(tree, node_E, tables.path_branch[entry_E].cpu())
            found.log_prob[row_E, depth_E] = best.log_prob.cpu()
            found.alternative[row_E, depth_E] = children(tree, node_E[:, None], best.branch.cpu())
            found.alternative_log_prob[row_E, depth_E] = best.branch_log_prob.cpu()
    return found


def parts(numbers_B: np.ndarray) -> Iterator[slice]:
    """Successive rows of a batch that take about `NUMBERS_AT_ONCE` numbers together, one row at least."""
    if not numbers_B.size:
        return
    part_B = (np.cumsum(numbers_B) // NUMBERS_AT_ONCE).astype(np.int64)
    begins = np.concatenate([[0], np.flatnonzero(np.diff(part_B)) + 1, [part_B.size]]).tolist()
    for begin, end in pairwise(begins):
        yield slice(begin, end)


def children(tree: Tree, node: Tensor, branch: Tensor) -> Tensor:
    """Node ids of the children at these branches, `NO_NODE` where the branch is below 0; shapes are broadcast."""
    first = torch.from_numpy(tree.child_ptr.astype(np.int64))[node.clamp(min=0)]
    child_idx = torch.from_numpy(tree.child_idx.astype(np.int64))
    return torch.where(branch < 0, NO_NODE, child_idx[first + branch.clamp(min=0)])


def path_table(tree: Tree, paths: Paths, target_B: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and branches of the targets' paths, int64 [B, L] each; `NO_NODE` beyond the end."""
    target = target_B.cpu().numpy()
    depth_B = tree.depths[target]
    place_BL = np.arange(int(depth_B.max(initial=0)))
    real_BL = place_BL < depth_B[:, None]
    entry_BL = np.where(real_BL, paths.ptr[target][:, None] + place_BL, 0)
    columns = [
        np.where(real_BL, column[entry_BL], NO_NODE).astype(np.int64)
        if column.size
        else np.zeros(entry_BL.shape, np.int64)
        for column in (paths.node, paths.branch)
    ]
    return torch.from_numpy(columns[0]), torch.from_numpy(columns[1])


def best_others(log_prob: Tensor, taken: Tensor, num: int, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The most probable branches of decisions but for the one taken.

    Args:
        log_prob: [..., K], of the branches of each decision.
        taken: int64 [...], branch.
        num: How many, A.
        padding: bool [..., K], what is no branch; None where all are.

    Returns:
        Log-probabilities and branches, [..., A], best first; -inf and `NO_NODE` where there are no more.
    """
    # A branch whose probability is 0 is one nevertheless: it comes before what is none.
    rank = log_prob.clamp(min=torch.finfo(log_prob.dtype).min).scatter(-1, taken[..., None], -torch.inf)
    if padding is not None:
        rank = rank.masked_fill(padding, -torch.inf)
    best, branch = rank.topk(min(num, log_prob.shape[-1]), dim=-1)
    none = best == -torch.inf
    value = log_prob.gather(-1, branch).masked_fill(none, -torch.inf)
    branch = branch.masked_fill(none, NO_NODE)
    missing = num - branch.shape[-1]
    return functional.pad(value, (0, missing), value=-torch.inf), functional.pad(branch, (0, missing), value=NO_NODE)


class _BestBranches:
    """An `Outcome` (`treesearch.softmax.reference_decisions`) that keeps the best other branches by the way."""

    def __init__(self, branch_E: Tensor, num_alternatives: int) -> None:
        shape = (branch_E.numel(), num_alternatives)
        self._taken_E = branch_E
        self.log_prob = torch.zeros(branch_E.numel(), dtype=torch.float64, device=branch_E.device)
        self.branch = torch.full(shape, NO_NODE, device=branch_E.device)
        self.branch_log_prob = torch.full(shape, -torch.inf, dtype=torch.float64, device=branch_E.device)

    def binary(self, entry_e: Tensor, logit_e: Tensor) -> Tensor:
        """See `Outcome`."""
        taken_e = self._taken_E[entry_e]
        signed_e = logit_e * (1 - 2 * taken_e)
        self.branch[entry_e, 0] = 1 - taken_e
        self.branch_log_prob[entry_e, 0] = functional.logsigmoid(-signed_e).double()
        return functional.logsigmoid(signed_e)

    def wide(self, entry_Gc: Tensor, logit_GcK: Tensor, padding_GK: Tensor) -> Tensor:
        """See `Outcome`."""
        taken_Gc = self._taken_E[entry_Gc]
        total_Gc1 = logit_GcK.logsumexp(2, keepdim=True)
        value, branch = best_others(logit_GcK, taken_Gc, self.branch.shape[1], padding_GK[:, None])
        self.branch[entry_Gc] = branch
        self.branch_log_prob[entry_Gc] = (value - total_Gc1).double()
        return (logit_GcK.gather(2, taken_Gc[..., None]) - total_Gc1).squeeze(2)

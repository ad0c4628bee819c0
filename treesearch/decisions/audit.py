"""`explain`: why each example of a batch was given its class, decision by decision.

Shapes: **B** batch, **D** features of the layer, **F** input features, **L** longest path of the batch, **A**
alternatives, **T** top features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.tree import Tree as RichTree
from torch import Tensor, nn

from treesearch.decisions.branches import NO_NODE, PathBranches, layer_branches
from treesearch.decisions.posthoc import PosthocTree
from treesearch.decisions.top_features import NO_FEATURE, TopFeatures, top_features
from treesearch.errors import DataError
from treesearch.metrics.base import check_classes, check_whole
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.checks import flat_input
from treesearch.tree import Tree
from treesearch.tree_files import write_atomically

Ids = NDArray[np.int64]
Numbers = NDArray[np.float64]
Encoder = Callable[[Tensor], Tensor]
ENCODED_AT_ONCE = 4096  # examples


@dataclass(frozen=True, eq=False)
class Audit:
    """The paths of a batch: each example its own, root first. Log-probabilities are in nats.

    Beyond the end of a path nodes are `NO_NODE`, log-probabilities of decisions 0, margins and contributions 0; where
    there are no more alternatives they are `NO_NODE`, of log-probability -inf.
    """

    tree: Tree
    classes: Ids  # [B] the class at the end of the path: the most probable one, or the target that was asked for
    node: Ids  # [B, L] internal node of the decision
    taken: Ids  # [B, L] child on the path
    log_prob: Numbers  # [B, L] log P(child taken | node)
    path_log_prob: Numbers  # [B, L] running sum: log P(child taken); of the class from the end of the path on
    alternative: Ids  # [B, L, A] the most probable other children, best first
    alternative_log_prob: Numbers  # [B, L, A] log P(alternative | node)
    margin: Numbers  # [B, L] log P(taken) - log P(best alternative): the branch logit; < 0 where not the likeliest
    features: TopFeatures | None = None  # of the margins; None where none were asked for
    feature_names: tuple[str, ...] | None = None  # [F]

    NO_NODE: ClassVar[int] = NO_NODE
    NO_FEATURE: ClassVar[int] = NO_FEATURE

    def __len__(self) -> int:
        return int(self.classes.size)

    @property
    def length(self) -> Ids:
        """Decisions of each path, int64 [B]."""
        return (self.node != NO_NODE).sum(1)

    @property
    def detour(self) -> NDArray[np.bool_]:
        """Decisions that did not take the likeliest child, bool [B, L].

        The most probable class need not lie below the likeliest child of every node: there it is spread over many.
        """
        return self.margin < 0

    @property
    def class_log_prob(self) -> Numbers:
        """Log-probability of the class, [B]."""
        return self.log_prob.sum(1)

    def records(self) -> list[dict[str, Any]]:
        """One plain dictionary per example, ready for JSON; see `treesearch.decisions.audit_records`."""
        return list(self.iter_records())

    def iter_records(self, *, first: int = 0) -> Iterator[dict[str, Any]]:
        """The records one after the other, numbered from ``first``."""
        from treesearch.decisions.audit_records import records

        return records(self, first=first)

    def write_jsonl(self, path: str | Path) -> None:
        """Write the records, a line each; UTF-8, plain JSON without NaN or infinity. An existing file is replaced.

        Raises:
            OSError: It cannot be written.
        """
        write_atomically(Path(path), self.write_lines)

    def write_lines(self, file: BinaryIO, *, first: int = 0) -> None:
        """Write the records into an open file, numbered from ``first``; as `write_jsonl`."""
        for record in self.iter_records(first=first):
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def render(self, example: int, *, first: int = 0) -> RichTree:
        """One example for people: `rich.print` it.

        Args:
            example: Its place in the batch.
            first: As in `iter_records`.

        Raises:
            DataError: There is no such example.
        """
        from treesearch.decisions.audit_view import audit_view

        check_whole("example", example, 0, len(self) - 1)
        return audit_view(self, example, first=first)


def explain(
    layer: HierarchicalSoftmax | PosthocTree,
    input: Tensor,
    *,
    target: Tensor | None = None,
    encoder: Encoder | None = None,
    num_alternatives: int = 3,
    num_features: int = 0,
    baseline: Tensor | None = None,
    feature_names: Sequence[str] | None = None,
    tolerance: float = 1e-3,
) -> Audit:
    """The decisions that lead each example to its class, with alternatives, margins and top features.

    Features are shares in the branch logit of each decision: log P(child taken) - log P(best other child). Without an
    encoder those of a layer are exact. Through an encoder, and for a `PosthocTree`, they are integrated gradients,
    checked by completeness (`treesearch.decisions.attribution`).

    Args:
        layer: A layer; or a `PosthocTree`, a flat model read on a tree.
        input: [B, D]; with an encoder, what that takes, [B, ...]; for features float [B, F].
        target: int64 [B], the classes whose paths to explain; None: the most probable ones.
        encoder: From inputs to [B, D], each row from its own alone; in evaluation mode.
        num_alternatives: A, 0 and up: other children listed per decision.
        num_features: T, 0 and up: features listed per decision, largest contribution first; at most F are.
        baseline: [F] or [B, F], the input that stands for "nothing known"; None: zeros.
        feature_names: F names.
        tolerance: Of completeness, see `integrated_gradients`.

    Raises:
        DataError: Shapes, types or settings do not fit, a target is no class, probabilities are not numbers, or
            contributions do not add up.
    """
    _check_settings(layer, encoder, num_alternatives, num_features)
    if not isinstance(input, Tensor) or input.dim() < 2:
        raise DataError("input must be a batch, [B, D]; use input[None] for one example")
    hidden_BD = _encoded(encoder, input)
    if isinstance(layer, HierarchicalSoftmax):
        hidden_BD = flat_input(hidden_BD, layer.in_features, layer.weights[0].dtype)
    names = _checked_names(feature_names, input)
    with torch.no_grad():
        target_B = layer.predict(hidden_BD) if target is None else check_classes(target, layer.num_classes)
    if target_B.shape != input.shape[:1]:
        raise DataError(
            f"target must have shape [{len(input)}], a class for each input, but got {list(target_B.shape)}"
        )
    target_B = target_B.to(hidden_BD.device)
    find = max(num_alternatives, 1)  # the best one is what the margin is against
    if isinstance(layer, PosthocTree):
        branches = layer.path_branches(hidden_BD, target_B, find)
    else:
        branches = layer_branches(layer, hidden_BD, target_B, find)
    if bool(branches.log_prob.isnan().any()):
        row = int(branches.log_prob.isnan().any(1).nonzero()[0])
        raise DataError(f"probabilities must be numbers, but those of example {row} are NaN; look for NaN in its input")
    features = None
    if num_features:
        features = top_features(
            layer, input, branches, encoder=encoder, num_features=num_features, baseline=baseline, tolerance=tolerance
        )
    return _audit(layer.tree, target_B, branches, num_alternatives, features, names)


def _audit(
    tree: Tree,
    target_B: Tensor,
    branches: PathBranches,
    num_alternatives: int,
    features: TopFeatures | None,
    names: tuple[str, ...] | None,
) -> Audit:
    log_prob_BL = branches.log_prob.numpy()
    best_BL = branches.alternative_log_prob.numpy()[:, :, 0]
    real_BL = branches.node.numpy() != NO_NODE
    return Audit(
        tree=tree,
        classes=target_B.cpu().numpy().astype(np.int64),
        node=branches.node.numpy(),
        taken=branches.taken.numpy(),
        log_prob=log_prob_BL,
        path_log_prob=log_prob_BL.cumsum(1),
        alternative=branches.alternative.numpy()[:, :, :num_alternatives],
        alternative_log_prob=branches.alternative_log_prob.numpy()[:, :, :num_alternatives],
        margin=np.subtract(log_prob_BL, best_BL, out=np.zeros_like(log_prob_BL), where=real_BL),
        features=features,
        feature_names=names,
    )


def _check_settings(layer: object, encoder: object, num_alternatives: int, num_features: int) -> None:
    if not isinstance(layer, (HierarchicalSoftmax, PosthocTree)):
        raise DataError(
            f"layer must be a HierarchicalSoftmax or a PosthocTree, but got {type(layer).__name__}; read a flat model"
            " on a tree with PosthocTree(model, tree)"
        )
    check_whole("num_alternatives", num_alternatives, 0)
    check_whole("num_features", num_features, 0)
    if isinstance(encoder, nn.Module) and encoder.training:
        raise DataError("the encoder must be in evaluation mode, or its outputs are random; call encoder.eval()")


def _encoded(encoder: Encoder | None, input: Tensor) -> Tensor:
    if encoder is None or not len(input):
        return input if encoder is None else encoder(input)
    with torch.no_grad():
        return torch.cat([encoder(rows) for rows in torch.split(input, ENCODED_AT_ONCE)])


def _checked_names(names: Sequence[str] | None, input: Tensor) -> tuple[str, ...] | None:
    if names is None:
        return None
    given = tuple(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in given):
        raise DataError("feature_names must be strings, one per feature")
    if len(given) != input.shape[-1]:
        raise DataError(f"feature_names must be one per feature, {input.shape[-1]}, but are {len(given)}")
    return given

"""Which decisions a batch takes, and through which projections its rows pass on the way, in plain torch.

Shapes: **B** batch, **E** decisions of the batch, **O** openings, **S** scopes. An *opening* is a row of the batch that
enters a scope.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from treesearch.softmax.node_targets import NodeTargets
from treesearch.softmax.reference_tables import Tables


class Openings(NamedTuple):
    """Rows that enter scopes, all int64."""

    scope: Tensor  # [O]
    row: Tensor  # [O] row of the batch
    above: Tensor  # [O] opening of the scope above; anything where the projection reads the raw input


class Decisions(NamedTuple):
    """Decisions at internal nodes, all int64; the scopes that they see are opened for their rows."""

    node: Tensor  # [E]
    row: Tensor  # [E] row of the batch
    openings: Openings
    opening: Tensor  # [E] opening whose vector the decision sees; anything where it sees the raw input


def path_decisions(tables: Tables, target_B: Tensor) -> tuple[Decisions, Tensor]:
    """The decisions on the paths of the targets, row after row, root first; and their path entries, [E]."""
    entry_E, row_E = ranges(tables.path_ptr, target_B)
    node_E = tables.path_node[entry_E]
    if not tables.scope_level.numel():
        return _without_scopes(node_E, row_E), entry_E
    place_O, opened_row_O = ranges(tables.class_scope_ptr, target_B)
    start_B = torch.zeros(target_B.numel() + 1, dtype=torch.int64, device=target_B.device)
    start_B[1:] = torch.bincount(opened_row_O, minlength=target_B.numel()).cumsum(0)
    level_E = tables.scope_level[tables.node_scope[node_E]]  # of the raw input: that of some scope
    # The scopes of a path are nested: a deeper one's source is the opening before it.
    above_O = torch.arange(-1, place_O.numel() - 1, device=target_B.device)
    openings = Openings(tables.class_scope[place_O], opened_row_O, above_O)
    return Decisions(node_E, row_E, openings, start_B[row_E] + level_E), entry_E


def listed_decisions(tables: Tables, targets: NodeTargets) -> Decisions:
    """The decisions of the targets; all scopes above them are opened, whether their own decisions are listed or not."""
    num_scopes = tables.scope_level.numel()
    if not num_scopes:
        return _without_scopes(targets.node, targets.row)
    key_E = targets.row * num_scopes + tables.node_scope[targets.node]  # of the raw input: never looked at
    found = [_distinct(key_E[tables.node_scope[targets.node] >= 0])]
    while found[-1].numel():
        has_parent_O, above_O = _keys_above(tables, found[-1])
        found.append(_distinct(above_O[has_parent_O]))
    key_O = _distinct(torch.cat(found))
    _, above_O = _keys_above(tables, key_O)
    openings = Openings(key_O % num_scopes, key_O // num_scopes, torch.searchsorted(key_O, above_O))
    return Decisions(targets.node, targets.row, openings, torch.searchsorted(key_O, key_E))


def _keys_above(tables: Tables, key_O: Tensor) -> tuple[Tensor, Tensor]:
    """Which openings ``row * S + scope`` have one above, bool [O], and its key (else: anything), [O]."""
    scope_O = key_O % tables.scope_parent.numel()
    parent_O = tables.scope_parent[scope_O]
    return parent_O >= 0, key_O - scope_O + parent_O


def _without_scopes(node_E: Tensor, row_E: Tensor) -> Decisions:
    none = row_E[:0]
    return Decisions(node_E, row_E, Openings(none, none, none), row_E)


def _distinct(keys: Tensor) -> Tensor:
    distinct: Tensor = torch.unique(keys)
    return distinct


def ranges(ptr: Tensor, key_B: Tensor) -> tuple[Tensor, Tensor]:
    """All positions ``ptr[k] .. ptr[k+1]`` of each key, [E], and the key's index in the batch, [E]."""
    start_B = ptr[key_B]
    length_B = ptr[key_B + 1] - start_B
    token_E = torch.repeat_interleave(torch.arange(key_B.numel(), device=key_B.device), length_B)
    before_B = length_B.cumsum(0) - length_B
    position_E = torch.arange(token_E.numel(), device=key_B.device) - before_B[token_E]
    return start_B[token_E] + position_E, token_E

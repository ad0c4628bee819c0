"""Keys of a tree's nodes by content, and the hash table that remembers what they cost; compiled by numba.

A key is two words of 64 bits. Sets are hashed by adding up a pseudo-random number for each member (Zobrist 1970, with
sums in place of exclusive or), so that the order of children does not matter and one pass from the leaves is enough.

Shapes: **C** classes, **M** nodes in all, **N** internal nodes, **T** places of the table.
"""

from __future__ import annotations

import numpy as np
from numba import njit

WORDS = 2
EMPTY = np.uint64(0)  # both words of a free place; no key is all zeros
# Odd constants of splitmix64 (Steele, Lea and Flood 2014), and one seed for each word and purpose.
GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
LEAF, PART, BLOCK, INSIDE, WIDTH = (np.uint64(value) for value in (0x11, 0x23, 0x35, 0x47, 0x59))
ONE = np.uint64(1)
SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


@njit(cache=True)
def _mix(value, purpose, word):
    """A pseudo-random word that depends on all bits of ``value``, the purpose and which word of the key it is."""
    mixed = value + GOLDEN * (purpose * np.uint64(WORDS) + word + ONE)
    mixed = (mixed ^ (mixed >> SHIFTS[0])) * FIRST
    mixed = (mixed ^ (mixed >> SHIFTS[1])) * SECOND
    return mixed ^ (mixed >> SHIFTS[2])


@njit(cache=True)
def node_keys(parent, leaf_class, projection_dim, block_root):
    """Keys of all internal nodes: equal where, on frozen features, the results must be equal.

    A node under no projection is its class set and how its children part it; a node of a block is the block's whole
    structure, projections included, and its own place in it.

    Args:
        parent: int32 [M], canonical.
        leaf_class: int32 [M-N].
        projection_dim: int32 [N].
        block_root: int32 [N], the topmost projecting ancestor-or-self, -1 where there is none.

    Returns:
        uint64 [N, 2].
    """
    num_nodes, num_internal = parent.size, projection_dim.size
    keys = np.zeros((num_internal, WORDS), np.uint64)
    members = np.zeros(num_nodes, np.uint64)
    parts = np.zeros(num_internal, np.uint64)
    structure = np.zeros(num_nodes, np.uint64)
    for number in range(WORDS):
        word = np.uint64(number)
        members[:] = 0
        parts[:] = 0
        structure[:] = 0
        for node in range(num_nodes - 1, -1, -1):
            if node >= num_internal:
                members[node] = _mix(np.uint64(leaf_class[node - num_internal]), LEAF, word)
                structure[node] = members[node]
            else:
                structure[node] = _mix(
                    structure[node] + _mix(np.uint64(projection_dim[node]), WIDTH, word), BLOCK, word
                )
            above = parent[node]
            if above >= 0:
                members[above] += members[node]
                parts[above] += _mix(members[node], PART, word)
                structure[above] += structure[node]
        for node in range(num_internal):
            root = block_root[node]
            if root < 0:
                keys[node, number] = _mix(parts[node], PART, word) | ONE
            else:
                keys[node, number] = _mix(structure[root] + _mix(structure[node], INSIDE, word), BLOCK, word) | ONE
    return keys


@njit(cache=True)
def _place(table_keys, first, second):
    """Where a key stands, or the free place where it would."""
    mask = np.uint64(table_keys.shape[0] - 1)
    place = (first >> ONE) & mask
    while (table_keys[place, 0] != first or table_keys[place, 1] != second) and table_keys[place, 0] != EMPTY:
        place = (place + ONE) & mask
    return place


@njit(cache=True)
def look_up(table_keys, table_values, keys):
    """The values of ``keys`` [N, 2], float64 [N]; NaN where there is none."""
    found = np.empty(keys.shape[0], np.float64)
    for i in range(keys.shape[0]):
        place = _place(table_keys, keys[i, 0], keys[i, 1])
        found[i] = table_values[place] if table_keys[place, 0] != EMPTY else np.nan
    return found


@njit(cache=True)
def insert(table_keys, table_values, keys, values):
    """Put finite values into the table, which must have room; returns how many keys are new."""
    num_new = 0
    for i in range(keys.shape[0]):
        if not np.isfinite(values[i]):
            continue
        place = _place(table_keys, keys[i, 0], keys[i, 1])
        if table_keys[place, 0] == EMPTY:
            table_keys[place] = keys[i]
            table_values[place] = values[i]
            num_new += 1
    return num_new

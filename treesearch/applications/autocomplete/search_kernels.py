"""Best-first search down a tree for the most probable classes among those of a range of ranks; compiled by numba.

An entry of the frontier is a node below which some rank of the range lies, with a bound that no such class exceeds and
the smallest such rank. Of equal bounds the smaller rank comes first: of a thousand equally probable completions the
search meets the k first in order and none of the others.

Shapes: **C** classes, **D** features, **N** internal nodes, **M** all nodes, **K** children of a node; here **k**
counts the classes wanted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from treesearch.applications.autocomplete.match_kernels import NONE, next_rank
from treesearch.softmax.pointers import array_at
from treesearch.softmax.topk_kernels import (
    ARITY,
    DIM,
    FIRST_SIZE,
    NODE_COLUMNS,
    OFFSET,
    OPENS,
    ROW,
    SCOPE,
    SCOPE_COLUMNS,
    WIDTH,
    decide,
    larger,
    project,
    push,
    replace_top,
    take,
    view,
)

NODE_BITS = np.int64(32)
NODE_MASK = np.int64(0xFFFFFFFF)


class MatchTables(NamedTuple):
    """What the search knows of a tree and of the order of its classes."""

    child_ptr: NDArray[np.int32]  # [N+1]
    child_idx: NDArray[np.int32]  # [M-1]
    first_place: NDArray[np.int32]  # [M] first of the leaves below each node, depth first
    num_places: NDArray[np.int32]  # [M] number of the leaves
    rank_at_place: NDArray[np.int32]  # [C]
    place_of_rank: NDArray[np.int32]  # [C]
    bits: NDArray[np.uint64]  # wavelet matrix of rank_at_place
    num_zeros: NDArray[np.int64]


@njit(cache=True, error_model="numpy")
def _decide_node(facts, scope_facts, addresses, input_address, hidden, edge_K):
    """Fill ``edge_K`` with the log-probabilities of a node's branches; scopes above the node have been computed.

    Args:
        facts: Row of `TopKTables.node`.
        scope_facts: `TopKTables.scope`, flat.
        addresses: Of weights, biases and projections.
        input_address: Where the example is.
        hidden: Outputs of all projections.
        edge_K: As long as the node has children, at least.
    """
    weight_address, bias_address, projection_address = addresses
    itemsize = np.int64(hidden.itemsize)
    dim, width, scope = np.int64(facts[DIM]), facts[WIDTH], np.uint64(facts[SCOPE])
    source = input_address
    if facts[SCOPE] >= 0:
        opened = scope_facts[SCOPE_COLUMNS * scope : SCOPE_COLUMNS * (scope + np.uint64(1))]
        source = np.int64(hidden.ctypes.data) + itemsize * opened[OFFSET]
        if facts[OPENS]:
            project(opened, scope_facts, projection_address[scope], input_address, hidden)
    arity, row = np.int64(facts[ARITY]), np.int64(facts[ROW])
    num_rows = 1 if arity == 2 else arity
    has_bias = bias_address.size > 0
    decide(
        array_at(weight_address[width] + itemsize * row * dim, num_rows * dim, hidden),
        array_at(bias_address[width] + itemsize * row if has_bias else 0, num_rows if has_bias else 0, hidden),
        array_at(source, dim, hidden),
        np.uint64(arity),
        edge_K,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def search(tables, bound_M, layer, addresses, num_biases, input_D, low, high, score_k, rank_k):
    """Fill ``score_k`` and ``rank_k`` with the best classes of the range, in no order.

    Args:
        tables: `MatchTables` of a tree with two classes at least.
        bound_M: Bound of each node, that of a leaf its class's score; no node's is above its parent's. Empty: the
            score is the log-probability under ``layer``, and the bound of a node its own.
        layer: `TopKTables` of the layer, or of no node.
        addresses: int64, of its weights, biases and projections, see `treesearch.softmax.topk_kernels`.
        num_biases: How many of them are of biases.
        input_D: What the layer sees, of the type of its parameters and of the scores.
        low: First rank.
        high: One behind the last rank; ``high - low >= k``.
        score_k: As many as are wanted.
        rank_k: int64.

    Returns:
        Number of internal nodes visited, or -1 where a log-probability was not a number.
    """
    child_ptr, child_idx, first_place, num_places = (
        tables.child_ptr,
        tables.child_idx,
        tables.first_place,
        tables.num_places,
    )
    rank_at_place, place_of_rank, bits, num_zeros = (
        tables.rank_at_place,
        tables.place_of_rank,
        tables.bits,
        tables.num_zeros,
    )
    by_bound = bound_M.size > 0
    num_internal, wanted = child_ptr.size - 1, rank_k.size
    num_widths = layer.num_widths
    parts = (
        view(addresses[:num_widths]),
        view(addresses[num_widths : num_widths + num_biases]),
        view(addresses[num_widths + num_biases :]),
    )
    node_facts, scope_facts = view(layer.node), view(layer.scope)
    owned = [np.empty(0, np.uint8)]
    numbers, integers = view(input_D), view(addresses)
    heap_bound, heap_entry = take(owned, FIRST_SIZE, numbers), take(owned, FIRST_SIZE, integers)
    edge_K, hidden = take(owned, FIRST_SIZE, numbers), take(owned, layer.hidden_size, numbers)
    input_address = np.int64(input_D.ctypes.data)
    number = input_D.dtype.type

    worst_score, worst_rank = number(-np.inf), np.int64(NONE)  # of the results, once there are as many as wanted
    found, num_visited = 0, 0
    heap_bound[0] = bound_M[0] if by_bound else number(0.0)
    heap_entry[0], size = np.int64(low) << NODE_BITS, 1
    while size:
        reached, entry = heap_bound[0], heap_entry[0]
        node, smallest = entry & NODE_MASK, entry >> NODE_BITS
        if found == wanted and (reached < worst_score or (reached == worst_score and smallest > worst_rank)):
            break
        size -= 1
        replace_top(heap_bound, heap_entry, size, heap_bound[size], heap_entry[size])
        num_visited += 1
        begin, end = child_ptr[node], child_ptr[node + 1]
        if not by_bound:
            if end - begin > edge_K.size:
                edge_K = larger(owned, edge_K, np.int64(end - begin))
            facts = node_facts[NODE_COLUMNS * node : NODE_COLUMNS * (node + 1)]
            _decide_node(facts, scope_facts, parts, input_address, hidden, edge_K)
        smallest_place = place_of_rank[smallest]
        for edge in range(begin, end):
            child = child_idx[edge]
            below = bound_M[child] if by_bound else reached + edge_K[edge - begin]
            if not below <= reached:
                return -1
            if found == wanted and below < worst_score:
                continue
            place, count = first_place[child], num_places[child]
            if place <= smallest_place < place + count:
                rank = smallest
            elif count == 1:
                rank = np.int64(rank_at_place[place])
                if rank < low or rank >= high:
                    continue
            else:
                rank = next_rank(
                    bits, num_zeros, np.int64(place), np.int64(place + count), smallest + 1, np.int64(high)
                )
                if rank == NONE:
                    continue
            if found == wanted and below == worst_score and rank > worst_rank:
                continue
            if child < num_internal:
                if size == heap_bound.size:
                    heap_bound, heap_entry = larger(owned, heap_bound, size), larger(owned, heap_entry, size)
                push(heap_bound, heap_entry, size, below, (rank << NODE_BITS) | np.int64(child))
                size += 1
                continue
            # The worst result is on top: scores negated, and of equals the complement of the largest rank is smallest.
            if found < wanted:
                push(score_k, rank_k, found, -below, ~rank)
                found += 1
            else:
                replace_top(score_k, rank_k, found, -below, ~rank)
            if found == wanted:
                worst_score, worst_rank = -score_k[0], ~rank_k[0]
    for i in range(found):
        score_k[i], rank_k[i] = -score_k[i], ~rank_k[i]
    return num_visited

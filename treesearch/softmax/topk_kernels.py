"""Best-first search for the k most probable classes of one example after the other, compiled by numba for the CPU.

Shapes: **B** batch, **D** features, **C** classes, **N** internal nodes, **M** all nodes, **S** scopes, **W** widths,
**K** children of a node, **d** inputs of a node; here **k** counts the classes wanted.

No call and no example does work in proportion to the tree: memory is taken as the search goes, parameters are read
where their owner keeps them.

A log-probability is never positive, so inside the search +infinity stands for what is not a number: it compares as the
largest, in one comparison, and stays what it is on the way down.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from treesearch.softmax.pointers import array_at
from treesearch.softmax.vector_math import REORDER

# Columns of `TopKTables.node`: what the search wants to know of a node stands together, in half a cache line.
FIRST, ARITY, DIM, WIDTH, ROW, SCOPE, OPENS, DEPTH = (np.uint64(column) for column in range(8))
NODE_COLUMNS = 8
# Columns of `TopKTables.scope`.
PARENT, OUTPUT_DIM, SOURCE_DIM, OFFSET = (np.uint64(column) for column in range(4))
SCOPE_COLUMNS = np.uint64(4)

FIRST_SIZE = 64  # of what grows


class TopKTables(NamedTuple):
    """A tree for the search; O(M), made once a layer."""

    node: NDArray[np.int32]  # [N, 8]: first of its children, arity, d, width, first row there, scope, whether it opens
    #   that scope, depth
    child: NDArray[np.int32]  # [M-1] children, nodes in order: an internal node, or ``~class`` of a leaf
    scope: NDArray[np.int64]  # [S, 4]: scope above (-1: raw input), output and input size, outputs of those before
    in_features: int  # D
    num_widths: int  # W
    hidden_size: int  # outputs of all projections together


@njit(cache=True, fastmath=REORDER, error_model="numpy")
def _product(rows, row, values):
    """Product of the ``row``-th row of a flat matrix with ``values``.

    One function for every row, so that equal rows give the same bits wherever they stand: ties are exact.
    """
    dim = np.uint64(values.size)
    begin = row * dim
    total = rows.dtype.type(0.0)
    for d in range(dim):
        total += rows[begin + d] * values[d]
    return total


@njit(cache=True, error_model="numpy")
def _log_softmax(logit_K, arity):
    """Log-probabilities of the ``arity`` branches in place of their logits, none of them > 0.

    Summed in double precision: there may be 100,000 terms, one of them 1 and the others too small to be added to it.
    """
    top = logit_K[0]
    for child in range(np.uint64(1), arity):
        top = max(top, logit_K[child])
    total = 0.0
    for child in range(arity):
        logit_K[child] -= top
        total += np.exp(logit_K[child])
    log_total = logit_K.dtype.type(np.log(total))  # >= 0: the largest logit adds one
    for child in range(arity):
        logit_K[child] -= log_total


@njit(cache=True, error_model="numpy")
def decide(rows, bias_K, values, arity, edge_K):
    """Fill ``edge_K`` with the log-probabilities of a node's branches.

    Args:
        rows: The node's logit rows, one after the other.
        bias_K: Their biases; empty for none.
        values: [d] what the node sees.
        arity: uint64 number of branches.
        edge_K: At least that long.
    """
    zero = values.dtype.type(0.0)
    if arity == 2:
        logit = _product(rows, np.uint64(0), values)
        if bias_K.size:
            logit += bias_K[0]
        rest = np.log1p(np.exp(-abs(logit)))
        edge_K[0] = min(logit, zero) - rest
        edge_K[1] = min(-logit, zero) - rest
        return
    for child in range(arity):
        edge_K[child] = _product(rows, child, values)
    if bias_K.size:
        for child in range(arity):
            edge_K[child] += bias_K[child]
    _log_softmax(edge_K, arity)


@njit(cache=True)
def push(key, number, size, new_key, new_number):
    """Add an entry to a heap of ``size``: the largest key on top, of equals the smallest number."""
    place, one = np.uint64(size), np.uint64(1)
    while place:
        above = (place - one) >> one
        if new_key < key[above] or (new_key == key[above] and new_number > number[above]):
            break
        key[place], number[place] = key[above], number[above]
        place = above
    key[place], number[place] = new_key, new_number


@njit(cache=True)
def replace_top(key, number, size, new_key, new_number):
    """Put an entry in the place of the top of a heap of ``size``."""
    place, one, size = np.uint64(0), np.uint64(1), np.uint64(size)
    while True:
        below = (place << one) + one
        if below >= size:
            break
        right = below + one
        if right < size and (key[right] > key[below] or (key[right] == key[below] and number[right] < number[below])):
            below = right
        if new_key > key[below] or (new_key == key[below] and new_number < number[below]):
            break
        key[place], number[place] = key[below], number[below]
        place = below
    key[place], number[place] = new_key, new_number


@njit(cache=True)
def _sort_results(log_prob_k, class_k, found):
    """From the heap of results, ``-log_prob`` and ``~class``, to the results in order, the best first."""
    for last in range(found - 1, 0, -1):
        key, number = log_prob_k[last], class_k[last]
        log_prob_k[last], class_k[last] = log_prob_k[0], class_k[0]
        replace_top(log_prob_k, class_k, last, key, number)
    for i in range(found):
        log_prob_k[i] = -log_prob_k[i] if log_prob_k[i] >= 0 else np.nan
        class_k[i] = ~class_k[i]
    for i in range(found, class_k.size):
        log_prob_k[i] = -np.inf
        class_k[i] = -1


@njit(cache=True)
def take(owned, size, like):
    """Memory for ``size`` numbers of the type of ``like``, not filled; ``owned``, a list of bytes, keeps it.

    Arrays that own their memory would cost more than the search: their references are counted at every turn of a loop.
    """
    block = np.empty(size * like.itemsize, np.uint8)
    owned.append(block)
    return array_at(np.int64(block.ctypes.data), size, like)


@njit(cache=True)
def larger(owned, array, size):
    """A copy of ``array`` with room for ``size`` numbers at least."""
    longer = take(owned, 2 * size, array)
    for i in range(np.uint64(array.size)):
        longer[i] = array[i]
    return longer


@njit(inline="always")
def view(array):
    """All of an array, flat, without a share in its memory."""
    return array_at(np.int64(array.ctypes.data), array.size, array)


@njit(cache=True, error_model="numpy")
def project(facts, scope_facts, address, input_address, hidden):
    """Compute the outputs of a scope's projection; those of the scope above are there.

    Args:
        facts: Row of `TopKTables.scope`.
        scope_facts: All rows, flat.
        address: Where the matrix is.
        input_address: Where the example is.
        hidden: Outputs of all projections.
    """
    at, itemsize = np.int64(hidden.ctypes.data), np.int64(hidden.itemsize)
    source = input_address
    if facts[PARENT] >= 0:
        source = at + itemsize * scope_facts[SCOPE_COLUMNS * np.uint64(facts[PARENT]) + OFFSET]
    matrix = array_at(address, facts[OUTPUT_DIM] * facts[SOURCE_DIM], hidden)
    values = array_at(source, facts[SOURCE_DIM], hidden)
    offset = np.uint64(facts[OFFSET])
    for row in range(np.uint64(facts[OUTPUT_DIM])):
        hidden[offset + row] = _product(matrix, row, values)


@njit(cache=True, error_model="numpy")
def _search_example(parameters, tree, memory, owned, input_address, max_nodes, log_prob_k, class_k):
    """Search for one example.

    Args:
        parameters: Where they are.
        tree: With at least two classes.
        memory: What the search works in.
        owned: See `take`.
        input_address: Where the example is.
        max_nodes: See `search`.
        log_prob_k: Its row of the results.
        class_k: The same.

    Returns:
        Number of nodes visited, whether the results are certainly the best, and the memory.
    """
    weight_address, bias_address, projection_address = parameters
    node_facts, children, scope_facts = tree
    heap_log_prob, heap_node, edge_K, visited, hidden = memory
    node_address, hidden_address = np.int64(node_facts.ctypes.data), np.int64(hidden.ctypes.data)

    number, itemsize = hidden.dtype.type, np.int64(hidden.itemsize)
    unknown, impossible = number(np.inf), number(-np.inf)
    has_bias = bias_address.size > 0
    wanted = class_k.size
    threshold = impossible  # log-probability of the worst result, once there are as many as wanted
    dropped, any_dropped = impossible, False
    found, num_nodes, deepest = 0, 0, -1
    heap_log_prob[0], heap_node[0], size = number(0.0), 0, 1
    while size:
        reached, node = heap_log_prob[0], np.int64(max(heap_node[0], ~heap_node[0]))
        if found == wanted and (reached < threshold or threshold == unknown):
            break
        size -= 1
        replace_top(heap_log_prob, heap_node, size, heap_log_prob[size], heap_node[size])
        facts = array_at(node_address + 4 * NODE_COLUMNS * node, NODE_COLUMNS, node_facts)
        if max_nodes:
            depth = np.int64(facts[DEPTH])
            if depth > deepest:  # by one
                if depth == visited.size:
                    visited = larger(owned, visited, depth + 1)
                visited[depth] = 0
                deepest += 1
            if visited[depth] == max_nodes:
                dropped, any_dropped = max(dropped, reached), True
                continue
            visited[depth] += 1
        num_nodes += 1

        dim, width, scope = np.int64(facts[DIM]), facts[WIDTH], np.uint64(facts[SCOPE])
        source = input_address
        if facts[SCOPE] >= 0:
            opened = scope_facts[SCOPE_COLUMNS * scope : SCOPE_COLUMNS * (scope + np.uint64(1))]
            source = hidden_address + itemsize * opened[OFFSET]
            if facts[OPENS]:
                project(opened, scope_facts, projection_address[scope], input_address, hidden)
        arity, row = np.int64(facts[ARITY]), np.int64(facts[ROW])
        num_rows = 1 if arity == 2 else arity
        if arity > edge_K.size:
            edge_K = larger(owned, edge_K, arity)
        bias = bias_address[width] + itemsize * row if has_bias else 0
        decide(
            array_at(weight_address[width] + itemsize * row * dim, num_rows * dim, hidden),
            array_at(bias, num_rows if has_bias else 0, hidden),
            array_at(source, dim, hidden),
            np.uint64(arity),
            edge_K,
        )

        first = np.uint64(facts[FIRST])
        for branch in range(np.uint64(arity)):
            below = reached + edge_K[branch]
            if not below <= 0:
                below = unknown
            child = children[first + branch]
            if child < 0:
                # Here the worst is on top: negated, and a leaf's entry is the complement of its class already.
                if found < wanted:
                    push(log_prob_k, class_k, found, -below, np.int64(child))
                    found += 1
                elif below > threshold or (below == threshold and child > class_k[0]):
                    replace_top(log_prob_k, class_k, found, -below, np.int64(child))
                if found == wanted:
                    threshold = -log_prob_k[0]
            elif found < wanted or below >= threshold:
                if size == heap_node.size:
                    heap_log_prob = larger(owned, heap_log_prob, size)
                    heap_node = larger(owned, heap_node, size)
                # Equals in the order of their numbers; where nothing is a number, down to the classes at once.
                push(heap_log_prob, heap_node, size, below, child if below <= 0 else ~child)
                size += 1
    exact = found == wanted and (not any_dropped or dropped < threshold)
    _sort_results(log_prob_k, class_k, found)
    exact = exact and log_prob_k[0] <= 0
    return num_nodes, exact, (heap_log_prob, heap_node, edge_K, visited, hidden)


@njit(cache=True, nogil=True, error_model="numpy")
def search(tables, addresses, has_bias, inputs_BD, max_nodes, log_prob_Bk, class_Bk, num_nodes_B, exact_B):
    """Fill the last four arrays, whose meaning is that of `treesearch.softmax.topk.TopK`.

    Args:
        tables: The tree.
        addresses: int64 [W or 2W, then S], where the contiguous matrices of rows, vectors of biases and projections
            are, all of the type of the inputs.
        has_bias: Whether there are biases.
        inputs_BD: float32 or float64, contiguous.
        max_nodes: Most nodes of one depth that are visited; 0 for any number.
        log_prob_Bk: Of the type of the inputs.
        class_Bk: int64.
        num_nodes_B: int64.
        exact_B: bool.
    """
    batch, num_features = inputs_BD.shape
    if not tables.node.size:  # one class, which is certain
        log_prob_Bk[:] = 0.0
        class_Bk[:] = 0
        num_nodes_B[:] = 0
        exact_B[:] = True
        return
    first_scope = (2 if has_bias else 1) * tables.num_widths
    parameters = (
        view(addresses[: tables.num_widths]),
        view(addresses[tables.num_widths : first_scope]),
        view(addresses[first_scope:]),
    )
    tree = view(tables.node), view(tables.child), view(tables.scope)
    owned = [np.empty(0, np.uint8)]
    numbers = view(inputs_BD)
    memory = (
        take(owned, FIRST_SIZE, numbers),  # the frontier: log-probabilities ..
        take(owned, FIRST_SIZE, tree[1]),  # .. and nodes
        take(owned, FIRST_SIZE, numbers),  # log-probabilities of one node's branches
        take(owned, FIRST_SIZE, parameters[0]),  # visited nodes by depth
        take(owned, tables.hidden_size, numbers),  # outputs of the projections, each at its offset
    )
    for b in range(batch):
        input_address = np.int64(inputs_BD.ctypes.data) + b * num_features * inputs_BD.itemsize
        num_nodes_B[b], exact_B[b], memory = _search_example(
            parameters, tree, memory, owned, input_address, max_nodes, view(log_prob_Bk[b]), view(class_Bk[b])
        )

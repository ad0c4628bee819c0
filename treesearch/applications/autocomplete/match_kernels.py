"""Where a prefix matches: ranges of sorted texts, and the smallest rank in a range of leaves; compiled by numba.

Texts in sorted order have *ranks*, the leaves of a tree in depth-first order have *places*. The texts that begin with
a prefix are a range of ranks, the leaves below a node are a range of places. Which ranks occur in a range of places is
asked of a wavelet matrix (Claude, Navarro and Ordonez 2015) over the sequence "rank at each place": one bit a level and
place, the highest bit of the rank first; at each level the zeros are moved before the ones, both keeping their order.

Shapes: **C** texts, **L** levels (bits of a rank), **W** words of 64 bits for C bits, and one more.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NONE = np.int64(1) << np.int64(62)  # no such rank

_ONE, _SIX, _LOW = np.uint64(1), np.uint64(6), np.uint64(63)
_PAIRS, _FOURS, _BYTES = (
    np.uint64(0x5555555555555555),
    np.uint64(0x3333333333333333),
    np.uint64(0x0F0F0F0F0F0F0F0F),
)
_SUM, _TWO, _FOUR, _TOP = np.uint64(0x0101010101010101), np.uint64(2), np.uint64(4), np.uint64(56)


@njit(cache=True)
def _order(blob, begin, end, prefix):
    """-1, 0 or 1: the text at ``[begin, end)`` is before those that begin with the prefix, one of them, or after."""
    for i in range(prefix.size):
        if begin + i == end:
            return -1
        if blob[begin + i] != prefix[i]:
            return -1 if blob[begin + i] < prefix[i] else 1
    return 0


@njit(cache=True)
def prefix_range(blob, offsets, prefix):
    """First and one behind the last of the sorted texts that begin with a prefix; equal where none does.

    Args:
        blob: uint8, all texts one after the other.
        offsets: int64 [C+1], where each begins.
        prefix: uint8.
    """
    num_texts = offsets.size - 1
    bounds = (0, 0)
    for side in range(2):
        low, high = bounds[0], num_texts
        while low < high:
            middle = (low + high) >> 1
            if _order(blob, offsets[middle], offsets[middle + 1], prefix) < side:
                low = middle + 1
            else:
                high = middle
        bounds = (low, low) if side == 0 else (bounds[0], low)
    return bounds


@njit(cache=True)
def _count_ones(word):
    word = word - ((word >> _ONE) & _PAIRS)
    word = (word & _FOURS) + ((word >> _TWO) & _FOURS)
    word = (word + (word >> _FOUR)) & _BYTES
    return (word * _SUM) >> _TOP


@njit(cache=True)
def wavelet_matrix(rank_at_place, num_levels):
    """The wavelet matrix of a permutation.

    Args:
        rank_at_place: int32 [C].
        num_levels: L, such that all ranks are below 2 ** L.

    Returns:
        ``bits`` uint64 [L, W, 2], 64 bits and the number of ones before them, and ``num_zeros`` int64 [L].
    """
    size = rank_at_place.size
    num_words = (size >> 6) + 1
    bits = np.zeros((num_levels, num_words, 2), np.uint64)
    num_zeros = np.zeros(num_levels, np.int64)
    values, moved = rank_at_place.copy(), np.empty_like(rank_at_place)
    for level in range(num_levels):
        shift = num_levels - 1 - level
        zeros = 0
        for place in range(size):
            zeros += 1 - ((values[place] >> shift) & 1)
        num_zeros[level] = zeros
        next_zero, next_one = 0, zeros
        for place in range(size):
            if (place & 63) == 0:
                bits[level, place >> 6, 1] = np.uint64(next_one - zeros)
            if (values[place] >> shift) & 1:
                bits[level, place >> 6, 0] |= _ONE << np.uint64(place & 63)
                moved[next_one] = values[place]
                next_one += 1
            else:
                moved[next_zero] = values[place]
                next_zero += 1
        if (size & 63) == 0:
            bits[level, size >> 6, 1] = np.uint64(next_one - zeros)
        values, moved = moved, values
    return bits, num_zeros


@njit(cache=True)
def _ones_before(bits, level, place):
    """Ones among the first ``place`` bits of a level."""
    at = np.uint64(place)
    word = at >> _SIX
    below = bits[level, word, 0] & ((_ONE << (at & _LOW)) - _ONE)
    return np.int64(bits[level, word, 1] + _count_ones(below))


@njit(cache=True)
def next_rank(bits, num_zeros, begin, end, low, high):
    """The smallest rank in ``[low, high)`` at the places ``[begin, end)``, or `NONE`; O(L).

    Down the bits of ``low`` as long as some rank agrees with them. Where none does any more, the answer is the smallest
    rank that parts from ``low`` as late as possible, with a one for its zero.
    """
    num_levels = num_zeros.size
    parted, parted_begin, parted_end = -1, 0, 0
    for level in range(num_levels):
        ones_begin, ones_end = _ones_before(bits, level, begin), _ones_before(bits, level, end)
        if (low >> (num_levels - 1 - level)) & 1:
            begin, end = num_zeros[level] + ones_begin, num_zeros[level] + ones_end
        else:
            if ones_end > ones_begin:
                parted = level
                parted_begin, parted_end = num_zeros[level] + ones_begin, num_zeros[level] + ones_end
            begin, end = begin - ones_begin, end - ones_end
        if begin == end:
            break
    else:
        return low if low < high else NONE
    if parted < 0:
        return NONE
    shift = num_levels - 1 - parted
    rank = ((low >> shift) | 1) << shift
    begin, end = parted_begin, parted_end
    for level in range(parted + 1, num_levels):
        if rank >= high:
            return NONE
        ones_begin, ones_end = _ones_before(bits, level, begin), _ones_before(bits, level, end)
        if end - begin > ones_end - ones_begin:
            begin, end = begin - ones_begin, end - ones_end
        else:
            rank |= np.int64(1) << (num_levels - 1 - level)
            begin, end = num_zeros[level] + ones_begin, num_zeros[level] + ones_end
    return rank if rank < high else NONE

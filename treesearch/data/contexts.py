"""Fixed windows of preceding tokens, the input of a feed-forward language model.

Shapes: **T** tokens of a stream.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from treesearch.errors import DataError


def context_windows(stream: NDArray[np.int32], *, size: int, pad: int) -> NDArray[np.int32]:
    """The ``size`` ids before each position.

    Windows cross sentence ends: ``<eos>`` is a token like others.

    Args:
        stream: Token ids, int32 [T].
        size: Ids per window, at least 1.
        pad: Id that stands for positions before the start of the stream.

    Returns:
        int32 [T, size]; row t is ``stream[t - size], ..., stream[t - 1]``, oldest first. It is a read-only view of
        T + size numbers: index it (``windows[rows]``) to get a batch of its own, which may be written to.

    Raises:
        DataError: ``size`` is less than 1, or the stream is not one-dimensional.
    """
    if size < 1:
        raise DataError(f"a context needs size >= 1, but got {size}; give the number of preceding tokens")
    if stream.ndim != 1:
        raise DataError(f"a token stream must have the shape [T], but got {stream.shape}; pass one split of a corpus")
    padded = np.concatenate([np.full(size, pad, np.int32), stream.astype(np.int32, copy=False)])
    return sliding_window_view(padded, size)[: len(stream)]

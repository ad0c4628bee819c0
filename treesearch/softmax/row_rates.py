"""How fast the rows of a layer learn: more slowly where few examples of a batch pass their node.

Shapes: **N** internal nodes, **R** rows of the matrix of one width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.softmax.layout import SoftmaxLayout

# Chosen on the validation split of the King James Bible with six trees (results/2026-11-24-node-rates).
POWER = 0.2
SMALLEST = 0.5


def row_rates(layout: SoftmaxLayout, counts: ArrayLike) -> list[NDArray[np.float32]]:
    """Factors of the learning rate of each row, for each width [R]: ``max(share ** 0.2, 0.5)``.

    A node's gradient comes from the examples that pass it, a share of the batch that falls down the tree: its noise
    grows as the share falls. Optimizers that scale every row's gradient to the same size, such as Adam, move noisy rows
    as far as others. With batches of a fraction of the size they do best at a lower rate (Krizhevsky 2014 and Malladi
    et al. 2022: its root); the exponent here is smaller, since what few examples pass also moves in fewer steps.

    Args:
        layout: Of the layer.
        counts: [C] class counts.

    Raises:
        DataError: The counts do not fit the tree.
    """
    factor_N = np.maximum(layout.tree.pass_shares(counts) ** POWER, SMALLEST).astype(np.float32)
    return np.split(factor_N[layout.row_node], np.cumsum(layout.rows_per_width)[:-1])

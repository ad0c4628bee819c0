"""Time to derive rows from leaf vectors: median of eleven calls, one thread, C = 65,000, D = 64, batch 256."""

import time

import numpy as np
import torch

from treesearch import build_tree
from treesearch.softmax.leaf_vectors import LeafVectorSoftmax

torch.set_num_threads(1)
counts = 1 / np.arange(1, 65_001)
for arity in (2, 32):
    layer = LeafVectorSoftmax(64, build_tree("huffman", counts=counts, arity=arity), counts=counts)
    rows = layer.to_rows()
    input, target = torch.randn(256, 64), torch.randint(0, 65_000, (256,))
    calls = {
        "derive": lambda: (layer.weights, layer.biases),
        "derived, NLL and backward": lambda: layer.nll(input, target).backward(),
        "rows, NLL and backward": lambda: rows.nll(input, target).backward(),
    }
    for name, call in calls.items():
        times = []
        for _ in range(12):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        print(f"{arity}-ary Huffman, {name}: {1e3 * np.median(times[1:]):.1f} ms")

"""Head and step times again, more carefully: `python times.py RUN_FOLDER ROUNDS [BUILDER...]`, nothing else running.

The confirmed trees of the run and these builders' trees, side by side as the run times them, so many rounds; medians over the
rounds, and each tree's ratio to Huffman (median of the ratios of a round, and their range).
"""

import json
import sys
from pathlib import Path

import numpy as np

from treesearch.builders import build_tree
from treesearch.config import load_config
from treesearch.data.contexts import context_windows
from treesearch.evaluation.examples import TextSplit
from treesearch.evaluation.timing import time_trees
from treesearch.launch.parts import load_corpus, prepare_run
from treesearch.progress import ProgressReporter
from treesearch.search.ledger import Ledger

FOLDER, ROUNDS, BUILDERS = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
config = load_config(FOLDER / "config.yaml")
corpus = load_corpus(config)
with ProgressReporter(quiet=True) as progress:
    vectors = prepare_run(config, corpus, progress).vectors
with Ledger(FOLDER / "search.db") as ledger:
    rows = json.loads((FOLDER / "comparison.json").read_text())["rows"]
    trees = {row["name"]: ledger.tree(row["tree"]) for row in rows}
trees |= {name: build_tree(name, counts=corpus.counts, vectors=vectors, seed=config.seed) for name in BUILDERS}
windows = context_windows(corpus.train, size=config.encoder.context, pad=corpus.eos)
data = TextSplit(windows, corpus.train)
rounds = [
    time_trees(list(trees.values()), data, encoder=config.encoder, batch_size=config.joint.batch_size, device="cpu")
    for _ in range(ROUNDS)
]
for part in ("head_us", "step_us"):
    times = np.array([[getattr(one, part) for one in measured] for measured in rounds])
    ratios = times / times[:, [list(trees).index("huffman")]]
    print(part)
    for name, time, ratio in zip(trees, np.median(times, axis=0), ratios.T, strict=True):
        print(f"  {name:46} {time:7.2f}  {np.median(ratio):6.3f} [{ratio.min():.3f}, {ratio.max():.3f}]")

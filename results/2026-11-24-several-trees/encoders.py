"""How well the frozen rung agrees with the warm and the joint one, by what its encoder was trained on: `python encoders.py RUN_FOLDER`.

Encoders are trained as in the run, but on other trees in their second stage. On the features of each, the trees of the run's warm
rung that cost less than 40 units are evaluated (two passes, scored on the held-out text) and compared, by Kendall's tau, with their
validation NLL after warm and after joint training.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from treesearch.config import load_config
from treesearch.evaluation.comparison import rank_correlation
from treesearch.evaluation.frozen import evaluate_frozen
from treesearch.launch.parts import load_corpus, prepare_run
from treesearch.progress import ProgressReporter
from treesearch.search.ledger import JOINT, WARM, Ledger

FOLDER = Path(sys.argv[1])
CLUSTERED, WIDE = {"name": "clustered"}, {"name": "clustered", "arity": 32}
ADAPTIVE = {"name": "adaptive", "div_value": 1.0}
ENCODERS = {
    "clustered": [CLUSTERED],
    "clustered(arity=32)": [WIDE],
    "adaptive": [ADAPTIVE],
    "all three": [CLUSTERED, WIDE, ADAPTIVE],
}
LIMIT = 40.0


def evaluate(name):
    config = load_config(FOLDER / "config.yaml", [f"encoder.trees={json.dumps(ENCODERS[name])}"])
    corpus = load_corpus(config)
    with ProgressReporter(quiet=True) as progress:
        prepared = prepare_run(config, corpus, progress)
    nll = {WARM: {}, JOINT: {}}
    with Ledger(FOLDER / "search.db") as ledger:
        for rung, known in nll.items():
            for row in ledger.rows(rung):
                if row.valid_nll is not None and row.cost < LIMIT:
                    known[row.tree_hash] = min(row.valid_nll, known.get(row.tree_hash, row.valid_nll))
        trees = {tree_hash: ledger.tree(tree_hash) for tree_hash in nll[WARM]}
    data = {"train": prepared.train, "valid": prepared.valid, "vectors": prepared.vectors}
    counts = corpus.counts.astype(float)
    frozen = {h: evaluate_frozen(tree, counts=counts, epochs=2, **data).mean_nll for h, tree in trees.items()}
    both = {rung: [h for h in known if h in frozen] for rung, known in nll.items()}
    return [
        (rung, len(hs), rank_correlation([frozen[h] for h in hs], [nll[rung][h] for h in hs]))
        for rung, hs in both.items()
    ]


if __name__ == "__main__":
    names = sys.argv[2:] or list(ENCODERS)
    with ProcessPoolExecutor(2) as pool:
        for name, agreement in zip(names, pool.map(evaluate, names)):
            print(f"{name:22}", *(f"{rung}: tau {tau:.2f} on {num} trees  " for rung, num, tau in agreement), flush=True)

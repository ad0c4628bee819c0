"""What the learning rates of nodes do to joint training: `python rates.py RUN_FOLDER`.

Trees of the run's joint rung are trained as there, at one learning rate, with several rules for the factor of a node that a share
of the examples passes: `max(share ** power, smallest)`. `half` is 0.5 for all nodes, the root included. Validation NLL, mean
over the seeds.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from treesearch.config import load_config
from treesearch.launch.parts import load_corpus
from treesearch.search.ledger import JOINT, Ledger
from treesearch.search.worker import EvaluationWorker, JointTask, WorkerSettings
from treesearch.softmax import layer, row_rates

FOLDER = Path(sys.argv[1])
NAMES = sys.argv[2:]  # rows of the joint rung
RULES = {"one rate": (0.0, 1.0), "half": None, "0.2, 0.5": (0.2, 0.5)}
SEEDS = (300, 301)
LEARNING_RATE = 0.01
config = load_config(FOLDER / "config.yaml")
corpus = load_corpus(config)


def half(layout, counts):
    return [np.full(rows, 0.5, np.float32) for rows in layout.rows_per_width]


def train(job):
    tree, rule, seed = job
    if RULES[rule] is None:
        layer.row_rates = half
    else:
        layer.row_rates = row_rates.row_rates
        row_rates.POWER, row_rates.SMALLEST = RULES[rule]
    arrays = {"train": corpus.train, "valid": corpus.valid, "counts": corpus.counts.astype(float)}
    settings = WorkerSettings(config.encoder, config.frozen, config.joint, corpus.eos)
    return EvaluationWorker(arrays, settings)(JointTask(tree, LEARNING_RATE, seed, use_test=False)).valid_nll


if __name__ == "__main__":
    with Ledger(FOLDER / "search.db") as ledger:
        hashes = {row.label: (row.tree_hash, row.cost) for row in ledger.rows(JOINT)}
        trees = {name: ledger.tree(hashes[name][0]) for name in NAMES}
    jobs = [(name, rule, seed) for name in NAMES for rule in RULES for seed in SEEDS]
    nll = {}
    with ProcessPoolExecutor(2) as pool:
        for job, value in zip(jobs, pool.map(train, [(trees[name], rule, seed) for name, rule, seed in jobs])):
            nll.setdefault(job[:2], []).append(value)
    print(f"{'tree':46}{'cost':>8}", *(f"{rule:>9}" for rule in RULES))
    for name in NAMES:
        print(f"{name:46}{hashes[name][1]:8.2f}", *(f"{np.mean(nll[name, rule]):9.4f}" for rule in RULES))
    deviation = np.sqrt(np.mean([np.var(values, ddof=1) for values in nll.values()]))
    print(f"standard deviation between seeds {deviation:.4f}")

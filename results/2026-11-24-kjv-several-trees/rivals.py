"""Builders that the run did not confirm, on its confirmation seeds: `python rivals.py RUN_FOLDER FOUND NAME...`.

Each is trained as on the joint rung (every learning rate, the run's seed; the best by validation NLL), then with the seeds of the
confirmation. Gains of FOUND over each, on the test split, paired by seed, at every λ of the run.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from treesearch.config import load_config
from treesearch.evaluation.comparison import paired_difference
from treesearch.launch.confirmation import CONFIRM_SEEDS
from treesearch.launch.parts import load_corpus
from treesearch.search.ledger import CONFIRM, FROZEN, Ledger
from treesearch.search.worker import EvaluationWorker, JointTask, WorkerSettings

FOLDER, FOUND = Path(sys.argv[1]), sys.argv[2]
config = load_config(FOLDER / "config.yaml")
corpus = load_corpus(config)


def train(job):
    tree, rate, seed = job
    arrays = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test, "counts": corpus.counts.astype(float)}
    settings = WorkerSettings(config.encoder, config.frozen, config.joint, corpus.eos)
    scores = EvaluationWorker(arrays, settings)(JointTask(tree, rate, seed, use_test=seed >= CONFIRM_SEEDS))
    return scores.valid_nll, scores.test_nll


if __name__ == "__main__":
    with Ledger(FOLDER / "search.db") as ledger:
        rows = {row.label: row for row in ledger.rows(FROZEN) if row.label in sys.argv[3:]}
        trees = {name: ledger.tree(row.tree_hash) for name, row in rows.items()}
        confirmed = {row.seed: row for row in ledger.rows(CONFIRM) if row.label == FOUND}
    seeds = sorted(confirmed)
    cost = confirmed[seeds[0]].cost
    with ProcessPoolExecutor(2) as pool:
        for name, tree in trees.items():
            rates = config.joint.learning_rates
            nll = [valid for valid, _ in pool.map(train, [(tree, rate, config.seed) for rate in rates])]
            rate = rates[nll.index(min(nll))]
            results = list(pool.map(train, [(tree, rate, seed) for seed in seeds]))
            valid, test = map(list, zip(*results))
            print(f"{name}: cost {rows[name].cost:.2f}, learning rate {rate}, joint valid NLL {min(nll):.4f};"
                  f" {len(seeds)} seeds: valid {sum(valid) / len(seeds):.4f}, test {sum(test) / len(seeds):.4f}")
            gain = paired_difference(test, [confirmed[seed].test_nll for seed in seeds])
            for weight in config.cost.weights:
                saved = weight * (rows[name].cost - cost)
                print(f"  {FOUND} at λ = {weight:g}: {gain.mean + saved:+.4f} [{gain.low + saved:+.4f}, {gain.high + saved:+.4f}]",
                      flush=True)

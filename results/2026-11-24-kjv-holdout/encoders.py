"""What the encoder's own training tree does to the frozen rung: `python encoders.py RUN_FOLDER`.

Encoders are trained as in the run but on other trees and from other seeds. On the features of each, every tree of the joint
rung is evaluated (three passes, scored on validation and test split, which no frozen rung has seen), and compared with
`clustered(arity=32)` at λ = 0.005 and, by Kendall's tau, with its NLL after joint training.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from treesearch.config import load_config
from treesearch.data.contexts import context_windows
from treesearch.evaluation import preparation
from treesearch.evaluation.comparison import rank_correlation
from treesearch.evaluation.encoder import encode
from treesearch.evaluation.frozen import Features, evaluate_frozen
from treesearch.launch.parts import load_corpus, prepare_run
from treesearch.progress import ProgressReporter
from treesearch.search.ledger import JOINT, Ledger

FOLDER = Path(sys.argv[1])
REFERENCE = "clustered(arity=32)"
SHOWN = ("clustered(arity=24)", "clustered(arity=48)", "clustered(arity=128)", "found #633", "found #610", "found #949")
# Seed, and what the encoder is trained on; None: a Huffman tree and a binary clustered one, as in the run.
ENCODERS = ((0, None), (1, None), (1, REFERENCE), (1, "found #633"), (0, "adaptive(cutoffs=[500, 2500], div_value=1.0)"))


def evaluate(job):
    seed, trained_on = job
    config = load_config(FOLDER / "config.yaml", [f"seed={seed}"])
    corpus = load_corpus(config)
    counts = corpus.counts.astype(float)
    with Ledger(FOLDER / "search.db") as ledger:
        rows = {}
        for row in ledger.rows(JOINT):
            if row.valid_nll is not None and (row.label not in rows or row.valid_nll < rows[row.label].valid_nll):
                rows[row.label] = row
        trees = {name: ledger.tree(row.tree_hash) for name, row in rows.items()}
    with ProgressReporter(quiet=True) as progress:
        prepared = prepare_run(config, corpus, progress, tree=trees.get(trained_on))
    encoder = preparation.untrained_encoder(config.encoder, corpus.num_classes, preparation.torch.Generator())
    encoder.load_state_dict({name: preparation.torch.tensor(value) for name, value in prepared.encoder.items()})
    unseen = Features(
        np.concatenate(
            [encode(encoder, context_windows(s, size=5, pad=corpus.eos)) for s in (corpus.valid, corpus.test)]
        ),
        np.concatenate([corpus.valid, corpus.test]),
    )
    options = {"train": prepared.train, "valid": unseen, "counts": counts, "vectors": prepared.vectors, "epochs": 3}
    nll = {name: evaluate_frozen(tree, **options).mean_nll for name, tree in trees.items()}
    gains = {n: nll[REFERENCE] - nll[n] + 0.005 * (rows[REFERENCE].cost - rows[n].cost) for n in SHOWN if n in nll}
    plain = [n for n in nll if not n.startswith(("adaptive", "huffman"))]
    taus = [rank_correlation([nll[n] for n in names], [rows[n].valid_nll for n in names]) for names in (nll, plain)]
    return gains, taus, nll[REFERENCE]


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        for (seed, trained_on), (gains, taus, nll) in zip(ENCODERS, pool.map(evaluate, ENCODERS)):
            print(f"encoder of seed {seed}, trained on {trained_on or 'huffman, clustered'}: NLL of {REFERENCE} {nll:.4f}")
            print(f"  tau with joint training {taus[0]:.2f}, without adaptive trees and Huffman {taus[1]:.2f}")
            for name, gain in gains.items():
                print(f"  {name:22} {gain:+.4f} nats of reward", flush=True)

"""Kendall's tau of the frozen and the joint rung of a run, the frozen rung evaluated again with more passes.

    python rungs.py RUN_FOLDER [PASSES]

One row per tree of the joint rung but `flat`: frozen NLL as run, frozen NLL with so many passes, joint NLL at the best
rate, cost, share of nodes under projections; then tau of all pairs and of pairs at least 0.005 nats apart jointly.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from treesearch.evaluation.frozen import Features, evaluate_frozen
from treesearch.evaluation.memo import NodeMemo, memo_keys
from treesearch.launch import load_corpus, prepare_run
from treesearch.paths import block_roots
from treesearch.progress import ProgressReporter
from treesearch.search.run_folder import RunFolder

folder, passes = RunFolder(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 3
config = folder.config()
corpus = load_corpus(config)
with ProgressReporter() as progress:
    preparation = prepare_run(config, corpus, progress)
train = Features(preparation.train_features, corpus.train[: len(preparation.train_features)])
valid = Features(preparation.valid_features, corpus.valid[: len(preparation.valid_features)])
counts, memo, rows = corpus.counts.astype(float), NodeMemo(), []
with folder.open() as ledger:
    frozen = {row.tree_hash: row for row in ledger.rows("frozen") if row.valid_nll is not None}
    joint: dict[str, float] = {}
    for row in ledger.rows("joint"):
        if row.valid_nll is not None and row.label != "flat":
            joint[row.tree_hash] = min(row.valid_nll, joint.get(row.tree_hash, np.inf))
    for tree_hash, joint_nll in sorted(joint.items(), key=lambda item: item[1]):
        tree = ledger.tree(tree_hash)
        keys = memo_keys(tree)
        known = memo.look_up(keys)
        scores = evaluate_frozen(tree, train=train, valid=valid, counts=counts, epochs=passes, wanted=np.isnan(known))
        nll = np.where(np.isnan(known), scores.nll / scores.num_tokens, known)
        memo.store(keys, nll)
        projected = float((block_roots(tree) >= 0).mean())
        rows.append((frozen[tree_hash].valid_nll, float(nll.sum()), joint_nll, frozen[tree_hash].cost, projected))
        print("\t".join(f"{value:.4f}" for value in rows[-1]), flush=True)


def tau(own: list, column: int, gap: float) -> str:
    pairs = [(a, b) for a, b in combinations(own, 2) if abs(a[2] - b[2]) > gap]
    agreeing = sum((a[column] - b[column]) * (a[2] - b[2]) > 0 for a, b in pairs)
    return f"{2 * agreeing / len(pairs) - 1:.2f} ({len(pairs)} pairs)"


for name, own in (("all", rows), ("without projections", [row for row in rows if row[4] == 0])):
    for gap in (0.0, 0.005):
        print(f"{name}, more than {gap} nats apart: one pass {tau(own, 0, gap)}, {passes} passes {tau(own, 1, gap)}")

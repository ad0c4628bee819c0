"""How much of a frozen score is luck: `python fresh_tokens.py RUN_FOLDER LABEL_OR_ID...`; the first is the reference.

The encoder of the run is trained again (same seed, same bits), and the nodes of each tree on its features. Scores are on the held-out
tokens, by which the search chose, and on the validation and test splits, which neither encoder, nodes nor search have seen. Beside
them the mean validation NLL of the joint trainings at the tree's best rate. Nats per token, differences to the reference.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from treesearch.config import load_config
from treesearch.data.contexts import context_windows
from treesearch.evaluation.encoder import encode, make_encoder
from treesearch.evaluation.frozen import Features, evaluate_frozen
from treesearch.launch.parts import load_corpus, prepare_run
from treesearch.progress import ProgressReporter
from treesearch.search.ledger import FROZEN, JOINT, Ledger

FOLDER = Path(sys.argv[1])
config = load_config(FOLDER / "config.yaml")
corpus = load_corpus(config)
with ProgressReporter(quiet=True) as progress:
    prepared = prepare_run(config, corpus, progress)
settings = config.encoder
encoder = make_encoder(
    settings.kind,
    corpus.num_classes,
    context=settings.context,
    embedding=settings.embedding,
    features=settings.features,
)
encoder.load_state_dict({name: torch.tensor(value) for name, value in prepared.encoder.items()})
splits = [
    Features(encode(encoder, context_windows(stream, size=settings.context, pad=corpus.eos)), stream)
    for stream in (corpus.valid, corpus.test)
]
fresh = Features(np.concatenate([one.x for one in splits]), np.concatenate([one.y for one in splits]))


def joint(rows, tree_hash):
    own = [row for row in rows if row.tree_hash == tree_hash and row.valid_nll is not None]
    first = [row for row in own if row.seed == config.seed]
    if not first:
        return float("nan")
    rate = min(first, key=lambda row: row.valid_nll).learning_rate
    return np.mean([row.valid_nll for row in own if row.learning_rate == rate])


with Ledger(FOLDER / "search.db") as ledger:
    assert ledger.meta("encoder") == prepared.hash, "another machine, other bits"
    frozen, trained = ledger.rows(FROZEN), ledger.rows(JOINT)
    reference = None
    for name in sys.argv[2:]:
        row = next(row for row in frozen if name in (row.label, str(row.id)))
        options = {"counts": corpus.counts.astype(float), "vectors": prepared.vectors, "epochs": config.frozen.epochs}
        scores = [
            evaluate_frozen(
                ledger.tree(row.tree_hash),
                train=prepared.train,
                valid=split,
                learning_rate=config.frozen.learning_rate,
                **options,
            ).mean_nll
            for split in (prepared.valid, fresh)
        ]
        figures = np.array([*scores, joint(trained, row.tree_hash)])
        reference = figures if reference is None else reference
        print(f"{name:24}" + "".join(f"{value:+10.4f}" for value in figures - reference), flush=True)

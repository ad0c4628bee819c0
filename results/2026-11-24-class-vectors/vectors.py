"""Which class vectors make good clusters: `python vectors.py CONFIG.yaml [KEY=VALUE ...]`.

Trees `clustered(arity=48)` from several vectors and starts of the clustering, each trained on frozen features in three
passes, and scored on a fifth of the training text that encoder, vectors and nodes have not seen. Vectors are class means,
shrunk towards the mean of all by a prior of so many tokens, times a power of the covariance within classes.
"""

import sys

import numpy as np
from concurrent.futures import ProcessPoolExecutor

from treesearch import build_tree
from treesearch.config import load_config
from treesearch.cost import CostModel
from treesearch.evaluation.class_vectors import class_vectors
from treesearch.evaluation.frozen import evaluate_frozen
from treesearch.evaluation.preparation import prepare
from treesearch.launch.parts import load_corpus

ARITY, SEEDS, PASSES, HOLDOUT = 48, range(4), 3, 0.2
VECTORS = {(prior, power) for prior in (1, 5) for power in (0, -0.25, -0.5)} | {(5, -1), (20, -0.5)}


def evaluate(job):
    prior, power, seed, vectors = job
    tree = build_tree("clustered", counts=COUNTS, vectors=vectors, arity=ARITY, seed=seed)
    cost = CostModel(vectors.shape[1], WEIGHT).tree_cost(tree, COUNTS).cost
    nll = evaluate_frozen(tree, train=P.train, valid=P.valid, counts=COUNTS, epochs=PASSES).mean_nll
    return nll, cost, -nll - WEIGHT * cost


config = load_config(sys.argv[1], sys.argv[2:])
corpus = load_corpus(config)
COUNTS, WEIGHT = corpus.counts.astype(float), config.cost.weight
P = prepare(corpus, config.encoder, seed=config.seed, holdout=HOLDOUT)
jobs = []
for prior, power in sorted(VECTORS, key=lambda v: (-v[1], v[0])):
    vectors = class_vectors(P.train.x, P.train.y, COUNTS.size, prior=prior, power=power)
    jobs += [(prior, power, seed, vectors) for seed in SEEDS]
with ProcessPoolExecutor(2) as pool:
    results = list(pool.map(evaluate, jobs))
print("prior  power  mean reward  sd of starts  mean NLL  mean cost")
for at in range(0, len(jobs), len(SEEDS)):
    nll, cost, reward = np.transpose(results[at : at + len(SEEDS)])
    print(
        f"{jobs[at][0]:5} {jobs[at][1]:6} {reward.mean():12.4f} {reward.std(ddof=1):13.4f} {nll.mean():9.4f}"
        f" {cost.mean():10.2f}"
    )

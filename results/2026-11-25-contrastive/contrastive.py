"""Does a contrastive loss on leaf vectors help them, or the softmax? Glosses of WordNet's nouns, classed by hypernym.

    python contrastive.py $TREESEARCH_DATA/wordnet/noun_synsets.tsv rows.json [--seeds 5]

A document is the gloss of a noun, its class the first hypernym, of those with ten nouns or more below them. One noun in
ten is for validation and one for test, by a hash of its synset. Trees: the taxonomy of the classes themselves (a class
with classes below it has a leaf of its own there, chains are collapsed), and Huffman's, which knows nothing of it.
Siblings are classes with the same hypernym. Pairs: siblings (what is then measured), or neighbours by the classes' own
glosses (tf-idf, 64 singular values), for which siblings are held out.
"""

import argparse
import hashlib
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import nn

from treesearch import Tree, build_tree
from treesearch.evaluation.comparison import paired_difference, t_interval
from treesearch.exchange.links import tree_from_links
from treesearch.objectives.contrastive import info_nce
from treesearch.objectives.gradients import combine_gradients
from treesearch.objectives.leaf_pairs import LeafPairs, SiblingPairs
from treesearch.softmax.leaf_vectors import LeafVectorSoftmax

LEAST, D, EPOCHS, BATCH, RATE, PAIRS, TEMPERATURE, NEIGHBOURS = 10, 64, 8, 256, 0.01, 128, 0.1, 5
RUNS = [  # tree, pairs, handling, weight of the contrastive loss
    ("taxonomy", None, "sum", 0.0),
    *(("taxonomy", "gloss", "sum", weight) for weight in (0.01, 0.1)),
    *(("taxonomy", "gloss", handling, 0.1) for handling in ("pcgrad", "normalised")),
    *(("taxonomy", "siblings", handling, 0.1) for handling in ("sum", "pcgrad", "normalised")),
    ("huffman", None, "sum", 0.0),
    ("huffman", "gloss", "sum", 0.1),
]


def words(text):
    return [word.strip("();,.:'\"`").lower() for word in text.split()]


class Task:
    """Documents, classes, and what is known of these."""

    def __init__(self, path):
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        above = {row[0]: row[1] for row in rows}
        gloss = {row[0]: words(row[5]) for row in rows}
        children = Counter(above.values())
        split = {synset: int(hashlib.blake2b(synset.encode(), digest_size=4).hexdigest(), 16) % 10 for synset in above}
        names = sorted({above[s] for s in above if children[above[s]] >= LEAST and above[s] in above and split[s] > 1})
        number = {name: index for index, name in enumerate(names)}
        vocabulary = Counter(word for s in above if above[s] in number and split[s] > 1 for word in gloss[s])
        self.word = {word: index for index, word in enumerate(w for w, count in vocabulary.items() if count > 1)}
        self.num_classes = len(names)
        self.documents = {}
        for part, tenths in (("train", range(2, 10)), ("valid", [0]), ("test", [1])):
            own = [s for s in above if above[s] in number and split[s] in tenths]
            ids = [[self.word[word] for word in gloss[s] if word in self.word] for s in own]
            self.documents[part] = ids, torch.tensor([number[above[s]] for s in own])
        self.counts = np.bincount(self.documents["train"][1], minlength=self.num_classes).astype(float)
        self.trees = {"taxonomy": self.taxonomy(names, above), "huffman": build_tree("huffman", counts=self.counts)}
        self.siblings = SiblingPairs.from_groups(np.unique([above[name] for name in names], return_inverse=True)[1])
        self.gloss_vectors = vectors_of([gloss[name] for name in names])
        gloss_pairs = LeafPairs.from_vectors(self.gloss_vectors, num_neighbours=NEIGHBOURS)
        self.pairs = {"siblings": self.siblings, "gloss": gloss_pairs}

    @staticmethod
    def taxonomy(names, above):
        node, parent = {}, []
        for name in names:
            chain = []
            while name in above and name not in node:
                chain.append(name)
                name = above[name]
            for each in reversed(chain):
                node[each] = len(parent)
                parent.append(node.get(above[each], Tree.NO_PARENT))
        leaves = np.arange(len(parent), len(parent) + len(names))
        return tree_from_links(parent + [node[name] for name in names], leaves, np.arange(len(names)))


def vectors_of(texts):
    """Tf-idf and singular vectors, [C, D]."""
    ids = {word: index for index, word in enumerate(dict.fromkeys(word for text in texts for word in text))}
    entries = Counter((row, ids[word]) for row, text in enumerate(texts) for word in text)
    coordinates = np.array(list(entries)).T
    matrix = sparse.coo_array((np.array(list(entries.values()), float), coordinates), (len(texts), len(ids))).tocsr()
    matrix = matrix * np.log(len(texts) / np.bincount(coordinates[1]))
    left, values, _ = svds(matrix.tocsr(), k=D, v0=np.ones(len(texts)))
    return left * values


def bags(documents, indices):
    lists = [documents[i] for i in indices]
    offsets = torch.tensor([0, *np.cumsum([len(each) for each in lists])[:-1]])
    return torch.tensor([word for each in lists for word in each], dtype=torch.int64), offsets


def retrieval(vectors, siblings):
    """Siblings among the k nearest by cosine, as a share of those that could be there; mean over classes with any."""
    unit = nn.functional.normalize(vectors, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-2)
    every = torch.arange(len(vectors))
    truth = siblings.contains(every, every)
    has = truth.any(1)
    order = cosine.topk(10, dim=1).indices
    hits = truth.gather(1, order).double()
    return {f"recall@{k}": float((hits[:, :k].sum(1) / truth.sum(1).clamp(max=k))[has].mean()) for k in (1, 5, 10)}


def run(task, tree, pairs, handling, weight, seed):
    begin = time.perf_counter()
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    encoder = nn.EmbeddingBag(len(task.word), D, mode="mean")
    layer = LeafVectorSoftmax(D, task.trees[tree], counts=task.counts)
    layer.reset_parameters(task.counts, generator)
    with torch.no_grad():
        encoder.weight.copy_(torch.randn(encoder.weight.shape, generator=generator))
    parameters = [*encoder.parameters(), *layer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE, fused=True)
    known = task.pairs[pairs] if pairs else None
    documents, labels = task.documents["train"]
    cosines, best = [], {"valid_nll": np.inf}
    for epoch in range(EPOCHS):
        order = torch.randperm(len(labels), generator=generator)
        for index in order.split(BATCH):
            losses = [layer.nll(encoder(*bags(documents, index.tolist())), labels[index])]
            if known is not None:
                anchors, positives = known.sample(PAIRS, rng)
                losses.append(info_nce(layer.leaf_vectors, anchors, positives, temperature=TEMPERATURE, pairs=known))
            optimizer.zero_grad()
            weights = [1.0, weight][: len(losses)]
            report = combine_gradients(losses, parameters, handling=handling, weights=weights)
            optimizer.step()
            cosines.append(report.cosines[0][-1])
        found = {}
        with torch.no_grad():
            for part in ("valid", "test"):
                texts, own = task.documents[part]
                found[f"{part}_nll"] = float(layer.nll(encoder(*bags(texts, range(len(texts)))), own))
        if found["valid_nll"] < best["valid_nll"]:
            best = {"epoch": epoch + 1, **found, **retrieval(layer.leaf_vectors.detach(), task.siblings)}
    row = {"tree": tree, "pairs": pairs, "handling": handling, "weight": weight, "seed": seed, **best}
    row |= {"cosine": float(np.mean(cosines)), "conflicts": float(np.mean(np.array(cosines) < 0))} if pairs else {}
    return row | {"seconds": round(time.perf_counter() - begin, 1)}


def table(rows):
    """Means, and differences from training without the contrastive loss, paired by seed, with 95 % t intervals."""
    measures = ("test_nll", "recall@1", "recall@5", "recall@10")
    lines = ["| tree | pairs | handling | weight | " + " | ".join(measures) + " | gradient cosine | conflicts |"]
    lines.append("|---" * 10 + "|")
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in ("tree", "pairs", "handling", "weight")), []).append(row)
    for (tree, pairs, handling, weight), own in groups.items():
        alone = groups[tree, None, "sum", 0.0]
        cells = []
        for measure in measures:
            values = [row[measure] for row in own]
            cell = f"{t_interval(values).mean:.4f}"
            if pairs:
                gain = paired_difference(values, [row[measure] for row in alone[: len(own)]])
                cell += f" ({gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}])"
            cells.append(cell)
        for measure in ("cosine", "conflicts"):
            cells.append(f"{np.mean([row[measure] for row in own]):.3f}" if pairs else "")
        cells = [tree, pairs or "none", handling if pairs else "", f"{weight:g}" if pairs else "", *cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = Task(arguments.source)
    sizes = {part: len(labels) for part, (_, labels) in task.documents.items()}
    tree = task.trees["taxonomy"]
    every = torch.arange(task.num_classes)
    truth, near = (task.pairs[name].contains(every, every) for name in ("siblings", "gloss"))
    print(
        f"{task.num_classes} classes, {sizes}, {len(task.word)} words, {tree}, depth {tree.expected_depth(task.counts):.2f}"
    )
    print(
        f"{int(truth.any(1).sum())} classes with siblings; {float((truth & near).sum() / near.sum()):.3f} of gloss pairs are siblings"
    )
    print("gloss vectors themselves:", retrieval(torch.from_numpy(task.gloss_vectors), task.siblings))
    rows = []
    for seed in range(arguments.seeds):
        for settings in RUNS:
            rows.append(run(task, *settings, seed))
            print(rows[-1], flush=True)
            arguments.out.write_text(json.dumps(rows, indent=0) + "\n")
    print(table(rows))

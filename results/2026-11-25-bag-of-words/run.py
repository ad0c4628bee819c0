"""napkinXC's hierarchical softmax on its own trees and on given ones.

    python run.py DATA --tree NAME=FILE.tree.json [--tree ..] [--seeds 3] --out rows.json

DATA holds train.tsv and test.tsv of `prepare.py`. Features are tf-idf of the words that `data.kind: labels` counts. For each
tree: seconds to train, mean log-loss in nats and precision@1 on the test split, and milliseconds per document to predict the
most probable label. Trees take turns with each seed, so that what disturbs the machine disturbs all of them.
"""

import argparse
import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter

import numpy as np
from napkinxc.models import HSM
from scipy import sparse

from treesearch import Tree, build_tree
from treesearch.data.labels import WORD
from treesearch.exchange.napkinxc import tree_structure

OWN = {
    "napkinXC huffman": {"tree_type": "huffman", "arity": 2, "max_leaves": 2},
    "napkinXC k-means": {"tree_type": "hierarchicalKmeans", "arity": 2, "max_leaves": 2},
    "napkinXC k-means, 16-way": {"tree_type": "hierarchicalKmeans", "arity": 16, "max_leaves": 16},
}
SMALLEST = 1e-6  # probability of a label that is not among those that napkinXC returns


def read(path: Path) -> tuple[list[list[str]], list[str]]:
    pairs = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [WORD.findall(text.casefold()) for text, _ in pairs], [label.strip() for _, label in pairs]


def tf_idf(documents: list[list[str]], words: dict[str, int], idf: np.ndarray) -> sparse.csr_matrix:
    rows, columns, values = [], [], []
    for row, document in enumerate(documents):
        for word, count in Counter(word for word in document if word in words).items():
            rows.append(row)
            columns.append(words[word])
            values.append((1 + math.log(count)) * idf[words[word]])
    matrix = sparse.csr_matrix((values, (rows, columns)), shape=(len(documents), len(words)), dtype=np.float32)
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(norm, 1e-12)).astype(np.float32) @ matrix


def measure(options: dict, structure: list | None, seed: int, data: tuple) -> dict[str, float]:
    x_train, y_train, x_test, y_test = data
    with tempfile.TemporaryDirectory() as folder:
        model = HSM(folder, seed=seed, threads=1, **options)
        if structure is not None:
            model.set_tree_structure(structure)
        begin = perf_counter()
        model.fit(x_train, y_train)
        train_seconds = perf_counter() - begin
        model.predict(x_test[:100], top_k=1)
        begin = perf_counter()
        first = model.predict(x_test, top_k=1)
        predict_ms = 1e3 * (perf_counter() - begin) / x_test.shape[0]
        ranked = model.predict_proba(x_test, top_k=int(max(y_train)) + 1)
    losses = [-math.log(max(dict(row).get(label, 0.0), SMALLEST)) for row, label in zip(ranked, y_test, strict=True)]
    hits = [row[0] == label for row, label in zip(first, y_test, strict=True)]
    return {
        "log_loss": float(np.mean(losses)),
        "precision@1": float(np.mean(hits)),
        "train_seconds": train_seconds,
        "predict_ms": predict_ms,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--tree", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    (train, train_labels), (test, test_labels) = (read(options.data / f"{name}.tsv") for name in ("train", "test"))
    counts = Counter(train_labels)
    names = sorted(counts, key=lambda name: (-counts[name], name))
    ids = {name: number for number, name in enumerate(names)}
    occurs = Counter(word for document in train for word in set(document))
    words = {word: number for number, word in enumerate(sorted(occurs))}
    idf = np.log(len(train) / np.array([occurs[word] for word in words]))
    y_train, y_test = ([ids[name] for name in labels] for labels in (train_labels, test_labels))
    data = tf_idf(train, words, idf), y_train, tf_idf(test, words, idf), y_test
    trees = {"huffman": build_tree("huffman", counts=[counts[name] for name in names])}
    for entry in options.tree:
        name, _, path = entry.partition("=")
        trees[name] = Tree.load(path)
        assert trees[name].class_names == tuple(names), "classes are numbered as by data.kind: labels"
    contenders = {name: (own, None) for name, own in OWN.items()}
    contenders |= {name: ({}, tree_structure(tree)) for name, tree in trees.items()}
    rows = []
    for seed in range(options.seeds):
        for name, (own, structure) in contenders.items():
            rows.append({"tree": name, "seed": seed, **measure(own, structure, seed, data)})
            print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    print(f"\n{'tree':28} {'log-loss':>9} {'p@1':>7} {'train s':>8} {'predict ms':>11} {'depth':>6}")
    for name in contenders:
        own = [row for row in rows if row["tree"] == name]
        mean = {key: np.mean([row[key] for row in own]) for key in ("log_loss", "precision@1")}
        middle = {key: np.median([row[key] for row in own]) for key in ("train_seconds", "predict_ms")}
        depth = f"{trees[name].expected_depth([counts[one] for one in names]):6.2f}" if name in trees else ""
        print(
            f"{name:28} {mean['log_loss']:9.4f} {mean['precision@1']:7.4f} {middle['train_seconds']:8.1f}"
            f" {middle['predict_ms']:11.3f} {depth}"
        )


if __name__ == "__main__":
    main()

"""Word vectors by gensim over given trees, against gensim's own Huffman tree: held-out loss and training time.

    python run.py --corpus DIR --tree NAME=FILE.tree.json --seeds 3 --epochs 5 --window 5 --size 100 [--cbow] --out rows.json
    python run.py --corpus DIR --dump FOLDER [--max-pairs N] ...

DIR has train.txt, valid.txt and test.txt, a sentence a line, words separated by blanks. A tree file is one of
treesearch; its class names are the words (without names, class i is word i by falling count, ties as gensim has them).
All models of a seed are trained one after the other, so that disturbances of the machine hit all; seconds are those of
the processor in ``train`` alone (for the ratios, in ``--turns`` of an epoch); losses are nats per pair
(`treesearch.exchange.gensim.pairs`) on test.txt.

``--dump`` trains with Huffman, or ``--dump-tree``, and writes train/, valid/ and test/ with x.npy (float16 [N, D], what
the output layer sees) and y.npy (int32 [N], word ids) and class_names.txt, for a search to read.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
from gensim.models import Word2Vec

from treesearch import Tree
from treesearch.exchange.gensim import TreeGuard, extract, install, mean_nll, pairs

HUFFMAN = "huffman"


def main():
    arguments = parse()
    corpus = {part: read(arguments.corpus / f"{part}.txt") for part in ("train", "valid", "test")}
    if arguments.dump:
        dump(arguments, corpus)
        return
    trees = {HUFFMAN: None}
    for entry in arguments.tree:
        name, _, file = entry.partition("=")
        if not file or name in trees:
            raise SystemExit(f"--tree must be NAME=FILE with a name of its own, but got {entry!r}")
        trees[name] = Tree.load(file)
    rows = []
    for seed in range(arguments.seeds):
        order = list(trees)
        # Another model is first for each seed: what a machine does at the start of a round hits none more than others.
        for name in order[seed % len(order) :] + order[: seed % len(order)]:
            rows.append(measure(arguments, corpus, name, trees[name], seed))
            print(json.dumps(rows[-1]), flush=True)
    turns = [turn(arguments, corpus, trees, number) for number in range(arguments.turns)]
    print()
    print(table(rows, turns, list(trees)))
    if arguments.out:
        content = {"settings": settings_of(arguments), "rows": rows, "turns": turns}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=15, help="epochs that each tree trains for its time alone")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--window", type=int, default=5)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--min-count", type=int, default=5)
    parser.add_argument("--sample", type=float, default=1e-3)
    parser.add_argument("--cbow", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dump", type=Path)
    parser.add_argument("--dump-tree", type=Path, help="train on this tree before, not on Huffman")
    parser.add_argument("--max-pairs", type=int, default=1_000_000)
    return parser.parse_args()


def settings_of(arguments):
    skip = ("out", "dump", "dump_tree", "corpus", "tree", "max_pairs")
    return {key: value for key, value in vars(arguments).items() if key not in skip} | {
        "corpus": arguments.corpus.name,
        "trees": [Path(entry.partition("=")[2]).name for entry in arguments.tree],
    }


def read(path):
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def new_model(arguments, train, seed):
    model = Word2Vec(
        vector_size=arguments.size,
        window=arguments.window,
        min_count=arguments.min_count,
        sample=arguments.sample,
        sg=int(not arguments.cbow),
        hs=1,
        negative=0,
        workers=1,
        seed=seed,
        epochs=arguments.epochs,
    )
    model.build_vocab(train)
    return model


def train(arguments, corpus, tree, seed, epochs):
    """A model, and seconds of the processor in its training."""
    model = new_model(arguments, corpus["train"], seed)
    guard = []
    if tree is not None:
        install(model, tree)
        guard = [TreeGuard(tree)]
    start = time.process_time()
    model.train(corpus["train"], total_examples=len(corpus["train"]), epochs=epochs, callbacks=guard)
    return model, time.process_time() - start


def turn(arguments, corpus, trees, number):
    """Seconds of an epoch with each tree, one after the other, beginning with another one each time."""
    names = list(trees)
    names = names[number % len(names) :] + names[: number % len(names)]
    return {name: round(train(arguments, corpus, trees[name], number, 1)[1], 4) for name in names}


def measure(arguments, corpus, name, tree, seed):
    model, seconds = train(arguments, corpus, tree, seed, arguments.epochs)
    counts = [model.wv.get_vecattr(word, "count") for word in model.wv.index_to_key]
    return {
        "tree": name,
        "seed": seed,
        "nats": round(mean_nll(model, corpus["test"]), 5),
        "seconds": round(seconds, 3),
        "depth": round(extract(model).expected_depth(counts), 4),
        "max_depth": int(extract(model).max_depth),
        "classes": len(model.wv),
    }


def table(rows, turns, names):
    """Means by tree; differences to Huffman are paired by seed, with their standard deviation; ratios by turn, medians."""
    of = {(row["tree"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    lines = ["| tree | depth | nats per pair | minus huffman | time over huffman |", "|---|---|---|---|---|"]
    for name in names:
        own = [of[name, seed] for seed in seeds]
        base = [of[HUFFMAN, seed] for seed in seeds]
        gain = [row["nats"] - other["nats"] for row, other in zip(own, base, strict=True)]
        ratio = [each[name] / each[HUFFMAN] for each in turns] or [math.nan]
        lines.append(
            f"| {name} | {np.mean([row['depth'] for row in own]):.2f} | {np.mean([row['nats'] for row in own]):.4f}"
            f" | {spread(gain, '+.4f')} | {np.median(ratio):.3f} |"
        )
    return "\n".join(lines)


def spread(values, form):
    mean = format(np.mean(values), form)
    return f"{mean} ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else mean


def dump(arguments, corpus):
    model = new_model(arguments, corpus["train"], 0)
    if arguments.dump_tree:
        install(model, Tree.load(arguments.dump_tree))
    model.train(corpus["train"], total_examples=len(corpus["train"]), epochs=arguments.epochs)
    for part, sentences in corpus.items():
        folder = arguments.dump / part
        folder.mkdir(parents=True, exist_ok=True)
        hidden, target = capped(model, sentences, arguments.max_pairs)
        np.save(folder / "x.npy", hidden)
        np.save(folder / "y.npy", target)
        print(f"{part}: {target.size} examples")
    (arguments.dump / "class_names.txt").write_text("".join(f"{word}\n" for word in model.wv.index_to_key), "utf-8")


def capped(model, sentences, most):
    """Examples of sentences in random order, at most so many: float16 [N, D] and int32 [N]."""
    shuffled = [sentences[i] for i in np.random.default_rng(0).permutation(len(sentences))]
    hidden, target, found = [], [], 0
    for hidden_BD, word_B in pairs(model, shuffled):
        hidden.append(hidden_BD.astype(np.float16))
        target.append(word_B.astype(np.int32))
        found += word_B.size
        if found >= most:
            break
    return np.concatenate(hidden)[:most], np.concatenate(target)[:most]


if __name__ == "__main__":
    main()

"""Morphological trees on a subword language model: `python study.py ROWS.json [--table]`, with $TREESEARCH_DATA set.

A byte-pair encoding of 8,000 units is learned from every fifth line of the training text; so is the model, and words of
the test text that those lines lack are unseen. Each tree is trained with every rate on the seed RATE_SEED; with the
best by validation, again on SEEDS. Rows are added as they are made; those that are there are not made again.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from treesearch import build_tree
from treesearch.config import EncoderConfig
from treesearch.data.corpus import Corpus
from treesearch.data.morphology import morphology_categories, stream_positions
from treesearch.evaluation.comparison import paired_difference, t_interval
from treesearch.evaluation.joint import token_nll, train_joint
from treesearch.evaluation.preparation import prepare
from treesearch.evaluation.trainer import make_model

UNK, EOS, END = "<unk>", "<eos>", "</w>"
NUM_UNITS, ALPHABET, EVERY, VALID_EVERY = 8000, 200, 5, 4
RATES, RATE_SEED, SEEDS, EPOCHS = (0.008, 0.016, 0.032), 0, range(1, 6), 2
BUCKETS = {"0": (0, 0), "1-4": (1, 4), "5-19": (5, 19), "20-99": (20, 99), "100+": (100, np.inf)}
ENCODER = EncoderConfig()  # feed-forward, 5 units of 64 numbers, 128 features


def lines(split, every):
    path = Path(os.environ["TREESEARCH_DATA"]) / "wikitext-2" / f"wiki.{split}.tokens"
    return [words for line in path.read_text(encoding="utf-8").split("\n") if (words := line.split())][::every]


def learn_units(text):
    tokenizer = Tokenizer(models.BPE(unk_token=UNK, end_of_word_suffix=END))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    count = Counter(character for line in text for word in line for character in word)
    alphabet = sorted(count, key=lambda character: (-count[character], character))[:ALPHABET]
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_UNITS,
        special_tokens=[UNK, EOS],
        end_of_word_suffix=END,
        initial_alphabet=alphabet,  # the trainer's own choice among equally rare characters differs from run to run
        limit_alphabet=ALPHABET,
        show_progress=False,
    )
    tokenizer.train_from_iterator((" ".join(word for word in line if word != UNK) for line in text), trainer)
    return tokenizer


class Segmenter:
    """Words as units of the corpus, and for each unit of a text the word that it is of."""

    def __init__(self, tokenizer):
        self.tokenizer, self.known = tokenizer, {UNK: [UNK]}

    def units(self, word):
        if word not in self.known:
            self.known[word] = self.tokenizer.encode(word).tokens
        return self.known[word]

    def stream(self, text):
        units, words, begins = [], [], []
        for line in text:
            for word in [*line, EOS]:
                begins.append(len(units))
                words.append(word)
                units += [EOS] if word == EOS else self.units(word)
        return units, words, begins


def make_data():
    train, valid, test = lines("train", EVERY), lines("valid", VALID_EVERY), lines("test", 1)
    segmenter = Segmenter(learn_units(train))
    streams = [segmenter.stream(text) for text in (train, valid, test)]
    count = Counter(streams[0][0])
    names = sorted(count, key=lambda unit: (-count[unit], unit))
    id_of = {unit: number for number, unit in enumerate(names)}
    # A unit that is always merged further in training may stand in other text; it is unknown there.
    ids = [np.array([id_of.get(unit, id_of[UNK]) for unit in units], np.int32) for units, _, _ in streams]
    counts = np.array([count[unit] for unit in names], np.int64)
    corpus = Corpus(*ids, tuple(names), counts, id_of[EOS], {"kind": "wikitext-2, subwords"})
    seen = Counter(streams[0][1])
    _, words, begins = streams[2]
    begins = np.array(begins)
    has_unk = np.logical_or.reduceat(ids[2] == id_of[UNK], begins)
    letters = np.array([any(map(str.isalpha, word)) and word not in (UNK, EOS) for word in words]) & ~has_unk
    frequency = np.array([seen[word] for word in words])
    return corpus, begins, letters, frequency


def make_trees(corpus, vectors):
    counts, names = corpus.counts.astype(float), corpus.class_names
    morphology = morphology_categories(names, stream_positions(names, corpus.train))
    shuffled = np.random.default_rng(0).permutation(morphology)
    bands = np.minimum((np.cumsum(counts) - counts) * len(set(morphology)) // counts.sum(), len(set(morphology)) - 1)

    def by(categories, within, top="huffman"):
        return build_tree("categories", counts=counts, vectors=vectors, categories=categories, within=within, top=top)

    trees = {
        "huffman": build_tree("huffman", counts=counts),
        "similar-huffman": build_tree("similar-huffman", counts=counts, vectors=vectors),
        "clustered": build_tree("clustered", counts=counts, vectors=vectors),
        "morphology, huffman": by(morphology, "huffman"),
        "morphology, similar-huffman": by(morphology, "similar-huffman"),
        "morphology (flat), similar-huffman": by(morphology, "similar-huffman", top="flat"),
        "morphology, clustered": by(morphology, "clustered"),
        "shuffled, huffman": by(shuffled, "huffman"),
        "shuffled, similar-huffman": by(shuffled, "similar-huffman"),
        "frequency, similar-huffman": by(bands.astype(int), "similar-huffman"),
    }
    return trees, morphology


def run(tree, rate, seed, corpus, begins, letters, frequency):
    dataset = corpus.dataset(ENCODER.context)
    encoder, layer = make_model(
        tree, ENCODER, dataset.spec, counts=corpus.counts, seed=seed, device=torch.device("cpu")
    )
    fit = train_joint(
        encoder,
        layer,
        dataset.train,
        valid=dataset.valid,
        learning_rate=rate,
        epochs=EPOCHS,
        batch_size=ENCODER.batch_size,
        seed=seed,
    )
    row = {"rate": rate, "seed": seed, "valid": fit.valid_nll, "best_epoch": fit.best_epoch}
    if seed == RATE_SEED:
        return row
    nll = token_nll(encoder, layer, dataset.test).astype(float)
    by_word = np.add.reduceat(nll, begins)
    row["unit"], row["word"] = nll.mean(), by_word[letters].mean()
    for name, (low, high) in BUCKETS.items():
        row[name] = by_word[letters & (frequency >= low) & (frequency <= high)].mean()
    return row


def table(rows, baseline):
    seeded = {}
    for row in rows:
        if row["seed"] != RATE_SEED:
            seeded.setdefault(row["tree"], []).append(row)
    keys = ["unit", "word", *BUCKETS]
    print("| tree | rate | depth | " + " | ".join(keys) + " |\n" + "|---" * (len(keys) + 3) + "|")
    for tree, own in seeded.items():
        cells = []
        for key in keys:
            values = [row[key] for row in own]
            mean = t_interval(values).mean
            if tree == baseline:
                cells.append(f"{mean:.3f}")
                continue
            gap = paired_difference(values, [row[key] for row in seeded[baseline]][: len(values)])
            cells.append(f"{mean:.3f} ({gap.mean:+.3f} ± {gap.high - gap.mean:.3f})")
        print(f"| {tree} (n={len(own)}) | {own[0]['rate']} | {own[0]['depth']:.2f} | " + " | ".join(cells) + " |")


def tables(rows):
    for baseline in ("huffman", "similar-huffman"):
        print(f"\nMean over seeds (difference to {baseline}, paired by seed, with its 95 % t interval), nats")
        table(rows, baseline)


def main(path):
    torch.set_num_threads(1)
    corpus, begins, letters, frequency = make_data()
    sizes = {split: len(getattr(corpus, split)) for split in ("train", "valid", "test")}
    words = {
        name: int((letters & (frequency >= low) & (frequency <= high)).sum()) for name, (low, high) in BUCKETS.items()
    }
    print(f"{corpus.num_classes} units, tokens {sizes}, test words by training frequency {words}", flush=True)
    vectors = prepare(corpus.dataset(ENCODER.context), ENCODER, seed=0, device="cpu").vectors
    trees, morphology = make_trees(corpus, vectors)
    mass: Counter[str] = Counter()
    for category, count in zip(morphology, corpus.counts.tolist(), strict=True):
        mass[category] += count
    share = {category: round(total / len(corpus.train), 3) for category, total in mass.items()}
    print("units by category:", dict(Counter(morphology)), "share of the text:", share, flush=True)
    rows = json.loads(path.read_text()) if path.exists() else []
    done = {(row["tree"], row["rate"], row["seed"]): row for row in rows}

    def fill(name, rate, seed):
        if (name, rate, seed) not in done:
            row = run(trees[name], rate, seed, corpus, begins, letters, frequency)
            done[name, rate, seed] = {"tree": name, "depth": trees[name].expected_depth(corpus.counts), **row}
            rows.append(done[name, rate, seed])
            path.write_text(json.dumps(rows, indent=0) + "\n")
            print(rows[-1], flush=True)
        return done[name, rate, seed]

    best = {name: min(RATES, key=lambda rate: fill(name, rate, RATE_SEED)["valid"]) for name in trees}
    for seed in SEEDS:  # of all trees in turn, so that an early end leaves pairs
        for name, rate in best.items():
            fill(name, rate, seed)
    tables(rows)


if __name__ == "__main__":
    if sys.argv[2:] == ["--table"]:
        tables(json.loads(Path(sys.argv[1]).read_text()))
    else:
        main(Path(sys.argv[1]))

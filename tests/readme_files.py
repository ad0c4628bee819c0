"""The files that sections of the READMEs speak of, each as small as will do."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("TREESEARCH_DATA") or ROOT / "../shared/data")
CHECKOUT = ("configs", "results", "Makefile", "pyproject.toml", "constraints.txt")  # what commands of a README may read
SPLITS = {"train": 600, "valid": 120, "test": 120}
GROUPS = {"animal": ("dog", "cat"), "tool": ("hammer", "saw"), "plant": ("oak", "rose")}
VOCABULARY = 37  # of the small language model


def checkout(folder: Path) -> None:
    """Links to what a checkout has, and a ``.venv`` that is this interpreter's, so that nothing is installed."""
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, start in (("python", ""), ("treesearch", " -m treesearch.cli")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{start} "$@"\n')
        (programs / name).chmod(0o755)
    (folder / ".venv" / ".installed").touch()


def text(folder: Path) -> None:
    """``train.txt`` and the others: a bigram language."""
    tiny.write_config(folder).unlink()


def documents(folder: Path) -> None:
    """``train.tsv`` and the others, some lines out of scope, and the taxonomy of their labels."""
    rng = np.random.default_rng(0)
    for name, size in SPLITS.items():
        lines = []
        for _ in range(size):
            group = rng.choice(list(GROUPS))
            label = rng.choice(GROUPS[group])
            lines.append(f"a {group} {label if rng.random() < 0.7 else 'thing'} here\t{label}")
        lines += [f"an odd {rng.choice(['thing', 'other'])} there\toos" for _ in range(size // 10)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    links = [(group, "ROOT") for group in GROUPS] + [(one, group) for group in GROUPS for one in GROUPS[group]]
    (folder / "taxonomy.tsv").write_text("".join(f"{child}\t{parent}\n" for child, parent in links))


def intents(folder: Path) -> None:
    """Documents all of whose labels stand in the taxonomy."""
    documents(folder)
    for name in SPLITS:
        path = folder / f"{name}.tsv"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.endswith("\toos\n")))


def queries(folder: Path) -> None:
    """Queries with counts, and contexts with the query that followed."""
    places = ("rome", "oslo", "lima", "cairo")
    rng = np.random.default_rng(0)
    for name, size in SPLITS.items():
        lines = [f"flights to {place}\tbest {kind} {place}" for place in places for kind in ("hotels", "food")]
        lines += [str(rng.choice(lines)) for _ in range(size)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "queries.tsv").write_text("how to cook rice\t50\nhow to cook\t20\nhow are you\t1\n")


def features(folder: Path, *, num_classes: int = VOCABULARY, num_features: int = 8) -> None:
    """``features/train`` and the others, as `collect_features` writes them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((num_classes, num_features))
    for name, size in SPLITS.items():
        y = np.concatenate([np.arange(num_classes), rng.integers(num_classes, size=size)])
        (folder / "features" / name).mkdir(parents=True)
        x = centres[y] + rng.standard_normal((len(y), num_features))
        np.save(folder / "features" / name / "x.npy", x.astype(np.float32))
        np.save(folder / "features" / name / "y.npy", y)


def ratings(folder: Path) -> None:
    """``ratings.tsv``: an item leads to one of two others."""
    rng = np.random.default_rng(0)
    lines = ["user\titem\ttimestamp"]
    for user in range(60):
        item = int(rng.integers(20))
        for time in range(10):
            lines.append(f"u{user}\ti{item}\t{time}")
            item = (item * 5 + 1 + int(rng.integers(2))) % 20
    (folder / "ratings.tsv").write_text("\n".join(lines) + "\n")


def all_kinds(folder: Path) -> None:
    """Features, labels and interactions."""
    features(folder)
    intents(folder)
    ratings(folder)


def language_model(folder: Path) -> None:
    """``my-model``: a GPT-2 of a few thousand random weights."""
    transformers = pytest.importorskip("transformers")
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 32}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = transformers.GPT2Config(vocab_size=VOCABULARY, tie_word_embeddings=False, **sizes, **ids)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder / "my-model")


def language_model_and_tree(folder: Path) -> None:
    """``my-model``, and ``found`` with a tree for it."""
    from treesearch import build_tree

    language_model(folder)
    (folder / "found").mkdir()
    build_tree("balanced", counts=[1] * VOCABULARY, arity=4).save(folder / "found" / "best.tree.json")


def layer(folder: Path) -> None:
    """``my-layer``, and ``test.npz`` for it."""
    from treesearch import HierarchicalSoftmax, build_tree

    HierarchicalSoftmax(8, build_tree("huffman", counts=range(1, 11))).save_pretrained(folder / "my-layer")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 8)).astype(np.float32), rng.integers(10, size=40)
    np.savez(folder / "test.npz", x=x, y=y)


def counts(folder: Path) -> None:
    """``counts.tsv``: how often each of ten classes occurs."""
    (folder / "counts.tsv").write_text("".join(f"class{number}\t{100 // number}\n" for number in range(1, 11)))


def openings(folder: Path) -> None:
    """The tables of chess openings, where they are at hand."""
    if not (DATA / "chess-openings").is_dir():
        pytest.skip(f"no folder 'chess-openings' in {DATA} (set TREESEARCH_DATA)")
    (folder / "chess-openings").symlink_to(DATA / "chess-openings")

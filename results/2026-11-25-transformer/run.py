"""A transformer language model with a flat output layer, then with trees in its place.

    run.py pretrain DATA --out OUT     train a small GPT-2 on words, its head flat and untied
    run.py collect --out OUT           write what the head sees: OUT/train, OUT/valid, OUT/test
    treesearch search ...              find a tree on these features
    run.py finetune --out OUT --tree FILE|BUILDER ...

The last stage starts every contender, the flat head too, from the checkpoint of the first, trains body and head for the
same number of steps, and compares. DATA is a folder with text files of whitespace tokens; see `read_tokens`.

Shapes: **B** windows of a batch, **T** positions (the context), **V** words.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here comes from the hub

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from treesearch import Tree, build_tree
from treesearch.bench.timing import median_seconds
from treesearch.data.text import load_text
from treesearch.integrations.torch import collect_features, replace_output_layer
from treesearch.progress import ProgressReporter
from treesearch.softmax import RowwiseAdam

Optimizers = list[torch.optim.Optimizer]
HEAD = "lm_head"
SPLITS = ("train", "valid", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=Path, required=True, help="folder of all stages")
    common.add_argument("--batch", type=int, default=16, help="windows of a step")
    common.add_argument("--seed", type=int, default=0)
    common.add_argument("--threads", type=int, default=1)
    training = argparse.ArgumentParser(add_help=False)
    training.add_argument("--rate", type=float, default=1e-3, help="learning rate of the body, and of all in pretrain")
    training.add_argument("--epochs", type=int, default=2)
    training.add_argument("--max-steps", type=int, default=None, help="to try it out")

    stage = stages.add_parser("pretrain", parents=[common, training], help="train the model with a flat head")
    stage.add_argument("data", type=Path, help="folder, such as wikitext-2 or kjv")
    stage.add_argument("--max-classes", type=int, default=None, help="size of the vocabulary; all words if left out")
    stage.add_argument("--context", type=int, default=64)
    stage.add_argument("--width", type=int, default=128)
    stage.add_argument("--layers", type=int, default=2)
    stage.add_argument("--dropout", type=float, default=0.1)
    stage.set_defaults(run=pretrain)

    stage = stages.add_parser("collect", parents=[common], help="write features to search on")
    stage.set_defaults(run=collect)

    stage = stages.add_parser("finetune", parents=[common, training], help="swap heads, train on, compare")
    stage.add_argument("--tree", nargs="+", default=["huffman"], help="files, or names of builders such as huffman")
    stage.add_argument("--head-rates", type=float, nargs="+", default=[1e-3, 4e-3], help="each tried; best by valid")
    stage.add_argument("--repeats", type=int, default=15, help="turns of the timing")
    stage.set_defaults(run=finetune)

    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    arguments.run(arguments)


# -- stages ------------------------------------------------------------------------------------------------------------


def pretrain(arguments: argparse.Namespace) -> None:
    corpus = read_tokens(arguments.data, arguments.max_classes)
    arguments.out.mkdir(parents=True, exist_ok=True)
    streams = {split: getattr(corpus, split) for split in SPLITS}
    np.savez(arguments.out / "tokens.npz", counts=corpus.counts, context=arguments.context, **streams)
    (arguments.out / "class_names.txt").write_text("".join(f"{name}\n" for name in corpus.class_names))

    torch.manual_seed(arguments.seed)
    config = GPT2Config(
        vocab_size=len(corpus.class_names),
        n_embd=arguments.width,
        n_layer=arguments.layers,
        n_head=max(1, arguments.width // 32),
        n_positions=arguments.context + 1,
        resid_pdrop=arguments.dropout,
        embd_pdrop=arguments.dropout,
        attn_pdrop=arguments.dropout,
        tie_word_embeddings=False,
        bos_token_id=corpus.eos,
        eos_token_id=corpus.eos,
    )
    model = GPT2LMHeadModel(config)
    windows = load_windows(arguments.out)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate)
    train(model, windows["train"], [optimizer], arguments, "pretrain")
    model.save_pretrained(arguments.out / "model")
    for split in ("valid", "test"):
        print(f"{split} perplexity {perplexity(model, windows[split], arguments.batch):.2f}")


def collect(arguments: argparse.Namespace) -> None:
    model = load_model(arguments.out)
    for split, windows in load_windows(arguments.out).items():
        # Neighbours in a text are alike; those in a batch of node-wise training should not be.
        shuffled = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(arguments.seed))]
        loader = [{"input_ids": batch} for batch in shuffled.split(arguments.batch)]
        folder = collect_features(model, HEAD, loader, out=arguments.out / split)
        print(f"{folder}: {np.load(folder / 'x.npy', mmap_mode='r').shape}")


def finetune(arguments: argparse.Namespace) -> None:
    windows = load_windows(arguments.out)
    contenders: dict[str, GPT2LMHeadModel] = {}
    rows = []
    for name, tree in {"linear": None, **load_trees(arguments)}.items():
        best = None
        for rate in arguments.head_rates:
            row, model = contender(arguments, windows, name, tree, rate)
            if best is None or row["valid"] < best[0]["valid"]:
                best = row, model
        rows.append(best[0])
        contenders[name] = best[1]
    for row, name in zip(rows, contenders, strict=True):
        row["test"] = perplexity(contenders[name], windows["test"], arguments.batch)
    measure(rows, contenders, windows["train"][: arguments.batch], arguments.repeats)

    settings = {key: value for key, value in vars(arguments).items() if key != "run"}
    record = {"settings": settings, "torch": torch.__version__, "rows": rows}
    (arguments.out / "rows.json").write_text(json.dumps(record, indent=2, default=str) + "\n")
    print_table(rows)


# -- a contender -------------------------------------------------------------------------------------------------------


def contender(
    arguments: argparse.Namespace, windows: dict[str, Tensor], name: str, tree: Tree | None, rate: float
) -> tuple[dict[str, float | str], GPT2LMHeadModel]:
    """The checkpoint with this head (None: its own linear one) after fine-tuning, and its row of the table."""
    model, counts = load_model(arguments.out), load_counts(arguments.out)
    if tree is not None:
        replace_output_layer(model, HEAD, tree, counts=counts, sparse=True)
    swapped = {split: perplexity(model, windows[split], arguments.batch) for split in ("valid", "test")}
    torch.manual_seed(arguments.seed)  # of dropout: the same for all
    train(model, windows["train"], optimizers(model, arguments.rate, rate), arguments, f"{name}, rate {rate:g}")
    row = {
        "name": name,
        "hash": "" if tree is None else tree.hash,
        "depth": 1.0 if tree is None else tree.expected_depth(counts),
        "head parameters": sum(parameter.numel() for parameter in model.lm_head.parameters()),
        "head rate": rate,
        "valid at swap": swapped["valid"],
        "test at swap": swapped["test"],
        "valid": perplexity(model, windows["valid"], arguments.batch),
    }
    return row, model


def optimizers(model: GPT2LMHeadModel, rate: float, head_rate: float) -> Optimizers:
    """AdamW for the body; for the head AdamW if it is flat, RowwiseAdam on the rows of the batch if it is a tree."""
    of_head = RowwiseAdam if not isinstance(model.lm_head, nn.Linear) else torch.optim.AdamW
    return [
        torch.optim.AdamW(model.transformer.parameters(), lr=rate),
        of_head(model.lm_head.parameters(), lr=head_rate),
    ]


def train(
    model: GPT2LMHeadModel, windows: Tensor, of_model: Optimizers, arguments: argparse.Namespace, stage: str
) -> None:
    """Train on all windows, in an order that the seed decides; learning rates fall linearly to zero."""
    steps = arguments.epochs * math.ceil(len(windows) / arguments.batch)
    steps = min(steps, arguments.max_steps or steps)
    schedules = [torch.optim.lr_scheduler.LinearLR(each, 1.0, 0.0, total_iters=steps) for each in of_model]
    model.train()
    with ProgressReporter() as progress:
        batches = shuffled_batches(windows, arguments.batch, arguments.seed)
        for done, batch in zip(range(1, steps + 1), batches, strict=False):
            loss = train_step(model, of_model, batch)
            for schedule in schedules:
                schedule.step()
            if done % 20 == 0 or done == steps:
                progress.update(stage, done, steps, f"loss {loss.item():.3f}")


def train_step(model: GPT2LMHeadModel, of_model: Optimizers, batch: Tensor) -> Tensor:
    loss = model(input_ids=batch, labels=batch, use_cache=False).loss
    loss.backward()
    for optimizer in of_model:
        optimizer.step()
        optimizer.zero_grad()
    return loss.detach()


@torch.no_grad()
def perplexity(model: GPT2LMHeadModel, windows: Tensor, batch: int) -> float:
    """exp of the mean NLL over all words of the windows but the first of each, which the window before predicts."""
    model.eval()
    parts = windows.split(batch)
    total = sum(model(input_ids=part, labels=part, use_cache=False).loss.item() * len(part) for part in parts)
    return math.exp(total / len(windows))


def measure(
    rows: list[dict[str, float | str]], contenders: dict[str, GPT2LMHeadModel], batch: Tensor, repeats: int
) -> None:
    """Milliseconds of a whole training step and of the head alone (loss and gradients), contenders taking turns."""
    steps: dict[str, Callable[[], object]] = {}
    heads: dict[str, Callable[[], object]] = {}
    target = batch[:, 1:].contiguous()
    for name, model in contenders.items():
        model.train()
        hidden = model.transformer(batch).last_hidden_state[:, :-1].detach().requires_grad_()
        of_model = optimizers(model, 1e-6, 1e-6)
        steps[name] = lambda model=model, of_model=of_model: train_step(model, of_model, batch)
        heads[name] = lambda head=model.lm_head, hidden=hidden: head_gradients(head, hidden, target)
    step_s, head_s = median_seconds(steps, repeats), median_seconds(heads, repeats)
    for row, name in zip(rows, contenders, strict=True):
        row["step ms"], row["head ms"] = 1e3 * step_s[name], 1e3 * head_s[name]


def head_gradients(head: nn.Module, hidden: Tensor, target: Tensor) -> None:
    if isinstance(head, nn.Linear):
        loss = nn.functional.cross_entropy(head(hidden).flatten(0, 1), target.flatten())
    else:
        loss = head(hidden, target).loss
    torch.autograd.grad(loss, [hidden, *head.parameters()])


# -- files -------------------------------------------------------------------------------------------------------------


def read_tokens(folder: Path, max_classes: int | None):
    """The corpus in ``train.txt``, ``valid.txt`` and ``test.txt``, or ``wiki.train.tokens`` and so on."""
    paths = [next(path for path in folder.iterdir() if split in path.name.split(".")) for split in SPLITS]
    return load_text(*paths, max_classes=max_classes)


def load_windows(out: Path) -> dict[str, Tensor]:
    """Windows int64 [n, T + 1] of each split. They overlap by one word, so each but the first is predicted once."""
    with np.load(out / "tokens.npz") as tokens:
        size = int(tokens["context"])
        return {split: torch.from_numpy(tokens[split]).long().unfold(0, size + 1, size) for split in SPLITS}


def load_counts(out: Path) -> np.ndarray:
    with np.load(out / "tokens.npz") as tokens:
        return tokens["counts"]


def load_model(out: Path) -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(out / "model")


def load_trees(arguments: argparse.Namespace) -> dict[str, Tree]:
    """By name: read from a file, or built from the counts and, where the builder asks, the flat head's weights."""
    counts, vectors = load_counts(arguments.out), load_model(arguments.out).lm_head.weight.detach().numpy()
    trees = {}
    for name in arguments.tree:
        if Path(name).suffix in (".json", ".npz"):
            trees[Path(name).name.split(".")[0]] = Tree.load(name)
        else:
            trees[name] = build_tree(name, counts=counts, vectors=vectors, seed=arguments.seed)
    return trees


def shuffled_batches(windows: Tensor, batch: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        for part in torch.randperm(len(windows), generator=generator).split(batch):
            yield windows[part]


def print_table(rows: list[dict[str, float | str]]) -> None:
    columns = [column for column in rows[0] if column != "hash"]
    table = Table(*columns)
    for row in rows:
        cells = [row[column] for column in columns]
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()

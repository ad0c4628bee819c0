"""A flat teacher on the King James Bible and students on trees, with and without it. See README.md beside it."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treesearch import HierarchicalSoftmax, Tree, build_tree
from treesearch.config import load_config
from treesearch.cost import CostModel
from treesearch.data import Dataset
from treesearch.evaluation.comparison import paired_difference, t_interval
from treesearch.evaluation.encoders import Encoder
from treesearch.evaluation.examples import Examples
from treesearch.evaluation.joint import score, train_joint
from treesearch.evaluation.threads import one_thread
from treesearch.evaluation.trainer import JointTrainer, make_model
from treesearch.launch import load_data, prepare_run
from treesearch.objectives.distillation import SparseTeacher
from treesearch.progress import ProgressReporter

CONFIG = Path(__file__).parents[2] / "configs/kjv.yaml"
KEPT, EPOCHS, HARD_WEIGHT, SEEDS = 32, 2, 0.5, range(2000, 2005)
TEACHER_RATE, RATES = 0.012, (0.008, 0.012)
CPU = torch.device("cpu")


def flat_teacher(config: Any, data: Dataset, counts: np.ndarray) -> tuple[Encoder, HierarchicalSoftmax, float]:
    """Trained as any tree is: a flat softmax is the tree of depth one."""
    tree = build_tree("flat", counts=counts)
    encoder, layer = make_model(tree, config.encoder, data.spec, counts=counts, seed=1, device=CPU)
    begin = time.perf_counter()
    train_joint(
        encoder, layer, data.train, valid=data.valid, learning_rate=TEACHER_RATE, epochs=EPOCHS,
        batch_size=config.joint.batch_size, seed=1,
    )  # fmt: skip
    return encoder, layer, time.perf_counter() - begin


@torch.no_grad()
def most_probable(encoder: Encoder, layer: HierarchicalSoftmax, data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's best classes and their probabilities for every training token, [T, m]."""
    parts = [layer.log_prob(encoder(inputs)).topk(KEPT, sorted=False) for inputs, _ in Examples.of(data.train, CPU).in_order(1024)]
    return torch.cat([p.indices.int() for p in parts]), torch.cat([p.values.exp() for p in parts])


def student(
    config: Any, data: Dataset, counts: np.ndarray, tree: Tree, *, rate: float, seed: int,
    teacher: tuple[torch.Tensor, torch.Tensor] | None,
) -> dict[str, float]:  # fmt: skip
    encoder, layer = make_model(tree, config.encoder, data.spec, counts=counts, seed=seed, device=CPU)
    batch = config.joint.batch_size
    num_steps = EPOCHS * math.ceil(len(data.train) / batch)
    trainer = JointTrainer(encoder, layer, counts=counts, learning_rate=rate, num_steps=num_steps)
    examples, generator = Examples.of(data.train, CPU), torch.Generator().manual_seed(seed)
    sparse = SparseTeacher(tree, counts)
    begin = time.perf_counter()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(data.train), generator=generator).split(batch):
            inputs, target = examples.batch(rows)  # type: ignore[attr-defined]
            if teacher is None:
                trainer.step(inputs, target)
                continue
            indices, probability = teacher[0][rows].long(), teacher[1][rows]
            trainer.step_on(
                lambda: sparse.loss(layer, encoder(inputs), indices, probability, target=target, hard_weight=HARD_WEIGHT)
            )
    seconds = time.perf_counter() - begin
    return {
        "valid_nll": score(encoder, layer, data.valid),
        "test_nll": score(encoder, layer, data.test),
        "seconds": seconds,
        "rate": rate,
        "seed": seed,
    }


def main() -> None:
    config = load_config(CONFIG, ())
    config, data = load_data(config)
    counts = data.counts.astype(np.float64)
    with ProgressReporter() as progress:
        vectors = prepare_run(config, data, progress).vectors
    trees = {
        "clustered(arity=128)": build_tree("clustered", counts=counts, vectors=vectors, arity=128),
        "huffman": build_tree("huffman", counts=counts),
    }
    cost = CostModel(config.encoder.features, 0.0)
    encoder, layer, seconds = flat_teacher(config, data, counts)
    result: dict[str, Any] = {
        "teacher": {
            "units": cost.tree_cost(layer.tree, counts).cost,
            "test_nll": score(encoder, layer, data.test),
            "valid_nll": score(encoder, layer, data.valid),
            "seconds": seconds,
        },
        "students": [],
    }
    print(result["teacher"], file=sys.stderr, flush=True)
    best = most_probable(encoder, layer, data)
    result["teacher"]["mass of the kept classes"] = float(best[1].sum(1).mean())
    for name, tree in trees.items():
        rows: dict[str, list[dict[str, float]]] = {"alone": [], "with teacher": []}
        for kind, teacher in (("alone", None), ("with teacher", best)):
            rate = None
            for seed in SEEDS:
                tried = [
                    student(config, data, counts, tree, rate=r, seed=seed, teacher=teacher)
                    for r in (RATES if rate is None else (rate,))
                ]
                chosen = min(tried, key=lambda row: row["valid_nll"])
                rate = chosen["rate"]
                rows[kind].append(chosen)
                print(name, kind, chosen, file=sys.stderr, flush=True)
        nll = {kind: [row["test_nll"] for row in own] for kind, own in rows.items()}
        result["students"].append(
            {
                "tree": name,
                "units": cost.tree_cost(tree, counts).cost,
                **{kind: t_interval(values).as_dict() for kind, values in nll.items()},
                "with teacher - alone": paired_difference(nll["with teacher"], nll["alone"]).as_dict(),
                "of the teacher's NLL": float(np.mean(nll["with teacher"])) / result["teacher"]["test_nll"],
                "runs": rows,
            }
        )
        Path(__file__).with_name("rows.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    with one_thread():
        main()

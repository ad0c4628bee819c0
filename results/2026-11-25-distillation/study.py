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
from treesearch.data import Dataset, Split
from treesearch.evaluation.comparison import paired_difference, t_interval
from treesearch.evaluation.encoders import Encoder
from treesearch.evaluation.examples import Examples
from treesearch.evaluation.joint import score, train_joint
from treesearch.evaluation.threads import one_thread
from treesearch.evaluation.trainer import JointTrainer, make_model
from treesearch.launch import load_data, prepare_run
from treesearch.objectives.distillation import SparseTeacher, cut_teacher
from treesearch.progress import ProgressReporter

CONFIG = Path(__file__).parents[2] / "configs/kjv.yaml"
KEPT, SAMPLED, EPOCHS, SEEDS, NUM_MODELS = 16, 8, 2, range(2000, 2005), 3
TEACHER_RATE, RATE, HARD_WEIGHTS = 0.012, 0.012, (0.1, 0.3)  # the weight by validation on the first seed
CPU = torch.device("cpu")


Teacher = list[tuple[Encoder, HierarchicalSoftmax]]


def flat_model(config: Any, data: Dataset, counts: np.ndarray, seed: int) -> tuple[Encoder, HierarchicalSoftmax]:
    """Trained as any tree is: a flat softmax is the tree of depth one."""
    tree = build_tree("flat", counts=counts)
    encoder, layer = make_model(tree, config.encoder, data.spec, counts=counts, seed=seed, device=CPU)
    train_joint(
        encoder, layer, data.train, valid=data.valid, learning_rate=TEACHER_RATE, epochs=EPOCHS,
        batch_size=config.joint.batch_size, seed=seed,
    )  # fmt: skip
    return encoder, layer


def log_prob(teacher: Teacher, inputs: torch.Tensor) -> torch.Tensor:
    """Of the mean of the models' probabilities."""
    scores = torch.stack([layer.log_prob(encoder(inputs)) for encoder, layer in teacher])
    return scores.logsumexp(0) - math.log(len(teacher))


@torch.no_grad()
def teacher_nll(teacher: Teacher, split: Split) -> float:
    total = 0.0
    for inputs, target in Examples.of(split, CPU).in_order(512):
        total += float(torch.nn.functional.nll_loss(log_prob(teacher, inputs), target, reduction="sum"))
    return total / len(split)


@torch.no_grad()
def most_probable(teacher: Teacher, data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's best classes and some of the others with their probabilities for every training token, [T, m]."""
    batches = Examples.of(data.train, CPU).in_order(512)
    generator = torch.Generator().manual_seed(0)
    parts = []
    for inputs, _ in batches:
        probability = log_prob(teacher, inputs).exp()
        parts.append(cut_teacher(probability, num_kept=KEPT, num_sampled=SAMPLED, generator=generator))
    return torch.cat([indices.int() for indices, _ in parts]), torch.cat([values for _, values in parts])


def student(
    config: Any, data: Dataset, counts: np.ndarray, tree: Tree, *, hard_weight: float, seed: int,
    teacher: tuple[torch.Tensor, torch.Tensor] | None,
) -> dict[str, float]:  # fmt: skip
    encoder, layer = make_model(tree, config.encoder, data.spec, counts=counts, seed=seed, device=CPU)
    batch = config.joint.batch_size
    num_steps = EPOCHS * math.ceil(len(data.train) / batch)
    trainer = JointTrainer(encoder, layer, counts=counts, learning_rate=RATE, num_steps=num_steps)
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
                lambda: sparse.loss(layer, encoder(inputs), indices, probability, target=target, hard_weight=hard_weight)
            )
    seconds = time.perf_counter() - begin
    return {
        "valid_nll": score(encoder, layer, data.valid),
        "test_nll": score(encoder, layer, data.test),
        "seconds": seconds,
        "hard_weight": hard_weight,
        "seed": seed,
    }


def main() -> None:
    config = load_config(CONFIG, ())
    config, data = load_data(config)
    counts = data.counts.astype(np.float64)
    with ProgressReporter() as progress:
        vectors = prepare_run(config, data, progress).vectors
    tree, cost = build_tree("clustered", counts=counts, vectors=vectors, arity=128), CostModel(config.encoder.features, 0.0)
    result: dict[str, Any] = {"student": {"tree": "clustered(arity=128)", "units": cost.tree_cost(tree, counts).cost}}

    def students(name: str, teacher: tuple[torch.Tensor, torch.Tensor] | None) -> list[float]:
        weights, rows = ((1.0,) if teacher is None else HARD_WEIGHTS), []
        for seed in SEEDS:
            tried = [
                student(config, data, counts, tree, hard_weight=weight, seed=seed, teacher=teacher) for weight in weights
            ]
            rows.append(min(tried, key=lambda row: row["valid_nll"]))
            weights = (rows[-1]["hard_weight"],)
            print(name, tried, file=sys.stderr, flush=True)
        nll = [row["test_nll"] for row in rows]
        result[name] = {"test_nll": t_interval(nll).as_dict(), "runs": rows}
        return nll

    models = [flat_model(config, data, counts, seed) for seed in range(1, NUM_MODELS + 1)]
    alone = students("alone", None)
    for name, teacher in (("three models", models), ("one model", models[:1])):
        best = most_probable(teacher, data)
        nll = students(f"taught by {name}", best)
        own = teacher_nll(teacher, data.test)
        result[f"taught by {name}"] |= {
            "teacher's test_nll": own,
            "teacher's units": len(teacher) * cost.tree_cost(models[0][1].tree, counts).cost,
            "mass of the kept classes": float(best[1][:, :KEPT].sum(1).mean()),
            "less alone": paired_difference(nll, alone).as_dict(),
            "of the teacher's": float(np.mean(nll)) / own,
        }
        Path(__file__).with_name("rows.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    with one_thread():
        main()

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
KEPT, SAMPLED, EPOCHS, SEEDS = 16, 8, 2, range(2000, 2005)
TEACHER_RATE, RATE, HARD_WEIGHTS = 0.012, 0.012, (0.5,)
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
    trees = {"clustered(arity=128)": build_tree("clustered", counts=counts, vectors=vectors, arity=128)}
    cost = CostModel(config.encoder.features, 0.0)
    num_models = int(sys.argv[1])
    teacher_models = [flat_model(config, data, counts, seed) for seed in range(1, num_models + 1)]
    result: dict[str, Any] = {
        "teacher": {
            "models": num_models,
            "units of each": cost.tree_cost(teacher_models[0][1].tree, counts).cost,
            "test_nll": teacher_nll(teacher_models, data.test),
            "valid_nll": teacher_nll(teacher_models, data.valid),
            "test_nll of each": [teacher_nll([one], data.test) for one in teacher_models],
        },
        "students": [],
    }
    print(result["teacher"], file=sys.stderr, flush=True)
    best = most_probable(teacher_models, data)
    result["teacher"]["mass of the kept classes"] = float(best[1][:, :KEPT].sum(1).mean())
    for name, tree in trees.items():
        rows: dict[str, list[dict[str, float]]] = {"alone": [], "with teacher": []}
        for kind, teacher in (("alone", None), ("with teacher", best)):
            weights = (1.0,) if teacher is None else HARD_WEIGHTS
            for seed in SEEDS:
                tried = [
                    student(config, data, counts, tree, hard_weight=weight, seed=seed, teacher=teacher)
                    for weight in weights
                ]
                chosen = min(tried, key=lambda row: row["valid_nll"])
                weights = (chosen["hard_weight"],)
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
        Path(__file__).with_name(f"rows-{num_models}.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    with one_thread():
        main()

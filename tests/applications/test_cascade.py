"""`treesearch apply cascade`: a whole run with documents out of scope; policies against brute force."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import treesearch
from treesearch.applications.cascade import (
    CascadeTask,
    PolicySettings,
    Predictions,
    compare_policies,
    load_cascade_task,
    train_models,
)
from treesearch.applications.cascade.comparison import ALL_MODELS, BEST, TREE_MODELS, outcome, ratio_costs
from treesearch.applications.cascade.out_of_scope import OutOfScopeModel
from treesearch.applications.cascade.policies import best_threshold, tuned_threshold
from treesearch.applications.cascade.scores import Known, Scores
from treesearch.applications.taxonomy import TrainingSettings
from treesearch.errors import ConfigError, DataError

NUM_CLASSES, NUM_GROUPS = 6, 3


def write_task(
    folder: Path, *, train_outside: int = 12, valid_outside: int = 12, test_outside: int = 30
) -> dict[str, str]:
    """Six classes in three groups. A document has a word of its group and perhaps one of its class, else neither."""
    rng = np.random.default_rng(0)
    for name, size, outside in (("train", 30, train_outside), ("valid", 20, valid_outside), ("test", 10, test_outside)):
        lines = [
            f"a group{c % NUM_GROUPS} {f'class{c}' if rng.random() < 0.7 else 'thing'} here\tclass{c}"
            for c in range(NUM_CLASSES)
            for _ in range(size)
        ]
        lines += [f"a {rng.choice(['odd', 'other', 'queer'])} thing there\tnone" for _ in range(outside)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    links = [(f"group{g}", "ROOT") for g in range(NUM_GROUPS)]
    links += [(f"class{c}", f"group{c % NUM_GROUPS}") for c in range(NUM_CLASSES)]
    (folder / "taxonomy.tsv").write_text("".join(f"{child}\t{parent}\n" for child, parent in links))
    return {name: str(folder / f"{name}.tsv") for name in ("train", "valid", "test", "taxonomy")}


def arguments(paths: dict[str, str], **changes: str) -> list[str]:
    given = paths | {"out_of_scope": "none"} | changes
    return [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]


def load(paths: dict[str, str], out_of_scope: str | None = "none") -> CascadeTask:
    names = ("train", "valid", "test", "taxonomy")
    return load_cascade_task(*(Path(paths[name]) for name in names), out_of_scope=out_of_scope)


def certain(task: CascadeTask, right: float) -> dict[str, Predictions]:
    """A classifier that gives the true class ``right`` and the rest to all other classes."""
    said = []
    for split in (task.valid, task.test):
        prob = torch.full((len(split), task.taxonomy.num_classes), (1 - right) / (task.taxonomy.num_classes - 1))
        prob[torch.arange(len(split)), torch.from_numpy(split.labels).long()] = right
        said.append(prob.double().log())
    return {"flat": Predictions(*said), "hs": Predictions(*said)}


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path) -> None:
    paths = write_task(tmp_path)
    options = ["--seeds", "2", "--epochs", "6", "--ratios", "0.5,8", "--target-accuracy", "0.6", "--delta", "0.2"]
    done = treesearch("apply", "cascade", *arguments(paths), *options, "--json")
    assert done.code == 0, done.err
    assert "7 classes in 2 levels" in done.err
    assert "out of scope (none): 12 of 132 documents in the validation split, 30 of 90 in the test split" in done.err
    rows: list[dict[str, Any]] = json.loads(done.out)
    of = {(row["model"], row["policy"], row["ratio"]): row for row in rows}
    policies = ("threshold", "cascade", "cascade, marginal", "expected cost", "conformal", "guarantee")
    assert {key[:2] for key in of} == {(m, p) for m in ("flat", "hs", "hs + multi-level") for p in policies} | {
        (TREE_MODELS, BEST),
        (ALL_MODELS, BEST),
    }
    for row in rows:
        assert row["answered_class"] + row["answered_inner"] + row["flagged"] == pytest.approx(1)
        assert len(row["runs"]) == 2
        assert row["cost"] == pytest.approx(np.mean([run["cost"] for run in row["runs"]]))
        rival = of["flat", "threshold", row["ratio"]]["cost"]
        assert row["against_flat"]["mean"] == pytest.approx(row["cost"] - rival, abs=1e-12)
    for model in ("flat", "hs"):  # the dearer a wrong answer, the fewer
        few, many = (of[model, "expected cost", ratio] for ratio in (8, 0.5))
        assert few["answered_class"] < many["answered_class"]
        # Where the class is not told, the group is: an inner node is the answer, which a threshold does not have.
        assert few["answered_inner"] > 0.1
        assert few["cost"] < of[model, "threshold", 8]["cost"]
    assert of["flat", "threshold", 8]["answered_inner"] == 0


@pytest.mark.slow
def test_documents_that_no_classifier_has_seen(tmp_path: Path) -> None:
    paths = write_task(tmp_path, train_outside=0)
    done = treesearch("apply", "cascade", *arguments(paths), "--epochs", "3", "--ratios", "2")
    assert done.code == 0, done.err
    assert "6 classes in 2 levels" in done.err
    assert "no training document is 'none': it is no class of the classifiers" in done.err
    assert max(map(len, done.out.splitlines())) <= 100
    task = load(paths)
    assert task.dataset.num_classes == 6
    assert not task.is_trained
    assert len(task.dataset.valid) == 120 == len(task.valid) - 12
    whole = load(write_task(tmp_path))
    assert whole.dataset.num_classes == 7
    assert whole.is_trained
    for one in (task, whole):  # the same documents, whatever the numbers of classes
        names = np.array(one.taxonomy.class_names)
        assert names[one.test.labels].tolist() == [
            line.split("\t")[1] for line in Path(paths["test"]).read_text().splitlines()
        ]
        assert ((one.truth(one.test) == 0).numpy() == (names[one.test.labels] == "none")).all()
    log_prob = torch.randn(5, 6).log_softmax(1)
    scores = Scores.of(task, log_prob)
    assert scores.root_probability.tolist() == [0] * 5
    outside = torch.tensor([0, 0.2, 0.5, 0.9, 1], dtype=torch.float64)
    changed = scores.with_root_probability(outside)
    assert torch.allclose(changed.root_probability, outside)
    expected = log_prob.double().exp() * (1 - outside)[:, None]
    assert torch.allclose(changed.probs.class_log_prob.exp()[:, :6], expected, atol=1e-6)
    assert torch.allclose(changed.in_scope.class_log_prob.exp()[:, :6], log_prob.double().exp(), atol=1e-6)


def test_where_the_truth_is_known(tmp_path: Path) -> None:
    task = load(write_task(tmp_path))
    rows = compare_policies(task, [certain(task, 0.99)], settings=PolicySettings(ratios=(1.0, 5.0)))
    for row in rows:
        if row["policy"] != "conformal":
            assert row["cost"] == 0, row
            assert row["flagged"] == pytest.approx(30 / 90)
            assert row["accuracy"] == 1
    guessing = compare_policies(task, [certain(task, 1 / 7)], settings=PolicySettings(ratios=(5.0,)))
    assert all(row["flagged"] == 1 for row in guessing if row["model"] == "flat" and row["policy"] == "threshold")
    truth = task.truth(task.test)
    assert next(row["cost"] for row in guessing) == pytest.approx(2 * float((truth != 0).double().mean()))  # two missed


def test_outcomes_by_hand(tmp_path: Path) -> None:
    task = load(write_task(tmp_path))
    names = [*(task.tree.node_names or ()), *(task.taxonomy.class_names[c] for c in task.tree.leaf_class)]
    node = {name: place for place, name in enumerate(names)}
    truth = torch.tensor([node["class0"], node["class0"], node["class0"], 0, node["class0"]])
    action = torch.tensor([node["class0"], node["group0"], node["class3"], node["group1"], 0])
    found = outcome(ratio_costs(task, 4.0, "once"), action, truth)
    assert found["cost"] == pytest.approx((0 + 1 + (4 + 1) + 4 + 2) / 5)
    assert (found["answered_class"], found["answered_inner"], found["flagged"]) == (0.4, 0.4, 0.2)
    assert found["accuracy"] == 0.5
    wrong_group = torch.tensor([node["class1"]])
    assert outcome(ratio_costs(task, 4.0, "once"), wrong_group, truth[:1])["cost"] == 4 + 2
    assert outcome(ratio_costs(task, 4.0, "every"), wrong_group, truth[:1])["cost"] == 4 + 4 + 2


@pytest.mark.parametrize("seed", range(5))
def test_the_tuned_threshold_is_the_best_of_all(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = torch.from_numpy(rng.choice([0.1, 0.3, 0.3001, 0.7, 1.0], 12))
    answer, flag = torch.from_numpy(rng.random((2, 12)))
    cost = [
        float(torch.where(confidence > threshold, answer, flag).sum())
        for threshold in [*np.linspace(0, 1, 1001), 0.30005]
    ]
    found = best_threshold(confidence, answer, flag)
    assert 0 <= found <= 1
    assert float(torch.where(confidence > found, answer, flag).sum()) == pytest.approx(min(cost))


def test_weights_stand_for_copies(tmp_path: Path) -> None:
    task = load(write_task(tmp_path))
    log_prob = torch.randn(len(task.valid), 7, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    scores, truth = Scores.of(task, log_prob), task.truth(task.valid)
    outside = truth == 0
    known = Known.of(scores, truth, out_of_scope_share=0.5)
    assert float(known.weight[outside].sum()) == pytest.approx(float(known.weight.sum()) / 2)
    copies = torch.cat([torch.arange(len(truth)), *[outside.nonzero()[:, 0]] * 9])  # 12 of 132 become 120 of 240
    copied = Known.of(scores[copies], truth[copies])
    costs = ratio_costs(task, 2.0, "once")
    assert tuned_threshold(known, costs, scores).tolist() == tuned_threshold(copied, costs, scores).tolist()
    first, second = OutOfScopeModel.fit(known), OutOfScopeModel.fit(copied)
    assert first is not None and second is not None  # noqa: PT018
    assert torch.allclose(first.probability(scores), second.probability(scores), atol=2e-3)
    # With a constant, the probabilities of a logistic regression sum to the cases.
    assert known.mean(first.probability(scores)) == pytest.approx(0.5, abs=1e-6)
    assert OutOfScopeModel.fit(known[~outside]) is None


@pytest.mark.slow
def test_the_same_seeds_give_the_same_rows(tmp_path: Path) -> None:
    task = load(write_task(tmp_path))
    training, policies = TrainingSettings(epochs=2, learning_rates=(0.01,)), PolicySettings(ratios=(3.0,))
    both = [compare_policies(task, train_models(task, settings=training), settings=policies) for _ in range(2)]
    assert both[0] == both[1]


def test_no_document_is_out_of_scope(tmp_path: Path) -> None:
    task = load(write_task(tmp_path, train_outside=0, valid_outside=0, test_outside=0), out_of_scope=None)
    assert (task.out_of_scope, task.tree.num_classes) == (None, 6)
    rows = compare_policies(task, [certain(task, 0.9)], settings=PolicySettings(ratios=(1.0,)))
    assert all(row["cost"] == 0 for row in rows)


def test_bad_input(tmp_path: Path) -> None:
    paths = write_task(tmp_path)
    for changes, message in (
        ({"ratios": "1,0"}, "ratios must be finite and > 0"),
        ({"ratios": "-1"}, "ratios must be finite and > 0"),
        ({"ratios": "1,1"}, "ratios must be given once each"),
        ({"ratios": "a"}, "ratios must be numbers between commas, but got 'a'"),
        ({"charge": "twice"}, "charge must be 'once' or 'every', but got 'twice'"),
        ({"target_accuracy": "1.5"}, "target_accuracy must lie in (0, 1), but got 1.5"),
        ({"delta": "0"}, "delta must lie in (0, 1), but got 0"),
        ({"out_of_scope_share": "1"}, "out_of_scope_share must lie in (0, 1), but got 1"),
        (
            {"out_of_scope": "nome"},
            "must have the label 'nome', but none of the three files has it; did you mean 'none'?",
        ),
        ({"out_of_scope": "class1"}, "every class must be in the taxonomy, but 1 of 6 are not ('none')"),
        ({"test": str(tmp_path / "no.tsv")}, "cannot be read"),
    ):
        done = treesearch("apply", "cascade", *arguments(paths, **changes), "--epochs", "1")
        assert done.code == 2, (changes, done)
        assert message in done.err
        assert "Traceback" not in done.err
    with pytest.raises(ConfigError, match="seeds must be >= 1"):
        train_models(load(paths), num_seeds=0)
    task, settings = load(paths), PolicySettings(ratios=(1.0,), target_accuracy=0.999, delta=0.001)
    with pytest.raises(DataError, match="needs at least"):
        compare_policies(task, [certain(task, 0.9)], settings=settings)

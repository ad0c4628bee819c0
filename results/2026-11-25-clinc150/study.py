"""CLINC150 in full and with 40 intents cut to five examples, classifiers side by side. See README.md beside it."""

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from treesearch.applications.taxonomy import (
    CLASSIFIERS,
    ObjectiveSettings,
    TrainingSettings,
    load_task,
    summary_rows,
    taxonomy_notes,
    taxonomy_table,
)
from treesearch.applications.taxonomy.classifiers import Classifier, DistilledClassifier, TreeClassifier
from treesearch.applications.taxonomy.training import TextClassifier, result_row, train_classifier
from treesearch.console import stdout
from treesearch.data import Dataset, Split
from treesearch.evaluation.threads import one_thread
from treesearch.objectives.multi_level import MultiLevelLoss
from treesearch.objectives.smoothing import HierarchicalSmoothing
from treesearch.taxonomy import Taxonomy

SEEDS, NUM_RARE, KEPT = range(5), 40, 5
SETTINGS, OBJECTIVE = TrainingSettings(), ObjectiveSettings()
DISTILLED, COARSE, LOCAL = "hs distilled", "hs + multi-level, cut ones by domain", "hs + path-local smoothing"


class SmoothedTreeClassifier(TreeClassifier):
    """A hierarchical softmax with path-local smoothing."""

    def loss(self, hidden_BD: Any, target_B: Any, ids_Bn: Any) -> Any:
        smoothing = HierarchicalSmoothing(self.taxonomy.tree, smoothing=OBJECTIVE.smoothing, beta=OBJECTIVE.beta)
        return smoothing.loss(self.layer, hidden_BD, target_B)


def write_files(folder: Path, data: Path) -> None:
    """The standard split as tables, without out-of-scope queries."""
    queries = json.loads((data / "data_full.json").read_text())
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        (folder / f"{name}.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in queries[split]))
    domains = json.loads((data / "domains.json").read_text())
    links = [(domain, "ROOT") for domain in domains] + [(i, domain) for domain in domains for i in domains[domain]]
    (folder / "taxonomy.tsv").write_text("".join(f"{child}\t{parent}\n" for child, parent in links))


def cut(folder: Path, seed: int) -> tuple[Dataset, Dataset, Taxonomy]:
    """The task with 40 intents, drawn by the seed, cut to five examples; and with the cut ones labelled by domain."""
    lines = (folder / "train.tsv").read_text().splitlines()
    np.random.default_rng(seed).shuffle(lines)
    labels = sorted({line.split("\t")[1] for line in lines})
    rare = set(np.random.default_rng(1000 + seed).choice(labels, NUM_RARE, replace=False).tolist())
    seen: Counter[str] = Counter()
    kept, lost = [], []
    for line in lines:
        label = line.split("\t")[1]
        seen[label] += 1
        (lost if label in rare and seen[label] > KEPT else kept).append(line)
    (folder / "cut.tsv").write_text("\n".join(kept))
    paths = [folder / f"{name}.tsv" for name in ("cut", "valid", "test", "taxonomy")]
    dataset, taxonomy = load_task(*paths)
    # The same files with the lost lines in train, read once more for their words: vocabulary and padding stay ours.
    (folder / "cut.tsv").write_text("\n".join(kept + lost))
    whole, _ = load_task(*paths)
    assert whole.class_names is not None and dataset.class_names is not None
    order = [dataset.class_names.index(name) for name in whole.class_names]
    labels_T = np.array(order, np.int32)[whole.train.labels]
    is_rare = np.array([name in rare for name in dataset.class_names])
    budget = Counter()
    domain = taxonomy.num_classes + taxonomy.ancestors(1)
    relabelled = labels_T.copy()
    for row in range(labels_T.size):
        if is_rare[labels_T[row]]:
            budget[labels_T[row]] += 1
            if budget[labels_T[row]] > KEPT:
                relabelled[row] = domain[labels_T[row]]
    # Words that only the lost lines have are words here: they are read, with their domain.
    remap = np.empty(taxonomy.num_classes, np.int32)
    remap[:] = order
    coarse = replace(
        whole,
        train=Split(whole.train.inputs, relabelled),
        valid=Split(whole.valid.inputs, remap[whole.valid.labels]),
        test=Split(whole.test.inputs, remap[whole.test.labels]),
        class_names=dataset.class_names,
    )
    return dataset, coarse, taxonomy


def run(regime: str, folder: Path) -> list[dict[str, Any]]:
    runs: dict[str, list[dict[str, Any]]] = {}
    rates: dict[str, float] = {}
    for seed in SEEDS:
        if regime == "few":
            dataset, coarse, taxonomy = cut(folder, seed)
        else:
            paths = [folder / f"{name}.tsv" for name in ("train", "valid", "test", "taxonomy")]
            (dataset, taxonomy), coarse = load_task(*paths), None
        counts = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
        teacher: TextClassifier | None = None

        def one(name: str, make: Any, data: Dataset = dataset) -> TextClassifier:
            candidates = []
            for rate in (rates[name],) if name in rates else SETTINGS.learning_rates:
                head: Classifier = make()
                candidates.append((train_classifier(head, data, settings=SETTINGS, learning_rate=rate, seed=seed), rate))
            trained, rates[name] = min(candidates, key=lambda pair: pair[0].valid_nll)
            row = result_row(trained, data, taxonomy, counts) | {"seed": seed, "learning_rate": rates[name]}
            row["metrics"] = {key: row["metrics"][key] for key in ("calibration_error", "hierarchical_f1", "marginal_accuracy")}
            runs.setdefault(name, []).append(row)
            print(regime, seed, name, {k: row[k] for k in ("accuracy", "rare_accuracy", "nll", "epoch")}, file=sys.stderr, flush=True)
            return trained.model

        for name, maker in CLASSIFIERS.items():
            model = one(name, lambda: maker(SETTINGS.features, taxonomy, OBJECTIVE))
            teacher = model if name == "flat" else teacher
        assert teacher is not None
        reads = teacher.log_prob
        one(LOCAL, lambda: SmoothedTreeClassifier(SETTINGS.features, taxonomy))
        one(DISTILLED, lambda: DistilledClassifier(SETTINGS.features, taxonomy, teacher=reads))
        if coarse is not None:
            levels = MultiLevelLoss(taxonomy, level_weights={1: OBJECTIVE.level_weight})
            one(COARSE, lambda: TreeClassifier(SETTINGS.features, taxonomy, multi_level=levels), coarse)
    return summary_rows(runs)


def main() -> None:
    data, folder = Path(os.environ["TREESEARCH_DATA"]) / "clinc150", Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, data)
    results = {}
    for regime in sys.argv[2:] or ("few", "full"):
        results[regime] = run(regime, folder)
        stdout().print(regime)
        stdout().print(taxonomy_table(results[regime]))
        print("\n".join(taxonomy_notes(results[regime])))
        Path(__file__).with_name(f"{regime}.json").write_text(json.dumps(results[regime], indent=1))


if __name__ == "__main__":
    with one_thread():
        main()

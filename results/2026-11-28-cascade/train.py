"""First stage: train the classifiers on CLINC150 with its out-of-scope queries and keep what they say. See README.md.

For each regime ("trained": the 100 out-of-scope training queries are a class under the root; "unseen": they are left
out), seed and classifier: log-probabilities of the classes for all validation and test queries, as .npz in a folder.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from treesearch.applications.cascade.task import load_cascade_task
from treesearch.applications.taxonomy import CLASSIFIERS, ObjectiveSettings, TrainingSettings
from treesearch.applications.taxonomy.training import class_log_prob, train_at_best_rate
from treesearch.evaluation.threads import one_thread

OUT_OF_SCOPE = "oos"
SEEDS = range(5)
REGIMES = {"trained": ("flat", "hs", "hs + multi-level"), "unseen": ("flat", "hs")}
SETTINGS, OBJECTIVE = TrainingSettings(), ObjectiveSettings()


def write_files(folder: Path, data: Path) -> None:
    """The standard split, with out-of-scope queries in validation and test, and in one of two training files."""
    queries = json.loads((data / "data_full.json").read_text())
    outside = {
        split: [(text, OUT_OF_SCOPE) for text, _ in queries[f"oos_{split}"]] for split in ("train", "val", "test")
    }
    for name, rows in (
        ("unseen", queries["train"]),
        ("trained", queries["train"] + outside["train"]),
        ("valid", queries["val"] + outside["val"]),
        ("test", queries["test"] + outside["test"]),
    ):
        (folder / f"{name}.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in rows))
    (folder / "taxonomy.json").write_text((data / "domains.json").read_text())


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, Path(os.environ["TREESEARCH_DATA"]) / "clinc150")
    rates: dict[str, float] = {}  # chosen with the first seed of the first regime
    for regime, names in REGIMES.items():
        paths = [folder / f"{name}.tsv" for name in (regime, "valid", "test")]
        task = load_cascade_task(*paths, folder / "taxonomy.json", out_of_scope=OUT_OF_SCOPE)
        for seed in SEEDS:
            for name in names:
                file = folder / f"{regime} {seed} {name}.npz"
                if file.exists():  # the stage can be stopped and taken up again
                    rates.setdefault(name, float(np.load(file)["rate"]))
                    continue
                begin = time.perf_counter()
                trained, rates[name] = train_at_best_rate(
                    partial(CLASSIFIERS[name], SETTINGS.features, task.trained_taxonomy, OBJECTIVE),
                    task.dataset,
                    settings=SETTINGS,
                    rates=(rates[name],) if name in rates else SETTINGS.learning_rates,
                    seed=seed,
                )
                kept = {
                    split: class_log_prob(trained.model, getattr(task, split)).numpy() for split in ("valid", "test")
                }
                np.savez(file, rate=rates[name], seconds=trained.seconds, **kept)
                spent, rate = time.perf_counter() - begin, rates[name]
                print(
                    regime, seed, name, f"{rate=} {trained.epoch=} {trained.valid_nll=:.4f} {spent:.0f} s", flush=True
                )


if __name__ == "__main__":
    with one_thread():
        main()

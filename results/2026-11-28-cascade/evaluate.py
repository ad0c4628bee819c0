"""Second stage: policies on what train.py has kept. See README.md."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treesearch.applications.cascade import (
    CascadeTask,
    PolicySettings,
    Predictions,
    cascade_table,
    compare_policies,
    load_cascade_task,
)
from treesearch.console import stdout
from treesearch.evaluation.threads import one_thread

SEEDS = range(5)
MODELS = {"trained": ("flat", "hs", "hs + multi-level"), "unseen": ("flat", "hs")}
SHARE = 1000 / 5500  # of the test queries that are out of scope; 100 / 3100 in the validation split
PARTS: dict[str, tuple[str, PolicySettings]] = {
    "trained-once": ("trained", PolicySettings()),
    "trained-once-share-known": ("trained", PolicySettings(out_of_scope_share=SHARE)),
    "trained-every": ("trained", PolicySettings(charge="every")),
    "unseen-once": ("unseen", PolicySettings()),
    "unseen-once-share-known": ("unseen", PolicySettings(out_of_scope_share=SHARE)),
}


def load_regime(folder: Path, regime: str) -> tuple[CascadeTask, list[dict[str, Predictions]]]:
    """The task, and the predictions of each seed."""
    paths = [folder / f"{name}.tsv" for name in (regime, "valid", "test")]
    task = load_cascade_task(*paths, folder / "taxonomy.json", out_of_scope="oos")
    predictions: list[dict[str, Predictions]] = []
    for seed in SEEDS:
        kept = {name: np.load(folder / f"{regime} {seed} {name}.npz") for name in MODELS[regime]}
        predictions.append(
            {
                name: Predictions(*(torch.from_numpy(arrays[split]) for split in ("valid", "test")))
                for name, arrays in kept.items()
            }
        )
    return task, predictions


def rounded(value: Any) -> Any:
    """Numbers to five digits: what is read of them."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    return round(value, 5) if isinstance(value, float) else value


def main() -> None:
    folder = Path(sys.argv[1])
    for part in sys.argv[2:] or PARTS:
        regime, settings = PARTS[part]
        begin = time.perf_counter()
        task, predictions = load_regime(folder, regime)
        rows = compare_policies(task, predictions, settings=settings)
        stdout().print(f"\n{part} ({time.perf_counter() - begin:.0f} s)")
        stdout().print(cascade_table(rows))
        for row in rows:
            row["runs"] = [{key: run[key] for key in ("seed", "cost", "valid_cost")} for run in row["runs"]]
        Path(__file__).with_name(f"{part}.json").write_text(json.dumps(rounded(rows), indent=None))


if __name__ == "__main__":
    with one_thread():
        main()

"""Openings of chess: a tree is searched for each of five splits, then all models are trained and audited.

    TREESEARCH_DATA=... python run.py [--seeds 5]

Everything goes through the command line, as a user would do it. `rows.json` and `trees/` are written beside this file.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def treesearch(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "treesearch.cli", *arguments]
    return subprocess.run(command, env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    openings = str(Path(os.environ["TREESEARCH_DATA"]) / "chess-openings")
    apply = ("apply", "chess", "--openings", openings, "--seeds", str(seeds))
    (HERE / "trees").mkdir(exist_ok=True)
    trees = []
    with tempfile.TemporaryDirectory() as folder:
        treesearch(*apply, "--export", folder)
        for seed in range(seeds):
            own, run = f"{folder}/seed-{seed}", f"{folder}/run-{seed}"
            config = str(HERE / "search.yaml")
            print(treesearch("search", config, "--out", run, "--set", f"seed={seed}", FEATURES=own), flush=True)
            trees.append(HERE / "trees" / f"seed-{seed}.tree.json")
            shutil.copy(f"{run}/best.tree.json", trees[-1])
    options = [part for tree in trees for part in ("--tree", str(tree))]
    (HERE / "rows.json").write_text(treesearch(*apply, *options, "--json"), encoding="utf-8")


if __name__ == "__main__":
    main()

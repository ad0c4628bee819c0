"""The tables and examples of `rows.json`: python table.py > table.txt."""

import json
from pathlib import Path

import numpy as np

from treesearch.applications.chess.records import record_lines
from treesearch.evaluation.comparison import paired_difference

PICKED = {
    "driver at the volume": lambda runs: [run["by_level"]["driver"][0]["value"] for run in runs],
    "driver at the family": lambda runs: [run["by_level"]["driver"][1]["value"] for run in runs],
    "driver per decision, average position": lambda runs: [run["average_baseline"]["driver_decision"]["value"] for run in runs],
    "driver per path, average position": lambda runs: [run["average_baseline"]["driver_path"]["value"] for run in runs],
}
SHOWN = ("family_accuracy", "volume_accuracy", "nll", "driver_decision", "driver_path", "direction_decision", "direction_path")


def interval(found: dict) -> str:
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def mean(values: list) -> str:
    return f"{np.mean(values):.3f}"


def main() -> None:
    rows = json.loads((Path(__file__).parent / "rows.json").read_text())
    for row in rows:
        runs = row["runs"]
        print(f"{row['name']}: {len(runs)} seeds, {runs[0]['num_test']} positions of test, rate {runs[0]['learning_rate']}, decay {runs[0]['weight_decay']}")
        for measure in SHOWN:
            against = f"  against flat {interval(row['against_flat'][measure])}" if "against_flat" in row else ""
            chance = ", ".join(f"{kind} {level:.3f}" for kind, level in row["chance"].get(measure, {}).items())
            print(f"  {measure:19} {interval(row['intervals'][measure])}{against}{'  chance: ' + chance if chance else ''}")
        for measure in ("driver", "direction"):
            levels = [mean([run["by_level"][measure][level]["value"] for run in runs]) for level in range(2)]
            print(f"  {measure} at the volume {levels[0]}, at the family {levels[1]}")
        average = {key: (mean([run["average_baseline"][key]["value"] for run in runs]), mean([run["average_baseline"][key]["chance"]["in play"] for run in runs])) for key in runs[0]["average_baseline"]}
        if row["name"] != "flat":
            print("  against flat, " + "; ".join(f"{name} {interval(paired_difference(pick(runs), pick(rows[-1]['runs'])).as_dict())}" for name, pick in PICKED.items()))
        print("  against the average position: " + ", ".join(f"{key} {value} (chance {level})" for key, (value, level) in average.items()))
        first = runs[0]["rates"]["driver_decision"]
        print(f"  driver agreement of the first seed, bootstrap over positions: {first['value']:.3f} [{first['low']:.3f}, {first['high']:.3f}]")
        print(f"  right answers with a decision that the expert disagrees with: {mean([run['wrong_reason'] for run in runs])}\n")
    for row in rows:
        for example in row["examples"]:
            print("\n".join(["-" * 100, f"{row['name']}, right for the wrong reason: {example['name']}", *record_lines(example), ""]))


if __name__ == "__main__":
    main()

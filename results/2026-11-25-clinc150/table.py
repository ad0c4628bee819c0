"""The tables of README.md from few.json and full.json: means over seeds, and differences to flat, paired by seed."""

import json
from pathlib import Path

from treesearch.evaluation.comparison import paired_difference


def cell(value: float | None, difference: dict | None, digits: int = 3) -> str:
    if value is None:
        return ""
    text = f"{value:.{digits}f}"
    if difference is None or difference["low"] == difference["high"]:
        return text
    return f"{text} ({difference['mean']:+.{digits}f} [{difference['low']:+.{digits}f}, {difference['high']:+.{digits}f}])"


for regime in ("few", "full"):
    rows = json.loads(Path(__file__).with_name(f"{regime}.json").read_text())
    flat = rows[0]["runs"]
    print(f"\n{regime}\n\n| classifier | accuracy | rare | domain | severity | NLL | violated | argmax of marginals violated |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        runs, against = row["runs"], row.get("against_flat", {}) if row["name"] != "flat" else {}
        domain = [run["accuracy_by_level"][0] for run in runs]
        of_flat = [run["accuracy_by_level"][0] for run in flat]
        by_domain = paired_difference(domain, of_flat).as_dict() if against else None
        marginal = sum(run["marginal_violations"] for run in runs) / len(runs)
        cells = [row["name"], *(cell(row[m], against.get(m)) for m in ("accuracy", "rare_accuracy"))]
        cells.append(cell(sum(domain) / len(domain), by_domain))
        cells += [cell(row[m], against.get(m), 2) for m in ("severity", "nll")]
        cells += [cell(row["violations"], None), cell(marginal, None)]
        print("| " + " | ".join(cells) + " |")

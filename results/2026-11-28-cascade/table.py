"""The tables of README.md from the rows beside it."""

import json
from pathlib import Path

HERE = Path(__file__).parent


def cell(mean: float, against: dict | None, digits: int = 3, sign: int = 1) -> str:
    """A mean, and the difference to the rival with its interval; bold where it is better (with sign -1: higher)."""
    if against is None or against["low"] == against["high"]:
        return f"{mean:.{digits}f}"
    low, high = against["low"], against["high"]
    mark = "**" if max(sign * low, sign * high) < 0 else ""
    return f"{mark}{mean:.{digits}f}{mark} ({against['mean']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}])"


for part in ("trained-once", "trained-once-share-known", "trained-every", "unseen-once", "unseen-once-share-known"):
    if not (HERE / f"{part}.json").exists():
        continue
    rows = json.loads((HERE / f"{part}.json").read_text())
    ratios = list(dict.fromkeys(row["ratio"] for row in rows))
    print(
        f"\n{part}\n\n| model | policy | {' | '.join(f'{ratio:g}' for ratio in ratios)} |\n|---|---|{'---|' * len(ratios)}"
    )
    keys = dict.fromkeys((row["model"], row["policy"]) for row in rows)
    for model, policy in keys:
        own = {row["ratio"]: row for row in rows if (row["model"], row["policy"]) == (model, policy)}
        print(f"| {model} | {policy} | {' | '.join(cell(own[r]['cost'], own[r]['against_flat']) for r in ratios)} |")
    for row in rows:
        if row["policy"] == "best on validation" or (row["model"], row["policy"]) == ("flat", "threshold"):
            shares = ", ".join(
                f"{row[key]:.2f} {key}" for key in ("answered_class", "answered_inner", "flagged", "accuracy")
            )
            print(f"{row['ratio']:g} {row['model']}: {row['variant']}; {shares}")

if (HERE / "detection.json").exists():
    print("\n| regime | model | signal | AUROC | AURC | risk at 50, 70, 80, 90, 100 % |\n|---|---|---|---|---|---|")
    for row in json.loads((HERE / "detection.json").read_text()):
        cells = [
            cell(row[key]["mean"], row[f"{key}_against_flat"], sign=sign) for key, sign in (("auroc", -1), ("aurc", 1))
        ]
        risks = " ".join(f"{value:.3f}" for value in row["risk_at"].values())
        print(f"| {row['regime']} | {row['model']} | {row['signal']} | {' | '.join(cells)} | {risks} |")
if (HERE / "guarantee.json").exists():
    print("\n| model | target | design | calibration | kept | mean accuracy | least | answered | never answers |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in json.loads((HERE / "guarantee.json").read_text()):
        keys = ("kept", "mean_accuracy", "least_accuracy", "answered", "abstained_always")
        print(
            "|",
            " | ".join(
                [
                    row["model"],
                    str(row["target"]),
                    row["design"],
                    str(row["calibration"]),
                    *(f"{row[k]:.3f}" for k in keys),
                ]
            ),
            "|",
        )

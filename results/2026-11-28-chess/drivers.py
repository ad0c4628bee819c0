"""What drives each volume's and family's decision on the ECO tree, beside what the expert names (first split).

    TREESEARCH_DATA=... python drivers.py > drivers.txt

The layer on the ECO tree of `rows.json`'s first seed is trained again; for each branch that was taken five times or more:
how often, the share of agreement, the expert's factors and the three most frequent drivers.
"""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from treesearch.applications.chess.openings import Openings
from treesearch.applications.chess.reasons import eco_rules, reasons_of
from treesearch.applications.chess.training import TrainingSettings, train_layer
from treesearch.evaluation.threads import one_thread

HERE = Path(__file__).parent


def main() -> None:
    run = json.loads((HERE / "rows.json").read_text())[0]["runs"][0]
    openings = Openings.load(Path(os.environ["TREESEARCH_DATA"]) / "chess-openings")
    book, split = eco_rules(openings.taxonomy), openings.split(0)
    rates = {key: run[key] for key in ("learning_rate", "weight_decay")}
    with one_thread():
        trained = train_layer(book.tree, split, settings=TrainingSettings(), seed=0, **rates)
        reasons = reasons_of(trained.layer, split.test.x, book)
    found = reasons.alignment
    for measure in ("driver", "direction"):
        print(f"{measure}: {found.rate(measure).value:.4f} here, {run[f'{measure}_decision']:.4f} in rows.json")
    names = found.book.groups.names
    tree = book.tree
    for node in range(1, tree.num_nodes):
        at = found.branch == node
        if at.sum() < 5 or not book.direction[node].any():
            continue
        drivers = Counter(names[one] for one in found.driver[at].tolist())
        name = tree.node_names[node] if node < tree.num_internal else tree.class_names[tree.leaf_class[node - tree.num_internal]]
        expert = [names[one] for one in np.flatnonzero(book.direction[node])]
        shown = ", ".join(f"{driver} {count}" for driver, count in drivers.most_common(3))
        print(f"{name:36} {at.sum():4} {found.agrees['driver'][at].mean():.2f}  {' / '.join(expert)}  <-  {shown}")


if __name__ == "__main__":
    main()

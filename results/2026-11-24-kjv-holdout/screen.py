"""The confirmation once more, with a warm rung: `python screen.py RUN_FOLDER NEW_FOLDER`.

Takes the frozen rows of a run, and promotes, screens, trains and confirms anew: 16 trees of each kind for λ = 0.005 and 0.0002,
of which 4 go on to the joint rung at the one learning rate that was best for all, and 3 to five fresh seeds.
"""

import shutil
import sqlite3
import sys
from pathlib import Path

from rich import print as show

from treesearch.config import load_config
from treesearch.launch.confirmation import confirm_search
from treesearch.launch.parts import load_corpus, make_cost_model, make_executor, prepare_run
from treesearch.launch.results import rungs_agreement
from treesearch.progress import ProgressReporter
from treesearch.report.tables import comparison_notes, comparison_rows, comparison_table
from treesearch.search.ledger import WARM, Ledger

SETTINGS = [
    "confirm.screen=16", "confirm.promote=4", "confirm.finalists=3", "confirm.seeds=5", "confirm.rank_trees=0",
    "confirm.families=[]", "joint.learning_rates=[0.01]", "cost.weights=[0.005, 0.0002]",
]  # fmt: skip


def main(run_folder, new_folder):
    new_folder.mkdir()
    shutil.copy(run_folder / "search.db", new_folder / "search.db")
    with sqlite3.connect(new_folder / "search.db") as database:
        database.execute("DELETE FROM evaluations WHERE rung != 'frozen'")
    config = load_config(run_folder / "config.yaml", SETTINGS)
    corpus = load_corpus(config)
    with ProgressReporter() as progress, Ledger(new_folder / "search.db") as ledger:
        prepared = prepare_run(config, corpus, progress)
        assert ledger.meta("encoder") == prepared.hash, "the encoder is not the run's"
        cost_model = make_cost_model(config, corpus.counts.astype(float), progress)
        with make_executor(config, corpus, prepared) as executor:
            _, _, confirmed = confirm_search(
                config, corpus, cost_model, executor, ledger, progress, encoder=prepared.hash
            )
        rows = comparison_rows(confirmed, cost_model=cost_model, times={})
        show(comparison_table(rows), *comparison_notes(rows), sep="\n")
        show(rungs_agreement(ledger, prepared.hash), rungs_agreement(ledger, prepared.hash, lower=WARM), sep="\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

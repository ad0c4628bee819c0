"""Confidence by level of ICD-10-CM on held-out inclusion terms: `study.py few` (chapters 9, 10), `study.py all`.

Writes few.json or all.json beside itself, and prints the tables of `treesearch apply coding`.
"""

import json
import resource
import sys
import time
from pathlib import Path

from treesearch.applications.coding import (
    icd10cm_chapters,
    icd10cm_wordings,
    levels_table,
    narrow,
    safe_table,
    train_and_score,
)
from treesearch.console import stdout
from treesearch.evaluation.threads import one_thread
from treesearch.progress import ProgressReporter

FEW = ["9", "10"]  # circulatory, respiratory
QUERIES = ["non-ST elevation heart attack", "astma attack, child", "high blood pressure", "broken heart syndrome"]


def main(which: str) -> None:
    """Train, score, write."""
    begin = time.perf_counter()
    taxonomy = icd10cm_chapters(FEW if which == "few" else None)
    wordings = icd10cm_wordings(taxonomy)
    loaded = time.perf_counter() - begin
    with one_thread(), ProgressReporter() as progress:
        rows, coder = train_and_score(
            taxonomy,
            wordings,
            num_seeds=5 if which == "few" else 1,
            heads=("hs", "flat") if which == "few" else ("hs",),
            on_step=lambda head, done, total: progress.update("training", done, total, head),
        )
    content = {
        "which": which,
        "codes": taxonomy.num_classes,
        "texts": len(wordings),
        "load_seconds": loaded,
        "seconds": time.perf_counter() - begin,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "rows": rows,
        "queries": narrow(coder, QUERIES),
    }
    (Path(__file__).parent / f"{which}.json").write_text(json.dumps(content, indent=1) + "\n")
    stdout().print(levels_table(rows), safe_table(rows))


if __name__ == "__main__":
    main(sys.argv[1])

"""Confidence by level of ICD-10-CM on held-out inclusion terms.

`study.py few hs`, `study.py few flat` (chapters 9 and 10) and `study.py all hs` write their runs beside this file;
`study.py few tables` prints the tables of `treesearch apply coding` from these.
"""

import json
import resource
import sys
import time
from pathlib import Path

from treesearch.applications.coding import (
    Coder,
    coding_task,
    icd10cm_chapters,
    icd10cm_wordings,
    levels_table,
    narrow,
    safe_table,
    train_coder,
)
from treesearch.applications.coding.run import scored, summary_rows
from treesearch.applications.coding.training import Head
from treesearch.console import stdout
from treesearch.evaluation.threads import one_thread

HERE = Path(__file__).parent
FEW = ["9", "10"]  # circulatory, respiratory
QUERIES = ["non-ST elevation heart attack", "astma attack, child", "high blood pressure", "broken heart syndrome"]


def train(which: str, head: Head) -> None:
    """Train and score a head, and write its runs beside this file."""
    begin = time.perf_counter()
    taxonomy = icd10cm_chapters(FEW if which == "few" else None)
    wordings = icd10cm_wordings(taxonomy)
    runs = []
    with one_thread():
        for seed in range(5 if which == "few" else 1):
            task = coding_task(taxonomy, wordings, seed=seed)
            found = train_coder(task, seed=seed, head=head)
            runs.append({"seed": seed} | scored(found, task))
            print(head, seed, round(runs[-1]["nll"], 3), file=sys.stderr, flush=True)
            content = {
                "codes": taxonomy.num_classes,
                "texts": len(wordings),
                "seconds": time.perf_counter() - begin,
                "cpu_seconds": time.process_time(),
                "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
                "runs": runs,
            }
            (HERE / f"{which}-{head}.json").write_text(json.dumps(content, indent=1) + "\n")
            if head == "hs" and seed == 0:
                queries = narrow(Coder.of(task, found), QUERIES)
                (HERE / f"{which}-queries.json").write_text(json.dumps(queries, indent=1) + "\n")


def tables(which: str) -> None:
    """Print the tables of the runs that are written, and the differences."""
    taxonomy = icd10cm_chapters(FEW if which == "few" else None)
    files = {head: HERE / f"{which}-{head}.json" for head in ("hs", "flat")}
    runs_of = {head: json.loads(file.read_text())["runs"] for head, file in files.items() if file.exists()}
    rows = summary_rows(runs_of, taxonomy)
    stdout().print(levels_table(rows), safe_table(rows))
    for row in rows:
        for name, value in row.get("against_flat", {}).items():
            stdout().print(f"hs - flat, {name}: {value['mean']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]")


if __name__ == "__main__":
    if sys.argv[2:] == ["tables"]:
        tables(sys.argv[1])
    else:
        train(sys.argv[1], sys.argv[2])  # type: ignore[arg-type]

"""Everything that says it works on CUDA, on a machine that has it: tests first, then the benchmark.

python results/2026-11-28-gpu/check.py [--out FOLDER] [--only PART ...]

Each part is a process with a time limit of its own, so that one that hangs costs no other; what it prints goes to
FOLDER/NAME.txt (default: beside this file), and its end and duration to the terminal. Without ray, wandb and the like:
the parts import none of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTEST = [
    sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", "--timeout=120", "--maxfail=40",
    "--tb=short", "-o", "addopts=-ra",
]  # fmt: skip
BENCH = "import json, sys; from treesearch.bench import gpu; json.dump(gpu.run({}), open(sys.argv[1], 'w'), indent=1)"
PARTS: dict[str, tuple[int, list[str]]] = {
    "versions": (40, [sys.executable, "-c", (
        "import torch, numpy, numba;"
        "print(torch.__version__, torch.version.cuda, numpy.__version__, numba.__version__);"
        "print(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0))"
    )]),
    "layers": (150, [*PYTEST, "-m", "gpu", "-k", "not compiled", "tests/softmax/test_cuda.py"]),
    "around": (100, [*PYTEST, "-m", "gpu", "tests/test_devices.py"]),
    "older": (90, [
        *PYTEST, "-m", "gpu", "tests/softmax/test_gpu.py", "tests/softmax/test_optim.py",
        "tests/softmax/test_rowwise_adam.py", "tests/evaluation/test_frozen_torch.py",
    ]),
    "compiled": (150, [*PYTEST, "-m", "gpu", "-k", "compiled", "tests/softmax/test_cuda.py"]),
    "eager": (150, [sys.executable, "-c", BENCH.format("parts=['eager']"), "{out}/eager.json"]),
    "frozen": (60, [sys.executable, "-c", BENCH.format("sizes=[], parts=['frozen']"), "{out}/frozen.json"]),
    "compiled-times": (120, [sys.executable, "-c", BENCH.format("parts=['compiled']"), "{out}/compiled.json"]),
}  # fmt: skip
TOGETHER = [["versions"], ["layers", "around", "older", "compiled"], ["eager"], ["frozen"], ["compiled-times"]]


def main() -> None:
    """Run the parts: tests beside each other, times one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--only", nargs="*", default=list(PARTS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    ends = []
    for names in TOGETHER:
        started = [(name, time.perf_counter(), _start(name, options.out)) for name in names if name in options.only]
        for name, begin, process in started:
            try:
                code: int | str = process.wait(PARTS[name][0] - (time.perf_counter() - begin))
            except subprocess.TimeoutExpired:
                process.kill()
                code = "too slow"
            ends.append({"part": name, "exit": code, "seconds": round(time.perf_counter() - begin, 1)})
            print(
                ends[-1],
                *(options.out / f"{name}.txt").read_text(errors="replace").splitlines()[-12:],
                sep="\n  ",
                flush=True,
            )
    (options.out / "ends.json").write_text(json.dumps(ends, indent=1) + "\n")


def _start(name: str, out: Path) -> subprocess.Popen[bytes]:
    command = [word.replace("{out}", str(out)) for word in PARTS[name][1]]
    log = (out / f"{name}.txt").open("wb")
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "2"}
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment)


if __name__ == "__main__":
    main()

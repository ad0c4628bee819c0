"""A search that takes seconds, and the command line in processes of its own."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from treesearch.cli import LOADING

NUM_WORDS = 60
BUILDERS = [{"name": "huffman"}, {"name": "clustered", "arity": 4}, {"name": "balanced"}]
SEED = 0
EVALUATIONS = 32  # of which demonstrations take some
# By the server that commands are forked from; the warm-up imports what has kernels.
PRELOADED = ["treesearch.cli", "treesearch.launch", "treesearch.report.page.write", "treesearch.warmup", "tests.tiny"]


def write_text(path: Path, *, lines: int, rng: np.random.Generator, transition: np.ndarray) -> None:
    """Sentences of eight words of a bigram language."""
    words = np.empty((lines, 8), int)
    words[:, 0] = rng.integers(NUM_WORDS, size=lines)
    for i in range(1, 8):
        words[:, i] = [rng.choice(NUM_WORDS, p=transition[word]) for word in words[:, i - 1]]
    path.write_text("\n".join(" ".join(f"w{word:02}" for word in line) for line in words) + "\n")


def config(folder: Path) -> dict[str, Any]:
    """A whole run on the texts in ``folder``."""
    return {
        "seed": SEED,
        "data": {"kind": "text", **{split: str(folder / f"{split}.txt") for split in ("train", "valid", "test")}},
        "encoder": {"features": 8, "context": 2, "embedding": 4, "batch_size": 128},
        "joint": {"learning_rates": [0.01], "batch_size": 128},
        "confirm": {"promote": 2, "screen": 3, "rounds": 2, "seeds": 2},
        "environment": {"max_decisions": 4},
        "search": {"evaluations": EVALUATIONS, "batch_size": 6, "executor": "local", "builders": BUILDERS},
    }


def write_config(folder: Path) -> Path:
    """``tiny.yaml`` and its three texts."""
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.full(NUM_WORDS, 0.1), size=NUM_WORDS)
    for split in ("train", "valid", "test"):
        write_text(folder / f"{split}.txt", lines=200, rng=rng, transition=transition)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config(folder)))
    return path


class Done(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line of an error, and nothing else but the progress of imports."""
        (line,) = [line for line in self.err.splitlines() if not line.startswith(f"{LOADING}: ")]
        assert line.startswith("error: ")
        return line


def treesearch(*arguments: object, cwd: Path | None = None, environment: dict[str, str] | None = None) -> Done:
    """Run ``treesearch ARGUMENTS`` in a process of its own.

    The process is forked from a server that has imported torch and nothing else, which saves four seconds each time;
    `run_module` starts from nothing.
    """
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = context.Process(target=_main, args=([str(a) for a in arguments], cwd, environment or {}, out, err))
        process.start()
        process.join(300)
        assert process.exitcode is not None, f"still running: {arguments}"
        return Done(process.exitcode, out.read_text(), err.read_text())


def _main(arguments: list[str], cwd: Path | None, environment: dict[str, str], out: Path, err: Path) -> None:
    os.environ.update(environment)
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), descriptor)
    os.chdir(cwd or out.parent)
    sys.argv = ["treesearch", *arguments]
    from treesearch.cli import main

    main()


def run_module(*arguments: object, cwd: Path | None = None, timeout: float = 300) -> Done:
    """Run ``python -m treesearch.cli ARGUMENTS``."""
    command = [sys.executable, "-m", "treesearch.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd)
    return Done(done.returncode, done.stdout, done.stderr)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below ``folder``: bytes of files, None for folders."""
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}

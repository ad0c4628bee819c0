"""The folder of a run: what lies in it and how it is written.

config.yaml        resolved, itself a valid config
environment.json   versions, device, commit
search.db          the ledger
best.tree.json     no time or path in it
comparison.json    the rows of ``treesearch compare``
cost_table.json    what nodes cost on the device, where cost.kind is measured
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from treesearch.config import Config, dump_config, load_config
from treesearch.cost_table import CostTable
from treesearch.errors import RunError
from treesearch.search.ledger import Ledger
from treesearch.tree import Tree
from treesearch.tree_files import write_atomically

RECORDED_PACKAGES = ("treesearch", "torch", "numpy", "numba", "scipy", "gymnasium", "ray")


class RunFolder:
    """Paths and files of one run.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.environment_file = path / "environment.json"
        self.ledger_file = path / "search.db"
        self.best_tree_file = path / "best.tree.json"
        self.comparison_file = path / "comparison.json"
        self.cost_table_file = path / "cost_table.json"

    def check_free(self) -> None:
        """Raise RunError if the folder holds a run or anything else, or cannot be made."""
        try:
            holds_run = self.ledger_file.exists()
            taken = self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        except OSError as error:
            raise RunError(f"{self.path} cannot be read ({error.strerror}); choose another --out") from None
        if holds_run:
            raise RunError(f"{self.path} already holds a run; choose another --out")
        if taken:
            raise RunError(f"{self.path} must be a new or empty folder; choose another --out")

    def create(self, config: Config) -> Ledger:
        """Make the folder with configuration, environment and an empty ledger.

        Raises:
            RunError: The folder is taken or cannot be written.
        """
        self.check_free()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _write_text(self.config_file, dump_config(config))
            _write_json(self.environment_file, environment())
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error.strerror}); choose another --out") from None
        return Ledger(self.ledger_file, create=True)

    def open(self) -> Ledger:
        """The ledger of an existing run, to go on with.

        Raises:
            RunError: There is none, or the folder cannot be written.
        """
        return Ledger(self.ledger_file)

    def read(self) -> Ledger:
        """The ledger of an existing run, to look at; it may be worked on at the same time.

        Raises:
            RunError: There is none.
        """
        return Ledger(self.ledger_file, read_only=True)

    def config(self) -> Config:
        """The resolved configuration."""
        return load_config(self.config_file)

    def best_tree(self) -> Tree:
        """The exported tree.

        Raises:
            RunError: The run has not got that far.
        """
        if not self.best_tree_file.is_file():
            raise RunError(
                f"{self.path} holds no best.tree.json; the search has not finished, or this is no run folder"
            )
        return Tree.load(self.best_tree_file)

    def comparison(self) -> dict[str, Any]:
        """The content of ``comparison.json``.

        Raises:
            RunError: The run has not got that far, or the file is broken.
        """
        try:
            content: dict[str, Any] = json.loads(self.comparison_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{self.path} holds no comparison.json; the search has not finished, or this is no run folder"
            ) from None
        except ValueError as error:
            raise RunError(f"{self.comparison_file} is no JSON: {error}") from None
        if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
            raise RunError(f"{self.comparison_file} must be an object with rows; it was not written by a search")
        return content

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes off this run; the lock ends with the process, however that ends.

        Raises:
            RunError: Another process works on it.
        """
        try:
            descriptor = os.open(self.environment_file, os.O_RDONLY)  # which is never replaced
        except OSError as error:
            raise RunError(f"{self.environment_file} cannot be read ({error.strerror}): no run folder") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{self.path} is being worked on by another process; wait for it or end it") from None
            yield
        finally:
            os.close(descriptor)

    def write_config(self, config: Config) -> None:
        """Write a changed configuration."""
        with self._writing():
            _write_text(self.config_file, dump_config(config))

    def write_cost_table(self, table: CostTable) -> None:
        """Write the cost table of the run."""
        with self._writing():
            _write_text(self.cost_table_file, table.to_json())

    def write_results(self, best: Tree, comparison: dict[str, Any]) -> None:
        """Write the best tree and the comparison, each whole or not at all."""
        with self._writing():
            best.save(self.best_tree_file)
            _write_json(self.comparison_file, comparison)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.path} could not be written ({error.strerror}); free space or mend the folder and resume"
            ) from None


def next_free_folder(parent: Path, stem: str) -> Path:
    """``parent/stem-N`` with the smallest N >= 1 that does not exist."""
    number = 1
    while (parent / f"{stem}-{number}").exists():
        number += 1
    return parent / f"{stem}-{number}"


def environment() -> dict[str, Any]:
    """Versions, device and commit of this process."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "commit": _commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _version(package: str) -> str | None:
    """None where it is not installed, as on a cluster to which our code has travelled."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def _write_json(path: Path, content: Any) -> None:
    _write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

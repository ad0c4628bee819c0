"""The folder of a run: what lies in it and how it is written.

config.yaml        resolved, itself a valid config
environment.json   versions, device, commit
search.db          the ledger
best.tree.json     no time or path in it
comparison.json    the rows of ``treesearch compare``
cost_table.json    what nodes cost on the device, where cost.kind is measured
report.html        all of it to look at
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from treesearch.config import Config, dump_config, make_config, read_settings
from treesearch.cost_table import CostTable
from treesearch.errors import RunError, TreeError
from treesearch.search import locks
from treesearch.search.comparison_file import checked
from treesearch.search.ledger import Ledger
from treesearch.tree import Tree
from treesearch.tree_files import write_atomically

RECORDED_PACKAGES = ("treesearch", "torch", "numpy", "numba", "scipy", "gymnasium", "ray")
RECORDED_SECTIONS = ("data", "encoder", "joint", "confirm", "cost", "search")  # of every version
_BRING_BACK = "bring back an intact copy of it, or start a new search"


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
        self.report_file = path / "report.html"

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
        """The resolved configuration.

        Raises:
            RunError: There is none, or the file is empty or cut off.
            ConfigError: It cannot be used.
        """
        try:
            self.config_file.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"{self.path} holds no {self.config_file.name}; {_BRING_BACK}") from None
        except OSError as error:
            raise RunError(f"{self.config_file} cannot be read ({error.strerror}); mend its folder") from None
        held = read_settings(self.config_file)
        # What is left out would be taken to be the default, which is not what the run was made with.
        if missing := [section for section in RECORDED_SECTIONS if section not in held]:
            raise RunError(f"{self.config_file} is damaged: it has no section {missing[0]}; {_BRING_BACK}")
        return make_config(held)

    def best_tree(self) -> Tree:
        """The exported tree.

        Raises:
            RunError: The run has not got that far, or the file is broken.
        """
        if not self.best_tree_file.is_file():
            raise RunError(self._unfinished(self.best_tree_file))
        try:
            return Tree.load(self.best_tree_file)
        except TreeError as error:
            raise RunError(f"{error}; write it again with: treesearch resume {self.path}") from None

    def comparison(self) -> dict[str, Any]:
        """The content of ``comparison.json``.

        Raises:
            RunError: The run has not got that far, or the file is broken.
        """
        try:
            return checked(json.loads(self.comparison_file.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(self._unfinished(self.comparison_file)) from None
        except OSError as error:
            raise RunError(f"{self.comparison_file} cannot be read ({error.strerror}); mend its folder") from None
        except (ValueError, RecursionError) as error:
            why = f"no JSON ({error})" if isinstance(error, json.JSONDecodeError | UnicodeError) else error
            raise RunError(
                f"{self.comparison_file} is damaged: {why}; write it again with: treesearch resume {self.path}"
            ) from None

    def _unfinished(self, missing: Path) -> str:
        """Why a file that ends a search is not there, and the way out."""
        says = f"{self.path} holds no {missing.name}"
        if not self.ledger_file.is_file():
            return f"{says}: it is no run folder; give one that treesearch search has made"
        return f"{says}: the search has not finished; wait for it, or go on with: treesearch resume {self.path}"

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes off this run; the lock ends with the process, however that ends.

        Raises:
            RunError: Its file is missing; on entering: another process works on it.
        """
        if not self.environment_file.exists():
            raise RunError(
                f"{self.path} holds no {self.environment_file.name}, by which a run is locked; bring it back, or make"
                " one that holds {}; what the search ran on is then not known"
            )
        return locks.held(self.environment_file, "run")  # which is never replaced

    def locked(self) -> bool:
        """Whether a process works on this run."""
        return locks.is_held(self.environment_file)

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


def default_folder(config_path: Path) -> Path:
    """``runs/NAME-N`` below the working directory, NAME the config's and N the smallest free number from 1."""
    number = 1
    while (folder := Path("runs") / f"{config_path.stem}-{number}").exists():
        number += 1
    return folder


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

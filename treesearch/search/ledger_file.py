"""The file of a ledger: its tables, opening it whatever it is, and reading and writing it without a traceback."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from treesearch.errors import RunError
from treesearch.search.evaluation_row import EvaluationRow
from treesearch.search.ledger_entries import ANYTHING, META, Kind

SCHEMA_VERSION = 3
_LATER = ("decisions", "finished_at")  # columns that a ledger of this schema may lack, as an earlier version wrote it
_WRITING, _READING = "mode=rw", "mode=ro&readonly_shm=1"  # of a connection; in a URI
_AFFINITIES = {"int": "INTEGER", "float": "REAL", "str": "TEXT"}  # by how the annotation of a field begins
_DEFINITIONS = {
    field.name: f"{field.name} {_AFFINITIES[str(field.type).partition(' | ')[0]]}" for field in fields(EvaluationRow)
} | {"id": "id INTEGER PRIMARY KEY"}
COLUMNS = list(_DEFINITIONS)
_TABLES = {
    "evaluations": ", ".join(_DEFINITIONS.values()),
    "trees": "hash TEXT PRIMARY KEY, data BLOB NOT NULL",
    "batches": "batch INTEGER PRIMARY KEY, agent_state BLOB, metrics TEXT, position TEXT, finished_at REAL",
    "meta": "key TEXT PRIMARY KEY, value TEXT NOT NULL",
    # What resuming needs:
    "encoders": "hash TEXT PRIMARY KEY, state BLOB NOT NULL",
    "nodes": "memo TEXT, keys BLOB NOT NULL, nll BLOB NOT NULL",
    "outcomes": "key TEXT PRIMARY KEY, outcome BLOB NOT NULL, lasting INTEGER",
    # What looking at a run needs:
    "class_vectors": "encoder TEXT PRIMARY KEY, width INTEGER, data BLOB NOT NULL",
}


class _NoLedgerError(Exception):
    """Why a file is none of this version, and the way out."""


class LedgerFile:
    """A SQLite file with the tables of a ledger, and its table of facts. Arguments and errors are those of `Ledger`."""

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        if not create and not path.is_file():
            raise RunError(f"no ledger at {path}; give the folder of a search")
        writable = os.access(path.parent, os.W_OK)
        if not (create or read_only or (writable and os.access(path, os.W_OK))):
            raise RunError(f"{path} cannot be written; give its folder write permission, or go on with a copy of it")
        self._path = path
        self._resources = ExitStack()
        made = False
        try:
            if create:
                path.touch(exist_ok=False)
                made = True
            if writable or create:
                connection = _connected(path, _WRITING)
            elif all(file.exists() for file in files_of(path)):  # as while a search goes on: SQLite need not make one
                connection = _connected(path, _READING)
            else:
                connection = self._copy(path)
            self._db = self._resources.enter_context(closing(connection))
            self._prepare(create, read_only)
        except FileExistsError:
            raise RunError(f"{path} already holds a search; choose another --out") from None
        except BaseException as error:
            self._resources.close()
            if made:
                for file in files_of(path):
                    file.unlink(missing_ok=True)
            if not isinstance(error, OSError | sqlite3.Error | _NoLedgerError):
                raise
            raise RunError(f"{path} cannot be {'made' if create else 'used'} as a ledger: {error}") from None

    def meta(self, key: str) -> Any:
        """A fact stored with `set_meta`, None if there is none.

        Raises:
            RunError: It is not what it must be.
        """
        found = self._read("SELECT value FROM meta WHERE key = ?", (key,))
        return self._parsed(META.get(key, ANYTHING), found[0][0], f"{key} in its table meta") if found else None

    def set_meta(self, key: str, value: Any) -> None:
        """Store a JSON-able fact about the run."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta(key, value) VALUES (?, ?)", (key, json.dumps(value)))

    def copy_to(self, path: Path) -> None:
        """Write all of it to a new file, as which it is whole without a write-ahead log.

        Raises:
            RunError: The file is there already or cannot be written.
        """
        try:
            self._db.execute("VACUUM INTO ?", (_uri(path),))
            with path.open("rb") as file:
                os.fsync(file.fileno())
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"{path} could not be written: {error}; free space or mend its folder") from None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read inside is of one moment, whatever another process writes meanwhile."""
        self._read("BEGIN")
        try:
            yield
        finally:
            self._db.rollback()

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- for `Ledger` --------------------------------------------------------------------------------------------------

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise RunError(
                f"{self._path} could not be read: {error}; try again, or look at a copy of its folder"
            ) from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._db:
                yield
        except sqlite3.Error as error:
            raise RunError(
                f"{self._path} could not be written: {error}; free space or mend the folder and resume"
            ) from None

    def _parsed(self, kind: Kind, text: Any, what: str) -> Any:
        try:
            return kind.parse(text)
        except ValueError as error:
            raise self._damaged(f"{what} {error}") from None

    def _bytes(self, value: Any, what: str) -> bytes:
        if not isinstance(value, bytes):
            raise self._unfit(what, "bytes", value)
        return value

    def _unfit(self, what: str, words: str, value: Any) -> RunError:
        return self._damaged(f"{what} must be {words}, but is {value!r:.60}")

    def _damaged(self, why: str) -> RunError:
        return RunError(f"{self._path} is damaged: {why}; bring back an intact copy of it, or start a new search")

    def _copy(self, path: Path) -> sqlite3.Connection:
        """To a copy, which goes when this is closed."""
        folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory()))
        ledger, log, _ = files_of(path)  # SQLite makes the index anew
        for file in (ledger, log):
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        return _connected(folder / path.name, _WRITING)

    def _prepare(self, create: bool, read_only: bool) -> None:
        # What it is comes first: the mode is a change of the file, which may be somebody else's.
        if create:
            self._create_tables()
        else:
            self._check()
        if read_only:
            self._db.execute("PRAGMA query_only=ON")
            return
        self._db.execute("PRAGMA journal_mode=WAL")
        # The death of this process loses nothing, that of the machine the last evaluations, which resuming repeats.
        self._db.execute("PRAGMA synchronous=NORMAL")
        if create:
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")  # another process that opens it now waits, and finds the columns
            for column in self._missing():
                self._db.execute(f"ALTER TABLE evaluations ADD COLUMN {_DEFINITIONS[column]}")
            self._db.execute(f"CREATE TABLE IF NOT EXISTS class_vectors({_TABLES['class_vectors']})")

    def _check(self) -> None:
        """Raise _NoLedgerError where the file is no ledger of this version."""
        if self._path.stat().st_size == 0:
            raise _NoLedgerError("it is empty; wait for the search to begin, or bring back an intact copy of it")
        try:
            there = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise _NoLedgerError(f"{error}; bring back an intact copy of it, or start a new search") from None
        # Earlier schemas had fewer tables: a ledger of theirs is to be called so.
        if "meta" in there and (version := self.meta("schema")) != SCHEMA_VERSION:
            raise _NoLedgerError(f"its schema must be {SCHEMA_VERSION}, but is {version!r:.60}; start a new search")
        if missing := sorted(_TABLES.keys() - there - {"class_vectors"}):
            raise _NoLedgerError(
                f"it has no table {missing[0]}, so no search has written it; give the folder of a search"
            )
        if vital := [column for column in self._missing() if column not in _LATER]:
            raise _NoLedgerError(f"its table evaluations lacks {', '.join(vital)}; start a new search")

    def _missing(self) -> list[str]:
        there = self._columns()
        return [column for column in COLUMNS if column not in there]

    def _columns(self) -> set[str]:
        """Of the table evaluations, as it is in the file."""
        return {name for _, name, *_ in self._read("PRAGMA table_info(evaluations)")}

    def _create_tables(self) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")  # who reads the file finds it empty or whole
            for table, columns in _TABLES.items():
                self._db.execute(f"CREATE TABLE {table}({columns})")
            self._db.execute("INSERT INTO meta VALUES ('schema', ?)", (json.dumps(SCHEMA_VERSION),))


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """A ledger's file, its write-ahead log, which holds what is not in it yet, and the index of that."""
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    """To a file that is there: without a mode SQLite would make one that has gone meanwhile."""
    return sqlite3.connect(f"{_uri(path)}?{mode}", uri=True)


def _uri(path: Path) -> str:
    """Of a path with whatever bytes."""
    return path.absolute().as_uri()

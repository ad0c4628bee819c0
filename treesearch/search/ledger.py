"""The ledger: every evaluation of a search in one SQLite file, written by the driver alone.

It is the only source of truth of a run. Each finished evaluation is one transaction; the agent's state is stored in
the transaction that ends its batch.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel
from treesearch.errors import RunError
from treesearch.evaluation.memo import Keys, NewNodes
from treesearch.search.tree_blobs import pack_tree, unpack_tree
from treesearch.tree import Tree

SCHEMA_VERSION = 3
OK, FAILED, CACHED, STOPPED = "ok", "failed", "cached", "stopped"
FROZEN, WARM, JOINT, CONFIRM = "frozen", "warm", "joint", "confirm"


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One evaluation. ``None`` where a column does not apply to the rung or the evaluation failed."""

    id: int
    rung: str  # frozen, warm, joint or confirm
    batch: int
    agent: str  # who proposed the tree; "builder" for builders
    label: str | None  # the builder's label
    tree_hash: str
    status: str  # ok, failed, cached (the tree had been evaluated before) or stopped (not worth finishing)
    reason: str | None = None  # of a failure or a stop
    attempts: int = 1
    cost_weight: float | None = None  # λ of the reward, nats per unit
    reward: float | None = None  # nats
    valid_nll: float | None = None  # nats per token
    subset_nll: float | None = None  # nats per token, after training on the subset of tokens
    test_nll: float | None = None  # nats per token, rung confirm only
    cost: float | None = None  # analytic, binary-node units
    cost_measured_us: float | None = None  # microseconds per example, where cost.kind is measured
    expected_depth: float | None = None
    dot_products: float | None = None
    max_depth: int | None = None
    num_nodes: int | None = None  # internal nodes
    nodes_trained: int | None = None  # of these, the ones that no earlier tree had trained
    staleness: int | None = None  # updates of the agent between proposal and verdict, rung frozen
    learning_rate: float | None = None  # all rungs but frozen
    seed: int | None = None  # the same
    epochs: int | None = None  # trained, the same
    actions: str | None = None  # JSON list of the action names that built the tree
    encoder: str | None = None  # hash of the features, rung frozen
    seconds: float = 0.0  # wall time in the worker
    worker: str = ""

    def action_names(self) -> list[str]:
        """The actions that built the tree; none for a builder's."""
        names: list[str] = [] if self.actions is None else json.loads(self.actions)
        return names

    def units(self, cost_model: CostModel) -> float:
        """What the tree is charged under this cost model."""
        return cost_model.charged(self.cost or 0.0, self.cost_measured_us)

    def validation_reward(self, cost_model: CostModel, weight: float | None = None) -> float:
        """Reward under this λ or the model's, whichever the tree was proposed for; minus infinity without a score."""
        if self.valid_nll is None:
            return -math.inf
        return -self.valid_nll - (cost_model.weight if weight is None else weight) * self.units(cost_model)

    def content(self) -> dict[str, Any]:
        """All that must not depend on when and where the evaluation ran."""
        return {key: value for key, value in asdict(self).items() if key not in ("seconds", "worker", "attempts")}


_COLUMNS = [field.name for field in fields(EvaluationRow)]
_TYPES = {
    "id": "INTEGER PRIMARY KEY",
    "batch": "INTEGER",
    "attempts": "INTEGER",
    "max_depth": "INTEGER",
    "num_nodes": "INTEGER",
    "nodes_trained": "INTEGER",
    "staleness": "INTEGER",
    "seed": "INTEGER",
    "epochs": "INTEGER",
}
_TEXT = {"rung", "agent", "label", "tree_hash", "status", "reason", "actions", "encoder", "worker"}
_TABLES = {
    "evaluations": ", ".join(f"{one} {_TYPES.get(one, 'TEXT' if one in _TEXT else 'REAL')}" for one in _COLUMNS),
    "trees": "hash TEXT PRIMARY KEY, data BLOB NOT NULL",
    "batches": "batch INTEGER PRIMARY KEY, agent_state BLOB, metrics TEXT, position TEXT, finished_at REAL",
    "meta": "key TEXT PRIMARY KEY, value TEXT NOT NULL",
    # What resuming needs:
    "encoders": "hash TEXT PRIMARY KEY, state BLOB NOT NULL",
    "nodes": "memo TEXT, keys BLOB NOT NULL, nll BLOB NOT NULL",
    "outcomes": "key TEXT PRIMARY KEY, outcome BLOB NOT NULL, lasting INTEGER",
}


@dataclass(frozen=True)
class Position:
    """Where the loop stands after a batch."""

    batch: int
    encoder: str  # hash of its features
    spent: int  # evaluations, of the budget
    began: int  # evaluations that the start under this encoder took
    proposed: int  # evaluations since


@dataclass(frozen=True)
class Checkpoint:
    """What a search goes on from."""

    position: Position
    agent_state: bytes


class Ledger:
    """Reads and writes ``search.db``; a context manager.

    Args:
        path: The file; its folder must exist.
        create: Make a new ledger; it must not exist yet. Otherwise it must.
        read_only: Change no content; the folder need not allow writing.

    Raises:
        RunError: The file exists, is missing, is no ledger of this version, or is in a folder that cannot be written.
    """

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        if create and path.exists():
            raise RunError(f"{path} already holds a search; choose another --out")
        if not create and not path.is_file():
            raise RunError(f"no ledger at {path}; give the folder of a search")
        writable = os.access(path.parent, os.W_OK)
        if not (create or read_only or (writable and os.access(path, os.W_OK))):
            raise RunError(f"{path} cannot be written; give its folder write permission, or go on with a copy of it")
        self._resources = ExitStack()
        try:
            place = path if writable or create else self._copied(path)  # SQLite writes even where it only reads
            self._db = self._resources.enter_context(closing(sqlite3.connect(place)))
            self._prepare(create, read_only)
        except BaseException as error:
            self._resources.close()
            if create:
                for file in _files(path):
                    file.unlink(missing_ok=True)
            if not isinstance(error, OSError | sqlite3.Error | RunError):
                raise
            what = "made" if create else "used"
            raise RunError(f"{path} cannot be {what} as a ledger: {error}") from None

    # -- writing -------------------------------------------------------------------------------------------------------

    def record(self, row: EvaluationRow, tree: Tree, nodes: Mapping[str, NewNodes] | None = None) -> None:
        """Store one finished evaluation and its tree, in one transaction; with it what the memos learned, by name."""
        with self._transaction():
            self._insert(row, tree)
            self._insert_nodes(nodes or {})

    def finish_batch(
        self,
        position: Position,
        agent_state: bytes,
        metrics: dict[str, float],
        nodes: Mapping[str, NewNodes] | None = None,
    ) -> None:
        """Store what the search needs to go on after a batch, in place of what it needed to go on before.

        Args:
            position: Where the loop stands.
            agent_state: The agent's.
            metrics: The agent's; they stay.
            nodes: By the name of a memo, what it has learned since the last batch.
        """
        values = asdict(position)
        batch, encoder = values.pop("batch"), position.encoder
        with self._transaction():
            self._db.execute("UPDATE batches SET agent_state = NULL WHERE agent_state IS NOT NULL")
            self._db.execute(
                "INSERT INTO batches(batch, agent_state, metrics, position, finished_at) VALUES (?, ?, ?, ?, ?)",
                (batch, agent_state, json.dumps(metrics), json.dumps(values), time.time()),
            )
            self._db.execute("DELETE FROM outcomes WHERE NOT lasting")
            self._db.execute("DELETE FROM encoders WHERE hash != ?", (encoder,))
            self._insert_nodes(nodes or {})

    def store_encoder(self, encoder: str, state: bytes) -> None:
        """Store the parameters of an encoder under the hash of its features, up to a batch under another one."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO encoders VALUES (?, ?)", (encoder, state))

    def record_outcome(self, key: str, outcome: bytes, *, lasting: bool) -> None:
        """Store what a task gave: up to the end of its batch, or of the run where it is lasting."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?)", (key, outcome, lasting))

    def rewind(self, *, keep: str | None = None) -> None:
        """Drop the rows that a resumed run writes again: of an unfinished batch, and of the rungs above.

        Args:
            keep: Hash of the features under which what succeeded in an unfinished batch stays, numbered without gaps;
                failures and stops never do.
        """
        with self._transaction():
            self._db.execute(
                "DELETE FROM evaluations WHERE rung != ? OR (batch > (SELECT COALESCE(MAX(batch), -1) FROM batches)"
                " AND NOT COALESCE(encoder = ? AND status IN (?, ?), 0))",
                (FROZEN, keep, OK, CACHED),
            )
            ids = [found for (found,) in self._db.execute("SELECT id FROM evaluations ORDER BY id")]
            moves = [(number, row_id) for number, row_id in enumerate(ids, start=1) if number != row_id]
            self._db.executemany("UPDATE evaluations SET id = ? WHERE id = ?", moves)

    def set_meta(self, key: str, value: Any) -> None:
        """Store a JSON-able fact about the run."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta(key, value) VALUES (?, ?)", (key, json.dumps(value)))

    # -- reading -------------------------------------------------------------------------------------------------------

    def meta(self, key: str) -> Any:
        """A fact stored with `set_meta`, None if there is none."""
        found = self._read("SELECT value FROM meta WHERE key = ?", (key,))
        return json.loads(found[0][0]) if found else None

    def rows(self, rung: str | None = None) -> list[EvaluationRow]:
        """Evaluations in order of id, of one rung or of all."""
        condition, values = ("", ()) if rung is None else ("WHERE rung = ?", (rung,))
        query = f"SELECT {', '.join(_COLUMNS)} FROM evaluations {condition} ORDER BY id"
        return [EvaluationRow(**dict(zip(_COLUMNS, row, strict=True))) for row in self._read(query, values)]

    def next_id(self) -> int:
        """One more than the largest id."""
        return int(self._read("SELECT COALESCE(MAX(id), 0) + 1 FROM evaluations")[0][0])

    def tree(self, tree_hash: str) -> Tree:
        """A stored tree.

        Raises:
            RunError: There is none with this hash.
        """
        found = self._read("SELECT data FROM trees WHERE hash = ?", (tree_hash,))
        if not found:
            raise RunError(f"the ledger has no tree {tree_hash}")
        return unpack_tree(found[0][0])

    def last_batch(self) -> Checkpoint | None:
        """What `finish_batch` stored of the last batch, None before the first."""
        found = self._read("SELECT batch, agent_state, position FROM batches ORDER BY batch DESC LIMIT 1")
        if not found:
            return None
        batch, agent_state, position = found[0]
        return Checkpoint(Position(batch=int(batch), **json.loads(position)), bytes(agent_state))

    def encoder(self, encoder: str) -> bytes | None:
        """What `store_encoder` stored under this hash."""
        found = self._read("SELECT state FROM encoders WHERE hash = ?", (encoder,))
        return bytes(found[0][0]) if found else None

    def nodes(self, memo: str) -> Iterator[tuple[Keys, NDArray[np.float64]]]:
        """What a memo had learned up to the last batch, piece by piece: keys [n, 2] and NLL [n]."""
        for keys, nll in self._read("SELECT keys, nll FROM nodes WHERE memo = ? ORDER BY rowid", (memo,)):
            yield np.frombuffer(keys, np.uint64).reshape(-1, 2), np.frombuffer(nll, np.float64)

    def outcome(self, key: str) -> bytes | None:
        """What a task gave, None where it is not known."""
        found = self._read("SELECT outcome FROM outcomes WHERE key = ?", (key,))
        return bytes(found[0][0]) if found else None

    def metrics(self) -> list[tuple[int, dict[str, float]]]:
        """The agent's metrics of every batch."""
        return [(b, json.loads(m)) for b, m in self._read("SELECT batch, metrics FROM batches ORDER BY batch")]

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise RunError(
                f"the ledger could not be read: {error}; try again, or look at a copy of its folder"
            ) from None

    def _copied(self, path: Path) -> Path:
        """The path of a copy, which goes when this is closed."""
        folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory()))
        for file in _files(path):
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        return folder / path.name

    def _prepare(self, create: bool, read_only: bool) -> None:
        # The schema comes first: the mode is a change of the file, which may be somebody else's.
        if not create and self.meta("schema") != SCHEMA_VERSION:
            raise RunError(f"its schema must be {SCHEMA_VERSION}, but is {self.meta('schema')!r}; start a new search")
        if not create and (missing := self._missing_columns()):
            raise RunError(f"its table evaluations lacks {', '.join(missing)}; start a new search")
        if read_only:
            self._db.execute("PRAGMA query_only=ON")
            return
        self._db.execute("PRAGMA journal_mode=WAL")
        # The death of this process loses nothing, that of the machine the last evaluations, which resuming repeats.
        self._db.execute("PRAGMA synchronous=NORMAL")
        if create:
            self._create_tables()

    def _missing_columns(self) -> list[str]:
        there = {name for _, name, *_ in self._db.execute("PRAGMA table_info(evaluations)")}
        return [column for column in _COLUMNS if column not in there]

    def _create_tables(self) -> None:
        with self._db:
            for table, columns in _TABLES.items():
                self._db.execute(f"CREATE TABLE {table}({columns})")
            self._db.execute("INSERT INTO meta VALUES ('schema', ?)", (json.dumps(SCHEMA_VERSION),))

    def _insert(self, row: EvaluationRow, tree: Tree) -> None:
        if self._db.execute("SELECT 1 FROM trees WHERE hash = ?", (tree.hash,)).fetchone() is None:
            self._db.execute("INSERT INTO trees(hash, data) VALUES (?, ?)", (tree.hash, pack_tree(tree)))
        values = asdict(row)
        marks = ", ".join("?" for _ in _COLUMNS)
        self._db.execute(
            f"INSERT INTO evaluations({', '.join(_COLUMNS)}) VALUES ({marks})", [values[c] for c in _COLUMNS]
        )

    def _insert_nodes(self, nodes: Mapping[str, NewNodes]) -> None:
        for memo, new in nodes.items():
            if new.forgot:
                self._db.execute("DELETE FROM nodes WHERE memo = ?", (memo,))
            if new.keys.size:
                self._db.execute(
                    "INSERT INTO nodes(memo, keys, nll) VALUES (?, ?, ?)",
                    (memo, new.keys.tobytes(), new.nll.tobytes()),
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._db:
                yield
        except sqlite3.Error as error:
            raise RunError(
                f"the ledger could not be written: {error}; free space or mend the folder and resume"
            ) from None


def _files(path: Path) -> list[Path]:
    """A ledger's file and its write-ahead log, which holds what is not in it yet."""
    return [path, path.with_name(f"{path.name}-wal")]

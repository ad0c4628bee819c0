"""The ledger: every evaluation of a search in one SQLite file, written by the driver alone.

It is the only source of truth of a run. Each finished evaluation is one transaction; the agent's state is stored in
the transaction that ends its batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import RunError, TreeError
from treesearch.evaluation.memo import Keys, NewNodes
from treesearch.search.evaluation_row import (
    CACHED,
    CONFIRM,
    FAILED,
    FROZEN,
    JOINT,
    OK,
    STOPPED,
    WARM,
    EvaluationRow,
)
from treesearch.search.ledger_entries import (
    FIGURES,
    PLACES,
    POSITION,
    TEXTS,
    TIME,
    WHOLE,
    column_kind,
    one_of,
)
from treesearch.search.ledger_file import COLUMNS, LedgerFile
from treesearch.search.tree_blobs import pack_tree, unpack_tree
from treesearch.tree import Tree

_KINDS = {field.name: column_kind(str(field.type)) for field in fields(EvaluationRow)}
_KINDS |= {"rung": one_of(FROZEN, WARM, JOINT, CONFIRM), "status": one_of(OK, FAILED, CACHED, STOPPED)}
_TEXTS = {"actions": TEXTS, "decisions": PLACES}  # columns of JSON


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


class Ledger(LedgerFile):
    """Reads and writes ``search.db``; a context manager.

    Args:
        path: The file; its folder must exist.
        create: Make a new ledger; it must not exist yet. Otherwise it must.
        read_only: Change no content; the folder need not allow writing.

    Raises:
        RunError: The file exists, is missing, is no ledger of this version, or is in a folder that cannot be written.
    """

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        super().__init__(path, create=create, read_only=read_only)
        # Rungs, None for all, whose rows are known to hold what they must.
        self._sound: set[str | None] = {None} if create else set()

    # -- writing -------------------------------------------------------------------------------------------------------

    def record(self, row: EvaluationRow, tree: Tree, nodes: Mapping[str, NewNodes] | None = None) -> EvaluationRow:
        """Store one finished evaluation and its tree, in one transaction; with it what the memos learned, by name.

        Returns:
            The row as it is stored, with its time.
        """
        row = replace(row, finished_at=time.time()) if row.finished_at is None else row
        with self._transaction():
            self._insert(row, tree)
            self._insert_nodes(nodes or {})
        return row

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

    def store_class_vectors(self, encoder: str, vectors: NDArray[np.floating[Any]]) -> None:
        """Store the class vectors [C, D] of an encoder, in place of an earlier one's; scaled, in half precision."""
        largest = float(np.abs(vectors).max(initial=0.0))
        halves = (vectors if largest == 0 else vectors / largest).astype(np.float16)
        with self._transaction():
            self._db.execute("DELETE FROM class_vectors")
            self._db.execute("INSERT INTO class_vectors VALUES (?, ?, ?)", (encoder, halves.shape[1], halves.tobytes()))

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

    # -- reading -------------------------------------------------------------------------------------------------------

    def classes(self) -> tuple[list[float] | None, list[str] | None]:
        """Training counts [C] and names [C] of the classes, None where they are not kept.

        Raises:
            RunError: They are not what they must be.
        """
        counts, names = self.meta("counts"), self.meta("class_names")
        if counts is not None and names is not None and len(counts) != len(names):
            raise self._damaged(f"its table meta has {len(counts)} counts and {len(names)} class_names")
        return counts, names

    def rows(self, rung: str | None = None) -> list[EvaluationRow]:
        """Evaluations in order of id, of one rung or of all.

        Raises:
            RunError: What a column of one holds is not what it must be.
        """
        condition, values = ("", ()) if rung is None else ("WHERE rung = ?", (rung,))
        there = self._columns()
        columns = ", ".join(column if column in there else f"NULL AS {column}" for column in COLUMNS)
        query = f"SELECT {columns} FROM evaluations {condition} ORDER BY id"
        rows = [EvaluationRow(**dict(zip(COLUMNS, row, strict=True))) for row in self._read(query, values)]
        if not self._sound & {None, rung}:
            for row in rows:
                self._check_row(row)
            self._sound.add(rung)
        return rows

    def next_id(self) -> int:
        """One more than the largest id."""
        return int(self._read("SELECT COALESCE(MAX(id), 0) + 1 FROM evaluations")[0][0])

    def tree(self, tree_hash: str) -> Tree:
        """A stored tree.

        Raises:
            RunError: There is none with this hash, or not all of it.
        """
        found = self._read("SELECT data FROM trees WHERE hash = ?", (tree_hash,))
        if not found:
            raise RunError(f"{self._path} has no tree {tree_hash}; bring back an intact copy of it")
        try:
            tree = unpack_tree(self._bytes(found[0][0], f"tree {tree_hash}"))
        except TreeError as error:
            raise self._damaged(f"tree {tree_hash}: {error}") from None
        if tree.hash != tree_hash:
            raise self._damaged(f"in place of the tree {tree_hash} it has {tree.hash}")
        return tree

    def last_batch(self) -> Checkpoint | None:
        """What `finish_batch` stored of the last batch, None before the first.

        Raises:
            RunError: It is not what it must be.
        """
        found = self._read("SELECT batch, agent_state, position FROM batches ORDER BY batch DESC LIMIT 1")
        if not found:
            return None
        batch, agent_state, position = found[0]
        values = self._parsed(POSITION, position, f"position of batch {batch}")
        state = self._bytes(agent_state, f"agent_state of batch {batch}")
        return Checkpoint(Position(batch=int(batch), **values), state)

    def encoder(self, encoder: str) -> bytes | None:
        """What `store_encoder` stored under this hash."""
        found = self._read("SELECT state FROM encoders WHERE hash = ?", (encoder,))
        return self._bytes(found[0][0], f"the encoder {encoder}") if found else None

    def class_vectors(self) -> NDArray[np.float32] | None:
        """The class vectors [C, D] of the latest encoder up to a factor; None where the ledger has none.

        Raises:
            RunError: They are no matrix.
        """
        if not self._read("SELECT 1 FROM sqlite_master WHERE name = 'class_vectors'"):
            return None
        found = self._read("SELECT width, data FROM class_vectors")
        if not found:
            return None
        width, data = found[0][0], self._bytes(found[0][1], "what it has of class_vectors")
        if not WHOLE.holds(width) or width < 1 or len(data) % (2 * width):
            raise self._damaged(
                f"class_vectors must be rows of 2 x width bytes, but has {len(data)} and width {width!r:.60}"
            )
        return np.frombuffer(data, np.float16).reshape(-1, width).astype(np.float32)

    def nodes(self, memo: str) -> Iterator[tuple[Keys, NDArray[np.float64]]]:
        """What a memo had learned up to the last batch, piece by piece: keys [n, 2] and NLL [n].

        Raises:
            RunError: A piece is cut off.
        """
        for keys, nll in self._read("SELECT keys, nll FROM nodes WHERE memo = ? ORDER BY rowid", (memo,)):
            what = f"nodes of memo {memo}"
            if len(self._bytes(keys, what)) != 2 * len(self._bytes(nll, what)) or len(nll) % 8:
                raise self._damaged(
                    f"{what} must have 16 bytes of keys for 8 of nll, but has {len(keys)} for {len(nll)}"
                )
            yield np.frombuffer(keys, np.uint64).reshape(-1, 2), np.frombuffer(nll, np.float64)

    def outcome(self, key: str) -> bytes | None:
        """What a task gave, None where it is not known."""
        found = self._read("SELECT outcome FROM outcomes WHERE key = ?", (key,))
        return self._bytes(found[0][0], f"outcome {key}") if found else None

    def metrics(self) -> list[tuple[int, dict[str, float]]]:
        """The agent's metrics of every batch.

        Raises:
            RunError: They are not what they must be.
        """
        found = self._read("SELECT batch, metrics FROM batches ORDER BY batch")
        return [(batch, self._parsed(FIGURES, text, f"metrics of batch {batch}")) for batch, text in found]

    def batch_times(self) -> dict[int, float]:
        """Unix time when each batch ended.

        Raises:
            RunError: One is no time.
        """
        found = self._read("SELECT batch, finished_at FROM batches ORDER BY batch")
        for batch, time_of_it in found:
            if not TIME.holds(time_of_it):
                raise self._unfit(f"finished_at of batch {batch}", TIME.words, time_of_it)
        return dict(found)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _check_row(self, row: EvaluationRow) -> None:
        for column, kind in _KINDS.items():
            if not kind.holds(value := getattr(row, column)):
                raise self._unfit(f"{column} of evaluation {row.id}", kind.words, value)
        for column, kind in _TEXTS.items():
            if (text := getattr(row, column)) is not None:
                self._parsed(kind, text, f"{column} of evaluation {row.id}")

    def _insert(self, row: EvaluationRow, tree: Tree) -> None:
        if self._db.execute("SELECT 1 FROM trees WHERE hash = ?", (tree.hash,)).fetchone() is None:
            self._db.execute("INSERT INTO trees(hash, data) VALUES (?, ?)", (tree.hash, pack_tree(tree)))
        values = asdict(row)
        marks = ", ".join("?" for _ in COLUMNS)
        self._db.execute(
            f"INSERT INTO evaluations({', '.join(COLUMNS)}) VALUES ({marks})", [values[c] for c in COLUMNS]
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

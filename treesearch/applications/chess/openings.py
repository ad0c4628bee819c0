"""Tables of openings as examples: lines with a class each, split so that no position is in two splits.

Shapes: **F** features, **C** classes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treesearch.applications.chess.board import Position, positions_after
from treesearch.applications.chess.rules import class_name
from treesearch.errors import DataError
from treesearch.taxonomy import ROOT, Taxonomy, taxonomy_from_edges
from treesearch.text_files import read_lines

COLUMNS = ["eco", "name", "pgn"]
VOLUMES = "ABCDE"
OTHER = "other openings"
MIN_LINES = 10  # of a family that is a class of its own
FIRST_PLY = 4  # of the prefixes that are learned from: earlier ones belong to many families
SHARES = (0.6, 0.2, 0.2)  # of the lines: to learn from, to choose settings, of the table


@dataclass(frozen=True)
class Line:
    """A named line of moves with the keys and features of its positions."""

    volume: str
    family: str  # the name up to the first colon or comma
    name: str
    moves: str
    keys: tuple[str, ...]  # of the position after each move
    features: NDArray[np.float32]  # [moves, F]


@dataclass(frozen=True, eq=False)
class Positions:
    """Examples of a split."""

    x: NDArray[np.float32]  # [B, F]
    y: NDArray[np.int64]  # [B] class
    lines: tuple[Line, ...]  # [B] that each is from

    def __len__(self) -> int:
        return int(self.y.size)


@dataclass(frozen=True)
class Split:
    """Examples to learn from, to choose by and to report; a position is in one of them only."""

    train: Positions
    valid: Positions
    test: Positions


@dataclass(frozen=True, eq=False)
class Openings:
    """Lines, their classes and the taxonomy over these: volumes, then families."""

    lines: tuple[Line, ...]
    labels: NDArray[np.int64]  # [lines]
    taxonomy: Taxonomy
    num_pooled: int  # lines of small families, which are pooled in a class of each volume
    num_dropped: int  # lines of volumes whose pool is too small itself

    @classmethod
    def load(cls, folder: str | Path, *, min_lines: int = MIN_LINES) -> Openings:
        """Read ``a.tsv`` to ``e.tsv``, columns ``eco``, ``name``, ``pgn``, and play all their moves.

        A class is a family within a volume: a family that occurs in two volumes has two classes. Families of fewer than
        ``min_lines`` lines are pooled as ``other openings`` of their volume, and left out where that is too small too.

        Args:
            folder: As lichess-org/chess-openings hands it out; a file that is missing is a volume without lines.
            min_lines: Of a class.

        Raises:
            DataError: There is no table, or one cannot be read; a move cannot be read or is not legal; fewer than two
                volumes have a class.
            MissingExtraError: The package ``chess`` is not installed.
        """
        paths = [path for volume in VOLUMES if (path := Path(folder) / f"{volume.lower()}.tsv").exists()]
        if not paths:
            raise DataError(f"folder {str(folder)!r} must hold tables a.tsv to e.tsv, but holds none; check the path")
        known: dict[str, Position] = {}
        return cls.of([line for path in paths for line in read_table(path, known)], min_lines=min_lines)

    @classmethod
    def of(cls, lines: Sequence[Line], *, min_lines: int = MIN_LINES) -> Openings:
        """Classes of lines; see `load`."""
        size = Counter((line.volume, line.family) for line in lines)
        families = [line.family if size[line.volume, line.family] >= min_lines else OTHER for line in lines]
        pooled = Counter((line.volume, family) for line, family in zip(lines, families, strict=True))
        kept = [place for place, line in enumerate(lines) if pooled[line.volume, families[place]] >= min_lines]
        names = [class_name(lines[place].volume, families[place]) for place in kept]
        classes = sorted(set(names))
        volumes = sorted({name[0] for name in classes})
        if len(volumes) < 2:
            raise DataError(
                f"two volumes or more must have families of {min_lines} lines, but {len(volumes)} have; add tables"
            )
        edges = [(volume, ROOT) for volume in volumes] + [(name, name[0]) for name in classes]
        number = {name: place for place, name in enumerate(classes)}
        return cls(
            tuple(lines[place] for place in kept),
            np.array([number[name] for name in names], np.int64),
            taxonomy_from_edges(edges, classes=classes),
            num_pooled=sum(families[place] == OTHER for place in kept),
            num_dropped=len(lines) - len(kept),
        )

    @cached_property
    def volume_of_class(self) -> NDArray[np.int32]:
        """The node of the volume of each class, [C]."""
        return self.taxonomy.ancestors(1)

    def split(self, seed: int) -> Split:
        """Divide the lines at random.

        Lines that end in the same position stay together. Final positions are the examples of ``valid`` and ``test``.
        ``train`` has those of its lines and, to learn from, the positions on the way to them from ply 4 on, without
        those that end a line of another split, and without those that are on the way to lines of several classes; a
        position that ends a line has that line's class. Each position is there once.

        Args:
            seed: Of the division.
        """
        ends = sorted({line.keys[-1] for line in self.lines})
        np.random.default_rng(seed).shuffle(ends)
        bounds = np.cumsum(np.array(SHARES) * len(ends)).round().astype(int)
        part_of = {key: int(np.searchsorted(bounds, place, side="right")) for place, key in enumerate(ends)}
        parts: list[dict[str, tuple[int, int]]] = [{}, {}, {}]  # key: (place of the line, ply)
        for place, line in enumerate(self.lines):
            parts[part_of[line.keys[-1]]].setdefault(line.keys[-1], (place, len(line.keys) - 1))
        learned = dict(parts[0])
        several: set[str] = set()
        for place, _ in parts[0].values():
            line = self.lines[place]
            for ply, key in enumerate(line.keys[FIRST_PLY - 1 : -1], start=FIRST_PLY - 1):
                if key in part_of:
                    continue
                first, _ = learned.setdefault(key, (place, ply))
                if self.labels[first] != self.labels[place]:
                    several.add(key)
        parts[0] = {key: found for key, found in learned.items() if key not in several}
        return Split(*(self._positions(part.values()) for part in parts))

    def _positions(self, places: Iterable[tuple[int, int]]) -> Positions:
        found = list(places)
        lines = tuple(self.lines[place] for place, _ in found)
        x = np.stack([line.features[ply] for line, (_, ply) in zip(lines, found, strict=True)])
        return Positions(x, self.labels[[place for place, _ in found]], lines)


def read_table(path: Path, known: dict[str, Position]) -> list[Line]:
    """The lines of one table.

    Args:
        path: The table.
        known: As in `positions_after`.

    Raises:
        DataError: It cannot be read or lacks a column, or moves cannot be played; see `positions_after`.
    """
    rows = read_lines(path, f"table of openings {str(path)!r}", DataError)
    head = rows[0][1].split("\t") if rows else []
    if head != COLUMNS:
        raise DataError(f"table {str(path)!r} must have the columns {', '.join(COLUMNS)}, but its head is {head!r:.80}")
    lines = []
    for number, row in rows[1:]:
        if not row.strip():
            continue
        where = f"line {number} of {str(path)!r}"
        fields = row.split("\t")
        if len(fields) != len(COLUMNS) or fields[0][:1] not in VOLUMES or not fields[0]:
            raise DataError(f"{where} must be 'code TAB name TAB moves' with a code A00 to E99, but is {row!r:.60}")
        positions = positions_after(fields[2], where, known)
        family = re.split("[:,]", fields[1])[0].strip()
        keys = tuple(position.key for position in positions)
        x = np.stack([position.features for position in positions])
        lines.append(Line(fields[0][0], family, fields[1], fields[2], keys, x))
    return lines

"""Positions by python-chess, and what an expert sees in them: named numbers in named groups, the factors.

Shapes: **F** features.

Every feature is 0 in the starting position, and most are 1 where something stands on the board: what has been played
speaks, and the starting position is the natural baseline of attributions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from treesearch.decisions.expert import FactorGroups
from treesearch.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import chess

SIDES = ("White", "Black")
OTHER = {"White": "Black", "Black": "White"}
CENTRE_FILES = "ed"
WING_PAWNS = "wing pawns"
PAWNS = {file: f"{file}-pawn" for file in "edcf"}
PAWN_SQUARES = {name: tuple(f"{file}{rank}" for rank in (3, 4, 5)) for file, name in PAWNS.items()} | {
    WING_PAWNS: ("a3", "a4", "b4", "g4", "h3", "h4")
}  # as White sees them, as all squares here
FIANCHETTOES = {"king's fianchetto": ("g3", ("g2",)), "queen's fianchetto": ("b3", ("b2", "a3"))}  # pawn, bishop
PIECES = {  # letter; squares that are features; squares that are not, at home or counted elsewhere
    "knights": ("N", ("f3", "c3", "d2", "e2"), ("b1", "g1")),
    "bishops": ("B", ("c4", "b5", "d3", "e2", "d2", "e3", "f4", "g5"), ("c1", "f1", "g2", "b2", "a3")),
}
MOVE_NUMBER = re.compile(r"^\d+\.+")
ANNOTATIONS = re.compile(r"\{[^}]*\}|\$\d+|[!?]+")  # comments, numbered glyphs, and marks behind a move
RESULTS = {"*", "1-0", "0-1", "1/2-1/2"}


def chess_package() -> Any:
    """The package ``chess`` (python-chess).

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import chess
    except ImportError:
        raise MissingExtraError("chess", "chess") from None
    return chess


class Position(NamedTuple):
    """A position: the board, what it is to a player, and its features."""

    board: chess.Board
    key: str  # without counters of moves: positions of the same key are the same
    features: NDArray[np.float32]  # [F], named by `feature_names`; 0 in the starting position


def positions_after(moves: str, where: str, known: dict[str, Position] | None = None) -> list[Position]:
    """The positions after each move of a game.

    Args:
        moves: Standard algebraic notation from the starting position, with or without numbers: ``1. e4 e5 2. Nf3``;
            comments in braces and marks such as ``!?`` are skipped, variations are not.
        where: Where they stand, for messages: ``line 3 of 'a.tsv'``.
        known: Positions by the moves that lead there, to which new ones are added: openings share their beginnings.

    Raises:
        DataError: There is no move, or one cannot be read or is not legal.
        MissingExtraError: The package ``chess`` is not installed.
    """
    chess = chess_package()
    known = {} if known is None else known
    board, played = chess.Board(), ""
    positions = []
    for token in ANNOTATIONS.sub(" ", moves).split():
        san = MOVE_NUMBER.sub("", token)
        if not san or san in RESULTS:
            continue
        played += f" {san}"
        if played not in known:
            board = board.copy(stack=False)
            _push(chess, board, san, where)
            known[played] = Position(board, board.epd(), _features_of(chess, board))
        positions.append(known[played])
        board = positions[-1].board
    if not positions:
        raise DataError(f"there must be at least one move, but {where} has none; write such as '1. e4 e5'")
    return positions


def _push(chess: Any, board: chess.Board, san: str, where: str) -> None:
    place = f"move {board.fullmove_number}{'.' if board.turn else '...'} {san!r:.20}, {where}"
    try:
        board.push_san(san)
    except chess.IllegalMoveError:
        raise DataError(f"moves must be legal, but {place}, is not; correct the line") from None
    except chess.AmbiguousMoveError:
        raise DataError(f"moves must be unambiguous, but {place}, fits several; name the piece's file") from None
    except ValueError:
        raise DataError(f"moves must be in algebraic notation such as Nf3, but {place}, is not") from None


def _features_of(chess: Any, board: chess.Board) -> NDArray[np.float32]:
    seen = {"White": _View(chess, board), "Black": _View(chess, board.mirror())}
    return np.array([one.read(seen[one.side], seen[OTHER[one.side]]) for one in FEATURES], np.float32)


def feature_names() -> tuple[str, ...]:
    """The names of the features, [F], such as ``White pawn e4``."""
    return tuple(one.name for one in FEATURES)


def factor_groups() -> FactorGroups:
    """The factors and their features."""
    members: dict[str, list[int]] = {}
    for place, feature in enumerate(FEATURES):
        members.setdefault(feature.factor, []).append(place)
    return FactorGroups.of(members, num_features=len(FEATURES))


class _View:
    """A board as one side sees it, its own pieces below: squares of its pawns and pieces by name."""

    def __init__(self, package: Any, board: chess.Board) -> None:
        self._package, self.board = package, board
        kinds = {"P": package.PAWN, "N": package.KNIGHT, "B": package.BISHOP, "R": package.ROOK, "Q": package.QUEEN}
        self.pieces = {
            kind: {package.square_name(square) for square in board.pieces(number, package.WHITE)}
            for kind, number in kinds.items()
        }

    @property
    def king(self) -> str:
        return str(self._package.square_name(self.board.king(self._package.WHITE)))

    @property
    def castled(self) -> str:
        """``short``, ``long`` or nothing: the king has left its square and the rook stands beside it."""
        rooks = self.pieces["R"]
        if self.king in ("g1", "h1") and rooks & {"f1", "e1"} and "h1" not in rooks:
            return "short"
        return "long" if self.king in ("c1", "b1") and rooks & {"d1", "e1"} and "a1" not in rooks else ""

    @property
    def may_castle(self) -> bool:
        return bool(self.board.has_castling_rights(self._package.WHITE))

    def num(self, kinds: str) -> int:
        return sum(len(self.pieces[kind]) for kind in kinds)

    def pawn_gone(self, file: str) -> bool:
        return not any(square[0] == file for square in self.pieces["P"])


Reader = Callable[[_View, _View], float]  # of one side's view and the other's


class Feature(NamedTuple):
    """A number of a position, and the factor it belongs to."""

    factor: str
    name: str
    side: str  # whose view comes first
    read: Reader


def _turned(square: str) -> str:
    return f"{square[0]}{9 - int(square[1])}"


def _features() -> list[Feature]:
    found: list[Feature] = []
    for side in SIDES:

        def add(factor: str, name: str, read: Reader, side: str = side) -> None:
            found.append(Feature(factor, f"{side} {name}", side, read))

        def shown(square: str, side: str = side) -> str:
            return square if side == "White" else _turned(square)  # names are of the real board

        for file, factor in PAWNS.items():
            for square in PAWN_SQUARES[factor]:
                add(f"{side} {factor}", f"pawn {shown(square)}", _count("P", {square}))
            add(f"{side} {factor}", f"{factor} off its file", _pawn_gone(file))
        for square in PAWN_SQUARES[WING_PAWNS]:
            add(f"{side} {WING_PAWNS}", f"pawn {shown(square)}", _count("P", {square}))
        for factor, (pawn, bishops) in FIANCHETTOES.items():
            add(f"{side} {factor}", f"pawn {shown(pawn)}", _count("P", {pawn}))
            for square in bishops:
                add(f"{side} {factor}", f"bishop {shown(square)}", _count("B", {square}))
        for factor, (letter, squares, unlisted) in PIECES.items():
            for square in squares:
                add(f"{side} {factor}", f"{factor[:-1]} {shown(square)}", _count(letter, {square}))
            add(f"{side} {factor}", f"{factor} elsewhere", _count_outside(letter, {*squares, *unlisted}))
        add("queens", "queen out", _queen_out)
        add("castling", "castled short", lambda own, _: float(own.castled == "short"))
        add("castling", "castled long", lambda own, _: float(own.castled == "long"))
        add("castling", "may not castle", lambda own, _: float(not own.may_castle and not own.castled))
        add("material", "pawns down", lambda own, other: float(max(0, other.num("P") - own.num("P"))))
        add("material", "pieces off", lambda own, _: float(max(0, 4 - own.num("NB"))))
    both: tuple[tuple[str, str, Reader], ...] = (
        ("queens", "queens off", lambda own, other: float(own.num("Q") + other.num("Q") == 0)),
        ("centre", "e-file locked", _locked("e")),
        ("centre", "d-file locked", _locked("d")),
        ("centre", "pawns in tension", _tension),
        ("centre", "e-file open", _open("e")),
        ("centre", "d-file open", _open("d")),
        ("tempo", "Black to move", lambda own, _: float(not own.board.turn)),
    )
    return found + [Feature(factor, name, "White", read) for factor, name, read in both]


def _count(letter: str, squares: set[str]) -> Reader:
    return lambda own, _: float(len(own.pieces[letter] & squares))


def _count_outside(letter: str, squares: set[str]) -> Reader:
    return lambda own, _: float(len(own.pieces[letter] - squares))


def _queen_out(own: _View, _: _View) -> float:
    return float(bool(own.pieces["Q"] - {"d1"}))


def _pawn_gone(file: str) -> Reader:
    return lambda own, _: float(own.pawn_gone(file))


def _open(file: str) -> Reader:
    return lambda own, other: float(own.pawn_gone(file) and other.pawn_gone(file))


def _locked(file: str) -> Reader:
    """Pawns of both sides that stand head to head in the middle of a file."""
    heads = [(f"{file}{rank}", _turned(f"{file}{rank + 1}")) for rank in (3, 4, 5)]
    return lambda own, other: float(any(a in own.pieces["P"] and b in other.pieces["P"] for a, b in heads))


def _tension(own: _View, other: _View) -> float:
    """Pairs of pawns that may take each other, one of them on the d- or e-file."""
    total = 0
    for square in own.pieces["P"]:
        for file in (chr(ord(square[0]) - 1), chr(ord(square[0]) + 1)):
            central = square[0] in CENTRE_FILES or file in CENTRE_FILES
            total += central and _turned(f"{file}{int(square[1]) + 1}") in other.pieces["P"]
    return float(total)


FEATURES = tuple(_features())

"""`treesearch apply chess` on a handful of openings, and what the features say of known positions."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import treesearch
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import ConfigError, DataError, MissingExtraError

chess = pytest.importorskip("chess", reason="the extra 'chess' is not installed")

from treesearch.applications.chess.board import (  # noqa: E402
    FEATURES,
    Position,
    factor_groups,
    feature_names,
    positions_after,
)
from treesearch.applications.chess.openings import Line, Openings  # noqa: E402
from treesearch.applications.chess.reasons import eco_rules, reasons_of  # noqa: E402
from treesearch.applications.chess.records import position_record, record_lines  # noqa: E402
from treesearch.applications.chess.rules import FAMILY_RULES, VOLUME_RULES, expert_rules  # noqa: E402
from treesearch.applications.chess.study import compare_models, flat_tree  # noqa: E402
from treesearch.applications.chess.training import TrainingSettings, train_layer  # noqa: E402
from treesearch.evaluation.threads import one_thread  # noqa: E402
from treesearch.tree import Tree  # noqa: E402

STARTS = {
    "a": ("A10", "English Opening", "c4", ("e5", "c5", "Nf6")),
    "b": ("B20", "Sicilian Defense", "e4 c5", ("Nf3", "Nc3", "d4")),
    "c": ("C00", "French Defense", "e4 e6", ("d4", "Nf3", "d3")),
}
MORE = ("C60", "Ruy Lopez", "e4 e5 Nf3 Nc6 Bb5", ("a6", "Nf6", "d6"))
REPLIES = {"c4": ("Nc3", "g3", "a3", "h3"), "e4": ("Nc6", "d6", "a6", "h6")}
SETTINGS = TrainingSettings(epochs=10, batch_size=16, learning_rates=(0.1,), weight_decays=(0.0,))


def features_after(moves: str) -> dict[str, float]:
    """What is not 0 after some moves."""
    x = positions_after(moves, "a test")[-1].features
    return {name: float(value) for name, value in zip(feature_names(), x, strict=True) if value}


def write_tables(folder: Path) -> str:
    """Lines of four families in three volumes."""
    rows: dict[str, list[str]] = {volume: ["eco\tname\tpgn"] for volume in STARTS}
    for volume, (code, family, start, seconds) in [*STARTS.items(), ("c", MORE)]:
        for second in seconds:
            board = positions_after(f"{start} {second}", "a test")[-1].board
            for move in list(board.legal_moves)[:6]:
                rows[volume].append(f"{code}\t{family}: {second} {move}\t{start} {second} {board.san(move)}")
    for volume, lines in rows.items():
        (folder / f"{volume}.tsv").write_text("\n".join(lines) + "\n")
    return str(folder)


def test_the_starting_position_has_no_feature() -> None:
    board = chess.Board()
    back = "Nf3 Nf6 Ng1 Ng8"
    assert features_after(back) == {}
    assert board.epd() == positions_after(back, "a test")[-1].key


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ("1. e4", "White pawn e4, Black to move"),
        ("1. e4 e6 2. d4 d5", "White pawn e4, Black pawn e6, White pawn d4, Black pawn d5, d-file locked, tension"),
        ("1.e4 c5 2.Nf3", "White pawn e4, Black pawn c5, White knight f3, Black to move"),
        (
            "e4 e5 f4 exf4",
            "White pawn e4, White f-pawn off its file, Black e-pawn off its file, Black pawn f4, White pawns down",
        ),
        (
            "d4 Nf6 c4 g6 g3 Bg7",
            "White pawn d4, White pawn c4, White pawn g3, Black knight f6, Black pawn g6, Black bishop g7",
        ),
        ("1. e4 e5 2. Ke2", "White pawn e4, Black pawn e5, White may not castle, e-file locked, Black to move"),
        (
            "e4 e6 e5 d5 exd6",
            "White e-pawn off its file, Black pawn e6, Black d-pawn off its file, Black pawns down, tension,"
            " Black to move",
        ),
    ],
)
def test_features_of_known_positions(moves: str, expected: str) -> None:
    found = features_after(moves)
    assert set(found) == set(expected.replace("tension", "pawns in tension").split(", "))
    assert all(value == 1 for value in found.values())


def test_castling_trades_and_the_centre() -> None:
    italian = features_after("e4 e5 Nf3 Nc6 Bc4 Bc5 O-O Nf6")
    assert italian["White castled short"] == 1
    assert "White may not castle" not in italian
    assert "e-file locked" in italian
    assert "d-file locked" not in italian
    open_sicilian = features_after("e4 c5 Nf3 d6 d4 cxd4 Nxd4 Nf6 Nc3 g6 Be3 Bg7 f3 O-O Qd2 Nc6 O-O-O")
    assert {"White castled long", "Black castled short", "White d-pawn off its file"} <= set(open_sicilian)
    assert {"Black c-pawn off its file", "White knights elsewhere", "White queen out"} <= set(open_sicilian)
    trade = features_after("e4 e5 Nf3 Nc6 Bb5 a6 Bxc6 dxc6 Nxe5 Qd4")
    assert trade["White pieces off"] == trade["Black pieces off"] == 1
    assert trade["Black pawns down"] == 1
    assert features_after("e4 d5")["pawns in tension"] == 1
    assert features_after("e4 d5 exd5 Qxd5 d4 e5 dxe5 Qxd1 Kxd1")["queens off"] == 1


def test_black_is_white_turned_over() -> None:
    """Colours changed, one side's features are the other's: nothing is read from the wrong side."""
    names, place = feature_names(), {name: at for at, name in enumerate(feature_names())}
    board = positions_after("e4 c5 Nf3 d6 Bb5 Bd7 Bxd7 Qxd7 O-O Nc6 c3 g6 b4", "a test")[-1].board
    from treesearch.applications.chess.board import _features_of

    own, turned = _features_of(chess, board), _features_of(chess, board.mirror())
    assert own.sum() > 10
    for name in names:
        if name.startswith(("White", "Black")) and name != "Black to move":
            side, rest = name.split(" ", 1)
            words = rest.split(" ")
            if words[-1][-1].isdigit():
                words[-1] = f"{words[-1][0]}{9 - int(words[-1][1])}"
            other = f"{'Black' if side == 'White' else 'White'} {' '.join(words)}"
            assert own[place[name]] == turned[place[other]], name


def test_every_feature_has_one_factor_and_rules_know_them() -> None:
    groups = factor_groups()
    assert len(set(feature_names())) == len(FEATURES) == groups.num_features
    assert (groups.factor >= 0).all()
    assert {rule.factor for rule in expert_rules()} <= set(groups.names)
    assert len({row[:2] for row in VOLUME_RULES}) == len(VOLUME_RULES)
    assert len({row[:3] for row in FAMILY_RULES}) == len(FAMILY_RULES)


def test_positions_are_shared() -> None:
    known: dict[str, Position] = {}
    first = positions_after("1. e4 e5 2. Nf3", "a", known)
    second = positions_after("e4 e5 Nf3 Nc6 *", "b", known)
    assert second[2] is first[2]
    assert len(known) == 4


def test_no_position_of_test_is_learned_from(tmp_path: Path) -> None:
    openings = Openings.load(write_tables(tmp_path), min_lines=5)
    assert openings.taxonomy.class_names == (
        "A: English Opening",
        "B: Sicilian Defense",
        "C: French Defense",
        "C: Ruy Lopez",
    )
    label = {line.keys[-1]: int(own) for line, own in zip(openings.lines, openings.labels, strict=True)}
    x_of = {key: line.features[at].tobytes() for line in openings.lines for at, key in enumerate(line.keys)}
    for seed in range(3):
        split = openings.split(seed)
        parts = [{line.keys[-1] for line in part.lines} for part in (split.valid, split.test)]
        assert not parts[0] & parts[1]
        assert len(split.test) == len(parts[1])
        held_out = parts[0] | parts[1]
        for line in split.train.lines:  # lines that are learned from end elsewhere
            assert line.keys[-1] not in held_out
        assert len(held_out) + len({line.keys[-1] for line in split.train.lines}) <= len(label)
        finals = {x_of[key] for key in held_out}
        on_the_way = {key for line in split.train.lines for key in line.keys}
        only_held_out = finals - {x_of[key] for key in on_the_way - held_out}
        assert not only_held_out & {row.tobytes() for row in split.train.x}
        for part in (split.valid, split.test):
            assert [label[line.keys[-1]] for line in part.lines] == part.y.tolist()
    again = openings.split(2)
    assert np.array_equal(again.train.x, split.train.x)


def test_prefixes_of_several_classes_are_left_out() -> None:
    def line(name: str, keys: str) -> Line:
        x = np.arange(len(keys), dtype=np.float32)[:, None] + ord(keys[-1])
        return Line(name[0], name, name, keys, tuple(keys), x)

    lines = [line("Aa", "wxyzpq"), line("Bb", "wxyzpr"), line("Aa", "wxyzst"), line("Bb", "wxyzuv")]
    openings = Openings.of(lines, min_lines=1)
    for seed in range(6):
        split = openings.split(seed)
        learned = {one.keys[-1]: one for one in split.train.lines}
        classes = {one.family for one in learned.values()}
        shared = {"q", "r"} <= set(learned)
        num_prefixes = sum(len({"z", "p"} & set(one.keys)) > 0 for one in split.train.lines) - len(learned)
        if len(classes) == 2:  # z is on the way to both classes
            expected = {key for one in learned.values() for key in one.keys[4:-1]} - ({"p"} if shared else set())
            assert num_prefixes == len(expected)


def test_small_families_are_pooled() -> None:
    def line(volume: str, family: str, key: str) -> Line:
        return Line(volume, family, family, key, (key,), np.zeros((1, 2), np.float32))

    lines = [line("A", "x", f"x{n}") for n in range(4)] + [line("A", "y", "y0"), line("A", "z", "z0")]
    lines += [line("B", "x", f"b{n}") for n in range(2)] + [line("B", "w", "w0")]
    openings = Openings.of(lines, min_lines=2)
    assert openings.taxonomy.class_names == ("A: other openings", "A: x", "B: x")
    assert (openings.num_pooled, openings.num_dropped) == (2, 1)
    with pytest.raises(DataError, match="two volumes or more must have families of 9 lines, but 0 have"):
        Openings.of(lines, min_lines=9)


def test_the_models_are_audited_at_the_same_decisions(tmp_path: Path) -> None:
    openings = Openings.load(write_tables(tmp_path), min_lines=5)
    book = eco_rules(openings.taxonomy)
    split = openings.split(0)
    with one_thread():
        for tree in (book.tree, flat_tree(4), Tree.from_nested([[0, 2], [1, 3]])):
            layer = train_layer(tree, split, settings=SETTINGS, learning_rate=0.1, weight_decay=0, seed=0).layer
            reasons = reasons_of(layer, split.test.x, book)
            # Complete: contributions and what the starting position gives are the logit of the child against its rival.
            own, start = (
                NodeProbs.of_log_prob(book.tree, layer.log_prob(torch.from_numpy(x))).log_prob.numpy()
                for x in (split.test.x, np.zeros_like(split.test.x))
            )
            taken_BL, rival_BL = reasons.audit.taken, reasons.audit.alternative[..., 0]
            for row, level in zip(*np.nonzero(taken_BL >= 0), strict=True):
                taken, rival = taken_BL[row, level], rival_BL[row, level]
                rise = (own - start)[row, taken] - (own - start)[row, rival]
                assert reasons.attribution[row, level].sum() == pytest.approx(rise, abs=2e-3)
            assert np.array_equal(reasons.audit.classes, layer.predict(torch.from_numpy(split.test.x)).numpy())
            assert (reasons.audit.classes == split.test.y).mean() > 0.6
            record = position_record(reasons, 0, book, moves="some")
            assert record["decisions"][-1]["taken"] == record["predicted"]
            assert any("the expert" in line for line in record_lines(record))


@pytest.mark.slow
def test_rows_of_seeds(tmp_path: Path) -> None:
    openings = Openings.load(write_tables(tmp_path), min_lines=5)
    trees = [Tree.from_nested([[0, 2], [1, 3]])] * 2
    with one_thread():
        rows = compare_models(openings, num_seeds=2, trees=trees, settings=SETTINGS)
    assert [row["name"] for row in rows] == ["hs, ECO tree", "hs, searched", "flat"]
    for row in rows:
        assert len(row["runs"]) == 2
        for run in row["runs"]:
            assert 0 <= min(run["driver_path"], run["direction_path"]) <= 1
            assert set(run["rates"]["driver_decision"]["chance"]) == {"uniform", "in play", "shuffled"}
            assert run["volume_accuracy"] >= run["family_accuracy"]
        assert ("against_flat" in row) == (row["name"] != "flat")
        for example in row["examples"]:
            wrong = [one for one in example["decisions"] if False in (one["driver_agrees"], one["direction_agrees"])]
            assert wrong
    unknown = [replace(line, volume="XYZ"["ABC".index(line.volume)]) for line in openings.lines]
    with one_thread(), pytest.raises(DataError, match="must have an expert's rule that is in play, but none has"):
        compare_models(Openings.of(unknown, min_lines=5), settings=replace(SETTINGS, epochs=1))
    for changes, error, message in (
        ({"num_seeds": 0}, ConfigError, "seeds must be >= 1"),
        ({"num_seeds": 3, "trees": trees}, ConfigError, "one searched tree for each of 3 seeds, but got 2"),
        ({"trees": [flat_tree(5)]}, DataError, "over the 4 classes of these openings, but is over 5"),
    ):
        with pytest.raises(error, match=message):
            compare_models(openings, **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    tables = write_tables(tmp_path)
    options = ["--openings", tables, "--min-lines", "5", "--epochs", "2"]
    done = treesearch("apply", "chess", *options)
    assert done.code == 0, done.err
    assert "4 families" in done.err
    assert max(map(len, done.out.splitlines())) <= 100
    assert [line.strip().split("  ")[0] for line in done.out.splitlines() if line.strip()][-2:] == [
        "hs, ECO tree",
        "flat",
    ]
    done = treesearch("apply", "chess", *options, "--moves", "1. e4 e6 2. d4 d5", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["decisions"][0]["node"] == "ROOT"
    assert record["decisions"][0]["expert"]
    done = treesearch("apply", "chess", *options, "--export", str(tmp_path / "out"))
    assert done.code == 0, done.err
    data = np.load(tmp_path / "out" / "seed-0" / "train.npz")
    assert data["x"].shape == (len(data["y"]), len(FEATURES))
    assert (tmp_path / "out" / "seed-0" / "names.txt").read_text().splitlines()[0] == "A: English Opening"


@pytest.mark.slow
def test_bad_input(tmp_path: Path) -> None:
    tables = Path(write_tables(tmp_path))
    for moves, message in (
        ("1. e4 e5 2. Ke3", "moves must be legal, but move 2. 'Ke3', --moves, is not"),
        ("1. e4 x9", "moves must be in algebraic notation such as Nf3, but move 1... 'x9', --moves, is not"),
        ("Nc3 a6 e3 b6 Ne2", "must be unambiguous, but move 3. 'Ne2'"),
        ("1.", "there must be at least one move, but --moves has none"),
    ):
        done = treesearch("apply", "chess", "--openings", str(tables), "--moves", moves)
        assert done.code == 2
        assert message in done.err
        assert "Traceback" not in done.err
        assert len(done.err.strip().splitlines()) == 1
    done = treesearch("apply", "chess", "--openings", str(tables), "--moves", "1. e4", "--export", str(tables))
    assert done.code == 2
    assert "but --moves and --export were given; give one" in done.err
    (tmp_path / "file").write_text("")
    done = treesearch("apply", "chess", "--openings", str(tables), "--export", str(tmp_path / "file"))
    assert done.code == 2
    assert "file cannot be written (Not a directory); choose another --export" in done.err
    assert "Traceback" not in done.err
    for row, message in (
        ("A00\tAmar\t1. Nh4", r"moves must be legal, but move 1\. 'Nh4', line 2 of '.*a\.tsv'"),
        ("A00\tAmar", "line 2 of .* must be 'code TAB name TAB moves'"),
        ("X00\tAmar\t1. Nh3", "with a code A00 to E99"),
    ):
        (tables / "a.tsv").write_text(f"eco\tname\tpgn\n{row}\n")
        with pytest.raises(DataError, match=message):
            Openings.load(tables)
    (tables / "a.tsv").write_text("eco\tname\n")
    with pytest.raises(DataError, match="must have the columns eco, name, pgn"):
        Openings.load(tables)
    with pytest.raises(DataError, match="must hold tables"):
        Openings.load(tables / "nowhere")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chess", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'chess'.*treesearch\[chess\]"):
        positions_after("e4", "x")


def test_comments_and_marks_are_skipped() -> None:
    plain = positions_after("e4 e6 d4 d5", "here")
    marked = positions_after("1. e4! {best by test} e6 $1 2. d4?! d5 1-0", "here")
    assert [one.key for one in marked] == [one.key for one in plain]

import os
import sqlite3
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from tests.nested import random_nested
from tests.processes import full_disk
from treesearch import Tree
from treesearch.cost import CostModel
from treesearch.errors import RunError
from treesearch.evaluation.memo import NewNodes
from treesearch.search.ledger import (
    CACHED,
    CONFIRM,
    FAILED,
    FROZEN,
    JOINT,
    OK,
    STOPPED,
    Checkpoint,
    EvaluationRow,
    Ledger,
    Position,
)

TREE = Tree.from_nested([[0, 1], [2, [3, 4, 5]]])
FULL = EvaluationRow(
    id=1,
    rung=CONFIRM,
    batch=2,
    agent="policy_gradient",
    label="clustered(arity=4)",
    tree_hash=TREE.hash,
    status=OK,
    reason="ValueError: 'ü'",
    attempts=3,
    cost_weight=0.005,
    reward=-5.1234567890123456,
    valid_nll=0.1 + 0.2,
    subset_nll=0.7,
    test_nll=1e-300,
    cost=9.5,
    cost_measured_us=0.75,
    expected_depth=2.5,
    dot_products=3.5,
    max_depth=4,
    num_nodes=7,
    nodes_trained=5,
    staleness=3,
    learning_rate=0.004,
    seed=1000,
    epochs=2,
    actions='["close"]',
    encoder="abc",
    seconds=1.25,
    worker="ray-1",
)


def row(number, **values):
    least = {"rung": FROZEN, "batch": 0, "agent": "a", "label": None, "tree_hash": TREE.hash, "status": OK}
    return EvaluationRow(id=number, **least | values)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "search.db"


@pytest.fixture
def ledger(path):
    with Ledger(path, create=True) as ledger:
        yield ledger


def refusal(path, **options):
    with pytest.raises(RunError) as caught:
        Ledger(path, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# -- rows and trees


def test_rows_survive_with_all_columns(ledger, path):
    assert None not in asdict(FULL).values(), "every column is filled"
    sparse = row(2, status=FAILED)
    for stored in (FULL, sparse):
        ledger.record(stored, TREE)
    with Ledger(path) as again:
        assert again.rows() == [FULL, sparse]


def test_rows_are_ordered_by_id_and_chosen_by_rung(ledger):
    for number, rung in ((3, JOINT), (1, FROZEN), (2, FROZEN)):
        ledger.record(row(number, rung=rung), TREE)
    assert [r.id for r in ledger.rows()] == [1, 2, 3]
    assert [r.id for r in ledger.rows(FROZEN)] == [1, 2]
    assert ledger.rows(CONFIRM) == []


def test_next_id(ledger):
    assert ledger.next_id() == 1
    ledger.record(row(7), TREE)
    assert ledger.next_id() == 8


def test_content_leaves_out_when_and_where():
    elsewhere = replace(FULL, seconds=9.0, worker="local-0", attempts=1)
    assert elsewhere.content() == FULL.content()
    assert set(asdict(FULL)) - set(FULL.content()) == {"seconds", "worker", "attempts"}
    for field in fields(FULL):
        if field.name in FULL.content():
            assert replace(FULL, **{field.name: "other"}).content() != FULL.content()


def test_rewards_under_any_weight_whichever_the_tree_was_for() -> None:
    scored = row(1, valid_nll=3.0, cost=4.0, cost_weight=50.0, reward=-203.0)
    assert scored.validation_reward(CostModel(8, 0.25)) == -4.0
    assert scored.validation_reward(CostModel(8, 0.25), 0.5) == -5.0
    assert row(2, valid_nll=None, cost=4.0).validation_reward(CostModel(8, 0.25)) == -np.inf


def test_trees_survive_with_projections_and_are_stored_once(ledger):
    projected = Tree.from_parents(
        TREE.parent, TREE.leaf_class, projection_dim=[0, 3, 0, 2], class_names=list("abcdef"), metadata={"x": 1}
    )
    for number, tree in enumerate((TREE, projected, TREE), 1):
        ledger.record(row(number, tree_hash=tree.hash), tree)
    for tree in (TREE, projected):
        stored = ledger.tree(tree.hash)
        assert stored == tree
        np.testing.assert_array_equal(stored.projection_dim, tree.projection_dim)
    assert ledger.tree(projected.hash).class_names is None, "names and metadata are not part of a tree's identity"


def test_an_unknown_tree(ledger):
    with pytest.raises(RunError, match="has no tree 123"):
        ledger.tree("123")


def test_an_id_is_given_once_and_a_refused_row_leaves_nothing(ledger):
    ledger.record(row(1), TREE)
    other = Tree.from_nested([0, 1, 2])
    with pytest.raises(RunError, match="could not be written"):
        ledger.record(row(1, tree_hash=other.hash), other)
    assert len(ledger.rows()) == 1
    with pytest.raises(RunError, match="has no tree"):
        ledger.tree(other.hash)


# -- batches and facts


def position(batch, encoder="e0"):
    return Position(batch, encoder, spent=10 * batch, began=3, proposed=7)


def test_batches(ledger, path):
    assert ledger.last_batch() is None
    ledger.finish_batch(position(0), b"", {})
    ledger.finish_batch(position(1), bytes(range(256)), {"entropy": 0.1 + 0.2})
    with Ledger(path) as again:
        assert again.last_batch() == Checkpoint(position(1), bytes(range(256)))  # the only state that is kept
        assert again.metrics() == [(0, {}), (1, {"entropy": 0.1 + 0.2})]


def test_nodes_of_each_memo_are_kept_piece_by_piece_until_it_forgets(ledger):
    def new(*numbers, forgot=False):
        keys = np.array([(number, 2**63 + number) for number in numbers], np.uint64).reshape(-1, 2)
        return NewNodes(keys, np.array(numbers) / 3, forgot)

    def known(memo):
        return [(keys.tolist(), nll.tolist()) for keys, nll in ledger.nodes(memo)]

    ledger.finish_batch(position(0), b"", {}, {"a": new(1, 2, forgot=True), "b": new(5)})
    ledger.finish_batch(position(1), b"", {}, {"a": new(3), "b": new()})
    assert known("a") == [([[1, 2**63 + 1], [2, 2**63 + 2]], [1 / 3, 2 / 3]), ([[3, 2**63 + 3]], [1.0])]
    ledger.finish_batch(position(2), b"", {}, {"a": new(4, forgot=True)})
    assert known("a") == [([[4, 2**63 + 4]], [4 / 3])]
    assert known("b") == [([[5, 2**63 + 5]], [5 / 3])]


def test_outcomes_live_until_their_batch_is_finished_or_on(ledger):
    ledger.record_outcome("short", b"1", lasting=False)
    ledger.record_outcome("long", b"2", lasting=True)
    assert [ledger.outcome(key) for key in ("short", "long", "none")] == [b"1", b"2", None]
    ledger.finish_batch(position(0), b"", {})
    assert [ledger.outcome(key) for key in ("short", "long")] == [None, b"2"]


def test_the_encoder_of_the_last_batch_is_kept_beside_one_that_has_none_yet(ledger):
    for encoder in ("e0", "e1"):
        ledger.store_encoder(encoder, encoder.encode())
    ledger.finish_batch(position(0, "e1"), b"", {})
    assert [ledger.encoder(encoder) for encoder in ("e0", "e1")] == [None, b"e1"]
    ledger.store_encoder("e2", b"e2")
    assert [ledger.encoder(encoder) for encoder in ("e1", "e2")] == [b"e1", b"e2"]


def test_rewinding_drops_what_resuming_writes_again(ledger):
    ledger.rewind()
    for number, (rung, batch) in enumerate([(FROZEN, 0), (FROZEN, 1), (FROZEN, 2), (JOINT, 0), (CONFIRM, 0)], 1):
        ledger.record(row(number, rung=rung, batch=batch), TREE)
    ledger.finish_batch(position(1), b"", {})
    ledger.rewind()
    assert [r.id for r in ledger.rows()] == [1, 2]


def test_rewinding_keeps_what_an_asynchronous_search_had_finished(ledger):
    ledger.finish_batch(position(1), b"", {})
    places = [(1, OK, "e0"), (2, FAILED, "e0"), (2, OK, "e0"), (2, OK, "e1"), (2, STOPPED, "e0"), (2, OK, "e0")]
    for number, (batch, status, encoder) in enumerate(places, 1):
        ledger.record(row(number, batch=batch, status=status, encoder=encoder, seconds=number), TREE)
    ledger.record(row(7, rung=JOINT, batch=0, encoder="e0"), TREE)
    ledger.rewind(keep="e0")
    assert [(r.id, r.seconds) for r in ledger.rows()] == [(1, 1.0), (2, 3.0), (3, 6.0)], "numbered without gaps"
    assert ledger.tree(TREE.hash) == TREE


def test_facts(ledger, path):
    ledger.set_meta("corpus", {"hash": "x", "n": [1, None, "é"]})
    ledger.set_meta("corpus", {"hash": "y"})
    with Ledger(path) as again:
        assert again.meta("corpus") == {"hash": "y"}
        assert again.meta("nothing") is None


def test_a_crash_inside_a_batch_leaves_a_readable_ledger(path, tmp_path):
    """What is on disk before `close` is what a killed process leaves behind, write-ahead log and all."""
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    with Ledger(path, create=True) as ledger:
        ledger.record(row(1), TREE)
        ledger.finish_batch(position(0), b"state", {})
        ledger.record(row(2, status=CACHED), TREE)
        for file in tmp_path.glob("search.db*"):
            (crashed / file.name).write_bytes(file.read_bytes())
    with Ledger(crashed / "search.db") as survivor:
        assert [r.id for r in survivor.rows()] == [1, 2]
        assert survivor.last_batch() == Checkpoint(position(0), b"state")
        assert survivor.tree(TREE.hash) == TREE
        survivor.record(row(3), TREE)


def test_after_close_one_file_is_left(path, tmp_path):
    with Ledger(path, create=True) as ledger:
        ledger.record(row(1), TREE)
    assert [file.name for file in tmp_path.iterdir()] == ["search.db"]


# -- files that are no ledger


def test_create_and_open_refuse_the_opposite(path):
    assert "no ledger at" in refusal(path)
    assert not path.exists()
    Ledger(path, create=True).close()
    assert "already holds a search" in refusal(path, create=True)
    assert "no ledger at" in refusal(path.parent)


def test_no_folder_to_create_in(tmp_path):
    assert "cannot be made as a ledger" in refusal(tmp_path / "none" / "search.db", create=True)


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 500])
def test_not_a_database(path, content):
    path.write_bytes(content)
    assert "cannot be used as a ledger" in refusal(path)
    assert path.read_bytes() == content


def test_a_database_of_another_program(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE notes(text)")
    database.close()
    before = path.read_bytes()
    assert "cannot be used as a ledger" in refusal(path)
    assert path.read_bytes() == before


def test_another_schema(path):
    with Ledger(path, create=True) as ledger:
        ledger.set_meta("schema", 99)
    assert "schema must be 3, but is 99" in refusal(path)


def without_column(path, column):
    """Turn the file into what an older version wrote; a new table, since `ALTER TABLE DROP` needs SQLite 3.35."""
    kept = [field.name for field in fields(EvaluationRow) if field.name != column]
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TABLE older AS SELECT {', '.join(kept)} FROM evaluations")
        database.execute("DROP TABLE evaluations")
        database.execute("ALTER TABLE older RENAME TO evaluations")
    database.close()


def test_a_ledger_that_lacks_a_column(path):
    Ledger(path, create=True).close()
    without_column(path, "valid_nll")
    before = path.read_bytes()
    assert "its table evaluations lacks valid_nll" in refusal(path)
    assert path.read_bytes() == before


def test_a_folder_without_write_permission(read_only_folder):
    assert "cannot be made as a ledger" in refusal(read_only_folder / "search.db", create=True)
    assert list(read_only_folder.iterdir()) == []


@pytest.fixture
def no_permission(monkeypatch):
    """As of a read-only file system, on which even root may not write."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))


def test_where_nothing_may_be_written_it_is_read_with_its_log(ledger, path, no_permission):
    """The writer has died, say: what it wrote last is in the log alone."""
    ledger.record(row(1), TREE)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert any(name.endswith("-wal") for name in before)
    with Ledger(path, read_only=True) as reader:
        assert [one.id for one in reader.rows()] == [1]
        assert reader.tree(TREE.hash) == TREE
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert "cannot be written; give its folder write permission" in refusal(path)


def test_a_reader_writes_nothing(ledger, path):
    ledger.record(row(1), TREE)
    with Ledger(path, read_only=True) as reader:
        assert len(reader.rows()) == 1
        ledger.record(row(2), TREE)
        assert len(reader.rows()) == 2, "of a search that is under way too"
        with pytest.raises(RunError, match="readonly"):
            reader.record(row(3), TREE)


def test_a_ledger_that_cannot_be_made_leaves_nothing(path):
    with full_disk(3000):
        assert "cannot be made" in refusal(path, create=True)
    assert list(path.parent.iterdir()) == []


def test_a_full_disk(ledger, path):
    """Every row that was accepted is there, and it goes on when there is room."""
    stored: list[Tree] = []

    def record() -> None:
        tree = Tree.from_nested(random_nested(np.random.default_rng(len(stored)), 50))
        ledger.record(row(len(stored) + 1, tree_hash=tree.hash), tree)
        stored.append(tree)

    def fill() -> None:
        while True:
            record()

    with full_disk(1_000_000), pytest.raises(RunError, match="free space or mend the folder"):
        fill()
    assert len(stored) > 10
    with Ledger(path, read_only=True) as reader:
        assert [one.tree_hash for one in reader.rows()] == [tree.hash for tree in stored]
        assert [reader.tree(tree.hash) for tree in stored] == stored
    record()
    assert ledger.next_id() == len(stored) + 1

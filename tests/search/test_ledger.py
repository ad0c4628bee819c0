import os
import re
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from tests.nested import random_nested
from tests.processes import full_disk
from treesearch import Tree
from treesearch.cost import CostModel
from treesearch.errors import RunError
from treesearch.evaluation.memo import NewNodes
from treesearch.search.evaluation_row import CACHED, CONFIRM, FAILED, FROZEN, JOINT, OK, STOPPED, EvaluationRow
from treesearch.search.ledger import Checkpoint, Ledger, Position
from treesearch.search.tree_blobs import pack_tree

TREE = Tree.from_nested([[0, 1], [2, [3, 4, 5]]])
OTHER = Tree.from_nested([[0, 1, 2], [3, 4, 5]])
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
    decisions="[[0, 1.0]]",
    encoder="abc",
    seconds=1.25,
    worker="ray-1",
    finished_at=1.5e9,
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
    before = time.time()
    sparse = row(2, status=FAILED)
    for stored in (FULL, sparse):
        ledger.record(stored, TREE)
    with Ledger(path) as again:
        full, later = again.rows()
    assert full == FULL
    assert before <= later.finished_at <= time.time()
    assert replace(later, finished_at=None) == sparse


def test_class_vectors_are_kept_up_to_a_factor(ledger):
    assert ledger.class_vectors() is None
    vectors = np.random.default_rng(0).normal(size=(7, 5)) * 1e6  # too large for half precision as they are
    ledger.store_class_vectors("old", vectors[:, :2])
    ledger.store_class_vectors("new", vectors)
    np.testing.assert_allclose(ledger.class_vectors() * np.abs(vectors).max(), vectors, rtol=1e-3, atol=1e3)
    ledger.store_class_vectors("zero", np.zeros((2, 3)))
    np.testing.assert_array_equal(ledger.class_vectors(), np.zeros((2, 3)))


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
    assert set(asdict(FULL)) - set(FULL.content()) == {"seconds", "worker", "attempts", "finished_at"}
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


def test_damage_is_found_in_every_rung_whichever_is_read_first(ledger, path):
    ledger.record(row(1, actions='["close"]'), TREE)
    ledger.record(row(2, rung=JOINT, actions="{"), TREE)
    ledger.close()
    with Ledger(path) as again:
        assert len(again.rows(FROZEN)) == 1
        for rung in (JOINT, None, JOINT):
            with pytest.raises(RunError, match=r"search\.db is damaged: actions of evaluation 2 must be JSON"):
                again.rows(rung)
        assert len(again.rows(FROZEN)) == 1


# SQLite takes anything in any column, but for a number as a text or the other way round, which it changes.
WRONG = {
    "int": [None, "text", b"1", 1.5],
    "float": [None, "text", b"1"],
    "str": [None, b"text"],
}


def change(path, statement, *values):
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(statement, values)


@pytest.mark.parametrize("field", fields(EvaluationRow)[1:], ids=lambda field: field.name)
def test_a_column_holds_what_its_field_says(ledger, path, field):
    """The first is the key, which SQLite itself keeps a number."""
    ledger.record(row(1), TREE)
    kind, *optional = field.type.split(" | ")
    for value in WRONG[kind][bool(optional) :]:
        change(path, f"UPDATE evaluations SET {field.name} = ?", value)
        with (
            Ledger(path, read_only=True) as again,
            pytest.raises(
                RunError, match=rf"search\.db is damaged: {field.name} of evaluation 1 must be .*, but is "
            ) as told,
        ):
            again.rows()
        assert "\n" not in str(told.value)
    if field.name in ("rung", "status"):
        change(path, f"UPDATE evaluations SET {field.name} = 'other'")
        with Ledger(path, read_only=True) as again, pytest.raises(RunError, match=r"must be one of .*, but is 'other'"):
            again.rows()


@pytest.mark.parametrize(
    ("statement", "value", "says"),
    [
        ("UPDATE trees SET data = ?", b"cut", f"tree {TREE.hash}: a packed tree must be whole"),
        ("UPDATE trees SET data = ?", "text", f"tree {TREE.hash} must be bytes, but is 'text'"),
        ("UPDATE trees SET data = ?", pack_tree(OTHER), f"in place of the tree {TREE.hash} it has {OTHER.hash}"),
        ("UPDATE encoders SET state = ?", 3, "the encoder e must be bytes, but is 3"),
        (
            "UPDATE class_vectors SET width = ?",
            5,
            "class_vectors must be rows of .* has 36 and width 5",
        ),
        ("UPDATE class_vectors SET width = ?", None, "class_vectors must be rows of .* width None"),
        ("UPDATE class_vectors SET width = ?", 0, "class_vectors must be rows of .* width 0"),
        ("UPDATE class_vectors SET data = ?", "text", "class_vectors must be bytes, but is 'text'"),
        ("UPDATE nodes SET nll = ?", b"12345678", "must have 16 bytes of keys for 8 of nll, but has 32 for 8"),
        ("UPDATE nodes SET keys = ?", 2.5, "nodes of memo m must be bytes, but is 2.5"),
        ("UPDATE outcomes SET outcome = ?", 1.5, "outcome o must be bytes, but is 1.5"),
        ("UPDATE batches SET finished_at = ?", "late", "finished_at of batch 0 must be a time, but is 'late'"),
        ("UPDATE batches SET agent_state = ?", "text", "agent_state of batch 0 must be bytes, but is 'text'"),
    ],
)
def test_whatever_else_is_damaged(path, statement, value, says):
    with Ledger(path, create=True) as ledger:
        ledger.record(row(1), TREE)
        ledger.store_encoder("e", b"state")
        ledger.store_class_vectors("e", np.ones((6, 3)))
        memo = NewNodes(np.arange(4, dtype=np.uint64).reshape(2, 2), np.ones(2), forgot=False)
        ledger.finish_batch(position(0, encoder="e"), b"state", {}, {"m": memo})
        ledger.record_outcome("o", b"outcome", lasting=True)
    reads = (
        lambda ledger: ledger.tree(TREE.hash),
        lambda ledger: ledger.encoder("e"),
        Ledger.class_vectors,
        lambda ledger: list(ledger.nodes("m")),
        lambda ledger: ledger.outcome("o"),
        Ledger.batch_times,
        Ledger.last_batch,
    )
    with Ledger(path, read_only=True) as whole:
        assert all(read(whole) for read in reads if read is not Ledger.class_vectors)
    change(path, statement, value)
    told = []
    with Ledger(path, read_only=True) as damaged:
        for read in reads:
            try:
                read(damaged)
            except RunError as error:
                told.append(str(error))
    assert len(told) == 1
    assert re.search(rf"search\.db is damaged: .*{says}.*; bring back an intact copy of it", told[0])


def test_a_batch_without_the_state_of_its_agent(ledger, path):
    ledger.finish_batch(position(0), b"state", {})
    change(path, "UPDATE batches SET agent_state = 'text'")
    with pytest.raises(RunError, match=r"search\.db is damaged: agent_state of batch 0 must be bytes, but is 'text'"):
        ledger.last_batch()


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


def test_a_ledger_of_the_first_schema_is_not_called_a_foreign_file(path):
    """It lacked the tables that resuming needs now."""
    with Ledger(path, create=True) as ledger:
        ledger.set_meta("schema", 1)
    with sqlite3.connect(path) as database:
        for table in ("encoders", "nodes", "outcomes", "class_vectors"):
            database.execute(f"DROP TABLE {table}")
    database.close()
    assert "its schema must be 3, but is 1; start a new search" in refusal(path)


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


def test_a_ledger_of_before_a_column_was_added(path):
    with Ledger(path, create=True) as ledger:
        ledger.record(FULL, TREE)
    without_column(path, "decisions")
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE class_vectors")
    database.close()
    with Ledger(path, read_only=True) as ledger:
        assert ledger.rows() == [replace(FULL, decisions=None)]
        assert ledger.class_vectors() is None
    with Ledger(path) as ledger:  # to go on with: it gets what it lacks
        ledger.record(replace(FULL, id=2), TREE)
        ledger.store_class_vectors("abc", np.ones((6, 2)))
        assert ledger.rows() == [replace(FULL, decisions=None), replace(FULL, id=2)]


def test_two_processes_open_a_ledger_of_before_a_column_was_added(path, monkeypatch):
    Ledger(path, create=True).close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE evaluations DROP COLUMN decisions")
    db.close()
    find_missing = Ledger._missing

    def and_another_opens_it(self):
        missing = find_missing(self)
        monkeypatch.setattr(Ledger, "_missing", find_missing)
        Ledger(path).close()
        return missing

    monkeypatch.setattr(Ledger, "_missing", and_another_opens_it)
    with Ledger(path) as ledger:
        assert ledger.rows() == []
        assert ledger._missing() == []


def test_a_folder_without_write_permission(read_only_folder):
    assert "cannot be made as a ledger" in refusal(read_only_folder / "search.db", create=True)
    assert list(read_only_folder.iterdir()) == []


@pytest.fixture
def no_permission(monkeypatch):
    """As of a read-only file system, on which even root may not write."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))


def test_where_nothing_may_be_written_it_is_read_with_its_log(ledger, path, tmp_path_factory, no_permission):
    """The writer has died: what it wrote last is in the log alone."""
    ledger.record(row(1), TREE)
    path = shutil.copytree(path.parent, tmp_path_factory.mktemp("died") / "run") / path.name
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

import fcntl
from dataclasses import replace

import pytest

from tests.report.page.views import BEGAN, TREE, row, view_of
from treesearch.report.page import run_view
from treesearch.report.page.document import runs_page
from treesearch.report.page.figures.runs import grouped
from treesearch.report.page.run_view import find_runs, load_run
from treesearch.search.ledger import Ledger, Position
from treesearch.search.run_folder import RunFolder


def test_folders_of_one_name_are_different_runs(tmp_path):
    for parent, nll in (("a", 2.0), ("b", 3.0)):
        view_of(tmp_path / parent / "run", [row(1, label="huffman", agent="builder", valid_nll=nll)])
    views = find_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert [view.name for view in views] == ["a/run", "b/run"]
    assert len(grouped(views)) == 2  # they are no two seeds of one variant
    assert "Of 2 runs a/run has the best reward" in runs_page(views)


def test_folders_of_different_names_keep_them(tmp_path):
    for name in ("a/first", "a/second", "b"):
        view_of(tmp_path / name, [row(1, valid_nll=2.0)])
    assert [view.name for view in find_runs([tmp_path / "a", tmp_path / "b"])] == ["a/first", "a/second", "b"]
    assert [view.name for view in find_runs([tmp_path / "a"])] == ["first", "second"]


def test_a_batch_that_ends_while_the_ledger_is_read_is_not_in_it(tmp_path, monkeypatch):
    view_of(tmp_path / "run", [row(1, valid_nll=2.0)], metrics=[{"entropy": 1.0}])
    read_times = Ledger.batch_times

    def and_then_a_batch_ends(self):
        times = read_times(self)
        with Ledger(tmp_path / "run" / "search.db") as writer:
            writer.record(row(2, batch=1, valid_nll=1.0), TREE)
            writer.finish_batch(Position(1, "e0", spent=0, began=0, proposed=0), b"", {"entropy": 0.5})
        return times

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "batch_times", and_then_a_batch_ends)
        view = load_run(tmp_path / "run")
    assert [one.id for one in view.rows] == [1]
    assert [batch.number for batch in view.batches] == [0]
    view = load_run(tmp_path / "run")
    assert [one.id for one in view.rows] == [1, 2]
    assert [batch.number for batch in view.batches] == [0, 1]


def test_a_search_that_ends_while_it_is_read_was_running(tmp_path, monkeypatch):
    view_of(tmp_path / "run", [row(1, valid_nll=2.0)])
    run = RunFolder(tmp_path / "run")
    holder = run.environment_file.open()
    fcntl.flock(holder, fcntl.LOCK_EX)
    monkeypatch.setattr(RunFolder, "config", lambda self: (holder.close(), run_view.load_config(self.config_file))[1])
    assert load_run(run.path).running  # the next look finds its results
    assert not run.locked()


def test_who_asks_for_a_lock_is_not_seen_by_another_who_asks(tmp_path):
    view_of(tmp_path / "run", [row(1, valid_nll=2.0)])
    run = RunFolder(tmp_path / "run")
    with run.environment_file.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as `locked` does
        assert not run.locked()
    with run.lock():
        assert run.locked()


@pytest.mark.parametrize("later", [3600.0, 10.0])
def test_time_before_a_session_that_is_the_first_of_which_it_was_kept(tmp_path, later):
    """A run of an earlier version that was resumed: its own minutes count, the pause does not."""
    began = [row(number, valid_nll=2.0) for number in (1, 2, 3)]  # at 1, 2 and 3 s
    again = [row(number, valid_nll=2.0, finished_at=BEGAN + later + number) for number in (4, 5)]
    view = replace(view_of(tmp_path / "run", began + again), sessions=(BEGAN + later,))
    assert [view.elapsed(view.finished_at(one)) for one in view.rows] == [0, 1, 2, 2 + 4, 2 + 5]

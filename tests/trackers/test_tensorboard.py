"""Event files, read back record by record."""

import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from tests.processes import full_disk
from treesearch import Tree
from treesearch.config import make_config
from treesearch.trackers import make_tracker

CONFIG = make_config({"tensorboard": {"enabled": True}})


def events(file: Path) -> list[Event]:
    """All events of a file: length (8 bytes), checksum (4), data, checksum (4)."""
    content, found = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


@pytest.fixture
def files(tmp_path):
    return lambda: sorted((tmp_path / "tensorboard").iterdir())


def test_scalars_histograms_tables(tmp_path, files):
    best = tmp_path / "best.tree.json"
    Tree.from_nested([[0, 1], 2]).save(best)
    with make_tracker(CONFIG, tmp_path, run_id="a") as run:
        run.log(3, {"reward": -5.0, "failures": 1})
        run.log(10, {"batch_rewards": [1.0, 2.0, 4.0], "nothing": []})
        run.finish({"comparison": (("name", "cost"), [["huffman", 9.5], ["found #3", None]])}, best)
        run.close()
    (file,) = files()
    found = {(value.tag, event.step): value for event in events(file) for value in event.summary.value}
    assert found["reward", 3].simple_value == -5.0
    assert found["failures", 3].simple_value == 1.0
    histogram = found["batch_rewards", 10].histo
    assert (histogram.min, histogram.max, histogram.num, histogram.sum) == (1.0, 4.0, 3.0, 7.0)
    text = {tag: value.tensor.string_val[0].decode() for (tag, _), value in found.items() if value.tensor.string_val}
    assert text["comparison/text_summary"].splitlines()[2:] == ["| huffman | 9.5 |", "| found #3 |  |"]
    assert text["best_tree/text_summary"] == str(best)
    assert "learning_rates" in text["config/text_summary"]
    assert not any(tag.startswith("nothing") for tag, _ in found)


def test_a_resumed_run_takes_back_what_is_logged_again(tmp_path, files):
    for step in (0, 20):
        with make_tracker(CONFIG, tmp_path, run_id="a", step=step) as run:
            run.log(21, {"reward": -float(step)})
    first, second = files() if len(files()) == 2 else (files()[0], files()[0])
    restarts = [event.step for event in events(second) if event.session_log.status == SessionLog.START]
    assert restarts[-1] == 21, "TensorBoard drops events of this step and later ones that were logged before"
    assert np.isclose(events(first)[-1].summary.value[0].simple_value, 0.0) or first == second


def test_a_full_disk_ends_the_files_and_nothing_else(tmp_path, recwarn):
    run = make_tracker(CONFIG, tmp_path, run_id="a")
    with full_disk(sum(file.stat().st_size for file in (tmp_path / "tensorboard").iterdir()) + 100):
        for step in range(1000):
            run.log(step, {"reward": 1.0})
        run.finish({"t": (("a",), [[1]])}, tmp_path)
        run.close()
    assert ["cannot be written" in str(one.message) for one in recwarn.list] == [True]

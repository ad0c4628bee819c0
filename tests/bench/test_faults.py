"""The fault campaign sees what it should see, and (slow) a whole search over two nodes survives every kind of fault."""

import subprocess
import sys

import pytest

from treesearch.bench import faults


def ledger(trees):
    return [{"id": number, "rung": "frozen", "tree_hash": tree} for number, tree in enumerate(trees, start=1)]


@pytest.mark.parametrize(
    ("trees", "lost", "twice", "moved"),
    [("abca", 0, 0, 0), ("aca", 1, 0, 0), ("abcab", 0, 1, 0), ("abc", 1, 0, 0), ("abba", 1, 1, 0), ("acba", 0, 0, 2)],
)
def test_what_is_lost_twice_or_moved_is_counted(trees, lost, twice, moved):
    assert faults.compare(ledger(trees), ledger("abca")) == {"lost": lost, "twice": twice, "moved": moved}


SCRIPT = """
import sys
from contextlib import closing
from pathlib import Path
from treesearch.bench import faults

folder = Path(sys.argv[1])
kills = [(4, "worker"), (10, "node"), (20, "driver"), (30, "add"), (45, "worker"), (63, "driver")]
with closing(faults.LocalCluster()) as cluster:
    whole = faults.search(cluster, folder / "whole", 0)
    assert (whole.error, whole.hung) == (None, False), whole
    assert whole.failures == {"nan": 2, "time_limit": 1}, whole.failures
    result = faults.search(cluster, folder / "killed", 0, kills)
assert (result.error, result.hung) == (None, False), result
assert result.kills.total() == len(kills), result.kills
assert result.rows == whole.rows
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)  # nodes are started twice, and drivers thrice, on a machine with other work
def test_a_search_over_two_nodes_loses_nothing_whatever_dies(tmp_path):
    """Workers, a node and the driver are killed, another node joins, evaluations diverge and hang."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stderr[-2000:]

"""What all tests share: a quiet Ray, and one tiny finished search."""

import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before anything imports ray
# Ray notes there where the last cluster is, and whoever starts Ray next joins it: no other process, no other user's.
# Where Ray itself goes, not in pytest's folder or $TMPDIR, since paths of sockets are short.
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="tests-", dir="/tmp")
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the machine; before anything imports torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests import tiny

# Machines are shared, and a kernel may be compiled within an example: time limits of examples would fail by chance.
settings.register_profile("treesearch", deadline=None)
settings.load_profile("treesearch")

# The server that processes are forked from is started once, by whichever test is first.
multiprocessing.get_context("forkserver").set_forkserver_preload(tiny.PRELOADED)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config whose search takes seconds; see `tests.tiny`. Tests must not change its folder."""
    return tiny.write_config(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def local_run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished search with one local worker. Tests must not change it."""
    folder = tmp_path_factory.mktemp("run") / "local"
    done = tiny.treesearch("search", tiny_config, "--out", folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Path:
    """An empty folder in which this user may not write; skips where there is no such thing, as for root."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    return folder

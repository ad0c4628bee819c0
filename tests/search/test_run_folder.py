import json
import re
from pathlib import Path

import pytest

from tests import tiny
from treesearch import Tree
from treesearch.config import make_config
from treesearch.errors import RunError
from treesearch.search import run_folder
from treesearch.search.run_folder import RunFolder, default_folder, environment

COMPARISON = {
    "rows": [],
    "agent": "hybrid",
    "evaluations": 3,
    "failures": 0,
    "seeds": 1,
    "cost_weight": 0.005,
    "note": "λ",
}
TREE = Tree.from_nested([[0, 1], 2])
CONFIG = make_config({"seed": 5})


def refusal(call, *arguments):
    with pytest.raises(RunError) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_new_run(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run")
    with folder.create(CONFIG) as ledger:
        ledger.set_meta("x", 1)
    assert {file.name for file in folder.path.iterdir()} == {"config.yaml", "environment.json", "search.db"}
    assert folder.config() == CONFIG
    with folder.open() as ledger:
        assert ledger.meta("x") == 1


def test_an_empty_folder_will_do(tmp_path):
    RunFolder(tmp_path).check_free()
    RunFolder(tmp_path).create(CONFIG).close()
    assert RunFolder(tmp_path).config() == CONFIG


@pytest.mark.parametrize("name", ["search.db", "notes.txt", ".hidden"])
def test_an_occupied_folder_is_refused_and_untouched(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    folder = RunFolder(tmp_path)
    message = refusal(folder.create, CONFIG)
    assert ("already holds a run" if name == "search.db" else "must be a new or empty folder") in message
    assert tiny.snapshot(tmp_path) == {name: b"precious"}
    refusal(folder.check_free)


def test_a_file_in_the_way(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    for path in (file, file / "run", file / "deep" / "run"):
        refusal(RunFolder(path).create, CONFIG)
    assert tiny.snapshot(tmp_path) == {"file": b"precious"}


def test_a_folder_without_write_permission(read_only_folder):
    for path in (read_only_folder, read_only_folder / "run"):
        assert "cannot be written" in refusal(RunFolder(path).create, CONFIG)
    assert list(read_only_folder.iterdir()) == []


def test_a_folder_that_cannot_be_read(read_only_folder):
    read_only_folder.chmod(0)
    try:
        for path in (read_only_folder, read_only_folder / "run"):
            assert "cannot be" in refusal(RunFolder(path).check_free)
    finally:
        read_only_folder.chmod(0o755)


def test_the_default_folder_is_the_next_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parent, config = Path("runs"), Path("configs/kjv.yaml")
    assert default_folder(config) == parent / "kjv-1"
    for taken in ("kjv-1", "kjv-3", "other-2"):
        (parent / taken).mkdir(parents=True)
    assert default_folder(config) == parent / "kjv-2"
    (parent / "kjv-2").write_text("a file takes a name, too")
    assert default_folder(config) == parent / "kjv-4"


# -- results


def test_results(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_results(TREE, COMPARISON)
    assert folder.best_tree() == TREE
    assert folder.comparison() == COMPARISON
    assert {file.name for file in tmp_path.iterdir()} == {"best.tree.json", "comparison.json"}


def test_results_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.write_results(TREE, {"rows": []})
    before = tiny.snapshot(tmp_path)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(RunError, match=r"No space left on device\); free space or mend the folder and resume"):
        folder.write_results(Tree.from_nested([0, 1, 2]), {"rows": [1]})
    assert tiny.snapshot(tmp_path) == before


def test_what_is_no_json_leaves_the_old_comparison(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_results(TREE, COMPARISON)
    with pytest.raises(TypeError):
        folder.write_results(TREE, {"rows": [object()]})
    assert folder.comparison() == COMPARISON


def test_an_unfinished_run_says_so(tmp_path):
    folder = RunFolder(tmp_path / "none")
    assert "holds no best.tree.json: it is no run folder" in refusal(folder.best_tree)
    assert "holds no comparison.json: it is no run folder" in refusal(folder.comparison)
    assert "no ledger" in refusal(folder.open)
    folder.create(CONFIG).close()
    for way_out in (refusal(folder.best_tree), refusal(folder.comparison)):
        assert way_out.endswith(
            f"the search has not finished; wait for it, or go on with: treesearch resume {folder.path}"
        )


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[1]", b"{}", b'{"rows": 3}', b"[" * 9999])
def test_a_broken_comparison(tmp_path, content):
    (tmp_path / "comparison.json").write_bytes(content)
    says = refusal(RunFolder(tmp_path).comparison)
    assert says.startswith(f"{tmp_path / 'comparison.json'} is damaged: ")
    assert says.endswith(f"; write it again with: treesearch resume {tmp_path}")


# -- environment


def test_a_configuration_that_is_not_whole_is_not_filled_up_with_defaults(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create(CONFIG).close()
    whole = folder.config_file.read_text()
    for content, missing in (("", "data"), (whole.partition("cost:")[0], "cost")):
        folder.config_file.write_text(content)
        assert f"config.yaml is damaged: it has no section {missing}; bring back" in refusal(folder.config)
    folder.config_file.unlink()
    assert refusal(folder.config).startswith(f"{folder.path} holds no config.yaml; bring back")
    folder.write_config(CONFIG)
    assert folder.config() == CONFIG


def test_a_broken_tree_is_written_again_by_a_resume(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create(CONFIG).close()
    folder.write_results(TREE, COMPARISON)
    folder.best_tree_file.write_bytes(folder.best_tree_file.read_bytes()[:-9])
    says = refusal(folder.best_tree)
    assert str(folder.best_tree_file) in says
    assert says.endswith(f"write it again with: treesearch resume {folder.path}")


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    """As treesearch on a node to which its code has travelled."""
    monkeypatch.setattr(run_folder, "RECORDED_PACKAGES", ("torch", "no-such-package"))
    packages = environment()["packages"]
    assert packages["torch"]
    assert packages["no-such-package"] is None


def test_environment_has_versions_and_commit():
    found = json.loads(json.dumps(environment()))
    assert set(run_folder.RECORDED_PACKAGES) == set(found["packages"])
    assert all(re.match(r"\d+\.\d+", version) for version in [found["python"], *found["packages"].values()])
    assert found["commit"] is None or re.fullmatch("[0-9a-f]{40}", found["commit"])
    assert "/" not in found["command"][0]


def test_no_git_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert environment()["commit"] is None

"""Searches side by side: statistics by hand, and a small study that is resumed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.processes import alive, until
from treesearch.config import load_config
from treesearch.errors import ConfigError, RunError
from treesearch.launch.study import Variant, run_study, study_rows, study_table
from treesearch.progress import ProgressReporter
from treesearch.report.page.run_view import find_runs
from treesearch.search.evaluation_row import FROZEN
from treesearch.search.ledger import Ledger

ROOT = Path(__file__).parents[2]


def test_rows_by_hand() -> None:
    best = {"a": [[-3.0, -2.0, -2.0], [-4.0, -4.0, -3.0]], "b": [[-3.0, -1.5, -1.5], [-5.0, -5.0, -2.5]]}
    reference, other = study_rows(best, "a")
    assert (reference["best_reward"]["mean"], reference["to_reach_reference"]) == (-2.5, [2, 3])
    assert "gain" not in reference
    assert other["gain"]["mean"] == pytest.approx(0.5)  # 0.5 and 0.5: no width
    assert (other["gain"]["low"], other["gain"]["high"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert other["gain_curve"]["mean"] == pytest.approx(((-6 + 7) / 3 + (-12.5 + 11) / 3) / 2)
    assert other["to_reach_reference"] == [2, 3]
    assert study_rows({"a": [[-1.0]], "b": [[-2.0]]}, "a")[1]["to_reach_reference"] == [None]
    assert list(study_table([reference, other]).columns[2].cells) == ["-", "+0.5000 [+0.5000, +0.5000]"]
    of_one_seed = study_rows({"a": [[-1.0]], "b": [[-2.0]]}, "a")
    assert list(study_table(of_one_seed).columns[2].cells) == ["-", "-1.0000"]


def test_variants() -> None:
    assert Variant.parse("evolution") == Variant("evolution", ("search.agent=evolution",))
    parsed = Variant.parse("fresh:search.agent=hybrid; search.settings.replay_trees=0;policy=runs/x")
    assert parsed == Variant("fresh", ("search.agent=hybrid", "search.settings.replay_trees=0"), Path("runs/x"))
    for text, message in (("a:b", "key=value"), ("a/b", "name must be"), ("", "name must be")):
        with pytest.raises(ConfigError, match=message):
            Variant.parse(text)


@pytest.mark.slow
def test_a_study_is_resumed_and_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    config = load_config(tiny.write_config(tmp_path), ["search.evaluations=24", "confirm.seeds=0"])
    variants = [Variant.parse("random_search"), Variant.parse("short:search.agent=random_search;search.batch_size=3")]

    def run(folder: Path, num_seeds: int, num_processes: int = 1) -> list[dict[str, object]]:
        with ProgressReporter(quiet=True) as progress:
            return run_study(
                config, variants, num_seeds=num_seeds, folder=folder, num_processes=num_processes, progress=progress
            )

    first = run(tmp_path / "one", 1)
    file = tmp_path / "one" / "short" / "seed-1.db"
    written = file.stat().st_mtime_ns
    leftover = file.with_name("seed-2.partial-1")  # of a search that has outlived a study that was killed
    leftover.write_text("half a ledger")
    both = run(tmp_path / "one", 2)
    assert file.stat().st_mtime_ns == written  # what is there is not run again
    assert sorted(one.name for one in file.parent.iterdir()) == ["seed-1.db", "seed-2.db"]
    assert [row["by_seed"][:1] for row in both] == [row["by_seed"] for row in first]  # type: ignore[index]
    assert both == run(tmp_path / "two", 2, num_processes=2)
    with Ledger(file) as ledger:
        rewards = [row.reward for row in ledger.rows(FROZEN)]
    assert both[1]["by_seed"][0] == pytest.approx(np.max(rewards))  # type: ignore[index]
    assert both[0]["evaluations"] == 24
    views = find_runs([tmp_path / "one"])
    assert [view.config.search.batch_size for view in views] == [config.search.batch_size] * 2 + [3] * 2
    assert all(view.finished and view.agent == "random_search" and len(view.sessions) == 1 for view in views)
    assert all(view.class_names is not None and view.counts is not None for view in views)
    changed = [variants[0], Variant.parse("short:search.agent=random_search;search.batch_size=4")]
    with pytest.raises(RunError, match="holds a variant 'short' with other settings; give this one another name"):
        run_study(
            config,
            changed,
            num_seeds=1,
            folder=tmp_path / "one",
            num_processes=1,
            progress=ProgressReporter(quiet=True),
        )
    with pytest.raises(RunError, match="another configuration"):
        run_study(
            load_config(tmp_path / "tiny.yaml", ["seed=5"]),
            variants,
            num_seeds=1,
            folder=tmp_path / "one",
            num_processes=1,
            progress=ProgressReporter(quiet=True),
        )


@pytest.mark.slow
def test_a_killed_study_takes_its_processes_along(tmp_path: Path) -> None:
    """Also those that have more to do in their queue."""
    script = f"""
import os, time
from pathlib import Path
from treesearch.launch import study
def search(number):
    Path({str(tmp_path)!r}, str(number)).write_text(str(os.getpid()))
    time.sleep(2)
if __name__ == "__main__":
    study._search = search
    study._run_all([(number,) for number in range(4)], 1, None)
"""
    (tmp_path / "killed.py").write_text(script)
    driver = subprocess.Popen([sys.executable, str(tmp_path / "killed.py")], env=os.environ | {"PYTHONPATH": str(ROOT)})
    first = tmp_path / "0"
    until(lambda: first.exists() and first.read_text(), "the first search")
    driver.kill()
    driver.wait()
    until(lambda: not alive({int(first.read_text())}), "the end of its process")
    time.sleep(2)
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    "change", ["cost.weight=0.1", "encoder.features=4", "data.max_classes=9", "seed=3", "frozen.max_tokens=50"]
)
def test_what_variants_must_have_in_common(tmp_path: Path, change: str) -> None:
    config = load_config(tiny.write_config(tmp_path))
    with pytest.raises(ConfigError, match="in common, but 'other' changes"):
        run_study(
            config,
            [Variant.parse("hybrid"), Variant.parse(f"other:{change}")],
            num_seeds=1,
            folder=tmp_path / "study",
            num_processes=1,
            progress=ProgressReporter(quiet=True),
        )
    assert not (tmp_path / "study").exists()

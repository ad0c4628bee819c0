"""What the READMEs say can be done is done: every block of commands and of Python runs.

The blocks of one section run in their order, in a fresh folder that looks like a checkout and holds the files that the
text names (`tests.readme_files`). They run as they stand but for the tables below. A block that is in no table and
cannot run fails its section's test.
"""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import readme_files as files
from tests import tiny
from tests.markdown import Section, anchors, inline_code, links, prose, read_sections, shell_commands
from tests.readme_runner import Shell, check_usage, run_python

ROOT = files.ROOT
DOCUMENTED = ("treesearch/**", "envs", "agents", "configs", "results")  # the dated folders of results are records
READMES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(path.relative_to(ROOT)) for folder in DOCUMENTED for path in ROOT.glob(f"{folder}/README.md")),
]
LINE_LIMIT = 160

# -- tables: what is done otherwise than it stands, and why

TINY = [
    "search.evaluations=12",
    "search.batch_size=4",
    "search.executor=local",
    "search.builders=[{name: huffman}]",
    "environment.max_decisions=4",
    "joint.epochs=1",
    "confirm.promote=1",
    "confirm.screen=2",
    "confirm.rounds=1",
    "confirm.finalists=1",
    "confirm.seeds=2",
    "confirm.timing=false",
]
SMALL_ENCODER = ["encoder.features=8", "encoder.embedding=8", "encoder.epochs=1"]
QUICKSTART = [*TINY, *SMALL_ENCODER, "data.max_classes=200", "data.max_train_tokens=20000"]


def settings(assignments: list[str]) -> list[str]:
    return [part for one in assignments for part in ("--set", one)]


# Appended to a command that begins like this: a budget of seconds. What stands last on a command line counts.
BUDGETS: dict[str, list[str]] = {
    "treesearch search configs/quickstart.yaml": settings(QUICKSTART),
    "treesearch search configs/kjv.yaml": settings([*TINY, *SMALL_ENCODER, "cost.kind=analytic"]),
    "treesearch search configs/features.yaml": settings([*TINY, "cost.kind=analytic"]),
    "treesearch search configs/documents.yaml": settings([*TINY, *SMALL_ENCODER]),
    "treesearch search configs/interactions.yaml": settings([*TINY, *SMALL_ENCODER]),
    "treesearch build clustered": settings(QUICKSTART),
    "treesearch resume runs/quickstart-1": settings(["search.evaluations=16"]),
    "treesearch study": settings(QUICKSTART),
    "treesearch sweep": settings([*QUICKSTART, "sweep.num_samples=1", "sweep.space={search.agent: {grid: [hybrid]}}"]),
    "treesearch apply taxonomy": ["--seeds", "1", "--epochs", "1"],
    "treesearch apply cascade": ["--seeds", "1", "--epochs", "1"],
    "treesearch apply chess": ["--seeds", "1", "--epochs", "1"],
    "treesearch apply coding --chapters": ["--epochs", "1"],
    "treesearch apply autocomplete --queries queries.tsv --tree run": ["--epochs", "1"],
}

# Commands that are not run. The reason is shown; what follows a `--` must still be a command line of ours.
NOT_RUN = {
    "ray job submit": "needs ray[default], which is not among the dependencies",
    "make test": "this is it: only what make would do is asked for",
    "make install": "only what make would do is asked for",
    "make check": "only what make would do is asked for",
}

# In blocks of Python of a section: names that the text leaves to the reader, and budgets.
GIVEN = {
    "README.md: Bring your own model": """
        import torch
        draw = torch.Generator().manual_seed(0)
        train, valid, test = (
            [{"input_ids": torch.randint(37, (4, 16), generator=draw)} for _ in range(size)] for size in (20, 8, 8)
        )
        """,
    "treesearch/exchange/README.md: Trees in other tools": """
        from treesearch import build_tree
        sentences = [["to", "be", "or", "not", "to", "be"]] * 20
        tree = build_tree("huffman", counts=[4, 3, 2, 1]).annotate(class_names=["be", "to", "or", "not"])
        """,
    "treesearch/tune/README.md: An agent for your own trainable": """
        import numpy as np
        counts, vectors, nll = np.arange(1.0, 21), np.random.default_rng(0).standard_normal((20, 8)), 2.5
        """,
}
SHORTENED = {
    "treesearch/tune/README.md: An agent for your own trainable": {"num_samples=200": "num_samples=4"},
    "envs/README.md: The environment": {"learn(4096)": "learn(64)", "n_steps=256": "n_steps=16"},
}

# Files beside the checkout's own that a section speaks of.
FILES: dict[str, Callable[[Path], None]] = {
    "README.md: The same on your text": files.text,
    "README.md: Bring your own model": files.language_model,
    "treesearch/applications/README.md: Taxonomy of labels": files.intents,
    "treesearch/applications/README.md: An expert's reasons: openings of chess": files.openings,
    "treesearch/applications/README.md: Cascades: answer, answer with less, or flag": files.documents,
    "treesearch/applications/README.md: Query autocomplete": files.queries,
    "treesearch/builders/README.md: Builders": files.counts,
    "treesearch/data/README.md: Data": files.all_kinds,
    "treesearch/decisions/README.md: Audits": files.layer,
    "treesearch/integrations/README.md: Models of torch and Hugging Face": files.language_model_and_tree,
}
SLOW = {  # sections of more than some seconds
    "envs/README.md: The environment",
    "README.md: Bring your own model",
    "README.md: Look at a run",
    "README.md: On a cluster",
    "README.md: The same on your text",
    "README.md: Two commands",
    "README.md: Use the tree",
    "treesearch/applications/README.md: An expert's reasons: openings of chess",
    "treesearch/applications/README.md: Cascades: answer, answer with less, or flag",
    "treesearch/applications/README.md: Medical coding",
    "treesearch/applications/README.md: Query autocomplete",
    "treesearch/builders/README.md: Builders",
    "treesearch/data/README.md: Data",
    "treesearch/decisions/README.md: Audits",
    "treesearch/exchange/README.md: Trees in other tools",
    "treesearch/integrations/README.md: Models of torch and Hugging Face",
    "treesearch/report/README.md: The page",
    "treesearch/search/README.md: Comparing",
    "treesearch/serving/README.md: Serving",
    "treesearch/tune/README.md: Sweeps",
    "treesearch/tune/README.md: An agent for your own trainable",
}


def run_sections() -> Iterator[Any]:
    for readme in READMES:
        for section in read_sections((ROOT / readme).read_text()):
            if any(block.language in ("sh", "python") for block in section.blocks):
                key = f"{readme}: {section.title}"
                yield pytest.param(key, section, id=key, marks=[pytest.mark.slow] if key in SLOW else [])


# -- the blocks


@pytest.fixture(scope="session")
def quickstart_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the quickstart with a tiny budget. Tests must not change it."""
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    done = tiny.treesearch("search", ROOT / "configs/quickstart.yaml", "--out", folder, *settings(QUICKSTART))
    assert done.code == 0, done.err
    return folder


@pytest.mark.parametrize(("key", "section"), list(run_sections()))
def test_blocks_run(
    key: str, section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    files.checkout(tmp_path)
    for run in {run for block in section.blocks for run in re.findall(r"runs/quickstart-\d", block.text)}:
        shutil.copytree(request.getfixturevalue("quickstart_run"), tmp_path / run)
    FILES.get(key, lambda folder: None)(tmp_path)
    shell = Shell(tmp_path, BUDGETS, NOT_RUN)
    with shell.stack:
        for block in section.blocks:
            if block.language == "sh":
                for command in shell_commands(block.text):
                    shell.run(command)
            elif block.language == "python":
                source = block.text
                for long, short in SHORTENED.get(key, {}).items():
                    assert source.count(long) == 1, f"SHORTENED: {long!r} is not in {key}"
                    source = source.replace(long, short)
                given = re.sub(r"^        ", "", GIVEN.get(key, ""), flags=re.MULTILINE)
                run_python(f"{given}\n{source}", f"{key}, line {block.line}", tmp_path)


# -- what runs them


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("curl example.org", "this cannot be run"),
        ("treesearch serach configs/quickstart.yaml", "no command 'serach'"),
        ("treesearch show TREE --levles 3", "no option '--levles'"),
        ("treesearch show nowhere.tree.json", "nowhere.tree.json"),
        ("pip install 'treesearch[gpu]'", "no extra 'gpu'"),
        ("pip install 'requests[socks]'", "requests is no dependency"),
        ("make serach", "serach"),
        ("ray job submit -- python -m treesearch.cli search --fast", "no option '--fast'"),
    ],
)
def test_what_cannot_run_fails(command: str, message: str, tmp_path: Path) -> None:
    files.checkout(tmp_path)
    with pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        Shell(tmp_path, BUDGETS, NOT_RUN).run(command)


def test_python_that_fails_is_shown(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_python("1 / 0", "here", tmp_path)


def test_sections_and_commands_are_read() -> None:
    text = "# A\n\n```sh\none \\\n  two  # three\n# four\n```\n## B b\n```\nx\n```\n```python\n# no heading\n```\n"
    first, second = read_sections(text)
    assert (first.title, [(block.language, block.line) for block in first.blocks]) == ("A", [("sh", 4)])
    assert shell_commands(first.blocks[0].text) == ["one two  # three"]
    assert (second.title, [block.text for block in second.blocks]) == ("B b", ["x", "# no heading"])


# -- the tables and the text


def test_every_line_of_the_tables_is_needed() -> None:
    keys = {parameters.values[0] for parameters in run_sections()}
    for table in (GIVEN, SHORTENED, FILES, SLOW):
        assert set(table) <= keys, f"sections that are not there: {set(table) - keys}"
    commands = [
        command
        for parameters in run_sections()
        for block in parameters.values[1].blocks
        if block.language == "sh"
        for command in shell_commands(block.text)
    ]
    lines = [" ".join(word for word in shlex.split(one, comments=True) if "=" not in word[:12]) for one in commands]
    for table in (BUDGETS, NOT_RUN):
        for start in table:
            assert any(line.startswith(start) for line in lines), f"no command begins with {start!r}"


@pytest.mark.parametrize("readme", READMES)
def test_blocks_are_of_a_known_kind(readme: str) -> None:
    for section in read_sections((ROOT / readme).read_text()):
        for block in section.blocks:
            assert block.language in ("", "sh", "python"), f"{readme}:{block.line}: {block.language!r}"
    hidden = re.search(r"^([ \t]+```|[ \t]*~~~).*", (ROOT / readme).read_text(), re.MULTILINE)
    assert not hidden, f"{readme}: this fence would escape the tests: {hidden and hidden[0]!r}"


@pytest.mark.parametrize("readme", READMES)
def test_links_resolve(readme: str) -> None:
    path = ROOT / readme
    for link in links(path.read_text()):
        target, _, anchor = link.partition("#")
        if "://" not in link:
            found = (path.parent / target).resolve() if target else path
            assert found.exists(), f"{readme}: {link}"
            assert not anchor or anchor in anchors(found), f"{readme}: {link}: no such heading"


@pytest.mark.parametrize("readme", READMES)
def test_named_results_exist(readme: str) -> None:
    for name in re.findall(r"20\d\d-\d\d-\d\d-[a-z0-9-]+", prose((ROOT / readme).read_text())):
        assert (ROOT / "results" / name).is_dir(), f"{readme}: {name}"


def test_every_result_has_its_line() -> None:
    named = links((ROOT / "results/README.md").read_text())
    for folder in sorted((ROOT / "results").glob("20*")):
        assert folder.name in named, f"results/README.md has no line for {folder.name}"


@pytest.mark.parametrize("readme", READMES)
def test_inline_commands_exist(readme: str) -> None:
    for span in inline_code((ROOT / readme).read_text()):
        if span.startswith("treesearch "):
            check_usage(re.sub(r"[\[\]]", " ", span).split()[1:])


@pytest.mark.parametrize("readme", READMES)
def test_lines_are_short(readme: str) -> None:
    for number, line in enumerate((ROOT / readme).read_text().splitlines(), start=1):
        assert len(line) <= LINE_LIMIT, f"{readme}:{number}: {len(line)} characters"


def test_the_readme_is_short_and_its_figures_are_those_of_the_whole_table() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 260
    short = text.split("## Measured")[1].split("## ")[0]
    rows = [line for line in short.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 10
    whole = (ROOT / "treesearch/bench/README.md").read_text().splitlines()
    assert set(rows) <= set(whole)


def test_every_readme_is_reached_from_the_first() -> None:
    reached = {(ROOT / link).resolve() for link in links((ROOT / "README.md").read_text()) if "://" not in link}
    missing = [readme for readme in READMES[1:] if (ROOT / readme).resolve() not in reached]
    assert not missing

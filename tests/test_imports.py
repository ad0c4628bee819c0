"""Imports go one way (DESIGN, "Layout and direction of imports"), and `import treesearch` stays light."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module imports nothing of a later layer. Parts of treesearch that are not listed may import what search may.
LAYERS = (
    {"errors", "interrupts"},
    {"state", "text_files", "visible"},
    {"tree", "tree_kernels", "tree_files", "tree_links"},
    {"paths", "taxonomy"},
    {"metrics"},
    {"data"},
    {"cost_table"},
    {"cost", "softmax", "builders"},
    {"objectives", "decisions"},
    {"evaluation", "trackers", "integrations"},
    {"search"},
    {"launch"},
    {"bench", "tune", "cli"},
)
ABOVE_AGENTS = {"launch", "bench", "tune", "cli"}
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
OPEN_TO_ENVS_AND_AGENTS = {"builders", "tree", "taxonomy", "cost", "cost_table", "paths", "data", "errors", "state"}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("treesearch", "envs", "agents")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(module: str, source: str, is_package: bool = False) -> Iterator[str]:
    """Dotted names of everything that ``source`` imports, at any depth; ``from a import b`` gives ``a.b``."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part(name: str) -> str:
    """The part of treesearch that a dotted name lies in; what the package itself exports counts as its owner's."""
    second = f"{name}.".split(".")[1]
    return EXPORTS.get(second, second)


EXPORTS = {
    name.rpartition(".")[2]: name.split(".")[1]
    for name in imports("treesearch", MODULES["treesearch"].read_text(), is_package=True)
}


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """What ``source``, the text of ``module``, imports against the direction."""
    top, own = module.split(".")[0], part(module)
    found = []
    for name in imports(module, source, is_package):
        to, target = name.split(".")[0], part(name)
        if top == "treesearch":
            upward = to == "treesearch" and RANK.get(target, 0) > RANK.get(own, RANK["search"])
            wrong = (upward and module != "treesearch") or (to in ("envs", "agents") and own not in ABOVE_AGENTS)
        else:
            inward = to == "treesearch" and target not in OPEN_TO_ENVS_AND_AGENTS
            wrong = inward or (top == "envs" and to == "agents")
        if wrong:
            found.append(f"{module} imports {name}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    path = MODULES[module]
    assert violations(module, path.read_text(), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("treesearch.paths", "from treesearch.cost import tree_cost"),
        ("treesearch.paths", "import treesearch.softmax.layer as layer"),
        ("treesearch.tree", "def f():\n    from treesearch import paths"),
        ("treesearch.cost", "from .evaluation import frozen"),
        ("treesearch.softmax.layer", "if TYPE_CHECKING:\n    from ..search import loop"),
        ("treesearch.builders.huffman", "from treesearch.evaluation import encoder"),
        ("treesearch.search.loop", "from agents import policy_gradient"),
        ("treesearch.report.tables", "import envs"),
        ("treesearch.report.tables", "from treesearch.launch import launch"),
        ("treesearch.search.loop", "import treesearch.cli"),
        ("envs.environment", "import agents.random_search"),
        ("envs.environment", "from treesearch.search import loop"),
        ("envs.environment", "from treesearch import softmax"),
        ("agents.evolution", "from treesearch.evaluation import frozen"),
        ("agents.evolution", "from treesearch import search"),
    ],
)
def test_a_planted_violation_is_seen(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("treesearch.search.loop", "from treesearch.evaluation import frozen\nfrom treesearch.tree import Tree"),
        ("treesearch.report.tables", "from treesearch.search import ledger"),
        ("treesearch.launch", "import envs\nimport agents\nfrom treesearch.search import loop"),
        ("treesearch.cli", "from treesearch.launch import launch"),
        ("envs.environment", "from treesearch import Tree, build_tree\nfrom treesearch.builders.splits import f"),
        ("agents.evolution", "from envs import actions\nfrom treesearch.errors import ConfigError"),
    ],
)
def test_what_the_direction_allows(module: str, source: str) -> None:
    assert violations(module, source) == []


def output_of(code: str, cwd: Path) -> str:
    """What ``code`` prints in a fresh interpreter that does not see the checkout through its working directory."""
    run = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_import_treesearch_is_light(tmp_path: Path) -> None:
    heavy = {"ray", "wandb", "typer", "gymnasium", "transformers", "envs", "agents"}
    heavy |= {"treesearch.cli", "treesearch.launch", "treesearch.integrations"}
    assert output_of(f"import sys, treesearch; print(*({heavy} & set(sys.modules)))", tmp_path) == ""


@pytest.mark.parametrize("module", ["report.page.write", "report.runs", "report.describe"])
def test_who_only_reads_results_does_not_wait_for_torch(module: str, tmp_path: Path) -> None:
    """Importing it takes longer than writing the page of 10,000 evaluations."""
    slow = {"torch", "ray", "scipy.stats", "gymnasium"}
    assert output_of(f"import sys, treesearch.{module}; print(*({slow} & set(sys.modules)))", tmp_path) == ""


@pytest.mark.slow
def test_integrations_do_without_the_packages_of_extras(tmp_path: Path) -> None:
    code = "import sys, treesearch.integrations.torch; print('transformers' in sys.modules)"
    assert output_of(code, tmp_path) == "False"


@pytest.mark.parametrize("package", ["treesearch", "envs", "agents"])
def test_the_packages_are_those_of_this_checkout(package: str, tmp_path: Path) -> None:
    """Another distribution on the registry has a package named ``agents``."""
    found = output_of(f"import {package}; print({package}.__file__)", tmp_path)
    assert found == str(ROOT / package / "__init__.py"), "the install is stale; run: pip install --no-deps -e ."

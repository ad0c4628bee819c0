"""The scripts and the style of a page, as text that stands in it; they are written by hand and need no build."""

from __future__ import annotations

from importlib import resources

from treesearch.errors import RunError

ASSETS = resources.files("treesearch.report.page") / "assets"
VIEWER_MODULES = (  # in the order in which to read them: one uses, while it is loaded, only names of those before it
    "arrays",
    "tree",
    "wording",
    "elements",
    "layout",
    "icicle",
    "finder",
    "stacking_table",
    "sorted_table",
    "path",
    "changes",
    "siblings",
    "tree_list",
    "mount",
)


def style() -> str:
    """The CSS of the page and of its tree viewer."""
    return "".join(_asset(name) for name in ("page.css", "viewer.css"))


def page_script() -> str:
    """The script of the page: theme, plots, refresh."""
    return _asset("page.js")


def viewer_script() -> str:
    """The script of the tree viewer: its modules in one scope, out of which only ``mountTreeViewer`` is seen."""
    modules = "\n".join(_asset(f"viewer/{name}.js") for name in VIEWER_MODULES)
    return f'(() => {{\n"use strict";\n\n{modules}}})();\n'


def plotly_script() -> str:
    """The text of plotly.js, as the Python package brings it along.

    Raises:
        RunError: The package holds no such file.
    """
    file = resources.files("plotly") / "package_data" / "plotly.min.js"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        raise RunError(f"the package plotly holds no {file.name}; install plotly>=6 again") from None
    return text.replace("</script", "<\\/script")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")

"""The file of a page: its sections, data, styles and scripts in one, with nothing to be loaded from elsewhere."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from treesearch.report.page import html
from treesearch.report.page.figure import Figure
from treesearch.report.page.scripts import page_script, plotly_script, style, viewer_script

GENERATOR = "treesearch report"


@dataclass(frozen=True)
class Section:
    """A part of the page: its id, its heading, and its HTML."""

    key: str
    title: str
    content: str


@dataclass(frozen=True)
class Page:
    """What a page holds beside its frame."""

    title: str
    state: str
    sections: tuple[Section, ...]
    figures: tuple[Figure, ...]
    tree: dict[str, Any] | None
    refresh: float | None  # seconds after which it loads itself again


def render(page: Page) -> str:
    """The whole file: nothing in it is loaded from elsewhere, and only the scripts written here can run."""
    scripts = [*([] if page.tree is None else [viewer_script()]), plotly_script(), page_script()]
    data = {
        "figures": {one.key: _variants(one) for one in page.figures if one.variants},
        "tree": page.tree,
        "refresh": page.refresh,
    }
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data: blob:",
            "style-src 'unsafe-inline'",
            f"script-src {' '.join(map(_digest, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    links = "".join(f'<a href="#{one.key}">{html.text(one.title)}</a>' for one in page.sections)
    sections = "".join(
        f'<section id="{one.key}"><h2>{html.text(one.title)}</h2>{one.content}</section>' for one in page.sections
    )
    written = time.strftime("%Y-%m-%d %H:%M:%S")
    live = '<label><input type="checkbox" id="live" checked> refresh</label>' if page.refresh is not None else ""
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en" data-theme="light"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{html.text(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="generator" content="{GENERATOR}">',
            f"<title>{html.text(page.title)} - treesearch</title><style>{style()}</style></head><body>",
            '<a class="skip" href="#result">Skip to the result</a>',
            f'<header><div><h1>{html.name(page.title)}</h1><p class="state">{html.text(page.state)}; written {written}'
            f'</p></div><div class="controls">{live}<button type="button" id="theme">Dark</button></div></header>',
            f'<nav aria-label="Sections">{links}</nav><main>{sections}</main>',
            f'<script type="application/json" id="report-data">{_json(data)}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>\n",
        )
    )


def _variants(figure: Figure) -> dict[str, Any]:
    variants = [{"name": one.name, "data": one.data, "layout": one.layout} for one in figure.variants]
    return {"title": figure.title, "summary": figure.summary, "variants": variants}


def _json(content: object) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'"

"""The page as a file: well-formed, whole, and with nothing in it that a name from outside could have put there."""

import base64
import json
import re
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.report.page import runs
from treesearch.config import with_overrides
from treesearch.report.page.document import run_page, runs_page
from treesearch.report.page.figures import run_figures
from treesearch.report.page.run_view import RunView, load_run
from treesearch.visible import visible

EMPTY = {"meta", "input", "br", "link", "img", "hr"}
RAW = {"script", "style"}


class Parsed(HTMLParser):
    """Elements, scripts and text of a page; fails where a tag does not end the last one that is open."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[dict[str, str | None], str]] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)
        if tag in RAW:
            self.raw.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        assert tag not in EMPTY
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in RAW:
            attributes, before = self.raw[-1]
            self.raw[-1] = (attributes, before + data)
            return
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def data(self) -> Any:
        (content,) = [text for attributes, text in self.raw if attributes.get("id") == "report-data"]
        return json.loads(content, parse_constant=pytest.fail)

    def scripts(self) -> list[str]:
        return [
            text
            for (tag, attributes), (_, text) in zip(self._raw_elements(), self.raw, strict=True)
            if tag == "script" and "type" not in attributes
        ]

    def _raw_elements(self) -> list[tuple[str, dict[str, str | None]]]:
        return [one for one in self.elements if one[0] in RAW]

    def attributes(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunView]:
    folder = tmp_path_factory.mktemp("document")
    made = {
        "hostile": runs.hostile(folder / "hostile <b>&"),
        "failures": runs.failures_only(folder / "failures"),
        "unfinished": runs.unfinished(folder / "unfinished"),
    }
    return {name: load_run(run.path) for name, run in made.items()}


@pytest.fixture(scope="module")
def pages(views: dict[str, RunView]) -> dict[str, str]:
    written = {name: run_page(view) for name, view in views.items()}
    written["live"] = run_page(replace(views["hostile"], comparison=None, running=True), refresh=2.5)
    written["several"] = runs_page(list(views.values()))
    return written


NAMES = ("hostile", "failures", "unfinished", "live", "several")


@pytest.mark.parametrize("name", NAMES)
def test_elements_and_ids(pages: dict[str, str], name: str) -> None:
    parsed = Parsed(pages[name])
    ids = parsed.attributes("id")
    assert Counter(ids).most_common(1)[0][1] == 1
    links = [str(attributes["href"]) for tag, attributes in parsed.elements if tag == "a"]
    assert len(links) >= 4
    assert [link for link in links if not link.startswith("#") or link[1:] not in ids] == []
    sections = [str(attributes["id"]) for tag, attributes in parsed.elements if tag == "section"]
    assert len(parsed.headings) == len(sections)
    assert all(parsed.headings)
    assert [link[1:] for link in links[1:]] == sections
    whole = ["result", "tree", "search", "settings", "glossary"]
    assert sections == [key for key in whole if key in sections]
    assert {"result", "search", "settings", "glossary"} <= set(sections)
    regions = [attributes for _, attributes in parsed.elements if attributes.get("role") == "region"]
    assert all(attributes.get("aria-label") for attributes in regions)


@pytest.mark.parametrize("name", NAMES)
def test_data_and_places_of_plots(pages: dict[str, str], name: str) -> None:
    parsed = Parsed(pages[name])
    data = parsed.data()
    assert set(data) == {"figures", "tree", "refresh"}
    assert data["refresh"] == (2.5 if name == "live" else None)
    assert sorted(parsed.attributes("data-figure")) == sorted(data["figures"])
    for figure in data["figures"].values():
        assert figure["title"]
        assert figure["summary"]
        assert len(figure["variants"]) >= 1
    assert (data["tree"] is None) == ("tree-viewer" not in parsed.attributes("id"))


@pytest.mark.parametrize("name", NAMES)
def test_only_its_own_scripts_may_run(pages: dict[str, str], name: str) -> None:
    parsed = Parsed(pages[name])
    (policy,) = [
        str(attributes["content"])
        for tag, attributes in parsed.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    digests = [base64.b64encode(sha256(script.encode()).digest()).decode() for script in parsed.scripts()]
    assert rules["script-src"] == [f"'sha256-{digest}'" for digest in digests]
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert len(digests) == 3 - (parsed.data()["tree"] is None)
    handlers = [key for _, attributes in parsed.elements for key in attributes if key.startswith("on")]
    assert handlers == []
    assert parsed.attributes("src") == []


def test_names_cannot_become_elements(pages: dict[str, str], views: dict[str, RunView]) -> None:
    parsed = Parsed(pages["hostile"])
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"img", "b", "svg", "iframe", "object", "form"}
    text = "".join(parsed.text)
    for name in (runs.HOSTILE_LABEL, runs.HOSTILE_REASON):
        assert name not in text
        assert visible(name) in text
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text) is None
    assert views["hostile"].name == "hostile <b>&"
    assert "hostile <b>& - treesearch" in text
    shown = parsed.data()["tree"]["names"]
    assert len(set(shown)) == len(shown) == len(runs.HOSTILE_NAMES)
    assert sum("</script>" in name for name in shown) == sum("</script>" in name for name in runs.HOSTILE_NAMES)
    data = pages["hostile"].split('id="report-data">')[1].split("</script>")[0]
    assert "<" not in data
    assert json.loads(data)["tree"]["names"] == shown


def test_hostile_settings_are_text(views: dict[str, RunView]) -> None:
    view = replace(
        views["unfinished"],
        name="</title><script>window.hacked=1</script>",
        path=Path("</summary><img src=x onerror=window.hacked=1>"),
        environment={"</pre><script>": "\x1b[31m</script>"},
    )
    parsed = Parsed(run_page(view))
    assert len(parsed.scripts()) == 2
    assert not {"img"} & {tag for tag, _ in parsed.elements}
    assert "</pre><script>" in "".join(parsed.text)


def test_pages_without_a_score_say_so(pages: dict[str, str]) -> None:
    for name, says in (
        ("failures", "No evaluation has a score: 2 of 2 failed"),
        ("unfinished", "No evaluation has finished yet."),
    ):
        text = "".join(Parsed(pages[name]).text)
        assert says in text
        assert "There is no tree to show" in text


def test_a_page_without_vectors_or_names_says_so(views: dict[str, RunView]) -> None:
    bare = replace(views["hostile"], class_vectors=None, class_names=None)
    text = "".join(Parsed(run_page(bare)).text)
    assert "neighbours are left out: with this many classes the ledger keeps no class vectors" in text
    assert "The classes have no names, so their ids are shown." in text
    text = "".join(Parsed(run_page(replace(bare, sessions=()))).text)
    assert "the run was written before ledgers kept class vectors" in text


def test_the_same_run_gives_the_same_page(views: dict[str, RunView], pages: dict[str, str]) -> None:
    """But for the time that stands in it."""
    written = r"written \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    again = run_page(load_run(views["hostile"].path))
    assert re.sub(written, "", again) == re.sub(written, "", pages["hostile"])


def test_unfinished_runs_are_compared_too(tmp_path: Path) -> None:
    """By what they were told to do: how far they are is told by their state."""
    one, other = runs.hostile(tmp_path / "one"), runs.unfinished(tmp_path / "other")

    def told(*overrides: str) -> list[str]:
        other.write_config(with_overrides(one.config(), overrides))
        page = runs_page([load_run(run.path) for run in (one, other)])
        return re.findall(r"not comparable: the runs&#x27; ([^<]*)", page)

    assert told() == []
    assert told("search.evaluations=99") == ["budgets (evaluations) differ: 24, 99"]
    assert told("cost.weight=0.25") == ["cost models differ"]
    assert told("confirm.seeds=9") == ["encoder, joint training or number of seeds differ"]
    with other.open() as ledger:
        ledger.set_meta("corpus", {"hash": "another"})
    assert told() == ["corpora differ: made up, another"]


def test_notes_of_tables_are_shown(pages: dict[str, str], views: dict[str, RunView]) -> None:
    """What a table leaves out is said."""
    notes = [figure.table.note for figure in run_figures(views["hostile"]) if figure.table is not None]
    assert any("left out" in note for note in notes)
    text = "".join(Parsed(pages["hostile"]).text)
    assert [note for note in notes if note not in text] == []

"""The tree viewer in a real browser: it shows what Python computed, with mouse and keyboard, and names stay text."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import console_errors, open_page, resize
from tests.report.page.browser_page import SCROLLING_TABLES, OpenPage
from tests.report.page.harness import viewer_page
from tests.report.page.headings import metrics_of
from tests.report.page.hostile import HOSTILE
from treesearch import Tree, build_tree
from treesearch.report.glossary_page import PAGE_TERMS, VIEWER_TERMS
from treesearch.report.page import tree_data
from treesearch.report.page.tree_data import ViewedTree, viewer_data

C, D = 300, 8
NAMES = (*HOSTILE, *(f"word{c}" for c in range(len(HOSTILE), C)))
COUNTS = np.floor(20_000 / (np.arange(C) + 3) ** 1.1)[::-1] + 1  # class 299 is the most frequent
COUNTS[50] = 0
ENTER, ESCAPE, BACKSPACE, UP, DOWN, LEFT, RIGHT = (
    "\ue007",
    "\ue00c",
    "\ue003",
    "\ue013",
    "\ue015",
    "\ue012",
    "\ue014",
)


def trees() -> tuple[dict[str, Tree], np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = 2 * rng.normal(size=(12, D))[rng.integers(0, 12, C)] + rng.normal(size=(C, D))
    best = build_tree("clustered", counts=COUNTS, vectors=vectors, arity=6)
    return {"best found": best, "huffman": build_tree("huffman", counts=COUNTS)}, vectors


TREES, VECTORS = trees()


def data_of(**changes: Any) -> dict[str, Any]:
    listed = [ViewedTree(name, tree) for name, tree in TREES.items()]
    return viewer_data(listed, counts=COUNTS, class_names=NAMES, **{"vectors": VECTORS, **changes})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    written = {}
    for theme in ("light", "dark"):
        written[theme] = folder / f"{theme}.html"
        written[theme].write_text(viewer_page(data_of(), theme=theme), encoding="utf-8")
    return written


class Page(OpenPage):
    """What tests do with an open viewer."""

    def focused(self) -> dict[str, Any]:
        return self.js(
            "const e = document.activeElement;"
            "return {node: e.dataset.node, level: e.getAttribute('aria-label').split('; ').pop(), stops:"
            " document.querySelectorAll('.tv-icicle [tabindex=\"0\"]').length}"
        )

    def choose_tree(self, index: int) -> None:
        code = (
            "const s = document.querySelector('select'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"
        )
        self.js(code, index)

    def search(self, text: str, *keys: str) -> None:
        """Paste a text into the search; then press keys."""
        field = self.one("input[role=combobox]")
        self.js(
            "const [e, text] = arguments; e.focus(); e.value = text; e.dispatchEvent(new Event('input'))", field, text
        )
        if keys:
            field.send_keys(*keys)


@pytest.fixture
def page(browser: Any, pages: dict[str, Path]) -> Iterator[Page]:
    opened = Page(browser, pages["light"])
    yield opened
    assert console_errors(browser) == []
    assert opened.js("return window.hacked") is None


def heaviest_children(tree: Tree, node: int) -> list[int]:
    mass = tree.node_mass(COUNTS)
    return sorted(tree.children(node).tolist(), key=lambda child: (-mass[child], child))


def test_names_stay_text(page: Page) -> None:
    """Each hostile name is found, and its path and tables show it; none becomes markup."""
    labels = data_of()["names"]
    shown = page.js(
        """
        const field = document.querySelector("input[role=combobox]");
        return arguments[0].map((label) => {
          field.value = label;
          field.dispatchEvent(new Event("input"));
          field.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
          return [document.querySelector(".tv-part h4").textContent, field.value];
        });
        """,
        labels[: len(HOSTILE)],
    )
    assert shown == [[label, label] for label in labels[: len(HOSTILE)]]
    page.search("<")
    assert len(page.all("[role=option] bdi")) == 5
    page.js("for (let i = 0; i < 6; i++) document.querySelectorAll('.tv-below button').forEach(b => b.click())")
    assert len(page.texts("tbody th")) > C
    tags = {tag.lower() for tag in page.js("return [...document.querySelectorAll('#viewer *')].map(e => e.tagName)")}
    assert not tags & {"img", "svg", "script", "b", "iframe", "a"}


def test_the_icicle_by_mouse(page: Page) -> None:
    tree = TREES["best found"]
    first = heaviest_children(tree, 0)[0]
    cells = page.all(".tv-cell")
    assert 10 < len(cells) <= 400
    assert cells[0].text.startswith("all classes")
    page.one(f'.tv-cell[data-node="{first}"]').click()
    assert page.one(".tv-root").get_attribute("data-node") == str(first)
    assert len(page.all(".tv-crumb")) == 2
    shown = page.js(
        "return [...document.querySelectorAll('.tv-cell')].filter(e => e.ariaLabel.endsWith('level 1 below'))"
        ".map(e => Number(e.dataset.node))"
    )
    assert shown == heaviest_children(tree, first)
    page.all(".tv-crumb")[0].click()
    assert page.one(".tv-root").get_attribute("data-node") == "0"
    page.one(".tv-leaf").click()
    assert page.texts(".tv-part h4")


def test_more_children_can_be_opened(browser: Any, tmp_path: Path) -> None:
    """One node over all classes: the cells of page after page are all of its children, each once."""
    flat = build_tree("flat", counts=COUNTS)
    path = tmp_path / "flat.html"
    listed = [ViewedTree("flat", flat), ViewedTree("huffman", TREES["huffman"])]
    path.write_text(viewer_page(viewer_data(listed, counts=COUNTS, class_names=NAMES, vectors=None)), encoding="utf-8")
    page, seen = Page(browser, path), []
    while True:
        seen += page.js("return [...document.querySelectorAll('.tv-leaf')].map(e => Number(e.dataset.node))")
        more = page.all(".tv-more")
        if not more:
            break
        page.js("arguments[0].click()", more[0])
    assert seen == heaviest_children(flat, 0)
    rarest = int(flat.leaf_class[seen[-40] - 1])
    page.search(NAMES[rarest], ENTER)
    assert page.one(".tv-found.tv-leaf").get_attribute("data-node") == str(seen[-40])
    assert "named by their most frequent classes: the run holds no class vectors" in page.texts("#viewer")[0]
    assert "by which neighbours are near: none are known" in page.texts("#viewer")[0]
    assert console_errors(browser) == []


def test_the_icicle_by_keyboard(page: Page) -> None:
    tree = TREES["best found"]
    first, second = heaviest_children(tree, 0)[:2]
    page.js("document.querySelector('.tv-icicle [tabindex=\"0\"]').focus()")
    assert page.focused() == {"node": "0", "level": "shown", "stops": 1}
    page.press(RIGHT)
    assert page.focused() == {"node": str(first), "level": "level 1 below", "stops": 1}
    page.press(DOWN)
    assert page.focused()["node"] == str(second)
    assert page.texts(".tv-details")[0].endswith("-way decision")
    page.press(RIGHT)
    assert page.focused() == {"node": str(heaviest_children(tree, second)[0]), "level": "level 2 below", "stops": 1}
    page.press(LEFT)
    page.press(ENTER)
    assert page.focused() == {"node": str(second), "level": "shown", "stops": 1}
    page.press(BACKSPACE)
    assert page.focused() == {"node": str(second), "level": "level 1 below", "stops": 1}
    page.press(UP)
    assert page.focused()["node"] == str(first)
    page.press(ENTER)
    page.press(ESCAPE)
    assert page.focused()["node"] == str(first)
    page.press(LEFT)
    assert page.focused()["node"] == "0"


SAID = """
const details = document.querySelector(".tv-details");
return [...document.querySelectorAll(".tv-cell")].map((cell) => {
  details.textContent = "";
  cell.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  const pointed = details.textContent;
  details.textContent = "";
  cell.focus({preventScroll: true});
  return [pointed, details.textContent];
});
"""


def test_keys_tell_of_each_cell_what_the_mouse_does(page: Page) -> None:
    said = page.js(SAID)
    assert len({pointed for pointed, _ in said}) > 10
    assert all(pointed and pointed == focused for pointed, focused in said)
    assert reached_by_arrows(page) == len(said)


def reached_by_arrows(page: Page) -> int:
    """How many cells arrow keys lead to, down each column from its first cell, and the cell above them all."""
    page.js(
        "window.reached = new Set();"
        "document.addEventListener('focusin', (event) => window.reached.add(event.target));"
        "document.querySelector('.tv-root').focus()"
    )
    levels = page.js("return [...document.querySelectorAll('.tv-cell')].map(e => e.ariaLabel.split('; ').pop())")
    for level in dict.fromkeys(levels):
        page.js(
            "[...document.querySelectorAll('.tv-cell')].find(e => e.ariaLabel.endsWith(arguments[0])).focus()", level
        )
        page.press(DOWN * levels.count(level))
    return page.js("return [...document.querySelectorAll('.tv-cell')].filter(e => window.reached.has(e)).length")


def test_search_shows_the_path(page: Page) -> None:
    cls = 280
    page.search("WORD28")
    options = page.texts("[role=option] bdi")
    assert options == ["word28", *(f"word{c}" for c in range(289, 279, -1))]
    field = page.one("input[role=combobox]")
    assert field.get_attribute("aria-expanded") == "true"
    field.send_keys(UP)
    active = page.one(f"#{field.get_attribute('aria-activedescendant')}")
    assert (active.text.split()[0], active.get_attribute("aria-selected")) == ("word280", "true")
    field.send_keys(ENTER)
    assert field.get_attribute("aria-expanded") == "false"
    assert page.texts(".tv-part h4") == ["word280"]
    tables = page.all(".tv-path")
    assert len(tables) == 2
    for box, tree in zip(tables, TREES.values(), strict=True):
        share, line = tree.node_mass(COUNTS) / COUNTS.sum(), [int(tree.class_leaf[cls])]
        while line[0]:
            line.insert(0, int(tree.parent[line[0]]))
        rows = page.js(
            "return [...arguments[0].querySelectorAll('tbody tr')].map(row => [row.cells[2].textContent,"
            " row.cells[3].dataset.share, row.cells[4].dataset.mass].map(Number))",
            box,
        )
        expected = [[tree.arities[a], share[b] / share[a], share[b]] for a, b in pairwise(line)]
        assert np.array(rows) == pytest.approx(np.array(expected), rel=1e-5)
        bits = sum(np.log2(tree.arities[node]) for node in line[:-1])
        assert f"Code length\n{bits:.2f} bits" in box.text
        assert f"Depth\n{len(line) - 1} decision" in box.text
    found = page.js("return [...document.querySelectorAll('.tv-found')].map(e => Number(e.dataset.node))")
    assert int(TREES["best found"].class_leaf[cls]) in found
    page.search("word50", ENTER)
    assert "It never occurs" in page.one(".tv-part").text
    page.search("no such name")
    assert page.texts("[role=listbox]") == ["No class has this in its name"]


def test_the_other_tree(page: Page) -> None:
    page.search("word290", ENTER)
    page.choose_tree(1)
    assert page.texts(".tv-part h4") == ["word290"]
    assert len(page.all(".tv-path")) == 1
    assert "choose another tree to compare it with" in page.texts("#viewer")[0]
    page.choose_tree(0)
    assert len(page.all(".tv-path")) == 2


def part_of(page: Page, title: str) -> Any:
    return next(part for part in page.all(".tv-part") if part.text.startswith(title))


def rows_of(page: Page, part: Any) -> list[list[str]]:
    return page.js(
        "return [...arguments[0].querySelectorAll('tbody tr')].map(r => [...r.cells].map(c => c.textContent))", part
    )


def test_changes_against_huffman_sort(page: Page) -> None:
    best, huffman = TREES.values()
    part = part_of(page, "Against Huffman's tree")
    labels = data_of()["names"]
    change = best.depths - huffman.depths
    order = sorted(range(C), key=lambda c: (-abs(change[c]), -COUNTS[c], c))
    rows = rows_of(page, part)
    assert [row[0] for row in rows] == [labels[c] for c in order[:50]]
    assert [int(row[4].replace("−", "-")) for row in rows] == change[order[:50]].tolist()
    assert [int(row[2]) for row in rows] == best.depths[order[:50]].tolist()
    page.js("arguments[0].querySelector('.tv-below button').click()", part)
    assert len(rows_of(page, part)) == 100
    keys: dict[int, Any] = {1: COUNTS, 2: best.depths, 3: huffman.depths}
    for column, key in keys.items():
        for sign, name in ((-1, "descending"), (1, "ascending")):
            part.find_elements("css selector", "thead button")[column].click()
            heads = page.js("return [...arguments[0].querySelectorAll('thead th')].map(h => h.ariaSort)", part)
            assert heads == [name if place == column else None for place in range(7)]
            wanted = sorted(range(C), key=lambda c: (sign * key[c], -COUNTS[c], c))[:50]
            assert [row[0] for row in rows_of(page, part)] == [labels[c] for c in wanted]
    part.find_element("css selector", "input").send_keys("word29")
    assert {row[0] for row in rows_of(page, part)} == {"word29", *(f"word{c}" for c in range(290, 300))}


def test_neighbours_that_became_siblings(page: Page) -> None:
    best, huffman = TREES.values()
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    cosine = np.where(COUNTS[None] > 0, unit @ unit.T, -2) - 3 * np.eye(C)
    nearest = cosine.argmax(axis=1)
    labels = data_of()["names"]

    def siblings(tree: Tree, c: int) -> bool:
        return bool(tree.parent[tree.class_leaf[c]] == tree.parent[tree.class_leaf[nearest[c]]])

    pairs = {
        frozenset((c, int(nearest[c])))
        for c in range(C)
        if COUNTS[c] and siblings(best, c) and not siblings(huffman, c)
    }
    part = part_of(page, "Nearest neighbours")
    while (button := part.find_element("css selector", ".tv-below button")).is_displayed():
        page.js("arguments[0].click()", button)
    rows = rows_of(page, part)
    assert len(rows) == len(pairs) > 20
    assert {frozenset(row[:2]) for row in rows} == {frozenset(labels[c] for c in pair) for pair in pairs}
    assert {row[4] for row in rows} == {"2"}
    seen = [c for c in range(C) if COUNTS[c]]
    share = sum(COUNTS[c] for c in seen if siblings(best, c)) / COUNTS.sum()
    assert f"{100 * share:.1f} % of the examples" in part.text


CONTRASTS = """
const parse = (text) => {
  const n = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
  const scale = text.startsWith('color(') ? 1 : 255;
  return {rgb: n.slice(0, 3).map(v => v / scale), alpha: n.length > 3 ? n[3] : 1};
};
const light = ({rgb}) => rgb.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (e) => { for (; e; e = e.parentElement) {
  const c = parse(getComputedStyle(e).backgroundColor); if (c.alpha > 0) return c; } return {rgb: [1, 1, 1]}; };
const walker = document.createTreeWalker(document.getElementById('viewer'), NodeFilter.SHOW_TEXT);
const found = {};
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const e = node.parentElement;
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort().reverse();
  const key = (e.closest('[class]')?.className ?? '') + ' in ' + (e.closest('button')?.className ?? '');
  found[key] = Math.min(found[key] ?? 99, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
}
return found;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1600])
def test_themes_and_widths(browser: Any, pages: dict[str, Path], theme: str, width: int) -> None:
    """Nothing wider than the window, and text in WCAG's contrast AA, 4.5 to 1."""
    resize(browser, width, 800)
    page = Page(browser, pages[theme])
    page.choose_tree(1)
    levels = page.js("return [...document.querySelectorAll('.tv-body .tv-cell')].map(e => +e.className.at(-1))")
    assert max(levels) == {320: 2, 768: 3, 1600: 4}[width]
    page.choose_tree(0)
    page.search("x" * 20, ENTER)
    assert page.js("return document.documentElement.scrollWidth") == width
    assert page.js(SCROLLING_TABLES) == []
    contrasts = page.js(CONTRASTS)
    assert len(contrasts) > 20
    assert {key: value for key, value in contrasts.items() if value < 4.5} == {}
    assert console_errors(browser) == []


def test_classes_that_are_not_in_the_page(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_data, "MAX_CLASSES", 40)
    monkeypatch.setattr(tree_data, "NUM_COMPARED", 20)
    path = tmp_path / "cut.html"
    path.write_text(viewer_page(data_of()), encoding="utf-8")
    page = Page(browser, path)
    assert "Of 300 classes the page holds the 40 most frequent" in page.texts("#viewer")[0]
    said = page.js(SAID)
    rare = [pointed for pointed, _ in said if pointed.endswith("rare classes, which are not in the page")]
    assert len(rare) == len(page.all(".tv-more[aria-disabled=true]")) > 0
    assert all(pointed == focused for pointed, focused in said)
    assert reached_by_arrows(page) == len(said)
    page.js("document.querySelector('.tv-more[aria-disabled=true]').click()")
    assert page.js("return document.querySelectorAll('.tv-cell').length") == len(said)
    page.search("word295", ENTER)
    assert page.texts(".tv-part h4") == ["word295"]
    assert "Class 295." in page.one(".tv-part").text
    parent = int(TREES["best found"].parent[TREES["best found"].class_leaf[299]])
    assert parent >= 0
    page.search("word265", ENTER)
    assert "not among the 20 classes compared" in page.one(".tv-part").text
    assert console_errors(browser) == []


def test_every_figure_that_the_viewer_shows_is_in_the_glossary(browser: Any, pages: dict[str, Path]) -> None:
    """And the glossary has no others of the viewer: what Python writes is checked in tests/report/test_glossary.py."""
    open_page(browser, pages["light"])
    field = browser.find_element("css selector", "input[role=combobox]")
    field.send_keys("word100", ENTER)
    headings = browser.execute_script(
        "return Array.from(document.querySelectorAll('thead th'), (one) => one.textContent)"
    )
    shown = metrics_of(headings)
    assert {"change of depth", "mass so far", "cosine"} <= shown
    explained = {metric.name for metric in PAGE_TERMS}
    assert shown - explained == set()
    assert {metric.name for metric in VIEWER_TERMS} - shown == set()

"""The page in a real browser: of a real search, of hostile names, of searches without a score, while one goes on."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.browser import console_errors, resize
from tests.report.page import runs
from tests.report.page.browser_page import SCROLLING_TABLES, ReportPage, hold_timers, prefer
from treesearch import Tree, build_tree
from treesearch.report.page.document import run_page
from treesearch.report.page.run_view import load_run
from treesearch.report.page.write import watch_report, write_report
from treesearch.search.run_folder import RunFolder
from treesearch.visible import visible

TAB, ENTER, SPACE = "\ue004", "\ue007", " "
GRAPHIC = ("--found", "--baseline", "--huffman", *(f"--series-{number}" for number in range(1, 9)))
LIGHT, DARK, NARROW = "light", "dark", 320
DAY = 86_400.0  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def real_page(local_run: Path, folder: Path) -> Path:
    return write_report([local_run], folder / "real.html")


@pytest.fixture(scope="module")
def hostile_page(folder: Path) -> Path:
    return write_report([runs.hostile(folder / "hostile").path])


@pytest.fixture
def page(browser: Any, real_page: Path) -> Iterator[ReportPage]:
    """The page of a real search, which a test leaves as it found it. At its end it has said nothing on the console."""
    yield ReportPage.shared(browser, real_page)
    assert console_errors(browser) == []


@pytest.fixture
def hostile(browser: Any, hostile_page: Path) -> Iterator[ReportPage]:
    """Likewise of a search over hostile names."""
    yield ReportPage.shared(browser, hostile_page)
    assert console_errors(browser) == []


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of the frozen rung under the latest features, read without our own code."""
    with closing(sqlite3.connect(f"file:{folder / 'search.db'}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        encoder = json.loads(db.execute("SELECT value FROM meta WHERE key = 'encoder'").fetchone()[0])
        query = "SELECT * FROM evaluations WHERE rung = 'frozen' AND encoder = ? ORDER BY id"
        return [dict(row) for row in db.execute(query, (encoder,))]


def meta_of(folder: Path, key: str) -> Any:
    with closing(sqlite3.connect(f"file:{folder / 'search.db'}?mode=ro", uri=True)) as db:
        return json.loads(db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])


# -- what it shows ----------------------------------------------------------------------------------------------------


def test_the_front_has_every_tree(page: ReportPage, local_run: Path) -> None:
    rows = rows_of(local_run)
    huffman = {row["tree_hash"] for row in rows if row["label"] == "huffman"}
    built = {row["tree_hash"] for row in rows if row["label"] is not None} - huffman
    first: dict[str, tuple[float, float]] = {}
    for row in rows:
        if row["valid_nll"] is not None:
            first.setdefault(row["tree_hash"], (row["cost"], row["valid_nll"]))

    def beaten(one: str) -> bool:
        cost, nll = first[one]
        return any(c <= cost and n <= nll and (c, n) != (cost, nll) for c, n in first.values())

    found = first.keys() - built - huffman
    expected = {
        "found": {one for one in found if beaten(one)},
        "found, front": {one for one in found if not beaten(one)},
        "builders": built,
        "Huffman": huffman,
        "front": {one for one in first if not beaten(one)},
    }
    shown = page.js("return document.getElementById('plot-pareto').data.map(t => [t.name, t.x, t.y])")
    assert {name for name, _, _ in shown} == {name for name, trees in expected.items() if trees}
    assert len(found) >= 10
    for name, costs, nlls in shown:
        wanted = sorted(first[one] for one in expected[name])
        assert sorted(zip(costs, nlls, strict=True)) == [pytest.approx(place, rel=1e-5) for place in wanted]
    drawn = page.js("return document.querySelectorAll('#plot-pareto .scatterlayer .point').length")
    assert drawn == len(first)


def test_every_plot_is_drawn_and_named(page: ReportPage) -> None:
    plots = page.js(
        "return [...document.querySelectorAll('[data-figure]')].map(e => [e.dataset.figure, e.role,"
        " e.ariaLabel, e.querySelector('.main-svg')?.clientHeight, [...e.querySelectorAll('.xtitle, .ytitle')].length])"
    )
    assert {"pareto", "progress", "actions", "learning"} <= {plot[0] for plot in plots}
    for key, role, label, height, _ in plots:
        assert (role, bool(label), (height or 0) > 150) == ("img", True, True), key


def test_variants_of_a_plot(page: ReportPage) -> None:
    """Each entry of the control above a plot draws another one."""
    places = page.js("return [...document.querySelectorAll('.variant + [data-figure]')].map(e => e.dataset.figure)")
    assert places
    for key in places:
        states = page.js(
            """
            const place = document.querySelector(`[data-figure="${arguments[0]}"]`);
            const select = place.previousElementSibling.querySelector("select");
            const choose = (i) => {
              select.selectedIndex = i;
              select.dispatchEvent(new Event("change"));
              return JSON.stringify([place.data, place.layout]);
            };
            const states = [...select.options].map((option, i) => choose(i));
            choose(0);
            return states;
            """,
            key,
        )
        assert len(states) > 1, key
        assert len(set(states)) == len(states), key


def test_searching_a_class_shows_its_path(page: ReportPage, local_run: Path) -> None:
    names, counts = meta_of(local_run, "class_names"), meta_of(local_run, "counts")
    comparison = RunFolder(local_run).comparison()
    cls = sorted(range(len(counts)), key=lambda c: -counts[c])[3]
    label = page.js("return [...document.querySelectorAll('#tree-viewer select option')].map(o => o.textContent)")
    page.one("input[role=combobox]").send_keys(names[cls], ENTER)
    assert page.text(".tv-part h4") == names[cls]
    boxes = page.all(".tv-path")
    hashes = {row["name"]: row["tree"] for row in comparison["rows"]}
    with RunFolder(local_run).read() as ledger:
        trees = [ledger.tree(hashes[label[0]]), build_tree("huffman", counts=counts, arity=2)]
    assert len(boxes) == 2
    for box, tree in zip(boxes, trees, strict=True):
        assert_path(page, box, tree, cls, counts)


def assert_path(page: ReportPage, box: Any, tree: Tree, cls: int, counts: list[float]) -> None:
    mass = [0.0] * len(tree.parent)
    for c, count in enumerate(counts):
        node = int(tree.class_leaf[c])
        while node >= 0:
            mass[node] += count
            node = int(tree.parent[node]) if node else -1
    line = [int(tree.class_leaf[cls])]
    while line[0]:
        line.insert(0, int(tree.parent[line[0]]))
    rows = page.js(
        "return [...arguments[0].querySelectorAll('tbody tr')].map(row =>"
        " [row.cells[3].dataset.share, row.cells[4].dataset.mass].map(Number))",
        box,
    )
    wanted = [[mass[b] / mass[a], mass[b] / sum(counts)] for a, b in pairwise(line)]
    assert rows == [pytest.approx(row, rel=1e-5) for row in wanted]


def test_the_table_of_changes_sorts_by_each_column(page: ReportPage) -> None:
    part = next(part for part in page.all(".tv-part") if part.text.startswith("Against Huffman's tree"))
    heads = part.find_elements("css selector", "thead button")
    assert len(heads) >= 5
    for column, head in enumerate(heads):
        seen = set()
        for _ in range(2):
            page.js("arguments[0].click()", head)
            state = page.js("return [...arguments[0].querySelectorAll('thead th')].map(h => h.ariaSort)", part)
            assert [place for place, order in enumerate(state) if order] == [column]
            cells = page.js(
                "return [...arguments[0].querySelectorAll('tbody tr')].map(r => r.cells[arguments[1]].textContent)",
                part,
                column,
            )
            values: list[Any] = [cell if column == 0 else number(cell) for cell in cells]
            if state[column] == "other":  # by size, whatever the sign
                assert sorted(map(abs, values), reverse=True) == list(map(abs, values))
            elif column:
                assert sorted(values, reverse=state[column] == "descending") == values
            else:
                folded = page.js("return arguments[0].toSorted((a, b) => a.localeCompare(b))", values)
                assert values == (folded if state[0] == "ascending" else folded[::-1])
            seen.add(state[column])
        assert len(seen) == 2


def number(cell: str) -> float:
    return float(cell.replace("−", "-").replace(",", "").split()[0].removesuffix("%"))


def test_the_table_of_confirmed_trees_fits_a_window_of_1280(page: ReportPage) -> None:
    sizes = page.js(
        "const e = document.querySelector('#result .scroll[aria-label=\"Confirmed trees\"]');"
        "return [e.scrollWidth, e.clientWidth]"
    )
    assert sizes[0] <= sizes[1]


# -- themes, widths, keys, contrast -----------------------------------------------------------------------------------


def colours(page: ReportPage) -> dict[str, str]:
    """Of the marks and of the writing in the first plot, with what the theme says they are."""
    return page.js(
        """
        const plot = document.getElementById("plot-pareto"), root = getComputedStyle(document.documentElement);
        const huffman = plot.data.find(t => t.name === "Huffman");
        return {mark: huffman.marker.color, theme: root.getPropertyValue("--huffman").trim(),
                text: plot._fullLayout.font.color, body: root.getPropertyValue("--text").trim()};
        """
    )


def test_light_and_dark(browser: Any, page: ReportPage) -> None:
    assert (page.theme(), page.one("#theme").text) == (LIGHT, "Dark")
    light = colours(page)
    prefer(browser, dark=True)
    page.until("return document.documentElement.dataset.theme === 'dark'", "the system's theme")
    page.drawn()
    dark = colours(page)
    page.one("#theme").click()  # from here on the choice counts, whatever the system prefers
    page.drawn()
    assert (page.theme(), colours(page)) == (LIGHT, light)
    page.driver.refresh()
    page.drawn()
    assert (page.theme(), colours(page)) == (LIGHT, light)
    page.js("localStorage.clear()")
    page.driver.refresh()
    page.drawn()
    assert (page.theme(), colours(page)) == (DARK, dark)
    for theme in (light, dark):
        assert theme["mark"] == theme["theme"]
        assert theme["text"] == theme["body"]
    assert not set(light.values()) & set(dark.values())


def test_every_control_is_reached_by_keys(page: ReportPage) -> None:
    wanted = page.js(
        """
        window.reached = new Set();
        document.addEventListener("focusin", (event) => window.reached.add(event.target));
        const all = [...document.querySelectorAll("a[href], button, select, input, summary, [tabindex]")];
        window.wanted = all.filter(e => e.tabIndex >= 0 && !e.disabled && e.checkVisibility());
        return window.wanted.length;
        """
    )
    page.press(TAB * (wanted + 5))
    missed = page.js("return window.wanted.filter(e => !window.reached.has(e)).map(e => e.outerHTML.slice(0, 200))")
    assert missed == []
    kinds = ("#theme", "nav a", "select", ".scroll", "summary", "#tree-viewer .tv-cell", "input[role=combobox]", "pre")
    unseen = [kind for kind in kinds if not page.js("return [...reached].some(e => e.matches(arguments[0]))", kind)]
    assert unseen == ["pre"]  # the configuration, which lies in closed details


def test_details_open_by_keys(page: ReportPage) -> None:
    for key in (ENTER, SPACE):
        page.js("document.querySelector('#settings summary').focus()")
        was = page.js("return document.querySelector('#settings details').open")
        page.driver.switch_to.active_element.send_keys(key)
        assert page.js("return document.querySelector('#settings details').open") is not was


def test_the_theme_button_by_keys(page: ReportPage) -> None:
    page.one("#theme").send_keys(ENTER)
    assert page.theme() == DARK
    assert page.one("#theme").get_attribute("aria-label") == "Show the page light"
    page.one("#theme").send_keys(SPACE)
    assert page.theme() == LIGHT


CONTRASTS = """
const parse = (text) => {
  const n = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
  const scale = text.startsWith("color(") ? 1 : 255;
  return {rgb: n.slice(0, 3).map(v => v / scale), alpha: n.length > 3 ? n[3] : 1};
};
const over = (top, ground) => top.rgb.map((v, i) => top.alpha * v + (1 - top.alpha) * ground[i]);
const light = (rgb) => rgb.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const ground = (e) => {
  const layers = [];
  for (; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
  return layers.reduce((below, layer) => over(layer, below), [1, 1, 1]);
};
const closed = [...document.querySelectorAll("details:not([open])")];
closed.forEach(d => d.open = true);
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const e = node.parentElement;
  if (!node.data.trim() || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
  if (e.closest("script, style, .modebar")) continue;
  const style = getComputedStyle(e), size = parseFloat(style.fontSize);
  const big = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const below = ground(e), inPlot = e instanceof SVGElement;
  const contrast = ratio(over(parse(inPlot ? style.fill : style.color), below), below);
  found.push([contrast / (big ? 3 : 4.5), contrast, node.data.trim().slice(0, 60), e.outerHTML.slice(0, 120)]);
}
const root = getComputedStyle(document.documentElement), probe = document.createElement("span");
document.body.append(probe);
const colour = (name) => { probe.style.color = `var(${name})`; return parse(getComputedStyle(probe).color).rgb; };
const marks = Object.fromEntries(arguments[0].map(name => [name, ratio(colour(name), colour("--surface"))]));
const lines = [ratio(colour("--focus"), colour("--surface")), ratio(colour("--focus"), colour("--bg"))];
probe.remove();
closed.forEach(d => d.open = false);
return {texts: found.length, low: found.filter(one => one[0] < 1), marks, lines, colours: root.length};
"""


@pytest.mark.slow
@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("which", ["page", "hostile"])
def test_contrast(browser: Any, theme: str, which: str, request: pytest.FixtureRequest) -> None:
    """WCAG 2 AA: 4.5 to 1 for text, 3 to 1 for large text, for what is drawn, and for the mark of the focus."""
    page: ReportPage = request.getfixturevalue(which)
    if page.theme() != theme:
        prefer(browser, dark=theme == DARK)
        page.until(f"return document.documentElement.dataset.theme === '{theme}'", "the system's theme")
        page.drawn()
    found = page.js(CONTRASTS, GRAPHIC)
    assert found["texts"] > 300
    assert found["low"] == []
    assert {name: value for name, value in found["marks"].items() if value < 3} == {}
    assert min(found["lines"]) >= 3


@pytest.mark.parametrize("which", ["real", "hostile"])
def test_a_narrow_window(browser: Any, which: str, real_page: Path, hostile_page: Path) -> None:
    """Nothing is wider than it, and the legends of plots lie clear of the buttons."""
    resize(browser, NARROW, 900)
    page = ReportPage(browser, real_page if which == "real" else hostile_page)
    page.spoil()  # its plots are drawn for this width
    page.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.js("return document.documentElement.scrollWidth") <= NARROW
    page.js("document.querySelector('#tree-viewer .tv-stacking .tv-link').click()")
    assert page.js("return document.querySelectorAll('.tv-path').length") == 2
    assert page.js(SCROLLING_TABLES) == []
    wide = page.js(
        "return [...document.querySelectorAll('.plot .main-svg')].map(e => e.getBoundingClientRect())"
        ".filter(box => box.left < 0 || box.right > arguments[0]).length",
        NARROW,
    )
    assert wide == 0
    clash = page.js(
        """
        return [...document.querySelectorAll(".plot")].filter((plot) => {
          const legend = plot.querySelector(".legend"), bar = plot.querySelector(".modebar-container");
          if (!legend || !bar) return false;
          const groups = [...bar.querySelectorAll(".modebar-group")];
          const low = Math.max(...groups.map(e => e.getBoundingClientRect().bottom));
          return legend.getBoundingClientRect().top < low;
        }).map((plot) => plot.id);
        """
    )
    assert clash == []
    assert page.js("return document.querySelectorAll('.plot .legend').length") > 2
    assert console_errors(browser) == []


# -- alone and safe ---------------------------------------------------------------------------------------------------


def test_nothing_is_loaded_from_elsewhere(browser: Any, real_page: Path) -> None:
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        page = ReportPage(browser, real_page)
        assert page.js("return performance.getEntriesByType('resource').map(e => e.name)") == []
        assert page.all(".tv-cell")
        assert console_errors(browser) == []
    finally:
        browser.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            offline | {"offline": False} | dict.fromkeys(("downloadThroughput", "uploadThroughput"), -1),
        )
        browser.execute_cdp_cmd("Network.disable", {})


def test_hostile_names_are_text(hostile: ReportPage) -> None:
    page = hostile
    page.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    hover = """
        const plot = document.getElementById("plot-pareto");
        const curve = plot.data.findIndex(t => t.name === "builders");
        const point = plot.data[curve].customdata.findIndex(row => row[0].includes("img"));
        Plotly.Fx.hover(plot, [{curveNumber: curve, pointNumber: point}]);
        return plot.querySelector(".hoverlayer").textContent;
    """
    label = visible(runs.HOSTILE_LABEL)
    assert label in page.js(hover)
    assert label in page.text("#result")
    assert visible(runs.HOSTILE_REASON) in page.text("main")
    made = page.js(
        "return [...document.querySelectorAll('main img, main b, main iframe, main object, main script, [onerror],"
        " [onload], section > svg, bdi *')].map(e => e.outerHTML.slice(0, 200))"
    )
    assert made == []
    assert page.js("return document.querySelectorAll('script:not([type])').length") == 3
    assert page.js("return [typeof window.hacked, document.title.includes('\\x1b')]") == ["undefined", False]


def test_a_script_that_got_in_would_not_run(browser: Any, hostile: ReportPage) -> None:
    """The second wall: what is not one of the page's own scripts is refused, and nothing can be sent anywhere."""
    page = hostile
    page.spoil()
    page.js(
        """
        window.violations = [];
        document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.effectiveDirective));
        const place = document.createElement("div");
        place.innerHTML = '<img src="data:," onerror="window.hacked = 1">'
          + '<a id="bait" onclick="window.hacked = 2">x</a>';
        document.body.append(place);
        document.getElementById("bait").click();
        const script = document.createElement("script");
        script.textContent = "window.hacked = 3";
        document.body.append(script);
        """
    )
    refused = page.driver.execute_async_script(
        "const [done] = arguments;fetch('https://example.org/').then(() => done('sent'), () => done('refused'))"
    )
    assert (page.js("return typeof window.hacked"), refused) == ("undefined", "refused")
    told = page.js("return window.violations")
    assert sorted(told) == ["connect-src", "script-src-attr", "script-src-attr", "script-src-elem"]
    errors = console_errors(browser)
    assert sum("Content Security Policy" in error for error in errors) >= 4, errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (runs.failures_only, "No evaluation has a score: 2 of 2 failed, the first with FloatingPointError"),
        (runs.unfinished, "No evaluation has finished yet."),
    ],
)
def test_without_a_score(browser: Any, make: Callable[[Path], RunFolder], says: str, folder: Path) -> None:
    page = ReportPage(browser, write_report([make(folder / make.__name__).path]))
    assert page.text(".verdict").startswith(says)
    assert "There is no tree to show" in page.text("#tree")
    assert console_errors(browser) == []


@pytest.mark.slow
def test_several_runs(browser: Any, local_run: Path, hostile_page: Path, folder: Path) -> None:
    page = ReportPage(browser, write_report([local_run, hostile_page.parent], folder / "several.html"))
    assert page.text("#result table").count("finished") == 2
    assert len(page.all("[data-figure]")) == 2
    assert console_errors(browser) == []


# -- while a search goes on -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_follows_a_search(browser: Any, folder: Path) -> None:
    """It loads itself again while a process works on the run, and no longer after the last writing."""
    run = runs.hostile(folder / "watched")
    run.comparison_file.unlink()
    file = run.report_file
    shown: list[str] = []
    pages: list[ReportPage] = []
    lock = run.lock()

    def looked(seconds: float) -> None:
        assert seconds == 1.0
        if not pages:
            pages.append(ReportPage(browser, file))
            pages[0].until("return document.querySelector('#live').checked", "the box")
        page, count = pages[0], len(load_run(run.path).frozen)
        result = "document.querySelector('#result').textContent"
        shown.append(page.until(f"return {result}.includes('{count} of') && {result}", "the new number"))
        if len(shown) == 2:
            lock.__exit__(None, None, None)
            return
        with run.open() as ledger:
            row = ledger.rows()[1]
            ledger.record(replace(row, id=ledger.next_id()), ledger.tree(row.tree_hash))

    lock.__enter__()
    told: list[str] = []
    watch_report([run.path], interval=1.0, told=told.append, sleep=looked)
    page = pages[0]
    page.until("return document.querySelector('#live') === null && document.documentElement.dataset.drawn", "the end")
    assert ["is running" in text for text in shown] == [True, True]
    assert "All 25 evaluations are done, but the search was stopped" in page.text("#result")
    assert page.js("return JSON.parse(document.getElementById('report-data').textContent).refresh") is None
    assert [line.split(";")[0] for line in told] == [f"wrote {file}"] * 2
    assert console_errors(browser) == []


TICK = "const due = window.held; window.held = []; due.forEach(run => run()); return due.length"


@pytest.fixture
def live_page(browser: Any, folder: Path) -> Iterator[ReportPage]:
    """A page of a run that goes on; it loads itself again when `TICK` runs what it has put off."""
    run = runs.hostile(folder / "live")
    with run.lock(), hold_timers(browser, seconds=DAY):
        run.report_file.write_text(run_page(load_run(run.path), refresh=DAY), encoding="utf-8")
        page = ReportPage(browser, run.report_file)
        page.until("return window.held.length === 1", "the page to wait")
        page.js("window.same = true")
        yield page
        assert console_errors(browser) == []
        shutil.rmtree(run.path)


@pytest.mark.slow
def test_a_page_that_is_used_waits(live_page: ReportPage) -> None:
    """Not loaded again while a control has the focus, nor when the box is not checked."""
    page = live_page
    page.js("document.querySelector('#tree-viewer .tv-cell').focus()")
    assert page.js(TICK) == 1
    page.js("document.querySelector('.variant select').focus()")
    assert page.js(TICK) == 1
    page.one("#live").click()
    assert page.js(TICK) == 1
    page.one("#live").click()
    assert page.js("return [window.same, window.held.length]") == [True, 1]
    assert page.js(TICK) == 1
    page.until("return window.same === undefined", "the page to load itself again")


@pytest.mark.slow
def test_what_was_chosen_stays_when_the_page_loads_itself_again(live_page: ReportPage) -> None:
    page = live_page
    page.js(
        """
        const select = document.querySelector("#search .variant select");
        select.selectedIndex = 1;
        select.dispatchEvent(new Event("change"));
        document.querySelector("#figure-pareto details").open = true;
        """
    )
    drawn = "return document.querySelector('#search .plot').layout.xaxis.title.text"
    before = page.js(drawn)
    assert page.js(TICK) == 1
    page.until("return window.same === undefined && document.documentElement.dataset.drawn", "the next page")
    assert page.js("return document.querySelector('#search .variant select').selectedIndex") == 1
    assert page.js(drawn) == before
    opened = page.js(
        "return [...document.querySelectorAll('details')].filter(d => d.open).map(d => d.parentElement.id)"
    )
    assert opened == ["figure-pareto"]

"""The plots in a real browser: text from outside is shown letter by letter, in labels and on hovering."""

import json
from dataclasses import replace
from pathlib import Path

import plotly
import pytest

from tests.browser import start_browser
from tests.report.page.test_figures import METRICS, full_rows, with_colours
from tests.report.page.views import view_of
from treesearch.report.page.figures import run_figures

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
NAMES = (
    "<b>bold</b>",
    "%{x}<extra>gone</extra>",
    "--found",
    "<img src=x onerror='window.hacked=1'>",
    "a &lt; b &#60;",
    "<a href='javascript:0'>l</a>",
)
TEXTS = "return [...document.querySelectorAll('.js-plotly-plot text')].map(text => text.textContent)"
HOVERED = """Plotly.Fx.hover(document.getElementById('pareto-0'), [{curveNumber: 1, pointNumber: 0}]);
return [...document.querySelectorAll('.hoverlayer text')].map(text => text.textContent).join('')"""


def page(figures):
    """A page with nothing but the plots."""
    plots = {
        f"{figure.key}-{place}": with_colours([variant.data, variant.layout])
        for figure in figures
        for place, variant in enumerate(figure.variants)
    }
    divisions = "".join(f'<div id="{key}"></div>' for key in plots)
    content = json.dumps(plots, allow_nan=False).replace("<", "\\u003c")
    return f"""<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">{divisions}
<script>{PLOTLY.read_text()}</script><script>
for (const [key, [data, layout]] of Object.entries({content}))
  Plotly.newPlot(key, data, layout, {{displayModeBar: false}});</script>"""


@pytest.mark.slow
def test_names_are_shown_letter_by_letter(tmp_path):
    rows = [replace(one, agent=NAMES[0]) if one.agent == "hybrid" else one for one in full_rows(NAMES)]
    figures = run_figures(view_of(tmp_path / "run", rows, metrics=METRICS))
    (tmp_path / "page.html").write_text(page(figures))
    with start_browser() as browser:
        browser.get((tmp_path / "page.html").as_uri())
        texts = browser.execute_script(TEXTS)
        for name in NAMES:  # beside the map of actions, which cuts after 30 letters
            assert name in texts or f"{name[:29]}…" in texts
        hovered = browser.execute_script(HOVERED)
        assert f"by {NAMES[0]}NLL" in hovered
        assert "first " in hovered
        assert browser.execute_script("return window.hacked") is None
        assert browser.execute_script("return document.querySelectorAll('.js-plotly-plot :is(a, img)').length") == 0
        assert browser.get_log("browser") == []

"""The smallest page that the tree viewer can live in."""

import json
from typing import Any

from treesearch.report.page.scripts import style, viewer_script


def viewer_page(data: dict[str, Any], *, theme: str = "light") -> str:
    """A page with nothing but the viewer."""
    content = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>Viewer</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>{style()}</style></head>
<body><main><section><div id="viewer"></div></section></main>
<script type="application/json" id="data">{content}</script>
<script>{viewer_script()}</script>
<script>
const viewerData = JSON.parse(document.getElementById("data").textContent);
const begun = performance.now();
mountTreeViewer(document.getElementById("viewer"), viewerData);
window.mountMilliseconds = performance.now() - begun;
</script></body></html>
"""

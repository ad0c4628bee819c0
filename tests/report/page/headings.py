"""The headings of tables in a page, as the glossary names them."""

from html.parser import HTMLParser

from treesearch.report.glossary import glossary_rows
from treesearch.report.glossary_terms import TRACKER

# Columns that say which row it is, not a figure.
IDENTIFIERS = {
    "tree",
    "kind",
    "run",
    "state",
    "agent",
    "best found tree",
    "proposed by",
    "action",
    "what",
    "rung",
    "variant",
}
IDENTIFIERS |= {"class", "nearest neighbour", "decision at", "metric", "unit", "meaning", "where", "number", "reason"}
UNITS = ("nats", "edges", "bits", "units", "µs", "s", "minutes", "share", "decisions", "updates", "evaluations")


class Headings(HTMLParser):
    """Collects the texts of ``<th scope="col">``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "th":
            self._inside = dict(attrs).get("scope") == "col"
            self.found += [""] * self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "th"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] += data


def metric_of(heading: str) -> str | None:
    """The glossary's name of a heading: without unit, interval and mark of sorting; None for an identifier."""
    name = heading.split("[")[0].split("(mean")[0].split("|")[0].strip(" ▲▼\n\xa0")
    before, comma, unit = name.rpartition(", ")
    name = before if comma and unit in UNITS else name
    name = name if name.isupper() or not name[:1].isupper() or name.startswith(("NLL", "HR", "NDCG")) else name.lower()
    name = name.replace("huffman", "Huffman")
    return None if name in IDENTIFIERS else name


def metrics_of(headings: list[str]) -> set[str]:
    """The metrics under these headings, but for an agent's own, which trackers show too."""
    names = {name for heading in headings if (name := metric_of(heading)) is not None}
    return {name for name in names if f"agent/{name}" not in {one.name for one in glossary_rows(TRACKER)}}


def page_metrics(page: str) -> set[str]:
    """The metrics that the tables of a page show, but for those that a script makes."""
    parser = Headings()
    parser.feed(page)
    return metrics_of(parser.found)

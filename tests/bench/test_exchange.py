from treesearch.bench import exchange
from treesearch.exchange import FORMATS


def test_every_format_is_measured():
    rows = exchange.run(num_classes=200)
    assert [(row["tree"], row["format"]) for row in rows] == [
        (tree, format) for tree in ("balanced", "huffman") for format in FORMATS
    ]
    for row in rows:
        assert row["megabytes"] > 0
        assert (row["read_seconds"] is None) == (FORMATS[row["format"]].read is None)

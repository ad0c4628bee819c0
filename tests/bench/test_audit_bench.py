import pytest

from treesearch.bench import audit


@pytest.mark.slow
def test_every_operation_is_measured() -> None:
    rows = audit.run(num_classes=60, num_examples=20, repeats=1)
    assert [row["tree"] for row in rows] == 4 * ["Huffman"] + 4 * ["clustered"] + 2 * ["flat root"]
    assert {row["operation"] for row in rows} == {
        "audit",
        "predictions alone",
        "audit with features",
        "records to JSON Lines",
    }
    assert all(row["seconds"] > 0 for row in rows)
    assert rows[-1]["depth"] == 1
    assert {row["target_seconds"] for row in rows} == {audit.TARGET_SECONDS, None}

"""Ready taxonomies, on the real data where they are there."""

import os
import warnings
from pathlib import Path

import pytest

from treesearch.errors import ConfigError, TreeError
from treesearch.taxonomy import sources

DATA = Path(os.environ.get("TREESEARCH_DATA", "none"))


def data(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"no {name} under $TREESEARCH_DATA")
    return DATA / name


def test_wordnet() -> None:
    taxonomy = sources.wordnet_nouns(data("wordnet/noun_synsets.tsv"))
    assert (taxonomy.num_nodes, taxonomy.num_classes, taxonomy.num_levels) == (82_116, 65_218, 20)
    poodle = taxonomy.node("poodle")
    path = []
    while poodle >= 0:
        path.append(taxonomy.names[poodle].split("#")[0])
        poodle = taxonomy.parent[poodle]
    assert path[:3] == ["poodle", "dog", "canine"]
    assert path[-2:] == ["entity", "ROOT"]


def test_wordnet_table(tmp_path: Path) -> None:
    path = tmp_path / "nouns.tsv"
    path.write_text("synset\thypernym\tlemmas\n1\tROOT\tthing\n2\t1\tbank|shore\n3\t1\tbank\n4\t2\tsandbank\n")
    assert sources.wordnet_nouns(path).names == ("ROOT", "thing", "bank#2", "bank#3", "sandbank")
    assert sources.wordnet_nouns(path).class_names == ("bank#3", "sandbank")
    assert sources.wordnet_nouns(path, classes="all").num_classes == 4
    path.write_text("\ufeffsynset\thypernym\tlemmas\r\n1\tROOT\ta\u2028b\r\n2\tROOT\tc\r\n", newline="")
    assert sources.wordnet_nouns(path).names == ("ROOT", "a\u2028b", "c")
    path.write_text("synset\thypernym\n")
    with pytest.raises(TreeError, match="must have the column 'lemmas'"):
        sources.wordnet_nouns(path)
    path.write_text("synset\thypernym\tlemmas\n1\tROOT\n")
    with pytest.raises(TreeError, match=r"line 2 of .* must have 3 fields, but has 2"):
        sources.wordnet_nouns(path)


def test_clinc150() -> None:
    taxonomy = sources.clinc150(data("clinc150"))
    assert taxonomy.tree.arities.tolist() == [10] + [15] * 10
    assert taxonomy.names[taxonomy.ancestors(1)[taxonomy.class_names.index("pin_change")]] == "banking"


def test_chess() -> None:
    folder = data("chess-openings")
    codes = sources.chess_openings(folder)
    assert (codes.num_classes, codes.num_levels) == (500, 3)
    assert codes.tree.arities.tolist() == [5] + [10] * 55
    names = sources.chess_openings(folder, by="name")
    french = names.node("French Defense")
    assert names.names[names.parent[french]] == "C"
    assert names.class_at[french] >= 0  # the defence itself has lines of its own
    with pytest.raises(ConfigError, match="'code' or 'name'"):
        sources.chess_openings(folder, by="pgn")  # type: ignore[arg-type]


@pytest.mark.slow
def test_icd10cm() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the package reads its files in an old way
        pytest.importorskip("simple_icd_10_cm")
        taxonomy = sources.icd10cm()
        words = sources.icd10cm_descriptions(taxonomy)
    code = taxonomy.node("A00.0")
    path = [code]
    while taxonomy.parent[path[-1]] >= 0:
        path.append(int(taxonomy.parent[path[-1]]))
    assert [taxonomy.names[node] for node in path] == ["A00.0", "A00", "A00-A09", "1", "ROOT"]
    assert words[code].startswith("Cholera due to Vibrio cholerae")
    block = taxonomy.node("B10-B10")
    assert taxonomy.names[taxonomy.parent[block]] == "1"
    assert taxonomy.parent[taxonomy.node("B10")] == block
    assert words[block] == words[taxonomy.node("B10")]

"""The builder of a taxonomy's own tree: sources, what it keeps, what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treesearch import Tree, build_tree
from treesearch.errors import ConfigError, DataError, TreeError
from treesearch.taxonomy import Taxonomy, load_taxonomy

LINES = "dog\tanimal\ncat\tanimal\nanimal\tROOT\nhammer\tROOT\n"


def test_every_source_gives_the_tree_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    file = tmp_path / "animals.tsv"
    file.write_text(LINES)
    taxonomy = load_taxonomy(file)
    for source, recorded in ((taxonomy, taxonomy.tree.hash), (file, str(file)), (taxonomy.tree, taxonomy.tree.hash)):
        tree = build_tree("taxonomy", counts=np.ones(3), taxonomy=source, seed=2)
        assert tree.to_nested() == [[0, 1], 2]
        assert tree.class_names == ("dog", "cat", "hammer")
        assert tree.node_names == ("ROOT", "animal")
        tree.save(tmp_path / "tree.json")
        again = Tree.load(tmp_path / "tree.json")
        assert Taxonomy.of(again).names == taxonomy.names
        kept = {key: again.metadata[key] for key in ("builder", "options", "seed")}
        assert kept == {"builder": "taxonomy", "options": {"taxonomy": recorded}, "seed": 2}
        json.dumps(dict(tree.metadata))
    plain = build_tree("flat", counts=np.ones(3))
    assert plain.metadata == {"builder": "flat", "options": {}, "seed": 0}


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        (None, DataError, "builder 'taxonomy' needs a taxonomy of the classes, but got none"),
        ({"a": ["b", "c"]}, DataError, "must have the 3 classes of the counts, but has 2"),
        ("none.tsv", TreeError, "taxonomy 'none.tsv' cannot be read"),
        (Tree.from_nested([0, 1, 2]), TreeError, "the tree holds no taxonomy"),
        (7, TreeError, "a taxonomy must be a file"),
    ],
)
def test_what_is_refused(source: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        build_tree("taxonomy", counts=np.ones(3), taxonomy=source)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="has no option 'arity'"):
        build_tree("taxonomy", counts=np.ones(3), taxonomy={"a": ["b", "c"], "d": []}, arity=3)

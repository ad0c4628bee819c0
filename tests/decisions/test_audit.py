"""Audits against the layer's own numbers, naive alternatives, and one example at a time."""

import json
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn

from tests.decisions.test_attribution import D, projected, random_layer
from tests.nested import Naive, nested_trees, random_nested
from treesearch import HierarchicalSoftmax, Tree, build_tree
from treesearch.decisions.attribution import integrated_gradients, linear_contributions
from treesearch.decisions.audit import Audit, explain
from treesearch.decisions.posthoc import PosthocTree
from treesearch.errors import DataError, TreeError
from treesearch.taxonomy import taxonomy_from_edges

RNG = np.random.default_rng(0)
ARRAYS = ("classes", "node", "taken", "alternative", "log_prob", "path_log_prob", "alternative_log_prob", "margin")


def inputs(num: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(num, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def check_against_nodes(audit: Audit, log_prob_BM: np.ndarray, num_alternatives: int) -> None:
    """Every number of an audit from the log-probabilities of all nodes, by naive loops."""
    tree = audit.tree
    for row, cls in enumerate(audit.classes.tolist()):
        node, way = int(tree.class_leaf[cls]), []
        while node >= 0:
            way.append(node)
            node = int(tree.parent[node])
        way.reverse()
        assert audit.length[row] == len(way) - 1
        assert audit.node[row, len(way) - 1 :].tolist() == [-1] * (audit.node.shape[1] - len(way) + 1)
        assert not audit.log_prob[row, len(way) - 1 :].any()
        for place, (node, taken) in enumerate(pairwise(way)):
            assert (audit.node[row, place], audit.taken[row, place]) == (node, taken)
            decided = log_prob_BM[row] - log_prob_BM[row, node]
            others = [child for child in tree.children(node).tolist() if child != taken]
            others.sort(key=lambda child: -decided[child])
            expected = others[:num_alternatives] + [-1] * (num_alternatives - len(others))
            assert audit.alternative[row, place].tolist() == expected
            for child, value in zip(expected, audit.alternative_log_prob[row, place], strict=True):
                assert value == (pytest.approx(decided[child], abs=1e-9) if child >= 0 else -np.inf)
            assert audit.log_prob[row, place] == pytest.approx(decided[taken], abs=1e-9)
            assert audit.path_log_prob[row, place] == pytest.approx(log_prob_BM[row, taken], abs=1e-9)
            assert audit.margin[row, place] == pytest.approx(decided[taken] - decided[others[0]], abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(nested=nested_trees(max_leaves=15), seed=st.integers(0, 99), num=st.integers(0, 4), bias=st.booleans())
def test_every_number_of_a_layers_audit(nested: Naive, seed: int, num: int, bias: bool) -> None:
    layer = random_layer(projected(nested, seed), seed, bias=bias)
    hidden = inputs(4, seed)
    audit = explain(layer, hidden, num_alternatives=num)
    assert audit.classes.tolist() == layer.log_prob(hidden).argmax(1).tolist()
    nodes = layer.subtree_log_probs(hidden).detach().numpy()
    check_against_nodes(audit, nodes, num)
    np.testing.assert_allclose(audit.class_log_prob, layer.log_prob(hidden).max(1).values.detach(), atol=1e-9)
    own = layer.node_log_probs(hidden, torch.from_numpy(audit.classes))
    length = audit.node.shape[1]
    np.testing.assert_allclose(own.log_prob[:, :length].detach(), audit.log_prob, atol=1e-12)
    assert np.array_equal(own.node[:, :length], audit.node)
    asked = explain(layer, hidden, target=torch.zeros(4, dtype=torch.int64), num_alternatives=num)
    assert not asked.classes.any()
    check_against_nodes(asked, nodes, num)


@settings(deadline=None, max_examples=20)
@given(nested=nested_trees(max_leaves=15), seed=st.integers(0, 99), num=st.integers(0, 4))
def test_a_flat_model_read_on_a_tree(nested: Naive, seed: int, num: int) -> None:
    tree = Tree.from_nested(nested)
    torch.manual_seed(seed)
    flat = nn.Linear(D, tree.num_classes, dtype=torch.float64)
    posthoc, hidden = PosthocTree(flat, tree), inputs(4, seed)
    audit = explain(posthoc, hidden, num_alternatives=num)
    prob = flat(hidden).softmax(1).detach()
    assert audit.classes.tolist() == prob.argmax(1).tolist()
    below = torch.zeros(4, tree.num_nodes, dtype=torch.float64)
    for cls in range(tree.num_classes):
        node = int(tree.class_leaf[cls])
        while node >= 0:
            below[:, node] += prob[:, cls]
            node = int(tree.parent[node])
    check_against_nodes(audit, below.log().numpy(), num)
    own = posthoc.node_log_probs(hidden, torch.from_numpy(audit.classes))
    assert own.node.shape == (4, tree.max_depth)
    np.testing.assert_allclose(own.log_prob.sum(1), audit.class_log_prob, atol=1e-9)


@pytest.mark.parametrize("kind", ["linear", "encoder", "posthoc"])
def test_no_example_depends_on_the_others(kind: str) -> None:
    """An audit that reads the path of sample 0 for all, as NBDT's does, fails here."""
    tree = projected(random_nested(RNG, 40, 6), 1)
    layer = random_layer(tree) if kind != "posthoc" else PosthocTree(nn.Linear(D, 40, dtype=torch.float64), tree)
    encoder = nn.Sequential(nn.Linear(D, D), nn.Tanh()).double().eval() if kind == "encoder" else None
    hidden, order = inputs(9), np.random.default_rng(1).permutation(9)
    whole = explain(layer, hidden, encoder=encoder, num_features=3, tolerance=1e-6)
    assert len(set(whole.classes.tolist())) > 3
    permuted = explain(layer, hidden[torch.from_numpy(order)], encoder=encoder, num_features=3, tolerance=1e-6)
    for row in range(9):
        single = explain(layer, hidden[row : row + 1], encoder=encoder, num_features=3, tolerance=1e-6)
        place = int(np.flatnonzero(order == row)[0])
        num = single.length[0]
        for one, at in ((single, 0), (permuted, place)):
            for name in ARRAYS:
                own, same = getattr(whole, name)[row], getattr(one, name)[at]
                if own.ndim:
                    own, same = own[:num], same[:num]
                np.testing.assert_allclose(own, same, atol=1e-9, err_msg=name)
            assert whole.features is not None
            assert one.features is not None
            for name in ("feature", "contribution", "total"):
                own, same = getattr(whole.features, name)[row, :num], getattr(one.features, name)[at, :num]
                np.testing.assert_allclose(own, same, atol=1e-9, err_msg=name)


def test_features_are_those_of_the_margins() -> None:
    tree = projected(random_nested(RNG, 30, 6), 2)
    layer, hidden, baseline = random_layer(tree), inputs(6), inputs(1, 3)[0]
    audit = explain(layer, hidden, num_features=D + 2, baseline=baseline)
    assert audit.features is not None
    ids = [torch.from_numpy(array) for array in (audit.node, audit.taken, audit.alternative[:, :, 0])]
    exact = linear_contributions(layer, hidden, baseline, *ids).numpy()
    chosen, shares = audit.features.feature, audit.features.contribution
    assert chosen.shape == (*audit.node.shape, D)  # all there are
    for at in zip(*np.nonzero(audit.node >= 0), strict=True):
        assert chosen[at].tolist() == np.argsort(-np.abs(exact[at]), kind="stable").tolist()
        np.testing.assert_allclose(shares[at], exact[at][chosen[at]], atol=1e-12)
    # Completeness: what the margin differs from that of the baseline.
    base = explain(layer, baseline[None].expand(6, -1), target=torch.from_numpy(audit.classes), num_alternatives=20)
    for row, place in zip(*np.nonzero(audit.node >= 0), strict=True):
        rival = audit.alternative[row, place, 0]
        at_base = base.alternative_log_prob[row, place][base.alternative[row, place] == rival][0]
        expected = audit.margin[row, place] - (base.log_prob[row, place] - at_base)
        assert audit.features.total[row, place] == pytest.approx(expected, abs=1e-9)


def test_features_through_an_encoder() -> None:
    torch.manual_seed(1)
    encoder = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, D)).double().eval()
    layer, raw = random_layer(Tree.from_nested([[0, 1, 2], [3, [4, 5]]])), torch.randn(5, 4).double()
    audit = explain(layer, raw, encoder=encoder, num_features=2, feature_names=["a", "b", "c", "d"])
    assert audit.features is not None
    hidden = explain(layer, encoder(raw))
    np.testing.assert_allclose(audit.log_prob, hidden.log_prob)
    for row, place in zip(*np.nonzero(audit.node >= 0), strict=True):
        taken, rival = audit.taken[row, place], audit.alternative[row, place, 0]

        def score(x: Tensor, taken: int = taken, rival: int = rival) -> Tensor:
            found = layer.subtree_log_probs(encoder(x))
            return found[:, taken] - found[:, rival]

        values = integrated_gradients(score, raw[row : row + 1]).values[0].numpy()
        order = np.argsort(-np.abs(values))[:2]
        assert audit.features.feature[row, place].tolist() == order.tolist()
        np.testing.assert_allclose(audit.features.contribution[row, place], values[order], atol=1e-6)
    assert {row["name"] for row in audit.records()[0]["decisions"][0]["features"]} <= set("abcd")


def test_a_detour_is_marked() -> None:
    # Left has 0.6, on two classes; the best class is on the right.
    layer = PosthocTree(
        lambda x: torch.tensor([[0.3, 0.3, 0.4]]).log().expand(len(x), 3), Tree.from_nested([[0, 1], 2])
    )
    audit = explain(layer, torch.zeros(2, 1))
    assert audit.classes.tolist() == [2, 2]
    assert audit.detour.tolist() == [[True], [True]]
    assert audit.margin[0, 0] == pytest.approx(np.log(0.4 / 0.6), abs=1e-6)
    assert audit.records()[0]["decisions"][0]["likeliest"] is False
    assert "not the likeliest child" in rendered(audit, 0)


def rendered(audit: Audit, example: int) -> str:
    file = StringIO()
    Console(file=file, width=120).print(audit.render(example))
    return file.getvalue()


def test_records_lines_and_views(tmp_path: Path) -> None:
    labels = taxonomy_from_edges(
        [("animal", "ROOT"), ("rock", "ROOT"), ("eagle", "animal"), ("[owl]", "animal"), ("carp é", "animal")],
        classes=["eagle", "[owl]", "carp é", "rock"],
    )
    layer = random_layer(labels.tree)
    audit = explain(layer, inputs(5), target=torch.tensor([0, 1, 2, 3, 0]), num_features=2, feature_names=list("vwxyz"))
    path = tmp_path / "audit.jsonl"
    audit.write_jsonl(path)
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert records == audit.records()
    assert [record["class_name"] for record in records] == ["eagle", "[owl]", "carp é", "rock", "eagle"]
    assert list(records[0]) == ["example", "class", "class_name", "log_prob", "prob", "minimum", "decisions"]
    decision = records[1]["decisions"][1]
    assert list(decision) == [
        "node", "name", "taken", "taken_name", "log_prob", "prob", "path_log_prob", "path_prob", "margin", "likeliest",
        "alternatives", "features", "contribution_total",
    ]  # fmt: skip
    assert (decision["name"], decision["taken_name"]) == ("animal", "[owl]")
    assert {other["name"] for other in decision["alternatives"]} == {"eagle", "carp é"}
    assert records[1]["prob"] == pytest.approx(np.prod([one["prob"] for one in records[1]["decisions"]]))
    assert records[1]["minimum"] == min(one["prob"] for one in records[1]["decisions"])
    text = rendered(audit, 1)
    for part in ("example 1: [owl]", "ROOT > animal", "animal > [owl]", "path ", "or ", "for "):
        assert part in text
    assert f"{decision['features'][0]['contribution']:+.2f} {decision['features'][0]['name']}" in text


def test_what_is_impossible_is_null() -> None:
    log_prob = torch.tensor([[0.0, -np.inf, -np.inf, -np.inf]])
    layer = PosthocTree(lambda x: log_prob.expand(len(x), 4), Tree.from_nested([0, 1, [2, 3]]))
    record = explain(layer, torch.zeros(1, 1), num_alternatives=9).records()[0]
    (decision,) = record["decisions"]
    assert decision["margin"] is None
    assert sorted(other["node"] for other in decision["alternatives"]) == [1, 3]
    assert {other["log_prob"] for other in decision["alternatives"]} == {None}
    json.dumps(record, allow_nan=False)
    wrong = explain(layer, torch.zeros(1, 1), target=torch.tensor([1]))
    assert json.loads(json.dumps(wrong.records(), allow_nan=False))[0]["log_prob"] is None


def test_one_class_and_no_example() -> None:
    single = random_layer(Tree.from_nested(0))
    for layer in (single, PosthocTree(single.log_prob, single.tree)):
        audit = explain(layer, inputs(3), num_features=2)
        assert audit.records()[2] == {
            "example": 2, "class": 0, "class_name": None, "log_prob": 0.0, "prob": 1.0, "minimum": 1.0, "decisions": [],
        }  # fmt: skip
        assert "class 0  1" in rendered(audit, 0)
    layer = random_layer(Tree.from_nested([[0, 1], 2, 3]))
    assert explain(layer, inputs(0), num_features=1).records() == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types(dtype: torch.dtype) -> None:
    layer = random_layer(Tree.from_nested([[0, 1], [2, 3, 4]]), dtype=dtype)
    hidden = inputs(4, dtype=dtype)
    audit = explain(layer, hidden, num_features=1)
    exact = explain(layer.double(), hidden.double(), target=torch.from_numpy(audit.classes))
    np.testing.assert_allclose(audit.log_prob, exact.log_prob, atol=0.1 if dtype == torch.bfloat16 else 0.02)


def test_a_root_of_many_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treesearch.decisions.branches.NUMBERS_AT_ONCE", 10_000)  # several parts
    layer = HierarchicalSoftmax(D, build_tree("flat", counts=np.ones(3000)), dtype=torch.float64)
    hidden = inputs(11)
    audit = explain(layer, hidden, num_alternatives=5)
    best = layer.log_prob(hidden).topk(6, dim=1)
    assert np.array_equal(audit.classes, best.indices[:, 0])
    np.testing.assert_allclose(audit.alternative_log_prob[:, 0], best.values[:, 1:].detach(), atol=1e-12)


def test_bad_input() -> None:
    layer = random_layer(Tree.from_nested([[0, 1], 2]))
    hidden = inputs(2)
    for arguments, message in (
        ({"input": hidden[0]}, "input must be a batch"),
        ({"input": hidden[:, :3]}, "input must have 5 features"),
        ({"input": hidden.float()}, "input must have the type of the layer"),
        ({"input": hidden * torch.nan, "target": torch.tensor([0, 1])}, "those of example 0 are NaN"),
        ({"target": torch.tensor([0, 3])}, r"target must lie in \[0, 3\)"),
        ({"target": torch.tensor([0])}, r"target must have shape \[2\]"),
        ({"num_alternatives": -1}, "num_alternatives must be a whole number >= 0"),
        ({"num_features": 1.5}, "num_features must be a whole number >= 0"),
        ({"feature_names": ["a"]}, "feature_names must be one per feature, 5, but are 1"),
        ({"num_features": 1, "baseline": torch.zeros(3)}, "a baseline must be a tensor"),
        ({"layer": nn.Linear(5, 3)}, "layer must be a HierarchicalSoftmax or a PosthocTree"),
        ({"encoder": nn.Dropout()}, r"call encoder.eval\(\)"),
    ):
        settings = {"layer": layer, "input": hidden} | arguments
        with pytest.raises(DataError, match=message):
            explain(settings.pop("layer"), settings.pop("input"), **settings)
    with pytest.raises(DataError, match=r"example must be a whole number in \[0, 1\]"):
        explain(layer, hidden).render(2)
    with pytest.raises(DataError, match="one output per class, 3, but has 4"):
        PosthocTree(nn.Linear(5, 4), layer.tree)
    with pytest.raises(TreeError, match="tree must be a Tree"):
        PosthocTree(nn.Linear(5, 4), None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="use log_softmax"):
        explain(PosthocTree(lambda x: x[:, :3].abs() + 1, layer.tree), hidden)


@pytest.mark.parametrize("nested", [[[0, 1], [2, 3]], [0, 1, 2, 3]])
@pytest.mark.parametrize("target", range(4))
def test_alternatives_that_are_impossible_are_listed_nevertheless(nested: Naive, target: int) -> None:
    tree = Tree.from_nested(nested)
    flat = PosthocTree(lambda x: torch.tensor([[1.0, 0, 0, 0]]).log().expand(len(x), 4), tree)
    for num in (1, 2, 4):
        audit = explain(flat, torch.zeros(1, 2), target=torch.tensor([target]), num_alternatives=num)
        for place in range(int(audit.length[0])):
            others = [other for other in audit.alternative[0, place].tolist() if other != Audit.NO_NODE]
            arity = int(tree.arities[audit.node[0, place]])
            assert len(set(others)) == len(others) == min(num, arity - 1)
            assert int(audit.taken[0, place]) not in others

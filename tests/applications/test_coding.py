"""`treesearch apply coding`: texts to codes of a small classification that is written down here."""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import treesearch
from treesearch.applications import coding
from treesearch.applications.coding import Coder, Wording, coding_task, narrow, taxonomy_below, train_and_score
from treesearch.applications.coding.coder import ENCODER_FILE, TEXTS_FILE, check_query
from treesearch.applications.coding.heads import CodingFlat, CodingTree
from treesearch.applications.coding.narrowing import WIDTH, narrowing_lines
from treesearch.applications.coding.pieces import Pieces, words_of
from treesearch.applications.coding.run import summary_rows
from treesearch.applications.coding.scores import held_out_scores, safe_nodes
from treesearch.applications.coding.task import CodingTask, label_nodes
from treesearch.applications.coding.training import TrainedCoder, calibrate, coding_settings, train_coder
from treesearch.applications.commands.coding import coding as command
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import ConfigError, DataError, MissingExtraError, TreeError
from treesearch.taxonomy import Taxonomy, taxonomy_from_edges

ORGANS = {"1": ("heart", "vein"), "2": ("lung", "throat")}
KINDS = ("inflammation", "cancer", "injury")


def small() -> tuple[Taxonomy, list[Wording]]:
    """Two chapters of two blocks of three categories: codes are two of each but of the last, which is one itself."""
    edges, texts = [], []
    for chapter, organs in ORGANS.items():
        edges.append((chapter, "ROOT"))
        texts.append((chapter, f"diseases of {' and '.join(organs)}", "description"))
        for organ in organs:
            block = f"{organ[0].upper()}0-{organ[0].upper()}9"
            edges.append((block, chapter))
            texts.append((block, f"{organ} diseases", "description"))
            for number, kind in enumerate(KINDS):
                category = f"{organ[0].upper()}{number}"
                edges.append((category, block))
                texts.append((category, f"{kind} of the {organ}", "description"))
                texts.append((category, f"{organ} {kind} unnamed", "inclusion term"))
                for sub, side in enumerate(("acute", "chronic") if kind != "injury" else ()):
                    edges.append((f"{category}.{sub}", category))
                    texts.append((f"{category}.{sub}", f"{side} {kind} of the {organ}", "description"))
                    texts.append((f"{category}.{sub}", f"{organ} with {side} {kind}", "inclusion term"))
                    texts.append((f"{category}.{sub}", f"{kind}, {side}, {organ} wall", "inclusion term"))
    taxonomy = taxonomy_from_edges(edges)
    return taxonomy, [Wording(text, taxonomy.node(name), kind) for name, text, kind in texts]  # type: ignore[arg-type]


@functools.cache
def trained() -> tuple[CodingTask, TrainedCoder, Coder]:
    task = coding_task(*small(), seed=0)
    found = train_coder(task, seed=0, settings=coding_settings(task, epochs=30))
    return task, found, Coder.of(task, found)


def hidden(num: int, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed))


def test_held_out_texts_are_never_learned_from() -> None:
    taxonomy, wordings = small()
    leaf, other = taxonomy.node("H0.0"), taxonomy.node("L1.1")
    wordings += [
        Wording("Ambiguous  TERM", leaf, "inclusion term"),
        Wording("ambiguous term", other, "inclusion term"),
        Wording("Acute inflammation -- of the heart", leaf, "inclusion term"),  # its description, but for the signs
    ]
    tests = set()
    for seed in range(3):
        task = coding_task(taxonomy, wordings, seed=seed)
        again = coding_task(taxonomy, wordings, seed=seed)
        assert task.test_texts == again.test_texts
        tests.add(task.test_texts)
        words = [set(map(tuple, split.inputs.tolist())) for split in (task.train, task.valid, task.test)]
        held = {" ".join(words_of(text)) for text in task.test_texts}
        others = [one for one in wordings if " ".join(words_of(one.text)) not in held]
        assert not held & {" ".join(words_of(one.text)) for one in others}
        assert len(held) == len(task.test) == 44 - 22 - 9 == len(task.test_texts)
        assert not held & {"ambiguous term", "acute inflammation of the heart"}
        assert len(task.train) + len(task.valid) + len(task.test) == len(wordings) - 1  # it is there already
        assert len(words[0]) <= len(task.train)
        node_of = {one.text: one.node for one in wordings}
        assert label_nodes(taxonomy, task.test.labels).tolist() == [node_of[text] for text in task.test_texts]
    assert len(tests) == 3
    assert (label_nodes(taxonomy, np.arange(taxonomy.num_classes, dtype=np.int32)) == taxonomy.class_node).all()


def test_pieces() -> None:
    pieces = Pieces.of(["Colic colitis", "Zoster"])
    assert pieces.words == ("colic", "colitis", "zoster")
    assert pieces.pieces == ("<col", "coli")  # what two words share
    assert pieces.ids("COLIC") == [0, 3, 4]
    assert pieces.ids("colitic") == [3, 4]
    assert pieces.ids("?") == pieces.ids("herpes") == []
    assert (pieces.unknown("a colic"), pieces.num_known("a colic")) == (["a"], 1)
    assert pieces.bags(["zoster", "colic", ""]).tolist() == [[5, 5, 2], [0, 3, 4], [5, 5, 5]]


@pytest.mark.parametrize("head", [CodingTree, CodingFlat])
def test_a_label_has_the_mass_of_the_codes_below_it(head: Any) -> None:
    taxonomy, _ = small()
    made = head(8, taxonomy)
    hidden_BD = hidden(taxonomy.num_nodes)
    label_B = torch.arange(taxonomy.num_nodes) + taxonomy.num_classes
    prob_BC, nll_B = made.log_prob(hidden_BD).exp().detach(), made.nll(hidden_BD, label_B).tolist()
    for node in range(taxonomy.num_nodes):
        below = [c for c, own in enumerate(taxonomy.class_node) if node in _path(taxonomy, int(own))]
        expected = -prob_BC[node, below].sum().log()
        assert nll_B[node] == pytest.approx(float(expected), abs=1e-5)
    class_B = torch.arange(taxonomy.num_classes)
    found = made.nll(hidden_BD[: len(class_B)], class_B)
    torch.testing.assert_close(found, -prob_BC[class_B, class_B].log())


def _path(taxonomy: Taxonomy, node: int) -> list[int]:
    nodes = [node]
    while nodes[-1]:
        nodes.append(int(taxonomy.parent[nodes[-1]]))
    return nodes


@pytest.mark.parametrize("head", [CodingTree, CodingFlat])
def test_calibration_finds_the_temperature_that_made_the_labels(head: Any) -> None:
    taxonomy, _ = small()
    made = head(8, taxonomy)
    hidden_TD = hidden(4000) * 3
    label_T = torch.distributions.Categorical(logits=made.log_prob(hidden_TD)).sample()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter *= 2
    found = calibrate(made, hidden_TD, label_T)
    assert found == pytest.approx([2.0] * len(found), rel=0.15)
    assert len(found) == (4 if head is CodingTree else 1)


def test_a_depth_that_few_labels_reach_has_the_temperature_of_the_one_above() -> None:
    taxonomy, _ = small()
    made = CodingTree(8, taxonomy)
    label_T = torch.tensor([taxonomy.num_classes + taxonomy.node("H0-H9")] * 20 + [0] * 20)
    label_T = torch.cat([label_T, torch.full([10], taxonomy.num_classes + taxonomy.node("L0"))])
    found = calibrate(made, hidden(50), label_T)
    assert len(found) == 4
    assert found[0] != found[1]
    assert found[1] != found[2] == found[3]


def test_the_deepest_safe_node_is_that_of_a_search_over_all() -> None:
    taxonomy, _ = small()
    layer = CodingTree(8, taxonomy).layer
    for scale in (2, 20, 100):
        probs = NodeProbs.of_layer(layer, hidden(30, seed=scale) * scale)
        for threshold in (0.3, 0.5, 0.9, 1.0):
            found = safe_nodes(probs, taxonomy, threshold)
            for row, node in enumerate(found):
                prob = probs.prob[row].numpy()[taxonomy.tree_node]
                enough = [(taxonomy.depth[n], prob[n], n) for n in range(taxonomy.num_nodes) if prob[n] >= threshold]
                assert node == max(enough)[2]


def test_a_single_chapter_is_no_answer() -> None:
    taxonomy, _ = small()
    part = taxonomy_below(taxonomy, ["2"])
    assert part.class_names == tuple(name for name in taxonomy.class_names if name[0] in "LT")
    even = NodeProbs.of_log_prob(part.tree, torch.full((1, part.num_classes), -np.log(part.num_classes)))
    assert safe_nodes(even, part, 0.9).tolist() == [0]
    assert taxonomy_below(taxonomy).names == taxonomy.names
    assert taxonomy_below(taxonomy, classes=["H0.0", "L2"]).class_names == ("H0.0", "L2")
    with pytest.raises(ConfigError, match=r"unknown chapter '3'; known: 1, 2"):
        taxonomy_below(taxonomy, ["1", "3"])


def test_scores_against_counting() -> None:
    task, found, _ = trained()
    taxonomy, model = task.taxonomy, found.trained.model
    scores = held_out_scores(model, task, thresholds=[0.6])
    with torch.no_grad():
        log_prob = model.log_prob(torch.from_numpy(task.test.inputs).long())
    best = taxonomy.class_node[log_prob.argmax(1).numpy()]
    truth = label_nodes(taxonomy, task.test.labels)
    for row in scores["levels"]:
        level = row["level"]
        counted = [(b, t) for b, t in zip(best, truth, strict=True) if taxonomy.depth[t] >= level]
        above = taxonomy.node_ancestors(level)
        assert row["num"] == len(counted)
        assert row["accuracy"] == pytest.approx(np.mean([above[b] == above[t] for b, t in counted]))
        assert 0 <= row["confidence"] <= 1
        assert 0 <= row["calibration_error"] <= 1
    codes = taxonomy.class_at[truth] >= 0
    assert scores["code_accuracy"] == pytest.approx((best == truth)[codes].mean())
    assert scores["levels"][0]["accuracy"] == 1  # an organ is of one chapter
    safe = safe_nodes(NodeProbs.of_log_prob(taxonomy.tree, log_prob), taxonomy, 0.6)
    pairs = [(s, t) for s, t in zip(safe.tolist(), truth.tolist(), strict=True) if s]
    right = [s in _path(taxonomy, t) or t in _path(taxonomy, s) for s, t in pairs]
    expected = {"threshold": 0.6, "answered": len(pairs) / len(truth), "accuracy": np.mean(right)}
    assert {key: scores["safe"][0][key] for key in expected} == pytest.approx(expected)
    assert scores["safe"][0]["level"] == pytest.approx(np.mean([taxonomy.depth[s] for s, _ in pairs]))
    assert scores["safe"][0]["code"] == pytest.approx(np.mean(taxonomy.class_at[safe] >= 0))


def test_a_level_that_some_seeds_lack_is_left_out() -> None:
    task, found, _ = trained()
    run = held_out_scores(found.trained.model, task) | {"seconds": 1.0}
    rows = summary_rows({"hs": [run, run | {"levels": run["levels"][:-1]}]}, task.taxonomy)
    assert [level["level"] for level in rows[0]["levels"]] == [1, 2, 3]
    assert "subcategory" not in str([column._cells for column in coding.levels_table(rows).columns])
    assert rows[0]["intervals"]["nll"] == {"mean": run["nll"], "low": run["nll"], "high": run["nll"], "n": 2}


def test_narrowing() -> None:
    _, _, coder = trained()
    texts = ["chronic cancer of the heart", "throat", "an injury of the lungs"]
    records = narrow(coder, texts, confidence=0.6, num_alternatives=99, num_codes=99)
    assert [record["path"][0]["code"] for record in records] == ["1", "2", "2"]
    assert records[0]["path"][-1]["code"] == "H1.1"
    assert records[0]["safe"]["code"] == "H1.1"
    assert records[1]["path"][1]["code"] == "T0-T9"
    assert records[2]["unknown_words"] == ["an", "lungs"]
    taxonomy = coder.taxonomy
    for record, text in zip(records, texts, strict=True):
        assert record == narrow(coder, [text], confidence=0.6, num_alternatives=99, num_codes=99)[0]
        running = 1.0
        for node in record["path"]:
            assert node["probability"] == pytest.approx(running * node["conditional"])
            others = [other["probability"] for other in node["alternatives"]]
            assert sum(others) + node["probability"] == pytest.approx(running)
            assert others == sorted(others, reverse=True)
            assert node["probability"] >= max(others, default=0)
            assert node["description"] == coder.descriptions[taxonomy.node(node["code"])]
            running = node["probability"]
        assert sum(code["probability"] for code in record["codes"]) == pytest.approx(1, abs=1e-5)
        lines = list(narrowing_lines(record))
        assert max(map(len, lines)) <= WIDTH
        assert sum("<= safe at 0.6" in line for line in lines) == 1
    assert "  not known, read by their parts: an, lungs" in narrowing_lines(records[2])
    assert [node["kind"] for node in records[0]["path"]] == ["chapter", "block", "category", "code"]
    unsure = narrow(coder, ["throat"], confidence=1.0)[0]
    assert unsure["safe"] is None
    assert any("no node reaches 1" in line for line in narrowing_lines(unsure))
    for text, message in (("", "must hold a word"), (" -!", "must hold a word"), ("qzx qq", "has none; reword it")):
        with pytest.raises(ConfigError, match=message):
            narrow(coder, ["heart", text])
    with pytest.raises(ConfigError, match=r"confidence must lie in \[0, 1\], but got nan"):
        narrow(coder, ["heart"], confidence=float("nan"))


def test_a_saved_coder_says_the_same(tmp_path: Path) -> None:
    task, _, coder = trained()
    coder.save(tmp_path / "coder")
    loaded = Coder.load(tmp_path / "coder")
    assert narrow(loaded, ["acute heart"]) == narrow(coder, ["acute heart"])
    done = treesearch("apply", "coding", "--load", str(tmp_path / "coder"), "--query", "acute heart", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"queries": narrow(coder, ["acute heart"]), "rows": []}
    flat = train_coder(task, seed=0, head="flat", settings=coding_settings(task, epochs=1))
    with pytest.raises(ConfigError, match="needs a hierarchical softmax"):
        Coder.of(task, flat)
    texts = json.loads((tmp_path / "coder" / TEXTS_FILE).read_text())
    for name, content in (
        (TEXTS_FILE, "[]"),
        (TEXTS_FILE, "{"),
        (TEXTS_FILE, json.dumps(texts | {"words": texts["words"][1:]})),
        (TEXTS_FILE, json.dumps(texts | {"descriptions": texts["descriptions"][1:]})),
        (TEXTS_FILE, json.dumps(texts | {"format": "other"})),
        (ENCODER_FILE, "nothing"),
    ):
        coder.save(tmp_path / "damaged")
        (tmp_path / "damaged" / name).write_text(content)
        with pytest.raises(DataError, match="must be whole, but is damaged; save it again"):
            Coder.load(tmp_path / "damaged")
    with pytest.raises(DataError, match="cannot be read"):
        Coder.load(tmp_path / "none")
    (tmp_path / "damaged" / "layer" / "tree.json").unlink()
    with pytest.raises(TreeError):
        Coder.load(tmp_path / "damaged")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    taxonomy, wordings = small()
    monkeypatch.setattr(coding, "icd10cm_chapters", functools.partial(taxonomy_below, taxonomy))
    monkeypatch.setattr(coding, "icd10cm_wordings", lambda part: wordings)
    command(chapters="1, 2", seeds=2, epochs=4, as_json=True)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["head"] for row in rows] == ["hs", "flat"]
    for row in rows:
        assert [level["kind"] for level in row["levels"]] == ["chapter", "block", "category", "subcategory 1"]
        assert [one["threshold"] for one in row["safe"]] == [0.5, 0.8, 0.9, 0.95]
        values = [run["code_accuracy"] for run in row["runs"]]
        assert row["code_accuracy"] == pytest.approx(np.mean(values))
        assert row["intervals"]["code_accuracy"]["n"] == 2
    difference = rows[0]["against_flat"]["nll"]["mean"]
    assert difference == pytest.approx(rows[0]["nll"] - rows[1]["nll"])
    command(chapters="all", epochs=4, query=["acute heart", "chronic lung"], save=tmp_path / "coder")
    out, err = capsys.readouterr()
    assert out.startswith("acute heart\n  chapter")
    assert "\nchronic lung\n" in out
    assert max(map(len, out.splitlines())) <= 100
    assert "Held-out terms by level" in out
    assert "Answered with the deepest safe node" in out
    assert "Not for clinical use" in err
    for query, message in (("", "must hold a word"), ("qzx", "has none; reword it")):
        with pytest.raises(ConfigError, match=message):
            command(chapters="all", query=[query])
    with pytest.raises(ConfigError, match="unknown chapter '7'"):
        command(chapters="7")


def test_bad_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for options, message in (
        (("--confidence", "2"), "confidence must lie in [0, 1], but got 2.0"),
        (("--load", "x"), "--load needs a text to code; give --query TEXT"),
        (("--load", "x", "--epochs", "3", "--query", "y"), "--epochs is of a training"),
        (("--load", "x", "--query", "y"), "coder 'x' cannot be read"),
        (("--seeds", "0"), "'--seeds'"),
    ):
        done = treesearch("apply", "coding", *options)
        assert done.code == 2
        assert message in done.err
        assert "Traceback" not in done.err
    taxonomy, wordings = small()
    with pytest.raises(DataError, match=r"at least 10 inclusion terms .* but there are 1; take more chapters"):
        coding_task(taxonomy, [one for one in wordings if one.kind == "description"] + wordings[-2:], seed=0)
    inner = taxonomy_from_edges([("a", "ROOT"), ("b", "a"), ("c", "ROOT")], classes=["a", "b", "c"])
    with pytest.raises(DataError, match="codes must be leaves of the taxonomy"):
        coding_task(inner, [], seed=0)
    with pytest.raises(ConfigError, match="seeds must be >= 1, but got 0"):
        train_and_score(taxonomy, wordings, num_seeds=0)
    with pytest.raises(ConfigError, match="heads must hold 'hs'"):
        train_and_score(taxonomy, wordings, heads=["flat"])
    with pytest.raises(ConfigError, match=r"must hold a word, but got '\.\.\.'"):
        check_query("...", Pieces.of(["a"]))
    monkeypatch.setitem(sys.modules, "simple_icd_10_cm", None)
    with pytest.raises(MissingExtraError, match="treesearch\\[taxonomies\\]"):
        command()


@pytest.mark.slow
def test_texts_of_icd10cm() -> None:
    pytest.importorskip("simple_icd_10_cm")
    taxonomy = coding.icd10cm_chapters(["2", "9"])
    assert not [name for name in taxonomy.class_names if "-" in name]
    texts = {(taxonomy.names[one.node], one.kind, one.text) for one in coding.icd10cm_wordings(taxonomy)}
    assert texts >= {
        ("9", "description", "Diseases of the circulatory system"),
        ("I21.4", "inclusion term", "Non-Q wave myocardial infarction NOS"),
        ("I10", "note", "high blood pressure"),
        ("I21.A1", "reference", "subsequent myocardial infarction, type 2"),
    }
    assert {kind for _, kind, _ in texts} == {"description", "inclusion term", "note", "reference"}
    assert all(text for _, _, text in texts)

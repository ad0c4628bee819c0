"""Autocomplete in a context: every answer is that of a sort of the layer's log-probabilities."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.applications.test_autocomplete import (
    ALPHABET,
    QUERIES,
    brute_force,
    prompt,
    random_tree,
    run,
    vocabularies,
)
from treesearch import Tree
from treesearch.applications.autocomplete import (
    CompletionIndex,
    Completions,
    ContextIndex,
    ContextModel,
    ContextSettings,
    completion_tree,
    load_contexts,
    train_context_model,
)
from treesearch.errors import ConfigError, DataError, TreeError
from treesearch.evaluation.encoders import BagEncoder
from treesearch.softmax import HierarchicalSoftmax


def random_model(completions: Completions, tree: Tree, dtype: torch.dtype, *, bias: bool, seed: int) -> ContextModel:
    generator = torch.Generator().manual_seed(seed)
    encoder = BagEncoder(4, embedding=5, features=6, padding=3)
    encoder.reset_parameters(generator)
    layer = HierarchicalSoftmax(6, tree, bias, dtype=dtype)
    layer.reset_parameters(completions.counts if bias else None, generator)
    with torch.no_grad():
        for weight in layer.weights:
            weight.mul_(3)
    return ContextModel(encoder, layer, {"red": 0, "green": 1, "blue": 2})


@settings(max_examples=40, deadline=None)
@given(
    count_of=vocabularies,
    prefixes=st.lists(st.text(st.sampled_from(ALPHABET), max_size=3), min_size=1, max_size=3),
    k=st.integers(1, 20),
    options=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    seed=st.integers(0, 2**32),
)
def test_equals_brute_force_over_the_layer(
    count_of: dict[str, float], prefixes: list[str], k: int, options: tuple[bool, ...], seed: int
) -> None:
    bias, ignore_case, double, projections = options
    rng = np.random.default_rng(seed)
    completions = Completions.of(count_of)
    tree = random_tree(len(completions), rng)
    if projections:
        dims = np.where(rng.random(tree.num_internal) < 0.3, rng.integers(1, 7, size=tree.num_internal), 0)
        tree = Tree.from_parents(tree.parent, tree.leaf_class, projection_dim=dims)
    dtype = torch.float64 if double else torch.float32
    model = random_model(completions, tree, dtype, bias=bias, seed=seed % 1000)
    index = ContextIndex(CompletionIndex(completions, tree, ignore_case=ignore_case), model)
    tolerance = 1e-9 if double else 1e-5
    for context in ("", "red Blue", "green unknown"):
        with torch.no_grad():
            score_C = model.layer.log_prob(model.hidden(context))[0].double().numpy()
        score_of = dict(zip(completions.names, score_C.tolist(), strict=True))
        for prefix in ("", *prefixes):
            found = index.complete(prefix, k, context=context)
            scores = np.log([one.probability for one in found])
            best = [score_of[text] for text in brute_force(score_of, prefix, k, ignore_case)]
            np.testing.assert_allclose(scores, best, atol=tolerance, rtol=tolerance)
            own = [score_of[one.completion] for one in found]
            np.testing.assert_allclose(scores, own, atol=tolerance, rtol=tolerance)
            assert len({one.completion for one in found}) == len(found)


def write_contexts(folder: Path) -> Path:
    """After rice comes cooking, after friends a question."""
    path = folder / "contexts.tsv"
    rice, friends = "how to cook rice", "how are you"
    lines = [f"Cooking RICE\t{rice}", f"rice\t{rice}", f"my friends\t{friends}", f"friends\t{friends}"]
    path.write_text("\n".join([*lines * 10, "\thow to cook", "rice\tno completion", ""]))
    return path


def test_training_learns(tmp_path: Path) -> None:
    completions = Completions.of(QUERIES)
    contexts = load_contexts(write_contexts(tmp_path), completions)
    assert (len(contexts.split), contexts.num_unknown) == (41, 1)
    tree = completion_tree("huffman", completions)
    options = ContextSettings(features=8, embedding=8, learning_rate=0.05)
    trained = train_context_model(tree, completions, contexts, settings=options)
    assert trained.nll is not None
    assert trained.count_nll is not None
    assert trained.nll < 0.5 * trained.count_nll
    index = ContextIndex(CompletionIndex(completions, tree), trained.model)
    assert index.complete("how", 1, context="FRIENDS")[0].completion == "how are you"
    assert index.complete("how", 1, context="rice")[0].completion == "how to cook rice"
    again = train_context_model(tree, completions, contexts, settings=options)
    assert again.nll == trained.nll


def test_it_starts_from_the_counts_and_keeps_them_where_nothing_is_better(tmp_path: Path) -> None:
    """The rate does not learn in one case, and learns nonsense in the other."""
    completions = Completions.of(QUERIES)
    tree = completion_tree("huffman", completions)
    path = tmp_path / "contexts.tsv"
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(completions), p=completions.probabilities, size=200).tolist()
    path.write_text("".join(f"word{number}\t{completions.names[cls]}\n" for number, cls in enumerate(drawn)))
    contexts = load_contexts(path, completions)
    for options in (
        ContextSettings(learning_rate=1e-9, epochs=1, holdout=0),
        ContextSettings(learning_rate=10.0, epochs=2),
    ):
        kept = train_context_model(tree, completions, contexts, settings=options)
        assert kept.nll == kept.count_nll
        for answer in ContextIndex(CompletionIndex(completions, tree), kept.model).complete("", 5, context="word1"):
            assert answer.probability == pytest.approx(QUERIES[answer.completion] / completions.counts.sum(), rel=1e-5)


def test_a_model_is_the_same_after_it_was_kept(tmp_path: Path) -> None:
    completions = Completions.of(QUERIES)
    contexts = load_contexts(write_contexts(tmp_path), completions)
    tree = completion_tree("huffman", completions)
    model = train_context_model(tree, completions, contexts, settings=ContextSettings(epochs=1)).model
    model.save(tmp_path / "model")
    read = ContextModel.load(tmp_path / "model", completions)
    assert read.word_ids == model.word_ids
    answers = [
        ContextIndex(CompletionIndex(completions, tree), one).complete("h", 9, context="rice") for one in (model, read)
    ]
    assert answers[0] == answers[1]
    with pytest.raises(ConfigError, match="must be new or empty"):
        model.save(tmp_path / "model")
    with pytest.raises(TreeError, match="must be over the completions, but is over 5 others"):
        ContextModel.load(tmp_path / "model", Completions.of({"other": 1.0}))
    words = tmp_path / "model" / "words.json"
    for content in ("{}", "[", '{"format": "treesearch.autocomplete", "version": 1, "words": ["a", "a"]}'):
        words.write_text(content)
        with pytest.raises(DataError, match="must hold the words of a saved model"):
            ContextModel.load(tmp_path / "model", completions)
    words.write_text('{"format": "treesearch.autocomplete", "version": 1, "words": ["a"]}')
    with pytest.raises(DataError, match="is missing or damaged"):
        ContextModel.load(tmp_path / "model", completions)


def test_what_does_not_fit(tmp_path: Path) -> None:
    completions = Completions.of(QUERIES)
    tree = completion_tree("huffman", completions)
    model = random_model(completions, tree, torch.float32, bias=True, seed=0)
    with pytest.raises(TreeError, match="on the tree of the layer"):
        ContextIndex(CompletionIndex(completions, completion_tree("balanced", completions)), model)
    with torch.no_grad():
        model.layer.weights[0][1, 2] = torch.nan
    with pytest.raises(DataError, match="must be finite"):
        ContextIndex(CompletionIndex(completions, tree), model)
    path = tmp_path / "contexts.tsv"
    for content, message in (
        ("no tab\n", "line 1: expected 'context TAB query'"),
        ("a\tnone such\n", "none of its 1 lines has"),
        ("", "none of its 0 lines has"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            load_contexts(path, completions)
    with pytest.raises(ConfigError, match="epochs must be >= 1, but got 0"):
        ContextSettings(epochs=0)


@pytest.mark.slow
def test_command_trains_keeps_and_uses_a_model(tmp_path: Path) -> None:
    model, contexts = str(tmp_path / "model"), str(write_contexts(tmp_path))
    done = run(tmp_path, "--prefix", "how", "--contexts", contexts, "--context", "friends", "--save", model, "--json")
    assert done.code == 0, done.err
    assert "41 contexts, 4 words, 1 lines whose query is no completion left out" in done.err
    assert "held out: " in done.err
    answers = json.loads(done.out)
    assert answers[0]["completion"] == "how are you"
    done = run(tmp_path, "--prefix", "how", "--load", model, "--context", "friends", "--json")
    assert json.loads(done.out) == answers
    for arguments, message in (
        (("--load", model, "--contexts", contexts), "not both"),
        (("--load", model, "--tree", "balanced"), "has its own tree"),
        (("--save", model, "--contexts", contexts), "must be a new folder"),
        (("--context", "rice"), "needs a model"),
    ):
        done = run(tmp_path, "--prefix", "how", *arguments)
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert message in done.err


@pytest.mark.slow
def test_prompt_takes_a_context_before_a_tab(tmp_path: Path) -> None:
    done = prompt(
        tmp_path, b"rice\tho\nfriends\tho\n", "--contexts", str(write_contexts(tmp_path)), "--json", "--top", "1"
    )
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [rows[0]["completion"] for rows in lines] == ["how to cook rice", "how are you"]

"""Morphological categories: literal vocabularies, and texts that the package `tokenizers` segments."""

from typing import Any

import numpy as np
import pytest

from treesearch.data.morphology import (
    CONVENTIONS,
    detect_convention,
    morphology_categories,
    stream_positions,
    word_positions,
)
from treesearch.errors import DataError

UNITS = ("un", "##do", "##ing", "do", "<eos>", "##s", "7", ",", "[CLS]", "##", "off")
WORDS = {("un", "##do", "##ing"): 3, ("do", "##ing"): 2, ("do",): 5, ("7", "##s"): 1, (",",): 4, ("un", "##do"): 1}


def test_positions_of_words() -> None:
    counts = word_positions(UNITS, WORDS)
    assert counts.tolist() == [
        [0, 4, 0, 0],  # un
        [0, 0, 3, 1],  # ##do
        [0, 0, 0, 5],  # ##ing
        [5, 2, 0, 0],  # do
        [0, 0, 0, 0],
        [0, 0, 0, 1],  # ##s
        [0, 1, 0, 0],  # 7
        [4, 0, 0, 0],  # ,
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert np.array_equal(word_positions(UNITS, [(list(word), times) for word, times in WORDS.items()]), counts)
    assert word_positions(UNITS, {}).sum() == 0


def test_categories_by_statistics() -> None:
    statistics = word_positions(UNITS, WORDS)
    expected = ["prefix", "stem", "suffix", "word", "other", "suffix", "other", "other", "other", "other", "word"]
    assert morphology_categories(UNITS, statistics) == tuple(expected)
    expected[1], expected[3] = "stem", "stem"  # 3 of 4 and 5 of 7 are less than four fifths
    assert morphology_categories(UNITS, statistics, threshold=0.8) == tuple(expected)
    expected[3], expected[10] = "word", "other"  # what is not met, and no convention
    assert morphology_categories((*UNITS[:9], "-", "off"), statistics, convention=None) == tuple(expected)


def test_of_equal_positions_the_first_counts() -> None:
    statistics = [[2, 2, 0, 0], [0, 1, 0, 1], [0, 0, 4, 4], [1, 1, 1, 0]]
    assert morphology_categories("abcd", statistics, convention=None) == ("word", "prefix", "stem", "stem")


@pytest.mark.parametrize(
    ("units", "convention", "categories"),
    [
        (["un", "##ing", "##s", "##1", "[UNK]", "3rd"], "wordpiece", "word suffix suffix other other word"),
        (["▁un", "ing", "▁", "<s>", "▁12", "s"], "metaspace", "word suffix other other other suffix"),
        (["Ġun", "ing", "Ġ", "<|endoftext|>", "Ġ,", "s"], "byte-level", "word suffix other other other suffix"),
        (["un", "ing</w>", "</w>", "<unk>", ",</w>", "<</w>"], "end-of-word", "prefix word other other other other"),
    ],
)
def test_conventions_alone(units: list[str], convention: str, categories: str) -> None:
    assert detect_convention(units) == convention
    assert " ".join(morphology_categories(units)) == categories
    assert morphology_categories(units, convention=convention) == morphology_categories(units)


def test_a_unit_in_brackets_is_a_word_of_its_own() -> None:
    units = ["▁a", "b", "<eos>"]
    assert stream_positions(units, np.array([0, 1, 2, 1, 2, 0])).tolist() == [[1, 1, 0, 0], [1, 0, 0, 1], [2, 0, 0, 0]]
    assert stream_positions(units, np.zeros(0, np.int32)).sum() == 0
    units = ["<</w>", "a"]  # only looks like one
    assert stream_positions(units, np.array([1, 0, 1, 1, 0])).tolist() == [[0, 0, 0, 2], [0, 2, 1, 0]]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_words_of_a_text_are_those_that_were_segmented(convention: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers, trainers

    options = {"wordpiece": {"continuing_subword_prefix": "##"}, "end-of-word": {"end_of_word_suffix": "</w>"}}
    own: dict[str, Any] = options.get(convention, {})
    tokenizer = tokenizers.Tokenizer(models.BPE(**own))
    tokenizer.pre_tokenizer = {
        "metaspace": pre_tokenizers.Metaspace(),
        "byte-level": pre_tokenizers.ByteLevel(add_prefix_space=True),
    }.get(convention, pre_tokenizers.WhitespaceSplit())
    text = "walking walked walk talking talked talks undo undoing unwalked , 1998 retalk the the naïve"
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=60, show_progress=False, **own))
    units = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    segmented = [(tokenizer.encode(word).tokens, 1) for word in f"{text} unundo walkings retalked".split()]
    assert any(len(word) > 2 for word, _ in segmented)
    stream = np.array([units.index(unit) for word, _ in segmented for unit in word])
    assert detect_convention(units) == convention
    assert np.array_equal(stream_positions(units, stream), word_positions(units, segmented))


def test_fifty_thousand_units() -> None:
    rng = np.random.default_rng(0)
    units = [f"{'##' if i % 3 else ''}u{i}" for i in range(50_000)]
    statistics = stream_positions(units, rng.integers(0, 50_000, 1_000_000))
    assert statistics.sum() == 1_000_000
    assert set(morphology_categories(units, statistics)) == {"word", "prefix", "stem", "suffix"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: morphology_categories(["a", "b"]), r"a marker of word boundaries \('##', .*\), but at most 0 of 2 do"),
        (lambda: detect_convention([]), "but at most 0 of 0"),
        (lambda: morphology_categories(["##a"], convention="word-piece"), "convention must be one of wordpiece, "),
        (lambda: morphology_categories(["##a"], convention=None), "by statistics, but got neither"),
        (lambda: stream_positions(["##a"], np.zeros(1, int), convention=None), "but got None; name one"),
        (lambda: morphology_categories(["##a"], threshold=0), r"threshold must lie in \(0, 1\], but got 0"),
        (lambda: morphology_categories(["##a"], [[1, 2, 3]]), r"shape \(1, 4\), but got int64 of shape \(1, 3\)"),
        (lambda: morphology_categories(["##a"], [[1, 2, 3, -1]]), "finite and >= 0"),
        (lambda: word_positions(["a"], {("a", "b"): 1}), "one has 'b'; add it"),
        (lambda: word_positions(["a"], {("a",): 1, (): 1}), "word 1 has none"),
    ],
)
def test_errors_are_one_line(call: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)

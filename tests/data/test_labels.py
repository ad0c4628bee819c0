"""Labels of documents and of feature vectors."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treesearch.data import CutDocumentsWarning, Split, load_documents, load_labelled_features
from treesearch.errors import DataError

TRAIN = [
    "Book a table\tbooking",
    "book TWO tables, please!\tbooking",
    "what's the weather\tweather",
    "play a song\tmusic",
    "the weather in a tab\there\tweather",
    "a\tbooking",
]
VALID = ["unknown words only\tmusic", "book it\tbooking"]
TEST = ["the weather\tweather"]


def write(folder: Path, train: Any = TRAIN, valid: Any = VALID, test: Any = TEST) -> list[Path]:
    paths = []
    for name, lines in (("train", train), ("valid", valid), ("test", test)):
        path = folder / f"{name}.tsv"
        path.write_bytes(lines if isinstance(lines, bytes) else "\n".join(lines).encode())
        paths.append(path)
    return paths


def load(paths: list[Path], **options: Any) -> Any:
    return load_documents(*paths, **{"context": 6, **options})


def refusal(paths: list[Path], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(paths, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def documents(data: Any, split: Split) -> set[tuple[frozenset[str], str]]:
    """Words of each document, as far as ids tell, and its label."""
    words = {0: "a", 1: "book", 2: "the", 3: "weather"}  # by falling count, ties by name
    pad = data.spec.padding
    return {
        (frozenset(words.get(i, "?") for i in row.tolist() if i != pad), data.class_names[label])
        for row, label in zip(split.inputs, split.labels, strict=True)
    }


def test_what_is_read(tmp_path: Path) -> None:
    data = load(write(tmp_path))
    assert data.class_names == ("booking", "weather", "music")
    assert data.counts.tolist() == [3, 2, 1]
    assert data.spec.size == 6
    assert data.spec.num_ids == data.spec.padding + 1
    assert data.valid.inputs[0].tolist() == [data.spec.padding] * 6  # no word is known
    assert data.valid.inputs[1].tolist() == [data.spec.padding] * 5 + [1]
    assert data.test.inputs[0].tolist() == [data.spec.padding] * 4 + [2, 3]
    assert (frozenset({"a", "book", "?"}), "booking") in documents(data, data.train)
    assert (frozenset({"a"}), "booking") in documents(data, data.train)


def test_training_documents_are_shuffled_always_alike(tmp_path: Path) -> None:
    lines = [f"word{i} label\t{'abc'[i // 20]}" for i in range(60)]
    first, second = load(write(tmp_path, lines, ["x\ta"], ["x\tb"])), load(write(tmp_path, lines, ["x\ta"], ["x\tb"]))
    assert first.hash == second.hash
    np.testing.assert_array_equal(first.train.labels, second.train.labels)
    assert (np.diff(first.train.labels) != 0).mean() > 0.4
    assert np.bincount(first.train.labels).tolist() == [20, 20, 20]


def test_rare_words_do_not_count(tmp_path: Path) -> None:
    paths = write(tmp_path)
    assert load(paths, min_word_count=2).spec.num_ids == 1 + len({"a", "book", "the", "weather"})
    assert load(paths, max_words=2).spec.num_ids == 3
    assert "no word of" in refusal(paths, min_word_count=100)


def test_long_documents_are_cut_and_told(tmp_path: Path) -> None:
    with pytest.warns(CutDocumentsWarning, match=r"% of the documents .* more than 2 known words"):
        data = load(write(tmp_path), context=2)
    assert data.test.inputs.tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": ["no label"]}, "line 1 of"),
        ({"train": ["fine\ta", "", "empty\t "]}, "line 3 of"),
        ({"train": []}, "holds no documents"),
        ({"train": ["x\ta", "y\tb"]}, "has 2 labels"),
        ({"train": b"caf\xe9\ta"}, "must be UTF-8"),
        ({"valid": ["x\tunheard", "y\tof", "z\tmusic"]}, "has 2 others ('of', 'unheard')"),
    ],
)
def test_documents_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    assert says in refusal(write(tmp_path, **changes))


def test_a_missing_file(tmp_path: Path) -> None:
    assert "cannot be read (No such file" in refusal([tmp_path / "no.tsv", *write(tmp_path)[1:]])


def test_feature_vectors_are_scaled_by_the_training_split_and_shuffled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw = {}
    for name, size in (("train", 300), ("valid", 50), ("test", 50)):
        y = np.sort(rng.integers(4, size=size))
        x = rng.standard_normal((size, 3)) * [10, 0.1, 0] + [5, 0, 7]
        raw[name] = (x, y)
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # sorted examples are no trouble here
        data = load_labelled_features(*(tmp_path / f"{name}.npz" for name in raw))
    x = data.train.inputs.astype(np.float64)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), [1, 1, 0], atol=1e-5)
    mean, deviation = raw["train"][0].mean(0), raw["train"][0].std(0)
    expected = (raw["test"][0] - mean)[:, :2] / deviation[:2]
    np.testing.assert_allclose(data.test.inputs[:, :2], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(data.test.labels, raw["test"][1])
    assert (np.diff(data.train.labels) != 0).mean() > 0.5

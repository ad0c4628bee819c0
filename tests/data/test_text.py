"""The text loader against literal ids, and every way in which a file can be wrong."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from treesearch.data import Corpus, SmoothedClassWarning, load_text
from treesearch.errors import DataError

TRAIN = "the cat sat\n\nthe dog sat on the mat\n"


def write(
    folder: Path, train: str | bytes, valid: str | bytes = "the cat\n", test: str | bytes = "the mat"
) -> list[Path]:
    paths = []
    for name, text in {"train": train, "valid": valid, "test": test}.items():
        paths.append(folder / f"{name}.txt")
        paths[-1].write_bytes(text.encode() if isinstance(text, str) else text)
    return paths


def words(corpus: Corpus, stream: np.ndarray) -> str:
    return " ".join(corpus.class_names[i] for i in stream)


def test_all_words_get_classes_by_falling_count_then_name(tmp_path: Path) -> None:
    corpus = load_text(*write(tmp_path, TRAIN), max_classes=None)
    assert corpus.class_names == ("the", "<eos>", "sat", "cat", "dog", "mat", "on")
    assert corpus.counts.tolist() == [3, 2, 2, 1, 1, 1, 1]
    assert corpus.eos == 1
    assert corpus.train.tolist() == [0, 3, 2, 1, 0, 4, 2, 6, 0, 5, 1]
    assert corpus.valid.tolist() == [0, 3, 1]
    assert corpus.test.tolist() == [0, 5, 1]
    assert corpus.train.dtype == np.int32
    assert corpus.counts.dtype == np.int64
    assert corpus.num_classes == 7


def test_rare_and_unknown_words_become_unk(tmp_path: Path) -> None:
    corpus = load_text(*write(tmp_path, TRAIN, valid="the cow sat\n"), max_classes=4)
    assert corpus.class_names == ("<unk>", "the", "<eos>", "sat")
    assert corpus.counts.tolist() == [4, 3, 2, 2]
    assert words(corpus, corpus.train) == "the <unk> sat <eos> the <unk> sat <unk> the <unk> <eos>"
    assert words(corpus, corpus.valid) == "the <unk> sat <eos>"


@pytest.mark.parametrize(
    ("max_classes", "names"),
    [
        (3, ("<unk>", "the", "<eos>")),
        (6, ("the", "<eos>", "<unk>", "sat", "cat", "dog")),
        (7, ("the", "<eos>", "sat", "cat", "dog", "mat", "on")),  # just enough: no <unk>
        (8, ("the", "<eos>", "sat", "cat", "dog", "mat", "on")),
    ],
)
def test_unk_is_a_class_only_when_needed(tmp_path: Path, max_classes: int, names: tuple[str, ...]) -> None:
    assert load_text(*write(tmp_path, TRAIN), max_classes=max_classes).class_names == names


def test_unk_takes_the_place_of_a_word_when_only_valid_needs_it(tmp_path: Path) -> None:
    """Seven training words fit seven classes, but then the unknown word of valid would have none."""
    corpus = load_text(*write(tmp_path, TRAIN, valid="cow\n"), max_classes=7)
    assert corpus.class_names == ("the", "<eos>", "sat", "<unk>", "cat", "dog", "mat")
    assert corpus.counts.tolist() == [3, 2, 2, 1, 1, 1, 1]
    assert words(corpus, corpus.valid) == "<unk> <eos>"


def test_unk_in_the_text_is_the_class_of_rare_words(tmp_path: Path) -> None:
    paths = write(tmp_path, "a a <unk> b\na c <unk>\n", valid="a d\n", test="a <unk>\n")
    corpus = load_text(*paths, max_classes=None)
    assert (corpus.class_names, corpus.counts.tolist()) == (("a", "<eos>", "<unk>", "b", "c"), [3, 2, 2, 1, 1])
    corpus = load_text(*paths, max_classes=4)
    assert (corpus.class_names, corpus.counts.tolist()) == (("<unk>", "a", "<eos>", "b"), [3, 3, 2, 1])
    assert corpus.valid.tolist() == [1, 0, 2]


def test_class_without_training_example_is_smoothed_with_one_warning(tmp_path: Path) -> None:
    with pytest.warns(SmoothedClassWarning, match=r"1 of 8 classes .*train\.txt") as caught:
        corpus = load_text(*write(tmp_path, TRAIN, valid="cow\n", test="hen <unk>\n"), max_classes=None)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert corpus.class_names == ("the", "<eos>", "sat", "<unk>", "cat", "dog", "mat", "on")
    assert corpus.counts.tolist() == [3, 2, 2, 1, 1, 1, 1, 1]
    assert corpus.counts.sum() == len(corpus.train) + 1


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"\xef\xbb\xbfa b\r\nc\r\n", "a b <eos> c <eos>"),  # byte order mark, Windows line ends
        (b"a b <eos>\nc", "a b <eos> c <eos>"),  # <eos> is there already; no newline at the end
        ("a b\tc\u2028d".encode(), "a b c d <eos>"),  # U+2028 separates words, not sentences
        (b" \n\na\n \t \nb c\n\n", "a <eos> b c <eos>"),
        ("é 日本 a\n".encode(), "é 日本 a <eos>"),
    ],
)
def test_lines_and_white_space(tmp_path: Path, raw: bytes, expected: str) -> None:
    corpus = load_text(*write(tmp_path, raw, valid="a\n", test="a\n"), max_classes=None)
    assert words(corpus, corpus.train) == expected


def test_round_trip(tmp_path: Path) -> None:
    """Writing the decoded streams and loading them again changes nothing but the provenance."""
    corpus = load_text(*write(tmp_path, TRAIN, valid="a cow\n"), max_classes=5)
    copies = [words(corpus, s).replace(" <eos>", "\n") for s in (corpus.train, corpus.valid, corpus.test)]
    again = load_text(*write(tmp_path, *copies), max_classes=5)
    assert (again.hash, again.class_names, again.counts.tolist()) == (
        corpus.hash,
        corpus.class_names,
        corpus.counts.tolist(),
    )


def test_hash_sees_streams_and_names(tmp_path: Path) -> None:
    corpora = [
        load_text(*write(tmp_path, "a b c\n", valid="a\nb\n", test="c\n"), max_classes=None),
        load_text(*write(tmp_path, "a b c\n", valid="a\n", test="b\nc\n"), max_classes=None),
        load_text(*write(tmp_path, "a b d\n", valid="a\nb\n", test="d\n"), max_classes=None),
        load_text(*write(tmp_path, "a c b\n", valid="a\nb\n", test="c\n"), max_classes=None),
    ]
    assert len({corpus.hash for corpus in corpora}) == 4
    assert all(len(corpus.hash) == 32 for corpus in corpora)


def test_source_is_json_without_folders(tmp_path: Path) -> None:
    corpus = load_text(*write(tmp_path, "a b\n", valid="a\n", test="b\n"), max_classes=None)
    assert json.loads(json.dumps(corpus.source)) == corpus.source
    assert corpus.source["kind"] == "text"
    assert corpus.source["splits"]["train"] == {
        "name": "train.txt",
        "bytes": 4,
        "sha256": "01186fcf04b4b447f393e552964c08c7b419c1ad7a25c342a0b631b1967d3a27",  # printf 'a b\n' | sha256sum
        "tokens": 3,
    }
    assert str(tmp_path) not in json.dumps(corpus.source)


@pytest.mark.parametrize(
    ("train", "valid", "test", "message"),
    [
        ("", "a\n", "a\n", r"train text must not be empty, but '.*train\.txt'"),
        (" \n\n", "a\n", "a\n", r"train text must not be empty"),
        ("a b\n", "\n", "a\n", r"valid text must not be empty, but '.*valid\.txt'"),
        ("a b\n", "a\n", "", r"test text must not be empty, but '.*test\.txt'"),
        ("a a\n", "a\n", "a\n", r"at least 3 classes .* '.*train\.txt' has 2"),
        ("a a\n", "b\n", "c\n", r"at least 3 classes .* '.*train\.txt' has 2"),  # <unk> has no example
        (b"a b\nc\xff d\n", "a\n", "a\n", r"must be UTF-8, but '.*train\.txt' has the byte 0xff in line 2"),
        ("a b\n", "a\n", "a é\n".encode("latin-1"), r"'.*test\.txt' has the byte 0xe9 in line 1"),
        ("a b\n".encode("utf-16"), "a\n", "a\n", r"must be UTF-8"),
        (b"\xef\xbb\xbfa\nb\n\xe9\n", "a\n", "a\n", r"byte 0xe9 in line 3"),
    ],
)
def test_bad_content(tmp_path: Path, train: str, valid: str, test: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        load_text(*write(tmp_path, train, valid, test), max_classes=None)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    train, valid, _ = write(tmp_path, TRAIN)
    with pytest.raises(DataError, match=r"'.*nowhere\.txt' does not exist"):
        load_text(train, valid, str(tmp_path / "nowhere.txt"), max_classes=None)


def test_directory(tmp_path: Path) -> None:
    train, valid, _ = write(tmp_path, TRAIN)
    with pytest.raises(DataError, match=r"is a directory, not a text file"):
        load_text(train, valid, tmp_path, max_classes=None)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    paths = write(tmp_path, TRAIN)
    monkeypatch.setattr(Path, "read_bytes", refuse)  # tests may run as root, who may read everything
    with pytest.raises(DataError, match=r"train\.txt' cannot be read \(Permission denied\)"):
        load_text(*paths, max_classes=None)


@pytest.mark.parametrize(
    ("max_classes", "message"),
    [(2, ">= 3 must hold.* got 2"), (-1, ">= 3"), (5.0, "integer.* 5.0"), ("9", "integer"), (True, "integer.* True")],
)
def test_bad_max_classes(tmp_path: Path, max_classes: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_text(*write(tmp_path, TRAIN), max_classes=max_classes)  # type: ignore[arg-type]


def test_numpy_integer_is_an_integer(tmp_path: Path) -> None:
    corpus = load_text(*write(tmp_path, TRAIN), max_classes=np.int64(4))  # type: ignore[arg-type]
    assert corpus.num_classes == 4
    json.dumps(corpus.source)


DATA = Path(os.environ.get("TREESEARCH_DATA") or Path(__file__).parents[2] / "../shared/data")


@pytest.mark.skipif(not (DATA / "kjv").is_dir(), reason=f"no folder 'kjv' in {DATA} (set TREESEARCH_DATA)")
class TestKingJames:
    """Counts of the corpus' own README; its 13,830 types are those of all three files and <eos>."""

    FILES = tuple(DATA / "kjv" / f"{name}.txt" for name in ("train", "valid", "test"))

    def test_tokens(self) -> None:
        corpus = load_text(*self.FILES, max_classes=10_000)
        assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [851_617, 44_103, 48_909]
        assert corpus.num_classes == 10_000
        assert np.array_equal(np.bincount(corpus.train, minlength=10_000), corpus.counts)
        assert np.all(np.diff(corpus.counts) <= 0)
        assert np.count_nonzero(corpus.train == corpus.eos) == 28_148

    def test_types(self, tmp_path: Path) -> None:
        everything = tmp_path / "all.txt"
        everything.write_bytes(b"".join(path.read_bytes() for path in self.FILES))
        assert load_text(everything, *self.FILES[1:], max_classes=None).num_classes == 13_830

    def test_words_outside_train_share_one_class(self) -> None:
        with pytest.warns(SmoothedClassWarning, match="1 of 13377 classes"):
            assert load_text(*self.FILES, max_classes=None).num_classes == 13_375 + 2

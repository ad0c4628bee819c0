"""The standard library corpus: literal tokens of small modules, and determinism of the whole."""

import json
import os
import platform
import subprocess
import sys
import sysconfig
import token
import tokenize
from pathlib import Path

import numpy as np
import pytest

from treesearch.data import Corpus, SmoothedClassWarning, load_python_stdlib, stdlib
from treesearch.data.stdlib import module_tokens
from treesearch.errors import DataError

CAP = 30_000


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_python_stdlib(max_classes=1000, max_train_tokens=CAP)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (b"", ""),
        (b"# only a comment\n\n", ""),
        (b"x = 1.5e3  # why\n", "x = <num> <eos>"),
        (b"x", "x <eos>"),
        (b"a = [1,\n     'b',  # c\n]\n", "a = [ <num> , <str> , ] <eos>"),
        (b"if x:\n    pass\ny\n", "if x : <eos> <indent> pass <eos> <dedent> y <eos>"),
        (
            b"class A:\n  def f(self):\n    return\n",
            "class A : <eos> <indent> def f ( self ) : <eos> <indent> return <eos>",
        ),
        (b's = f"{a!r:>{w}} and {f(\'x\')}" + b"y"\n', "s = <str> + <str> <eos>"),
        (b"s = ('a' f'{b}'\n     'c')\n", "s = ( <str> ) <eos>"),  # one string in the grammar
        (b"'a'\n'b'\n", "<str> <eos> <str> <eos>"),
        (b'"""doc\nstring"""\n', "<str> <eos>"),
        (b"# coding: latin-1\n\xe9 = 1\n", "é = <num> <eos>"),
        (b"async def f(): await g() -> 1\n", "async def f ( ) : await g ( ) -> <num> <eos>"),
    ],
)
def test_module_tokens(code: bytes, expected: str) -> None:
    assert " ".join(module_tokens(code)) == expected


@pytest.mark.parametrize("code", [b"x = (1\n", b"  x\n y\n", b"\xff\n", b"# coding: nonsense\n", b"s = '\n"])
def test_modules_that_do_not_tokenise(code: bytes) -> None:
    with pytest.raises((SyntaxError, UnicodeDecodeError, tokenize.TokenError)):
        module_tokens(code)


def test_bracketed_string_tokens_are_one_string(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python 3.12 makes of ``f"a{f'{x}'}" + y``, with its own numbers, on any version."""
    start, middle, end = 101, 102, 103
    monkeypatch.setattr(stdlib, "_OPENING", {start})
    monkeypatch.setattr(stdlib, "_CLOSING", {end})
    kinds = [start, middle, token.OP, start, token.OP, token.NAME, token.OP, end, token.OP, end, token.OP, token.NAME]
    strings = ['f"', "a", "{", "f'", "{", "x", "}", "'", "}", '"', "+", "y"]
    tokens = [tokenize.TokenInfo(k, s, (1, 0), (1, 0), "") for k, s in zip(kinds, strings, strict=True)]
    assert list(stdlib._words(tokens)) == ["<str>", "+", "y"]


def test_sizes_and_vocabulary(corpus: Corpus) -> None:
    assert corpus.num_classes == 1000
    assert CAP - 1000 < len(corpus.train) <= CAP
    for stream in (corpus.valid, corpus.test):
        assert CAP / 10 - 1000 < len(stream) <= CAP / 10
    for stream in (corpus.train, corpus.valid, corpus.test):
        assert stream.dtype == np.int32
        assert stream[-1] == corpus.eos
        assert not np.any((stream[1:] == corpus.eos) & (stream[:-1] == corpus.eos))
        assert 0 <= stream.min() <= stream.max() < 1000
    assert corpus.class_names[corpus.eos] == "<eos>"
    assert {"<unk>", "<num>", "<str>", "<indent>", "<dedent>", "self", "def", "(", "return"} <= set(corpus.class_names)
    assert np.array_equal(np.bincount(corpus.train, minlength=1000), corpus.counts)
    order = sorted(range(1000), key=lambda i: (-corpus.counts[i], corpus.class_names[i]))
    assert order == list(range(1000))


def test_source(corpus: Corpus) -> None:
    assert json.loads(json.dumps(corpus.source)) == corpus.source
    assert corpus.source["kind"] == "python-stdlib"
    assert corpus.source["python"] == platform.python_version()
    assert corpus.source["splits"]["valid"]["tokens"] == len(corpus.valid)
    assert corpus.source["splits"]["train"]["modules"] > 5
    assert sysconfig.get_paths()["stdlib"] not in json.dumps(corpus.source)


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_same_in_another_process(corpus: Corpus, hash_seed: str) -> None:
    code = (
        "from treesearch.data import load_python_stdlib as load\n"
        f"c = load(max_classes=1000, max_train_tokens={CAP})\n"
        "print(c.hash, c.source['splits']['train']['sha256'])"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == [corpus.hash, corpus.source["splits"]["train"]["sha256"]]


def test_a_smaller_cap_reads_a_prefix(corpus: Corpus) -> None:
    with pytest.warns(SmoothedClassWarning, match="the standard library"):  # all training words are classes
        small = load_python_stdlib(max_classes=100_000, max_train_tokens=CAP // 3)
    known = set(corpus.class_names)
    for ours, theirs in zip(small.train, corpus.train, strict=False):
        word = small.class_names[ours]
        assert corpus.class_names[theirs] == (word if word in known else "<unk>")


def test_modules_are_split_without_overlap_or_tests() -> None:
    splits = stdlib._split_modules(Path(sysconfig.get_paths()["stdlib"]))
    paths = [path for split in splits.values() for path in split]
    assert len(paths) == len(set(paths))
    assert "argparse.py" in paths
    assert "json/decoder.py" in paths
    assert not {part for path in paths for part in path.split("/")[:-1]} & {
        "test",
        "tests",
        "idle_test",
        "site-packages",
    }
    shares = [len(splits[name]) / len(paths) for name in ("train", "valid", "test")]
    assert np.allclose(shares, [0.9, 0.05, 0.05], atol=0.03)


def fake_library(folder: Path, num_modules: int, code: str) -> Path:
    for i in range(num_modules):
        (folder / f"module_{i:03}.py").write_text(code)
    return folder


def use_library(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(folder)})


def test_split_of_a_module_does_not_depend_on_its_content_or_neighbours(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    few = stdlib._split_modules(fake_library(tmp_path / "a", 150, "x = 1\n"))
    many = stdlib._split_modules(fake_library(tmp_path / "b", 300, "y = 2\n"))
    for name, paths in few.items():
        assert paths == [path for path in many[name] if path < "module_150"]


def test_modules_that_do_not_tokenise_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_library(tmp_path, 200, "x = [y, 1]\n")
    broken = stdlib._split_modules(tmp_path)["train"][::2]
    for path in broken:
        (tmp_path / path).write_bytes(b"x = (\n")
    use_library(monkeypatch, tmp_path)
    corpus = load_python_stdlib(max_classes=50)
    assert corpus.class_names == (",", "<eos>", "<num>", "=", "[", "]", "x", "y")
    assert set(np.bincount(corpus.train)) == {corpus.source["splits"]["train"]["modules"]}
    assert sum(about["modules"] for about in corpus.source["splits"].values()) == 200 - len(broken)


@pytest.mark.parametrize("folder", ["", "does-not-exist", "python311.zip"])
def test_stripped_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    fake_library(tmp_path, 3, "x = 1\n")
    use_library(monkeypatch, tmp_path / folder)
    with pytest.raises(DataError, match=r"at least 100 source files .* has [03]; .* text files") as error:
        load_python_stdlib(max_classes=100)
    assert "\n" not in str(error.value)


def test_library_of_broken_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_library(monkeypatch, fake_library(tmp_path, 200, "x = (\n"))
    with pytest.raises(DataError, match="none that can be read for the train split"):
        load_python_stdlib(max_classes=100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_classes": 2}, "max_classes >= 3"),
        ({"max_classes": None}, "max_classes must be an integer"),
        ({"max_classes": 100, "max_train_tokens": 999}, "max_train_tokens >= 1000 must hold, but got 999"),
        ({"max_classes": 100, "max_train_tokens": 1e5}, "max_train_tokens must be an integer"),
        ({"max_classes": 100, "max_train_tokens": True}, "max_train_tokens must be an integer"),
    ],
)
def test_bad_arguments(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_python_stdlib(**arguments)


@pytest.mark.slow
def test_enough_for_a_quickstart() -> None:
    corpus = load_python_stdlib(max_classes=5000, max_train_tokens=400_000)
    assert corpus.num_classes == 5000
    assert len(corpus.train) > 399_000
    assert min(len(corpus.valid), len(corpus.test)) >= 20_000

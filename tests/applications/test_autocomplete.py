"""`treesearch apply autocomplete`: every answer is that of a sort of all completions."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import Done, treesearch
from treesearch import Tree, build_tree
from treesearch.applications.autocomplete import (
    CompletionIndex,
    Completions,
    answer_lines,
    completion_tree,
    load_completions,
    size_rows,
    typed_lines,
)
from treesearch.applications.autocomplete.match_kernels import NONE, next_rank, wavelet_matrix
from treesearch.applications.autocomplete.sorted_texts import SortedTexts
from treesearch.errors import ConfigError, DataError, TreeError

ALPHABET = "abAßéσς😀\U0010ffff \t"
QUERIES = {"how to cook rice": 50.0, "how to cook": 20.5, "how are you": 1.0, "How old": 3.0, "café 😀": 7.0}


def random_tree(num_classes: int, rng: np.random.Generator) -> Tree:
    """Merge two to four random nodes until one is left: any shape, chains among them."""
    nodes = list(range(num_classes))
    chain = rng.random() < 0.2
    while len(nodes) > 1:
        take = min(len(nodes), int(rng.integers(2, 5)))
        chosen = [len(nodes) - 1] if chain else []
        chosen += rng.choice(len(nodes) - len(chosen), size=take - len(chosen), replace=False).tolist()
        merged = [nodes[place] for place in chosen]
        nodes = [node for place, node in enumerate(nodes) if place not in chosen] + [merged]
    return Tree.from_nested(nodes[0])


def fold(text: str, ignore_case: bool) -> str:
    return text.casefold() if ignore_case else text


def brute_force(score_of: dict[str, float], prefix: str, k: int, ignore_case: bool = False) -> list[str]:
    matches = [text for text in score_of if fold(text, ignore_case).startswith(fold(prefix, ignore_case))]
    return sorted(matches, key=lambda text: (-score_of[text], fold(text, ignore_case), text))[:k]


texts = st.text(st.sampled_from(ALPHABET), min_size=1, max_size=5).filter(str.strip)
vocabularies = st.dictionaries(texts, st.sampled_from([1.0, 1.0, 2.0, 2.5, 1e9]), min_size=1, max_size=70)


@settings(max_examples=60, deadline=None)
@given(
    count_of=vocabularies,
    prefixes=st.lists(st.text(st.sampled_from(ALPHABET), max_size=7), min_size=1, max_size=8),
    k=st.integers(1, 100),
    ignore_case=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_equals_brute_force_on_any_tree(
    count_of: dict[str, float], prefixes: list[str], k: int, ignore_case: bool, seed: int
) -> None:
    completions = Completions.of(count_of)
    tree = random_tree(len(completions), np.random.default_rng(seed))
    index = CompletionIndex(completions, tree, ignore_case=ignore_case)
    total = completions.counts.sum()
    for prefix in ["", *prefixes, min(count_of), max(count_of)[:2]]:
        found = index.complete(prefix, k)
        assert [one.completion for one in found] == brute_force(count_of, prefix, k, ignore_case)
        assert [one.probability for one in found] == [count_of[one.completion] / total for one in found]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 60))
def test_any_probabilities(seed: int, size: int) -> None:
    """Probabilities that have nothing to do with the counts, many of them equal and some of them 0."""
    rng = np.random.default_rng(seed)
    completions = Completions.of({f"{number:03b}": 1.0 for number in range(size)})
    given = rng.integers(0, 4, size=size) / 7
    index = CompletionIndex(completions, random_tree(size, rng), class_probabilities=given)
    score_of = dict(zip(completions.names, given.tolist(), strict=True))
    for prefix in ("", "0", "1", "10", "110"):
        found = index.complete(prefix, 5)
        assert [one.completion for one in found] == brute_force(score_of, prefix, 5)
        assert [one.probability for one in found] == [score_of[one.completion] for one in found]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 200))
def test_the_next_rank_in_a_range_of_places(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    rank_at_place = rng.permutation(size).astype(np.int32)
    matrix = wavelet_matrix(rank_at_place, max(1, (size - 1).bit_length()))
    for _ in range(30):
        begin, end = sorted(rng.integers(0, size + 1, size=2).tolist())
        low, high = sorted(rng.integers(0, size + 1, size=2).tolist())
        if begin == end:
            continue
        inside = [rank for rank in rank_at_place[begin:end].tolist() if low <= rank < high]
        assert next_rank(*matrix, begin, end, low, high) == min(inside, default=NONE)


@settings(max_examples=50, deadline=None)
@given(st.sets(texts, max_size=30), st.text(st.sampled_from(ALPHABET), max_size=6))
def test_texts_with_a_prefix_stand_together(given: set[str], prefix: str) -> None:
    held = SortedTexts.of(sorted(given))
    assert [held[rank] for rank in range(len(held))] == sorted(given)
    assert [held[rank] for rank in range(*held.range(prefix))] == [t for t in sorted(given) if t.startswith(prefix)]


def test_equal_completions_are_met_in_order_and_no_others() -> None:
    """4096 equals: the search looks at the paths of the first ten, not at all that match."""
    completions = Completions.of({f"q{number:04}": 1.0 for number in range(4096)})
    shuffled = build_tree("random", counts=completions.counts, seed=1)
    index = CompletionIndex(completions, shuffled)
    found = index.search("q", 10)
    assert found.classes.tolist() == list(range(10))
    assert found.num_visited <= 10 * shuffled.max_depth


def test_a_deep_chain() -> None:
    size = 3000
    nested: object = size - 1
    for cls in range(size - 2, -1, -1):
        nested = [cls, nested]
    parent = np.concatenate([np.arange(-1, size - 2), np.arange(size - 1), [size - 2]])
    tree = Tree.from_parents(parent, np.arange(size))
    assert tree.max_depth == size - 1
    completions = Completions.of({f"{number:04}": float(number + 1) for number in range(size)})
    index = CompletionIndex(completions, tree)
    assert index.search("", 3).classes.tolist() == [2999, 2998, 2997]
    assert index.search("12", 2).classes.tolist() == [1299, 1298]


def test_one_and_two_completions() -> None:
    one = Completions.of({"only": 3.0})
    index = CompletionIndex(one, completion_tree("huffman", one))
    assert index.complete("o", 5) == [("only", 1.0)]
    assert index.complete("", 5) == [("only", 1.0)]
    assert index.complete("only one", 5) == index.complete("x", 5) == []
    assert one.entropy == 0
    assert [row["decisions"] for row in size_rows(one, {"huffman": index.tree})] == [0, 0, 0]
    two = Completions.of({"b": 1.0, "a": 3.0})
    assert CompletionIndex(two, completion_tree("balanced", two)).complete("", 5) == [("a", 0.75), ("b", 0.25)]


def test_sizes() -> None:
    """Dyadic counts: Huffman takes the entropy exactly; a flat decision among four costs 1 + 4 / 20."""
    completions = Completions.of({"a": 4.0, "b": 2.0, "c": 1.0, "d": 1.0})
    rows = {row["tree"]: row for row in size_rows(completions, {"huffman": completion_tree("huffman", completions)})}
    assert rows["huffman"]["decisions"] == completions.entropy == 1.75
    assert (rows["balanced"]["decisions"], rows["flat"]["decisions"], rows["flat"]["cost"]) == (2, 1, 1.2)
    assert rows["huffman"]["longest"] == 3


# -- files -------------------------------------------------------------------------------------------------------------


def write_queries(folder: Path) -> Path:
    path = folder / "queries.tsv"
    path.write_text("".join(f"{query}\t{count}\n" for query, count in QUERIES.items()))
    return path


def test_what_a_file_may_hold(tmp_path: Path) -> None:
    path = tmp_path / "queries.tsv"
    path.write_bytes("\ufeffa\t2\r\n\n   \nb c\t1e1\na\t0.5\nwith\ttab\t3\nno count\nno count\n é 😀\t1".encode())
    completions = load_completions(path)
    count_of = dict(zip(completions.names, completions.counts.tolist(), strict=True))
    assert count_of == {"a": 2.5, "b c": 10, "with\ttab": 3, "no count": 2, " é 😀": 1}
    assert list(completions.names) == sorted(count_of)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\t1\nb\t-2\n", "line 2: a count must be finite and > 0, but is -2"),
        (b"a\t0\n", "line 1: a count must be finite and > 0, but is 0"),
        (b"a\tnan\n", "line 1: a count must be finite and > 0, but is nan"),
        (b"a\tinf\n", "line 1: a count must be finite and > 0, but is inf"),
        (b"\n\na\tmany\n", "line 3: expected 'query TAB count', but the count is 'many'"),
        (b"a\t\n", "line 1: expected 'query TAB count', but the count is ''"),
        (b"\t4\n", "line 1: a query must not be blank"),
        (b"a\t1\n\xff\t1\n", "must be UTF-8 text, but is not"),
        (b"\n", "holds no queries"),
        (b"", "holds no queries"),
        (b"a\t1e308\nb\t1e308\n", "the sum of all counts must be finite"),
        (b"a\t1e308\na\t1e308\n", "counts must be finite and > 0, but that of 'a' is inf"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "queries.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        load_completions(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: Completions.of({}), DataError, "one completion at least"),
        (lambda c: Completions.of({" ": 1.0, "b": 1.0}), DataError, "must not be blank"),
        (lambda c: Completions.of({"a": 1.0, "\u3000": 1.0}), DataError, "must not be blank"),
        (lambda c: Completions.of({"a\ud800": 1.0}), DataError, "lone surrogate"),
        (lambda c: index_of(c).complete("a", 0), DataError, "k must be a whole number >= 1, but got 0"),
        (lambda c: index_of(c).complete("\udcff", 1), DataError, "a prefix must be valid Unicode"),
        (lambda c: CompletionIndex(c, Tree.from_nested([0, 1])), TreeError, "over the 5 completions, but has 2"),
        (
            lambda c: CompletionIndex(c, index_of(c).tree, class_probabilities=[1.0]),
            DataError,
            "one for each completion",
        ),
        (lambda c: completion_tree("categories", c), ConfigError, "go together"),
        (lambda c: completion_tree("huffman", c, categories=Path("x")), ConfigError, "go together"),
        (lambda c: completion_tree("hufman", c), TreeError, "there is no 'hufman'"),
    ],
)
def test_bad_calls(call: Callable[[Completions], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        call(Completions.of(QUERIES))
    assert message in str(raised.value)


def index_of(completions: Completions) -> CompletionIndex:
    return CompletionIndex(completions, completion_tree("huffman", completions))


def test_trees_of_files_are_matched_by_name(tmp_path: Path) -> None:
    completions = Completions.of(QUERIES)
    path = tmp_path / "found.tree.json"
    names = sorted(QUERIES, key=len)
    Tree.from_nested([[0, 1], [2, [3, 4]]], class_names=names).save(path)
    tree = completion_tree(str(path), completions)
    depth_of = dict(zip(completions.names, tree.depths.tolist(), strict=True))
    assert depth_of == dict(zip(names, [2, 2, 2, 3, 3], strict=True))
    for other, message in (
        ([*names[:4], "x"], "1 completions are no class of"),
        (None, "has no class names"),
        ([*names[:3], names[0], names[1]], "2 completions are no class of"),
    ):
        Tree.from_nested([[0, 1], [2, [3, 4]]], class_names=other).save(path)
        with pytest.raises(TreeError, match=message):
            completion_tree(str(path), completions)
    Tree.from_nested([[0, 1], [2, [3, [4, 5]]]], class_names=[*names, "new"]).save(path)
    with pytest.raises(TreeError, match=r"1 classes of '.*' are no completion \('new'\)"):
        completion_tree(str(path), completions)
    Tree.from_nested([[0, 1], [2, [3, [4, 5]]]], class_names=[*names, names[0]]).save(path)
    with pytest.raises(TreeError, match="must be different"):
        completion_tree(str(path), completions)


# -- the command -------------------------------------------------------------------------------------------------------


def run(folder: Path, *arguments: str) -> Done:
    return treesearch("apply", "autocomplete", "--queries", str(write_queries(folder)), *arguments)


@pytest.mark.slow
def test_command_prints_json(tmp_path: Path) -> None:
    total = sum(QUERIES.values())
    done = run(tmp_path, "--prefix", "how", "--top", "2", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == [
        {"completion": text, "probability": QUERIES[text] / total} for text in ("how to cook rice", "how to cook")
    ]
    done = run(tmp_path, "--prefix", "caf", "--json", "--tree", "balanced")
    assert '"café 😀"' in done.out
    done = run(tmp_path, "--prefix", "none such", "--json")
    assert (done.code, json.loads(done.out)) == (0, [])
    done = run(tmp_path, "--prefix", "HOW", "--ignore-case", "--json")
    assert [row["completion"] for row in json.loads(done.out)][2:] == ["How old", "how are you"]


def test_command_prints_a_table_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "categories.tsv").write_text("how to cook rice\tfood\nhow to cook\tfood\ncafé 😀\tfood\n")
    done = run(tmp_path, "--prefix", "", "--tree", "categories", "--categories", str(tmp_path / "categories.tsv"))
    assert done.code == 0, done.err
    words = [line.split()[0] for line in done.out.splitlines() if line.strip()]
    assert words[2:7] == ["how", "how", "café", "How", "how"]
    assert words[-4:] == ["categories", "huffman", "balanced", "flat"]
    assert "5 completions, entropy 1.49 bits" in done.out


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for arguments, message in (
        (("--prefix", "a", "--tree", "none.tree.json"), "there is no 'none.tree.json'"),
        (("--prefix", "a", "--top", "0"), "greater than or equal to 1"),
        (("--prefix", "a", "--tree", "categories"), "go together"),
    ):
        done = run(tmp_path, *arguments)
        assert done.code == 2
        assert message in done.err
        assert "Traceback" not in done.err
    done = treesearch("apply", "autocomplete", "--queries", str(tmp_path / "none.tsv"), "--prefix", "a")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "cannot be read" in done.err


def prompt(folder: Path, lines: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "treesearch.cli", "apply", "autocomplete", "--queries", str(write_queries(folder))]
    return subprocess.run([*command, *arguments], input=lines, capture_output=True, timeout=300)


def answers(lines: str, *, as_json: bool) -> None:
    index = index_of(Completions.of(QUERIES))
    answer_lines(lambda line: index.complete(line, 2), typed_lines(io.StringIO(lines)), as_json=as_json)


def test_prompt_answers_lines_until_an_empty_one(capsys: pytest.CaptureFixture[str]) -> None:
    answers("how to\ncaf\r\nzz\n\nhow\n", as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [[row["completion"] for row in row] for row in rows] == [
        ["how to cook rice", "how to cook"],
        ["café 😀"],
        [],
    ]
    answers("how\nzz", as_json=False)
    out = capsys.readouterr().out
    assert "2 completions, " in out
    assert "no completion, " in out
    assert " ms\n" in out


def test_prompt_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line editor is asked until the end of the file; an interrupt ends the prompt without an error."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = iter(["how", "caf"])

    def read(prompt: str) -> str:
        assert prompt == "> "
        for line in typed:
            return line
        raise EOFError

    monkeypatch.setattr("builtins.input", read)
    assert list(typed_lines(Terminal())) == ["how", "caf"]

    def interrupted(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    answer_lines(lambda line: [], typed_lines(Terminal()))


def test_prompt_refuses_what_is_no_text() -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"how\n\xff\n"), encoding="utf-8")
    with pytest.raises(DataError, match="must be UTF-8 text"):
        list(typed_lines(stream))


@pytest.mark.slow
def test_prompt_of_the_command(tmp_path: Path) -> None:
    done = prompt(tmp_path, b"how\nzz\n\xff\n")
    out = done.stdout.decode()
    assert "3 completions, " in out
    assert "no completion, " in out
    assert done.returncode == 2
    assert "UTF-8" in done.stderr.decode().splitlines()[-1]  # on reading it or, where the locale lets it in, later

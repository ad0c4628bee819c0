"""The corpus that needs no download: the source code of the running Python's standard library.

Files are ordered by a hash of their path within the library. That order is a shuffle that is the same everywhere, so
a prefix covers the library evenly; and since the split is a range of the hash, a module stays in its split when
others come and go between Python versions.
"""

from __future__ import annotations

import hashlib
import io
import operator
import os
import platform
import sysconfig
import token
import tokenize
from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from treesearch.data.corpus import Corpus
from treesearch.data.vocabulary import EOS, TokenReader, build_corpus, check_max_classes
from treesearch.errors import DataError

NUM, STR, INDENT, DEDENT = "<num>", "<str>", "<indent>", "<dedent>"
HELD_OUT_SHARE = 0.05  # of the modules, for valid and for test each
HELD_OUT_CAP = 0.1  # of max_train_tokens, for valid and for test each
MIN_TRAIN_TOKENS = 1000
MIN_MODULES = 100  # a whole library has over 600

EXCLUDED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
# Written when Python was built and full of that machine's settings: the corpus would depend on more than the version.
EXCLUDED_PREFIX = "_sysconfigdata"

_PLACEHOLDERS = {token.NUMBER: NUM, token.STRING: STR, token.NEWLINE: EOS, token.INDENT: INDENT, token.DEDENT: DEDENT}
_VERBATIM = {token.NAME, token.OP}
# From Python 3.12 (f-strings) and 3.14 (t-strings) on a literal is a bracket of several tokens; before, one STRING.
_OPENING = {number for number, name in token.tok_name.items() if name in ("FSTRING_START", "TSTRING_START")}
_CLOSING = {number for number, name in token.tok_name.items() if name in ("FSTRING_END", "TSTRING_END")}


def load_python_stdlib(*, max_classes: int, max_train_tokens: int | None = None) -> Corpus:
    """Read the running Python's standard library as a corpus of code.

    Names, keywords and operators are words; numbers become ``<num>``, strings ``<str>``, ends of logical lines
    ``<eos>``, block structure ``<indent>`` and ``<dedent>``. About 90 % of the modules are train, 5 % valid and 5 %
    test. The result depends on the Python version alone.

    Args:
        max_classes: Upper bound on the number of classes, at least 3.
        max_train_tokens: Stop after this many training tokens, at the end of a line; valid and test stop at a tenth
            of it each. None: the whole library (about 1.3 million tokens, some seconds).

    Returns:
        The corpus; ``source`` has the Python version, and the number of modules and SHA-256 of each split.

    Raises:
        DataError: An argument is out of range, or this Python comes without the sources of its library.
    """
    max_classes = check_max_classes(max_classes)
    caps = _token_caps(max_train_tokens)
    root = Path(sysconfig.get_paths()["stdlib"])
    modules = _split_modules(root)
    reader = TokenReader()
    streams, about = {}, {}
    for name, paths in modules.items():
        streams[name], about[name] = _read_modules(root, paths, reader, cap=caps[name])
        if not streams[name]:
            raise _no_sources(root, f"none that can be read for the {name} split")
    return build_corpus(
        reader,
        (streams["train"], streams["valid"], streams["test"]),
        max_classes=max_classes,
        origin="the standard library",
        source={
            "kind": "python-stdlib",
            "python": platform.python_version(),
            "max_classes": max_classes,
            "max_train_tokens": caps["train"],
            "splits": about,
        },
    )


def _token_caps(max_train_tokens: int | None) -> dict[str, int | None]:
    if max_train_tokens is None:
        return dict.fromkeys(("train", "valid", "test"))
    if isinstance(max_train_tokens, bool) or not hasattr(max_train_tokens, "__index__"):
        raise DataError(
            f"max_train_tokens must be an integer or None, but got {max_train_tokens!r}; give one like 400000"
        )
    cap = operator.index(max_train_tokens)
    if cap < MIN_TRAIN_TOKENS:
        raise DataError(f"max_train_tokens >= {MIN_TRAIN_TOKENS} must hold, but got {cap}; raise it or leave it out")
    held_out = int(cap * HELD_OUT_CAP)
    return {"train": cap, "valid": held_out, "test": held_out}


def _split_modules(root: Path) -> dict[str, list[str]]:
    """The library's modules as posix paths below ``root``, in hash order."""
    paths = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in EXCLUDED_FOLDERS]
        paths += [
            (Path(folder) / name).relative_to(root).as_posix()
            for name in files
            if name.endswith(".py") and not name.startswith(EXCLUDED_PREFIX)
        ]
    if len(paths) < MIN_MODULES:
        raise _no_sources(root, str(len(paths)))
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for position, path in sorted((_position(path), path) for path in paths):
        valid, test = position < HELD_OUT_SHARE, position < 2 * HELD_OUT_SHARE
        splits["valid" if valid else "test" if test else "train"].append(path)
    return splits


def _position(path: str) -> float:
    """A number in [0, 1) that depends on the path alone."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def _no_sources(root: Path, found: str) -> DataError:
    return DataError(
        f"the corpus 'python-stdlib' needs at least {MIN_MODULES} source files of the standard library, but '{root}' "
        f"has {found}; use a full Python installation, or text files (train, valid, test)"
    )


def _read_modules(
    root: Path, paths: list[str], reader: TokenReader, *, cap: int | None
) -> tuple[array[int], dict[str, Any]]:
    """Raw ids of the modules up to ``cap`` tokens, and what was read; modules that do not tokenise are left out."""
    words: list[str] = []
    digest = hashlib.sha256()
    num_modules = 0
    for path in paths:
        if cap is not None and len(words) >= cap:
            break
        try:
            data = (root / path).read_bytes()
            words += module_tokens(data)
        except (OSError, SyntaxError, UnicodeDecodeError, tokenize.TokenError):
            continue
        digest.update(data)
        num_modules += 1
    if cap is not None and len(words) > cap:
        del words[cap:]
        while words and words[-1] != EOS:
            words.pop()
    stream = array("i")
    reader.extend(stream, words)
    return stream, {"modules": num_modules, "tokens": len(stream), "sha256": digest.hexdigest()}


def module_tokens(data: bytes) -> list[str]:
    """The words of one module; unless it has no code, the last is ``<eos>``.

    Adjacent strings are one ``<str>``, as in the grammar (else tables of strings would be a fifth of some modules);
    the dedents at the end of the file, which end no line, are dropped.

    Raises:
        SyntaxError: The code or its encoding declaration is invalid.
        UnicodeDecodeError: The file does not have the encoding that it declares.
        tokenize.TokenError: A bracket or string is left open.
    """
    words = list(_words(tokenize.tokenize(io.BytesIO(data).readline)))
    while words and words[-1] == DEDENT:
        words.pop()
    return [word for previous, word in pairwise(["", *words]) if not previous == word == STR]


def _words(tokens: Iterable[tokenize.TokenInfo]) -> Iterator[str]:
    depth = 0  # of nested f-strings; their expressions are part of the string
    for kind, string, (line, _), _, _ in tokens:
        if kind in _OPENING:
            depth += 1
        elif kind in _CLOSING:
            depth -= 1
            if depth == 0:
                yield STR
        elif depth:
            continue
        elif kind in _VERBATIM:
            yield string
        elif kind in _PLACEHOLDERS:
            yield _PLACEHOLDERS[kind]
        elif kind == token.ERRORTOKEN:
            raise SyntaxError(f"line {line}: {string!r} is no Python")

"""Text files: UTF-8, words between white space, one sentence a line."""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path

from treesearch.data.corpus import Corpus
from treesearch.data.vocabulary import EOS, TokenReader, build_corpus, check_max_classes
from treesearch.errors import DataError


def load_text(train: str | Path, valid: str | Path, test: str | Path, *, max_classes: int | None) -> Corpus:
    """Read three text files as a corpus.

    ``<eos>`` is appended to each line that does not carry it already; blank lines are skipped. The classes are the
    ``max_classes`` most frequent training words, ``<eos>`` and ``<unk>`` included (None: all words); other words
    become ``<unk>``, which is a class only where something needs it.

    Args:
        train: File of training sentences; it alone decides the vocabulary.
        valid: File of validation sentences.
        test: File of test sentences.
        max_classes: Upper bound on the number of classes, at least 3.

    Returns:
        The corpus; ``source`` names each file (without its folder) with its size and SHA-256.

    Raises:
        DataError: A file is missing, not readable text or empty; or there are fewer than three classes.

    Warns:
        SmoothedClassWarning: ``<unk>`` is needed, but not in the training text.
    """
    if max_classes is not None:
        max_classes = check_max_classes(max_classes)
    reader = TokenReader()
    splits, files = {}, {}
    for name, path in {"train": Path(train), "valid": Path(valid), "test": Path(test)}.items():
        data = _read_bytes(path)
        splits[name] = _read_sentences(data, path, reader)
        if not splits[name]:
            raise DataError(
                f"the {name} text must not be empty, but {str(path)!r} has no words; give a file with sentences"
            )
        files[name] = {
            "name": path.name,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "tokens": len(splits[name]),
        }
    return build_corpus(
        reader,
        (splits["train"], splits["valid"], splits["test"]),
        max_classes=max_classes,
        origin=repr(str(train)),
        source={"kind": "text", "max_classes": max_classes, "splits": files},
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"text file {str(path)!r} does not exist; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{str(path)!r} is a directory, not a text file; name a file in it") from None
    except OSError as error:
        raise DataError(f"text file {str(path)!r} cannot be read ({error.strerror}); check its permissions") from None


def _read_sentences(data: bytes, path: Path, reader: TokenReader) -> array[int]:
    """Raw ids of all sentences in ``data``."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(error.object)  # the decoder does not count a byte order mark
        line = data.count(b"\n", 0, at) + 1
        raise DataError(
            f"text files must be UTF-8, but {str(path)!r} has the byte 0x{data[at]:02x} in line {line}; "
            f"convert the file, for instance with iconv"
        ) from None
    stream = array("i")
    # Not splitlines(): it would also cut at U+2028 and the like, which occur inside sentences.
    for line_text in text.split("\n"):
        words = line_text.split()
        if words:
            reader.extend(stream, words)
            if words[-1] != EOS:
                stream.append(reader.eos)
    return stream

"""Categories of classes: numbers for labels, and labels from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treesearch.errors import DataError
from treesearch.text_files import read_lines


def load_categories(path: Path, class_names: Sequence[str]) -> NDArray[np.int64]:
    """The category of each class, int64 [C], numbered by first appearance among the classes.

    Args:
        path: UTF-8 lines ``class name TAB category``; classes that it does not name form a category of their own, names
            that are no class are ignored.
        class_names: C names.

    Raises:
        DataError: The file cannot be read, a line has no tab, a class stands twice, or no class is named.
    """
    category_of: dict[str, str] = {}
    for number, line in read_lines(path, f"categories file {path}", DataError):
        if not line.strip():
            continue
        name, tab, category = line.partition("\t")
        if not tab:
            raise DataError(f"{path}, line {number}: expected 'class name TAB category', but got {line!r:.60}")
        if category_of.setdefault(name, category) != category:
            raise DataError(f"{path}, line {number}: class {name!r:.40} has two categories; give it one")
    if not any(name in category_of for name in class_names):
        raise DataError(f"{path} names none of the {len(class_names)} classes; the first is {class_names[0]!r:.40}")
    return number_categories([category_of.get(name) for name in class_names])


def number_categories(labels: Sequence[str | None]) -> NDArray[np.int64]:
    """Labels as numbers by first appearance, int64 [C]; None is a label too."""
    number_of: dict[str | None, int] = {}
    return np.array([number_of.setdefault(label, len(number_of)) for label in labels], np.int64)


def is_placeholder(name: str) -> bool:
    """Whether a name is in brackets, as ``<unk>`` and ``[CLS]`` are, and has a letter."""
    return (name[:1], name[-1:]) in {("<", ">"), ("[", "]")} and any(map(str.isalpha, name))

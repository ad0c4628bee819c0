"""Hidden states of a model that was trained elsewhere, with the classes that it should have predicted.

Shapes: **T** examples, **D** features, **C** classes.
"""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from treesearch.data.dataset import MIN_CLASSES, Dataset, InputSpec, Split, content_hash, smoothed_counts
from treesearch.data.names import read_names
from treesearch.errors import DataError

CHECKED_ROWS = 1 << 16  # read at a time to see that all numbers are finite
SORTED_SHARE = 0.5  # of neighbours with the same class, above what chance gives, from which a split looks sorted


class SortedExamplesWarning(UserWarning):
    """Successive examples are of the same class far too often: nodes learn from them in order, and learn badly."""


def load_features(
    train: str | Path,
    valid: str | Path,
    test: str | Path,
    *,
    num_classes: int | None = None,
    class_names: str | Path | None = None,
) -> Dataset:
    """Read three splits of features.

    Each is an ``.npz`` with ``x`` (float [T, D]) and ``y`` (int [T]), which is read into memory as float32; or a folder
    with ``x.npy`` (float16, float32 or float64) and ``y.npy``, of which ``x.npy`` stays on disk and is read a block at
    a time: it may be larger than memory.

    Args:
        train: It alone decides the counts.
        valid: As train.
        test: As train.
        num_classes: C; None: one more than the largest label, or the number of names.
        class_names: File with a name a line, in the order of the labels.

    Raises:
        DataError: A file is missing or damaged, shapes do not agree, a number is not finite, a label lies outside
            [0, C), or there are fewer than three classes.

    Warns:
        SmoothedClassWarning: A class has no training example.
        SortedExamplesWarning: Training examples seem to be sorted by class.
    """
    names = None if class_names is None else read_names(Path(class_names))
    splits = {"train": Path(train), "valid": Path(valid), "test": Path(test)}
    read = {name: read_split(path) for name, path in splits.items()}
    size = read["train"].inputs.shape[1]
    for name, split in read.items():
        if split.inputs.shape[1] != size:
            raise DataError(
                f"all splits must have {size} features, as {str(splits['train'])!r} has, but {str(splits[name])!r} has"
                f" {split.inputs.shape[1]}"
            )
    num = _checked_num_classes(read, splits, num_classes, names)
    _warn_if_sorted(read["train"].labels, num, splits["train"])
    arrays = [array for split in read.values() for array in (split.inputs, split.labels)]
    return Dataset(
        read["train"],
        read["valid"],
        read["test"],
        spec=InputSpec(size),
        class_names=names,
        counts=smoothed_counts(read["train"].labels, num, repr(str(train))),
        source={
            "kind": "features",
            "num_classes": num,
            "splits": {
                name: {"name": path.name, "examples": len(read[name]), "type": str(read[name].inputs.dtype)}
                for name, path in splits.items()
            },
        },
        hash=content_hash([*arrays, np.array([num])], names),
        classify=True,
    )


def read_split(path: Path) -> Split:
    """One split, its numbers finite and its labels >= 0; see `load_features`.

    Raises:
        DataError: It cannot be used.
    """
    x, y = read_examples(path)
    if y is None and path.is_dir():
        raise DataError(f"a folder of features must hold x.npy and y.npy, but {str(path)!r} has no y.npy")
    if y is None:
        raise DataError(f"{str(path)!r} must be an .npz with the arrays x and y, but has no y")
    inputs = x if isinstance(x, np.memmap) else np.ascontiguousarray(x, np.float32)
    return Split(inputs, np.ascontiguousarray(y, np.int32))


def read_examples(path: Path) -> tuple[NDArray[np.floating], NDArray[np.integer] | None]:
    """Features [T, D] as they are stored, and classes [T] where there are any; checked as those of `read_split`.

    Raises:
        DataError: They cannot be used.
    """
    x, y = _read_folder(path) if path.is_dir() else _read_npz(path)
    if x.ndim != 2 or x.dtype not in (np.float16, np.float32, np.float64) or not x.size:
        raise DataError(f"x in {str(path)!r} must be float [T, D], but is {x.dtype} of shape {x.shape}")
    if y is not None:
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            raise DataError(
                f"y in {str(path)!r} must be int [{x.shape[0]}], a class for each row of x, but is {y.dtype} of shape"
                f" {y.shape}"
            )
        if y.min() < 0 or y.max() > np.iinfo(np.int32).max:
            raise DataError(f"classes in {str(path)!r} must be 0, 1, .., but range from {y.min()} to {y.max()}")
    _check_finite(x, path)
    return x, y


Arrays = tuple[NDArray[np.floating], NDArray[np.integer] | None]


def _read_npz(path: Path) -> Arrays:
    if not path.is_file():
        raise DataError(
            f"no features at {str(path)!r}: give an .npz with x and y, or a folder with x.npy and y.npy, such as"
            " collect_features writes"
        )
    if not zipfile.is_zipfile(path):
        raise DataError(f"{str(path)!r} cannot be read: it is no .npz; files of documents must end in .tsv")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile) or "x" not in arrays.files:
                raise DataError(f"{str(path)!r} must be an .npz with the arrays x and y; a folder may hold .npy files")
            return np.asarray(arrays["x"]), np.asarray(arrays["y"]) if "y" in arrays.files else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None


def _read_folder(path: Path) -> Arrays:
    arrays: dict[str, NDArray[Any]] = {}
    for name in ("x.npy", "y.npy"):
        file = path / name
        if not file.is_file():
            if name == "y.npy":
                continue
            raise DataError(f"a folder of features must hold x.npy and y.npy, but {str(path)!r} has no {name}")
        try:
            # The file itself: workers open it again by its name.
            mode: Literal["r"] | None = "r" if name == "x.npy" else None
            arrays[name] = np.load(file.resolve(), mmap_mode=mode, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _unreadable(file, error) from None
    return arrays["x.npy"], arrays.get("y.npy")


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{str(path)!r} cannot be read (truncated, or no numpy file): {' '.join(str(error).split()):.160}")


def _check_finite(x: NDArray[np.floating], path: Path) -> None:
    """Also as float32, in which they are read."""
    largest = np.finfo(np.float32).max
    for begin in range(0, len(x), CHECKED_ROWS):
        good = np.abs(x[begin : begin + CHECKED_ROWS]) <= largest
        if not good.all():
            row, column = np.argwhere(~good)[0].tolist()
            hint = "; float16 holds no more than 65504" if x.dtype == np.float16 else ""
            raise DataError(
                f"all features must be finite float32 numbers, but x[{begin + row}, {column}] in {str(path)!r} is"
                f" {x[begin + row, column]}{hint}"
            )


def _checked_num_classes(
    read: dict[str, Split], paths: dict[str, Path], num_classes: int | None, names: tuple[str, ...] | None
) -> int:
    """C, which labels and names must fit."""
    if num_classes is not None and names is not None and num_classes != len(names):
        raise DataError(f"data.num_classes must be the number of names ({len(names)}), but got {num_classes}; drop it")
    largest = {name: int(split.labels.max()) for name, split in read.items()}
    num = num_classes or (len(names) if names is not None else max(largest.values()) + 1)
    for name, label in largest.items():
        if label >= num:
            raise DataError(f"classes must lie in [0, {num}), but {str(paths[name])!r} has {label}; set num_classes")
    if num < MIN_CLASSES:
        raise DataError(f"a search needs at least {MIN_CLASSES} classes, but got {num}")
    return num


def _warn_if_sorted(labels: NDArray[np.int32], num_classes: int, path: Path) -> None:
    share = np.bincount(labels, minlength=num_classes) / labels.size
    by_chance = float(share @ share)
    same = float((labels[1:] == labels[:-1]).mean()) if labels.size > 1 else 0.0
    if same > by_chance + SORTED_SHARE * (1 - by_chance):
        warnings.warn(
            f"{str(path)!r} seems to be sorted by class: {100 * same:.0f} % of successive examples are of one class"
            f" ({100 * by_chance:.0f} % by chance); shuffle it, since nodes learn from them in order",
            SortedExamplesWarning,
            stacklevel=3,
        )

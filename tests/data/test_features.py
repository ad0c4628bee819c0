"""Features from files: what is read, and what is refused."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from treesearch.data import Dataset, SmoothedClassWarning, SortedExamplesWarning, load_features
from treesearch.errors import DataError

RNG = np.random.default_rng(0)
SIZES = {"train": 40, "valid": 12, "test": 9}
X = {name: RNG.standard_normal((size, 3)).astype(np.float16) for name, size in SIZES.items()}
Y = {name: np.concatenate([np.arange(5), RNG.integers(5, size=size - 5)]) for name, size in SIZES.items()}


def write(folder: Path, *, as_folders: bool = False, **changes: Any) -> list[Path]:
    """Three splits; ``changes`` are arrays by ``x`` or ``y`` of the training split."""
    paths = []
    for name in SIZES:
        arrays = {"x": X[name], "y": Y[name]} | (changes if name == "train" else {})
        path = folder / (name if as_folders else f"{name}.npz")
        if as_folders:
            path.mkdir(exist_ok=True)
            for key, array in arrays.items():
                np.save(path / f"{key}.npy", array)
        else:
            np.savez(path, **arrays)
        paths.append(path)
    return paths


def refusal(paths: list[Path], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_features(*paths, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("as_folders", [False, True])
def test_what_is_read(tmp_path: Path, as_folders: bool) -> None:
    data = load_features(*write(tmp_path, as_folders=as_folders))
    assert (data.num_classes, data.spec.size, data.spec.are_ids, data.class_names) == (5, 3, False, None)
    np.testing.assert_array_equal(data.counts, np.bincount(Y["train"]))
    for name in SIZES:
        split = getattr(data, name)
        assert split.mapped == as_folders
        assert split.inputs.dtype == (np.float16 if as_folders else np.float32)
        np.testing.assert_array_equal(split.inputs, X[name])
        np.testing.assert_array_equal(split.labels, Y[name])
        assert split.labels.dtype == np.int32


def test_the_hash_is_of_content_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, again = load_features(*write(tmp_path)), load_features(*write(tmp_path / "other"))
    assert first.hash == again.hash
    moved = Y["train"].copy()
    moved[[5, 6]] = (moved[[5, 6]] + 1) % 5
    named = tmp_path / "names"
    named.write_text("a\nb\nc\nd\ne\n")
    others = [
        load_features(*write(tmp_path, x=X["train"] + np.float16(1))),
        load_features(*write(tmp_path, y=moved)),
        load_features(*write(tmp_path), class_names=named),
    ]
    assert len({first.hash, *(other.hash for other in others)}) == 4


def test_names_and_number_of_classes(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a\nb \n<c>\nd\ne\nnever seen\n", encoding="utf-8")
    with pytest.warns(SmoothedClassWarning, match="1 of 6 classes have no example"):
        data: Dataset = load_features(*write(tmp_path), class_names=names)
    assert data.class_names == ("a", "b ", "<c>", "d", "e", "never seen")
    assert data.counts[5] == 1
    with pytest.warns(SmoothedClassWarning):
        assert load_features(*write(tmp_path), num_classes=7).num_classes == 7
    assert "must be the number of names (6), but got 7" in refusal(write(tmp_path), num_classes=7, class_names=names)
    assert "must lie in [0, 4)" in refusal(write(tmp_path), num_classes=4)
    names.write_text("a\nb\na\n")
    assert "has 'a' in lines 1 and 3" in refusal(write(tmp_path), class_names=names)
    assert "cannot be read" in refusal(write(tmp_path), class_names=tmp_path / "missing")


def test_examples_sorted_by_class_are_told(tmp_path: Path) -> None:
    with pytest.warns(SortedExamplesWarning, match="seems to be sorted by class"):
        load_features(*write(tmp_path, y=np.sort(Y["train"])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mostly_one = np.zeros(40, np.int64)
        mostly_one[:5] = np.arange(5)
        load_features(*write(tmp_path, y=mostly_one))  # nearly all of one class: neighbours are alike by chance


@pytest.mark.parametrize("as_folders", [False, True])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x": X["train"].astype(np.int64)}, "must be float [T, D], but is int64 of shape (40, 3)"),
        ({"x": X["train"][:, 0]}, "must be float [T, D], but is float16 of shape (40,)"),
        ({"x": X["train"][:, :2]}, "all splits must have 2 features"),
        ({"x": X["train"][:0], "y": Y["train"][:0]}, "must be float [T, D]"),
        ({"y": Y["train"][:-1]}, "must be int [40], a class for each row of x, but is int64 of shape (39,)"),
        ({"y": Y["train"].astype(float)}, "but is float64"),
        ({"y": Y["train"] - 1}, "but range from -1 to 3"),
        ({"y": Y["train"] + 2**33}, "classes in"),
        ({"x": np.where(np.arange(120).reshape(40, 3) == 100, np.inf, X["train"])}, "x[33, 1]"),
        ({"x": np.where(np.arange(120).reshape(40, 3) == 100, np.nan, X["train"])}, "x[33, 1]"),
        ({"x": np.where(np.arange(120).reshape(40, 3) == 100, -1e300, X["train"].astype(float))}, "is -1e+300"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, as_folders: bool, changes: dict[str, NDArray], says: str) -> None:
    assert says in refusal(write(tmp_path, as_folders=as_folders, **changes))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    good = write(tmp_path)
    assert "no features at" in refusal([tmp_path / "missing.npz", *good[1:]])
    np.savez(tmp_path / "train.npz", x=X["train"])
    assert "with the arrays x and y" in refusal(good)
    np.savez(tmp_path / "train.npz", x=np.array([{}], dtype=object), y=Y["train"])
    assert "cannot be read" in refusal(good)
    for content in (b"", b"PK\x03\x04 broken", good[1].read_bytes()[:-200]):
        good[0].write_bytes(content)
        assert "cannot be read" in refusal(good)
    folders = write(tmp_path, as_folders=True)
    (folders[0] / "y.npy").unlink()
    assert "has no y.npy" in refusal(folders)
    (folders[0] / "y.npy").write_bytes((folders[1] / "y.npy").read_bytes()[:-9])
    assert "cannot be read" in refusal(folders)


def test_too_few_classes(tmp_path: Path) -> None:
    paths = write(tmp_path)
    for path in paths:
        with np.load(path) as arrays:
            x, y = arrays["x"], arrays["y"] % 2
        np.savez(path, x=x, y=y)
    assert "at least 3 classes, but got 2" in refusal(paths)

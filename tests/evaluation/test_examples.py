"""Batches from memory and from disk."""

from pathlib import Path

import numpy as np
import pytest
import torch

from treesearch.data import Split
from treesearch.evaluation.examples import Examples, HeldExamples, MappedExamples

CPU = torch.device("cpu")
NUM = 101


def split(tmp_path: Path | None) -> Split:
    """Row i holds i, and so does its label."""
    x = np.repeat(np.arange(NUM, dtype=np.float16)[:, None], 3, axis=1)
    if tmp_path is not None:
        np.save(tmp_path / "x.npy", x)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    return Split(x, np.arange(NUM, dtype=np.int32))


def examples(tmp_path: Path, mapped: bool) -> Examples:
    if mapped:
        return MappedExamples(split(tmp_path), CPU, part_bytes=20 * 6)  # 20 rows
    return HeldExamples(split(None), CPU)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 20, 33, 101, 500])
def test_every_example_once_in_full_batches(tmp_path: Path, mapped: bool, batch_size: int) -> None:
    own = examples(tmp_path, mapped)
    assert len(own) == NUM
    for batches in (own.shuffled(batch_size, torch.Generator().manual_seed(0)), own.in_order(batch_size)):
        inputs, labels = zip(*batches, strict=True)
        sizes = [len(y) for y in labels]
        assert sizes == [batch_size] * (NUM // batch_size) + [NUM % batch_size] * (NUM % batch_size > 0)
        x, y = torch.cat(inputs), torch.cat(labels)
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert torch.equal(x[:, 0], y.float())
        assert sorted(y.tolist()) == list(range(NUM))
    assert y.tolist() == list(range(NUM))  # in order


@pytest.mark.parametrize("mapped", [False, True])
def test_the_order_is_the_generators(tmp_path: Path, mapped: bool) -> None:
    def order(seed: int) -> list[int]:
        batches = examples(tmp_path, mapped).shuffled(10, torch.Generator().manual_seed(seed))
        return torch.cat([labels for _, labels in batches]).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != sorted(order(0))


def test_parts_are_shuffled_and_examples_within_them(tmp_path: Path) -> None:
    batches = examples(tmp_path, True).shuffled(20, torch.Generator().manual_seed(3))
    parts = [{int(i) // 20 for i in labels} for _, labels in batches]
    assert all(len(part) <= 2 for part in parts)  # two where the part of one example has been in between
    assert parts != sorted(parts, key=min)


def test_where_inputs_are_decides(tmp_path: Path) -> None:
    assert isinstance(Examples.of(split(tmp_path), CPU), MappedExamples)
    assert isinstance(Examples.of(split(None), CPU), HeldExamples)

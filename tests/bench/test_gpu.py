"""The benchmark of GPUs: its contenders do the same work, here at a toy's size on the host."""

import numpy as np
import pytest
import torch

from treesearch.bench import gpu
from treesearch.errors import ConfigError


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    for name, value in {
        "CALLS": 1,
        "WARM_UP": 1,
        "FROZEN_CLASSES": 60,
        "FROZEN_TOKENS": 50,
        "FROZEN_FEATURES": 4,
    }.items():
        monkeypatch.setattr(gpu, name, value)


def test_rows_of_every_contender():
    rows = gpu.run("cpu", sizes=[200], batch=8, num_features=16, parts=["eager", "frozen"])
    timed = [row for row in rows if "classes" in row]
    assert len({(row["type"], row["layer"]) for row in timed}) == len(timed) == 2 * 10 - 1
    assert all(row["step_ms"] > 0 and row["update_ms"] > 0 and row["best_ms"] > 0 for row in timed)
    assert [row["trees"] for row in rows[len(timed) :]] == [1, 16, 1, 16]


def test_contenders_train_and_find_the_best():
    counts = 1 / np.arange(1, 201)
    x, y = torch.randn(32, 16), torch.arange(32)
    for name, make in gpu.contenders(200, 16, counts, torch.device("cpu")).items():
        contender = make()
        optimizer, losses = contender.optimizer(), []
        for _ in range(20):
            contender.layer.zero_grad()
            loss = contender.loss(x, y)
            loss.backward()
            optimizer.param_groups[0]["lr"] = 0.05
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.5, name
        found = contender.best(x)
        assert found[1].shape == (32, gpu.LIST_LENGTH)
        assert (found[1][:, 0] == y).float().mean() > 0.3, name


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_it_needs_a_gpu():
    with pytest.raises(ConfigError, match="needs a CUDA device, but torch sees none"):
        gpu.run()

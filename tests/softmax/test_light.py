"""A saved layer loads and serves where nothing of the search is installed."""

import subprocess
import sys
from pathlib import Path

import torch

from tests.softmax.oracle import TREES, random_batch, random_layer

# Everything that a search, its command line and its trackers need beyond the layer; numba, numpy, safetensors, scipy
# (the BLAS of numba's kernels) and torch are the layer's own.
OF_THE_SEARCH = (
    "agents", "envs", "gymnasium", "pydantic", "ray", "rich", "tensorboardX", "threadpoolctl", "typer", "wandb", "yaml",
)  # fmt: skip

LOAD = f"""
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OF_THE_SEARCH}:
            raise ImportError("the layer must do without " + name)

sys.meta_path.insert(0, Refusal())

import torch
from treesearch import HierarchicalSoftmax

layer = HierarchicalSoftmax.from_pretrained(sys.argv[1])
inputs, target = torch.load(sys.argv[2])
output, loss = layer(inputs, target)
loss.backward()
top = layer.topk(inputs, 3)
from treesearch.serving import beam_module
beam = beam_module(layer, 3, beam=4)(inputs)
torch.save([output.detach(), layer.log_prob(inputs).detach(), *top, *beam], sys.argv[3])
"""


def test_a_saved_layer_needs_nothing_of_the_search(tmp_path: Path) -> None:
    layer = random_layer(TREES["adaptive"], dtype=torch.float32, kernel="auto")
    layer.save_pretrained(tmp_path / "layer")
    inputs, target = random_batch(layer, 5, dtype=torch.float32)
    torch.save((inputs, target), tmp_path / "batch.pt")
    run = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "layer", tmp_path / "batch.pt", tmp_path / "found.pt"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    output, log_prob, *found = torch.load(tmp_path / "found.pt")
    top, beam = found[:4], found[4:]
    expected = layer.topk(inputs, 3)
    torch.testing.assert_close(output, layer(inputs, target).output.detach())
    torch.testing.assert_close(log_prob, layer.log_prob(inputs).detach())
    torch.testing.assert_close(top[0], expected.log_prob)
    assert top[1].tolist() == beam[1].tolist() == expected.indices.tolist()
    torch.testing.assert_close(beam[0].detach(), expected.log_prob)

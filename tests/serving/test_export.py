"""Exported layers against the layer itself: torch's programs, and ONNX in onnxruntime, with nothing of ours at hand."""

import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.processes import full_disk
from tests.softmax.oracle import random_batch, random_layer
from treesearch import Tree, build_tree
from treesearch.errors import ConfigError, MissingExtraError
from treesearch.serving import beam_module, export, export_onnx, export_program, scoring_module
from treesearch.serving.modules import ServingModule
from treesearch.softmax import HierarchicalSoftmax

pytestmark = [
    # torch's exporter copies a deprecated class of torch's own; in the saved program it meets it once more
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]

D = 16
COUNTS = 1 / np.arange(1, 1001)
VECTORS = np.random.default_rng(0).standard_normal((1000, D), np.float32)
TREES = {
    "huffman": build_tree("huffman", counts=COUNTS),
    "clustered 16-way": build_tree("clustered", counts=COUNTS, vectors=VECTORS, arity=16),
    "adaptive": build_tree("adaptive", counts=COUNTS, cutoffs=[50, 300], div_value=2.0, in_features=D),
    "flat": build_tree("flat", counts=COUNTS),
    "two classes": Tree.from_nested([0, 1]),
    "one class": Tree.from_nested(0),
}
BATCHES = (*range(8), 33)
MODULES = ["scores", "greedy", "beam", "exact"]


def make(tree: Tree, kind: str, *, bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[Any, ServingModule]:
    layer = random_layer(tree, in_features=D, bias=bias, dtype=dtype, kernel="auto")
    k = min(5, tree.num_classes)
    if kind == "scores":
        return layer, scoring_module(layer)
    if kind == "greedy":
        return layer, beam_module(layer, 1, beam=1)
    return layer, beam_module(layer, k, beam=4 if kind == "beam" else None)


def expected_of(layer: HierarchicalSoftmax, module: ServingModule, inputs: torch.Tensor) -> list[torch.Tensor]:
    """What the layer itself says."""
    with torch.no_grad():
        if module.output_names == ("log_prob",):
            return [layer.log_prob(inputs)]
        found = layer.topk(inputs, module.k, max_nodes=module.beam)  # type: ignore[arg-type]
        return [found.log_prob, found.indices, found.exact]


def assert_same(found: Sequence[Any], expected: Sequence[torch.Tensor], tolerance: float = 1e-5) -> None:
    assert len(found) == len(expected)
    for own, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(own), theirs, rtol=tolerance, atol=tolerance)


def session_of(path: Path) -> Any:
    return pytest.importorskip("onnxruntime").InferenceSession(str(path))


def onnx_outputs(path: Path, inputs: torch.Tensor) -> list[NDArray[Any]]:
    outputs: list[NDArray[Any]] = session_of(path).run(None, {"input": inputs.numpy()})
    return outputs


@pytest.fixture
def onnx() -> Any:
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnx")


QUICK = {
    ("huffman", "scores", True),
    ("adaptive", "beam", False),
    ("two classes", "beam", True),
}
CASES = [
    # Torch's exporter takes a second or two for each, up to ten for a beam through a deep binary tree.
    pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
    for case in product(TREES, MODULES, (True, False))
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "bias"), CASES)
def test_onnx(name: str, kind: str, bias: bool, onnx: Any, tmp_path: Path) -> None:
    layer, module = make(TREES[name], kind, bias=bias)
    path = tmp_path / "layer.onnx"
    export_onnx(module, path)
    onnx.checker.check_model(str(path), full_check=True)
    session = session_of(path)
    assert [output.name for output in session.get_outputs()] == list(module.output_names)
    assert session.get_inputs()[0].shape == ["batch", D]
    for size in BATCHES:
        inputs = random_batch(layer, size, seed=size, dtype=torch.float32)[0]
        assert_same(session.run(None, {"input": inputs.numpy()}), expected_of(layer, module, inputs))


@pytest.mark.parametrize(("name", "kind", "bias"), CASES)
def test_program(name: str, kind: str, bias: bool) -> None:
    layer, module = make(TREES[name], kind, bias=bias)
    program = export_program(module).module()
    for size in BATCHES:
        inputs = random_batch(layer, size, seed=size, dtype=torch.float32)[0]
        found = program(inputs)
        assert_same(found if isinstance(found, tuple) else [found], expected_of(layer, module, inputs))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scores", "beam"])
def test_double_precision(kind: str, onnx: Any, tmp_path: Path) -> None:
    layer, module = make(TREES["adaptive"], kind, dtype=torch.float64)
    export_onnx(module, tmp_path / "layer.onnx")
    inputs = random_batch(layer, 4)[0]
    assert_same(onnx_outputs(tmp_path / "layer.onnx", inputs), expected_of(layer, module, inputs), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scores", "exact"])
def test_improbable_classes_stay_finite(kind: str, onnx: Any, tmp_path: Path) -> None:
    """Torch's own translation of log(sigmoid(x)) gives minus infinity below x = -104."""
    layer, module = make(build_tree("huffman", counts=COUNTS[:30]), kind)
    export_onnx(module, tmp_path / "layer.onnx")
    inputs = random_batch(layer, 4, dtype=torch.float32)[0] * 500
    expected = expected_of(layer, module, inputs)
    assert expected[0].min() < -1000 or kind == "exact"
    assert_same(onnx_outputs(tmp_path / "layer.onnx", inputs), expected, 1e-4)


# -- files ---------------------------------------------------------------------------------------------------------

WITHOUT_US = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ImportError(name)

sys.meta_path.insert(0, Refusal())
"""


def run_without(names: set[str], code: str, *arguments: Path, cwd: Path) -> str:
    """What ``code`` prints in a fresh interpreter in which these packages cannot be imported."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_US.format(names=names) + code, *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


RUN_PROGRAM = """
import torch
program = torch.export.load(sys.argv[1]).module()
inputs = torch.load(sys.argv[2])
torch.save(program(inputs), sys.argv[3])
print(*sorted({name.split(".")[0] for name in sys.modules} & {"treesearch", "envs", "agents", "numba"}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scores", "beam"])
def test_a_saved_program_stands_alone(kind: str, tmp_path: Path) -> None:
    layer, module = make(TREES["clustered 16-way"], kind)
    inputs = random_batch(layer, 6, dtype=torch.float32)[0]
    program, given, found = tmp_path / "layer.pt2", tmp_path / "inputs.pt", tmp_path / "found.pt"
    torch.export.save(export_program(module), program)
    torch.save(inputs, given)
    us = {"treesearch", "envs", "agents"}
    assert run_without(us, RUN_PROGRAM, program, given, found, cwd=tmp_path) == ""
    outputs = torch.load(found)
    assert_same(outputs if isinstance(outputs, tuple) else [outputs], expected_of(layer, module, inputs))


RUN_ONNX = """
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
numpy.savez(sys.argv[3], *session.run(None, {"input": numpy.load(sys.argv[2])}))
"""


@pytest.mark.slow
def test_an_onnx_file_stands_alone(onnx: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    layer, module = make(TREES["adaptive"], "beam")
    inputs = random_batch(layer, 6, dtype=torch.float32)[0]
    model, given, found = tmp_path / "layer.onnx", tmp_path / "inputs.npy", tmp_path / "found.npz"
    export_onnx(module, model)
    np.save(given, inputs.numpy())
    run_without({"treesearch", "envs", "agents", "torch"}, RUN_ONNX, model, given, found, cwd=tmp_path)
    with np.load(found) as outputs:
        assert_same([outputs[name] for name in outputs], expected_of(layer, module, inputs))


def test_the_file_names_the_tree_and_no_paths(onnx: Any, tmp_path: Path) -> None:
    layer, module = make(TREES["adaptive"], "beam")
    export_onnx(module, tmp_path / "layer.onnx")
    model = onnx.load(tmp_path / "layer.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props}["treesearch.tree_hash"] == layer.tree.hash
    assert str(Path(export.__file__).parents[1]).encode() not in (tmp_path / "layer.onnx").read_bytes()


@pytest.mark.slow
def test_external_data(onnx: Any, tmp_path: Path) -> None:
    layer, module = make(TREES["flat"], "scores")
    export_onnx(module, tmp_path / "layer.onnx", external_data=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layer.onnx", "layer.onnx.data"]
    assert (tmp_path / "layer.onnx").stat().st_size < 20_000 < (tmp_path / "layer.onnx.data").stat().st_size
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in list(tmp_path.glob("layer*")):
        path.rename(moved / path.name)
    inputs = random_batch(layer, 3, dtype=torch.float32)[0]
    assert_same(onnx_outputs(moved / "layer.onnx", inputs), expected_of(layer, module, inputs))


def test_a_failed_write_leaves_what_was_there(onnx: Any, tmp_path: Path) -> None:
    _, module = make(TREES["flat"], "scores")
    path = tmp_path / "layer.onnx"
    path.write_bytes(b"before")
    with full_disk(10_000), pytest.raises(OSError, match="large"):
        export_onnx(module, path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("layer.onnx", b"before")]


def test_parameters_are_those_of_the_export(tmp_path: Path) -> None:
    """What is trained later does not change a program that has been saved."""
    layer, module = make(TREES["flat"], "scores")
    inputs = random_batch(layer, 3, dtype=torch.float32)[0]
    before = expected_of(layer, module, inputs)
    torch.export.save(export_program(module), tmp_path / "layer.pt2")
    with torch.no_grad():
        layer.weights[0].zero_()
    assert_same([torch.export.load(tmp_path / "layer.pt2").module()(inputs)], before)
    assert_same([module(inputs)], expected_of(layer, module, inputs))


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, module = make(TREES["two classes"], "scores")
    with pytest.raises(ConfigError, match=r"must end in \.onnx, but got 'layer.pb'"):
        export_onnx(module, tmp_path / "layer.pb")
    monkeypatch.setattr(export, "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match=r"'onnx', .* 'treesearch\[serve\]'"):
        export_onnx(module, tmp_path / "layer.onnx")
    assert not list(tmp_path.iterdir())

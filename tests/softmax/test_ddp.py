"""The layer travels: checkpoints, folders, copies, other devices, and the processes of data-parallel training."""

import copy
import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from tests.softmax.oracle import KERNELS, TREES, D, projected, random_batch, random_layer
from treesearch import Tree
from treesearch.errors import DataError, TreeError
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.layer import Kernel

MIXED = TREES["nested, growing again"]  # 9 classes, binary and wide nodes, nested projections
OTHER = projected([[0, [1, [2, 3]]], [4, [5, 6, 8]], 7], [0, 2, 3, 5, 0, 1])  # the same, but two leaves change places


def make(tree: Tree = MIXED, *, kernel: Kernel = "auto", seed: int = 0, **options: Any) -> HierarchicalSoftmax:
    return random_layer(tree, seed=seed, kernel=kernel, **{"dtype": torch.float32, **options})


def values_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert torch.equal(value, other[name])


# -- state dicts -------------------------------------------------------------------------------------------------------


def test_the_state_is_the_parameters_and_the_hash_of_the_tree() -> None:
    layer = make()
    state = layer.state_dict()
    assert set(state) == {name for name, _ in layer.named_parameters()} | {"tree_hash"}
    assert bytes(state["tree_hash"].tolist()).hex() == MIXED.hash
    assert [(name, value.numel(), value.dtype) for name, value in layer.named_buffers()] == [
        ("tree_hash", 16, torch.uint8)
    ]


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_state_dict_round_trip(name: str, dtype: torch.dtype) -> None:
    layer, other = (make(TREES[name], seed=seed, dtype=dtype) for seed in (0, 1))
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert_same_state(values_of(layer), values_of(other))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_weights_of_another_tree_are_refused(strict: bool, assign: bool, nested: bool) -> None:
    layer, theirs = make(), make(OTHER, seed=1)
    shapes = [parameter.shape for parameter in layer.parameters()]
    assert shapes == [parameter.shape for parameter in theirs.parameters()]  # nothing else could tell
    before = values_of(layer)
    model: nn.Module = nn.Sequential(nn.Linear(2, D), nn.ModuleDict({"head": layer})) if nested else layer
    saved: nn.Module = nn.Sequential(nn.Linear(2, D), nn.ModuleDict({"head": theirs})) if nested else theirs
    message = rf"this layer's tree, {MIXED.hash}, but they belong to {OTHER.hash}"
    with pytest.raises(TreeError, match=message) as caught:
        model.load_state_dict(saved.state_dict(), strict=strict, assign=assign)
    assert "\n" not in str(caught.value)
    assert_same_state(values_of(layer), before)


def test_a_layer_without_values_refuses_them_too() -> None:
    with pytest.raises(TreeError, match=OTHER.hash):
        make().to("meta").load_state_dict(make(OTHER).state_dict(), assign=True)


def test_a_state_without_the_hash_is_incomplete() -> None:
    state = make().state_dict()
    del state["tree_hash"]
    with pytest.raises(RuntimeError, match=r"Missing key.*tree_hash"):
        make().load_state_dict(state)


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one class", "two classes", "huffman", "adaptive", "nested, growing again"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_saved_and_loaded(name: str, dtype: torch.dtype, bias: bool, tmp_path: Path) -> None:
    layer = make(TREES[name], dtype=dtype, bias=bias, sparse=bias)
    layer.save_pretrained(tmp_path / "new" / "layer")
    again = HierarchicalSoftmax.from_pretrained(tmp_path / "new" / "layer")
    assert_same_state(values_of(layer), values_of(again))
    assert (again.tree, again.sparse, len(again.biases)) == (layer.tree, bias, len(layer.biases))
    inputs, targets = random_batch(layer, 5, dtype=dtype)
    assert torch.equal(layer(inputs, targets).output, again(inputs, targets).output)


def test_options_of_a_loaded_layer(tmp_path: Path) -> None:
    make(sparse=True).save_pretrained(tmp_path)
    layer = HierarchicalSoftmax.from_pretrained(tmp_path, kernel="reference", sparse=False)
    assert (layer.kernel, layer.sparse) == ("reference", False)


def test_files_of_two_trees_in_one_folder_are_refused(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "own")
    make(OTHER).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "own")
    with pytest.raises(TreeError, match=rf"{MIXED.hash}, but model.safetensors names '{OTHER.hash}"):
        HierarchicalSoftmax.from_pretrained(tmp_path / "own")
    with pytest.raises(DataError, match="no saved layer"):
        HierarchicalSoftmax.from_pretrained(tmp_path / "nowhere")


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["auto", *KERNELS])
@pytest.mark.parametrize("name", ["one class", "huffman", "nested, growing again"])
def test_copies_are_independent(kernel: Kernel, name: str) -> None:
    layer = make(TREES[name], kernel=kernel, sparse=True)
    inputs, targets = random_batch(layer, 7, dtype=torch.float32)
    before = layer(inputs, targets).output, layer.log_prob(inputs), layer.topk(inputs, 1).log_prob  # fills the caches
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(layer), torch.load(buffer, weights_only=False)):
        assert (twin.kernel, twin.sparse, twin.tree) == (kernel, True, layer.tree)
        after = twin(inputs, targets).output, twin.log_prob(inputs), twin.topk(inputs, 1).log_prob
        assert all(map(torch.equal, after, before))
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert torch.equal(layer(inputs, targets).output, before[0])
        assert name == "one class" or not torch.equal(twin(inputs, targets).output, before[0])


@pytest.mark.parametrize("kernel", ["auto", *KERNELS])
def test_built_without_values_and_then_filled(kernel: Kernel) -> None:
    layer = make(kernel=kernel)
    inputs, targets = random_batch(layer, 7, dtype=torch.float32)
    for empty in (
        HierarchicalSoftmax(D, MIXED, device="meta", kernel=kernel),
        make(kernel=kernel, seed=1).to("meta"),
        HierarchicalSoftmax(D, MIXED, device="meta", kernel=kernel).to_empty(device="cpu"),
    ):
        empty.load_state_dict(layer.state_dict(), assign=True)
        assert_same_state(values_of(layer), values_of(empty))
        assert torch.equal(empty(inputs, targets).output, layer(inputs, targets).output)
        assert torch.equal(empty.log_prob(inputs), layer.log_prob(inputs))


def test_an_emptied_layer_still_knows_its_tree() -> None:
    layer = HierarchicalSoftmax(D, MIXED, device="meta").to_empty(device="cpu")
    layer.reset_parameters()
    make().load_state_dict(layer.state_dict())  # would be refused if the hash had been lost


# -- data-parallel training --------------------------------------------------------------------------------------------

SETUPS: list[tuple[Kernel, bool]] = [("cpu", False), ("gpu", False), ("reference", True)]  # and find_unused_parameters
NUM_STEPS = 3


def train(model: nn.Module, inputs: Tensor, targets: Tensor) -> list[list[Tensor]]:
    """The gradients of each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    steps = []
    for _ in range(NUM_STEPS):
        optimizer.zero_grad()
        model(inputs, targets).loss.backward()
        steps.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()])
        optimizer.step()
    return steps


def work(rank: int, port: int, folder: str) -> None:
    """One of two processes: its half of the batch; writes its gradients."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = distributed.TCPStore("127.0.0.1", port, is_master=False)  # type: ignore[attr-defined]
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    results = {}
    for kernel, unused in SETUPS:
        layer = make(kernel=kernel, seed=rank)  # the first process's values count
        model = DistributedDataParallel(layer, find_unused_parameters=unused)
        assert [buffer.numel() for buffer in model.modules_buffers] == [16]  # no tables are sent around
        inputs, targets = random_batch(layer, 20, dtype=torch.float32)
        half = slice(10 * rank, 10 * rank + 10)
        results[kernel] = train(model, inputs[half], targets[half])
    torch.save(results, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_the_joined_batch(tmp_path: Path) -> None:
    any_free = 0
    store = distributed.TCPStore("127.0.0.1", any_free, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    spawn(work, (store.port, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for kernel, _ in SETUPS:
        layer = make(kernel=kernel)
        inputs, targets = random_batch(layer, 20, dtype=torch.float32)
        for one, other, joined in zip(first[kernel], second[kernel], train(layer, inputs, targets), strict=True):
            for own, theirs, expected in zip(one, other, joined, strict=True):
                assert torch.equal(own, theirs)
                torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)

"""`replace_output_layer` in plain torch models."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from treesearch import HierarchicalSoftmax, Tree, build_tree
from treesearch.errors import ConfigError, DataError, TreeSearchError
from treesearch.integrations.torch import TreeOutputLayer, load_output_layer, replace_output_layer
from treesearch.softmax import RowwiseAdam

CLASSES, FEATURES = 11, 4
COUNTS = np.arange(1, CLASSES + 1)
HUFFMAN = build_tree("huffman", counts=COUNTS)
FLAT = build_tree("flat", counts=COUNTS)


class Tied(nn.Module):
    def __init__(self, bias=False):
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(CLASSES, FEATURES)
        self.body = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh())
        self.out = nn.Module()
        self.out.head = nn.Linear(FEATURES, CLASSES, bias=bias)
        self.out.head.weight = self.embedding.weight

    def forward(self, x):
        return self.out.head(self.body(self.embedding(x)))


X = torch.randint(0, CLASSES, (64,), generator=torch.Generator().manual_seed(0))
Y = (X * 3 + 1) % CLASSES


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64])
def test_a_flat_tree_is_the_flat_layer(bias, dtype):
    model = Tied(bias)
    with torch.no_grad():
        expected = model(X).log_softmax(-1)
        head = replace_output_layer(model, "out.head", FLAT, dtype=dtype)
        assert model.out.head is head
        assert isinstance(head, HierarchicalSoftmax)
        assert head.weights[0].dtype == (dtype or torch.float32)
        torch.testing.assert_close(model(X).float(), expected)


def test_it_starts_where_from_linear_does():
    model = Tied()
    expected = HierarchicalSoftmax.from_linear(model.out.head, HUFFMAN, COUNTS)
    head = replace_output_layer(model, "out.head", HUFFMAN, counts=COUNTS)
    for name, value in expected.state_dict().items():
        assert torch.equal(head.state_dict()[name], value), name


def test_the_embedding_keeps_its_weight_for_itself():
    model = Tied()
    embedding, before = model.embedding.weight, model.embedding.weight.detach().clone()
    head = replace_output_layer(model, "out.head", HUFFMAN)
    assert model.embedding.weight is embedding
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(1)
    assert torch.equal(model.embedding.weight, before)
    assert len(list(model.parameters())) == 5  # embedding, body twice, rows and biases


def test_losses_of_logits_and_of_paths_are_the_same():
    model = Tied()
    head = replace_output_layer(model, "out.head", HUFFMAN, counts=COUNTS)
    flat_loss = nn.functional.cross_entropy(model(X), Y)
    flat_grads = torch.autograd.grad(flat_loss, model.parameters())
    with head.bypassed():
        hidden = model(X)
    torch.testing.assert_close(hidden, model.body(model.embedding(X)))
    loss = head(hidden, Y).loss
    torch.testing.assert_close(loss, flat_loss)
    torch.testing.assert_close(torch.autograd.grad(loss, model.parameters()), flat_grads)
    assert model(X).shape == (64, CLASSES)  # no longer bypassed


def test_the_bypass_ends_with_an_exception():
    model = Tied()
    head = replace_output_layer(model, "out.head", HUFFMAN)
    with pytest.raises(IndexError), head.bypassed():
        model(X + CLASSES)
    assert model(X).shape == (64, CLASSES)


@pytest.mark.parametrize("sparse", [False, True])
def test_fine_tuning(sparse):
    model = Tied()
    head = replace_output_layer(model, "out.head", HUFFMAN, counts=COUNTS, sparse=sparse)
    own = {id(parameter) for parameter in head.parameters()}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in own]
    optimizers = [torch.optim.Adam(rest, lr=0.02)]
    optimizers.append(
        RowwiseAdam(head.parameters(), lr=0.02) if sparse else torch.optim.Adam(head.parameters(), lr=0.02)
    )
    losses = []
    for _ in range(150):
        with head.bypassed():
            hidden = model(X)
        loss = head(hidden, Y).loss
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        assert head.weights[0].grad.is_sparse == sparse
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_bfloat16():
    model = Tied().bfloat16()
    exact = copy.deepcopy(model)
    head = replace_output_layer(model, "out.head", HUFFMAN)
    precise = replace_output_layer(exact, "out.head", HUFFMAN, dtype=torch.float32)
    assert (head.weights[0].dtype, precise.weights[0].dtype) == (torch.bfloat16, torch.float32)
    assert model(X).dtype == exact(X).dtype == torch.float32
    torch.testing.assert_close(model(X), exact(X), atol=0.05, rtol=0.02)
    hidden = model.body(model.embedding(X)).detach()
    for layer in (head, precise):
        layer(hidden, Y).loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    assert precise.topk(hidden, 3).indices.shape == (64, 3)
    expected = HierarchicalSoftmax.from_linear(Tied().bfloat16().float().out.head, HUFFMAN)
    assert torch.equal(precise.weights[0], expected.weights[0])  # not rounded on the way


def test_modes_and_devices_are_kept():
    model = Tied().eval()
    assert not replace_output_layer(model, "out.head", HUFFMAN).training
    assert replace_output_layer(Tied(), "out.head", HUFFMAN).training


def test_save_and_load(tmp_path):
    model, fresh = Tied(), Tied()
    head = replace_output_layer(model, "out.head", HUFFMAN, counts=COUNTS, sparse=True)
    with torch.no_grad():
        head.weights[0].mul_(2)
    head.save_pretrained(tmp_path)
    loaded = load_output_layer(fresh, "out.head", tmp_path)
    assert isinstance(loaded, TreeOutputLayer)
    assert fresh.out.head is loaded
    assert loaded.sparse
    assert torch.equal(fresh(X), model(X))
    fresh.load_state_dict(model.state_dict())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(again):
    model = Tied()
    head = replace_output_layer(model, "out.head", HUFFMAN)
    copied = again(model)
    assert torch.equal(copied(X), model(X))
    with copied.out.head.bypassed():
        assert copied(X).shape == (64, FEATURES)
        assert model(X).shape == (64, CLASSES)
    assert copied.out.head is not head


def test_compiled_after_the_swap():
    model = Tied()
    replace_output_layer(model, "out.head", HUFFMAN, kernel="gpu")
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(X), model(X))


def shared():
    model = Tied()
    model.again = model.out.head
    return model


@pytest.mark.parametrize(
    ("model", "name", "tree", "message"),
    [
        (Tied(), "head", HUFFMAN, "did you mean 'out.head'"),
        (Tied(), "body", HUFFMAN, "'body' must be an nn.Linear with floating-point weights, but is a Sequential"),
        (Tied(), "out.head", build_tree("huffman", counts=COUNTS[1:]), "11 outputs .* but have 10 classes"),
        (shared(), "out.head", HUFFMAN, "is also 'again'"),
        (shared(), "again", HUFFMAN, "is also 'out.head'"),
        (nn.DataParallel(Tied()), "module.out.head", HUFFMAN, "is a DataParallel; swap first"),
        (torch.compile(Tied(), backend="eager"), "out.head", HUFFMAN, "is a OptimizedModule; swap first"),
        (Tied().to("meta"), "out.head", HUFFMAN, "holds weights"),
    ],
)
def test_what_cannot_be_replaced(model, name, tree, message):
    before = str(model)
    with pytest.raises(TreeSearchError, match=message) as error:
        replace_output_layer(model, name, tree)
    assert isinstance(error.value, ConfigError | DataError)
    assert "\n" not in str(error.value)
    assert str(model) == before


def test_what_cannot_be_loaded(tmp_path):
    HierarchicalSoftmax(FEATURES, Tree.from_nested([0, [1, 2]])).save_pretrained(tmp_path / "small")
    HierarchicalSoftmax(FEATURES + 1, HUFFMAN).save_pretrained(tmp_path / "wide")
    for name, message in (("small", "3 classes"), ("wide", "5 features"), ("none", "no saved layer")):
        model = Tied()
        with pytest.raises(DataError, match=message):
            load_output_layer(model, "out.head", tmp_path / name)
        assert isinstance(model.out.head, nn.Linear)


def test_a_tree_cannot_be_swapped_again():
    model = Tied()
    replace_output_layer(model, "out.head", HUFFMAN)
    with pytest.raises(DataError, match="but is a TreeOutputLayer"):
        replace_output_layer(model, "out.head", HUFFMAN)

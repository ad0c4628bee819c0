"""`collect_features` against a loop by hand, on plain torch models."""

import numpy as np
import pytest
import torch
from torch import nn

from treesearch.errors import ConfigError, DataError, TreeSearchError
from treesearch.integrations.torch import collect_features

CLASSES, FEATURES = 11, 4


class Classifier(nn.Module):
    """Embedding, hidden layer with dropout, tied output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(CLASSES, FEATURES)
        self.body = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh(), nn.Dropout(0.5))
        self.head = nn.Linear(FEATURES, CLASSES, bias=False)
        self.head.weight = self.embedding.weight
        self.unused = nn.Linear(2, 2)

    def hidden(self, x):
        return self.body(self.embedding(x))

    def forward(self, x):
        hidden = self.hidden(x)
        self.said = self.head(hidden)
        return self.said.log_softmax(-1)


class Twice(Classifier):
    def forward(self, x):
        return self.head(self.hidden(x)) + self.head(self.hidden(x))


class OfList(Classifier):
    class Sum(nn.Module):
        def forward(self, parts):
            return sum(parts)

    def __init__(self):
        super().__init__()
        self.listed = self.Sum()

    def forward(self, x):
        return self.listed([self.hidden(x)])


def batches(count=3, shape=(5,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randint(0, CLASSES, shape, generator=generator)  # noqa: E731
    return [(draw(), draw()) for _ in range(count)]


def by_hand(model, loader):
    model.eval()
    with torch.no_grad():
        x = torch.cat([model.hidden(x).reshape(-1, FEATURES) for x, _ in loader])
    return x.numpy(), torch.cat([y.reshape(-1) for _, y in loader]).numpy()


def read(folder):
    return np.load(folder / "x.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r")


def assert_collected(folder, expected, dtype=np.float16):
    x, y = read(folder)
    assert x.dtype == dtype
    np.testing.assert_array_equal(x, expected[0].astype(dtype))
    np.testing.assert_array_equal(y, expected[1])


@pytest.mark.parametrize("shape", [(5,), (2, 3), (1,)])
@pytest.mark.parametrize("dtype", ["float32", np.float16, torch.float32])
def test_equal_to_a_loop_by_hand(tmp_path, shape, dtype):
    model, loader = Classifier(), batches(shape=shape)
    folder = collect_features(model, "head", loader, out=tmp_path / "out", dtype=dtype)
    assert folder == tmp_path / "out"
    assert_collected(folder, by_hand(model, loader), np.float16 if dtype is np.float16 else np.float32)


def test_any_layer_and_any_iterable(tmp_path):
    model, loader = Classifier(), batches()
    collect_features(model, "body.1", iter(loader), out=tmp_path, dtype="float32")
    with torch.no_grad():
        expected = torch.cat([model.body[0](model.embedding(x)) for x, _ in loader])
    np.testing.assert_array_equal(read(tmp_path)[0], expected)


def test_ignored_targets_and_a_bound(tmp_path):
    model, loader = Classifier(), batches()
    loader[0][1][1:3] = -7
    x, y = by_hand(model, loader)
    kept = y != -7
    for bound in (None, 1, 4, kept.sum(), 100):
        collect_features(model, "head", loader, out=tmp_path, ignore_index=-7, max_examples=bound)
        assert_collected(tmp_path, (x[kept][:bound], y[kept][:bound]))


def test_a_bound_ends_the_loader(tmp_path):
    def endless():
        yield from batches()
        raise AssertionError("read on")

    collect_features(Classifier(), "head", endless(), out=tmp_path, max_examples=15)
    assert len(read(tmp_path)[0]) == 15


def test_targets_of_any_batch(tmp_path):
    model, pairs = Classifier(), batches()
    loader = [{"x": x, "labels": y[None]} for x, y in pairs]
    collect_features(model, "head", loader, out=tmp_path, targets=lambda batch: batch["labels"][0])
    assert_collected(tmp_path, by_hand(model, pairs))
    collect_features(model, "head", [x for x, _ in pairs], out=tmp_path, targets=lambda batch: (batch + 1) % CLASSES)
    np.testing.assert_array_equal(read(tmp_path)[1], torch.cat([(x + 1) % CLASSES for x, _ in pairs]))


def test_wrappers_are_looked_through(tmp_path):
    model, loader = Classifier(), batches()
    expected = by_hand(model, loader)
    compiled = torch.compile(model, backend="eager")
    compiled(loader[0][0])  # hooks that come after this are not seen by a compiled model
    in_place = Classifier()
    in_place.compile(backend="eager")
    in_place(loader[0][0])
    for wrapped in (compiled, in_place, nn.DataParallel(model), nn.DataParallel(compiled)):
        collect_features(wrapped, "head", loader, out=tmp_path)
        assert_collected(tmp_path, expected)


def test_the_model_is_as_it_was(tmp_path):
    model, loader = Classifier(), batches()
    model.train()
    model.body[2].eval()
    own = model.head.forward
    before = {name: module.training for name, module in model.named_modules()}
    collect_features(model, "head", loader, out=tmp_path)
    with pytest.raises(DataError):
        collect_features(model, "unused", loader, out=tmp_path)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not model.head._forward_pre_hooks
    assert not model.unused._forward_pre_hooks
    assert model.head.forward == own
    assert "forward" not in vars(model.head)
    assert torch.is_grad_enabled()


def test_a_linear_layer_is_not_computed_but_its_patch_is_kept(tmp_path):
    model, loader = Classifier(), batches()
    patched = lambda input: 1 / 0  # noqa: E731
    model.head.forward = patched
    collect_features(model, "head", loader, out=tmp_path)
    assert model.head.forward is patched
    assert not model.said.any()
    assert_collected(tmp_path, by_hand(model, loader))


def test_half_precision_models(tmp_path):
    model, loader = Classifier().bfloat16(), batches()
    collect_features(model, "head", loader, out=tmp_path, dtype="float32")
    model.eval()
    with torch.no_grad():
        expected = torch.cat([model.hidden(x) for x, _ in loader]).float()
    np.testing.assert_array_equal(read(tmp_path)[0], expected)


def huge(model):
    model.body[1] = nn.Identity()
    model.body[0].weight.data *= 1e6
    return model


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Classifier(), {"layer": "haed"}, "did you mean 'head'"),
        (Classifier(), {"layer": ""}, "no layer ''"),
        (Classifier(), {"layer": "unused"}, "was called 0 times"),
        (Twice(), {}, "was called 2 times"),
        (Classifier(), {"loader": []}, "at least one row"),
        (Classifier(), {"loader": [(torch.tensor([1]), torch.tensor([-100]))]}, "at least one row"),
        (Classifier(), {"loader": [(torch.tensor([1, 2]), torch.tensor([1]))]}, r"integers \[2\] beside features"),
        (Classifier(), {"loader": [(torch.tensor([1]), torch.tensor([0.5]))]}, "torch.float32"),
        (Classifier(), {"loader": [(torch.tensor([1]), torch.tensor([CLASSES]))]}, "0 to 10, but range from 11"),
        (Classifier(), {"loader": [(torch.tensor([1]), torch.tensor([-1]))]}, "ignore_index=-100"),
        (Classifier(), {"loader": [torch.tensor([1])]}, "but got Tensor; pass targets="),
        (Classifier(), {"loader": [{"x": torch.tensor([1])}]}, "but got x for Classifier; pass targets="),
        (huge(Classifier()), {}, "use float32"),
        (Classifier(), {"dtype": torch.bfloat16}, "float16 or float32"),
        (Classifier(), {"targets": lambda batch: batch[1].numpy()}, "must return a tensor, but gave ndarray"),
        (OfList(), {"layer": "listed"}, "was called 1 times with a list"),
        (Classifier(), {"max_examples": 0}, "max_examples must be >= 1"),
    ],
)
def test_what_cannot_be_collected(tmp_path, model, options, message):
    options = {"layer": "head", "loader": batches(), **options}
    with pytest.raises(TreeSearchError, match=message) as error:
        collect_features(model, options.pop("layer"), options.pop("loader"), out=tmp_path, **options)
    assert isinstance(error.value, ConfigError | DataError)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    if message == "use float32":
        collect_features(model, "head", batches(), out=tmp_path, dtype="float32")


def test_no_bar_off_a_terminal(tmp_path, capsys):
    collect_features(Classifier(), "head", batches(), out=tmp_path)
    assert capsys.readouterr() == ("", "")

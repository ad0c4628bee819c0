"""Layers of a model by dotted name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from treesearch.errors import ConfigError, did_you_mean

MAX_NAMES = 8  # that an error lists


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own model, out of `torch.compile`, `nn.DataParallel` and `DistributedDataParallel`."""
    while (inner := wrapped_model(model)) is not None:
        model = inner
    return model


def wrapped_model(model: nn.Module) -> nn.Module | None:
    """The model inside one of torch's wrappers, None where ``model`` is none of them."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return model.module
    inner = getattr(model, "_orig_mod", None)  # torch._dynamo's OptimizedModule, which has no public name
    return inner if isinstance(inner, nn.Module) else None


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The layer of a dotted name, such as ``lm_head``.

    Raises:
        ConfigError: There is none.
    """
    layers = dict(model.named_modules(remove_duplicate=False))
    layers.pop("")
    if name in layers:
        return layers[name]
    names = list(layers)
    hint = did_you_mean(name, names)
    if "did you mean" not in hint and len(names) > MAX_NAMES:
        hint = f"; its last ones are: {', '.join(names[-MAX_NAMES:])}"
    raise ConfigError(f"{type(model).__name__} has no layer {name!r:.60}{hint}")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

"""`collect_features`: what a model's output layer sees, as a folder to search trees on.

Shapes: **B** batch, **T** positions, **D** features; any leading shape will do where B stands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

from treesearch.data.feature_files import FeatureWriter
from treesearch.errors import DataError
from treesearch.integrations.huggingface import is_causal_lm, shifted_labels
from treesearch.integrations.modules import evaluating, find_layer, unwrapped
from treesearch.progress import ProgressReporter

TARGETS_HINT = "pass targets=, a function of the batch"


@torch.no_grad()
def collect_features(
    model: nn.Module,
    layer: str,
    loader: Iterable[Any],
    *,
    out: str | Path,
    targets: Callable[[Any], Tensor] | None = None,
    dtype: DTypeLike | torch.dtype = np.float16,
    max_examples: int | None = None,
    device: torch.device | str | None = None,
    ignore_index: int = -100,
    progress: bool = True,
) -> Path:
    """Run a model over a loader and write the inputs of one layer, with the targets, in the loader's order.

    The model runs in evaluation mode, without gradients and without `torch.compile`, wrappers such as
    `nn.DataParallel` left aside; afterwards its modes are as they were. The layer itself is not computed where it is
    an `nn.Linear`: its output is all zeros meanwhile, since no feature depends on it.

    A batch may be a pair (input, target); a mapping, for a causal language model of Hugging Face: the hidden state at
    position t then belongs to the label at t + 1 (to the token, where there are no labels), and pairs with a position
    that ``attention_mask`` leaves out are not written; or, with ``targets``, anything. A mapping is handed to the
    model as keywords, without ``labels``; of a sequence the first element.

    Args:
        model: In any mode, on any device.
        layer: Dotted name of the layer, such as ``lm_head``; each forward must call it exactly once, with the features
            [..., D] first.
        loader: Of batches; a bar shows where it has a length.
        out: Folder for ``x.npy``, ``dtype`` [N, D], and ``y.npy``, int32 [N]; see `FeatureWriter`.
        targets: Gives the targets of a batch, integers [...] that stand beside the features as they are.
        dtype: ``float16`` or ``float32``.
        max_examples: Stop after so many; None: all.
        device: Where inputs go; None: where the model's first parameter is. The model is not moved.
        ignore_index: Examples with this target are left out.
        progress: Whether to show a bar, on a terminal.

    Returns:
        The folder.

    Raises:
        ConfigError: The model has no such layer.
        DataError: The layer is not called, or several times; batch, features and targets do not fit each other; a
            feature is not finite or too large for the type; there is no example. No file is left then.
        OSError: The folder cannot be written.
    """
    if max_examples is not None and max_examples < 1:
        raise DataError(f"max_examples must be >= 1, but got {max_examples}; leave it out for all")
    model = unwrapped(model)
    tapped = find_layer(model, layer)
    if device is None:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    writer = FeatureWriter(out, dtype=dtype)
    reporter = ProgressReporter(quiet=not (progress and sys.stderr.isatty()))
    total = max_examples or (len(loader) if isinstance(loader, Sized) else None)
    # A compiled model may not see hooks that came later.
    with writer, reporter, evaluating(model), _inputs_of(tapped) as seen, torch.compiler.set_stance("force_eager"):
        for number, batch in enumerate(loader):
            seen.clear()
            _run(model, batch, torch.device(device))
            hidden = _only(seen, layer)
            target = _targets_of(batch, model, targets, ignore_index)
            x, y = _kept(hidden, target, ignore_index, getattr(tapped, "out_features", None))
            room = None if max_examples is None else max_examples - writer.num_rows
            writer.write(x[:room].numpy(), y[:room].numpy())
            if total is not None:
                reporter.update("collect", number + 1 if max_examples is None else writer.num_rows, total)
            if writer.num_rows == max_examples:
                break
    return writer.folder


def _run(model: nn.Module, batch: Any, device: torch.device) -> None:
    if isinstance(batch, Mapping):
        inputs = {key: _moved(value, device) for key, value in batch.items() if key != "labels"}
        if is_causal_lm(model):
            inputs.setdefault("use_cache", False)
        model(**inputs)
    else:
        model(_moved(batch[0] if isinstance(batch, Sequence) else batch, device))


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _targets_of(batch: Any, model: nn.Module, targets: Callable[[Any], Any] | None, ignore_index: int) -> Tensor:
    if targets is not None:
        found = targets(batch)
        if not isinstance(found, Tensor):
            raise DataError(f"targets= must return a tensor, but gave {type(found).__name__}; use torch.as_tensor")
        return found
    if isinstance(batch, Mapping):
        if "input_ids" not in batch or not is_causal_lm(model):
            raise DataError(
                f"mappings must hold input_ids for a causal language model, but got {', '.join(map(str, batch)):.60}"
                f" for {type(model).__name__}; {TARGETS_HINT}"
            )
        return _next_tokens(batch, ignore_index)
    if isinstance(batch, Sequence) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return batch[1]
    raise DataError(f"batches must be (input, target) or mappings, but got {type(batch).__name__}; {TARGETS_HINT}")


def _next_tokens(batch: Mapping[str, Any], ignore_index: int) -> Tensor:
    """The target of each position, [B, T]; ``ignore_index`` at the end and wherever padding takes part."""
    labels: Tensor = batch["labels"] if batch.get("labels") is not None else batch["input_ids"]
    target = shifted_labels(labels, ignore_index)
    mask = batch.get("attention_mask")
    if mask is None:
        return target
    if mask.shape != target.shape:
        raise DataError(
            f"attention_mask must have the shape of the labels, {tuple(target.shape)}, but got {tuple(mask.shape)};"
            f" {TARGETS_HINT}"
        )
    both = (mask != 0) & (shifted_labels(mask, 0) != 0)
    return torch.where(both.to(target.device), target, ignore_index)


def _kept(hidden: Tensor, target: Tensor, ignore_index: int, num_classes: int | None) -> tuple[Tensor, Tensor]:
    """Features of the targets that count, float32 on the CPU, and these targets."""
    if target.shape != hidden.shape[:-1] or target.is_floating_point():
        raise DataError(
            f"targets must be integers {list(hidden.shape[:-1])} beside features {list(hidden.shape)}, but got"
            f" {target.dtype} {list(target.shape)}; {TARGETS_HINT}"
        )
    target = target.to(hidden.device)
    kept = target != ignore_index
    y = target[kept].cpu()
    if num_classes is not None and y.numel() and not 0 <= int(y.min()) <= int(y.max()) < num_classes:
        raise DataError(
            f"targets must be classes of the layer, 0 to {num_classes - 1}, but range from {y.min()} to {y.max()};"
            f" mark others with ignore_index={ignore_index}"
        )
    return hidden[kept].float().cpu(), y


@contextmanager
def _inputs_of(layer: nn.Module) -> Iterator[list[Any]]:
    """A list that takes the first argument of each call; meanwhile a linear layer gives zeros that take no memory."""
    seen: list[Any] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]) if args else None)
    own = layer.__dict__.get("forward")
    if isinstance(layer, nn.Linear):
        width = layer.out_features
        layer.forward = lambda input: input.new_zeros(1).expand(*input.shape[:-1], width)  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        handle.remove()
        if isinstance(layer, nn.Linear):
            del layer.forward
            if own is not None:
                layer.forward = own  # type: ignore[method-assign]


def _only(seen: list[Any], layer: str) -> Tensor:
    if len(seen) != 1 or not isinstance(seen[0], Tensor):
        raise DataError(
            f"layer {layer!r} must be called exactly once in a forward, with a tensor as its first argument, but was"
            f" called {len(seen)} times{f' with a {type(seen[0]).__name__}' if seen else ''}; name another layer"
        )
    return seen[0]

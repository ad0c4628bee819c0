"""Swap the output layer of a model for a tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import nn

from treesearch.errors import ConfigError, DataError
from treesearch.integrations.huggingface import PathLoss, is_causal_lm, is_pretrained_model, untie
from treesearch.integrations.modules import find_layer, wrapped_model
from treesearch.integrations.output_layer import TreeOutputLayer
from treesearch.tree import Tree


def replace_output_layer(
    model: nn.Module,
    name: str,
    tree: Tree,
    *,
    counts: ArrayLike | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> TreeOutputLayer:
    """Put a hierarchical softmax, started from the old weights, in the place of a linear output layer.

    The model then gets log-probabilities [..., C] where it got logits, so its code runs on, and losses and samples from
    them are those of the tree. To train at O(depth), score targets by themselves: see `TreeOutputLayer.bypassed`. A
    causal language model of transformers does that by itself where it is called with ``labels``: its ``loss`` takes the
    paths alone, and ``logits`` are left out unless the layer has ``logits_with_loss``. ``generate`` runs as before, on
    the log-probabilities of the positions that it asks for. Other models of transformers compute their own losses from
    the log-probabilities, at O(C). Models will not do that scale or cap their logits afterwards (Granite, Cohere, Gemma
    2) or that read the layer's ``weight`` in their forward (Mamba).

    Where the old weight was tied to the embedding, the embedding keeps it, the new layer is on its own, and
    ``config.tie_word_embeddings`` is false from then on, unless it ties other layers too. To save and load:
    ``model.save_pretrained(folder)`` and ``head.save_pretrained(folder / "head")``, then ``from_pretrained(folder)``,
    whose warning about the output layer is due, and `load_output_layer`.

    Optimizers, compiled versions and `DistributedDataParallel` (`nn.DataParallel` knows no `nn.ParameterList`) are made
    after the swap. Layers of half-precision weights give float32 log-probabilities; ``dtype=torch.float32`` makes the
    weights float32 too, for which the CPU has a compiled kernel.

    Args:
        model: Is changed; neither compiled nor wrapped.
        name: Dotted name of the layer, an `nn.Linear` of D features and C outputs; used by this name alone.
        tree: Over C classes: all outputs, those that only pad a vocabulary among them (with counts of zero
            builders put them where they cost next to nothing).
        counts: [C] class counts; see `HierarchicalSoftmax.from_linear`.
        dtype: Of the new layer; None: the old one's.
        **options: ``sparse`` and ``kernel`` of `HierarchicalSoftmax`.

    Returns:
        The new layer, now part of the model.

    Raises:
        ConfigError: The model has no such layer, is wrapped, or uses the layer by another name too.
        DataError: The layer is no plain linear one, or tree or counts do not fit it.
    """
    linear = _output_layer(model, name)
    _check_sizes(name, linear, tree, linear.in_features)
    if dtype is not None:
        flat = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, "meta")
        flat.weight = nn.Parameter(linear.weight.detach().to(dtype))
        flat.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(dtype))
    else:
        flat = linear
    head = TreeOutputLayer.from_linear(flat, tree, counts, **options)
    _swap(model, name, linear, head)
    return head


def load_output_layer(model: nn.Module, name: str, folder: str | Path, **options: Any) -> TreeOutputLayer:
    """Put a layer that ``head.save_pretrained`` wrote in the place of a linear output layer.

    Args:
        model: As in `replace_output_layer`.
        name: Likewise.
        folder: Written by ``save_pretrained``.
        **options: ``sparse`` and ``kernel`` of the layer.

    Returns:
        The layer, on the old one's device, of the type it had.

    Raises:
        ConfigError: As in `replace_output_layer`.
        DataError: The layer in the model is no linear one or of other sizes, or files are missing or damaged.
        TreeError: The tree is missing or damaged, or the files do not belong together.
    """
    linear = _output_layer(model, name)
    head = TreeOutputLayer.from_pretrained(folder, device=linear.weight.device, **options)
    _check_sizes(name, linear, head.tree, head.in_features)
    _swap(model, name, linear, head)
    return head


def _output_layer(model: nn.Module, name: str) -> nn.Linear:
    if wrapped_model(model) is not None:
        raise ConfigError(f"the model must be a plain one, but is a {type(model).__name__}; swap first, then wrap it")
    layer = find_layer(model, name)
    if not isinstance(layer, nn.Linear) or not layer.weight.is_floating_point():
        kind = type(layer).__name__
        raise DataError(f"layer {name!r} must be an nn.Linear with floating-point weights, but is a {kind}")
    names = [other for other, module in model.named_modules(remove_duplicate=False) if module is layer]
    if len(names) > 1:
        raise ConfigError(
            f"layer {name!r} must stand in one place, but is also {names[names[0] == name]!r}; copy it there"
        )
    return layer


def _check_sizes(name: str, linear: nn.Linear, tree: Tree, in_features: int) -> None:
    if (tree.num_classes, in_features) != (linear.out_features, linear.in_features):
        raise DataError(
            f"tree and weights must fit the {linear.out_features} outputs and {linear.in_features} features of"
            f" {name!r}, but have {tree.num_classes} classes and {in_features} features; outputs that pad a vocabulary"
            " are classes too, with a count of 0"
        )


def _swap(model: nn.Module, name: str, linear: nn.Linear, head: TreeOutputLayer) -> None:
    """Put the head there, and tell the models of transformers around it."""
    head.train(linear.training)
    causal: Any = None
    for prefix in _ancestors(name):
        owner: Any = model.get_submodule(prefix)
        if is_pretrained_model(owner):
            if owner.get_output_embeddings() is linear and is_causal_lm(owner):
                causal = owner  # the innermost one, which calls the layer itself
            untie(owner, name.removeprefix(f"{prefix}."))
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, head)
    if causal is not None:
        PathLoss(causal, head)


def _ancestors(name: str) -> list[str]:
    """Names of the modules above, the model itself ("") first."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts))]

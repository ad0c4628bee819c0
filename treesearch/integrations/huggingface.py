"""What is particular to models of Hugging Face transformers, which is never imported here.

Shapes: **B** batch, **T** positions, **D** features, **C** classes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from treesearch.errors import DataError
from treesearch.integrations.output_layer import TreeOutputLayer


def is_pretrained_model(model: nn.Module) -> bool:
    """Whether it is a ``transformers.PreTrainedModel``; if it is, its package has been imported."""
    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(model, transformers.PreTrainedModel)


def is_causal_lm(model: nn.Module) -> bool:
    """Whether a transformers model hands logits and labels to the shifted loss of causal language models."""
    if not is_pretrained_model(model):
        return False
    forward = inspect.unwrap(type(model).forward)
    if "loss_function" not in forward.__code__.co_names or "labels" not in inspect.signature(forward).parameters:
        return False
    transformers: Any = sys.modules["transformers"]
    # For a class without a loss of its own name, as GPT2LMHeadModel, transformers takes the causal one, and logs it.
    loss = model.loss_function
    return loss is transformers.loss.loss_utils.ForCausalLMLoss or isinstance(loss, PathLoss)


def shifted_labels(labels: Tensor, ignore_index: int) -> Tensor:
    """The label of the next position, at each: [B, T] from [B, T], ``ignore_index`` at the last."""
    return nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]


def untie(model: nn.Module, name: str) -> None:
    """Make transformers forget that parameters of the layer ``name`` are tied to others, also when it saves and loads.

    Where no other tie is left, ``config.tie_word_embeddings`` becomes false.
    """
    owner: Any = model
    ties = owner.get_expanded_tied_weights_keys()
    left = {target: source for target, source in ties.items() if not _is_below(name, target, source)}
    if left != ties:
        owner._tied_weights_keys = left
        owner.config.tie_word_embeddings = bool(left)
    for target, source in list(owner.all_tied_weights_keys.items()):  # those of models inside it, too
        if _is_below(name, target, source):
            del owner.all_tied_weights_keys[target]


def _is_below(name: str, *parameters: str) -> bool:
    return any(parameter.startswith(f"{name}.") for parameter in parameters)


class PathLoss:
    """The loss of a causal language model by the tree's paths: O(depth) for a token, without logits.

    While the model is called with labels, the output layer hands its input on, and the loss scores the labels' paths on
    it. The output's ``logits`` are then left out, or [B, T, C] where the layer has ``logits_with_loss``. Without labels
    nothing changes: the layer's log-probabilities are the logits.

    Args:
        model: A causal language model of transformers; see `is_causal_lm`.
        head: Its output layer.
    """

    def __init__(self, model: nn.Module, head: TreeOutputLayer) -> None:
        self.head = head
        self._labels_at = list(inspect.signature(model.forward).parameters).index("labels")
        self._before = self._has_labels = False
        self._returned: Tensor | None = None  # by the head in this call of the model
        model.loss_function = self  # type: ignore[assignment]
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.register_forward_hook(self._end, always_call=True)
        head.register_forward_hook(self._see)

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor | None,
        vocab_size: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        ignore_index: int = -100,
        shift_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Mean negative log-likelihood, nats, scalar; arguments as transformers hands them to its own loss.

        Args:
            logits: [B, T, D], what the output layer handed on.
            labels: int64 [B, T]; the one at t + 1 belongs to position t.
            vocab_size: Not needed.
            num_items_in_batch: The sum is divided by it; None: by the number of labels that count.
            ignore_index: Labels that do not count.
            shift_labels: int64 [B, T], shifted already, instead of ``labels``.
            **kwargs: Of other losses; not needed.

        Raises:
            DataError: The model changes what its output layer returns, or labels do not fit.
        """
        if logits is not self._returned:
            raise _changed(self.head)
        if shift_labels is None:
            if labels is None:
                raise DataError("a loss needs labels or shift_labels, but got neither")
            shift_labels = shifted_labels(labels, ignore_index)
        target, positions = shift_labels.to(logits.device), logits.shape[:-1]
        if target.numel() != positions.numel():
            raise DataError(
                f"labels must stand beside the hidden states, {list(positions)}, but got {list(target.shape)};"
                " leave logits_to_keep out where there are labels"
            )
        target = target.reshape(positions)
        if num_items_in_batch is None:
            return self.head.nll(logits, target, ignore_index=ignore_index)
        total = self.head.nll(logits, target, ignore_index=ignore_index, reduction="sum")
        count = num_items_in_batch
        return total / (count.to(total.device) if isinstance(count, Tensor) else count)

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        labels = args[self._labels_at] if len(args) > self._labels_at else kwargs.get("labels")
        self._before = self.head._bypassed
        self.head._bypassed = self._before or labels is not None
        self._has_labels, self._returned = labels is not None, None

    def _see(self, head: nn.Module, args: Any, output: Tensor) -> None:
        self._returned = output

    def _end(self, model: nn.Module, args: Any, output: Any) -> Any:
        self.head._bypassed = self._before
        returned, self._returned = self._returned, None
        if output is None:  # the forward failed
            return None
        values = list(output.values() if isinstance(output, Mapping) else output)
        if returned is None or not any(value is returned for value in values):
            raise _changed(self.head)
        if not self._has_labels:
            return output
        logits = self.head.log_prob(returned) if self.head.logits_with_loss else None
        values = [logits if value is returned else value for value in values]
        if isinstance(output, Mapping):
            return type(output)(**dict(zip(output, values, strict=True)))  # a ModelOutput
        return tuple(value for value in values if value is not None)


def _changed(head: TreeOutputLayer) -> DataError:
    return DataError(
        f"a model must use what its output layer returns as it is, but this one changes its {head.num_classes} logits"
        " (by softcapping, scaling or a cast); fold that into the weights before the swap, or leave the layer flat"
    )

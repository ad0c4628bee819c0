"""`ContextModel`: a hierarchical softmax over completions that sees what has gone before; on disk a folder.

tree.json, model.safetensors, config.json   the layer, see `treesearch.softmax.pretrained`
encoder.safetensors                         the encoder of contexts
words.json                                  format, version and the words that it knows

Shapes: **C** completions, **D** features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from treesearch.applications.autocomplete.completion_index import Completion, CompletionIndex, Found
from treesearch.applications.autocomplete.completions import Completions
from treesearch.applications.autocomplete.contexts import context_bag
from treesearch.errors import DataError, TreeError
from treesearch.evaluation.encoders import BagEncoder, encode
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.topk import topk_tables
from treesearch.text_files import read_text

FORMAT = "treesearch.autocomplete"
VERSION = 1
ENCODER_FILE = "encoder.safetensors"
WORDS_FILE = "words.json"
NO_BOUNDS = np.zeros(0)


@dataclass(frozen=True, eq=False)
class ContextModel:
    """From a context to the probabilities of all completions."""

    encoder: BagEncoder
    layer: HierarchicalSoftmax  # over completions in order, float32 or float64 on the CPU
    word_ids: Mapping[str, int]

    def hidden(self, context: str) -> Tensor:
        """What the layer sees, [1, D]."""
        features = torch.from_numpy(encode(self.encoder, context_bag(context, self.word_ids)))
        return features.to(self.layer.weights[0].dtype)

    def save(self, folder: Path) -> None:
        """Write a new folder, whole or not at all.

        Raises:
            ConfigError: There is something at ``folder`` already.
            OSError: It cannot be written.
        """
        from treesearch.exchange.files import write_folder

        words = {"format": FORMAT, "version": VERSION, "words": list(self.word_ids)}

        def write(place: Path) -> None:
            self.layer.save_pretrained(place)
            safetensors.torch.save_file(self.encoder.state_dict(), place / ENCODER_FILE)
            (place / WORDS_FILE).write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")

        write_folder(folder, write)

    @classmethod
    def load(cls, folder: Path, completions: Completions) -> ContextModel:
        """What `save` wrote.

        Args:
            folder: Where.
            completions: The same as then, by name; counts do not matter.

        Raises:
            DataError: Files are missing or damaged.
            TreeError: The tree is damaged, or is over other completions.
        """
        layer = HierarchicalSoftmax.from_pretrained(folder)
        if layer.tree.class_names != completions.names:
            raise TreeError(
                f"the model in {str(folder)!r} must be over the completions, but is over"
                f" {layer.tree.num_classes} others; give the queries that it was trained with"
            )
        words = _words(folder / WORDS_FILE)
        try:
            state = safetensors.torch.load_file(folder / ENCODER_FILE)
            size = state["embedding.weight"].shape[1]
            encoder = BagEncoder(len(words) + 1, embedding=size, features=layer.in_features, padding=len(words))
            encoder.load_state_dict(state)
        except (OSError, SafetensorError, KeyError, IndexError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{ENCODER_FILE} in {str(folder)!r} is missing or damaged ({reason:.80}); save again"
            ) from None
        return cls(encoder, layer, words)


def _words(path: Path) -> dict[str, int]:
    text = read_text(path, f"words {str(path)!r}", DataError)
    try:
        read = json.loads(text)
        words = read["words"] if (read["format"], read["version"]) == (FORMAT, VERSION) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or len(set(words)) < len(words):
        raise DataError(f"{str(path)!r} must hold the words of a saved model, version {VERSION}; save it again")
    return {word: number for number, word in enumerate(words)}


class ContextIndex:
    """The most probable completions of a prefix in a context, exactly.

    The search evaluates the decisions that it visits and no others. Parameters are read where the layer has them: do
    not train it, or move it, while the index is in use.

    Args:
        index: Of the same completions, on the layer's tree.
        model: Gives the probabilities.

    Raises:
        TreeError: The trees differ.
        DataError: A parameter is not finite.
    """

    def __init__(self, index: CompletionIndex, model: ContextModel) -> None:
        if index.tree != model.layer.tree:
            raise TreeError("the index must be on the tree of the layer; make it with layer.tree")
        if not all(bool(parameter.isfinite().all()) for parameter in model.layer.parameters()):
            raise DataError("parameters of the layer must be finite, but one is not; take one that did not diverge")
        self.index, self.model = index, model
        self._tables = topk_tables(model.layer.layout)
        layer = model.layer
        self._kept = [
            tensor.detach().contiguous() for tensor in (*layer.weights, *layer.biases, *layer.projections)
        ]  # as a rule no copies
        self._addresses = np.array([tensor.data_ptr() for tensor in self._kept], np.int64)

    def complete(self, prefix: str, k: int, *, context: str = "") -> list[Completion]:
        """The k most probable completions that begin with ``prefix``; arguments as `CompletionIndex.complete`.

        Args:
            prefix: Any text.
            k: At least 1.
            context: What has gone before; words that the model does not know are left out.
        """
        found = self.search(prefix, k, context=context)
        texts = self.index.completions.texts
        probabilities = np.exp(found.scores.astype(np.float64)).tolist()
        return [Completion(texts[cls], p) for cls, p in zip(found.classes.tolist(), probabilities, strict=True)]

    def search(self, prefix: str, k: int, *, context: str = "") -> Found:
        """As `complete`, by class; scores are log-probabilities in nats."""
        hidden_D = self.model.hidden(context)[0].contiguous().numpy()
        num_biases = len(self.model.layer.biases)
        return self.index.best_first(prefix, k, NO_BOUNDS, self._tables, self._addresses, num_biases, hidden_D)

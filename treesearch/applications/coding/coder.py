"""`Coder`: a trained model with all it needs to code a text: words, descriptions, taxonomy.

Shapes: **B** texts, **D** features, **T** nodes of the taxonomy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from treesearch.applications.coding.heads import CodingTree
from treesearch.applications.coding.pieces import Pieces, words_of
from treesearch.applications.coding.task import CodingTask
from treesearch.applications.coding.training import TrainedCoder
from treesearch.errors import ConfigError, DataError, RunError
from treesearch.evaluation.encoders import BagEncoder, Encoder
from treesearch.softmax import HierarchicalSoftmax
from treesearch.taxonomy import Taxonomy
from treesearch.text_files import read_text
from treesearch.tree_files import write_atomically

LAYER_FOLDER = "layer"
ENCODER_FILE = "encoder.safetensors"
TEXTS_FILE = "coder.json"  # written last: a folder without it was not finished
FORMAT = "treesearch.coder"


@dataclass(frozen=True, eq=False)
class Coder:
    """From a short diagnostic text to probabilities of codes."""

    encoder: Encoder
    layer: HierarchicalSoftmax
    taxonomy: Taxonomy
    descriptions: tuple[str, ...]  # [T]
    pieces: Pieces

    @classmethod
    def of(cls, task: CodingTask, coder: TrainedCoder) -> Coder:
        """That of a training with a hierarchical softmax.

        Raises:
            ConfigError: It was trained with another head.
        """
        head = coder.trained.model.head
        if not isinstance(head, CodingTree):
            raise ConfigError("a coder needs a hierarchical softmax, but the head is another; train it with head='hs'")
        return cls(coder.trained.model.encoder, head.layer, task.taxonomy, task.descriptions, task.pieces)

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> Tensor:
        """What the layer sees, [B, D].

        Raises:
            ConfigError: As `check_query`, of any text.
        """
        for text in texts:
            check_query(text, self.pieces)
        return self.encoder(torch.from_numpy(self.pieces.bags(texts)).long())

    def save(self, folder: Path) -> None:
        """Write it into a folder, which is made; existing files are replaced.

        Raises:
            RunError: It cannot be written.
        """
        try:
            self.layer.save_pretrained(folder / LAYER_FOLDER)
            tensors = {name: value.contiguous() for name, value in self.encoder.state_dict().items()}
            write_atomically(folder / ENCODER_FILE, lambda file: file.write(safetensors.torch.save(tensors)))
            content = {
                "format": FORMAT,
                "words": self.pieces.words,
                "pieces": self.pieces.pieces,
                "descriptions": self.descriptions,
            }
            text = json.dumps(content, ensure_ascii=False)
            write_atomically(folder / TEXTS_FILE, lambda file: file.write(text.encode()))
        except (OSError, SafetensorError) as reason:
            raise RunError(
                f"the coder cannot be written to {str(folder)!r} ({reason}); choose another folder"
            ) from None

    @classmethod
    def load(cls, folder: Path) -> Coder:
        """The coder that `save` wrote; the package of the codes is not needed for it.

        Raises:
            DataError: A file is missing or damaged, or they do not belong together.
            TreeError: So is the tree.
        """
        text = read_text(folder / TEXTS_FILE, f"coder {str(folder)!r}", DataError)
        layer = HierarchicalSoftmax.from_pretrained(folder / LAYER_FOLDER)
        taxonomy = Taxonomy.of(layer.tree)
        damaged = DataError(f"the coder in {str(folder)!r} must be whole, but is damaged; save it again")
        try:
            content: Any = json.loads(text)
            words, pieces, descriptions = (tuple(content[key]) for key in ("words", "pieces", "descriptions"))
            tensors = safetensors.torch.load_file(folder / ENCODER_FILE)
            known, embedding = Pieces(words, pieces), tensors["embedding.weight"].shape[1]
            encoder = BagEncoder(known.num_ids, embedding=embedding, features=layer.in_features, padding=known.padding)
            encoder.load_state_dict(tensors)
        except (ValueError, KeyError, TypeError, IndexError, OSError, RuntimeError, SafetensorError):
            raise damaged from None
        whole = content.get("format") == FORMAT and len(descriptions) == taxonomy.num_nodes
        if not whole or not all(isinstance(one, str) for one in (*words, *pieces, *descriptions)):
            raise damaged
        return cls(encoder, layer, taxonomy, descriptions, known)


def check_query(text: str, pieces: Pieces) -> None:
    """Refuse a text of which nothing is known: an answer to it would be the same for any such text.

    Raises:
        ConfigError: It is empty, or neither a word nor a piece of a word of it is known.
    """
    if not words_of(text):
        raise ConfigError(f"a query must hold a word, but got {text!r:.60}; describe the diagnosis in a few words")
    if not pieces.ids(text):
        raise ConfigError(
            f"a query must hold a word, or a part of one, that the texts of the codes have, but {text!r:.60} has none;"
            " reword it, or take more chapters"
        )

"""Bring your own model: features out of it, a tree into it.

`collect_features` writes what the output layer of a model sees to a folder, on which trees are searched
(``data: {kind: features}``); `replace_output_layer` puts a found tree in the layer's place. Both take models of plain
torch and of Hugging Face transformers.
"""

from treesearch.integrations.collect import collect_features
from treesearch.integrations.output_layer import TreeOutputLayer
from treesearch.integrations.replace import load_output_layer, replace_output_layer

__all__ = ["TreeOutputLayer", "collect_features", "load_output_layer", "replace_output_layer"]

"""From a text to a code, level by level: the probability so far, what else there was, and where it is safe to stop.

Shapes: **B** texts, **T** nodes of the taxonomy, **M** nodes of the tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treesearch.applications.coding.coder import Coder, check_query
from treesearch.applications.coding.scores import safe_nodes
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import ConfigError

LEVELS = ("chapter", "block", "category")  # what is below is a subcategory, or a code
WIDTH = 100
LEVEL_WIDTH = 13
SHOWN = 0.01  # alternatives of less are not shown


def level_name(level: int, *, code: bool = False) -> str:
    """What the nodes of a level below the root are called."""
    return "code" if code else LEVELS[level - 1] if level <= len(LEVELS) else f"subcategory {level - len(LEVELS)}"


def narrow(
    coder: Coder, texts: Sequence[str], *, confidence: float = 0.9, num_alternatives: int = 3, num_codes: int = 5
) -> list[dict[str, Any]]:
    """The way of each text down the taxonomy, each time to the most probable node, and the deepest node that is safe.

    The most probable code need not lie at the end of this way: many codes of small probability may outweigh it.

    Args:
        coder: Trained.
        texts: Short diagnostic texts.
        confidence: The probability that a safe node has at least, 0 to 1.
        num_alternatives: Siblings at each level, the most probable.
        num_codes: Codes in the list of the most probable ones, fewer where there are no more.

    Returns:
        A record for each: ``query``; ``unknown_words``; ``known_words``, how many there are; ``confidence`` as asked;
        ``safe``, the deepest node of at least that probability, None where no decision reaches it; ``path``, the nodes
        of the way, from the chapter to a code, each with ``alternatives``; ``codes``, the most probable ones. A
        node is ``level``, ``kind``, ``code``, ``description``, ``probability`` (of the node, all decisions above it
        included) and ``conditional`` (of the last decision alone).

    Raises:
        ConfigError: A text that cannot be coded (`check_query`), or a confidence out of range.
    """
    check_confidence(confidence)
    for text in texts:
        check_query(text, coder.pieces)
    taxonomy, layer = coder.taxonomy, coder.layer
    records = []
    for text in texts:  # one at a time: all nodes of a text are held, and others do not touch its last digit
        hidden_1D = coder.features([text])
        probs = NodeProbs.of_layer(layer, hidden_1D)
        node = _Nodes(coder, probs)
        top = layer.topk(hidden_1D, min(num_codes, taxonomy.num_classes)).indices[0].tolist()
        safe = int(safe_nodes(probs, taxonomy, confidence)[0])
        records.append(
            {
                "query": text,
                "unknown_words": coder.pieces.unknown(text),
                "known_words": coder.pieces.num_known(text),
                "confidence": confidence,
                "safe": node.record(safe) if safe else None,
                "path": [
                    node.record(on_path) | {"alternatives": node.alternatives(on_path, num_alternatives)}
                    for on_path in node.path()
                ],
                "codes": [node.record(int(taxonomy.class_node[code])) for code in top],
            }
        )
    return records


def check_confidence(confidence: float) -> None:
    """Refuse what is no probability.

    Raises:
        ConfigError: It is outside [0, 1].
    """
    if not 0 <= confidence <= 1:
        raise ConfigError(f"confidence must lie in [0, 1], but got {confidence}")


class _Nodes:
    """Nodes of the taxonomy with their probabilities for one text."""

    def __init__(self, coder: Coder, probs: NodeProbs) -> None:
        self._coder, self._taxonomy = coder, coder.taxonomy
        place_T = torch.from_numpy(coder.taxonomy.tree_node.astype(np.int64))
        self._prob_T: NDArray[np.float64] = probs.prob[0, place_T].numpy()

    def record(self, node: int) -> dict[str, Any]:
        taxonomy, level = self._taxonomy, int(self._taxonomy.depth[node])
        above = float(self._prob_T[taxonomy.parent[node]])
        return {
            "level": level,
            "kind": level_name(level, code=bool(taxonomy.class_at[node] >= 0)),
            "code": taxonomy.names[node],
            "description": self._coder.descriptions[node],
            "probability": float(self._prob_T[node]),
            "conditional": float(self._prob_T[node]) / above if above else 0.0,
        }

    def path(self) -> list[int]:
        """From below the root to a code, each time to the most probable child."""
        nodes: list[int] = []
        while (children := self._ranked_children(nodes[-1] if nodes else 0)).size:
            nodes.append(int(children[0]))
        return nodes

    def alternatives(self, node: int, num: int) -> list[dict[str, Any]]:
        """The most probable siblings, best first."""
        siblings = self._ranked_children(int(self._taxonomy.parent[node]))
        return [self.record(int(sibling)) for sibling in siblings[siblings != node][:num]]

    def _ranked_children(self, node: int) -> NDArray[np.int64]:
        children = np.flatnonzero(self._taxonomy.parent == node)
        return children[np.argsort(-self._prob_T[children], kind="stable")]


def narrowing_lines(record: dict[str, Any]) -> Iterator[str]:
    """A record of `narrow` for people, `WIDTH` columns at most."""
    safe = record["safe"]
    yield record["query"][:WIDTH]
    if not record["known_words"]:
        yield "  no word of it is known; this rests on parts of words"
    elif record["unknown_words"]:
        yield f"  not known, read by their parts: {', '.join(record['unknown_words'])}"[:WIDTH]
    on_path, best = False, record["codes"][0]
    for node in record["path"]:
        stop = safe is not None and node["code"] == safe["code"] and node["level"] == safe["level"]
        on_path |= stop
        mark = f"<= safe at {record['confidence']:g}" if stop else ""
        yield _line(node["kind"], node, node["level"] - 1, mark)
        for other in node["alternatives"]:
            if other["probability"] >= SHOWN:
                yield _line("", other, node["level"] - 1, "", "or ")
    if safe is None:
        yield f"  no node reaches {record['confidence']:g}: not even the {record['path'][0]['kind']} is safe"
    elif not on_path:
        yield f"  beside this path, and safe at {record['confidence']:g}:"
        yield _line(safe["kind"], safe, 0, "")
    if best["code"] != record["path"][-1]["code"]:
        yield _line("elsewhere", best, 0, "", "most probable code: ")


def _line(kind: str, node: dict[str, Any], indent: int, mark: str, prefix: str = "") -> str:
    left = f"  {kind:{LEVEL_WIDTH}}{'  ' * indent}{prefix}{node['code']}  {node['description']}"
    room = WIDTH - 22
    text = left if len(left) <= room else left[: room - 2] + ".."
    return f"{text:{room}} {node['probability']:5.3f} {mark}".rstrip()

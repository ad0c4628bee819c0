"""Outcomes of a worker as they lie in the ledger, under the content of their task."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from treesearch.evaluation.frozen import NodeScores
from treesearch.search.executors import Outcome, Task
from treesearch.search.worker import ForestTask, FrozenTask, JointScores, JointTask
from treesearch.state import pack_state, unpack_state


def task_key(payload: FrozenTask | ForestTask | JointTask, encoder: str) -> str:
    """Equal for tasks whose results must be equal, in one run.

    Args:
        payload: What the worker is called with.
        encoder: Hash of the features that it works on.
    """
    independent = isinstance(payload, JointTask) and not payload.warm
    digest = blake2b(digest_size=16)
    for part in (type(payload).__name__, "" if independent else encoder, *_parts(payload)):
        content = part if isinstance(part, bytes) else str(part).encode()
        digest.update(struct.pack("<Q", len(content)))
        digest.update(content)
    return digest.hexdigest()


def _parts(payload: FrozenTask | ForestTask | JointTask) -> list[str | bytes]:
    if isinstance(payload, FrozenTask):
        wanted = b"" if payload.wanted is None else payload.wanted.tobytes()
        return [payload.tree.hash, wanted, str(payload.max_tokens)]
    if isinstance(payload, ForestTask):
        return [*(tree.hash for tree in payload.trees), str(payload.max_tokens)]
    return [payload.tree.hash, repr(payload.learning_rate), str(payload.seed), str(payload.use_test), str(payload.warm)]


def pack_outcome(outcome: Outcome) -> bytes:
    """The bytes of all but the task."""
    return pack_state(
        {
            "result": None if outcome.result is None else _encode(outcome.result),
            "reason": outcome.reason,
            "attempts": outcome.attempts,
            "seconds": outcome.seconds,
            "worker": outcome.worker,
        }
    )


def unpack_outcome(task: Task, packed: bytes) -> Outcome:
    """The outcome of this task that `pack_outcome` packed.

    Raises:
        RunError: It is broken.
    """
    state = unpack_state(packed)
    result = None if state["result"] is None else _decode(state["result"])
    return Outcome(task, result, state["reason"], state["attempts"], state["seconds"], state["worker"])


def _encode(result: Any) -> Any:
    """Plain values for what a worker returns."""
    if isinstance(result, list):  # of a forest: why a tree has no scores is a text
        return [one if isinstance(one, str) else _encode(one) for one in result]
    assert isinstance(result, NodeScores | JointScores), "workers return nothing else"
    return vars(result)


def _decode(encoded: Any) -> Any:
    if isinstance(encoded, list):
        return [one if isinstance(one, str) else _decode(one) for one in encoded]
    assert isinstance(encoded, Mapping)
    return NodeScores(**encoded) if "nll" in encoded else JointScores(**encoded)

"""A text corpus as class ids.

Shapes: **T** tokens of a split, **C** classes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.data.contexts import context_windows
from treesearch.data.dataset import Dataset, InputSpec, Split


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text corpus as class ids, with its vocabulary.

    Two corpora with the same content have the same ``hash``; ``==`` is identity, as for arrays it would be ambiguous.
    """

    train: NDArray[np.int32]  # [T] sentences one after another, each ended by <eos>
    valid: NDArray[np.int32]  # [T]
    test: NDArray[np.int32]  # [T]
    class_names: tuple[str, ...]  # [C] by falling count, ties by name
    counts: NDArray[np.int64]  # [C] training counts, each >= 1 after smoothing
    eos: int  # id of "<eos>"
    source: dict[str, Any]  # provenance, JSON-able, the same on every machine: no absolute path, no time

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def hash(self) -> str:
        """Hash of the three streams and the class names, 32 hexadecimal digits; provenance is not in it."""
        digest = hashlib.blake2b(digest_size=16)
        for stream in (self.train, self.valid, self.test):
            digest.update(len(stream).to_bytes(8, "little"))
            digest.update(stream.astype("<i4").tobytes())
        digest.update(json.dumps(self.class_names).encode())
        return digest.hexdigest()

    def dataset(self, context: int) -> Dataset:
        """The next word after each ``context`` words: inputs are views of the streams."""
        train, valid, test = (
            Split(context_windows(stream, size=context, pad=self.eos), stream)
            for stream in (self.train, self.valid, self.test)
        )
        return Dataset(
            train,
            valid,
            test,
            spec=InputSpec(context, self.num_classes),
            class_names=self.class_names,
            counts=self.counts,
            source=self.source,
            hash=self.hash,
            noun="tokens",
        )

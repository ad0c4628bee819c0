"""Names of classes as a page shows them: as text, none of them invisible, no two alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from treesearch.visible import visible

EMPTY, BLANK = "(empty)", "(blank)"


def class_labels(names: Sequence[str], ids: Sequence[int]) -> list[str]:
    """What stands for each class: its name with control characters made visible, and its id where that is not enough.

    Names that look alike get their ids, ``bank #17`` and ``bank #408``, and so do those that are empty or blank.

    Args:
        names: Of the classes.
        ids: Their ids, all different.
    """
    spelled = [visible(name) for name in names]
    unclear = {i for i, name in enumerate(spelled) if not name.strip()}
    shown = [name if i not in unclear else BLANK if name else EMPTY for i, name in enumerate(spelled)]
    while True:
        times = Counter(shown)
        unclear |= {i for i, label in enumerate(shown) if times[label] > 1}
        if not unclear:
            return shown
        # A name may look like one that has just been given an id: look again.
        shown = [f"{label} #{ids[i]}" if i in unclear else label for i, label in enumerate(shown)]
        unclear = set()

"""Next-item prediction: what users did, in order of time; the last item of each user is test, the one before valid.

Shapes: **E** events, **T** examples of a split, **C** items, **n** items of a history that count.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from treesearch.data.cooccurrence import cooccurrence_vectors
from treesearch.data.dataset import MIN_CLASSES, Dataset, InputSpec, Seen, Split, content_hash, smoothed_counts
from treesearch.errors import DataError

COOCCURRENCE = "cooccurrence"  # name of the class vectors
COLUMNS = {  # what a column may be called; lower case, up to a colon (RecBole writes user_id:token)
    "user": ("user", "user_id", "userid"),
    "item": ("item", "item_id", "itemid", "movieid", "movie_id"),
    "timestamp": ("timestamp", "time", "date"),
    "rating": ("rating", "score"),
}


def load_interactions(
    path: str | Path,
    *,
    context: int,
    min_user_count: int = 5,
    min_item_count: int = 5,
    min_rating: float | None = None,
) -> Dataset:
    """Read a file of interactions and leave one out (Kang & McAuley 2018): train, valid and test follow each other.

    A user's events are ordered by time, ties by their order in the file. An input is the ``context`` items before,
    filled up with a padding id on the left; inputs of valid and test have the items of train before them. Classes are
    the items, by falling training count, ties by name. ``seen`` holds for each test example what the user has had
    before, less the answer itself where a user comes back to an item.

    Args:
        path: UTF-8 with a header of user, item, timestamp (a number) and, where asked for, rating; ``.csv`` with
            commas, otherwise with tabs. Further columns are ignored.
        context: n.
        min_user_count: Events that a user needs, at least 3: one in each split.
        min_item_count: Events that an item needs. Users and items with too few are left out until there are none (the
            k-core).
        min_rating: Events with a lower rating are left out.

    Raises:
        DataError: The file cannot be read, a column is missing, a time or rating is no number, or too little is left.

    Warns:
        SmoothedClassWarning: An item has no training event.
    """
    path = Path(path)
    events = _read_events(path, min_rating)
    kept = _core(events.user, events.item, min_user_count, min_item_count)
    if not kept.any():
        raise DataError(
            f"no user of {str(path)!r} has {min_user_count} interactions with items that have {min_item_count}; lower"
            " data.min_user_count or data.min_item_count"
        )
    user_names, user_E = _by_name(events.user[kept], events.users)
    names, item_E = _by_name(events.item[kept], events.items)
    order = np.lexsort((events.time[kept], user_E))
    user_E, item_E = user_E[order], item_E[order]
    last = np.append(np.flatnonzero(np.diff(user_E)), user_E.size - 1)
    split_E = np.zeros(user_E.size, np.int8)
    split_E[last], split_E[last - 1] = 2, 1
    train_counts = np.bincount(item_E[split_E == 0], minlength=names.size)
    by_count = np.argsort(-train_counts, kind="stable")  # names are in order
    rank = np.empty(names.size, np.int32)
    rank[by_count] = np.arange(names.size, dtype=np.int32)
    ranked_E = rank[item_E]
    if names.size < MIN_CLASSES:
        raise DataError(f"a search needs at least {MIN_CLASSES} items, but {names.size} of {str(path)!r} are left")
    first = np.concatenate([[0], last[:-1] + 1])
    windows = _histories(ranked_E, first, context, padding=names.size)
    splits = [Split(windows[split_E == number], ranked_E[split_E == number]) for number in range(3)]
    train = ranked_E[split_E == 0], user_E[split_E == 0]
    class_names = tuple(names[by_count].tolist())
    return Dataset(
        splits[0],
        splits[1],
        splits[2],
        spec=InputSpec(context, names.size + 1, padding=names.size),
        class_names=class_names,
        counts=smoothed_counts(splits[0].labels, names.size, f"train ({str(path)!r} less the last two of each user)"),
        source={
            "kind": "interactions",
            "name": path.name,
            "users": int(user_names.size),
            "items": int(names.size),
            "interactions": int(user_E.size),
        },
        hash=content_hash([array for split in splits for array in (split.inputs, split.labels)], class_names),
        noun="interactions",
        seen=_seen(ranked_E, first, last),
        vectors={COOCCURRENCE: cache(partial(cooccurrence_vectors, *train, num_classes=names.size))},
    )


class _Tabs(csv.excel_tab):
    """Nothing is quoted."""

    quoting = csv.QUOTE_NONE


class _Ids(dict[str, int]):
    """Numbers of names, in the order in which they are first asked for."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


@dataclass(frozen=True)
class _Events:
    """In the order of the file."""

    user: NDArray[np.int64]  # [E] number of the user
    item: NDArray[np.int64]  # [E] place among the names
    time: NDArray[np.float64]  # [E]
    users: list[str]  # names by number
    items: list[str]


def _read_events(path: Path, min_rating: float | None) -> _Events:
    users, items = _Ids(), _Ids()
    user, item, time, rating = [], [], [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, csv.excel if path.suffix == ".csv" else _Tabs)
            header = next(rows, [])
            wanted = ["user", "item", "timestamp"] + ([] if min_rating is None else ["rating"])
            places = [_column(header, name, path) for name in wanted]
            for row in rows:
                if not row:
                    continue
                cells = [row[place].strip() for place in places] if len(row) == len(header) else []
                if not all(cells[:2]) or not cells:
                    rule = f"have {len(header)} columns, as the header has, user and item not empty"
                    raise DataError(f"every line must {rule}, but line {rows.line_num} of {str(path)!r} is {row!r:.80}")
                user.append(users[cells[0]])
                item.append(items[cells[1]])
                time.append(cells[2])
                rating.append(cells[-1])
    except OSError as error:
        raise DataError(f"interactions {str(path)!r} cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"interactions must be UTF-8, but {str(path)!r} is not; convert it") from None
    except csv.Error as error:
        raise DataError(f"{str(path)!r} is no table ({error}); give columns with tabs, or commas and .csv") from None
    if not user:
        raise DataError(f"{str(path)!r} holds no interactions below its header")
    times, kept = _numbers(time, "timestamp", path), np.ones(len(user), np.bool_)
    if min_rating is not None:
        ratings = _numbers(rating, "rating", path)
        kept = ratings >= min_rating
        if not kept.any():
            raise DataError(
                f"some rating must reach data.min_rating, but the largest in {str(path)!r} is {ratings.max():g} and"
                f" min_rating {min_rating:g}; lower it"
            )
    return _Events(np.array(user)[kept], np.array(item)[kept], times[kept], list(users), list(items))


def _column(header: Sequence[str], name: str, path: Path) -> int:
    found = [cell.split(":")[0].strip().lower() for cell in header]
    place = next((found.index(alias) for alias in COLUMNS[name] if alias in found), None)
    if place is None:
        raise DataError(
            f"the first line of {str(path)!r} must name the columns, {name} among them, but is {list(header)!r:.100}"
        )
    return place


def _numbers(column: Sequence[str], name: str, path: Path) -> NDArray[np.float64]:
    try:
        numbers = np.array(column, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"every {name} in {str(path)!r} must be a number, but {error}") from None
    if not np.isfinite(numbers).all():
        raise DataError(f"every {name} in {str(path)!r} must be finite, but one is {numbers[~np.isfinite(numbers)][0]}")
    return numbers


def _by_name(id_E: NDArray[np.int64], names: list[str]) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """The names that occur, in order, and the place of each event's among them."""
    present = np.array(sorted(np.unique(id_E).tolist(), key=names.__getitem__))
    place = np.empty(len(names), np.int64)
    place[present] = np.arange(present.size)
    found = np.empty(present.size, object)
    found[:] = [names[number] for number in present.tolist()]
    return found, place[id_E]


def _core(
    user_E: NDArray[np.int64], item_E: NDArray[np.int64], min_user_count: int, min_item_count: int
) -> NDArray[np.bool_]:
    """Events of users and items that all have enough of each other, bool [E]."""
    kept = np.ones(user_E.size, np.bool_)
    while True:
        enough = kept.copy()
        for id_E, least in ((user_E, min_user_count), (item_E, min_item_count)):
            enough &= (np.bincount(id_E[kept], minlength=id_E.max() + 1) >= least)[id_E]
        if enough.sum() == kept.sum():
            return kept
        kept = enough


def _histories(items: NDArray[np.int32], first: NDArray[np.int64], context: int, padding: int) -> NDArray[np.int32]:
    """The items of the same user before each event, int32 [E, n]."""
    padded = np.concatenate([np.full(context, padding, np.int32), items])
    windows = np.array(sliding_window_view(padded, context)[: items.size])
    own = np.arange(items.size) - np.repeat(first, np.diff(np.append(first, items.size)))  # events before, of the user
    windows[np.arange(context) < context - own[:, None]] = padding
    return windows


def _seen(items: NDArray[np.int32], first: NDArray[np.int64], last: NDArray[np.int64]) -> Seen:
    """What each user has had before the last item, less that item."""
    before = [
        np.setdiff1d(items[begin:end], items[end : end + 1])
        for begin, end in zip(first.tolist(), last.tolist(), strict=True)
    ]
    ptr = np.concatenate([[0], np.cumsum([part.size for part in before])]).astype(np.int64)
    return Seen(ptr, np.concatenate(before).astype(np.int32))

"""Interactions: leave one out, the core, histories and what was seen, against loops over users."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treesearch.data import Dataset, SmoothedClassWarning, load_interactions
from treesearch.data.cooccurrence import cooccurrence_vectors
from treesearch.errors import DataError


def write(path: Path, events: list[tuple[Any, ...]], header: str = "user\titem\trating\ttimestamp") -> Path:
    separator = "," if path.suffix == ".csv" else "\t"
    lines = [header.replace("\t", separator), *(separator.join(map(str, event)) for event in events)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def random_events(seed: int = 0, users: int = 30, items: int = 15) -> list[tuple[str, str, float, int]]:
    rng = np.random.default_rng(seed)
    events = []
    for user in range(users):
        for _ in range(rng.integers(2, 14)):
            item = int(rng.zipf(1.5)) % items
            events.append((f"u{user}", f"i{item}", float(rng.integers(1, 6)), int(rng.integers(100))))
    rng.shuffle(events)
    return [(user, item, float(rating), int(time)) for user, item, rating, time in events]


def load(path: Path, **options: Any) -> Dataset:
    return load_interactions(path, **{"context": 3, "min_user_count": 3, "min_item_count": 2, **options})


def histories(events: list[tuple[str, str, float, int]], min_user: int, min_item: int) -> dict[str, list[str]]:
    """Items of each user in order of time, by brute force."""
    kept = list(events)
    while True:
        users = [event[0] for event in kept]
        items = [event[1] for event in kept]
        left = [event for event in kept if users.count(event[0]) >= min_user and items.count(event[1]) >= min_item]
        if len(left) == len(kept):
            break
        kept = left
    found: dict[str, list[tuple[int, int, str]]] = {}
    for place, (user, item, _, time) in enumerate(kept):
        found.setdefault(user, []).append((time, place, item))
    return {user: [item for _, _, item in sorted(own)] for user, own in found.items()}


@pytest.mark.parametrize("suffix", ["tsv", "csv"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_a_loop(tmp_path: Path, seed: int, suffix: str) -> None:
    events = random_events(seed)
    data = load(write(tmp_path / f"events.{suffix}", events))
    expected = histories(events, 3, 2)
    assert data.class_names is not None
    ids = {name: number for number, name in enumerate(data.class_names)}
    assert set(ids) == {item for own in expected.values() for item in own}
    pad = data.spec.padding
    by_split: dict[str, list[tuple[list[int], int]]] = {"train": [], "valid": [], "test": []}
    seen = []
    for user in sorted(expected):
        own = [ids[item] for item in expected[user]]
        for place, item in enumerate(own):
            split = {len(own) - 1: "test", len(own) - 2: "valid"}.get(place, "train")
            before = own[max(0, place - 3) : place]
            by_split[split].append(([pad] * (3 - len(before)) + before, item))
        seen.append(set(own[:-1]) - {own[-1]})
    for name, examples in by_split.items():
        split_data = getattr(data, name)
        assert [(row.tolist(), int(y)) for row, y in zip(split_data.inputs, split_data.labels, strict=True)] == examples
    assert data.seen is not None
    assert [set(data.seen.of(t).tolist()) for t in range(len(data.test))] == seen
    counts = np.bincount(data.train.labels, minlength=len(ids))
    assert (np.diff(counts) <= 0).all()
    np.testing.assert_array_equal(data.counts, np.maximum(counts, 1))


def test_low_ratings_are_no_interaction(tmp_path: Path) -> None:
    events = random_events()
    path = write(tmp_path / "events.tsv", events)
    data = load(path, min_rating=3.0)
    other = load(write(tmp_path / "good.tsv", [event for event in events if event[2] >= 3.0]))
    assert data.hash == other.hash
    assert data.hash != load(path).hash


def test_columns_by_other_names_in_any_order(tmp_path: Path) -> None:
    events = random_events()
    plain = load(write(tmp_path / "a.tsv", events))
    turned = [(time, "x", item, user) for user, item, _, time in events]
    header = "timestamp:float\textra\titem_id:token\tuser_id:token"
    assert load(write(tmp_path / "b.tsv", turned, header)).hash == plain.hash


def test_an_item_that_is_only_a_last_one(tmp_path: Path) -> None:
    events = [(f"u{u}", f"i{i}", 1, i) for u in range(4) for i in range(4)] + [
        (f"u{u}", "late", 1, 9) for u in range(4)
    ]
    with pytest.warns(SmoothedClassWarning, match="2 of 5 classes"):  # and the one before it
        data = load(write(tmp_path / "events.tsv", events))
    assert data.counts[data.class_names.index("late")] == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "must name the columns, user among them"),
        ("user\titem\n", "timestamp among them"),
        ("user\titem\ttimestamp\n", "holds no interactions"),
        ("user\titem\ttimestamp\na\tb\n", "line 2 of"),
        ("user\titem\ttimestamp\na\tb\tyesterday\n", "every timestamp in"),
        ("user\titem\ttimestamp\na\tb\tnan\n", "must be finite"),
        ("user\titem\ttimestamp\na\tb\t1\n", "no user of"),
        ("user\titem\ttimestamp\n" + "a\tb\t1\n" * 5, "at least 3 items, but 1"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "events.tsv"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        load(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "missing.tsv")
    (tmp_path / "latin.tsv").write_bytes(b"user\titem\ttimestamp\ncaf\xe9\tb\t1\n")
    with pytest.raises(DataError, match="must be UTF-8"):
        load(tmp_path / "latin.tsv")


def test_cooccurrence_against_dense_algebra() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(12), 8)
    items = rng.integers(10, size=users.size).astype(np.int32)
    counts = np.zeros((10, 10))
    for i in range(items.size):
        for j in range(max(0, i - 3), min(items.size, i + 4)):
            if i != j and users[i] == users[j]:
                counts[items[i], items[j]] += 1
    context = counts.sum(0) ** 0.75
    expected = counts / (counts.sum(1, keepdims=True) * (context / context.sum()))
    ppmi = np.maximum(np.log(np.maximum(expected, 1e-300)), 0)
    u, s, _ = np.linalg.svd(ppmi)
    vectors = cooccurrence_vectors(items, users, num_classes=10, num_dimensions=4, window=3)
    assert vectors.dtype == np.float32
    scaled = u[:, :4] * np.sqrt(s[:4])
    np.testing.assert_allclose(vectors @ vectors.T, scaled @ scaled.T, rtol=1e-4, atol=1e-5)


def test_items_of_one_kind_of_user_are_alike() -> None:
    """Two groups of users with items of their own: a group's vectors agree, those of different groups do not."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 10)
    items = (rng.integers(20, size=users.size) + 20 * (users % 2)).astype(np.int32)
    vectors = cooccurrence_vectors(items, users, num_classes=41, num_dimensions=8)
    assert not vectors[40].any()  # never seen
    unit = vectors[:40] / np.linalg.norm(vectors[:40], axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert cosine[:20, :20].mean() > 0.3 > 0.1 > cosine[:20, 20:].mean()


def test_cells_are_stripped_and_empty_ones_refused(tmp_path: Path) -> None:
    events = random_events()
    spaced = [(f" {user}", f"{item} ", rating, f" {time}") for user, item, rating, time in events]
    plain = load(write(tmp_path / "a.csv", events))
    assert load(write(tmp_path / "b.csv", spaced)).hash == plain.hash
    for user, item in (("", "i1"), ("u1", " ")):
        path = write(tmp_path / "c.tsv", [*events, (user, item, 1.0, 3)])
        with pytest.raises(DataError, match=f"line {len(events) + 2} of"):
            load(path)


def test_a_rating_that_nobody_gives(tmp_path: Path) -> None:
    path = write(tmp_path / "events.tsv", random_events())
    with pytest.raises(DataError, match=r"the largest in .* is 5 and min_rating 9; lower it"):
        load(path, min_rating=9)

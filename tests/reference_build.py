"""The build, naively: plain Python over lists of events. Written from the specification, not from the kernels."""

import math
from dataclasses import dataclass, field

MASK64 = (1 << 64) - 1


def splitmix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def draw(seed: int, *counters: int) -> int:
    """Fold purpose and counters into splitmix64(seed)."""
    state = splitmix64(seed & MASK64)
    for counter in counters:
        state = splitmix64(state ^ (counter & MASK64))
    return state


def fnv1a(data: bytes) -> int:
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & MASK64
    return h


def is_canonical_int(text: str) -> bool:
    try:
        number = int(text)
    except ValueError:
        return False
    return str(number) == text and -(2**63) <= number < 2**63


def partition_of(raw_id: str, seed: int, num_partitions: int) -> int:
    key = int(raw_id) if is_canonical_int(raw_id) else fnv1a(raw_id.encode())
    return draw(seed, 1, key) & (num_partitions - 1)


@dataclass(frozen=True)
class Event:
    user: str
    item: str
    medium: str
    time: int
    rating: float | None = None
    status: int = 2
    completion: float = 1.0


@dataclass
class Dataset:
    users: list[str] = field(default_factory=list)  # raw ids by dense id
    partition_edges: list[int] = field(default_factory=list)
    histories: list[list[Event]] = field(default_factory=list)
    items: list[tuple[str, str]] = field(default_factory=list)  # (medium, raw id) by dense id
    validation: set[int] = field(default_factory=set)
    duplicates: int = 0


def drop_duplicates(history: list[Event]) -> list[Event]:
    """The last of equal (item, medium, time) stays, at its own place."""
    kept = []
    for k, event in enumerate(history):
        later = history[k + 1 :]
        if not any((e.item, e.medium, e.time) == (event.item, event.medium, event.time) for e in later):
            kept.append(event)
    return kept


def build(
    events: list[Event], *, seed: int, num_partitions: int, share: float, media: tuple[str, ...] = (),
    min_item_events: int = 1, min_user_events: int = 1,
) -> Dataset:  # fmt: skip
    """Histories, vocabulary and split of `events` (already cast and selected), in input order."""
    histories: dict[str, list[Event]] = {}
    for event in events:
        histories.setdefault(event.user, []).append(event)
    histories = {user: drop_duplicates(sorted(h, key=lambda e: e.time)) for user, h in histories.items()}
    result = Dataset(duplicates=len(events) - sum(map(len, histories.values())))
    counts = count_items(histories)
    histories = {u: [e for e in h if counts[e.medium, e.item] >= min_item_events] for u, h in histories.items()}
    histories = {u: h for u, h in histories.items() if len(h) >= max(min_user_events, 1)}
    counts = count_items(histories)
    order = list(media) or sorted({medium for medium, _ in counts})
    result.items = sorted(counts, key=lambda key: (order.index(key[0]), -counts[key], key[1].encode()))
    result.partition_edges = [0]
    for p in range(num_partitions):
        mine = sorted((u for u in histories if partition_of(u, seed, num_partitions) == p), key=str.encode)
        result.users += mine
        result.histories += [histories[user] for user in mine]
        result.partition_edges.append(len(result.users))
    num_users = len(result.users)
    held = num_users - round((1 - share) * num_users)
    held = min(max(held, 1), num_users - 1)
    result.validation = set(sorted(range(num_users), key=lambda u: (draw(seed, 2, u), u))[:held])
    return result


def count_items(histories: dict[str, list[Event]]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for history in histories.values():
        for event in history:
            counts[event.medium, event.item] = counts.get((event.medium, event.item), 0) + 1
    return counts


@dataclass(frozen=True)
class Token:
    user: int
    place: int  # of the event in its history, -1 for CLS


def pack(dataset: Dataset, *, seed: int, split: str, packing: int, max_document_len: float = math.inf) -> list[Token]:
    """The token stream of a packing."""
    counter = 0 if split == "training" else 1
    stream: list[Token] = []
    partitions = range(len(dataset.partition_edges) - 1)
    for p in sorted(partitions, key=lambda p: (draw(seed, 3, packing, counter, p), p)):
        users = range(dataset.partition_edges[p], dataset.partition_edges[p + 1])
        for user in sorted(users, key=lambda u: (draw(seed, 4, packing, counter, u), u)):
            if (user in dataset.validation) != (split == "validation"):
                continue
            tokens = [Token(user, place) for place in range(-1, len(dataset.histories[user]))]
            if len(tokens) > max_document_len:
                room = len(tokens) - int(max_document_len) + 1
                first = ((draw(seed, 5, packing, counter, user) >> 32) * room) >> 32
                tokens = tokens[first : first + int(max_document_len)]
            stream += tokens
    return stream

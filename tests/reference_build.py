"""A naive build: plain Python over lists of events, written from the specification, not from the kernels."""

import math
from dataclasses import dataclass, field

MASK64 = (1 << 64) - 1
PLANNED = 0


def splitmix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def draw(seed: int, *counters: int) -> int:
    """Folds purpose and counters into splitmix64(seed)."""
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
    validation: set[int] = field(default_factory=set)  # users:F
    held_out: dict[int, int] = field(default_factory=dict)  # last:2, time: user → place of the validation target
    trained: list[int] = field(default_factory=list)  # time: training events of each user
    duplicates: int = 0

    def events_of(self, user: int, split: str) -> int:
        """How many of a user's first events a split may use."""
        if self.trained:
            return self.trained[user] if split == "training" else self.held_out.get(user, -1) + 1
        if user in self.held_out:
            return self.held_out[user] + (split == "validation")
        return len(self.histories[user]) if (user in self.validation) == (split == "validation") else 0


def drop_duplicates(history: list[Event]) -> list[Event]:
    """Of equal (item, medium, time) the last one stays, at its place."""
    kept = []
    for k, event in enumerate(history):
        later = history[k + 1 :]
        if not any((e.item, e.medium, e.time) == (event.item, event.medium, event.time) for e in later):
            kept.append(event)
    return kept


def build(
    events: list[Event], *, seed: int, num_partitions: int, share: float = 0, media: tuple[str, ...] = (),
    min_item_events: int = 1, min_user_events: int = 1, cuts: tuple[int, int] | None = None,
) -> Dataset:  # fmt: skip
    """Histories, vocabulary and split of `events` (already cast and selected), in input order; with `cuts` by time;
    otherwise share 0: `last:2`."""
    before = cuts[0] if cuts else math.inf
    histories: dict[str, list[Event]] = {}
    for event in events:
        histories.setdefault(event.user, []).append(event)
    histories = {user: drop_duplicates(sorted(h, key=lambda e: e.time)) for user, h in histories.items()}
    result = Dataset(duplicates=len(events) - sum(map(len, histories.values())))
    if min_item_events > 1:
        counts = count_items(histories, before)
        histories = {
            u: [e for e in h if counts.get((e.medium, e.item), 0) >= min_item_events] for u, h in histories.items()
        }
    if min_user_events > 1:
        histories = {u: h for u, h in histories.items() if sum(e.time < before for e in h) >= min_user_events}
    histories = {u: h for u, h in histories.items() if h}
    alive, counts = count_items(histories), count_items(histories, before)
    order = list(media) or sorted({medium for medium, _ in alive})
    result.items = sorted(alive, key=lambda key: (order.index(key[0]), -counts.get(key, 0), key[1].encode()))
    result.partition_edges = [0]
    for p in range(num_partitions):
        mine = sorted((u for u in histories if partition_of(u, seed, num_partitions) == p), key=str.encode)
        result.users += mine
        result.histories += [histories[user] for user in mine]
        result.partition_edges.append(len(result.users))
    if cuts:
        for user, history in enumerate(result.histories):
            result.trained.append(sum(event.time < cuts[0] for event in history))
            asked = [p for p, e in enumerate(history) if e.status != PLANNED and cuts[0] <= e.time < cuts[1]]
            if asked and result.trained[user]:
                result.held_out[user] = asked[0]
        return result
    if not share:
        for user, history in enumerate(result.histories):
            targets = [place for place, event in enumerate(history) if event.status != PLANNED]
            if len(targets) >= 3:
                result.held_out[user] = targets[-2]
        return result
    num_users = len(result.users)
    held = num_users - round((1 - share) * num_users)
    held = min(max(held, 1), num_users - 1)
    result.validation = set(sorted(range(num_users), key=lambda u: (draw(seed, 2, u), u))[:held])
    return result


def count_items(histories: dict[str, list[Event]], before: float = math.inf) -> dict[tuple[str, str], int]:
    """Events of each item, of those before a time."""
    counts: dict[tuple[str, str], int] = {}
    for event in (event for history in histories.values() for event in history if event.time < before):
        counts[event.medium, event.item] = counts.get((event.medium, event.item), 0) + 1
    return counts


@dataclass(frozen=True)
class Token:
    user: int
    place: int  # of the event in its history, -1 for CLS


def packing_order(dataset: Dataset, *, seed: int, split: str, packing: int) -> list[int]:
    """The users with events in a split, in the order of a packing."""
    counter = 0 if split == "training" else 1
    order: list[int] = []
    partitions = range(len(dataset.partition_edges) - 1)
    for p in sorted(partitions, key=lambda p: (draw(seed, 3, packing, counter, p), p)):
        users = range(dataset.partition_edges[p], dataset.partition_edges[p + 1])
        order += sorted(users, key=lambda u: (draw(seed, 4, packing, counter, u), u))
    return [user for user in order if dataset.events_of(user, split)]


def tokens_of(dataset: Dataset, user: int, split: str) -> list[Token]:
    return [Token(user, place) for place in range(-1, dataset.events_of(user, split))]


def pack(dataset: Dataset, *, seed: int, split: str, packing: int, max_document_len: float = math.inf) -> list[Token]:
    """The token stream of a packing."""
    counter = 0 if split == "training" else 1
    stream: list[Token] = []
    for user in packing_order(dataset, seed=seed, split=split, packing=packing):
        tokens = tokens_of(dataset, user, split)
        if len(tokens) > max_document_len:
            room = len(tokens) - int(max_document_len) + 1
            first = ((draw(seed, 5, packing, counter, user) >> 32) * room) >> 32
            tokens = tokens[first : first + int(max_document_len)]
        stream += tokens
    return stream


def first_fit(lengths: list[int], window_len: int) -> list[tuple[int, int]]:
    """Window and place in it of each segment: the first window with enough room."""
    filled: list[int] = []
    places = []
    for length in lengths:
        window = next((w for w, fill in enumerate(filled) if fill + length <= window_len), len(filled))
        if window == len(filled):
            filled.append(0)
        places.append((window, filled[window]))
        filled[window] += length
    return places


def pack_last(dataset: Dataset, *, seed: int, window_len: int) -> list[list[Token]]:
    """The validation windows of `last:2` and of a split by time, without their padding."""
    order = packing_order(dataset, seed=seed, split="validation", packing=0)
    segments = [tokens_of(dataset, user, "validation")[-window_len:] for user in order]
    places = first_fit([len(segment) for segment in segments], window_len)
    windows: list[list[Token]] = [[] for _ in range(max((window for window, _ in places), default=-1) + 1)]
    for segment, (window, place) in zip(segments, places, strict=True):
        assert len(windows[window]) == place
        windows[window] += segment
    return windows

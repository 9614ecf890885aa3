"""Naive twins of the objective kernels and of the order, written from the rules, one token at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from reference_build import draw

PICK, PICK_RATING, MASK_ITEM, MASK_RATING, MASK_TIME, MASK_POSITION = 9, 10, 11, 12, 13, 14
RANDOM_ITEM, RANDOM_RATING, RANDOM_TIME, RANDOM_POSITION, HIDE_TOLD_TIMES = 15, 16, 17, 18, 19
ASK_LAST_RATING = 22
SHARD_ORDER, CHUNK_ORDER, WINDOW_ORDER = 6, 7, 8
SPLITS = {"training": 0, "validation": 1}
PLANNED = 0
NUM_STATUSES = 5


class Token(NamedTuple):
    """A token as stored, decoded: special values in the integer fields, NaN for a missing rating or completion."""

    item: int
    user: int
    position: int
    time: int
    rating: float
    status: int
    completion: float


@dataclass(frozen=True)
class Facts:
    """The facts of a dataset that the objectives need."""

    medium_offsets: tuple[int, ...]
    num_users: int
    window_len: int
    rating_max: float
    time_min: int
    time_max: int

    @property
    def num_items(self) -> int:
        return self.medium_offsets[-1]

    def cls(self, user: int) -> Token:
        return Token(self.num_items, user, self.window_len, 0, math.nan, NUM_STATUSES, math.nan)

    def pad(self) -> Token:
        return Token(
            self.num_items + 1, self.num_users + 1, self.window_len + 1, 0, math.nan, NUM_STATUSES + 1, math.nan
        )

    def medium(self, item: int) -> int:
        """Of an item; CLS and PAD follow the media as they follow the items."""
        if item >= self.num_items:
            return len(self.medium_offsets) - 1 + item - self.num_items
        return max(m for m, low in enumerate(self.medium_offsets[:-1]) if low <= item)


def _unit(bits: int) -> float:
    return (bits >> 11) / 2**53


def _below(bits: int, n: int) -> int:
    return ((bits >> 32) * n) >> 32


class _Draws:
    """The draws of one window's tokens."""

    def __init__(self, seed: int, split: str, epoch: int, window: int) -> None:
        self._seed, self._counters = seed, (SPLITS[split], epoch, window)

    def bits(self, purpose: int, token: int) -> int:
        return draw(self._seed, purpose, *self._counters, token)

    def unit(self, purpose: int, token: int) -> float:
        return _unit(self.bits(purpose, token))


def featurize(
    tokens: list[Token], facts: Facts, *, objective: str, policy: str, split: str, seed: int, epoch: int, window: int,
    last_only: bool = False,
) -> dict[str, list[Any]]:  # fmt: skip
    """Every token array of a batch for one window; `last_only`: only the last event of each segment is a target."""
    segments = _segments(tokens, facts)
    out = _shown(tokens, segments, facts)
    draws = _Draws(seed, split, epoch, window)
    if objective == "causal":
        _ask_next(tokens, segments, facts, split, draws, out)
        if last_only:
            _forget_all_but_the_last(segments, out)
    elif last_only:
        _mask_last(
            tokens, segments, facts, policy, lambda user: _unit(draw(seed, ASK_LAST_RATING, 1, epoch, user)), out
        )
    elif policy == "disjoint":
        _mask_disjoint(tokens, facts, draws, out)
    else:
        _mask_seed(tokens, facts, split, draws, out)
    if split == "validation":
        _share_weights(segments, facts, out)
    return out


def _segments(tokens: list[Token], facts: Facts) -> list[int]:
    """The history of each token, numbered from 0; -1 on PAD."""
    segments, current = [], -1
    for t, token in enumerate(tokens):
        if token.item == facts.num_items + 1:
            segments.append(-1)
            continue
        if t == 0 or token.user != tokens[t - 1].user:
            current += 1
        segments.append(current)
    return segments


def _shown(tokens: list[Token], segments: list[int], facts: Facts) -> dict[str, list[Any]]:
    """The arrays before masks and targets."""
    n = len(tokens)
    zeros: dict[str, list[Any]] = {
        name: [0] * n for name in ("told_time", "target_item", "target_rating", "weight_item", "weight_rating")
    }
    return zeros | {
        "item": [t.item for t in tokens],
        "user": [t.user for t in tokens],
        "position": [t.position for t in tokens],
        "medium": [facts.medium(t.item) for t in tokens],
        "status": [t.status for t in tokens],
        "segment": list(segments),
        "time": [t.time for t in tokens],
        "time_known": [t.item < facts.num_items for t in tokens],
        "told_time_known": [False] * n,
        "rating": [0.0 if math.isnan(t.rating) else t.rating for t in tokens],
        "rating_known": [not math.isnan(t.rating) for t in tokens],
        "completion": [0.0 if math.isnan(t.completion) else t.completion for t in tokens],
        "completion_known": [not math.isnan(t.completion) for t in tokens],
    }


def _has_item_target(token: Token, facts: Facts) -> bool:
    return token.item < facts.num_items and token.status != PLANNED


def _has_rating_target(token: Token, facts: Facts) -> bool:
    return _has_item_target(token, facts) and not math.isnan(token.rating)


def _want_item(out: dict[str, list[Any]], t: int, about: Token) -> None:
    out["target_item"][t], out["weight_item"][t] = about.item, 1.0


def _want_rating(out: dict[str, list[Any]], t: int, about: Token) -> None:
    out["target_item"][t], out["target_rating"][t], out["weight_rating"][t] = about.item, about.rating, 1.0


def _ask_next(
    tokens: list[Token], segments: list[int], facts: Facts, split: str, draws: _Draws, out: dict[str, list[Any]]
) -> None:
    for t in range(len(tokens) - 1):
        if segments[t] < 0 or segments[t + 1] != segments[t]:
            continue
        first = segments.index(segments[t])
        if split == "validation" or draws.unit(HIDE_TOLD_TIMES, first) >= 0.1:
            out["told_time"][t], out["told_time_known"][t] = tokens[t + 1].time, True
        if _has_item_target(tokens[t + 1], facts):
            _want_item(out, t, tokens[t + 1])
        if _has_rating_target(tokens[t + 1], facts):
            _want_rating(out, t, tokens[t + 1])


def _mask_status_and_completion(out: dict[str, list[Any]], t: int) -> None:
    out["status"][t] = NUM_STATUSES + 2
    out["completion"][t], out["completion_known"][t] = 0.0, False


def _mask_disjoint(tokens: list[Token], facts: Facts, draws: _Draws, out: dict[str, list[Any]]) -> None:
    for t, token in enumerate(tokens):
        if _has_item_target(token, facts) and draws.unit(PICK, t) < 0.1:
            _want_item(out, t, token)
            out["item"][t] = facts.num_items + 2
        elif _has_rating_target(token, facts) and draws.unit(PICK_RATING, t) < 0.1:
            _want_rating(out, t, token)
        else:
            continue
        out["rating"][t], out["rating_known"][t] = 0.0, False
        _mask_status_and_completion(out, t)


def _mask_seed(tokens: list[Token], facts: Facts, split: str, draws: _Draws, out: dict[str, list[Any]]) -> None:
    for t, token in enumerate(tokens):
        if not _has_item_target(token, facts) or draws.unit(PICK, t) >= 0.15:
            continue
        _want_item(out, t, token)
        if _has_rating_target(token, facts):
            _want_rating(out, t, token)
        _mask_status_and_completion(out, t)
        if split == "validation":
            out["item"][t] = facts.num_items + 2
            out["rating"][t], out["rating_known"][t] = 0.0, False
            out["time"][t], out["time_known"][t] = 0, False
            continue
        _disturb(token, t, facts, draws, out)


def _last_tokens(segments: list[int]) -> list[int]:
    """The last token of each segment."""
    return [len(segments) - 1 - segments[::-1].index(segment) for segment in sorted(set(segments) - {-1})]


def _forget_all_but_the_last(segments: list[int], out: dict[str, list[Any]]) -> None:
    for t in set(range(len(segments))) - {last - 1 for last in _last_tokens(segments)}:
        for name in ("target_item", "target_rating", "weight_item", "weight_rating"):
            out[name][t] = 0


def _mask_last(
    tokens: list[Token], segments: list[int], facts: Facts, policy: str, unit_of_user: Callable[[int], float],
    out: dict[str, list[Any]],
) -> None:  # fmt: skip
    for t in _last_tokens(segments):
        token = tokens[t]
        if not _has_item_target(token, facts):
            continue
        rated = _has_rating_target(token, facts)
        rating_alone = policy == "disjoint" and rated and unit_of_user(token.user) < 0.5
        if rating_alone or (policy == "seed" and rated):
            _want_rating(out, t, token)
        if not rating_alone:
            _want_item(out, t, token)
            out["item"][t] = facts.num_items + 2
        out["rating"][t], out["rating_known"][t] = 0.0, False
        _mask_status_and_completion(out, t)
        if policy == "seed":
            out["time"][t], out["time_known"][t] = 0, False


def _disturb(token: Token, t: int, facts: Facts, draws: _Draws, out: dict[str, list[Any]]) -> None:
    """Masks, keeps or replaces each field of a picked token separately."""
    u = draws.unit(MASK_ITEM, t)
    if u < 0.8:
        out["item"][t] = facts.num_items + 2
    elif u >= 0.9:
        low, high = facts.medium_offsets[facts.medium(token.item) :][:2]
        out["item"][t] = low + _below(draws.bits(RANDOM_ITEM, t), high - low)
    u = draws.unit(MASK_RATING, t)
    if u < 0.8:
        out["rating"][t], out["rating_known"][t] = 0.0, False
    elif u >= 0.9:
        out["rating"][t] = np.float32(draws.unit(RANDOM_RATING, t) * (facts.rating_max + 1))
        out["rating_known"][t] = True
    u = draws.unit(MASK_TIME, t)
    if u < 0.45:
        out["time"][t], out["time_known"][t] = 0, False
    elif u >= 0.9:
        span = facts.time_max - facts.time_min
        out["time"][t] = math.floor(facts.time_min + draws.unit(RANDOM_TIME, t) * span)
    u = draws.unit(MASK_POSITION, t)
    if u < 0.45:
        out["position"][t] = facts.window_len + 2
    elif u >= 0.9:
        out["position"][t] = _below(draws.bits(RANDOM_POSITION, t), facts.window_len)


def _share_weights(segments: list[int], facts: Facts, out: dict[str, list[Any]]) -> None:
    """Validation: the weights of a user's targets of one task add up to 1."""
    for name in ("weight_item", "weight_rating"):
        keys = [(segment, facts.medium(item)) for segment, item in zip(segments, out["target_item"], strict=True)]
        counted = [key for key, weight in zip(keys, out[name], strict=True) if weight]
        for t, key in enumerate(keys):
            if out[name][t]:
                out[name][t] = np.float32(1 / counted.count(key))


def epoch_batches(
    *, seed: int, split: str, epoch: int, num_windows: int, chunk_windows: int, shard_windows: int, batch_windows: int
) -> list[list[int]]:
    """The global batches of an epoch: windows by slot, -1 where empty."""

    def shuffled(things: list[int], purpose: int) -> list[int]:
        return sorted(things, key=lambda thing: draw(seed, purpose, SPLITS[split], epoch, thing))

    chunks: dict[int, list[int]] = {}
    for window in range(num_windows):
        chunks.setdefault(window // chunk_windows, []).append(window)
    shards: dict[int, list[int]] = {}
    for chunk in chunks:
        shards.setdefault(chunk * chunk_windows // shard_windows, []).append(chunk)
    shard_order = shuffled(list(shards), SHARD_ORDER)
    chunk_order: list[int] = []
    while shard_order:
        four, shard_order = shard_order[:4], shard_order[4:]
        chunk_order += shuffled([chunk for shard in four for chunk in shards[shard]], CHUNK_ORDER)
    full = [c for c in chunk_order if len(chunks[c]) == chunk_windows]
    short = [c for c in chunk_order if len(chunks[c]) < chunk_windows]

    num_lanes = next(n for n in (24, 16, 12, 8, 6, 4, 3, 2, 1) if batch_windows % n == 0)
    lanes: list[list[int]] = [[] for _ in range(num_lanes)]
    while len(full) >= num_lanes:
        for lane in lanes:
            lane += shuffled(chunks[full.pop(0)], WINDOW_ORDER)
    left = [window for chunk in full + short for window in shuffled(chunks[chunk], WINDOW_ORDER)]
    for i, window in enumerate(left):
        lanes[i % num_lanes].append(window)

    share = batch_windows // num_lanes
    num_steps = math.ceil(num_windows / batch_windows)
    for lane in lanes:
        lane += [-1] * (num_steps * share - len(lane))
    return [[w for lane in lanes for w in lane[b * share : (b + 1) * share]] for b in range(num_steps)]

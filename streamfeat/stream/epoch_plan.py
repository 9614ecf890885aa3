"""What a rank does in an epoch, in order: which chunk is decoded into which slot before which batch is made.

An epoch is cut into *spans* of whole rounds. The slots of the pool fall in two halves, which the spans use in
turn: while the batches of one span are made, the chunks of the next are decoded, spread evenly between them, as far
as they are there already.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.stream.order import NO_WINDOW, EpochOrder

_STEPS_PER_SPAN = 4  # at least: a batch then touches two spans at most, and decoding has a lead


@dataclass(frozen=True)
class Decode:
    """Decode `chunk` into `slot` once every batch up to `after_step` is made: they may read what lies there."""

    chunk: int
    slot: int
    after_step: int


@dataclass(frozen=True)
class Make:
    """Make this rank's share of global batch `step`. Arrays are (rows,), ordered by lane."""

    step: int
    windows: NDArray[np.int64]  # -1 where empty
    batch_slots: NDArray[np.int64]  # places in the global batch
    rows: NDArray[np.int64]  # where the windows lie in the pool, -1 where empty
    pool_slots: tuple[int, ...]  # what must have been decoded


@dataclass(frozen=True)
class _Span:
    """The places first .. first + n - 1 of every lane of the rank."""

    first: int
    windows: NDArray[np.int64]  # (lanes, n)

    def between(self, start: int, stop: int) -> NDArray[np.int64]:
        """(lanes, up to stop - start): the windows at those of the places that lie in the span."""
        return self.windows[:, max(start - self.first, 0) : max(stop - self.first, 0)]

    def chunks(self, start: int, chunk_windows: int) -> tuple[list[int], list[int]]:
        """The chunks read at place `start` or later in the order of their first place, and those places."""
        by_place = self.between(start, self.first + self.windows.shape[1]).T
        places, lanes = np.nonzero(by_place != NO_WINDOW)
        chunks, firsts = np.unique(by_place[places, lanes] // chunk_windows, return_index=True)
        order = np.argsort(firsts)
        return chunks[order].tolist(), (max(start, self.first) + places[firsts[order]]).tolist()


class EpochPlan:
    """The plan of one rank, which reads `lanes`, for one epoch."""

    def __init__(self, order: EpochOrder, lanes: NDArray[np.int64]) -> None:
        self._order = order
        self._lanes = lanes
        rounds = -(-_STEPS_PER_SPAN * order.windows_per_lane // order.chunk_windows)
        self._span_len = rounds * order.chunk_windows  # places of a lane
        num_whole = order.num_rounds // rounds
        has_rest = order.lane_len > num_whole * self._span_len
        self._num_spans = num_whole + has_rest
        # The last span holds what no whole one does, with the chunks that are dealt window by window: a rank may
        # need any of them.
        num_chunks = -(-order.num_windows // order.chunk_windows)
        rest = (order.num_rounds - num_whole * rounds) * len(lanes) + num_chunks - order.num_rounds * order.num_lanes
        self._half = max(rounds * len(lanes) if num_whole else 0, rest)
        self._slot_of = np.full(num_chunks, -1, np.int64)

    @property
    def num_slots(self) -> int:
        """Slots of the pool; the same in every epoch."""
        return self._half * min(self._num_spans, 2)

    def operations(self, first_step: int, is_there: Callable[[int], bool]) -> Iterator[Decode | Make]:
        """From global batch `first_step` to the end of the epoch.

        An operation waits for none that comes after it, so threads that take them in this order never hang. A chunk
        is decoded ahead of need only if `is_there` says that it can be read at once: waiting for one that is yet to
        be written would hold up batches whose chunks lie ready, and with them what makes space for it.
        """
        per_step = self._order.windows_per_lane
        live: deque[_Span] = deque(maxlen=2)
        num_listed = self._span_of(first_step * per_step)
        waiting: deque[tuple[int, Decode]] = deque()  # with the step that needs it, ascending
        for step in range(first_step, self._order.num_steps):
            current = self._span_of(step * per_step)
            # No batch from here on reads the half that the next span takes over.
            while num_listed < min(current + 2, self._num_spans):
                live.append(self._span(num_listed))
                chunks, places = live[-1].chunks(first_step * per_step, self._order.chunk_windows)
                for i, (chunk, place) in enumerate(zip(chunks, places, strict=True)):
                    self._slot_of[chunk] = num_listed % 2 * self._half + i
                    waiting.append((place // per_step, Decode(chunk, int(self._slot_of[chunk]), step - 1)))
                num_listed += 1
            while waiting and waiting[0][0] <= step:
                yield waiting.popleft()[1]
            yield self._make(step, live)
            steps_left = max((current + 1) * self._span_len // per_step - step, 1)
            for _ in range(-(-len(waiting) // steps_left)):
                if not is_there(waiting[0][1].chunk):
                    break
                yield waiting.popleft()[1]

    def _span_of(self, place: int) -> int:
        return min(place // self._span_len, self._num_spans - 1)

    def _span(self, number: int) -> _Span:
        first = number * self._span_len
        stop = self._order.lane_len if number == self._num_spans - 1 else first + self._span_len
        return _Span(first, self._order.lane_windows(self._lanes, first, stop))

    def _make(self, step: int, spans: deque[_Span]) -> Make:
        order = self._order
        start, stop = step * order.windows_per_lane, (step + 1) * order.windows_per_lane
        windows = np.concatenate([span.between(start, stop) for span in spans], axis=1).reshape(-1)
        slots = self._slot_of[windows // order.chunk_windows]
        rows = np.where(windows == NO_WINDOW, -1, slots * order.chunk_windows + windows % order.chunk_windows)
        needed = np.unique(slots[windows != NO_WINDOW])
        return Make(step, windows, order.slots(self._lanes).reshape(-1), rows, tuple(needed.tolist()))

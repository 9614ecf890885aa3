"""The operations of a rank in an epoch, in order: decode a chunk into a slot, or make a batch.

An epoch is cut into *spans* of whole rounds. The slots of the pool form two halves; spans use them in turn. While the
batches of one span are made, the available chunks of the next span are decoded, spread evenly between the batches.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.stream.order import NO_WINDOW, EpochOrder

_STEPS_PER_SPAN = 4  # at least so many: then a batch reads at most two spans, and chunks are decoded early enough


@dataclass(frozen=True)
class Decode:
    """Decode `chunk` into `slot` after all batches up to `after_step` are made: they may read the slot's old chunk."""

    chunk: int
    slot: int
    after_step: int


@dataclass(frozen=True)
class Make:
    """Make this rank's share of global batch `step`. Arrays are (rows,), ordered by lane."""

    step: int
    windows: NDArray[np.int64]  # -1: empty
    batch_slots: NDArray[np.int64]  # places in the global batch
    rows: NDArray[np.int64]  # rows of the windows in the pool; -1: empty
    pool_slots: tuple[int, ...]  # slots that must be decoded before


@dataclass(frozen=True)
class _Span:
    """The windows at places first .. first + n - 1 of every lane of the rank."""

    first: int
    windows: NDArray[np.int64]  # (lanes, n)

    def between(self, start: int, stop: int) -> NDArray[np.int64]:
        """(lanes, at most stop - start): the windows at places start .. stop - 1, as far as they are in the span."""
        return self.windows[:, max(start - self.first, 0) : max(stop - self.first, 0)]

    def chunks(self, start: int, chunk_windows: int) -> tuple[list[int], list[int]]:
        """The chunks that are read at place `start` or later, in the order of their first place, and these places."""
        by_place = self.between(start, self.first + self.windows.shape[1]).T
        places, lanes = np.nonzero(by_place != NO_WINDOW)
        chunks, firsts = np.unique(by_place[places, lanes] // chunk_windows, return_index=True)
        order = np.argsort(firsts)
        return chunks[order].tolist(), (max(start, self.first) + places[firsts[order]]).tolist()


class EpochPlan:
    """The plan for one epoch of a rank that reads `lanes`."""

    def __init__(self, order: EpochOrder, lanes: NDArray[np.int64]) -> None:
        self._order = order
        self._lanes = lanes
        rounds = -(-_STEPS_PER_SPAN * order.windows_per_lane // order.chunk_windows)
        self._span_len = rounds * order.chunk_windows  # places of a lane
        num_whole = order.num_rounds // rounds
        has_rest = order.lane_len > num_whole * self._span_len
        self._num_spans = num_whole + has_rest
        # The last span holds the remaining rounds, and the chunks that are dealt window by window, of which a rank may
        # need every one.
        num_chunks = -(-order.num_windows // order.chunk_windows)
        rest = (order.num_rounds - num_whole * rounds) * len(lanes) + num_chunks - order.num_rounds * order.num_lanes
        self._half = max(rounds * len(lanes) if num_whole else 0, rest)
        self._slot_of = np.full(num_chunks, -1, np.int64)

    @property
    def num_slots(self) -> int:
        """The number of slots of the pool. It is the same in every epoch."""
        return self._half * min(self._num_spans, 2)

    def operations(self, first_step: int, is_there: Callable[[int], bool]) -> Iterator[Decode | Make]:
        """The operations from global batch `first_step` to the end of the epoch.

        An operation waits only for earlier ones, so threads that take them in this order cannot deadlock. A chunk is
        decoded early only if `is_there` says that it can be read at once. Waiting for a chunk that is not yet written
        would delay batches whose chunks are ready, and these batches free the space for the chunk.
        """
        per_step = self._order.windows_per_lane
        live: deque[_Span] = deque(maxlen=2)
        num_listed = self._span_of(first_step * per_step)
        waiting: deque[tuple[int, Decode]] = deque()  # (step that needs the chunk, its operation), ascending
        for step in range(first_step, self._order.num_steps):
            current = self._span_of(step * per_step)
            # From this step on, no batch reads the half of the pool that the next span uses.
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

"""Measures tokens per second, and the share of the time that is spent waiting for batches."""

import contextlib
import time
from collections.abc import Generator, Iterator

from train.model.targets import Arrays


class Lap:
    """A measurement that starts when the object is created."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._waited_s = 0.0
        self._num_tokens = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time inside this block counts as waiting for data."""
        asked = time.perf_counter()
        try:
            yield
        finally:
            self._waited_s += time.perf_counter() - asked

    def count(self, arrays: Arrays) -> None:
        """Adds the tokens of a batch, without PAD."""
        self._num_tokens += int((arrays["segment"] >= 0).sum())

    def timed(self, batches: Generator[Arrays]) -> Generator[Arrays]:
        """Yields `batches`, counts their tokens and measures the wait for each. Closing this generator closes them."""
        with contextlib.closing(batches):
            while True:
                with self.waiting():
                    arrays = next(batches, None)
                if arrays is None:
                    return
                self.count(arrays)
                yield arrays

    def figures(self) -> tuple[float, float]:
        """(tokens per second, share of the time that was spent waiting)."""
        seconds = time.perf_counter() - self._began
        return self._num_tokens / seconds, self._waited_s / seconds

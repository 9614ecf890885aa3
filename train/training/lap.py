"""How fast batches are worked off, and how much of the time goes into waiting for them."""

import contextlib
import time
from collections.abc import Generator, Iterator

from train.model.targets import Arrays


class Lap:
    """A stretch of time, from its making on."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._waited_s = 0.0
        self._num_tokens = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """What happens inside counts as waiting for data."""
        asked = time.perf_counter()
        try:
            yield
        finally:
            self._waited_s += time.perf_counter() - asked

    def count(self, arrays: Arrays) -> None:
        """Add a batch's tokens; PAD is no token."""
        self._num_tokens += int((arrays["segment"] >= 0).sum())

    def timed(self, batches: Generator[Arrays]) -> Generator[Arrays]:
        """`batches`, counted, and the time that each is waited for. Closing this closes them."""
        with contextlib.closing(batches):
            while True:
                with self.waiting():
                    arrays = next(batches, None)
                if arrays is None:
                    return
                self.count(arrays)
                yield arrays

    def figures(self) -> tuple[float, float]:
        """Tokens per second, and the share of the time that was spent waiting."""
        seconds = time.perf_counter() - self._began
        return self._num_tokens / seconds, self._waited_s / seconds

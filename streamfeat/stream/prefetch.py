"""The background threads: they work an epoch's plan off in order, a bounded number of batches ahead."""

import threading
import time
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from streamfeat.stream.chunks import ChunkPool
from streamfeat.stream.epoch_plan import Decode, EpochPlan, Make
from streamfeat.stream.featurize import BatchBuffers, Featurizer


class Prefetcher:
    """Makes the batches of an epoch ahead of their use, in memory that is used again and again.

    The result hangs on no number of threads: every operation writes a place of its own, after those it reads from.
    Threads take operations in the order of the plan and wait for earlier ones only, so some thread always moves.
    """

    def __init__(self, pool: ChunkPool, featurizer: Featurizer, ring: list[BatchBuffers], threads: int) -> None:
        """`ring`: one buffer is held by the consumer, the others are filled meanwhile; at least two."""
        self._pool = pool
        self._featurizer = featurizer
        self._ring = ring
        self._threads = threads
        self.wait_s = 0.0  # seconds that the consumer has waited, in all

    def batches(self, plan: EpochPlan, first_step: int, mask_epoch: int) -> Generator[BatchBuffers]:
        """The batches from `first_step` on, each valid until the next one is asked for.

        What goes wrong in a thread is raised here, in place of the first batch that it spoils. However the
        iteration ends, no thread is left behind.
        """
        made: deque[tuple[int, Future[BatchBuffers]]] = deque()
        decoded: dict[int, Future[None]] = {}  # by slot
        stopped = threading.Event()
        executor = ThreadPoolExecutor(self._threads, thread_name_prefix="streamfeat")
        try:
            for operation in plan.operations(first_step, self._pool.has):
                if isinstance(operation, Decode):
                    before = [future for step, future in made if step <= operation.after_step]
                    decoded[operation.slot] = executor.submit(self._decode, operation, before, stopped)
                    continue
                needs = {slot: decoded[slot] for slot in operation.pool_slots}
                buffers = self._ring[operation.step % len(self._ring)]
                made.append((operation.step, executor.submit(self._make, operation, needs, mask_epoch, buffers)))
                if len(made) == len(self._ring):
                    yield self._awaited(made.popleft()[1])
            while made:
                yield self._awaited(made.popleft()[1])
        finally:
            stopped.set()
            executor.shutdown(wait=True, cancel_futures=True)

    def _awaited(self, future: "Future[BatchBuffers]") -> BatchBuffers:
        start = time.perf_counter()
        try:
            return future.result()
        finally:
            self.wait_s += time.perf_counter() - start

    def _decode(self, operation: Decode, before: "list[Future[BatchBuffers]]", stopped: threading.Event) -> None:
        for future in before:
            future.exception()  # waits; its error is for whoever asks for that batch
        self._pool.wait_for(operation.chunk, stopped)
        self._pool.decode(operation.chunk, operation.slot)

    def _make(
        self, operation: Make, needs: "Mapping[int, Future[None]]", mask_epoch: int, out: BatchBuffers
    ) -> BatchBuffers:
        for future in needs.values():
            future.result()
        self._featurizer.fill(
            self._pool.arrays, operation.rows, operation.windows, operation.batch_slots, mask_epoch, out
        )
        return out

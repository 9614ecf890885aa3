"""The background threads: they run an epoch's plan in order, at most a fixed number of batches ahead."""

import threading
import time
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from streamfeat.stream.chunks import ChunkPool
from streamfeat.stream.epoch_plan import Decode, EpochPlan, Make
from streamfeat.stream.featurize import BatchBuffers, Featurizer


class Prefetcher:
    """Makes the batches of an epoch ahead of their use, in reused memory.

    The result is the same for any number of threads: every operation writes its own memory, after the operations whose
    results it reads. Threads take operations in the order of the plan and wait only for earlier ones, so there is no
    deadlock.
    """

    def __init__(self, pool: ChunkPool, featurizer: Featurizer, ring: list[BatchBuffers], threads: int) -> None:
        """`ring`: at least two buffers. The consumer holds one while the others are filled."""
        self._pool = pool
        self._featurizer = featurizer
        self._ring = ring
        self._threads = threads
        self.wait_s = 0.0  # seconds that the consumer has waited in total

    def batches(self, plan: EpochPlan, first_step: int, mask_epoch: int) -> Generator[BatchBuffers]:
        """The batches from `first_step` on. A batch is valid until the next one is requested.

        An error in a thread is raised here, instead of the first batch that needed the result. When the iteration ends,
        for any reason, all threads have ended.
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
            future.exception()  # only waits; the error is raised when the consumer requests that batch
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

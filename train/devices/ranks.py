"""Several training processes as one model: who is who, what they add up, what they agree on.

torchrun starts the processes; one alone needs nothing. Gradients go through DistributedDataParallel (NCCL on GPUs,
gloo on CPUs); numbers and decisions, which live on the host, through a gloo group of their own.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from streamfeat.errors import ConfigError, RankError, StreamfeatError
from train.devices.launch import Launch, launched

# A rank that hangs without dying is given up after this long. Nothing between two exchanges takes longer but the
# writing of a very large checkpoint or the first compilation.
_TIMEOUT = timedelta(minutes=20)
_FAREWELL_S = 2.0  # a lost connection is noticed before the process behind it is gone


class FirstRankError(StreamfeatError):
    """Rank 0 failed and said why: this rank ends with the same exit code and says nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


@dataclass(frozen=True)
class World:
    """The processes that train together, as one of them sees it. Every method is called by all ranks alike."""

    launch: Launch
    device: torch.device
    _control: Any = None  # the gloo group that numbers and decisions go through; none where a rank is alone
    _processes: tuple[str, ...] = ()  # by rank: "<pid> on <host>"

    @property
    def rank(self) -> int:
        return self.launch.rank

    @property
    def size(self) -> int:
        return self.launch.world_size

    @property
    def is_first(self) -> bool:
        return self.launch.is_first

    def replicated(self, module: nn.Module) -> nn.Module:
        """`module` with gradients averaged over all ranks in each backward pass outside `without_sync`."""
        if self.size == 1:
            return module
        if self.device.type == "cuda":
            # Dynamo would split the compiled graph at buckets, which it cannot where an autograd.Function is in it.
            torch._dynamo.config.optimize_ddp = False
        # Tasks without a target leave their head unused. Buckets are then never rebuilt, so that the order of
        # additions, and with it every bit, is the same in a resumed run.
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether each flag is set on any rank."""
        if self.size == 1:
            return flags
        values = torch.tensor([int(flag) for flag in flags])
        self._exchange(lambda: dist.all_reduce(values, dist.ReduceOp.MAX, group=self._control))
        return tuple(bool(value) for value in values.tolist())

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value added up over all ranks, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        self._exchange(lambda: dist.all_reduce(total, group=self._control))
        return [float(value) for value in total.tolist()]

    def concatenated(self, array: NDArray[Any]) -> NDArray[Any]:
        """The 1-d arrays of all ranks one after the other, the same on every rank."""
        if self.size == 1:
            return array
        lengths = [int(n) for n in self.sum([len(array) * (rank == self.rank) for rank in range(self.size)])]
        padded = np.zeros(max(lengths), array.dtype)
        padded[: len(array)] = array
        parts = [torch.empty_like(torch.from_numpy(padded)) for _ in lengths]
        self._exchange(lambda: dist.all_gather(parts, torch.from_numpy(padded), group=self._control))
        return np.concatenate([part.numpy()[:length] for part, length in zip(parts, lengths, strict=True)])

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What `make`, called on rank 0 alone, returns there: a JSON value. Its error ends every rank."""
        if self.size == 1:
            return make()
        if not self.is_first:
            message = json.loads(self._broadcast(b""))
            if "exit_code" in message:
                raise FirstRankError(message["exit_code"])
            return message["value"]
        try:
            value = make()
        except BaseException as error:
            code = error.exit_code if isinstance(error, StreamfeatError) else 1
            self._broadcast(json.dumps({"exit_code": code}).encode())
            raise
        self._broadcast(json.dumps({"value": value}).encode())
        return value

    def _broadcast(self, message: bytes) -> bytes:
        size = torch.tensor([len(message)])
        self._exchange(lambda: dist.broadcast(size, 0, group=self._control))
        content = torch.frombuffer(bytearray(message or int(size)), dtype=torch.uint8)
        self._exchange(lambda: dist.broadcast(content, 0, group=self._control))
        return bytes(content.numpy())

    def _exchange(self, call: Callable[[], Any]) -> None:
        with self.watched():
            call()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turn what gloo and NCCL raise when a rank is lost into a RankError that names it."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_of_network(error):
                raise
            lost = self._lost_ranks()
            if self.rank != min(set(range(self.size)) - set(lost)):
                raise FirstRankError(RankError.exit_code) from None  # one of those that are left says it
            who = ", ".join(f"rank {rank} (process {self._processes[rank]})" for rank in lost)
            raise RankError(
                f"{who or 'another rank'} ended or cannot be reached, so all ranks stop; "
                "its own message says why, if it had the time; go on from the last checkpoint with --resume"
            ) from None

    def _lost_ranks(self) -> list[int]:
        """Ranks on this machine whose process is gone; it may take a moment to go."""
        deadline = time.monotonic() + _FAREWELL_S
        while True:
            lost = [rank for rank, process in enumerate(self._processes) if _is_gone(process)]
            if lost or time.monotonic() > deadline:
                return lost
            time.sleep(0.05)


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The world that the launcher made, joined until the block ends.

    Raises ConfigError where a machine has fewer GPUs than ranks, RankError where the others do not come.
    """
    launch = launched()
    on_gpu = torch.cuda.is_available()
    if on_gpu and launch.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"rank {launch.rank} is number {launch.local_rank} on a machine with {torch.cuda.device_count()} GPUs; "
            f"start with --nproc-per-node {torch.cuda.device_count()} or fewer"
        )
    device = torch.device("cuda", launch.local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if launch.world_size == 1:
        yield World(launch, device)
        return
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    except RuntimeError as error:
        raise RankError(f"rank {launch.rank}: the ranks did not find each other ({error}); start them again") from None
    try:
        control = dist.new_group(backend="gloo") if on_gpu else dist.group.WORLD
        yield World(launch, device, control, _exchanged_processes(launch, control))
    finally:
        dist.destroy_process_group()


def without_sync(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Leave out the exchange of gradients: they add up until a backward pass outside of this."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return module.no_sync()
    return contextlib.nullcontext()


def _exchanged_processes(launch: Launch, control: Any) -> tuple[str, ...]:
    mine = f"{os.getpid()} on {socket.gethostname()[:64]}".encode().ljust(96)
    parts = [torch.empty(96, dtype=torch.uint8) for _ in range(launch.world_size)]
    dist.all_gather(parts, torch.frombuffer(bytearray(mine), dtype=torch.uint8), group=control)
    return tuple(bytes(part.numpy()).decode().strip() for part in parts)


def _is_gone(process: str) -> bool:
    """Whether a process of this machine has ended; of another machine's nothing is known."""
    pid, _, host = process.partition(" on ")
    if host != socket.gethostname()[:64]:
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def _is_of_network(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text or "onnection" in text

"""Several training processes that train one model: their sums, decisions and exchanged values.

torchrun starts the processes; a single process needs no launcher. DistributedDataParallel averages gradients (NCCL on
GPUs, gloo on CPUs). Numbers and decisions on the host go through a separate gloo group.
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

# After this time without an answer a rank counts as lost. Between two exchanges only the writing of a very large
# checkpoint or the first compilation can take longer.
_TIMEOUT = timedelta(minutes=20)
_FAREWELL_S = 2.0  # a connection can break before its process has ended


class FirstRankError(StreamfeatError):
    """Another rank failed and prints the reason. This rank ends with the same exit code and prints nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


@dataclass(frozen=True)
class World:
    """The processes that train together. All ranks must call its methods in the same order."""

    launch: Launch
    device: torch.device
    _control: Any = None  # the gloo group for numbers and decisions; None with a single rank
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
            # With this optimisation Dynamo splits the graph at buckets, and fails if it contains an autograd.Function.
            torch._dynamo.config.optimize_ddp = False
        # The head of a task without targets is unused. With this option buckets are never rebuilt, so the order of
        # additions is the same in a resumed run, and so is every bit.
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether each flag is set on any rank."""
        if self.size == 1:
            return flags
        values = torch.tensor([int(flag) for flag in flags])
        self._exchange(lambda: dist.all_reduce(values, dist.ReduceOp.MAX, group=self._control))
        return tuple(bool(value) for value in values.tolist())

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all ranks, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        self._exchange(lambda: dist.all_reduce(total, group=self._control))
        return [float(value) for value in total.tolist()]

    def concatenated(self, array: NDArray[Any]) -> NDArray[Any]:
        """The 1-d arrays of all ranks, joined in the order of ranks; the same on every rank."""
        if self.size == 1:
            return array
        lengths = [int(n) for n in self.sum([len(array) * (rank == self.rank) for rank in range(self.size)])]
        padded = np.zeros(max(lengths), array.dtype)
        padded[: len(array)] = array
        parts = [torch.empty_like(torch.from_numpy(padded)) for _ in lengths]
        self._exchange(lambda: dist.all_gather(parts, torch.from_numpy(padded), group=self._control))
        return np.concatenate([part.numpy()[:length] for part, length in zip(parts, lengths, strict=True)])

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Calls `make` on rank 0 and returns its result, a JSON value, on every rank. Its error ends every rank."""
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

    def bytes_from_first(self, make: Callable[[], bytes]) -> bytes:
        """Calls `make` on rank 0 and returns its result on every rank. Its error ends every rank."""
        made: list[bytes] = []
        self.from_first(lambda: made.append(make()))
        return made[0] if self.size == 1 else self._broadcast(made[0] if made else b"")

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
        """Turns errors of gloo and NCCL about a lost rank into a RankError that names the rank."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_of_network(error):
                raise
            lost = self._lost_ranks()
            if self.rank != min(set(range(self.size)) - set(lost)):
                raise FirstRankError(RankError.exit_code) from None  # only the lowest remaining rank prints the error
            who = ", ".join(f"rank {rank} (process {self._processes[rank]})" for rank in lost)
            raise RankError(
                f"{who or 'another rank'} ended or cannot be reached, so all ranks stop; "
                "its own message may say why; continue from the last checkpoint with --resume"
            ) from None

    def _lost_ranks(self) -> list[int]:
        """Ranks on this machine whose process has ended. Waits up to `_FAREWELL_S` for the first one to end."""
        deadline = time.monotonic() + _FAREWELL_S
        while True:
            lost = [rank for rank, process in enumerate(self._processes) if _is_gone(process)]
            if lost or time.monotonic() > deadline:
                return lost
            time.sleep(0.05)


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """Joins the processes that the launcher started, until the block ends.

    Raises ConfigError if a machine has fewer GPUs than ranks, RankError if the other ranks do not join.
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
    """Skips the exchange of gradients. They add up until the next backward pass outside this block."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return module.no_sync()
    return contextlib.nullcontext()


def _exchanged_processes(launch: Launch, control: Any) -> tuple[str, ...]:
    mine = f"{os.getpid()} on {socket.gethostname()[:64]}".encode().ljust(96)
    parts = [torch.empty(96, dtype=torch.uint8) for _ in range(launch.world_size)]
    dist.all_gather(parts, torch.frombuffer(bytearray(mine), dtype=torch.uint8), group=control)
    return tuple(bytes(part.numpy()).decode().strip() for part in parts)


def _is_gone(process: str) -> bool:
    """Whether a process on this machine has ended. False for processes on other machines."""
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

"""Tasks that really kill, stop or hang the worker that runs them. Module-level: spawned processes import this."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from streamfeat.errors import DataError
from streamfeat.records import Frozen
from streamfeat.store.files import write_durably
from streamfeat.store.receipts import TablesReceipt

Fault = Literal[
    "", "killed", "killed in a write", "exits", "stopped", "sleeps", "memory", "data", "bug", "computes", "short sleeps"
]


class FaultyTask(Frozen):
    """Shows its fault at the first `times` tries, which it counts in files."""

    number: int
    fault: Fault = ""
    times: int = 1000

    @property
    def name(self) -> str:
        return f"task-{self.number}"


def execute(root: Path, task: FaultyTask) -> TablesReceipt:
    tries = len(list(root.glob(f"{task.name}.*")))
    (
        root / f"{task.name}.{tries}.{os.getpid()}"
    ).touch()  # in the name: there is no moment at which half of it is there
    if tries < task.times:
        _show(task.fault, root)
    return TablesReceipt(task=task.name, digest="", rows=os.getpid(), files=())


def _show(fault: Fault, root: Path) -> None:
    match fault:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "killed in a write":
            write_durably(root, "windows.zarr/0", _parts_until_killed())
        case "exits":
            os._exit(0)
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleeps":
            time.sleep(1000)
        case "memory":
            raise MemoryError
        case "data":
            raise DataError("a bad row; mend it")
        case "bug":
            raise ZeroDivisionError("of the task")
        case "computes":
            started = time.process_time()
            while time.process_time() - started < 6:
                sum(range(1000))
        case "short sleeps":
            time.sleep(2.5)


def _parts_until_killed() -> Iterator[bytes]:
    yield b"half a file"
    os.kill(os.getpid(), signal.SIGKILL)

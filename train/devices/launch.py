"""This process's rank, from the environment variables that torchrun sets. Does not import torch."""

import os
from dataclasses import dataclass

from streamfeat.errors import ConfigError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """A process's rank among the processes that train together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # rank on this machine: the number of its GPU

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def launched() -> Launch:
    """This process's rank. Rank 0 of 1, unless all of torchrun's variables are set.

    Raises ConfigError if their values are not valid.
    """
    values = {name: os.environ.get(name, "") for name in _VARIABLES}
    if not all(values.values()):
        return Launch()
    try:
        launch = Launch(int(values["RANK"]), int(values["WORLD_SIZE"]), int(values["LOCAL_RANK"]))
    except ValueError:
        launch = Launch(rank=-1)
    if not (0 <= launch.rank < launch.world_size and launch.local_rank >= 0):
        said = ", ".join(f"{name}={value}" for name, value in values.items())
        raise ConfigError(
            f"the environment variables are not those of a rank ({said}); start with torchrun, or unset them"
        )
    return launch

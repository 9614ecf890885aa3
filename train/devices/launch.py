"""Which of several processes this is, as torchrun says it in the environment. Loads no torch."""

import os
from dataclasses import dataclass

from streamfeat.errors import ConfigError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """A process's place among those that train together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on its machine: the number of its GPU

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def launched() -> Launch:
    """This process's place; rank 0 of 1 where no launcher set all of torchrun's variables.

    Raises ConfigError where they make no sense.
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
        raise ConfigError(f"the environment names no rank ({said}); start with torchrun, or unset these variables")
    return launch

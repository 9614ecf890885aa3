"""What every long call tells while it goes on. The library yields these and prints nothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something the user should read; a `warning` is something that went wrong."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of a stage are done; no `total`: nobody knows yet how many there will be."""

    stage: str
    done: int
    total: int | None
    unit: str
    detail: str = ""  # what else to show beside the bar, such as the loss

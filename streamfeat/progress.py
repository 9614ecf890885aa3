"""What every long call tells while it goes on. The library yields these and prints nothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something the user should read; a `warning` is something that went wrong."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of a stage are done."""

    stage: str
    done: int
    total: int
    unit: str

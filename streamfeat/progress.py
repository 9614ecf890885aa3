"""The messages that every long call yields while it runs. The library prints nothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """A text for the user. `warning`: something went wrong."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of a stage are done. `total` is None while it is unknown."""

    stage: str
    done: int
    total: int | None
    unit: str
    detail: str = ""  # more text to show next to the bar, such as the loss

"""How many items a run has of the one whose weights it starts with. It loads neither torch nor pyarrow, for the command
line's sake."""

from streamfeat.records import Frozen


class MediumCounts(Frozen):
    """What becomes of the items of one medium."""

    medium: str
    carried: int
    new: int
    dropped: int  # unknown to the new dataset

"""The last items before each target of a batch, of which the transitions are made (`train/terms/transitions.py`)."""

import numpy as np
from numpy.typing import NDArray

from train.model.targets import Arrays, segment_bounds, visible_events
from train.terms.transitions import LAST_ITEMS


def last_items(arrays: Arrays, token_N: NDArray[np.int64], num_items: int, *, causal: bool) -> NDArray[np.int32]:
    """(N, P): the items of the last events that the model sees before the targets of the flat tokens `token_N`, in the
    same segment, the most recent one first; then -1. Planned events do not count.

    Causal objective: a token is itself an event before its target. Masked objective: it is the target, and what follows
    it does not count, as nothing follows the event that a history is asked for.
    """
    item = arrays["item"].reshape(-1)
    events = np.flatnonzero(visible_events(arrays, causal=causal) & (item < num_items))
    first = np.searchsorted(events, segment_bounds(arrays["segment"])[0][token_N])
    stop = np.searchsorted(events, token_N + causal)
    place = stop[:, None] - 1 - np.arange(LAST_ITEMS)
    found: NDArray[np.int32] = np.append(item[events], -1)[np.where(place >= first[:, None], place, -1)]
    return found

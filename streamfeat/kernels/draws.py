"""Counter-based random draws: a draw is a pure function of the seed and counters; no generator keeps a state.

The mixer is splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
`docs/format.md` describes the scheme, with test vectors.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Purposes of draws: the first counter after the seed. The comment lists the other counters. The numbers are part of the
# format.
PARTITION_OF_USER = 1  # counters: hash of the raw user id
VALIDATION_USER = 2  # user
PARTITION_ORDER = 3  # packing, split, partition
USER_ORDER = 4  # packing, split, user
CROP = 5  # packing, split, user
SHARD_ORDER = 6  # split, epoch, shard
CHUNK_ORDER = 7  # split, epoch, chunk
WINDOW_ORDER = 8  # split, epoch, window
PICK = 9  # split, epoch, window, token (`seed`: whether it is picked; `disjoint`: whether its item is a target)
PICK_RATING = 10  # split, epoch, window, token (`disjoint`: whether its rating is a target)
MASK_ITEM = 11  # split, epoch, window, token: mask, keep or replace
MASK_RATING = 12
MASK_TIME = 13
MASK_POSITION = 14
RANDOM_ITEM = 15  # the replacing value
RANDOM_RATING = 16
RANDOM_TIME = 17
RANDOM_POSITION = 18
HIDE_TOLD_TIMES = 19  # split, epoch, window, first token of the segment
INITIAL_WEIGHTS = 20
DROPOUT = 21  # step, slot of the window in the global batch, place in the model
ASK_LAST_RATING = 22  # split, epoch, user (`disjoint`, last targets only: whether rating instead of item is the target)

SPLIT_COUNTERS = {"training": 0, "validation": 1}  # the counter of a split

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11, _S32 = (np.uint64(s) for s in (30, 27, 31, 11, 32))


@njit("uint64(uint64)", cache=True, nogil=True, inline="always")
def splitmix64(x: np.uint64) -> np.uint64:
    """One step of splitmix64 from state `x`."""
    x = x + _GOLDEN
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@njit("uint64(uint64, uint64)", cache=True, nogil=True, inline="always")
def fold(state: np.uint64, counter: np.uint64) -> np.uint64:
    """`state` mixed with one more counter. A draw folds its purpose and counters into splitmix64(seed)."""
    return splitmix64(state ^ counter)


@njit("float64(uint64)", cache=True, nogil=True, inline="always")
def to_unit(draw: np.uint64) -> float:
    """A draw as a float64 in [0, 1): its upper 53 bits."""
    return np.float64(draw >> _S11) * (1.0 / 9007199254740992.0)


@njit("int64(uint64, int64)", cache=True, nogil=True, inline="always")
def to_below(draw: np.uint64, n: int) -> int:
    """A draw as an integer in [0, n), n < 2^32: its upper 32 bits times n, upper half."""
    return ((draw >> _S32) * np.uint64(n)) >> _S32  # type: ignore[return-value]


@njit("void(uint64, int64, uint64[::1])", cache=True, nogil=True)
def fill_draws(state: np.uint64, first: int, out: NDArray[np.uint64]) -> None:
    """out[i] = the draw of counter `first + i` under `state`."""
    for i in range(out.shape[0]):
        out[i] = splitmix64(state ^ np.uint64(first + i))


def draw_state(seed: int, *counters: int) -> np.uint64:
    """The uint64 state after folding `counters` (the purpose first) into `seed`."""
    state = splitmix64(np.uint64(seed))
    for counter in counters:
        state = fold(np.uint64(state), np.uint64(counter))
    return np.uint64(state)


def draws(seed: int, *counters: int, first: int = 0, num: int) -> NDArray[np.uint64]:
    """(num,) uint64: the draws whose last counter runs from `first` to `first + num - 1`."""
    out = np.empty(num, np.uint64)
    fill_draws(draw_state(seed, *counters), first, out)
    return out


def permutation(seed: int, *counters: int, first: int = 0, num: int) -> NDArray[np.int64]:
    """(num,) int64: the stable argsort of `draws` with the same arguments."""
    return np.argsort(draws(seed, *counters, first=first, num=num), kind="stable")

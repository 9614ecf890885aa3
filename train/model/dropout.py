"""Dropout that is the same however windows are grouped into micro-batches and ranks.

Without CUDA the mask is a pure function of the run's seed, the step and the window's slot: one random byte per value,
drawn with the key of the window. On CUDA it is torch's own dropout, which costs almost nothing there.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamfeat.kernels.draws import DROPOUT, draws, fill_draws, fold


def dropout_keys(seed: int, step: int, slot: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(rows,) uint64: the key of each window: a function of the run's seed, the step and the slot in the batch."""
    if len(slot) == 0:
        return np.empty(0, np.uint64)
    first = int(slot.min())
    keys = draws(seed, DROPOUT, step, first=first, num=int(slot.max()) - first + 1)
    return keys[slot - first]


class Dropout(nn.Module):
    """In training, sets a share of values to 0 and scales the others. `place` is its number within the model."""

    def __init__(self, share: float, place: int) -> None:
        super().__init__()
        self.share = share
        self.place = np.uint64(place)
        self.threshold = round(256 * share)  # bytes below it drop a value: the true share differs by at most 1/512

    def forward(self, x_BTD: Tensor, keys: NDArray[np.uint64] | None) -> Tensor:
        """`x_BTD` with the masks of `keys` (B,); if `keys` is None, with torch's own dropout."""
        if not self.training or self.share == 0:
            return x_BTD
        if keys is None:
            return nn.functional.dropout(x_BTD, self.share)
        return x_BTD * self._mask(x_BTD, keys)

    def _mask(self, x_BTD: Tensor, keys: NDArray[np.uint64]) -> Tensor:
        num_values = x_BTD[0].numel()
        words = np.empty((len(keys), -(-num_values // 8)), np.uint64)
        for row, key in zip(words, keys, strict=True):
            fill_draws(fold(key, self.place), 0, row)
        bytes_ = torch.from_numpy(words.view(np.uint8))[:, :num_values].view(x_BTD.shape)
        scale = 256 / (256 - self.threshold)
        return (bytes_ >= self.threshold).to(x_BTD.device, x_BTD.dtype).mul_(scale)

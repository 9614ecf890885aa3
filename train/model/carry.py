"""Carries the weights of a trained model over to the model of another dataset.

Modules say which of their parameters have a row for each item (`by_item`) or medium (`by_medium`); the special tokens
may follow as further rows. All other parameters must have the same shape in both models.

Axes: V items and M media of the new dataset.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamfeat.schema import Schema
from streamfeat.store.tables import ItemTable
from train.model.carried import MediumCounts


@dataclass(frozen=True)
class Numbering:
    """Where the items and media of a new dataset stand in the old one: their numbers there, -1 for new ones."""

    old: Schema
    new: Schema
    item_V: NDArray[np.int64]
    medium_M: NDArray[np.int64]

    @classmethod
    def of(cls, old: Schema, old_items: ItemTable, new: Schema, new_items: ItemTable) -> "Numbering":
        """An item is the same if its medium and its raw id are, a medium if its name is."""
        ids = {key: number for number, key in enumerate(zip(old_items.medium, old_items.raw_id, strict=True))}
        item = [ids.get(key, -1) for key in zip(new_items.medium, new_items.raw_id, strict=True)]
        medium = [old.media.index(name) if name in old.media else -1 for name in new.media]
        return cls(old, new, np.array(item, np.int64), np.array(medium, np.int64))

    def counts(self) -> list[MediumCounts]:
        """A line for each medium of either dataset, those of the new one first."""
        found = []
        for name in dict.fromkeys((*self.new.media, *self.old.media)):
            item = self.item_V[_items_of(self.new, name)]
            carried, before = int((item >= 0).sum()), _items_of(self.old, name)
            dropped = before.stop - before.start - carried
            found.append(MediumCounts(medium=name, carried=carried, new=len(item) - carried, dropped=dropped))
        return found


def rows_of(model: nn.Module, axis: str) -> set[str]:
    """The names of the parameters that have a row for each item (`axis` is `by_item`) or medium (`by_medium`)."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name in getattr(module, axis, ())
    }


def carried_weights(weights: Mapping[str, Tensor], model: nn.Module, numbering: Numbering) -> dict[str, Tensor]:
    """The weights that `model`, untrained and of the new dataset, starts with instead of its own. `weights` are those
    of the trained model.

    An item or medium that both datasets have keeps its row, and so do the special tokens. A new item's row is the mean
    of its medium's carried rows. Where a row is a single number (a bias), that would forget how many events the item
    has: it is the untrained model's number, plus what the carried ones of its medium differ from theirs on average. A
    new medium, and the items of a medium without carried items, keep the rows of the untrained model.

    Raises ValueError if the weights are not those of such a model.
    """
    own = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if own.keys() != weights.keys():
        raise ValueError(f"other parameters: {', '.join(sorted(own.keys() ^ weights.keys()))}")
    by_item, by_medium = rows_of(model, "by_item"), rows_of(model, "by_medium")
    old = numbering.old
    carried = {}
    for name, start in own.items():
        before = weights[name].to(start.dtype)
        if name in by_item:
            carried[name] = _by_number(name, before, start, numbering.item_V, old.num_items)
            _start_new_items(carried[name], start, numbering)
        elif name in by_medium:
            carried[name] = _by_number(name, before, start, numbering.medium_M, len(old.media))
        else:
            _check_shapes(name, before.shape, start.shape)
            carried[name] = before.clone()
    return carried


def _by_number(name: str, before: Tensor, start: Tensor, number_N: NDArray[np.int64], num_before: int) -> Tensor:
    """`start` with the rows of `before` where `number_N` says which, and with its last rows, of the special tokens."""
    num_now = len(number_N)
    _check_shapes(name, (len(before) - num_before, *before.shape[1:]), (len(start) - num_now, *start.shape[1:]))
    rows = start.clone()
    known = torch.from_numpy(number_N >= 0)
    rows[:num_now][known] = before[torch.from_numpy(number_N[number_N >= 0])]
    rows[num_now:] = before[num_before:]
    return rows


def _start_new_items(rows: Tensor, start: Tensor, numbering: Numbering) -> None:
    """Sets the rows of new items, in place."""
    for low, high in itertools.pairwise(numbering.new.medium_offsets):
        known = torch.from_numpy(numbering.item_V[low:high] >= 0)
        if not known.any() or known.all():
            continue
        mine, own = rows[low:high], start[low:high]
        if rows.ndim == 1:
            mine[~known] = own[~known] + (mine[known] - own[known]).mean()
        else:
            mine[~known] = mine[known].mean(0)


def _check_shapes(name: str, before: tuple[int, ...], now: tuple[int, ...]) -> None:
    if tuple(before) != tuple(now):
        raise ValueError(f"{name}: the shape is {tuple(before)} and must be {tuple(now)}, not counting items and media")


def _items_of(schema: Schema, medium: str) -> slice:
    """The items of a medium; none if the schema has no such medium."""
    if medium not in schema.media:
        return slice(0, 0)
    number = schema.media.index(medium)
    return slice(*schema.medium_offsets[number : number + 2])

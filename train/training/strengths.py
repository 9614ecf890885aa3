"""Chooses on the validation split how strongly transitions shift the logits at scoring.

Axes: N targets, S strengths, V items of a medium, U users.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.devices.ranks import World
from train.model.batch import Batch, BatchFacts
from train.model.popularity import PopularityRows
from train.model.targets import Arrays, Targets, segment_bounds
from train.model.transformer import EventTransformer
from train.model.transitions import last_items
from train.runs.standing import TransitionStrength
from train.terms.transitions import Transitions

STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)

_MOST_TARGETS = 8  # of a segment and a task; each is scored once for every strength
_ROWS = 128  # targets at a time


class StrengthTrial:
    """The losses of watch targets at every strength. Each rank adds its share of the validation split."""

    def __init__(self, facts: BatchFacts, transitions: Transitions) -> None:
        self._facts, self._transitions = facts, transitions
        media = facts.schema.media
        self._users: dict[str, list[NDArray[np.int64]]] = {name: [np.empty(0, np.int64)] for name in media}
        self._losses: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in media}  # (N * S,)

    @torch.no_grad()
    def add(self, model: EventTransformer, state_ND: Tensor, batch: Batch, arrays: Arrays) -> None:
        """Adds targets of a batch: at most 8 of a segment and task, spread over it, the last one included.

        `state_ND` are the states of all tokens of the batch, `arrays` what it was made of.
        """
        facts, first_N = self._facts, segment_bounds(arrays["segment"])[0]
        for medium, name in enumerate(facts.schema.media):
            targets = batch.targets[f"{name}_watch"]
            token_N = targets.token_N.cpu().numpy()
            chosen = _spread(token_N, first_N)
            low, high = facts.schema.medium_offsets[medium : medium + 2]
            for rows in np.split(chosen, range(_ROWS, len(chosen), _ROWS)):
                last_NP = last_items(arrays, token_N[rows], facts.schema.num_items, causal=facts.causal)
                lift_NV = torch.from_numpy(self._transitions.log_lift(last_NP, low, high)).to(state_ND.device)
                row_N = torch.from_numpy(rows).to(state_ND.device)
                logits_NV = _logits(model, state_ND, batch, medium, targets, row_N)
                item_N1 = targets.item_N[row_N, None]
                losses = [_losses(logits_NV, lift_NV, item_N1, strength) for strength in STRENGTHS]
                self._users[name].append(targets.user[rows].astype(np.int64))
                self._losses[name].append(torch.stack(losses, 1).double().cpu().numpy().reshape(-1))

    def result(self, world: World) -> dict[str, TransitionStrength]:
        """The strength for each medium with targets on any rank. All ranks must call it and get the same.

        It is the least strength whose mean loss over users is at most one standard error above the lowest and more
        than one below that of strength 0; errors are of differences within users. Without such a strength it is 0.
        """
        found = {}
        for name in self._facts.schema.media:
            users, losses = (
                world.concatenated(np.concatenate(parts)) for parts in (self._users[name], self._losses[name])
            )
            if len(users):
                found[name] = _best(users, losses.reshape(-1, len(STRENGTHS)))
        return found


def _logits(
    model: EventTransformer, state_ND: Tensor, batch: Batch, medium: int, targets: Targets, row_N: Tensor
) -> Tensor:
    """(N, V) float32: the softmax's inputs for the targets `row_N`, as in training: -inf for seen items."""
    rows = targets.popularity
    if rows is not None:
        of_host = None if rows.row is None else rows.row[row_N.cpu().numpy()]
        rows = PopularityRows(rows.row_N[row_N], rows.time_N[row_N], of_host)
    state = state_ND[targets.token_N[row_N]].float()
    logits_NV = model.watch.logits(state, model.inputs, medium, rows, batch.features)
    if targets.seen is not None:
        targets.seen.leave_out(logits_NV, row_N, targets.item_N[row_N, None])
    return logits_NV


def _losses(logits_NV: Tensor, lift_NV: Tensor, item_N1: Tensor, strength: float) -> Tensor:
    """(N,): -log P of the items in nats."""
    shifted_NV = torch.add(logits_NV, lift_NV, alpha=strength)
    return shifted_NV.logsumexp(1) - shifted_NV.gather(1, item_N1)[:, 0]


def _spread(token_N: NDArray[np.int64], first_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending rows of the targets at the flat tokens `token_N` that are scored. `first_N` is the first token of each
    token's segment."""
    order = np.argsort(token_N, kind="stable")
    _, segment, sizes = np.unique(first_N[token_N[order]], return_inverse=True, return_counts=True)
    from_end = np.cumsum(sizes)[segment] - 1 - np.arange(len(order))
    return np.sort(order[from_end % -(-sizes[segment] // _MOST_TARGETS) == 0])


def _best(user_N: NDArray[np.int64], losses_NS: NDArray[np.float64]) -> TransitionStrength:
    users, index = np.unique(user_N, return_inverse=True)
    sums_SU = [np.bincount(index, loss_N, len(users)) for loss_N in losses_NS.T]
    means_US = np.stack(sums_SU, 1) / np.bincount(index)[:, None]
    lowest = int(means_US.mean(0).argmin())
    worse_S, error_S = _mean_and_error(means_US - means_US[:, [lowest]])
    gain_S, gain_error_S = _mean_and_error(means_US[:, :1] - means_US)
    is_clear_S = (gain_S > gain_error_S) & (worse_S <= error_S) & (len(users) > 1)
    chosen = int(is_clear_S.argmax())  # the first; strength 0 if there is none
    return TransitionStrength(strength=STRENGTHS[chosen], gain=float(gain_S[chosen]), error=float(gain_error_S[chosen]))


def _mean_and_error(values_US: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The means over users, and their standard errors."""
    return values_US.mean(0), values_US.std(0) / max(len(values_US) - 1, 1) ** 0.5

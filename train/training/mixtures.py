"""Chooses on the validation split how strongly transitions shift the logits at scoring, and the shares of a mixture.

Axes: N targets, S strengths of transitions, C temperatures, K parts of the mixture (`train/model/mixture.py`), V items
of a medium, U users.
"""

import itertools
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.devices.device import autocast
from train.devices.ranks import World
from train.model.batch import Batch, BatchFacts, to_batch
from train.model.mixture import ALL_PARTS, part_probs, part_rows
from train.model.popularity import PopularityRows
from train.model.targets import Arrays, Targets, segment_bounds
from train.model.transformer import EventTransformer
from train.model.transitions import last_items
from train.runs.standing import Mixture, Mixtures
from train.training.update import micro_batches

STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
TEMPERATURES = (1.0, 1.15, 1.3, 1.5)  # of hidden times, for which a masked model was not trained

_MOST_TARGETS = 8  # of a segment and a task; each is scored once for every strength
_ROWS = 128  # targets at a time
_SWEEPS = 200  # of the shares
_LEAST_SHARE = 0.005  # a part that gets less is left out; the model has at least this

# A trial takes every k-th batch, k at most 4, as long as it has about so many users.
_LEAST_USERS = 1024
_LEAST_HIDDEN_USERS = 256  # a pass of its own
_MOST_EVERY = 4


class MixtureTrial:
    """The losses of watch targets at every strength and for every part. Each rank adds its share of the validation
    split."""

    def __init__(self, facts: BatchFacts, num_users: int, *, told: bool) -> None:
        """`told` says whether the model knows the times of the targets. The split has `num_users`."""
        least = _LEAST_USERS if told else _LEAST_HIDDEN_USERS
        self.every = max(1, min(_MOST_EVERY, num_users // least))  # so many batches, of which it takes the first
        self.facts, self.num_users = facts, num_users
        self.temperatures = TEMPERATURES[:1] if told else TEMPERATURES
        media = facts.schema.media
        self._users: dict[str, list[NDArray[np.int64]]] = {name: [np.empty(0, np.int64)] for name in media}
        # (N * (S * C + K),)
        self._found: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in media}

    @torch.no_grad()
    def add(self, model: EventTransformer, state_ND: Tensor, batch: Batch, arrays: Arrays) -> None:
        """Adds targets of a batch: at most 8 of a segment and task, spread over it, the last one included.

        `state_ND` are the states of all tokens of the batch, `arrays` what it was made of.
        """
        facts, first_N = self.facts, segment_bounds(arrays["segment"])[0]
        assert facts.terms is not None, "a run with tables"
        for medium, name in enumerate(facts.schema.media):
            targets = batch.targets[f"{name}_watch"]
            token_N = targets.token_N.cpu().numpy()
            chosen = _spread(token_N, first_N)
            low, high = facts.schema.medium_offsets[medium : medium + 2]
            for rows in np.split(chosen, range(_ROWS, len(chosen), _ROWS)):
                last_NP = last_items(arrays, token_N[rows], facts.schema.num_items, causal=facts.causal)
                lift_NV = torch.from_numpy(facts.terms.transitions.log_lift(last_NP, low, high)).to(state_ND.device)
                row_N = torch.from_numpy(rows).to(state_ND.device)
                popularity = _popularity(targets, row_N)
                logits_NV = _logits(model, state_ND, batch, medium, targets, row_N, popularity)
                item_N1 = targets.item_N[row_N, None]
                shifted = (torch.add(logits_NV, lift_NV, alpha=strength) for strength in STRENGTHS)
                found = [_losses(of_NV / by, item_N1) for of_NV in shifted for by in self.temperatures]
                at_N = part_rows(popularity, facts.popularity) if popularity and facts.popularity else None
                left_NV = logits_NV.isneginf().logical_not()
                parts = part_probs(facts.popularity, medium, at_N, left_NV, ALL_PARTS)
                found += [part_NV.gather(1, item_N1)[:, 0] for part_NV in parts]
                self._users[name].append(targets.user[rows].astype(np.int64))
                self._found[name].append(torch.stack(found, 1).double().cpu().numpy().reshape(-1))

    def result(self, world: World) -> dict[str, Mixture]:
        """The mixture for each medium with targets on any rank. All ranks must call it and get the same.

        Shares and temperature are those of the lowest mean loss over users. The strength is the least one whose loss,
        each with its own ones, is at most one standard error above the lowest and more than one below that of strength
        0; errors are of differences within users. Without such a strength it is 0.
        """
        chosen = {}
        for name in self.facts.schema.media:
            users, found = (
                world.concatenated(np.concatenate(parts)) for parts in (self._users[name], self._found[name])
            )
            if len(users):
                table = found.reshape(len(users), -1)
                losses, parts = np.split(table, [len(STRENGTHS) * len(self.temperatures)], 1)
                chosen[name] = _best(users, losses, parts)
        return chosen


def choose_mixtures(
    told: MixtureTrial,
    model: EventTransformer,
    batches: Iterable[Arrays],
    micro_windows: int,
    world: World,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Mixtures] | None:
    """The mixtures of each medium: `told` has its targets, those for hidden times are those of the validation
    `batches`. None if `stop` returned True on any rank before the end. Leaves the model in training mode."""
    hidden = MixtureTrial(told.facts, told.num_users, told=False)
    if not try_hidden_times(model, batches, hidden, micro_windows, world, stop=stop):
        return None
    of_told, of_hidden = told.result(world), hidden.result(world)
    return {name: Mixtures(told=of_told[name], hidden=of_hidden[name]) for name in of_told if name in of_hidden}


def try_hidden_times(
    model: EventTransformer,
    batches: Iterable[Arrays],
    trial: MixtureTrial,
    micro_windows: int,
    world: World,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Adds the targets of the validation `batches` to `trial`, with their times hidden. False if `stop` returned True
    on any rank before the end. Leaves the model in training mode."""
    facts, stopped = trial.facts, False
    model.eval()
    try:
        for shown in itertools.islice(batches, 0, None, trial.every):
            if stopped := stop():
                break
            arrays = with_hidden_times(shown, causal=facts.causal)
            for rows in micro_batches(arrays, micro_windows):
                batch = to_batch(arrays, rows, facts, world.device, split="validation")
                with torch.no_grad(), autocast(world.device):
                    state_ND = model(batch).flatten(0, 1)
                trial.add(model, state_ND, batch, {name: array[rows] for name, array in arrays.items()})
    finally:
        model.train()
    return not world.any(stopped)[0]


def with_hidden_times(arrays: Arrays, *, causal: bool) -> Arrays:
    """`arrays` with the times of all targets hidden, as for a question without a time."""
    if causal:
        none_told = {name: np.zeros_like(arrays[name]) for name in ("told_time", "told_time_known")}
        return {**arrays, **none_told}
    shown = (arrays["weight_item"] == 0) & (arrays["weight_rating"] == 0)
    return {**arrays, "time": arrays["time"] * shown, "time_known": arrays["time_known"] & shown}


def _popularity(targets: Targets, row_N: Tensor) -> PopularityRows | None:
    """What the term of popularity reads for the targets `row_N`."""
    rows = targets.popularity
    if rows is None:
        return None
    of_host = None if rows.row is None else rows.row[row_N.cpu().numpy()]
    return PopularityRows(rows.row_N[row_N], rows.time_N[row_N], of_host)


def _logits(
    model: EventTransformer,
    state_ND: Tensor,
    batch: Batch,
    medium: int,
    targets: Targets,
    row_N: Tensor,
    popularity: PopularityRows | None,
) -> Tensor:
    """(N, V) float32: the softmax's inputs for the targets `row_N`, as in training: -inf for seen items."""
    state = state_ND[targets.token_N[row_N]].float()
    logits_NV = model.watch.logits(state, model.inputs, medium, popularity, batch.features)
    if targets.seen is not None:
        targets.seen.leave_out(logits_NV, row_N, targets.item_N[row_N, None])
    return logits_NV


def _losses(logits_NV: Tensor, item_N1: Tensor) -> Tensor:
    """(N,): -log P of the items in nats."""
    return logits_NV.logsumexp(1) - logits_NV.gather(1, item_N1)[:, 0]


def _spread(token_N: NDArray[np.int64], first_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending rows of the targets at the flat tokens `token_N` that are scored. `first_N` is the first token of each
    token's segment."""
    order = np.argsort(token_N, kind="stable")
    _, segment, sizes = np.unique(first_N[token_N[order]], return_inverse=True, return_counts=True)
    from_end = np.cumsum(sizes)[segment] - 1 - np.arange(len(order))
    return np.sort(order[from_end % -(-sizes[segment] // _MOST_TARGETS) == 0])


def _best(user_N: NDArray[np.int64], losses_NP: NDArray[np.float64], parts_NK: NDArray[np.float64]) -> Mixture:
    """The mixture, from the losses of the model at P = S * C pairs of a strength and a temperature."""
    users, index, sizes = np.unique(user_N, return_inverse=True, return_counts=True)
    weight_N = 1 / sizes[index] / len(users)
    probs = [np.column_stack((np.exp(-loss_N), parts_NK)) for loss_N in losses_NP.T]
    shares = [_fitted(probs_NP, weight_N) for probs_NP in probs]
    mixed = [-np.log(probs_NP @ of) for probs_NP, of in zip(probs, shares, strict=True)]
    warmth_S = (weight_N @ np.stack(mixed, 1)).reshape(len(STRENGTHS), -1).argmin(1)
    pair_S = np.arange(len(STRENGTHS)) * (len(mixed) // len(STRENGTHS)) + warmth_S
    alone_U, *means = (np.bincount(index, loss_N) / sizes for loss_N in (losses_NP[:, 0], *(mixed[p] for p in pair_S)))
    means_US = np.stack(means, 1)
    lowest = int(means_US.mean(0).argmin())
    worse_S, error_S = _mean_and_error(means_US - means_US[:, [lowest]])
    gain_S, gain_error_S = _mean_and_error(means_US[:, :1] - means_US)
    is_clear_S = (gain_S > gain_error_S) & (worse_S <= error_S) & (len(users) > 1)
    chosen = int(is_clear_S.argmax())  # the first; strength 0 if there is none
    gain, error = (float(of[0]) for of in _mean_and_error((alone_U - means_US[:, chosen])[:, None]))
    if gain <= error or len(users) == 1:
        return Mixture(strength=0.0, shares=(0.0,) * parts_NK.shape[1], gain=0.0, error=error)
    return Mixture(
        strength=STRENGTHS[chosen],
        temperature=TEMPERATURES[warmth_S[chosen]],
        shares=tuple(shares[pair_S[chosen]][1:].tolist()),
        gain=gain,
        error=error,
    )


def _fitted(probs_NP: NDArray[np.float64], weight_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shares of the P distributions, which add up to 1, by expectation maximisation. `probs_NP` are those of the
    targets; the weights add up to 1."""
    shares = np.full(probs_NP.shape[1], 0.1 / max(1, probs_NP.shape[1] - 1))
    shares[0] = 1 - shares[1:].sum()
    for _ in range(_SWEEPS):
        of_each_NP = probs_NP * shares
        shares = weight_N @ (of_each_NP / of_each_NP.sum(1, keepdims=True))
    shares[1:][shares[1:] < _LEAST_SHARE] = 0
    shares[0] = max(shares[0], _LEAST_SHARE)  # an item that nobody has watched lately is not impossible
    fitted: NDArray[np.float64] = shares / shares.sum()
    return fitted


def _mean_and_error(values_US: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The means over users, and their standard errors."""
    return values_US.mean(0), values_US.std(0) / max(len(values_US) - 1, 1) ** 0.5

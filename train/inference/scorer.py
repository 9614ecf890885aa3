"""Predictions of a trained model for histories: the next item at a given time, and ratings.

It needs only the folder of the run. Axes: N histories, D width, V items of a medium, K items to rate.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamfeat.errors import DamagedError
from streamfeat.store.manifest import Manifest
from streamfeat.store.tables import ItemTable
from train.config import TrainConfig
from train.devices.device import MOST_CUDA_HEAD, autocast
from train.inference.queries import BatchShape, History, Query, query_batches
from train.model.batch import BatchFacts, evidence_of, moved, to_batch
from train.model.heads import NUM_FACTORS
from train.model.mixture import log_mixture, part_probs, part_rows
from train.model.past_ratings import NUM_KNOWN, log_counts
from train.model.popularity import HIDDEN, TOLD, PopularityFeatures, PopularityRows
from train.model.targets import past_of, segment_bounds
from train.model.transformer import EventTransformer
from train.runs.checkpoint import read_checkpoint
from train.runs.folder import Run, check_checkpoint
from train.runs.record import described, read_record
from train.runs.refreshed import read_refreshed
from train.runs.run_terms import read_terms
from train.runs.standing import Mixture, Mixtures
from train.runs.trained import checkpoint_folder
from train.terms.terms import Terms
from train.terms.transitions import LAST_ITEMS

# Tokens of one forward pass. Without CUDA, attention holds all pairs of a segment: 8 windows of 1024 take about 300 MB.
_CPU_TOKENS = 8192
_GPU_TOKENS = 65_536

_MOST_MIXED = 2**24  # probabilities of a mixture at a time


class Scorer:
    """A model in evaluation mode (float32 without CUDA), with its manifest and item table.

    The model reads the most recent window_len tokens of a history, the predicted event included, as in training.
    Tensors are on `device`.
    """

    def __init__(
        self,
        model: EventTransformer,
        manifest: Manifest,
        config: TrainConfig,
        items: ItemTable,
        checkpoint: Path,
        terms: Terms | None = None,
        mixtures: Mapping[str, Mixtures] | None = None,
    ) -> None:
        """`model` has its weights and is on the device where it runs; `terms` are the tables that it was made with.

        `mixtures` says by medium how transitions and popularity count in P (default: not at all).
        """
        self.manifest, self.config, self.items = manifest, config, items
        self.checkpoint = checkpoint  # the folder of the weights
        self.device = model.inputs.item.weight.device
        self._model = model.eval()
        self._facts = BatchFacts.of(manifest, config, terms).on_device(self.device)
        self.mixtures = dict(mixtures or {})
        head = config.model.width // config.model.heads
        self._for_gpu = self.device.type == "cuda" and head <= MOST_CUDA_HEAD
        window_len = manifest.data_schema.window_len
        if self._for_gpu:
            self._shape = BatchShape(max(1, _GPU_TOKENS // window_len), window_len, fixed=True)
        else:
            self._shape = BatchShape(1, max(_CPU_TOKENS, window_len), fixed=False)

    @classmethod
    def of_run(cls, run: str | Path, *, checkpoint: str = "best", refreshed: bool = False) -> "Scorer":
        """The model of the run folder `run`. The dataset that it was trained on is not needed.

        `checkpoint` is `best` (the latest if the run had no validation), `latest` or the name of a step's folder.
        With `refreshed`, it uses the tables that `refresh` wrote, if there are any, instead of those of training.
        Raises ConfigError if there is no run or no such checkpoint, DamagedError if a file is damaged.
        """
        run = Path(run)
        record = read_record(run)
        manifest, items = described(run, record)
        found = read_checkpoint(checkpoint_folder(run, checkpoint))
        check_checkpoint(Run(run, Path(record.dataset), manifest, record.train, resumed=True), found)
        terms = read_terms(run, found.state.terms)
        if refreshed and terms is not None:
            terms = read_refreshed(run, found.state.terms) or terms
        model = EventTransformer.of(manifest, record.train, items.targets, terms)
        try:
            model.load_state_dict(model.rating.completed(found.weights))
        except RuntimeError as error:
            raise DamagedError(
                f"{found.path}: holds the weights of another model ({error}); restore the run's own checkpoints"
            ) from None
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        best = found.state.standing.best
        mixtures = best.mixtures if best else None
        return cls(model.to(device), manifest, record.train, items, found.path, terms, mixtures)

    @property
    def last_counted(self) -> int:
        """Unix seconds of the last event in the tables that it uses."""
        terms, manifest = self._facts.terms, self.manifest
        if terms is None:
            return manifest.time_last
        return manifest.data_schema.time_origin + terms.popularity.last_time

    @property
    def exclude_seen(self) -> bool:
        """Whether the softmax left out seen items in training."""
        return self._facts.exclude_seen

    def states(self, histories: Sequence[History], times: Sequence[int | None], medium: int | None = None) -> Tensor:
        """(N, D) float32: for each history, the state that predicts the next event at the given time.

        Times are seconds since time_origin; None hides the time. Causal objective: the state after the last event; it
        is the same for all media. Masked objective: the state of a masked event of `medium` after the history.
        """
        if medium is None:
            assert self._facts.causal or len(self._facts.schema.media) == 1, "the masked objective needs a medium"
            medium = 0
        return self._ask([Query(h, t, medium) for h, t in zip(histories, times, strict=True)])

    def log_probs(
        self,
        states: Tensor,
        medium: int,
        histories: Sequence[History],
        times: Sequence[int | None],
        *,
        exclude_seen: bool | None = None,
    ) -> Tensor:
        """(N, V) float32: log P of each item of `medium`; `times` as for `states`.

        With `exclude_seen`, the items of the whole history (planned events do not count) get -inf, and P is over the
        others. With False, P is over all items. None: as in training.
        """
        with torch.no_grad():
            features = self._facts.popularity
            rows = self._popularity_rows(histories, times, features) if features else None
            logits = self._model.watch.logits(
                states, self._model.inputs, medium, rows, features.by_medium if features else ()
            )
            mixtures = self.mixtures.get(self._facts.schema.media[medium])
            seen = self.seen(histories, medium)
            if mixtures is not None and len(times):
                of_each = [mixtures.hidden if time is None else mixtures.told for time in times]
                logits = self._mixed(logits, medium, histories, of_each, rows, seen)
            if not (self.exclude_seen if exclude_seen is None else exclude_seen):
                return logits.log_softmax(-1)
            logits[seen] = -torch.inf
            log_probs = logits.log_softmax(-1)
            log_probs[seen] = -torch.inf  # if all items are seen, log_softmax gave NaN
            return log_probs

    def _mixed(
        self,
        logits_NV: Tensor,
        medium: int,
        histories: Sequence[History],
        of_each: Sequence[Mixture],
        popularity: PopularityRows | None,
        seen: tuple[Tensor, Tensor],
    ) -> Tensor:
        """(N, V): log of each history's mixture, which adds up to 1 over the items that the softmax had in training."""
        self._add_transitions(logits_NV, medium, histories, torch.tensor([of.strength for of in of_each]))
        logits_NV /= torch.tensor([[of.temperature] for of in of_each]).to(self.device)
        shares_NK = torch.tensor([of.shares for of in of_each]).to(self.device)
        used_K = shares_NK.any(0)
        if not used_K.any():
            return logits_NV
        left_NV = torch.ones_like(logits_NV, dtype=torch.bool)
        if self.exclude_seen:
            left_NV[seen] = False
            left_NV |= ~left_NV.any(1, keepdim=True)
        features = self._facts.popularity
        row_N = part_rows(popularity, features) if popularity and features else None
        used, step = used_K.tolist(), max(1, _MOST_MIXED // logits_NV.shape[1])
        for first in range(0, len(logits_NV), step):
            rows = slice(first, first + step)
            parts = part_probs(features, medium, None if row_N is None else row_N[rows], left_NV[rows], used)
            logits_NV[rows] = log_mixture(logits_NV[rows], left_NV[rows], shares_NK[rows][:, used_K], parts)
        return logits_NV

    def _add_transitions(
        self, logits_NV: Tensor, medium: int, histories: Sequence[History], strength_N: Tensor
    ) -> None:
        schema, terms = self._facts.schema, self._facts.terms
        if terms is None or not strength_N.any():
            return
        last_NP = np.full((len(histories), LAST_ITEMS), -1, np.int32)
        for row, history in zip(last_NP, histories, strict=True):
            items = history.item[history.is_seen()][: -LAST_ITEMS - 1 : -1]
            row[: len(items)] = items
        low, high = schema.medium_offsets[medium : medium + 2]
        lift_NV = torch.from_numpy(terms.transitions.log_lift(last_NP, low, high)).to(self.device)
        logits_NV.addcmul_(lift_NV, strength_N.to(self.device)[:, None])

    def _popularity_rows(
        self, histories: Sequence[History], times: Sequence[int | None], features: PopularityFeatures
    ) -> PopularityRows:
        told = np.array([time is not None for time in times], np.bool_)
        known = told | np.array([len(history) > 0 for history in histories], np.bool_)
        last = [int(history.time[-1]) if len(history) else 0 for history in histories]
        when = [before if time is None else time for before, time in zip(last, times, strict=True)]
        row = features.rows_at(np.array(when, np.int64), known)
        hidden = np.where(told, TOLD, HIDDEN)
        row_N, time_N = (torch.from_numpy(array).to(self.device) for array in (row, hidden))
        return PopularityRows(row_N, time_N, None if self._for_gpu else row)

    def seen(self, histories: Sequence[History], medium: int) -> tuple[Tensor, Tensor]:
        """Index into an (N, V) tensor: the seen items of `medium` in each history. Planned events do not count."""
        low, high = self._facts.schema.medium_offsets[medium : medium + 2]
        rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        items = np.concatenate([np.empty(0, np.int64), *(history.item for history in histories)])
        counts = np.concatenate([np.empty(0, np.bool_), *(history.is_seen() for history in histories)])
        counts &= (items >= low) & (items < high)
        index = torch.from_numpy(rows[counts]), torch.from_numpy(items[counts] - low)
        return index[0].to(self.device), index[1].to(self.device)

    def ratings(
        self, histories: Sequence[History], times: Sequence[int | None], states: Tensor, medium: int, items: Tensor
    ) -> Tensor:
        """(N, K) float32: each user's predicted ratings of the `items` (N, K), given as ids inside `medium`.

        The prediction for an item does not depend on the other items. Causal objective: it comes from `states`. Masked
        objective: an event with the item follows the history, in a segment of its own; `states` is not used.
        """
        num_items, low = items.shape[1], self._facts.schema.medium_offsets[medium]
        if self._facts.causal:
            queries = [Query(history, time, medium) for history, time in zip(histories, times, strict=True)]
            known, tastes = self._pasts(queries)
            states, known, tastes = (x.repeat_interleave(num_items, 0) for x in (states, known, tastes))
        else:
            queries = [
                Query(history, time, medium, low + item)
                for history, time, row in zip(histories, times, items.tolist(), strict=True)
                for item in row
            ]
            states, (known, tastes) = self._ask(queries), self._pasts(queries)
        item = items.reshape(-1)
        known[:, 0] = torch.from_numpy(log_counts(self._facts.ratings, item.numpy() + low))
        with torch.no_grad():
            rating: Tensor = self._model.rating(
                states, self._model.inputs, medium, item.to(self.device), known.to(self.device), tastes
            )
        return rating.view(len(histories), num_items)

    @torch.no_grad()
    def _pasts(self, queries: Sequence[Query]) -> tuple[Tensor, Tensor]:
        """(queries, X) on the host and (queries, F): what the rating head gets from the history of each query. The
        caller fills in the count of the asked item."""
        facts, head = self._facts, self._model.rating
        known = [torch.empty(0, NUM_KNOWN)]
        tastes = [torch.empty(0, NUM_FACTORS, device=self.device)]
        for arrays, asked in query_batches(queries, facts.schema, self._shape, causal=facts.causal):
            evidence = evidence_of(arrays, facts, "validation")
            any_item = np.zeros(len(asked), np.int64)
            bounds = segment_bounds(arrays["segment"])
            past = past_of(evidence, any_item, any_item, asked, bounds, causal=facts.causal)
            shown = (arrays["item"], arrays["status"], evidence.residual_BT)
            sums = head.running_sums(*(torch.from_numpy(array).to(self.device) for array in shown))
            known.append(past.known_NX)
            tastes.append(head.tastes(sums, moved(past, self.device)))
        return torch.cat(known), torch.cat(tastes)

    @torch.no_grad()
    def _ask(self, queries: Sequence[Query]) -> Tensor:
        """(queries, D) float32: the state that predicts the event of each query."""
        facts = self._facts
        found = [torch.empty(0, self.config.model.width, device=self.device)]
        for arrays, asked in query_batches(queries, facts.schema, self._shape, causal=facts.causal):
            batch = to_batch(arrays, slice(None), facts, self.device, split="validation", for_gpu=self._for_gpu)
            with autocast(self.device):
                state_ND = self._model(batch).flatten(0, 1)
            found.append(state_ND.index_select(0, torch.from_numpy(asked).to(self.device)).float())
        return torch.cat(found)

"""A trained model asked about histories: what comes next at a time, and which rating a user would give.

It needs the folder of its run and nothing else. Axes: N histories, D width, V items of a medium, K items asked for.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamfeat.errors import ConfigError, DamagedError
from streamfeat.store.files import read_below, refuse_link
from streamfeat.store.layout import ITEMS, MANIFEST
from streamfeat.store.manifest import Manifest, load_manifest
from streamfeat.store.tables import ItemTable, check_table, read_items
from train.config import TrainConfig
from train.devices.device import MOST_CUDA_HEAD, autocast
from train.inference.queries import BatchShape, History, Query, query_batches
from train.model.batch import BatchFacts, to_batch
from train.model.transformer import EventTransformer
from train.runs.checkpoint import BEST, CHECKPOINTS, LATEST, read_checkpoint
from train.runs.folder import Run, check_checkpoint
from train.runs.record import RUN_DATASET, read_record

_STEP = re.compile(r"step-\d{8,}")
_MOST_POINTER_BYTES = 4096  # of `best` and `latest`

# Tokens of one forward pass. Off CUDA attention holds every pair of a segment: 8 windows of 1024 take about 300 MB.
_CPU_TOKENS = 8192
_GPU_TOKENS = 65_536


class Scorer:
    """A model in evaluation, float32 off CUDA, and the tables that say what its numbers mean.

    Of a history the model reads the most recent window_len tokens, the asked event counted, as in training.
    Tensors lie on `device`.
    """

    def __init__(
        self, model: EventTransformer, manifest: Manifest, config: TrainConfig, items: ItemTable, checkpoint: Path
    ) -> None:
        """`model` with its weights, on the device where it is to run."""
        self.manifest, self.config, self.items = manifest, config, items
        self.checkpoint = checkpoint  # the folder of the weights
        self.device = model.inputs.item.weight.device
        self._model = model.eval()
        self._facts = BatchFacts.of(manifest, config)
        head = config.model.width // config.model.heads
        self._for_gpu = self.device.type == "cuda" and head <= MOST_CUDA_HEAD
        window_len = manifest.data_schema.window_len
        if self._for_gpu:
            self._shape = BatchShape(max(1, _GPU_TOKENS // window_len), window_len, fixed=True)
        else:
            self._shape = BatchShape(1, max(_CPU_TOKENS, window_len), fixed=False)

    @classmethod
    def of_run(cls, run: str | Path, *, checkpoint: str = "best") -> "Scorer":
        """The model of the run folder `run`; the dataset that it was trained on may be gone.

        `checkpoint` is `best` (the latest where nothing was validated), `latest` or the name of a step's folder.
        Raises ConfigError where there is no run or no such checkpoint, DamagedError where a file is not as it was.
        """
        run = Path(run)
        record = read_record(run)
        manifest, items = _described(run / RUN_DATASET, record.items_sha256)
        if manifest.fingerprint != record.fingerprint or len(items.raw_id) != manifest.num_items:
            raise DamagedError(
                f"{run / RUN_DATASET}: is of another dataset than {run}/config.json; restore the run's own files"
            )
        found = read_checkpoint(_checkpoint_folder(run, checkpoint))
        check_checkpoint(Run(run, Path(record.dataset), manifest, record.train, resumed=True), found)
        model = EventTransformer.of(manifest, record.train, items.targets)
        try:
            model.load_state_dict(found.weights)
        except RuntimeError as error:
            raise DamagedError(f"{found.path}: holds the weights of another model ({error})") from None
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model.to(device), manifest, record.train, items, found.path)

    @property
    def exclude_seen(self) -> bool:
        """Whether the model was trained with seen items left out of its softmax."""
        return self._facts.exclude_seen

    def states(self, histories: Sequence[History], times: Sequence[int | None], medium: int | None = None) -> Tensor:
        """(N, D) float32: the state that says what comes next in each history at that time.

        Times are seconds since time_origin; None hides the time. Causal: the state after the last event, of any
        medium. Masked: that of a masked event of `medium` which follows the history.
        """
        if medium is None:
            assert self._facts.causal or len(self._facts.schema.media) == 1, "masked: which medium is asked for?"
            medium = 0
        return self._ask([Query(h, t, medium) for h, t in zip(histories, times, strict=True)])

    def log_probs(
        self, states: Tensor, medium: int, histories: Sequence[History], *, exclude_seen: bool | None = None
    ) -> Tensor:
        """(N, V) float32: log P of each item of `medium`, over all of them, or (`exclude_seen`) over those that no
        event of the whole history, planned ones aside, is about; the others have -inf. None: as it was trained.
        """
        with torch.no_grad():
            logits = self._model.watch.logits(states, self._model.inputs, medium)
            if not (self.exclude_seen if exclude_seen is None else exclude_seen):
                return logits.log_softmax(-1)
            seen = self.seen(histories, medium)
            logits[seen] = -torch.inf
            log_probs = logits.log_softmax(-1)
            log_probs[seen] = -torch.inf  # where nothing is left, too
            return log_probs

    def seen(self, histories: Sequence[History], medium: int) -> tuple[Tensor, Tensor]:
        """Index of an (N, V) tensor: the items of `medium` that not planned events of each history are about."""
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
        """(N, K) float32: the rating that each user would give each of the `items` (N, K), ids inside `medium`.

        The item is in view and blind to the others. Causal: from the `states`. Masked: an event with the item
        follows the history, one for each item and in a segment of its own; `states` says nothing then.
        """
        num_items = items.shape[1]
        if self._facts.causal:
            states = states.repeat_interleave(num_items, 0)
        else:
            low = self._facts.schema.medium_offsets[medium]
            states = self._ask([
                Query(history, time, medium, low + item)
                for history, time, row in zip(histories, times, items.tolist(), strict=True)
                for item in row
            ])  # fmt: skip
        with torch.no_grad():
            rating: Tensor = self._model.rating(states, self._model.inputs, medium, items.reshape(-1).to(self.device))
        return rating.view(len(histories), num_items)

    @torch.no_grad()
    def _ask(self, queries: Sequence[Query]) -> Tensor:
        """(queries, D) float32: the state of each."""
        facts = self._facts
        found = [torch.empty(0, self.config.model.width, device=self.device)]
        for arrays, asked in query_batches(queries, facts.schema, self._shape, causal=facts.causal):
            batch = to_batch(arrays, slice(None), facts, self.device, split="validation", for_gpu=self._for_gpu)
            with autocast(self.device):
                state_ND = self._model(batch).flatten(0, 1)
            found.append(state_ND.index_select(0, torch.from_numpy(asked).to(self.device)).float())
        return torch.cat(found)


def _described(dataset: Path, items_sha256: str) -> tuple[Manifest, ItemTable]:
    """What a run keeps of its dataset."""
    refuse_link(dataset)
    try:
        manifest = load_manifest(dataset)
        if items_sha256:
            check_table(dataset, ITEMS, {items_sha256}, "it is a run's own copy")
        return manifest, read_items(dataset)
    except (ConfigError, DamagedError) as error:
        found = str(error) if isinstance(error, DamagedError) else f"{dataset}: {MANIFEST} is missing"
        raise DamagedError(f"{found}; restore the run's own files, or let `train --resume` write them again") from None


def _checkpoint_folder(run: Path, name: str) -> Path:
    if _STEP.fullmatch(name):
        folder = run / CHECKPOINTS / name
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such checkpoint; give one that is there, {BEST} or {LATEST}")
        return folder
    if name not in (BEST, LATEST):
        raise ConfigError(f"checkpoint {name!r}: is neither {BEST}, {LATEST} nor a folder such as step-00000500")
    for pointer in (BEST, LATEST) if name == BEST else (LATEST,):
        try:
            named = read_below(run, pointer, _MOST_POINTER_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        parent, _, step = named.strip().rpartition("/")
        if parent != CHECKPOINTS or not _STEP.fullmatch(step):
            raise DamagedError(f"{run / pointer}: names no checkpoint; write {CHECKPOINTS}/step-… into it")
        return run / CHECKPOINTS / step
    raise ConfigError(f"{run}: has no checkpoint yet; let the run save one, then ask again")

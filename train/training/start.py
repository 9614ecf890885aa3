"""The first weights of a run that starts from another one, the same on every rank."""

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from streamfeat.errors import ConfigError, DamagedError, FormatVersionError
from streamfeat.store.tables import read_items
from train.devices.ranks import World
from train.model.carry import Numbering, carried_weights
from train.runs.checkpoint import CHECKPOINT_VERSION, checkpoint_path, read_checkpoint
from train.runs.folder import Run, check_checkpoint
from train.runs.record import Origin, described, read_record
from train.runs.trained import weights_sha256
from train.training.progress import Carried
from train.training.update import Updater


def carry_weights(run: Run, world: World, updater: Updater) -> Carried | None:
    """Loads the weights of the run that this one starts from into the model and its average. None if the weights are
    drawn. A run with a checkpoint does not need it. All ranks must call it; rank 0 reads.

    Raises ConfigError if that run does not exist any more, has other weights now, or shares no item with the dataset;
    FormatVersionError if an earlier version trained it, DamagedError if it is damaged.
    """
    if run.origin is None:
        return None
    origin, content = run.origin, list[bytes]()

    def made() -> dict[str, Any]:
        weights, carried = _mapped(run, origin, updater)
        content.append(safetensors.torch.save(weights))
        return carried.model_dump(mode="json")

    carried = Carried.model_validate(world.from_first(made))
    weights = safetensors.torch.load(world.bytes_from_first(lambda: content[0]))
    updater.model.load_state_dict(weights)
    if updater.average_model:
        updater.average_model.load_state_dict(weights)
    return carried


def _mapped(run: Run, origin: Origin, updater: Updater) -> tuple[dict[str, Tensor], Carried]:
    old = Path(origin.run)
    try:
        record = read_record(old)
        manifest, items = described(old, record)
        folder = checkpoint_path(old, origin.step)
        same = record.fingerprint == origin.fingerprint and weights_sha256(folder) == origin.weights_sha256
        checkpoint = read_checkpoint(folder) if same else None
    except (ConfigError, DamagedError) as error:
        if not run.resumed:
            raise
        raise ConfigError(
            f"{run.path}: was killed before its first checkpoint, and needs the run that it starts from once more: "
            f"{error}; or start anew with --overwrite"
        ) from None
    if checkpoint is None:
        raise ConfigError(
            f"{old}: its checkpoint of step {origin.step:,} has other weights than when {run.path} began; start anew "
            "with --overwrite"
        )
    check_checkpoint(Run(old, Path(record.dataset), manifest, record.train, resumed=True), checkpoint)
    if checkpoint.state.format_version < CHECKPOINT_VERSION:
        raise FormatVersionError(
            f"{folder}: was saved by an older version of streamfeat, whose model had other parts; train without --from"
        )
    numbering = Numbering.of(manifest.data_schema, items, run.manifest.data_schema, read_items(run.dataset))
    if not (numbering.item_V >= 0).any():
        raise ConfigError(
            f"{run.dataset}: none of its {run.manifest.num_items:,} items is known to {old} (by medium and raw id), so "
            "there is nothing to carry; train without --from"
        )
    try:
        weights = carried_weights(checkpoint.weights, updater.model, numbering)
    except ValueError as error:
        raise FormatVersionError(
            f"{folder}: was saved by another version of streamfeat, whose model had other parts ({error}); train "
            "without --from"
        ) from None
    return weights, Carried(
        run=str(old),
        step=origin.step,
        media=tuple(numbering.counts()),
        figures=checkpoint.state.standing.best,
        may_know_users=run.manifest.config.split_rule.kind == "users"
        and record.fingerprint != run.manifest.fingerprint,
    )

"""Checkpoints: everything a run needs to go on, whole or not there at all, checked when it is read.

`RUN/checkpoints/step-00000100/` holds safetensors and JSON only, nothing that runs code when it is read:

- `model.safetensors`: weights by parameter name
- `optimizer.safetensors`: AdamW's state, `<parameter name>.<exp_avg, exp_avg_sq or step>`
- `state.json`: step, position in the data, configuration, versions
- `manifest.json`: size and SHA-256 of each, written last

The folder is written under a temporary name, made durable and renamed; `RUN/latest` names it afterwards, and
`RUN/best` the one whose validation was best.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor, nn

from streamfeat.errors import DamagedError, storage_errors
from streamfeat.records import Frozen, read_back
from streamfeat.store.files import (
    TEMPORARY,
    check_link,
    open_below,
    refuse_link,
    remove,
    remove_ours,
    rename_durably,
    sweep_temporaries,
    temporary_name,
)
from streamfeat.store.receipts import FileRecord
from streamfeat.store.writer import write_whole
from streamfeat.stream.stream import StreamState
from train.config import TrainConfig
from train.runs.optimizer_state import optimizer_tensors, restore_optimizer
from train.runs.standing import Standing

CHECKPOINTS = "checkpoints"
LATEST = "latest"
BEST = "best"
CHECKPOINT_VERSION = 1

_REMEDY = "restore it, or take another checkpoint"
_NAME = re.compile(r"step-(\d{8,})")
_MODEL, _OPTIMIZER, _STATE, _MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"


class TrainState(Frozen):
    """`state.json`: where a run stands, beside weights and optimizer."""

    known_format = ("format_version", CHECKPOINT_VERSION)

    format_version: int = CHECKPOINT_VERSION
    step: int = Field(ge=0, le=2**48)  # optimizer updates done, those not applied counted too
    bad_steps: int = Field(ge=0)  # the last so many in a row were not finite
    standing: Standing = Standing()  # of validation
    stream: StreamState  # the position in the data
    config: TrainConfig
    fingerprint: str  # of the dataset
    versions: dict[str, str]


class _Manifest(Frozen):
    files: tuple[FileRecord, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole. Tensors lie on the CPU."""

    path: Path
    state: TrainState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Bring `model` and its `optimizer` to this state, on their own devices.

        Raises DamagedError where the tensors are those of another model.
        """
        try:
            model.load_state_dict(self.weights)
            restore_optimizer(model, optimizer, self.optimizer)
        except (RuntimeError, ValueError) as error:
            raise DamagedError(f"{self.path}: holds the weights of another model ({error}); {_REMEDY}") from None


class Checkpoints:
    """The checkpoints of one run: the last `keep`, and what was the best when each of them was saved.

    Only the process that holds the run's lock may make one of these. Raises FormatVersionError where a newer version
    was killed while it saved, StorageError where their folder is a link that leads nowhere.
    """

    def __init__(self, run: Path, keep: int = 2) -> None:
        self.run, self.keep = run, keep
        self.folder = run / CHECKPOINTS
        # By step whose files this process wrote, or read and found whole: the best step of its standing.
        self._good: dict[int, int | None] = {}
        check_link(self.folder)
        with storage_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            sweep_temporaries(run)
            for entry in self.folder.iterdir():
                if TEMPORARY.fullmatch(entry.name):
                    self._sweep(entry)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending, whole or damaged; a file in place of its folder is damage too."""
        with storage_errors(self.folder):
            names = [_NAME.fullmatch(entry.name) for entry in self.folder.iterdir()]
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return checkpoint_path(self.run, step)

    def save(self, state: TrainState, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
        """Write a checkpoint and forget those that are neither among the last nor the best of one; returns its folder.

        Raises StorageError where the disk refuses, DamagedError where a folder has the name of one of our files; what
        was saved before stays.
        """
        final = self.path(state.step)
        temporary = self._temporary(final.name)
        with storage_errors(final):
            temporary.mkdir()
            try:
                _write(temporary, state, model, optimizer)
                self._publish(temporary, final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        write_whole(self.run, LATEST, f"{CHECKPOINTS}/{final.name}\n".encode())
        self._good[state.step] = self._marked_best(state.standing)
        self._forget_old()
        return final

    def load_newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is whole, None where there is none at all; and what was wrong with newer ones, and
        with the one that was the best by then.

        Raises DamagedError where there are checkpoints and none is whole; StorageError where one cannot be read: it
        may be whole, and to go on without it would silently cost its steps.
        """
        problems = []
        for step in reversed(self.steps()):
            try:
                checkpoint = read_checkpoint(self.path(step))
            except DamagedError as error:
                problems.append(str(error))
                continue
            best = self._good[step] = _best_step(checkpoint.state.standing)
            return checkpoint, problems + self._problems_of_best(best, step)
        if problems:
            raise DamagedError(
                "\n".join(problems)
                + f"\n{self.run}: no checkpoint is whole; restore one, or start anew with --overwrite"
            )
        return None, problems

    def _publish(self, temporary: Path, final: Path) -> None:
        if os.path.lexists(final):  # a damaged one, or the same step before its validation
            aside = self._temporary(final.name)
            final.rename(aside)
            rename_durably(temporary, final)
            remove(aside)
        else:
            rename_durably(temporary, final)

    def _sweep(self, temporary: Path) -> None:
        """Remove what a killed save left; one that is whole, where its step has no other, becomes what it was to be.

        A step that is saved again stands aside for a moment: a kill then must not cost both. What was to be forgotten
        has another name.
        """
        name = _NAME.match(temporary.name.removeprefix("."))
        if name is not None and not (self.folder / name[0]).exists():
            with contextlib.suppress(DamagedError):
                read_checkpoint(temporary)
                rename_durably(temporary, self.folder / name[0])
                return
        remove(temporary)

    def _marked_best(self, standing: Standing) -> int | None:
        """Let `RUN/best` name the best checkpoint; returns its step, None where nothing was validated."""
        best = _best_step(standing)
        if best is not None:
            write_whole(self.run, BEST, f"{CHECKPOINTS}/{self.path(best).name}\n".encode())
        return best

    def _problems_of_best(self, best: int | None, newest: int) -> list[str]:
        """What is wrong with the checkpoint that was the best by the `newest`; a run goes on without it."""
        try:
            if best is not None and best != newest:
                read_checkpoint(self.path(best))
        except DamagedError as error:
            return [f"{error}; it is the best so far: until there is a better one, evaluate with --checkpoint latest"]
        return []

    def _forget_old(self) -> None:
        kept = sorted(self._good)[-self.keep :]
        if len(kept) < self.keep:
            return
        # The best of each: should the newest be damaged, the standing of the one before names another.
        spared = {*kept, *(self._good[step] for step in kept)}
        with storage_errors(self.folder):
            for step in self.steps():
                if step < kept[-1] and step not in spared:
                    # Renamed first: a kill in between leaves no folder that looks like a damaged checkpoint.
                    aside = self._temporary(f"old-{self.path(step).name}")
                    self.path(step).rename(aside)
                    remove(aside)
        self._good = {step: self._good[step] for step in kept}

    def _temporary(self, name: str) -> Path:
        return self.folder / temporary_name(name)


def checkpoint_path(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run / CHECKPOINTS / f"step-{step:08d}"


def remove_checkpoints(run: Path) -> None:
    """Remove the checkpoints of a run, as `remove_ours` does. Raises OSError."""
    remove_ours(run / CHECKPOINTS, _NAME)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read the checkpoint in the folder `path`, every byte checked against its SHA-256.

    Raises DamagedError where a file is missing or altered or a link leads on, FormatVersionError for a newer format.
    """
    path = Path(path)
    refuse_link(path)
    check_link(path.parent)
    content = _read_verified(path)
    state = read_back(TrainState, content[_STATE], path / _STATE, _REMEDY)
    try:
        return Checkpoint(
            path=path,
            state=state,
            weights=safetensors.torch.load(content[_MODEL]),
            optimizer=safetensors.torch.load(content[_OPTIMIZER]),
        )
    # Of a sound header with a dtype that torch lacks, safetensors says KeyError or AttributeError.
    except (safetensors.SafetensorError, KeyError, AttributeError, ValueError, RuntimeError) as error:
        raise DamagedError(f"{path}: {error}; {_REMEDY}") from None


def _best_step(standing: Standing) -> int | None:
    return standing.best.step if standing.best else None


def _write(folder: Path, state: TrainState, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    files = (
        write_whole(folder, _MODEL, _tensor_bytes(model.state_dict())),
        write_whole(folder, _OPTIMIZER, _tensor_bytes(optimizer_tensors(model, optimizer))),
        write_whole(folder, _STATE, state.model_dump_json(indent=1).encode()),
    )
    write_whole(folder, _MANIFEST, _Manifest(files=files).model_dump_json(indent=1).encode())


def _read_verified(path: Path) -> dict[str, bytes]:
    """File name → content, each as the manifest says."""
    with storage_errors(path):
        manifest = read_back(_Manifest, _read(path, _MANIFEST), path / _MANIFEST, _REMEDY)
        content = {name: _read(path, name) for name in (_MODEL, _OPTIMIZER, _STATE)}
    expected = {record.path: (record.size, record.sha256) for record in manifest.files}
    for name, data in content.items():
        if expected.get(name) != (len(data), hashlib.sha256(data).hexdigest()):
            raise DamagedError(
                f"{path / name}: is not as it was written ({len(data):,} bytes, its SHA-256 differs); {_REMEDY}"
            )
    return content


def _read(folder: Path, name: str) -> bytes:
    """The bytes of a file of a checkpoint, no link followed."""
    try:
        with os.fdopen(open_below(folder, name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DamagedError(f"{folder / name}: is missing; {_REMEDY}") from None


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})

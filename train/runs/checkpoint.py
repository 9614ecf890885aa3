"""Checkpoints: everything that a run needs to continue. A checkpoint is complete or absent, and is checked when read.

`RUN/checkpoints/step-00000100/` holds only safetensors and JSON, so reading it cannot run code:

- `model.safetensors`: the weights that are validated and asked, by parameter name
- `trained.safetensors`: where these are an average over the steps, the weights that the next update changes
- `optimizer.safetensors`: the optimizer's state, `<parameter name>.<entry>`
- `state.json`: step, position in the data, configuration, versions
- `manifest.json`: size and SHA-256 of each, written last

The folder is written under a temporary name, made durable and renamed. Then `RUN/latest` gets its name. `RUN/best`
holds the name of the checkpoint with the best validation.
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
CHECKPOINT_VERSION = 2

_REMEDY = "restore it, or take another checkpoint"
_NAME = re.compile(r"step-(\d{8,})")
MODEL, STATE, _MANIFEST = "model.safetensors", "state.json", "manifest.json"
_TRAINED, _OPTIMIZER = "trained.safetensors", "optimizer.safetensors"


class TrainState(Frozen):
    """`state.json`: the state of a run except weights and optimizer."""

    known_format = ("format_version", CHECKPOINT_VERSION)

    format_version: int = CHECKPOINT_VERSION
    step: int = Field(ge=0, le=2**48)  # optimizer steps done, including those whose update was not applied
    bad_steps: int = Field(ge=0)  # so many of the last steps in a row were not finite
    standing: Standing = Standing()  # of validation
    stream: StreamState  # position in the data
    config: TrainConfig
    fingerprint: str  # of the dataset
    terms: str = ""  # SHA-256 of the tables of training events; "" in a run of an earlier version, without them
    versions: dict[str, str]


class _Manifest(Frozen):
    files: tuple[FileRecord, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and is complete. Its tensors are on the CPU."""

    path: Path
    state: TrainState
    weights: dict[str, Tensor]
    trained: dict[str, Tensor]  # those that the next update changes; the same where no average is kept
    optimizer: dict[str, Tensor]

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None) -> None:
        """Loads this state into `model`, `optimizer` and the `average` of the weights; they stay on their devices.

        Raises DamagedError if the tensors belong to another model.
        """
        try:
            model.load_state_dict(self.trained)
            restore_optimizer(model, optimizer, self.optimizer)
            if average is not None:
                average.load_state_dict(self.weights)
        except (RuntimeError, ValueError) as error:
            raise DamagedError(f"{self.path}: holds the weights of another model ({error}); {_REMEDY}") from None


class Checkpoints:
    """The checkpoints of one run: the last `keep`, and for each of them the one that was the best when it was saved.

    Only the process that holds the run's lock may create this object. Raises FormatVersionError if a newer version was
    killed while it saved, StorageError if the folder of checkpoints is a broken link.
    """

    def __init__(self, run: Path, keep: int = 2) -> None:
        self.run, self.keep = run, keep
        self.folder = run / CHECKPOINTS
        # Step → best step of its standing, for the checkpoints that this process wrote, or read and found complete.
        self._good: dict[int, int | None] = {}
        check_link(self.folder)
        with storage_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            sweep_temporaries(run)
            for entry in self.folder.iterdir():
                if TEMPORARY.fullmatch(entry.name):
                    self._sweep(entry)

    def steps(self) -> list[int]:
        """As `saved_steps`."""
        return saved_steps(self.run)

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return checkpoint_path(self.run, step)

    def save(
        self,
        state: TrainState,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: nn.Module | None = None,
    ) -> Path:
        """Writes a checkpoint and removes old ones: all but the last `keep` and the best of each. Returns its folder.

        `average`: the average of the model's weights, if there is one; it is saved as the model.

        Raises StorageError if it cannot be written, DamagedError if a folder has the name of one of our files. Earlier
        checkpoints stay then.
        """
        final = self.path(state.step)
        temporary = self._temporary(final.name)
        with storage_errors(final):
            temporary.mkdir()
            try:
                _write(temporary, state, model, optimizer, average)
                self._publish(temporary, final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        write_whole(self.run, LATEST, f"{CHECKPOINTS}/{final.name}\n".encode())
        self._good[state.step] = self._marked_best(state.standing)
        self._forget_old()
        return final

    def load_newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest complete checkpoint (None if there are no checkpoints), and a list of problems: of newer
        checkpoints, and of the one that was the best at that step.

        Raises DamagedError if there are checkpoints but none is complete. Raises StorageError if one cannot be read: it
        may be complete, and continuing from an older one would silently lose its steps.
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
                + f"\n{self.run}: no checkpoint is complete; restore one, or start anew with --overwrite"
            )
        return None, problems

    def _publish(self, temporary: Path, final: Path) -> None:
        if os.path.lexists(final):  # a damaged checkpoint, or the same step saved before its validation
            aside = self._temporary(final.name)
            final.rename(aside)
            rename_durably(temporary, final)
            remove(aside)
        else:
            rename_durably(temporary, final)

    def _sweep(self, temporary: Path) -> None:
        """Removes what a killed save left. A complete checkpoint gets its final name if its step has no other.

        When a step is saved again, its old checkpoint has a temporary name for a moment. Without this rule a kill at
        that moment would lose both. Checkpoints on their way to be removed have another name.
        """
        name = _NAME.match(temporary.name.removeprefix("."))
        if name is not None and not (self.folder / name[0]).exists():
            with contextlib.suppress(DamagedError):
                read_checkpoint(temporary)
                rename_durably(temporary, self.folder / name[0])
                return
        remove(temporary)

    def _marked_best(self, standing: Standing) -> int | None:
        """Writes the name of the best checkpoint into `RUN/best`. Returns its step; None without a validation."""
        best = _best_step(standing)
        if best is not None:
            write_whole(self.run, BEST, f"{CHECKPOINTS}/{self.path(best).name}\n".encode())
        return best

    def _problems_of_best(self, best: int | None, newest: int) -> list[str]:
        """The problem of the checkpoint that was the best at step `newest`, if any. A run continues without it."""
        try:
            if best is not None and best != newest:
                read_checkpoint(self.path(best))
        except DamagedError as error:
            return [f"{error}; it was the best so far: until there is a better one, evaluate with --checkpoint latest"]
        return []

    def _forget_old(self) -> None:
        kept = sorted(self._good)[-self.keep :]
        if len(kept) < self.keep:
            return
        # Keep the best of each: if the newest checkpoint is damaged, the one before may have another best.
        spared = {*kept, *(self._good[step] for step in kept)}
        with storage_errors(self.folder):
            for step in self.steps():
                if step < kept[-1] and step not in spared:
                    # Rename first: otherwise a kill could leave a folder that looks like a damaged checkpoint.
                    aside = self._temporary(f"old-{self.path(step).name}")
                    self.path(step).rename(aside)
                    remove(aside)
        self._good = {step: self._good[step] for step in kept}

    def _temporary(self, name: str) -> Path:
        return self.folder / temporary_name(name)


def checkpoint_path(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run / CHECKPOINTS / f"step-{step:08d}"


def saved_steps(run: Path) -> list[int]:
    """Steps that have a checkpoint, complete or damaged, ascending. A file instead of a folder is damaged, too."""
    folder = run / CHECKPOINTS
    with storage_errors(folder):
        names = [_NAME.fullmatch(entry.name) for entry in folder.iterdir()] if folder.exists() else []
    return sorted(int(name[1]) for name in names if name)


def remove_checkpoints(run: Path) -> None:
    """Removes the checkpoints of a run, with `remove_ours`. Raises OSError."""
    remove_ours(run / CHECKPOINTS, _NAME)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads the checkpoint in the folder `path` and checks every file against its SHA-256.

    Raises DamagedError if a file is missing, altered or a link, FormatVersionError for a newer format.
    """
    path = Path(path)
    refuse_link(path)
    check_link(path.parent)
    content = _read_verified(path)
    state = read_back(TrainState, content[STATE], path / STATE, _REMEDY)
    try:
        weights = safetensors.torch.load(content[MODEL])
        return Checkpoint(
            path=path,
            state=state,
            weights=weights,
            trained=safetensors.torch.load(content[_TRAINED]) if _TRAINED in content else weights,
            optimizer=safetensors.torch.load(content[_OPTIMIZER]),
        )
    # For a dtype that torch does not have, safetensors raises KeyError or AttributeError.
    except (safetensors.SafetensorError, KeyError, AttributeError, ValueError, RuntimeError) as error:
        raise DamagedError(f"{path}: {error}; {_REMEDY}") from None


def _best_step(standing: Standing) -> int | None:
    return standing.best.step if standing.best else None


def _write(
    folder: Path, state: TrainState, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None
) -> None:
    files = [
        write_whole(folder, MODEL, _tensor_bytes((average or model).state_dict())),
        write_whole(folder, _OPTIMIZER, _tensor_bytes(optimizer_tensors(model, optimizer))),
        write_whole(folder, STATE, state.model_dump_json(indent=1).encode()),
    ]
    if average is not None:
        files.append(write_whole(folder, _TRAINED, _tensor_bytes(model.state_dict())))
    write_whole(folder, _MANIFEST, _Manifest(files=tuple(files)).model_dump_json(indent=1).encode())


def _read_verified(path: Path) -> dict[str, bytes]:
    """File name → content. Raises DamagedError if a file differs from the manifest."""
    with storage_errors(path):
        manifest = read_back(_Manifest, _read(path, _MANIFEST), path / _MANIFEST, _REMEDY)
        expected = {record.path: (record.size, record.sha256) for record in manifest.files}
        names = (MODEL, _OPTIMIZER, STATE, *([_TRAINED] if _TRAINED in expected else []))
        content = {name: _read(path, name) for name in names}
    for name, data in content.items():
        if expected.get(name) != (len(data), hashlib.sha256(data).hexdigest()):
            raise DamagedError(
                f"{path / name}: is not as it was written ({len(data):,} bytes; its SHA-256 differs); {_REMEDY}"
            )
    return content


def _read(folder: Path, name: str) -> bytes:
    """The bytes of a file of a checkpoint. Does not follow links."""
    try:
        with os.fdopen(open_below(folder, name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DamagedError(f"{folder / name}: is missing; {_REMEDY}") from None


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})

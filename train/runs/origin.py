"""`train --from RUN`: the run whose weights a new one starts with."""

from pathlib import Path

from streamfeat.errors import ConfigError
from streamfeat.records import is_recordable
from streamfeat.store.manifest import Manifest
from train.config import TrainConfig
from train.runs.checkpoint import BEST
from train.runs.record import Origin, described, read_record
from train.runs.trained import checkpoint_folder, weights_sha256


def origin_of(old: Path, run: Path, manifest: Manifest) -> tuple[Origin, TrainConfig]:
    """The run in the folder `old` as the origin of the new one in `run` on the dataset of `manifest`; and its options.

    Raises ConfigError if there is no run, if it is the new one itself, or if its weights cannot fit the dataset.
    """
    if old.resolve() == run.resolve():
        raise ConfigError(
            f"--from {old}: is the folder of the new run itself; give the new one another folder, or --resume this one"
        )
    if not is_recordable(str(old.resolve())):
        raise ConfigError(f"--from {str(old)!r}: a path that is not UTF-8 cannot be recorded; rename the folder")
    record = read_record(old)
    old_manifest, _ = described(old, record)
    before, now = old_manifest.data_schema.window_len, manifest.data_schema.window_len
    if (record.train.objective, record.train.mask_policy) == ("masked", "seed") and before != now:
        raise ConfigError(
            f"--from {old}: its windows have {before} tokens, those of the dataset {now}; the weights of --mask-policy "
            f"seed know a token by its place in a window, so build the dataset with --window-len {before}"
        )
    checkpoint = checkpoint_folder(old, BEST)
    origin = Origin(
        run=str(old.resolve()),
        fingerprint=record.fingerprint,
        step=int(checkpoint.name.removeprefix("step-")),
        weights_sha256=weights_sha256(checkpoint),
    )
    return origin, record.train


def check_same_origin(run: Path, origin: Origin | None, given: Path) -> None:
    """Raises ConfigError if `--from given` is typed to resume the run in the folder `run`, which started elsewhere."""
    if origin is None or origin.run != str(given.resolve()):
        started = f"started from {origin.run}" if origin else "did not start from another run"
        raise ConfigError(
            f"{run}: the run {started}, not from {given}; leave out --from to continue it, or start anew (--overwrite, "
            "or another folder)"
        )

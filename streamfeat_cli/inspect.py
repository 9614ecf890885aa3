"""The command `inspect`: prints facts about a dataset, a run or a window."""

import glob
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from streamfeat.config import AskedConfig, Objective, ReadingConfig, StreamConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.plain_text import aligned, date_text
from streamfeat.store.files import check_link
from streamfeat_cli.console import Json, harmless, print_summary, show
from streamfeat_cli.declaration import Next, command
from streamfeat_cli.inspect_events import inspect_events
from streamfeat_cli.options import Options, spelled

if TYPE_CHECKING:
    from streamfeat.store.manifest import Manifest


class InspectOptions(AskedConfig, ReadingConfig):
    """Which window is shown, and for which objective; how event files are read."""

    window: int | None = Field(default=None, ge=0, description="Show the tokens of this window of the dataset.")
    objective: Objective = Field(default="causal", description="Which targets and masks to show.")
    epoch: int = Field(default=0, ge=0, le=2**31, description="Which masks and packing to show.")


@command(
    "inspect",
    Options(InspectOptions),
    examples=(
        "inspect ratings.csv",
        "inspect data --window 0 --objective masked",
        "inspect run --json",
    ),
)
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Event files, a dataset, or the folder of a run.")],
    options: InspectOptions,
    as_json: Json = False,
) -> Next:
    """How event files would be read; facts about a dataset or a run; with --window, a window's tokens with raw ids."""
    from streamfeat.errors import storage_errors
    from streamfeat.store.layout import MANIFEST
    from streamfeat.store.manifest import load_manifest

    with storage_errors(path):
        is_run, is_dataset = (path / "config.json").exists(), (path / MANIFEST).exists()
    if is_run:
        if options.window is not None:
            raise ConfigError(f"{path}: is a run; --window belongs to a dataset")
        _inspect_run(path, as_json)
        return "evaluate", path
    said = options.model_fields_set & set(ReadingConfig.model_fields)
    if not is_dataset:
        if path.is_file() or glob.has_magic(str(path)):
            if options.window is not None:
                raise ConfigError(f"{path}: is a file; --window belongs to a dataset")
            inspect_events(str(path), options, as_json)
            return "build-shards", path, "DATA"
        wrong = f"{path}: {_what_lies_there(path)}; give event files, or the folder of a dataset or of a run"
        if path.is_dir() and options.window is None and not _is_unfinished(path):
            try:
                inspect_events(str(path), options, as_json)
            except (ConfigError, DataError) as error:
                raise ConfigError(f"{wrong}; as event files it cannot be read, either: {error}") from None
            return "build-shards", path, "DATA"
        raise ConfigError(wrong)
    if said:
        raise ConfigError(f"{path}: is a dataset; {spelled(min(said))} belongs to event files")
    manifest = load_manifest(path)
    if options.window is None:
        summary = dataset_summary(manifest, path)
        show(as_json, summary, lambda: print_summary(summary))
        return "train", path, "RUN"
    from streamfeat.stream.one_window import look_at_window

    asked = StreamConfig(
        **options.model_dump(exclude={"window", "epoch", *ReadingConfig.model_fields}), batch_windows=1
    )
    tokens = look_at_window(path, options.window, asked, epoch=options.epoch)
    policy = f" ({options.mask_policy})" if options.objective == "masked" else ""
    title = f"{path}: {options.split} window {options.window}, {options.objective}{policy}"
    found = {"dataset": str(path), "window": options.window, "tokens": tokens}
    show(as_json, found, lambda: _print_rows(title, tokens))
    return "train", path, "RUN"


def _time_split(manifest: "Manifest") -> dict[str, Any]:
    """The cuts of a split by time and what lies after them; empty for another split."""
    found = manifest.time_split
    if found is None:
        return {}
    starts = {name: date_text(getattr(found, name)) for name in ("validation_start", "test_start")}
    return found.model_dump() | starts


def _is_unfinished(path: Path) -> bool:
    """Whether the folder holds a build that is not finished."""
    return (path / "tmp" / "plan.json").exists()


def _what_lies_there(path: Path) -> str:
    check_link(path)
    if not path.exists():
        return "no such folder"
    if not path.is_dir():
        return "is a file"
    if _is_unfinished(path):
        return "holds a build that is not finished; run its build-shards again, then inspect it"
    return "holds neither a finished dataset (dataset.json is missing) nor a run (config.json is missing)"


def _inspect_run(path: Path, as_json: bool) -> None:
    """Prints the configuration of a run, its last step and its last validation."""
    from train.runs.metrics import read_metrics
    from train.runs.record import read_record

    record = read_record(path)
    lines = read_metrics(path)
    last = {line["kind"]: line for line in lines}
    summary = {
        "run": str(path),
        **record.model_dump(mode="json"),
        "last_step": last.get("train"),
        "validation": last.get("validation"),
    }
    show(as_json, summary, lambda: print_summary(summary))


def _print_rows(title: str, rows: list[dict[str, str]]) -> None:
    """Prints rows as aligned columns, in plain text that other programs can search and cut."""
    for line in (harmless(title), *aligned(rows)):
        sys.stdout.write(line + "\n")


def dataset_summary(manifest: "Manifest", root: Path) -> dict[str, Any]:
    training, validation = manifest.splits["training"], manifest.splits["validation"]
    window_bytes = sum(file.size for file in manifest.files() if file.path.startswith("windows.zarr/training/0/"))
    num_tokens = max(training.windows * manifest.data_schema.window_len, 1)
    counts = manifest.cleaning.items()
    rejected = {name.removeprefix("rejected_"): number for name, number in counts if name.startswith("rejected_")}
    odd_times = {name.removeprefix("odd_"): number for name, number in counts if number and name.startswith("odd_")}
    others = ("rows", "undated", "planned", "rejected_", "odd_")
    left_out = {name: number for name, number in counts if number and not name.startswith(others)}
    return {
        "dataset": str(root),
        "fingerprint": manifest.fingerprint,
        "format_version": manifest.format_version,
        "users": manifest.num_users,
        "training_users": training.users,
        "validation_users": validation.users,
        "users_with_too_few_targets": manifest.users_with_too_few_targets
        if manifest.config.split_rule.kind == "last"
        else None,  # they train whole
        "split": manifest.config.split,
        **_time_split(manifest),
        "items": {scale.medium: scale.items for scale in manifest.scales},
        "events": manifest.num_events,
        "planned_events": manifest.cleaning.get("planned"),  # None: of a dataset that an earlier version built
        "rows_read": manifest.cleaning.get("rows", 0),
        "rejected_rows": rejected,
        "rejected_file": str(root / "rejected.csv") if rejected else None,
        "left_out": left_out,
        "undated_rows": manifest.cleaning.get(
            "undated", 0
        ),  # of lists: they have the time of another row, or --undated
        "odd_times": odd_times,  # kept, but probably in another unit or of a wrong clock
        "tied_timestamps": manifest.tied_events,
        "tie_rule": manifest.tie_rule,
        "repeat_share": manifest.repeat_share,
        "window_len": manifest.data_schema.window_len,
        "packings": training.packings,
        "training_windows": training.windows,
        "validation_windows": validation.windows,
        "chunk_windows": training.chunk_windows,
        "shard_windows": training.shard_windows,
        "fill_rate": training.tokens / num_tokens,
        "bytes_per_token": window_bytes / num_tokens,
    }

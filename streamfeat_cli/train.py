"""The command `train`: calls `train_steps` or, with --dry-run, `dry_run_steps`."""

import shlex
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from streamfeat.errors import ConfigError
from streamfeat.signals import stop_on_signals
from streamfeat_cli.console import PLAIN, Json, err, show
from streamfeat_cli.declaration import Dataset, Next, command, program
from streamfeat_cli.options import Options
from streamfeat_cli.training_output import follow_dry_run, follow_training, print_estimate, print_training
from train.config import TrainConfig, new_config, overridden
from train.devices.launch import launched


@command(
    "train",
    Options(TrainConfig, make=new_config, merge=overridden),
    examples=(
        "train data --dry-run",
        "train data run --preset small --objective masked",
        "train data run --resume",
    ),
)
def train(
    dataset: Dataset,
    given: dict[str, Any],
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Folder of the run; may be left out with --dry-run.", show_default=False),
    ] = None,
    run_folder: Annotated[Path | None, typer.Option("--run", "--run-folder", hidden=True)] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="RUN", help="Start with the weights of another run's best checkpoint, and its options."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run from its last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that is there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time ten steps, print what a run would take, keep nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Start even if memory seems too small.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write RUN/tensorboard too (an extra).")] = False,
    as_json: Json = False,
) -> Next | None:
    """Train a model on a dataset: DATA RUN. Ctrl-C saves and says how to continue.

    On several GPUs or machines: torchrun --nproc-per-node N cli.py train DATA RUN.
    """
    if run is not None and run_folder is not None and run != run_folder:
        raise ConfigError(f"the run is named twice, {run} and --run {run_folder}; give train DATA RUN alone")
    run = run or run_folder
    is_first = launched().is_first
    last = "finishing the step" if dry_run else "finishing the step and saving"
    with stop_on_signals(last if is_first else "") as received:
        if dry_run:
            from train.training.dry_run import dry_run_steps

            outline = dry_run_steps(dataset, given, start_from=start_from, force=force, stop=lambda: bool(received))
            estimate = follow_dry_run(outline, show=is_first)
            if estimate is None:
                raise typer.Exit(_exit_code(received))
            if is_first:
                show(as_json, estimate, lambda: print_estimate(estimate))
            return ("train", dataset, "RUN") if is_first else None
        if run is None:
            raise ConfigError("train needs a folder for the run: train DATA RUN (or --dry-run, which keeps nothing)")
        from train.training.loop import train_steps

        records = train_steps(
            dataset,
            run,
            given,
            start_from=start_from,
            resume=resume,
            overwrite=overwrite,
            force=force,
            tensorboard=tensorboard,
            stop=lambda: bool(received),
        )
        summary = follow_training(records, show=is_first)
    if is_first:
        show(as_json, summary, lambda: print_training(summary))
    if summary["result"] == "stopped":
        if is_first:
            flags = [flag for flag, is_set in (("--force", force), ("--tensorboard", tensorboard)) if is_set]
            again = shlex.join(["train", str(dataset), str(run), "--resume", *flags])
            start = program(launched().world_size)
            err.print(f"stopped after step {summary['step']:,}; continue with: {start} {again}", **PLAIN)
        raise typer.Exit(_exit_code(received))
    return ("evaluate", run) if is_first else None


def _exit_code(received: list[tuple[int, float]]) -> int:
    """The exit code of a stopped run. A rank that got no signal itself stops with the others, as if by SIGTERM."""
    return 128 + (received[0][0] if received else signal.SIGTERM)

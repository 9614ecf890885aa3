"""`train`."""

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from streamfeat.config import MaskPolicy, Objective
from streamfeat.errors import ConfigError
from streamfeat.signals import stop_on_signals
from streamfeat_cli.console import PLAIN, Json, err, show, typed
from streamfeat_cli.training_output import follow_dry_run, follow_training, print_estimate, print_training
from train.config import FIELDS, Preset, TrainConfig, overridden, read_config
from train.devices.launch import launched

_TRAIN = {name: field.default for name, field in TrainConfig.model_fields.items()}  # the options' defaults


def train(
    ctx: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset that build-shards made.")],
    # torchrun takes --run for an ambiguous --run-path of its own, wherever it stands: hence the second spelling.
    run: Annotated[
        Path | None,
        typer.Option("--run", "--run-folder", help="Folder of the run: configuration, metrics, checkpoints."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file that sets any of the options; typed ones win.")] = None,
    objective: Annotated[Objective, typer.Option(help="Predict the next event, or masked ones.")] = _TRAIN["objective"],
    mask_policy: Annotated[MaskPolicy, typer.Option(help="How the masked objective masks.")] = _TRAIN["mask_policy"],
    preset: Annotated[Preset, typer.Option(help="Size of the model; every field can be overridden.")] = "tiny",
    layers: Annotated[int | None, typer.Option(help="Blocks. Default: the preset's.")] = None,
    width: Annotated[int | None, typer.Option(help="Of the residual stream. Default: the preset's.")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads. Default: the preset's.")] = None,
    feed_forward: Annotated[float | None, typer.Option(help="Hidden width over width. Default: 2.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of values dropped. Default: the preset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its peak. Default: the preset's.")] = None,
    beta_1: Annotated[float, typer.Option(help="AdamW: decay of the mean gradient.")] = _TRAIN["beta_1"],
    beta_2: Annotated[float, typer.Option(help="AdamW: decay of the mean squared gradient.")] = _TRAIN["beta_2"],
    weight_decay: Annotated[float, typer.Option(help="AdamW: on matrices only.")] = _TRAIN["weight_decay"],
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient.")] = _TRAIN["clip"],
    warm_up_steps: Annotated[int, typer.Option(help="Steps of rising rate, at most a tenth of all.")] = _TRAIN[
        "warm_up_steps"
    ],
    decay_share: Annotated[float, typer.Option(help="Share of the steps, at the end, of falling rate.")] = _TRAIN[
        "decay_share"
    ],
    final_learning_rate: Annotated[float, typer.Option(help="Share of the peak that the rate ends at.")] = _TRAIN[
        "final_learning_rate"
    ],
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a batch over all ranks, rounded to windows.")] = _TRAIN[
        "batch_tokens"
    ],
    micro_batch_tokens: Annotated[int, typer.Option(help="Tokens of one forward pass; 0: a rank's share.")] = _TRAIN[
        "micro_batch_tokens"
    ],
    steps: Annotated[int, typer.Option(help="Optimizer updates; 0: as --epochs says.")] = _TRAIN["steps"],
    epochs: Annotated[int, typer.Option(help="Passes over the training windows, at most.")] = _TRAIN["epochs"],
    monitor: Annotated[str, typer.Option(help="Validation figure that is to fall: loss, or a task's.")] = _TRAIN[
        "monitor"
    ],
    patience: Annotated[int, typer.Option(help="Stop after so many validations without a new best; 0: never.")] = (
        _TRAIN["patience"]
    ),
    seed: Annotated[int, typer.Option(help="Of order, masks, initial weights, dropout.")] = _TRAIN["seed"],
    validate_every: Annotated[int, typer.Option(help="Steps between validations; 0: every epoch.")] = _TRAIN[
        "validate_every"
    ],
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = _TRAIN["checkpoint_every"],
    keep: Annotated[int, typer.Option(help="Last checkpoints to keep, beside the best.")] = _TRAIN["keep"],
    threads: Annotated[int, typer.Option(help="Threads that read and prepare data.")] = _TRAIN["threads"],
    live: Annotated[bool, typer.Option("--live", help="Train on windows while they are written, fresh each epoch.")] = (
        False
    ),
    live_disk: Annotated[str, typer.Option(help="Bytes that live windows may take; GB is 1000 MB.")] = "20GB",
    live_workers: Annotated[str, typer.Option(help="Processes that write them; 0: `build-shards --live` does.")] = (
        _TRAIN["live_workers"]
    ),
    live_timeout: Annotated[float, typer.Option(help="Seconds without a sign of life after which one is dead.")] = (
        _TRAIN["live_timeout"]
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run from its last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that is there.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start even if memory seems not to suffice.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time ten steps, tell what a run would take, keep nothing.")
    ] = (False),
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write RUN/tensorboard too (an extra).")] = False,
    as_json: Json = False,
) -> None:
    """Train a model on a dataset: OUT --run RUN. Ctrl-C saves and says how to go on.

    On several GPUs or machines: torchrun --nproc-per-node N cli.py train OUT --run RUN.
    """
    given = overridden(read_config(config) if config else {}, {k: v for k, v in typed(ctx).items() if k in FIELDS})
    is_first = launched().is_first
    last = "finishing the step" if dry_run else "finishing the step and saving"
    with stop_on_signals(last if is_first else "") as received:
        if dry_run:
            from train.training.dry_run import dry_run_steps

            outline = dry_run_steps(dataset, given, force=force, stop=lambda: bool(received))
            estimate = follow_dry_run(outline, show=is_first)
            if estimate is None:
                raise typer.Exit(_exit_code(received))
            if is_first:
                show(as_json, estimate, lambda: print_estimate(estimate))
            return
        if run is None:
            raise ConfigError("train needs a folder for the run: --run RUN (or --dry-run, which keeps nothing)")
        from train.training.loop import train_steps

        records = train_steps(
            dataset, run, given,
            resume=resume, overwrite=overwrite, force=force, tensorboard=tensorboard, stop=lambda: bool(received),
        )  # fmt: skip
        summary = follow_training(records, show=is_first)
    if is_first:
        show(as_json, summary, lambda: print_training(summary))
    if summary["result"] == "stopped":
        if is_first:
            flags = [flag for flag, is_set in (("--force", force), ("--tensorboard", tensorboard)) if is_set]
            again = shlex.join([*_launcher(), "train", str(dataset), "--run-folder", str(run), "--resume", *flags])
            err.print(f"stopped after step {summary['step']:,}; go on with: {again}", **PLAIN)
        raise typer.Exit(_exit_code(received))


def _launcher() -> list[str]:
    """What starts as many ranks as there are now, on one machine."""
    ranks = launched().world_size
    # As a script, `streamfeat/__main__.py` would have its folder searched first, where torch.py hides torch.
    program = ["-m", "streamfeat"] if Path(sys.argv[0]).name == "__main__.py" else [sys.argv[0]]
    return [*(["python"] if ranks == 1 else ["torchrun", "--nproc-per-node", str(ranks)]), *program]


def _exit_code(received: list[tuple[int, float]]) -> int:
    """Of a run that was stopped. A rank that got no signal itself stops with the others."""
    return 128 + (received[0][0] if received else signal.SIGTERM)

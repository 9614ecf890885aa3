"""The command `evaluate`: calls `evaluate_steps` and prints its tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field
from rich.table import Table

from streamfeat.plain_text import date_text
from streamfeat.progress_bars import shown
from streamfeat.records import Frozen
from streamfeat_cli.console import PLAIN, Json, out, show
from streamfeat_cli.declaration import Next, RunFolder, command
from streamfeat_cli.options import OptionalPath, Options

if TYPE_CHECKING:
    from train.evaluation.bootstrap import Figure
    from train.evaluation.figures import CalibrationLine, DifferenceLine, Evaluation, RankingLine, RatingLine


class EvaluateOptions(Frozen):
    """What is evaluated, and with which random draws."""

    dataset: OptionalPath = Field(default=None, description="Where the run's dataset lies now, if elsewhere.")
    checkpoint: str = Field(default="best", description="best, latest, or the name of a checkpoint's folder.")
    bootstrap: int = Field(default=1000, ge=1, le=1_000_000, description="Resamples of users for every interval.")
    horizon_days: float | None = Field(
        default=None, gt=0, le=36_500, description="Days after the cut of a split by time, all predicted at once; 14."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the bootstrap and of the baselines' first weights.")


@command(
    "evaluate",
    Options(EvaluateOptions),
    examples=("evaluate run", "evaluate run --dataset /new/place/data --checkpoint latest", "evaluate run --json"),
)
def evaluate(run: RunFolder, options: EvaluateOptions, as_json: Json = False) -> Next:
    """Rank the full catalogue for each user's held-out event, beside simple baselines on the same split."""
    from train.evaluation.evaluate import evaluate_steps

    steps = evaluate_steps(
        run,
        options.dataset,
        checkpoint=options.checkpoint,
        seed=options.seed,
        num_bootstrap=options.bootstrap,
        horizon_days=options.horizon_days,
    )
    (found,) = shown(steps)
    show(as_json, found.to_json(), lambda: _print(found))
    return "recommend", run, "--history", "FILE"


def _print(found: "Evaluation") -> None:
    """Prints the verdict first, then the differences to the baselines, the tables, the protocol."""
    for verdict in found.verdicts:
        out.print(f"The model {verdict.text}.", **PLAIN)
    for advice in found.advice:
        out.print(f"To try: {advice}.", **PLAIN)
    _print_differences(found.differences)
    for medium in dict.fromkeys(line.protocol.medium for line in found.ranking):
        _print_ranking(medium, [line for line in found.ranking if line.protocol.medium == medium])
    for medium in dict.fromkeys(line.protocol.medium for line in found.horizon):
        _print_ranking(medium, [line for line in found.horizon if line.protocol.medium == medium])
    for medium in dict.fromkeys(line.protocol.medium for line in found.ratings):
        _print_ratings(medium, [line for line in found.ratings if line.protocol.medium == medium])
    _print_calibration(found.calibration)
    _print_baselines(found)
    _print_protocol(found)


def _print_ranking(medium: str, lines: list["RankingLine"]) -> None:
    """Prints a table with a row for each system, once with seen items and once without."""
    for seen in dict.fromkeys(line.protocol.seen for line in lines):
        asked = [line for line in lines if line.protocol.seen == seen]
        protocol = asked[0].protocol
        users, items = protocol.users, sum(protocol.catalogue.values())
        days = "" if protocol.horizon_days is None else f" of {protocol.horizon_days:g} days after the cut"
        targets = f", {protocol.targets:,} targets{days}" if days else ""
        out.print(f"ranking, {medium}, seen items {seen}: {users:,} users, {items:,} items{targets}", **PLAIN)
        table = Table()
        for name in ("system", "time"):
            table.add_column(name, overflow="fold")
        shown = ("hr@1", "hr@10", "hr@100", "recall@10", "recall@100", "ndcg@10", "map@10", "mrr")
        names = [name for name in asked[0].figures if name in shown] or list(asked[0].figures)
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for line in asked:
            figures = line.figures
            table.add_row(line.system, _time(line), *(f"{figures[name].value:.4f}" for name in names))
        out.print(table)
        for line in asked:
            others = [f"{name} {figure.value:.4f}" for name, figure in line.figures.items() if name not in names]
            shares = [f"{name} {share:.3f}" for name, share in line.coverage.items()]
            ranges = [f"{name} {_interval(line.figures[name])}" for name in ("ndcg@10",) if name in line.figures]
            out.print(f"  {line.system}, time {_time(line)}: {', '.join([*ranges, *others, *shares])}", **PLAIN)


def _print_ratings(medium: str, lines: list["RatingLine"]) -> None:
    out.print(f"ratings, {medium}: {lines[0].protocol.users:,} users", **PLAIN)
    table = Table()
    for name in ("system", "time", "rmse", "mae"):
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(line.system, _time(line), *(_interval(line.figures[name]) for name in ("rmse", "mae")))
    out.print(table)


def _print_differences(lines: Sequence["DifferenceLine"]) -> None:
    out.print(
        "model minus baselines on the same targets, paired over users; the best one on validation first:", **PLAIN
    )
    for line in lines:
        if line.is_best:
            seen = "" if line.protocol.seen == "not used" else f", seen items {line.protocol.seen}"
            out.print(f"  {line.figure}, {line.protocol.medium}{seen}, time {_time(line)}", **PLAIN)
        out.print(f"    {_interval(line.difference, '+.4f')} against {line.baseline}", **PLAIN)


def _print_baselines(found: "Evaluation") -> None:
    """Prints what was chosen on validation."""
    users = found.ranking[0].protocol.tuned_users
    out.print(f"baselines and their figures on validation ({users:,} users):", **PLAIN)
    for line in found.baselines:
        settings = [f"{name} {_number(value)}" for name, value in line.settings.items()]
        figures = [
            f"{line.figure} {value:.4f}" + ("" if time == "not used" else f" with the time {time}")
            for time, value in line.validation.items()
        ]
        out.print(f"  {line.system}: {', '.join([*settings, *figures])}", **PLAIN)
    for left in found.left_out:
        out.print(f"  left out: {left.system}, {left.reason}", **PLAIN)


def _print_calibration(lines: Sequence["CalibrationLine"]) -> None:
    for line in lines:
        calibration, protocol = line.calibration, line.protocol
        out.print(
            f"calibration of P(watch at t), {protocol.medium}, time {_time(line)}: expected error "
            f"{calibration.error:.4f}, by chance alone {calibration.error_if_calibrated:.4f}",
            **PLAIN,
        )
        if protocol.medium == lines[0].protocol.medium and line is lines[0]:  # the other tables are in the JSON only
            table = Table()
            for name in ("users", "said", "watched"):
                table.add_column(name, justify="right")
            for bin_ in calibration.bins:
                table.add_row(f"{bin_.users:,}", f"{bin_.confidence:.4f}", f"{bin_.accuracy:.4f}")
            out.print(table)


def _print_protocol(found: "Evaluation") -> None:
    """Prints once what all lines have in common."""
    protocol = found.ranking[0].protocol
    media = {line.protocol.medium: line.protocol for line in found.ranking}
    tied = ", ".join(f"{medium} {of.tied_share:.0%}" for medium, of in media.items())
    parts = (
        f"dataset {protocol.fingerprint}",
        f"split {protocol.split}: {protocol.target}",
        *([f"the cut is at {date_text(protocol.test_start)}"] if protocol.test_start is not None else []),
        f"{protocol.users_without_target:,} users without a target"
        + (f", {protocol.new_users:,} of them new after the cut" if protocol.new_users else ""),
        "targets that no training event has: "
        + ", ".join(f"{medium} {of.unseen_targets:,} of {of.users:,}" for medium, of in media.items()),
        f"full catalogue: {', '.join(f'{medium} {items:,}' for medium, items in protocol.catalogue.items())}",
        f"targets that depend on ties in time: {tied} ({protocol.tie_rule})",
        f"equal scores: {protocol.rank_ties}",
        "seen items: those of the history, never the target itself; time: the target's, told to the model or hidden",
        f"at least {protocol.min_item_events} events an item, {protocol.min_user_events} a user; planned events "
        + ("kept as input" if protocol.keep_planned else "left out"),
        f"{protocol.objective}{f' ({protocol.mask_policy})' if protocol.mask_policy else ''}, windows of "
        f"{protocol.window_len:,} tokens, checkpoint {protocol.checkpoint}",
        "the model knows popularity and transitions of training events alone, whatever refresh has counted",
        f"baselines: fitted on training events; settings, and the best one, by the validation events of "
        f"{protocol.tuned_users:,} users",
        f"intervals: 95%, {protocol.resamples:,} resamples of users, seed {protocol.seed}",
    )
    out.print("protocol: " + "; ".join(parts), **PLAIN)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _time(line: "RankingLine | RatingLine | DifferenceLine | CalibrationLine") -> str:
    return "–" if line.protocol.time == "not used" else line.protocol.time


def _interval(figure: "Figure", form: str = ".4f") -> str:
    return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"

"""What to try with a run that is not better than the baselines. Each piece of advice follows from facts of the run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamfeat.store.histories import HeldOut
from streamfeat.store.manifest import Manifest
from train.config import TrainConfig
from train.evaluation.figures import Verdict
from train.runs.metrics import read_metrics

_FEW_EVENTS = 10  # training events a user


@dataclass(frozen=True)
class RunFacts:
    """What is known about a run and its data beside its figures."""

    is_split_by_users: bool
    mean_events: float  # training events of a user who has any
    window_len: int
    last_step: int
    validated: tuple[tuple[int, float], ...]  # step and monitored figure of each validation; lower is better

    @classmethod
    def of(cls, run: Path, manifest: Manifest, config: TrainConfig, held_out: HeldOut) -> "RunFacts":
        """Reads the run's metrics."""
        lines = read_metrics(run)
        monitor = config.monitor if config.monitor in ("watch", "loss") else f"loss_{config.monitor}"
        found = [(line["step"], line.get(monitor)) for line in lines if line["kind"] == "validation"]
        events = held_out.training_events[held_out.training_events > 0]
        return cls(
            manifest.config.split_rule.kind == "users",
            float(np.mean(events)) if len(events) else 0.0,
            manifest.data_schema.window_len,
            max((line["step"] for line in lines if line["kind"] == "train"), default=0),
            tuple((step, value) for step, value in found if value is not None),
        )


def advice(verdicts: Sequence[Verdict], facts: RunFacts) -> tuple[str, ...]:
    """Nothing if the model is better than every baseline."""
    if all(verdict.standing == "better" and not verdict.unbeaten for verdict in verdicts):
        return ()
    found = (*_about_training(facts), *_about_data(verdicts, facts))
    return found or ("try half and twice the --learning-rate, and another --preset",)


def _about_training(facts: RunFacts) -> Iterator[str]:
    if len(facts.validated) < 2:
        return
    best_step, _ = min(facts.validated, key=lambda at: at[1])
    if best_step == facts.validated[-1][0]:
        yield (
            f"validation was still improving at the last step, {facts.last_step:,}: train longer, with more --epochs "
            "or --steps"
        )
    elif best_step <= facts.last_step // 4:
        yield (
            f"validation was best at step {best_step:,} of {facts.last_step:,} and got worse from there: try a lower "
            "--learning-rate, a higher --dropout, or more data"
        )


def _about_data(verdicts: Sequence[Verdict], facts: RunFacts) -> Iterator[str]:
    if facts.is_split_by_users:
        yield (
            f"only {verdicts[0].protocol.users:,} users are asked, and none of their events was in training: build "
            "with --split last:2, which trains on every user and asks each"
        )
    if any(of.baseline.startswith("popularity_") and of.standing != "better" for of in verdicts):
        yield (
            "what was watched in the last days predicts best: train on events up to the present, and count newer ones "
            "with `refresh RUN EVENTS` before recommending"
        )
    if facts.mean_events > facts.window_len:
        yield (
            f"users have {facts.mean_events:.0f} training events on average and the model reads {facts.window_len}: "
            "build with a larger --window-len"
        )
    elif facts.mean_events < _FEW_EVENTS:
        yield f"users have {facts.mean_events:.1f} training events on average, little to learn an order from: more data"

"""Trials of the model: each trains with other options or with one part of the model replaced, beside the default.

    python benchmarks/trials.py NAME TRIAL --events FILE --folder FOLDER [--seeds 0,1,2]

NAME is a set of benchmarks/quality.py, TRIAL one of those below; `default` must be run first, because others are
compared with it, and some use its weights. Choices are made by the figures on validation events: the watch loss in
nats, and NDCG@10 as `evaluate` computes it on test events (full ranking, seen items removed). Data, runs and the
figures of every run stay in FOLDER; benchmarks/results/trials-NAME.json holds all figures that are found there.
"""

import argparse
import json
import shlex
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trial_parts
from numpy.typing import NDArray
from quality import STUDIES, call
from results import write_results

from streamfeat.schema import EVENT_FIELDS
from streamfeat.store.histories import HistoryReader, read_held_out
from train.evaluation.cases import Cases, read_cases, read_validation_cases
from train.evaluation.ranking import figure_values, target_ranks, without_seen
from train.inference.queries import History
from train.inference.scorer import Scorer
from train.runs.record import dataset_of
from train.training.loop import train_steps
from train.training.progress import Finished

Gains = dict[str, NDArray[np.float64]]  # NDCG@10 of every user, by split and whether the target's time is told


def _nothing(folder: Path) -> None:
    """The model as it is."""


@dataclass(frozen=True)
class Trial:
    """What differs from the default."""

    options: dict[str, Any] = field(default_factory=dict)  # of `train`
    replace: Callable[[Path], None] = _nothing  # replaces a part of the model; gets the folder of all runs
    orders: int = 0  # so many orders of events with equal times are averaged at scoring, with the default's weights


# The default when the trials were made. What they brought is in docs/quality.md.
BEFORE = {"layers": 2, "width": 64, "heads": 2, "optimizer": "adamw", "epochs": 50}

TRIALS = {
    "default": Trial(),
    "width-128-decay-0.3": Trial({"width": 128, "heads": 4, "weight_decay": 0.3}),
    "width-128-decay-1": Trial({"width": 128, "heads": 4, "weight_decay": 1.0}),
    "layers-4-width-48": Trial({"layers": 4, "width": 48}),
    "layers-4-width-64": Trial({"layers": 4}),
    "layers-8-width-32": Trial({"layers": 8, "width": 32}),
    "cosine": Trial(replace=trial_parts.cosine),
    "smoothing-0.1": Trial(replace=partial(trial_parts.smooth_labels, 0.1)),
    "muon": Trial(replace=partial(trial_parts.muon, 1.0)),
    "muon-2": Trial(replace=partial(trial_parts.muon, 2.0)),
    "muon-layers-4-width-48": Trial({"layers": 4, "width": 48}, partial(trial_parts.muon, 1.0)),
    "muon-4-layers-3": Trial({"layers": 3}, partial(trial_parts.muon, 4.0)),
    "muon-2-layers-3": Trial({"layers": 3}, partial(trial_parts.muon, 2.0)),
    "muon-2-layers-3-width-48": Trial({"layers": 3, "width": 48}, partial(trial_parts.muon, 2.0)),
    "bias-heads-8-of-8": Trial({"heads": 8}, partial(trial_parts.bias_heads, 8)),
    "bias-heads-2-of-4": Trial({"heads": 4}, partial(trial_parts.bias_heads, 2)),
    "tie-orders-8": Trial(orders=8),
    "distilled": Trial(replace=partial(trial_parts.distil, 0.5)),
}


def tied_orders(histories: list[History], seed: int) -> list[History]:
    """The histories with the events of equal time in a random order."""
    rng = np.random.default_rng(seed)
    found = []
    for history in histories:
        order = np.lexsort((rng.random(len(history)), history.time))
        found.append(replace(history, **{name: getattr(history, name)[order] for name in EVENT_FIELDS}))
    return found


def scored(scorer: Scorer, cases: Cases, told: bool, orders: int) -> NDArray[np.float64]:
    """(n,): NDCG@10 of each case. The only medium is 0."""
    times = cases.time.tolist() if told else [None] * len(cases.item)
    ways = [tied_orders(cases.histories, seed) for seed in range(orders)] or [cases.histories]
    probs = torch.stack(
        [scorer.log_probs(scorer.states(way, times, 0), 0, way, times, exclude_seen=False).exp() for way in ways]
    ).mean(0)
    scores_NV = probs.cpu().numpy()
    left_NV, item_N1 = without_seen(scores_NV, cases.past, 0), cases.item[:, None]
    np.put_along_axis(left_NV, item_N1, np.take_along_axis(scores_NV, item_N1, 1), 1)
    return figure_values(target_ranks(left_NV, cases.item), (10,))[:, 1]


def gains(run: Path, orders: int) -> Gains:
    """NDCG@10 of every user on validation and test events."""
    scorer = Scorer.of_run(run)
    dataset, manifest = dataset_of(run, None)
    held_out = read_held_out(dataset)
    users = np.flatnonzero(held_out.validation_events > 0)
    found: dict[str, list[NDArray[np.float64]]] = {}
    with HistoryReader(dataset, manifest) as reader:
        splits: dict[str, Iterator[Cases]] = {
            "validation": read_validation_cases(reader, held_out, users, 256),
            "test": (cases for cases, _ in read_cases(reader, held_out, 256)),
        }
        for split, all_cases in splits.items():
            for cases in all_cases:
                for time_, told in (("told", True), ("hidden", False)):
                    found.setdefault(f"{split} {time_}", []).append(scored(scorer, cases, told, orders))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def run_trial(name: str, data: Path, folder: Path, seed: int) -> None:
    """Trains and scores one run; writes its figures beside it."""
    trial, run = TRIALS[name], folder / f"{name}-{seed}"
    before, found = time.process_time(), {}
    if trial.orders:
        run = folder / f"default-{seed}"
    else:
        *_, last = train_steps(data, run, {**BEFORE, **trial.options, "seed": seed}, overwrite=True)
        assert isinstance(last, Finished)
        best = last.best
        assert best is not None
        watch = [loss for task, loss in best.losses.items() if loss is not None and task.endswith("_watch")]
        found = {"cpu_s": round(time.process_time() - before, 1), "step": last.step, "best step": best.step}
        found["validation nats"] = round(statistics.fmean(watch), 4)
    of_users = gains(run, trial.orders)
    found |= {f"ndcg@10 {split}": round(float(values.mean()), 4) for split, values in of_users.items()}
    np.savez(folder / f"{name}-{seed}.npz", allow_pickle=False, **of_users)
    (folder / f"{name}-{seed}.json").write_text(json.dumps({"trial": name, "seed": seed, **found}))


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The figures of all runs in the folder, and what each trial gains over the default: the mean over its seeds, of
    the same users, with one standard error."""
    for name in TRIALS:
        seeds = [path.stem.rpartition("-")[2] for path in sorted(folder.glob(f"{name}-?.npz"))]
        for seed in seeds:
            yield {"name": name, "value": json.loads((folder / f"{name}-{seed}.json").read_text()), "unit": "run"}
        both = [seed for seed in seeds if (folder / f"default-{seed}.npz").exists()]
        if name == "default" or not both:
            continue
        pairs = [(np.load(folder / f"{name}-{seed}.npz"), np.load(folder / f"default-{seed}.npz")) for seed in both]
        gained = {}
        for split in pairs[0][0]:
            of_users = np.mean([ours[split] - default[split] for ours, default in pairs], 0)
            error = of_users.std() / len(of_users) ** 0.5
            gained[f"ndcg@10 {split}"] = [round(float(of_users.mean()), 4), round(float(error), 4)]
        yield {"name": f"{name} minus default", "value": {"seeds": both, **gained}, "unit": "mean, standard error"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=STUDIES)
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--events", required=True, help="the file of events as published")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--folder", required=True, type=Path, help="where data and runs stay")
    given = parser.parse_args()
    folder = given.folder / given.name
    data = folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        call("build-shards", given.events, str(data), *shlex.split(STUDIES[given.name].build))
    TRIALS[given.trial].replace(folder)
    for seed in given.seeds.split(","):
        run_trial(given.trial, data, folder, int(seed))
    write_results(f"trials-{given.name}", list(rows(folder)))


if __name__ == "__main__":
    main()

"""Targets that a training step learns from per CPU-second on one thread, and what the terms of popularity cost.

    python benchmarks/step.py DATASET [--steps 20] [--rounds 5] [--batch-tokens 2048]

DATASET is a built dataset, for instance MovieLens-100K with `--window-len 256 --split last:2`. Makes steps of a
model of 2 layers and width 64 with AdamW, batches read and prepared included, with and without the tables of training
events, in turn: their times are compared in the same minutes. Without the tables there is no term of popularity, and
ratings know no residuals. Writes benchmarks/results/step.json.
"""

import argparse
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from results import write_results

from streamfeat import WindowStream, load_manifest
from streamfeat.store.tables import read_items
from streamfeat.stream.order import steps_per_epoch
from train.config import new_config
from train.devices.launch import Launch
from train.devices.ranks import World
from train.model.transformer import EventTransformer
from train.terms.terms import Terms, build_terms
from train.training.schedule import Schedule
from train.training.update import Updater


class Steps:
    """A model in training on the batches of a dataset, epoch after epoch."""

    def __init__(self, dataset: Path, options: dict[str, Any], terms: Terms | None) -> None:
        manifest, config = load_manifest(dataset), new_config(options)
        windows = config.batch_windows(manifest.data_schema.window_len)
        schedule = Schedule.of(config, steps_per_epoch(manifest.splits["training"].windows, windows))
        model = EventTransformer.of(manifest, config, read_items(dataset).targets, terms)
        self.updater = Updater(model, manifest, config, schedule, World(Launch(), torch.device("cpu")), terms)
        self.stream = WindowStream(dataset, objective="causal", batch_windows=windows, hidden_times=config.hidden_times)
        self.batches = self._all()
        self.step = 0

    def _all(self) -> Any:
        while True:
            yield from self.stream

    def make(self, num_steps: int) -> tuple[float, int]:
        """CPU seconds of so many steps, and the item targets in them."""
        targets, started = 0, time.process_time()
        for _ in range(num_steps):
            arrays = next(self.batches)
            targets += int((arrays["weight_item"] > 0).sum())
            self.updater.apply(self.updater.prepare(arrays, self.step))
            self.step += 1
        return time.process_time() - started, targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    given = parser.parse_args()
    torch.set_num_threads(1)
    options = {"layers": 2, "width": 64, "heads": 2, "optimizer": "adamw", "batch_tokens": given.batch_tokens}
    terms = build_terms(given.dataset, load_manifest(given.dataset))
    kinds = {"with tables": Steps(given.dataset, options, terms), "without": Steps(given.dataset, options, None)}
    for steps in kinds.values():
        steps.make(5)
    speeds: dict[str, list[float]] = {name: [] for name in kinds}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(given.rounds):
        for name, steps in kinds.items():
            spent, targets = steps.make(given.steps)
            speeds[name].append(targets / spent)
            seconds[name].append(spent / given.steps)
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    rows: list[dict[str, Any]] = [
        {"name": f"item targets per CPU-second, {name}", "value": median(values), "unit": "targets/s"}
        for name, values in speeds.items()
    ]
    rows.append({"name": "CPU time of a step with tables / without, median", "value": median(ratios), "unit": "ratio"})
    rows.append({"name": "the same, of each round", "value": [round(ratio, 3) for ratio in ratios], "unit": "ratio"})
    write_results("step", rows)


if __name__ == "__main__":
    main()

"""A step whose loss or gradient is not finite is not applied, and its batch can be looked at."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from streamfeat import WindowStream
from streamfeat.errors import DivergedError
from streamfeat.progress import Note
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items
from train.config import new_config
from train.devices.launch import Launch
from train.devices.ranks import World
from train.model.transformer import EventTransformer
from train.runs.checkpoint import Checkpoints
from train.runs.folder import BAD_STEPS
from train.runs.metrics import read_metrics
from train.terms.terms import build_terms
from train.training.loop import train_steps
from train.training.progress import Saved, Stepped
from train.training.schedule import Schedule
from train.training.update import Updater

GIVEN: dict[str, Any] = {
    "layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "steps": 12, "validate_every": 12, "checkpoint_every": 1,
    "keep": 12,
}  # fmt: skip


def bad_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / BAD_STEPS).read_text().splitlines()]


def poison_rating(run: Path, item: int) -> None:
    """Make one item's learned rating NaN in the newest checkpoint, which is saved whole again."""
    checkpoints = Checkpoints(run)
    found, _ = checkpoints.load_newest()
    assert found is not None
    dataset = json.loads((run / "config.json").read_text())["dataset"]
    terms = build_terms(Path(dataset), load_manifest(dataset))
    model = EventTransformer.of(load_manifest(dataset), found.state.config, read_items(dataset).targets, terms)
    optimizer = Updater(
        model,
        load_manifest(dataset),
        found.state.config,
        Schedule.of(found.state.config, 6),
        World(Launch(), torch.device("cpu")),
    )
    found.restore(model, optimizer.optimizer, optimizer.average_model)
    with torch.no_grad():
        model.rating.bias_V[item] = torch.nan
    checkpoints.save(found.state, model, optimizer.optimizer, optimizer.average_model)


def test_the_batches_of_bad_steps_are_noted_and_those_alone(tmp_path: Path, tiny_dataset: Path) -> None:
    """One item's rating is NaN: just the batches that ask for it are bad, each line's state gives that batch again."""
    run = tmp_path / "run"
    for record in (records := train_steps(tiny_dataset, run, GIVEN)):
        if isinstance(record, Saved) and record.step == 2:
            break
    records.close()  # type: ignore[attr-defined]
    stream = WindowStream(tiny_dataset, objective="causal", batch_windows=3, hidden_times=0.3, copy=True)
    rated = [set(batch["target_item"][batch["weight_rating"] > 0].tolist()) for _ in range(2) for batch in stream]
    found = {item: {step for step in range(3, 13) if item in rated[step - 1]} for item in range(30)}
    item, asks = min(found.items(), key=lambda pair: (len(pair[1]) < 2, len(pair[1])))
    poison_rating(run, item)
    warnings = {}
    for record in train_steps(tiny_dataset, run, resume=True):
        if isinstance(record, Stepped):
            step = record.step
        elif isinstance(record, Note) and record.warning:
            warnings[step] = record.text
    lines = bad_lines(run)
    bad = {line["step"]: line for line in lines}
    assert 2 <= len(asks) < 8
    assert bad.keys() == warnings.keys() == asks
    assert [line["step"] for line in read_metrics(run) if line["loss"] is None and line["kind"] == "train"] == sorted(
        asks
    )
    for step, line in bad.items():
        assert line["epoch"] == (step - 1) // 6
        assert line["not_finite"]["anime_rating"] == line["not_finite"]["gradient"] == "nan"
        assert line["losses"]["anime_rating"] is None
        assert line["losses"]["anime_watch"] > 0
        assert "anime_rating nan" in warnings[step]
        assert str(run / BAD_STEPS) in warnings[step]
        stream.load_state_dict(line["stream"])
        again = next(iter(stream))
        assert line["windows"] == {"0": [int(window) for window in again["window"] if window >= 0]}
    assert steps_that_changed_weights(run) == set(range(4, 13)) - asks


def steps_that_changed_weights(run: Path) -> set[int]:
    """Of the steps after the poisoned checkpoint's, whose weights are kept just before and after."""
    content = {step: (Checkpoints(run).path(step) / "model.safetensors").read_bytes() for step in range(3, 13)}
    return {step for step in range(4, 13) if content[step] != content[step - 1]}


def test_a_run_that_diverges_names_the_file_of_its_bad_batches(tmp_path: Path, tiny_dataset: Path) -> None:
    """A rate that explodes: ten in a row end it; the ten batches are on disk, losses as null."""
    run = tmp_path / "run"
    with pytest.raises(DivergedError, match=rf"{BAD_STEPS}.*last checkpoint: .*step-\d+; .*--learning-rate"):
        list(train_steps(tiny_dataset, run, {**GIVEN, "steps": 40, "learning_rate": 1e30}))
    lines = bad_lines(run)
    assert len(lines) >= 10
    assert all(line["not_finite"] and line["learning_rate"] > 0 for line in lines)
    assert [line["stream"]["position"] + 1 for line in lines] == [line["step"] for line in lines]


def test_a_run_that_is_overwritten_keeps_no_bad_batch_of_the_one_before(tmp_path: Path, tiny_dataset: Path) -> None:
    """The file is the run's."""
    run = tmp_path / "run"
    with pytest.raises(DivergedError):
        list(train_steps(tiny_dataset, run, {**GIVEN, "steps": 40, "learning_rate": 1e30}))
    list(train_steps(tiny_dataset, run, {**GIVEN, "steps": 1}, overwrite=True))
    assert not (run / BAD_STEPS).exists()


def test_an_infinite_value_is_told_from_nan(tmp_path: Path, tiny_dataset: Path) -> None:
    """And neither weights nor the optimizer's state change."""
    manifest, config = load_manifest(tiny_dataset), new_config(GIVEN)
    model = EventTransformer.of(manifest, config, read_items(tiny_dataset).targets)
    updater = Updater(model, manifest, config, Schedule.of(config, 6), World(Launch(), torch.device("cpu")))
    arrays = next(iter(WindowStream(tiny_dataset, objective="causal", batch_windows=3)))
    assert updater.apply(updater.prepare(arrays, 0)).finite
    with torch.no_grad():
        model.rating.bias_V.fill_(torch.inf)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    update = updater.apply(updater.prepare(arrays, 1))
    assert update.not_finite["anime_rating"] == "inf"
    assert update.loss is None
    assert update.losses["anime_watch"] is not None
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(int(state["step"]) == 1 for state in updater.optimizer.state.values())

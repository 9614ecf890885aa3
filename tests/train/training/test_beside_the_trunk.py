"""Ratings are learned beside the trunk, and what is used is an average over the steps."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from streamfeat import WindowStream
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items
from train.config import new_config
from train.devices.launch import Launch
from train.devices.ranks import World
from train.model.transformer import EventTransformer
from train.terms.terms import build_terms
from train.training.schedule import Schedule
from train.training.update import Updater

SMALL: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "steps": 20, "learning_rate": 0.05}

pytestmark = pytest.mark.usefixtures("one_thread")


def updater_of(dataset: Path, **given: Any) -> Updater:
    manifest, config = load_manifest(dataset), new_config({**SMALL, **given})
    terms = build_terms(dataset, manifest)
    model = EventTransformer.of(manifest, config, read_items(dataset).targets, terms)
    return Updater(model, manifest, config, Schedule.of(config, 6), World(Launch(), torch.device("cpu")), terms)


def batches(dataset: Path, objective: Any, num_steps: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The first batches of a run, over several epochs."""
    with WindowStream(dataset, objective=objective, batch_windows=3) as stream:
        yield from itertools.islice(enumerate(arrays for _ in itertools.count() for arrays in stream), num_steps)


def trained(dataset: Path, objective: Any, *, with_ratings: bool, clip: float = 1.0) -> EventTransformer:
    """The model after 20 steps."""
    updater = updater_of(dataset, objective=objective, clip=clip)
    for step, arrays in batches(dataset, objective, 20):
        if not with_ratings:
            arrays["weight_rating"][:] = 0
        updater.apply(updater.prepare(arrays, step))
    return updater.model


@pytest.mark.parametrize("clip", [1.0, 0.01])
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_with_and_without_the_rating_loss_the_trunk_is_the_same_to_the_bit(
    tiny_dataset: Path, objective: str, clip: float
) -> None:
    """Neither by a gradient nor by the norm that gradients are clipped to; the rating head itself learns."""
    with_ratings = trained(tiny_dataset, objective, with_ratings=True, clip=clip).state_dict()
    without = trained(tiny_dataset, objective, with_ratings=False, clip=clip).state_dict()
    of_head = {name for name in with_ratings if name.startswith("rating.")}
    differ = {name for name in with_ratings if not torch.equal(with_ratings[name], without[name])}
    assert differ == of_head


def test_the_average_is_that_of_its_formula(tiny_dataset: Path) -> None:
    """average += (1 - d) (weights - average), d = min(ema, (s + 1) / (s + 10)) after update s."""
    updater = updater_of(tiny_dataset, ema=0.5)
    assert updater.average_model is not None
    expected = {name: weight.double() for name, weight in updater.model.state_dict().items()}
    for step, arrays in batches(tiny_dataset, "causal", 14):
        updater.apply(updater.prepare(arrays, step))
        decay = min(0.5, (step + 1) / (step + 10))
        for name, weight in updater.model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * weight.double()
    for name, weight in updater.average_model.state_dict().items():
        torch.testing.assert_close(weight.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_without_an_average_the_trained_weights_are_used(tiny_dataset: Path) -> None:
    """`ema` 0 is off."""
    assert updater_of(tiny_dataset, ema=0).average_model is None

"""Popularity and mean rating, and the weighting that makes their losses comparable with a model's."""

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items
from streamfeat.stream.stream import WindowStream
from train.config import TrainConfig
from train.devices.launch import Launch
from train.devices.ranks import World
from train.training.baseline_losses import popularity_nats, score_baselines
from train.training.loop import train_steps
from train.training.progress import Started
from train.training.validation import UserMeans, validation_batches

ALONE = World(Launch(), torch.device("cpu"))
TARGETS = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100)), max_size=30)


@given(parts=st.lists(TARGETS, max_size=4))
def test_every_user_counts_alike(parts: list[list[tuple[int, float]]]) -> None:
    """The mean over users of the mean over a user's targets, in however many windows those lie."""
    means, by_user = UserMeans(), defaultdict(list)
    for part in parts:
        means.add(np.array([loss for _, loss in part], np.float32), np.array([user for user, _ in part], np.int32))
        for user, loss in part:
            by_user[user].append(float(np.float32(loss)))
    loss, num_users = means.result(ALONE)
    assert num_users == len(by_user)
    if not by_user:
        assert loss is None
    else:
        expected = math.fsum(math.fsum(losses) / len(losses) for losses in by_user.values()) / len(by_user)
        assert loss == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_popularity_is_smoothed_counts_within_a_medium() -> None:
    """P = (count + .5) / (sum + .5 · items of the medium); an item that no one watched can still be predicted."""
    nats = popularity_nats(np.array([3, 0, 1, 7]), (0, 3, 4))
    assert np.exp(-nats) == pytest.approx([3.5 / 5.5, 0.5 / 5.5, 1.5 / 5.5, 1.0])


@pytest.mark.parametrize(("objective", "policy"), [("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed")])
def test_baselines_equal_a_naive_loop_over_the_validation_targets(
    tiny_dataset: Path, objective: str, policy: str
) -> None:
    """Token by token over the split, a dictionary of lists per user."""
    manifest, items = load_manifest(tiny_dataset), read_items(tiny_dataset)
    config = TrainConfig(objective=objective, mask_policy=policy, batch_tokens=64)  # type: ignore[arg-type]
    losses, users = score_baselines(
        validation_batches(tiny_dataset, manifest, config, ALONE), manifest, items.targets, ALONE
    )

    counts: dict[str, float] = defaultdict(float)
    for medium, count in zip(items.medium, items.targets, strict=True):
        counts[medium] += count + 0.5
    rating_mean = {scale.medium: scale.rating_mean for scale in manifest.scales}
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    stream = WindowStream(
        tiny_dataset, objective=objective, mask_policy=policy, batch_windows=1, split="validation"  # type: ignore[arg-type]
    )  # fmt: skip
    for arrays in stream:
        for token in range(arrays["item"].shape[1]):
            at = {name: array[0, token] for name, array in arrays.items() if array.ndim == 2}
            if at["weight_item"] > 0:
                item = at["target_item"]
                medium = items.medium[item]
                nats = -math.log((items.targets[item] + 0.5) / counts[medium])
                found[f"{medium}_watch"][at["user"]].append(nats)
            if at["weight_rating"] > 0:
                item = at["target_item"] if at["weight_item"] > 0 else at["item"]
                medium = items.medium[item]
                error = (float(at["target_rating"]) - rating_mean[medium]) ** 2
                found[f"{medium}_rating"][at["user"]].append(error)
    assert set(losses) == {"anime_watch", "anime_rating", "manga_watch", "manga_rating"}
    for task, loss in losses.items():
        means = [sum(values) / len(values) for values in found[task].values()]
        assert users[task] == len(means)
        assert loss == (pytest.approx(sum(means) / len(means), rel=1e-9) if means else None)
    assert any(users.values())


def test_a_run_tells_its_baselines_before_the_first_step(tmp_path: Path, tiny_dataset: Path) -> None:
    """They stand beside the model's losses from the beginning."""
    records = train_steps(tiny_dataset, tmp_path / "run", {"steps": 1, "layers": 1, "width": 16})
    started = next(record for record in records if isinstance(record, Started))
    records.close()  # type: ignore[attr-defined]
    manifest = load_manifest(tiny_dataset)
    batches = validation_batches(tiny_dataset, manifest, TrainConfig(), ALONE)
    expected = score_baselines(batches, manifest, read_items(tiny_dataset).targets, ALONE)
    assert (started.baselines, started.validation_users) == expected

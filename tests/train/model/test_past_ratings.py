"""Residuals in batches of real datasets: what others gave an item, whoever is asked and in whatever split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamfeat import WindowStream
from streamfeat.builder.coordinator import build_shards
from streamfeat.config import SplitName
from streamfeat.schema import PLANNED
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import load_manifest
from train.config import new_config
from train.model.batch import BatchFacts, evidence_of
from train.terms.ratings import Units
from train.terms.terms import build_terms

Others = dict[int, list[tuple[int, float]]]  # item → (user, deviation minus the user's bias)


@pytest.fixture(scope="module", params=["last:2", "users:0.3"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    folder = tmp_path_factory.mktemp("split")
    source = load_manifest(tiny_dataset).sources[0].path
    # Windows hold whole histories, so that all ratings of a user are in view or are targets.
    build_shards([source], folder / "data", window_len=512, split=request.param, chunk_windows=2, shard_windows=8)
    return folder / "data"


def facts_of(dataset: Path, **options: Any) -> BatchFacts:
    manifest = load_manifest(dataset)
    return BatchFacts.of(manifest, new_config(options), build_terms(dataset, manifest))


def batches(dataset: Path, split: SplitName, **options: Any) -> Iterator[dict[str, NDArray[Any]]]:
    with WindowStream(dataset, batch_windows=2, split=split, **options) as stream:
        yield from stream


def training_ratings(dataset: Path, facts: BatchFacts) -> Others:
    manifest, held_out, found = load_manifest(dataset), read_held_out(dataset), {}
    units = Units.of(manifest)
    with HistoryReader(dataset, manifest) as reader:
        for user, num in enumerate(held_out.training_events.tolist()):
            history = reader.read(user, user + 1)
            for item, rating, status in zip(history.item[:num], history.rating, history.status, strict=False):
                if not np.isnan(rating) and status != PLANNED:
                    deviation = units.deviations(np.array([item]), np.array([rating]))[0]
                    found.setdefault(int(item), []).append((user, float(deviation - facts.ratings.bias_U[user])))
    return found


@pytest.mark.parametrize("split", ["training", "validation"])
def test_a_residual_is_held_against_what_others_gave(dataset: Path, split: SplitName) -> None:
    """The mean of the item over the training ratings of all other users, damped by 5 ratings."""
    facts = facts_of(dataset)
    ratings, compared = training_ratings(dataset, facts), 0
    units = Units.of(load_manifest(dataset))
    for arrays in batches(dataset, split, objective="causal"):
        evidence = evidence_of(arrays, facts, split)
        for place in np.argwhere(evidence.in_view_BT & arrays["rating_known"])[::3]:
            item, user = int(arrays["item"][*place]), int(arrays["user"][*place])
            others = [x for of, x in ratings.get(item, []) if of != user]
            deviation = units.deviations(np.array([item]), arrays["rating"][*place][None])[0]
            expected = deviation - sum(others) / (len(others) + 5)
            assert evidence.residual_BT[*place] == pytest.approx(expected, abs=1e-4)
            compared += 1
    assert compared > 30


@pytest.mark.parametrize("policy", ["disjoint", "seed"])
@pytest.mark.parametrize("split", ["training", "validation"])
def test_no_target_of_a_masked_objective_is_in_view(dataset: Path, policy: Any, split: SplitName) -> None:
    """Whatever its item and rating show; every other event is, unless it is planned."""
    facts = facts_of(dataset, objective="masked", mask_policy=policy)
    for arrays in batches(dataset, split, objective="masked", mask_policy=policy):
        is_target = (arrays["weight_item"] > 0) | (arrays["weight_rating"] > 0)
        assert is_target.any()
        is_event = (arrays["item"] < facts.schema.num_items) & (arrays["status"] != PLANNED)
        np.testing.assert_array_equal(evidence_of(arrays, facts, split).in_view_BT, is_event & ~is_target)

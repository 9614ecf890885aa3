"""Residuals in batches of real datasets: what others gave an item, whoever is asked and in whatever split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamfeat import WindowStream
from streamfeat.builder.coordinator import build_shards
from streamfeat.config import SplitName
from streamfeat.schema import PLANNED
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import load_manifest
from train.config import new_config
from train.model.batch import BatchFacts, evidence_of, to_batch
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


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_neither_a_target_nor_a_later_rating_reaches_the_factors_of_a_history(
    invented_batch: Any, objective: str
) -> None:
    """Causal: what follows a token changes nothing of what its history says. Masked: no target does, anywhere."""
    invented = invented_batch(objective=objective)
    causal, model = objective == "causal", invented.model()
    with torch.no_grad():
        for table in (
            model.rating.rated,
            model.rating.seen,
            model.rating.attention.asked,
            model.rating.attention.rated,
        ):
            table.weight.normal_(std=0.3)

    def said(changed: Any) -> torch.Tensor:
        batch = to_batch(changed.arrays, changed.rows, changed.facts, torch.device("cpu"), split="validation")
        found = model.rating.of_history(batch, causal=causal)
        sums = found.sums.view(*changed.arrays["item"].shape[:1], -1, found.sums.shape[-1])
        return torch.cat((sums[:, 1:].flatten(0, 1), found.told_N[:, None]), 1)

    before = said(invented)
    for window, start, stop in invented.segments():
        cut = (start + stop) // 2
        first = window * invented.arrays["item"].shape[1]

        def change(arrays: Any, row: int = window, later: slice = slice(cut, stop)) -> None:
            if causal:
                arrays["rating"][row, later] += 3
            arrays["target_rating"][row] += 3

        after = said(invented.changed(change))
        np.testing.assert_allclose(
            after[first + start : first + cut].detach(), before[first + start : first + cut].detach(), atol=1e-6
        )
        if causal and (invented.arrays["rating_known"][window, cut:stop]).any():
            assert not torch.equal(after, before)

"""Strength of transitions and shares of a mixture are what validation gains most from, over all ranks."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from train.inference.scorer import Scorer
from train.model.batch import to_batch
from train.runs.standing import Mixture
from train.training import mixtures
from train.training.loop import train_steps
from train.training.mixtures import STRENGTHS, MixtureTrial, with_hidden_times

CPU = torch.device("cpu")


def losses(gains: list[float], noise: float, num_users: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users with two targets each, whose losses at strength s are lower by gains[s] on average. A part is of no use."""
    rng = np.random.default_rng(0)
    of_user = 5 + rng.normal(0, 1, (num_users, 1)) - np.array(gains) + rng.normal(0, noise, (num_users, len(gains)))
    of_user[:, 0] = 5
    return np.repeat(np.arange(num_users), 2), np.repeat(of_user, 2, 0), np.zeros((2 * num_users, 1))


def test_the_lowest_loss_counts_if_its_gain_is_above_its_error() -> None:
    """A weaker strength if that is as good within the error, strength 0 if no gain is clear or there is one user."""
    peak = [0, 0.1, 0.2, 0.3, 0.2, 0.1, -0.3]
    clear = mixtures._best(*losses(peak, 0.05))
    assert clear.strength == STRENGTHS[int(np.argmax(peak))]
    assert clear.gain > clear.error > 0
    user, table, part = losses(peak, 0.05)
    table[:, 2] = table[:, 3] + np.where(user % 2, 0.2, -0.19)  # worse by .005, error .03
    assert mixtures._best(user, table, part).strength == STRENGTHS[2]
    unclear = np.full((20, 7), 5.0)
    unclear[:10, 2], unclear[10:, 2] = 4, 5.9  # gain .05, error .22
    assert mixtures._best(np.arange(20), unclear, np.zeros((20, 1))).strength == 0
    assert mixtures._best(*losses([0, -0.1, -0.2, -0.3, -0.4, -0.5, -0.6], 0.05)).strength == 0
    alone = mixtures._best(*losses(peak, 0.05, num_users=1))
    assert (alone.strength, alone.shares, alone.gain) == (0, (0,), 0)


def test_users_have_equal_weights_however_many_targets_they_have() -> None:
    """A user with many targets does not decide alone."""
    user = np.append(np.zeros(100, int), np.arange(1, 21))
    table = np.full((120, 7), 5.0)
    table[:100, 3], table[100:, 3] = 6, 4
    found = mixtures._best(user, table, np.zeros((120, 1)))
    assert found.strength == STRENGTHS[3]
    assert found.gain == pytest.approx(19 / 21)
    # A part that is right about half of the users, who have ten targets each, gets a half.
    user = np.append(np.repeat(np.arange(10), 10), np.arange(10, 20))
    right = (user < 10).astype(float)[:, None]
    assert mixtures._best(user, np.full((110, 7), 5.0), right).shares[0] == pytest.approx(0.5, abs=0.01)


def test_a_model_that_is_too_sure_gets_the_temperature_that_validation_gains_most_from() -> None:
    """At each strength of transitions the best of the temperatures."""
    num, by = len(mixtures.TEMPERATURES), 2
    table = np.full((40, len(STRENGTHS), num), 5.0) + np.random.default_rng(0).normal(0, 0.1, (40, 1, 1))
    table[:, 3, by] = 4
    found = mixtures._best(np.arange(40), table.reshape(40, -1), np.zeros((40, 1)))
    assert (found.strength, found.temperature) == (STRENGTHS[3], mixtures.TEMPERATURES[by])
    table[:, :, by] = 4
    found = mixtures._best(np.arange(40), table.reshape(40, -1), np.zeros((40, 1)))
    assert (found.strength, found.temperature) == (0, mixtures.TEMPERATURES[by])


def test_shares_are_those_from_which_targets_were_drawn() -> None:
    """A part that explains nothing gets nothing; without a gain the model keeps all."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(40, 0.1), 4)  # the model and three parts, over 40 items
    shares = np.array([0.6, 0.1, 0.3, 0.0])
    item = rng.choice(40, 20_000, p=shares @ probs)
    table = -np.log(np.repeat(probs[:1, item].T, len(STRENGTHS), 1))
    found = mixtures._best(np.arange(len(item)), table, probs[1:, item].T)
    np.testing.assert_allclose(found.shares, shares[1:], atol=0.02)
    assert found.gain > 10 * found.error
    item = rng.choice(40, 2_000, p=probs[0])
    table = -np.log(np.repeat(probs[:1, item].T, len(STRENGTHS), 1))
    assert not any(mixtures._best(np.arange(len(item)), table, probs[1:, item].T).shares)


def test_the_model_keeps_a_share_so_that_no_item_is_impossible() -> None:
    """Also where a part foresees all targets of validation, and the model none."""
    probs_NP = np.tile([[1e-6, 0.0, 0.9]], (50, 1))
    shares = mixtures._fitted(probs_NP, np.full(50, 1 / 50))
    assert shares[0] > 0.004
    np.testing.assert_allclose(shares.sum(), 1)


def test_at_most_eight_targets_of_a_segment_are_tried_and_its_last_one_is() -> None:
    """Whatever the order of the targets."""
    first = np.repeat([0, 100, 110], [100, 10, 90])
    tokens = np.random.default_rng(0).permutation(np.r_[3:99, 101:109, 150])
    chosen = tokens[mixtures._spread(tokens, first)]
    for low, high, most in ((0, 100, 8), (100, 110, 8), (110, 200, 1)):
        of_segment = chosen[(chosen >= low) & (chosen < high)]
        assert 1 <= len(of_segment) <= most
        assert tokens[(tokens >= low) & (tokens < high)].max() in of_segment


class TwoRanks:
    """A world whose other rank is another trial."""

    def __init__(self, mine: MixtureTrial, other: MixtureTrial) -> None:
        self.arrays = iter(
            np.concatenate(parts) for name in other._users for parts in (other._users[name], other._found[name])
        )

    def concatenated(self, array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, next(self.arrays)])


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_two_ranks_choose_what_one_rank_chooses(invented_batch, objective: str, told: bool) -> None:
    """Each reads some of the windows."""
    invented = invented_batch(objective=objective)
    model = invented.model().eval()

    def trial_of(windows: slice) -> MixtureTrial:
        trial = MixtureTrial(invented.facts, 4, told=told)
        batch = to_batch(invented.arrays, windows, invented.facts, CPU, split="validation")
        with torch.no_grad():
            states = model(batch).flatten(0, 1)
        trial.add(model, states, batch, {name: array[windows] for name, array in invented.arrays.items()})
        return trial

    whole = trial_of(slice(0, 4)).result(SimpleNamespace(concatenated=lambda array: array))
    first, second = trial_of(slice(0, 1)), trial_of(slice(1, 4))
    found = first.result(TwoRanks(first, second))  # type: ignore[arg-type]
    assert set(whole) == {"medium_0", "medium_1"}
    for medium, chosen in whole.items():
        assert chosen.strength == found[medium].strength
        assert chosen.shares == pytest.approx(found[medium].shares)
        assert chosen.gain == pytest.approx(found[medium].gain)
        assert chosen.error == pytest.approx(found[medium].error)
    assert any(chosen.gain for chosen in whole.values()), "untrained, the model gains from the parts"


def test_the_times_of_all_targets_are_hidden_and_no_others(invented_batch) -> None:
    """Causal: no told time is known. Masked: the times of the targets are not, those of the other tokens stay."""
    arrays = invented_batch(objective="causal").arrays
    found = with_hidden_times(arrays, causal=True)
    assert arrays["told_time_known"].any()
    assert not found["told_time_known"].any()
    assert not found["told_time"].any()
    np.testing.assert_array_equal(found["time_known"], arrays["time_known"])
    arrays = invented_batch(objective="masked").arrays
    found = with_hidden_times(arrays, causal=False)
    is_target = (arrays["weight_item"] > 0) | (arrays["weight_rating"] > 0)
    assert arrays["time_known"][is_target].any()
    assert not found["time_known"][is_target].any()
    np.testing.assert_array_equal(found["time"][~is_target], arrays["time"][~is_target])
    np.testing.assert_array_equal(found["time_known"][~is_target], arrays["time_known"][~is_target])


def test_a_checkpoint_keeps_its_mixtures_and_the_scorer_uses_them(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the best validation up to its step, for told and for hidden times."""
    numbers = itertools.count(1)

    def chosen(*_: object) -> Mixture:
        return Mixture(strength=next(numbers) / 100, shares=(0.1,) * 6, gain=0.1, error=0.01)

    monkeypatch.setattr(mixtures, "_best", chosen)
    run = tmp_path / "run"
    given = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "steps": 24, "validate_every": 8}
    notes = [str(step) for step in train_steps(tiny_dataset, run, {**given, "checkpoint_every": 4, "keep": 9})]
    assert any("scored as a mixture, anime gains 0.1000 nats (time hidden: 0.1000)" in note for note in notes)
    for step in (8, 12, 16, 20, 24):
        of_run = Scorer.of_run(run, checkpoint=f"step-{step:08d}").mixtures
        first = of_run["anime"].told.strength
        assert of_run["manga"].told.strength == pytest.approx(first + 0.01)
        assert of_run["anime"].hidden.strength == pytest.approx(first + 0.02)
        assert step // 8 * 4 - 3 >= round(first * 100), "of a validation up to this step"
    assert not Scorer.of_run(run, checkpoint="step-00000004").mixtures

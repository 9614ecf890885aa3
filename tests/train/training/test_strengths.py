"""The strength of transitions is what validation clearly gains most from, over all ranks."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from train.inference.scorer import Scorer
from train.model.batch import to_batch
from train.runs.standing import TransitionStrength
from train.training import strengths
from train.training.loop import train_steps
from train.training.strengths import STRENGTHS, StrengthTrial

CPU = torch.device("cpu")


def losses(gains: list[float], noise: float, num_users: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Users with two targets each, whose losses at strength s are lower by gains[s] on average."""
    rng = np.random.default_rng(0)
    of_user = 5 + rng.normal(0, 1, (num_users, 1)) - np.array(gains) + rng.normal(0, noise, (num_users, len(gains)))
    of_user[:, 0] = 5
    return np.repeat(np.arange(num_users), 2), np.repeat(of_user, 2, 0)


def test_the_lowest_loss_counts_if_its_gain_is_above_its_error() -> None:
    """A weaker strength if that is as good within the error, strength 0 if no gain is clear or there is one user."""
    peak = [0, 0.1, 0.2, 0.3, 0.2, 0.1, -0.3]
    clear = strengths._best(*losses(peak, 0.05))
    assert clear.strength == STRENGTHS[int(np.argmax(peak))]
    assert clear.gain > clear.error > 0
    user, table = losses(peak, 0.05)
    table[:, 2] = table[:, 3] + np.where(user % 2, 0.2, -0.19)  # worse by .005, error .03
    assert strengths._best(user, table).strength == STRENGTHS[2]
    unclear = np.full((20, 7), 5.0)
    unclear[:10, 2], unclear[10:, 2] = 4, 5.9  # gain .05, error .22
    assert strengths._best(np.arange(20), unclear).strength == 0
    assert strengths._best(*losses([0, -0.1, -0.2, -0.3, -0.4, -0.5, -0.6], 0.05)).strength == 0
    assert strengths._best(*losses(peak, 0.05, num_users=1)) == strengths._best(*losses([0] * 7, 0, num_users=1))


def test_users_have_equal_weights_however_many_targets_they_have() -> None:
    """A user with many targets does not decide alone."""
    user = np.append(np.zeros(100, int), np.arange(1, 21))
    table = np.full((120, 7), 5.0)
    table[:100, 3], table[100:, 3] = 6, 4
    assert strengths._best(user, table).strength == STRENGTHS[3]
    assert strengths._best(user, table).gain == pytest.approx(19 / 21)


def test_at_most_eight_targets_of_a_segment_are_tried_and_its_last_one_is() -> None:
    """Whatever the order of the targets."""
    first = np.repeat([0, 100, 110], [100, 10, 90])
    tokens = np.random.default_rng(0).permutation(np.r_[3:99, 101:109, 150])
    chosen = tokens[strengths._spread(tokens, first)]
    for low, high, most in ((0, 100, 8), (100, 110, 8), (110, 200, 1)):
        of_segment = chosen[(chosen >= low) & (chosen < high)]
        assert 1 <= len(of_segment) <= most
        assert tokens[(tokens >= low) & (tokens < high)].max() in of_segment


class TwoRanks:
    """A world whose other rank is another trial."""

    def __init__(self, mine: StrengthTrial, other: StrengthTrial) -> None:
        self.arrays = iter(
            np.concatenate(parts) for name in other._users for parts in (other._users[name], other._losses[name])
        )

    def concatenated(self, array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, next(self.arrays)])


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_two_ranks_choose_what_one_rank_chooses(invented_batch, objective: str) -> None:
    """Each reads some of the windows."""
    invented = invented_batch(objective=objective)
    model = invented.model().eval()

    def trial_of(windows: slice) -> StrengthTrial:
        trial = StrengthTrial(invented.facts, invented.facts.terms.transitions)
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
        assert chosen.gain == pytest.approx(found[medium].gain)
        assert chosen.error == pytest.approx(found[medium].error)
    assert any(chosen.strength for chosen in whole.values()), "untrained, the model gains from transitions"


def test_a_checkpoint_keeps_its_strengths_and_the_scorer_uses_them(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the last validation up to its step."""
    chosen = itertools.count(1)
    monkeypatch.setattr(
        strengths, "_best", lambda *_: TransitionStrength(strength=next(chosen) / 100, gain=0.1, error=0.01)
    )
    run = tmp_path / "run"
    given = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "steps": 24, "validate_every": 8}
    notes = [str(step) for step in train_steps(tiny_dataset, run, {**given, "checkpoint_every": 4, "keep": 9})]
    assert any("transitions of anime at 0.03 gain 0.1000 nats" in note for note in notes)
    wanted = {8: (0.01, 0.02), 12: (0.01, 0.02), 16: (0.03, 0.04), 20: (0.03, 0.04), 24: (0.05, 0.06)}
    for step, (anime, manga) in wanted.items():
        scorer = Scorer.of_run(run, checkpoint=f"step-{step:08d}")
        assert scorer.strengths == {"anime": anime, "manga": manga}
    assert not Scorer.of_run(run, checkpoint="step-00000004").strengths

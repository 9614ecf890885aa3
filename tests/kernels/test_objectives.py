"""Both objectives and all policies against their naive twins, and the rules that must hold whatever the data."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_objectives import Facts, Token, featurize

from streamfeat.config import StreamConfig
from streamfeat.schema import FloatCode, Schema
from streamfeat.store.manifest import Manifest
from streamfeat.stream.featurize import TOKEN_ARRAYS, Featurizer, allocate_buffers

CASES = [
    (objective, policy, split)
    for objective, policy in (("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed"))
    for split in ("training", "validation")
]
every_case = pytest.mark.parametrize(("objective", "policy", "split"), CASES)
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Windows:
    """Windows as tokens, and how they are stored."""

    facts: Facts
    schema: Schema
    tokens: list[list[Token]]

    def stored(self) -> Arrays:
        fields = {}
        for field in self.schema.token_fields():
            values = [[getattr(token, field.name) for token in window] for window in self.tokens]
            if field.name in ("rating", "completion"):
                code: FloatCode = getattr(self.schema, field.name)
                fields[field.name] = code.encode(np.array(values, np.float32))
            else:
                fields[field.name] = np.array(values, field.dtype)
        return fields

    def batch(
        self, config: dict[str, Any], rows: list[int], windows: list[int], seed: int = 0, epoch: int = 0,
        targets: str = "all",
    ) -> Arrays:  # fmt: skip
        """What the stream makes of these rows (-1: an empty window), numbered `windows`."""
        manifest = Manifest.model_construct(
            data_schema=self.schema, time_min=self.facts.time_min, time_max=self.facts.time_max,
            validation_targets=targets,
        )  # fmt: skip
        out = allocate_buffers(len(rows), self.schema.window_len)
        for array in out.arrays.values():
            array.fill(77)  # whatever the batch before left there
        number = np.array(windows, np.int64)
        featurizer = Featurizer(manifest, StreamConfig(batch_windows=len(rows), seed=seed, **config))
        featurizer.fill(self.stored(), np.array(rows, np.int64), number, np.arange(len(rows)), epoch, out)
        return out.arrays

    def number_of(self, rows: list[int]) -> list[int]:
        """Some window number of each row."""
        return [-1 if row < 0 else 1000 + 7 * row for row in rows]


@st.composite
def some_windows(draw: st.DrawFn) -> Windows:
    """A few windows of a dataset with one to three media: several users each, cropped ones, planned events,
    missing values, PAD tails, and windows of PAD alone."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    if draw(st.booleans()):
        sizes[0] += 70_000  # items no longer fit in 16 bits
    rating = FloatCode(dtype=draw(st.sampled_from(["uint8", "float32"])), scale_factor=0.5)
    schema = Schema(
        media=tuple(f"m{i}" for i in range(len(sizes))), medium_offsets=(0, *np.cumsum(sizes).tolist()), num_users=30,
        window_len=draw(st.integers(2, 20)), time_dtype=draw(st.sampled_from(["uint32", "int64"])), time_origin=10**9,
        rating=rating, completion=FloatCode(dtype="float32"), rating_max=10.0,
    )  # fmt: skip
    time_min = draw(st.integers(0, 500))
    facts = Facts(
        medium_offsets=schema.medium_offsets, num_users=30, window_len=schema.window_len, rating_max=10.0,
        time_min=time_min, time_max=time_min + draw(st.integers(0, 10**6)),
    )  # fmt: skip
    halves = st.integers(0, 20).map(lambda k: k / 2)
    event = st.builds(
        Token,
        item=st.integers(0, schema.num_items - 1), user=st.just(0), position=st.integers(0, schema.window_len - 1),
        time=st.integers(0, 2**32 - 1), rating=st.one_of(st.just(math.nan), halves), status=st.integers(0, 4),
        completion=st.sampled_from([0.0, 0.25, 1.0, math.nan]),
    )  # fmt: skip
    histories = st.lists(st.tuples(st.booleans(), st.lists(event, max_size=12)), max_size=5)
    tokens = [_window(facts, drawn) for drawn in draw(st.lists(histories, min_size=1, max_size=4))]
    return Windows(facts, schema, tokens)


def _window(facts: Facts, histories: list[tuple[bool, list[Token]]]) -> list[Token]:
    """The histories, with CLS or cropped, end to end, cut or padded to the window's length."""
    tokens: list[Token] = []
    for user, (has_cls, events) in enumerate(histories):
        tokens += [facts.cls(user)] * has_cls + [event._replace(user=user) for event in events]
    return (tokens + [facts.pad()] * facts.window_len)[: facts.window_len]


@pytest.fixture(scope="module")
def many() -> Windows:
    """64 windows of 512 tokens over two media: histories of about 30 events, a fifth of them planned."""
    rng = np.random.default_rng(3)
    facts = Facts((0, 50, 80), num_users=5000, window_len=512, rating_max=10.0, time_min=100, time_max=10_000)
    schema = Schema(
        media=("anime", "manga"), medium_offsets=facts.medium_offsets, num_users=5000, window_len=512,
        time_dtype="uint32", time_origin=0, rating=FloatCode(dtype="uint8"), completion=FloatCode(dtype="float32"),
        rating_max=10.0,
    )  # fmt: skip
    tokens, user = [], 0
    for _ in range(64):
        window: list[Token] = []
        while len(window) < 512:
            user += 1
            window.append(facts.cls(user))
            for position in range(int(rng.integers(1, 60))):
                rating = float(rng.integers(0, 11)) if rng.random() < 0.6 else math.nan
                window.append(Token(int(rng.integers(80)), user, position, int(rng.integers(100, 10_000)), rating,
                                    int(rng.integers(5)), 1.0))  # fmt: skip
        tokens.append(window[:512])
    return Windows(facts, schema, tokens)


def _config(objective: str, policy: str, split: str) -> dict[str, Any]:
    return {"objective": objective, "mask_policy": policy, "split": split}


@every_case
@pytest.mark.parametrize("targets", ["all", "last"])
@given(windows=some_windows(), data=st.data())
@settings(max_examples=30)
def test_a_batch_is_what_the_naive_twin_makes_of_each_window(
    objective: str, policy: str, split: str, targets: str, windows: Windows, data: st.DataObject
) -> None:
    """Every array, exactly; for windows in any order, twice or empty; a dataset whose validation asks for the last
    events only trains as any other."""
    rows = data.draw(st.lists(st.integers(-1, len(windows.tokens) - 1), min_size=1, max_size=5))
    seed, epoch = data.draw(st.integers(0, 2**63 - 1)), data.draw(st.integers(0, 3))
    numbers = windows.number_of(rows)
    batch = windows.batch(_config(objective, policy, split), rows, numbers, seed, epoch, targets)
    empty = [windows.facts.pad()] * windows.facts.window_len
    for i, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        expected = featurize(
            empty if row < 0 else windows.tokens[row], windows.facts, objective=objective, policy=policy,
            split=split, seed=seed, epoch=epoch, window=number,
            last_only=targets == "last" and split == "validation",
        )  # fmt: skip
        assert set(expected) == set(TOKEN_ARRAYS)
        for name, values in expected.items():
            np.testing.assert_array_equal(batch[name][i], np.array(values, TOKEN_ARRAYS[name]), f"{name} of row {i}")
    assert batch["window"].tolist() == numbers


@every_case
@given(windows=some_windows(), data=st.data())
@settings(max_examples=30)
def test_nothing_crosses_users(objective: str, policy: str, split: str, windows: Windows, data: st.DataObject) -> None:
    """A history's arrays stay as they are when every other history of its window changes."""
    config = _config(objective, policy, split)
    before = windows.batch(config, [0], [5])
    users = sorted({token.user for token in windows.tokens[0]} - {windows.facts.pad().user})
    if not users:
        return
    kept = data.draw(st.sampled_from(users))
    other = Token(0, 0, 1, 4_000_000, 3.5, 2, 0.25)
    changed = [
        token if token.user in (kept, windows.facts.pad().user) else other._replace(user=token.user)
        for token in windows.tokens[0]
    ]
    after = replace(windows, tokens=[changed]).batch(config, [0], [5])
    own = np.array([token.user == kept for token in changed])
    for name in TOKEN_ARRAYS:
        np.testing.assert_array_equal(before[name][0][own], after[name][0][own], name)


@every_case
def test_a_window_is_masked_alike_wherever_it_stands_in_a_batch(
    many: Windows, objective: str, policy: str, split: str
) -> None:
    """Masks are pure functions of (seed, epoch, window, token, purpose, split)."""
    config = _config(objective, policy, split)
    rows = list(range(16))
    batch = many.batch(config, rows, many.number_of(rows))
    shuffled = [3, 0, -1, 12, 5, 9]
    other = many.batch(config, shuffled, many.number_of(shuffled))
    for i, row in enumerate(shuffled):
        for name in TOKEN_ARRAYS:
            if row >= 0:
                np.testing.assert_array_equal(batch[name][row], other[name][i], name)


@pytest.mark.parametrize(("objective", "policy"), [("masked", "disjoint"), ("masked", "seed")])
def test_other_seeds_epochs_windows_and_splits_mask_other_tokens(many: Windows, objective: str, policy: str) -> None:
    """Each counter of a draw counts."""
    rows = list(range(8))
    training = _config(objective, policy, "training")
    picks = [
        many.batch(config, rows, numbers, seed, epoch)["weight_item"] > 0
        for config, numbers, seed, epoch in (
            (training, rows, 0, 0), (training, rows, 1, 0), (training, rows, 0, 1), (training, [r + 8 for r in rows],
             0, 0), (_config(objective, policy, "validation"), rows, 0, 0),
        )
    ]  # fmt: skip
    for i, first in enumerate(picks):
        for second in picks[i + 1 :]:
            assert (first != second).any(axis=1).all()


@every_case
def test_planned_events_are_never_targets_nor_are_their_ratings(
    many: Windows, objective: str, policy: str, split: str
) -> None:
    """A planned event is input only, and stays as it is."""
    batch, original = _with_original(many, objective, policy, split)
    planned = np.zeros_like(original["event"])
    shift = 1 if objective == "causal" else 0
    planned[:, : 512 - shift] = (original["event"] & (original["status"] == 0))[:, shift:]
    assert planned.any()
    assert not batch["weight_item"][planned].any()
    assert not batch["weight_rating"][planned].any()
    if objective == "masked":
        for name in ("item", "status", "position", "time"):
            np.testing.assert_array_equal(batch[name][planned], original[name][planned])


@every_case
def test_special_tokens_are_never_targets(many: Windows, objective: str, policy: str, split: str) -> None:
    """Targets are items of the vocabulary, about events; CLS can only be asked for the event after it."""
    batch, original = _with_original(many, objective, policy, split)
    asked = (batch["weight_item"] > 0) | (batch["weight_rating"] > 0)
    assert asked.any()
    assert (batch["target_item"] < many.facts.num_items).all()
    if objective == "masked":
        assert original["event"][asked].all()
    else:
        assert (original["item"] == many.facts.num_items)[asked].any(), "CLS predicts the first event"


@pytest.mark.parametrize(("objective", "policy"), [case[:2] for case in CASES[::2]])
def test_in_validation_a_users_targets_of_a_task_weigh_one_together(many: Windows, objective: str, policy: str) -> None:
    """Weights are 1 / (number of the user's targets of that task in the window); in training each is 1."""
    for split in ("training", "validation"):
        batch, _ = _with_original(many, objective, policy, split)
        medium = np.searchsorted(many.facts.medium_offsets, batch["target_item"], side="right") - 1
        for weight in (batch["weight_item"], batch["weight_rating"]):
            for of_user, m in _users_and_media(batch, medium):
                weights = weight[of_user & (medium == m) & (weight > 0)]
                if split == "training":
                    assert (weights == 1).all()
                elif len(weights):
                    np.testing.assert_array_equal(weights, np.float32(1 / len(weights)))


def test_the_last_event_is_asked_for_its_rating_by_half_of_the_users_whatever_the_window(many: Windows) -> None:
    """Policy `disjoint`, last targets only: a draw by user, of those whose last event is rated; the others are asked
    for the item. About 1,100 users: bounds of five standard deviations."""
    config, rows = _config("masked", "disjoint", "validation"), list(range(64))
    batch = many.batch(config, rows, rows, seed=11, targets="last")
    elsewhere = many.batch(config, rows, [7 * row + 3 for row in rows], seed=11, targets="last")
    for name in TOKEN_ARRAYS:
        np.testing.assert_array_equal(batch[name], elsewhere[name], name)
    last = np.array([[t + 1 == 512 or w[t].user != w[t + 1].user for t in range(512)] for w in many.tokens])
    _, original = _with_original(many, "masked", "disjoint", "validation")
    asked_item, asked_rating = batch["weight_item"] > 0, batch["weight_rating"] > 0
    np.testing.assert_array_equal(asked_item | asked_rating, last & original["target"])
    assert not (asked_item & asked_rating).any()
    assert asked_item[last & original["target"] & ~original["rated"]].all()
    assert _share(asked_rating, last & original["rated"]) == pytest.approx(0.5, abs=0.1)


def _users_and_media(batch: Arrays, medium: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.bool_], int]]:
    for row in range(4):
        for segment in range(batch["segment"][row].max() + 1):
            chosen = np.zeros(medium.shape, np.bool_)
            chosen[row] = batch["segment"][row] == segment
            for m in (0, 1):
                yield chosen, m


def _with_original(many: Windows, objective: str, policy: str, split: str) -> tuple[Arrays, Arrays]:
    """A batch of every window, and the tokens before masking."""
    rows = list(range(64))
    batch = many.batch(_config(objective, policy, split), rows, rows, seed=11)
    original = {name: np.array([[getattr(t, name) for t in w] for w in many.tokens]) for name in Token._fields}
    original["event"] = original["item"] < many.facts.num_items
    original["target"] = original["event"] & (original["status"] != 0)
    original["rated"] = original["target"] & ~np.isnan(original["rating"])
    return batch, original


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return float((part & whole).sum() / whole.sum())


def test_seed_training_masks_at_the_notebooks_rates(many: Windows) -> None:
    """15% picked; item and rating .8 / .1 / .1, time and position .45 / .45 / .1, status and completion always.

    About 25,000 events with a target, 3,900 picked: bounds of five standard deviations.
    """
    batch, original = _with_original(many, "masked", "seed", "training")
    picked = batch["weight_item"] > 0
    assert _share(picked, original["target"]) == pytest.approx(0.15, abs=0.012)
    masked = {
        "item": batch["item"] == 82, "rating": ~batch["rating_known"], "time": ~batch["time_known"],
        "position": batch["position"] == 514,
    }  # fmt: skip
    for name, low, high in (("item", 0.8, 0.1), ("time", 0.45, 0.45), ("position", 0.45, 0.45)):
        kept = batch[name] == original[name]
        assert _share(masked[name], picked) == pytest.approx(low, abs=0.04), name
        # A random value may be the old one: of 30 or 50 items rarely, of times and positions hardly ever.
        assert _share(kept & ~masked[name], picked) == pytest.approx(high, abs=0.045), name
    rated = picked & original["rated"]
    assert _share(masked["rating"], rated) == pytest.approx(0.8, abs=0.05)
    assert _share(batch["rating"] == original["rating"], rated & ~masked["rating"]) == pytest.approx(0.5, abs=0.1)
    unrated = picked & ~original["rated"]
    assert _share(batch["rating_known"], unrated) == pytest.approx(0.1, abs=0.04), "a random rating where none was"
    assert (batch["status"] == 7)[picked].all()
    assert not batch["completion_known"][picked].any()


def test_seed_training_draws_random_values_from_their_ranges(many: Windows) -> None:
    """Items of the same medium, ratings of [0, rating_max + 1), whole seconds of the training range, positions
    of the window."""
    batch, original = _with_original(many, "masked", "seed", "training")
    picked = batch["weight_item"] > 0
    item = picked & (batch["item"] != 82) & (batch["item"] != original["item"])
    medium = np.searchsorted((50,), original["item"], side="right")
    np.testing.assert_array_equal(np.searchsorted((50,), batch["item"][item], side="right"), medium[item])
    rating = batch["rating"][picked & batch["rating_known"] & (batch["rating"] != original["rating"])]
    assert rating.min() >= 0
    assert 10 < rating.max() < 11
    assert len(np.unique(rating)) > 100, "not whole numbers"
    time = batch["time"][picked & batch["time_known"] & (batch["time"] != original["time"])]
    assert 100 <= time.min() < 400
    assert 9_700 < time.max() < 10_000
    position = batch["position"][picked & (batch["position"] != 514) & (batch["position"] != original["position"])]
    assert 0 <= position.min() < 20
    assert 490 < position.max() < 512


def test_seed_validation_masks_everything_but_position_and_medium(many: Windows) -> None:
    """Item, rating, time, status and completion are masked; position, medium and user are kept."""
    batch, original = _with_original(many, "masked", "seed", "validation")
    picked = batch["weight_item"] > 0
    assert _share(picked, original["target"]) == pytest.approx(0.15, abs=0.012)
    assert (batch["item"] == 82)[picked].all()
    assert (batch["status"] == 7)[picked].all()
    for name in ("rating", "time", "completion"):
        assert not batch[f"{name}_known"][picked].any()
    for name in ("position", "user"):
        np.testing.assert_array_equal(batch[name], original[name])


@pytest.mark.parametrize("split", ["training", "validation"])
def test_disjoint_asks_for_an_item_or_for_a_rating_never_both(many: Windows, split: str) -> None:
    """10% of the item targets; of the rating targets that remain 10%, with the item in view. Time stays."""
    batch, original = _with_original(many, "masked", "disjoint", split)
    watch, rated = batch["weight_item"] > 0, batch["weight_rating"] > 0
    assert not (watch & rated).any()
    assert _share(watch, original["target"]) == pytest.approx(0.10, abs=0.01)
    assert _share(rated, original["rated"] & ~watch) == pytest.approx(0.10, abs=0.015)
    assert (batch["item"] == 82)[watch].all()
    np.testing.assert_array_equal(batch["item"][~watch], original["item"][~watch])
    np.testing.assert_array_equal(batch["target_item"][rated], original["item"][rated])
    assert not batch["rating_known"][watch | rated].any()
    assert not batch["completion_known"][watch | rated].any()
    assert (batch["status"] == 7)[watch | rated].all()
    for name in ("time", "position"):
        np.testing.assert_array_equal(batch[name], original[name])
    assert batch["time_known"][watch | rated].all()


def test_only_the_causal_objective_tells_times(many: Windows) -> None:
    """Under the masked objective no told time is known."""
    for policy in ("disjoint", "seed"):
        batch, _ = _with_original(many, "masked", policy, "training")
        assert not batch["told_time_known"].any()
        assert not batch["told_time"].any()


def test_causal_training_hides_the_told_times_of_a_tenth_of_the_segments(many: Windows) -> None:
    """All of a segment or none; validation tells them all. A token's own time stays its own."""
    for split, share, tolerance in (("training", 0.1, 0.05), ("validation", 0.0, 0.0)):
        batch, original = _with_original(many, "causal", "disjoint", split)
        segments = [
            batch["told_time_known"][row][batch["segment"][row] == segment][:-1]
            for row in range(64)
            for segment in range(batch["segment"][row].max() + 1)
        ]
        segments = [known for known in segments if len(known)]
        assert all(known.all() or not known.any() for known in segments)
        assert np.mean([not known.any() for known in segments]) == pytest.approx(share, abs=tolerance)
        np.testing.assert_array_equal(batch["time"], original["time"])
        np.testing.assert_array_equal(batch["time_known"], original["event"])


def test_causal_leaves_the_input_as_it_is(many: Windows) -> None:
    """Nothing is masked: item, rating, status, completion and position are the store's."""
    batch, original = _with_original(many, "causal", "disjoint", "training")
    for name in ("item", "user", "position", "status"):
        np.testing.assert_array_equal(batch[name], original[name])
    np.testing.assert_array_equal(batch["rating_known"], ~np.isnan(original["rating"]))
    np.testing.assert_array_equal(batch["rating"], np.nan_to_num(original["rating"]))

"""The evaluation of a dataset that was split by time: what is asked, of whom, and that nothing after a cut is known."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented_events import at_the_same_time, invent_events, write_csv
from reference_build import Event

from streamfeat.builder.coordinator import build_shards
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import Manifest, load_manifest
from streamfeat.store.tables import read_items, read_user_ids
from train.evaluation.cases import read_cases
from train.evaluation.evaluate import evaluate_steps
from train.evaluation.figures import Evaluation
from train.training.loop import train_steps

KS = (1, 5, 10)
OPTIONS: dict[str, Any] = {"window_len": 32, "split": "time:0.2", "chunk_windows": 2, "shard_windows": 8}
STEPS: dict[str, Any] = {"steps": 6, "layers": 1, "width": 16, "batch_tokens": 256}


@dataclass(frozen=True)
class Data:
    """A dataset, and for each raw user the events as plain Python sorts them."""

    root: Path
    manifest: Manifest
    histories: dict[str, list[Event]]

    @property
    def cut(self) -> int:
        """Unix seconds."""
        assert self.manifest.time_split is not None
        return self.manifest.time_split.test_start

    def asked(self) -> dict[str, int]:
        """User → place of the target, of the users who have an event before the cut and a target after it."""
        found = {}
        for user, history in self.histories.items():
            places = [place for place, e in enumerate(history) if e.status != 0 and e.time >= self.cut]
            if places and history[0].time < self.cut:
                found[user] = places[0]
        return found


def sorted_histories(events: list[Event]) -> dict[str, list[Event]]:
    """The last of equal events counts, in its own place."""
    users: dict[str, dict[tuple[str, str, int], tuple[int, Event]]] = {}
    for number, event in enumerate(events):
        users.setdefault(event.user, {})[event.item, event.medium, event.time] = (number, event)
    return {
        user: [e for _, e in sorted(found.values(), key=lambda pair: (pair[1].time, pair[0]))]
        for user, found in users.items()
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Two media; every fourth of the late events is of an item that is new. Tests only read it."""
    folder = tmp_path_factory.mktemp("cut")
    events = at_the_same_time(invent_events(seed=5, num_users=90, media={"anime": 60, "manga": 20}))
    late = sorted(event.time for event in events)[-len(events) // 5]
    events = [
        replace(event, item="late", medium="anime") if event.time > late and number % 4 == 0 else event
        for number, event in enumerate(events)
    ]
    build_shards([str(write_csv(folder / "events.csv", events))], folder / "data", **OPTIONS)
    return Data(folder / "data", load_manifest(folder / "data"), sorted_histories(events))


@pytest.fixture(scope="module", params=["causal", "masked"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Data) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        for _ in train_steps(data.root, path, STEPS | {"objective": request.param}):
            pass
    return path


def result(steps: Iterator[Any]) -> Evaluation:
    *_, last = steps
    assert isinstance(last, Evaluation)
    return last


def test_the_target_is_each_known_users_first_one_after_the_cut(data: Data) -> None:
    """With all events before it, those between the cuts and planned ones after the cut included."""
    raw_ids, items = read_user_ids(data.root), read_items(data.root)
    origin, asked = data.manifest.data_schema.time_origin, data.asked()
    found = {}
    with HistoryReader(data.root, data.manifest) as reader:
        for cases, looked_at in read_cases(reader, read_held_out(data.root), 7, data.cut - origin):
            assert looked_at == len(cases.user) <= 7
            for row, user in enumerate(cases.user.tolist()):
                history = data.histories[raw_ids[user]]
                place = found[raw_ids[user]] = len(cases.histories[row])
                target = history[place]
                assert (items.medium[cases.item[row]], items.raw_id[cases.item[row]]) == (target.medium, target.item)
                assert cases.time[row] == target.time - origin
                assert (np.isnan(cases.rating[row]) and target.rating is None) or cases.rating[row] == target.rating
                assert cases.histories[row].time.tolist() == [e.time - origin for e in history[:place]]
                assert cases.past.take(np.array([row])).time.tolist() == [
                    e.time - origin for e in history[:place] if e.status != 0
                ]
    assert found == asked
    assert any(data.histories[user][place - 1].time >= data.cut for user, place in asked.items())


def test_the_protocol_counts_new_users_and_unseen_targets(data: Data, run: Path) -> None:
    """And names the cut."""
    assert data.manifest.time_split is not None
    asked = data.asked()
    first = data.manifest.time_split.validation_start
    trained = {(e.medium, e.item) for h in data.histories.values() for e in h if e.time < first and e.status != 0}
    new = [h for h in data.histories.values() if h[0].time >= data.cut and any(e.status != 0 for e in h)]
    targets = [data.histories[user][place] for user, place in asked.items()]
    found = result(evaluate_steps(run, ks=KS, num_bootstrap=20))
    assert len({line.system for line in found.ranking}) > 4
    for line in found.ranking:
        protocol = line.protocol
        of_medium = [target for target in targets if protocol.medium in ("all", target.medium)]
        assert (protocol.users, protocol.new_users) == (len(of_medium), len(new))
        assert protocol.users_without_target == len(data.histories) - len(asked)
        assert protocol.unseen_targets == sum((t.medium, t.item) not in trained for t in of_medium)
        assert (protocol.test_start, protocol.split) == (data.cut, "time:0.2")
        assert protocol.target == "first event with an item target from the cut on"
    assert len(new) > 1
    assert found.ranking[0].protocol.unseen_targets > 1

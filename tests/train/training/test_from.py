"""`train --from RUN`: items keep their weights by medium and raw id, whatever their number."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from invented_events import invent_events, write_csv
from reference_build import Event

import streamfeat
from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import ConfigError
from streamfeat.progress import Note
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items
from train.config import TrainConfig, new_config
from train.model.carry import rows_of
from train.model.transformer import EventTransformer
from train.runs.checkpoint import Checkpoints, read_checkpoint
from train.runs.metrics import read_metrics
from train.runs.record import read_record
from train.terms.terms import build_terms
from train.training.loop import train_steps
from train.training.progress import Carried, Saved, Started, Stepped, TrainingReport, Validated

GIVEN: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 200, "steps": 8, "validate_every": 4}
BUILT: dict[str, Any] = {"window_len": 32, "split": "users:0.2", "chunk_windows": 2, "shard_windows": 8}

pytestmark = pytest.mark.usefixtures("one_thread")


def build(folder: Path, events: list[Event], **options: Any) -> Path:
    folder.mkdir()
    build_shards([str(write_csv(folder / "events.csv", events))], folder / "data", **{**BUILT, **options})
    return folder / "data"


@pytest.fixture(scope="session")
def grown_dataset(tmp_path_factory: pytest.TempPathFactory, tiny_events: list[Event]) -> Path:
    """A later state of `tiny_dataset`: a third of its items are gone, others are new, a medium is new, and another
    medium comes first, so that no item keeps its number."""
    more = invent_events(seed=8, num_users=30, media={"anime": 45, "books": 10})
    kept = [event for event in tiny_events if int(event.item[1:]) % 3]
    new = [replace(event, user=f"later-{event.user}") for event in more]
    return build(tmp_path_factory.mktemp("from") / "grown", kept + new)


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A run on `tiny_dataset`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("from") / "old"
    list(train_steps(tiny_dataset, run, GIVEN))
    torch.set_num_threads(before)
    return run


def best(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / (run / "best").read_text().strip()).weights


def start_of(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(Checkpoints(run).path(0)).trained


def until(kind: type, records: Iterator[TrainingReport]) -> list[TrainingReport]:
    """The reports up to the first one of that kind; then the run is left as a kill leaves it."""
    seen = []
    for record in records:
        seen.append(record)
        if isinstance(record, kind):
            break
    records.close()  # type: ignore[attr-defined]
    return seen


def found(kind: type, records: list[TrainingReport]) -> Any:
    [one] = [record for record in records if isinstance(record, kind)][:1]
    return one


def keys_of(dataset: Path) -> list[tuple[str, str]]:
    items = read_items(dataset)
    return list(zip(items.medium, items.raw_id, strict=True))


def test_items_keep_their_rows_by_medium_and_raw_id(
    tmp_path: Path, tiny_dataset: Path, grown_dataset: Path, old: Path
) -> None:
    """In every table of items; new items get their medium's mean, special tokens and all other weights stay."""
    records = until(Saved, train_steps(grown_dataset, tmp_path / "run", start_from=old))
    before, after, was, now = best(old), start_of(tmp_path / "run"), keys_of(tiny_dataset), keys_of(grown_dataset)
    place = {key: number for number, key in enumerate(was)}
    carried = [number for number, key in enumerate(now) if key in place]
    assert [place[now[number]] for number in carried] != carried  # otherwise this test proves nothing
    rows = [place[now[number]] for number in carried]
    factors = [f"rating.{name}.weight" for name in ("asked", "rated", "seen")]
    of_items = ["inputs.item.weight", "watch.bias_V", "rating.bias_V", *factors]
    for name in of_items:
        assert torch.equal(after[name][carried], before[name][rows]), name
    item = "inputs.item.weight"
    assert torch.equal(after[item][len(now) :], before[item][len(was) :])
    of_anime = [number for number in carried if now[number][0] == "anime"]
    new = [number for number, key in enumerate(now) if key[0] == "anime" and key not in place]
    assert new
    for number in new:
        torch.testing.assert_close(after[item][number], after[item][of_anime].mean(0))
    media, old_media = (load_manifest(data).data_schema.media for data in (grown_dataset, tiny_dataset))
    for number, medium in enumerate(media):
        if medium in old_media:
            for name in ("inputs.medium.weight", "watch.popularity.bias_M2F"):
                assert torch.equal(after[name][number], before[name][old_media.index(medium)])
    assert torch.equal(after["inputs.medium.weight"][len(media) :], before["inputs.medium.weight"][len(old_media) :])
    by_row = {*of_items, "inputs.medium.weight", "watch.popularity.bias_M2F"}
    for name in before.keys() - by_row:
        assert torch.equal(before[name], after[name]), name
    counts = {of.medium: (of.carried, of.new, of.dropped) for of in found(Carried, records).media}
    for medium in ("anime", "manga", "books"):
        mine, theirs = ({key for key in keys if key[0] == medium} for keys in (now, was))
        assert counts[medium] == (len(mine & theirs), len(mine - theirs), len(theirs - mine))


@pytest.mark.parametrize(("objective", "policy"), [("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed")])
def test_every_table_of_items_or_media_is_declared(
    tiny_dataset: Path, grown_dataset: Path, objective: str, policy: str
) -> None:
    """The parameters whose shape follows from a dataset are those that the modules name. An undeclared one would be
    carried in the wrong order."""
    shapes = []
    for data in (tiny_dataset, grown_dataset):
        manifest = load_manifest(data)
        config = new_config({"objective": objective, "mask_policy": policy})
        model = EventTransformer.of(manifest, config, read_items(data).targets, build_terms(data, manifest))
        shapes.append({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    differing = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    by_item, by_medium = rows_of(model, "by_item"), rows_of(model, "by_medium")
    assert differing == by_item | by_medium
    num = [load_manifest(data).data_schema for data in (tiny_dataset, grown_dataset)]
    for name in by_item:
        assert shapes[1][name][0] - shapes[0][name][0] == num[1].num_items - num[0].num_items
    for name in by_medium:
        assert shapes[1][name][0] - shapes[0][name][0] == len(num[1].media) - len(num[0].media)


def test_weights_carried_there_and_back_are_the_same_bits(
    tmp_path: Path, tiny_dataset: Path, tiny_events: list[Event], old: Path
) -> None:
    """To a dataset of the same items, of which rare ones have become frequent and so have other numbers, and back."""
    rare = keys_of(tiny_dataset)[20:29]
    more = [Event(f"more{n % 40}", raw_id, medium, 1_305_000_000 + n) for n, (medium, raw_id) in enumerate(rare * 30)]
    data = build(tmp_path / "reordered", tiny_events + more)
    assert sorted(keys_of(data)) == sorted(keys_of(tiny_dataset))
    until(Saved, train_steps(data, tmp_path / "there", start_from=old))
    until(Saved, train_steps(tiny_dataset, tmp_path / "back", start_from=tmp_path / "there"))
    before, there, back = best(old), start_of(tmp_path / "there"), start_of(tmp_path / "back")
    assert not torch.equal(before["inputs.item.weight"], there["inputs.item.weight"])
    for name in before:
        assert torch.equal(before[name], back[name]), name


def test_validation_comes_before_the_first_step_and_is_the_best_until_it_is_beaten(
    tmp_path: Path, tiny_dataset: Path, old: Path
) -> None:
    """On the dataset of the old run the figures are its own; a learning rate that ruins the weights leaves them."""
    records = list(train_steps(tiny_dataset, tmp_path / "run", {"learning_rate": 1.0}, start_from=old))
    first = found(Validated, records)
    assert first.figures.step == 0
    theirs = found(Carried, records).figures
    assert first.figures.losses == pytest.approx(theirs.losses, rel=1e-6)
    assert [type(record) for record in records].index(Validated) < [type(record) for record in records].index(Stepped)
    assert (tmp_path / "run/best").read_text() == "checkpoints/step-00000000\n"
    assert read_metrics(tmp_path / "run")[0]["step"] == 0
    shown = "\n".join(record.text for record in records if isinstance(record, Note))
    assert f"starting with the weights of {old.resolve()} after step {theirs.step}" in shown
    assert re.search(r"; anime: \d\d items carried, 0 new, 0 dropped; manga: \d\d items carried, 0 new", shown)
    assert "step 0: validation loss" in shown


def test_a_run_says_when_it_may_have_learned_from_users_of_the_validation(
    tmp_path: Path, tiny_dataset: Path, grown_dataset: Path, old: Path
) -> None:
    """`users:F` draws other users from a grown dataset; `last:2` draws none."""
    last = build(tmp_path / "last", invent_events(seed=9, num_users=30, media={"anime": 45}), split="last:2")
    for number, (data, expected) in enumerate(((grown_dataset, True), (tiny_dataset, False), (last, False))):
        records = until(Saved, train_steps(data, tmp_path / f"run{number}", start_from=old))
        shown = "\n".join(record.text for record in records if isinstance(record, Note))
        assert found(Carried, records).may_know_users == expected
        assert ("may have learned from them" in shown) == expected


def test_options_that_are_not_given_are_those_of_the_old_run(tmp_path: Path, tiny_dataset: Path, old: Path) -> None:
    """Given ones win; steps and epochs replace each other; where it started is in config.json."""
    until(Saved, train_steps(tiny_dataset, tmp_path / "run", {"learning_rate": 0.5, "epochs": 3}, start_from=old))
    record = read_record(tmp_path / "run")
    theirs = read_record(old).train
    expected = {**theirs.model_dump(), "learning_rate": 0.5, "epochs": 3, "steps": 0}
    assert record.train == TrainConfig.model_validate(expected)
    assert record.started_from is not None
    assert record.started_from.run == str(old.resolve())
    assert f"step-{record.started_from.step:08d}" in (old / "best").read_text()


def test_python_starts_from_a_run_or_its_folder(tmp_path: Path, tiny_dataset: Path, old: Path) -> None:
    """`start_from`, since `from` is a word of the language."""
    for number, source in enumerate((old, str(old), streamfeat.open_run(old))):
        run = streamfeat.train(tiny_dataset, tmp_path / f"run{number}", start_from=source, steps=1, progress=False)
        assert run.record.started_from is not None
        assert run.metrics[0]["step"] == 0
    with pytest.raises(ConfigError, match="start_from: an empty path"):
        streamfeat.train(tiny_dataset, tmp_path / "run", start_from="")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 32}, r"--width: 16 there, given 32"),
        ({"layers": 2, "heads": 4}, r"(?s)--layers: 1 there, given 2.*--heads: 2 there, given 4"),
        ({"feed_forward": 3.0}, r"--feed-forward: 2.0 there, given 3.0"),
        ({"objective": "masked"}, r"--objective: causal there, given masked"),
        ({"preset": "small"}, r"--preset: tiny there, given small"),
    ],
)
def test_options_that_contradict_the_weights_are_refused_with_both_values(
    tmp_path: Path, tiny_dataset: Path, old: Path, given: dict[str, Any], message: str
) -> None:
    """Nothing is written."""
    with pytest.raises(ConfigError, match=message):
        list(train_steps(tiny_dataset, tmp_path / "run", given, start_from=old))
    assert not (tmp_path / "run").exists()


def test_a_run_stopped_before_or_after_its_first_checkpoint_resumes_to_the_bit(
    tmp_path: Path, grown_dataset: Path, old: Path
) -> None:
    """Left after config.json was written, after the first checkpoint, and after steps; the last two without the old
    run."""
    undisturbed = tmp_path / "undisturbed"
    list(train_steps(grown_dataset, undisturbed, start_from=old))
    for number, kind in enumerate((Started, Saved, Validated, Stepped)):
        run, source = tmp_path / f"run{number}", tmp_path / f"old{number}"
        shutil.copytree(old, source)
        until(kind, train_steps(grown_dataset, run, start_from=source))
        if kind is not Started:
            shutil.rmtree(source)
        list(train_steps(grown_dataset, run, resume=True))
        assert_same(run, undisturbed)


def assert_same(run: Path, other: Path) -> None:
    times = ("tokens_per_s", "wait_share")
    mine, theirs = (
        [{key: value for key, value in line.items() if key not in times} for line in read_metrics(of)]
        for of in (run, other)
    )
    assert mine == theirs
    one, another = (read_checkpoint(Checkpoints(of).path(8)) for of in (run, other))
    for kind in ("weights", "trained", "optimizer"):
        left, right = getattr(one, kind), getattr(another, kind)
        assert left.keys() == right.keys()
        for name in left:
            assert torch.equal(left[name], right[name]), name


def test_a_run_without_a_checkpoint_needs_the_weights_that_it_began_with(
    tmp_path: Path, tiny_dataset: Path, grown_dataset: Path, old: Path
) -> None:
    """If they are gone or others, it says so and names the remedy."""
    source, run = tmp_path / "old", tmp_path / "run"
    shutil.copytree(old, source)
    until(Started, train_steps(grown_dataset, run, start_from=source))
    shutil.rmtree(source)
    with pytest.raises(ConfigError, match=r"before its first checkpoint.*no run here.*--overwrite"):
        list(train_steps(grown_dataset, run, resume=True))
    list(train_steps(tiny_dataset, source, {**GIVEN, "seed": 1}))
    with pytest.raises(ConfigError, match=r"other weights|before its first checkpoint"):
        list(train_steps(grown_dataset, run, resume=True))


def test_from_and_resume_must_agree(tmp_path: Path, tiny_dataset: Path, old: Path) -> None:
    """The same run is no contradiction, another one is; so is any for a run that did not start from one. Without a run
    to resume, one begins."""
    run = tmp_path / "run"
    until(Stepped, train_steps(tiny_dataset, run, start_from=old, resume=True))
    assert read_record(run).started_from is not None
    until(Stepped, train_steps(tiny_dataset, run, start_from=old, resume=True))
    shutil.copytree(old, tmp_path / "other")
    with pytest.raises(ConfigError, match=rf"started from {old.resolve()}, not from {tmp_path / 'other'}"):
        list(train_steps(tiny_dataset, run, start_from=tmp_path / "other", resume=True))
    with pytest.raises(ConfigError, match="did not start from another run"):
        list(train_steps(tiny_dataset, tmp_path / "other", start_from=old, resume=True))


def test_what_cannot_be_started_from_is_refused(
    tmp_path: Path, tiny_dataset: Path, tiny_events: list[Event], old: Path
) -> None:
    """The run itself, a folder without a run, a dataset without a known item."""
    with pytest.raises(ConfigError, match="folder of the new run itself"):
        list(train_steps(tiny_dataset, old, start_from=old, overwrite=True))
    with pytest.raises(ConfigError, match="no run here"):
        list(train_steps(tiny_dataset, tmp_path / "run", start_from=tmp_path / "nothing"))
    strange = build(tmp_path / "strange", [replace(event, item=f"x{event.item}") for event in tiny_events])
    with pytest.raises(ConfigError, match="none of its 48 items is known"):
        list(train_steps(strange, tmp_path / "run", start_from=old))
    assert not (tmp_path / "run").exists()

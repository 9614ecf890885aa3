"""`docs/format.md` is enough: a reader written from it alone rebuilds our batches, and it names all there is.

The reader below knows nothing of `streamfeat`; the tests alone build datasets with it and compare.
"""

import csv
import hashlib
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from invented_events import invent_events, write_csv
from numpy.typing import NDArray

PAGE = (Path(__file__).parents[1] / "docs/format.md").read_text("utf-8")

Arrays = dict[str, NDArray[Any]]
Load = Callable[[Path], Arrays]

FIELDS = ("item", "user", "position", "time", "rating", "status", "completion")


# --- Draws


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(seed: int, *counters: Any) -> NDArray[np.uint64]:
    """Counters may be arrays, which broadcast."""
    state = splitmix64(np.asarray(seed).astype(np.uint64))
    for counter in counters:
        state = splitmix64(state ^ np.asarray(counter).astype(np.uint64))
    return state


def unit(d: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (d >> np.uint64(11)) / 2.0**53


def below(d: NDArray[np.uint64], n: Any) -> NDArray[np.int64]:
    return (((d >> np.uint64(32)) * np.asarray(n).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def permutation(seed: int, *counters: int, num: int) -> NDArray[np.int64]:
    return np.argsort(draw(seed, *counters, np.arange(num)), kind="stable")


# --- Arrays of a packing, decoded: NaN where a rating or completion is missing


def load_with_zarr(group: Path) -> Arrays:
    zarr = pytest.importorskip("zarr")
    opened = zarr.open_group(str(group), mode="r")
    return {name: decoded(np.asarray(opened[name]), dict(opened[name].attrs)) for name in FIELDS}


def load_with_tensorstore(group: Path) -> Arrays:
    tensorstore = pytest.importorskip("tensorstore")
    arrays = {}
    for name in FIELDS:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(group / name)}}
        stored = tensorstore.open(spec, read=True).result().read().result()
        arrays[name] = decoded(stored, json.loads((group / name / "zarr.json").read_text("utf-8"))["attributes"])
    return arrays


def load_with_xarray(group: Path) -> Arrays:
    xarray = pytest.importorskip("xarray")
    found = xarray.open_zarr(
        group.parents[1], group=f"{group.parent.name}/{group.name}", consolidated=False, chunks=None
    )
    assert dict(found.sizes).keys() == {"window", "token"}
    return {name: found[name].to_numpy() for name in FIELDS}  # xarray decodes scale_factor and _FillValue


def decoded(stored: NDArray[Any], attributes: dict[str, Any]) -> NDArray[Any]:
    if "scale_factor" not in attributes:
        return stored
    values = (stored * attributes["scale_factor"]).astype(np.float32)
    return np.where(stored == attributes["_FillValue"], np.float32(np.nan), values)


LOADERS = [load_with_zarr, load_with_tensorstore, load_with_xarray]


class PageReader:
    """The batches of a dataset, as the page describes them."""

    def __init__(self, root: Path, load: Load, *, split: str, seed: int, batch_windows: int) -> None:
        self.manifest = json.loads((root / "dataset.json").read_text("utf-8"))
        self.root, self.load, self.split, self.seed, self.batch_windows = root, load, split, seed, batch_windows
        self.counts = self.manifest["splits"][split]
        self.special = self.manifest["special_tokens"]
        self.offsets = np.array(self.manifest["schema"]["medium_offsets"])

    def epoch(self, epoch: int, objective: str, policy: str) -> list[Arrays]:
        """Every global batch of an epoch."""
        epoch = 0 if self.split == "validation" else epoch
        packing = epoch % self.counts["packings"]
        stored = self.load(self.root / "windows.zarr" / self.split / str(packing))
        key = (self.seed, (0, 1)[self.split == "validation"], epoch)
        return [self.batch(stored, windows, key, objective, policy) for windows in self.order(key)]

    # --- An epoch: which window when

    def order(self, key: tuple[int, int, int]) -> list[NDArray[np.int64]]:
        seed, s, e = key
        num, chunk_len, batch = self.counts["windows"], self.counts["chunk_windows"], self.batch_windows
        per_shard = self.counts["shard_windows"] // chunk_len
        num_chunks = -(-num // chunk_len)
        shards = permutation(seed, 6, s, e, num=-(-num_chunks // per_shard))
        chunks: list[int] = []
        for i in range(0, len(shards), 4):
            four = np.concatenate(
                [np.arange(k * per_shard, min((k + 1) * per_shard, num_chunks)) for k in shards[i : i + 4]]
            )
            chunks += four[np.argsort(draw(seed, 7, s, e, four), kind="stable")].tolist()
        if num % chunk_len:
            chunks.remove(num_chunks - 1)
            chunks.append(num_chunks - 1)
        num_lanes = next(n for n in (24, 16, 12, 8, 6, 4, 3, 2, 1) if batch % n == 0)
        lanes: list[list[int]] = [[] for _ in range(num_lanes)]

        def windows_of(chunk: int) -> list[int]:
            windows = np.arange(chunk * chunk_len, min((chunk + 1) * chunk_len, num))
            return windows[np.argsort(draw(seed, 8, s, e, windows), kind="stable")].tolist()

        num_dealt = num // chunk_len // num_lanes * num_lanes
        for i, chunk in enumerate(chunks[:num_dealt]):
            lanes[i % num_lanes] += windows_of(chunk)
        for i, window in enumerate(window for chunk in chunks[num_dealt:] for window in windows_of(chunk)):
            lanes[i % num_lanes].append(window)
        num_steps, share = -(-num // batch), batch // num_lanes
        table = np.full((num_lanes, num_steps * share), -1)
        for lane, windows in enumerate(lanes):
            table[lane, : len(windows)] = windows
        return [table[:, b * share : (b + 1) * share].reshape(-1) for b in range(num_steps)]

    # --- A batch: arrays

    def batch(
        self, stored: Arrays, windows: NDArray[np.int64], key: tuple[int, int, int], objective: str, policy: str
    ) -> Arrays:
        out = self.shown(stored, windows)
        out |= {"window": windows, "slot": np.arange(len(windows))}
        seed, s, e = key
        place = np.arange(out["item"].shape[1])
        rows = np.maximum(windows, 0)[:, None]  # an empty window has no event to draw for

        def drawn(purpose: int) -> NDArray[np.uint64]:
            return draw(seed, purpose, s, e, rows, place)

        event = out["item"] < self.offsets[-1]
        wants = event & (out["status"] != 0)
        rates = wants & out["rating_known"]
        last_only = self.split == "validation" and self.manifest["validation_targets"] == "last"
        ends = (out["segment"] >= 0) & (
            out["segment"] != np.append(out["segment"][:, 1:], np.full_like(windows, -2)[:, None], 1)
        )
        if objective == "causal":
            self.ask_next(out, wants & (ends | (not last_only)), rates & (ends | (not last_only)), drawn)
        elif policy == "disjoint":
            watch = wants & (unit(drawn(9)) < 0.1)
            rated = rates & ~watch & (unit(drawn(10)) < 0.1)
            if last_only:
                rated = rates & ends & (unit(draw(seed, 22, s, e, out["user"])) < 0.5)
                watch = wants & ends & ~rated
            self.mask_disjoint(out, watch, rated)
        else:
            picked = wants & (ends if last_only else unit(drawn(9)) < 0.15)
            self.mask_seed(out, picked, picked & rates, drawn)
        if self.split == "validation":
            self.share_weights(out)
        return out

    def shown(self, stored: Arrays, windows: NDArray[np.int64]) -> Arrays:
        """Everything as stored, before masks; targets of nobody."""
        empty = windows < 0
        out: Arrays = {}
        for name in ("item", "user", "position", "status"):
            out[name] = np.where(empty[:, None], self.special[name]["pad"], stored[name][windows].astype(np.int32))
        item, user = out["item"], out["user"]
        medium = np.searchsorted(self.offsets[1:], item, side="right") + np.where(item == self.offsets[-1] + 1, 1, 0)
        is_pad = item == self.special["item"]["pad"]
        starts = np.ones(user.shape, bool)
        starts[:, 1:] = user[:, 1:] != user[:, :-1]
        out["medium"] = medium
        out["segment"] = np.where(is_pad, -1, np.cumsum(starts & ~is_pad, axis=1) - 1)
        out["time_known"] = item < self.offsets[-1]
        out["time"] = np.where(out["time_known"], stored["time"][windows].astype(np.int64), 0)
        for name in ("rating", "completion"):
            values = np.where(empty[:, None], np.nan, stored[name][windows])
            out[f"{name}_known"] = ~np.isnan(values)
            out[name] = np.nan_to_num(values).astype(np.float32)
        zeros = np.zeros(item.shape)
        out |= {
            name: zeros.copy() for name in ("told_time", "target_item", "target_rating", "weight_item", "weight_rating")
        }
        return out | {"told_time_known": zeros > 0}

    def ask_next(self, out: Arrays, wants: NDArray[Any], rates: NDArray[Any], drawn: Any) -> None:
        segment = out["segment"]
        follows = np.zeros(segment.shape, bool)
        follows[:, :-1] = (segment[:, 1:] == segment[:, :-1]) & (segment[:, 1:] >= 0)

        def following(values: NDArray[Any]) -> NDArray[Any]:
            return np.where(follows, np.roll(values, -1, axis=1), 0)

        out["weight_item"] = following(wants).astype(np.float32)
        out["weight_rating"] = following(rates).astype(np.float32)
        out["target_item"] = np.where(out["weight_item"] > 0, following(out["item"]), 0)
        out["target_rating"] = np.where(out["weight_rating"] > 0, following(out["rating"]), 0)
        hidden = np.zeros(segment.shape, bool)
        if self.split == "training":
            first = np.argmax(segment[:, :, None] == segment[:, None, :], axis=2)  # first token of each segment
            hidden = np.take_along_axis(unit(drawn(19)) < 0.1, first, axis=1)
        out["told_time_known"] = follows & ~hidden
        out["told_time"] = np.where(out["told_time_known"], following(out["time"]), 0)

    def mask_disjoint(self, out: Arrays, watch: NDArray[Any], rated: NDArray[Any]) -> None:
        self.aim(out, watch, rated, watch | rated)
        out["item"] = np.where(watch, self.special["item"]["mask"], out["item"])
        self.hide(out, "rating", watch | rated)

    def mask_seed(self, out: Arrays, picked: NDArray[Any], rated: NDArray[Any], drawn: Any) -> None:
        self.aim(out, picked, rated, picked)
        training = self.split == "training"

        def fate(purpose: int, masked: float) -> tuple[NDArray[Any], NDArray[Any]]:
            u = unit(drawn(purpose))
            return picked & (u < masked if training else True), picked & training & (u >= 0.9)

        hidden, random = fate(11, 0.8)
        low = self.offsets[np.minimum(out["medium"], len(self.offsets) - 2)]
        size = self.offsets[np.minimum(out["medium"], len(self.offsets) - 2) + 1] - low
        out["item"] = np.where(random, low + below(drawn(15), size), out["item"])
        out["item"] = np.where(hidden, self.special["item"]["mask"], out["item"])
        hidden, random = fate(12, 0.8)
        span = self.manifest["schema"]["rating_max"] + 1
        out["rating"] = np.where(random, (unit(drawn(16)) * span).astype(np.float32), out["rating"])
        out["rating_known"] = out["rating_known"] | random
        self.hide(out, "rating", hidden)
        hidden, random = fate(13, 0.45)
        low, high = self.manifest["time_min"], self.manifest["time_max"]
        out["time"] = np.where(random, np.floor(low + unit(drawn(17)) * (high - low)).astype(np.int64), out["time"])
        self.hide(out, "time", hidden)
        hidden, random = fate(14, 0.45)
        if training:
            window_len = self.manifest["schema"]["window_len"]
            out["position"] = np.where(random, below(drawn(18), window_len), out["position"])
            out["position"] = np.where(hidden, self.special["position"]["mask"], out["position"])

    def aim(self, out: Arrays, watch: NDArray[Any], rated: NDArray[Any], touched: NDArray[Any]) -> None:
        """Targets of masked tokens, and what all of them lose."""
        out["target_item"] = np.where(touched, out["item"], 0)
        out["target_rating"] = np.where(rated, out["rating"], 0)
        out["weight_item"], out["weight_rating"] = watch.astype(np.float32), rated.astype(np.float32)
        out["status"] = np.where(touched, self.special["status"]["mask"], out["status"])
        self.hide(out, "completion", touched)

    def hide(self, out: Arrays, name: str, hidden: NDArray[Any]) -> None:
        out[name] = np.where(hidden, 0, out[name])
        out[f"{name}_known"] = out[f"{name}_known"] & ~hidden

    def share_weights(self, out: Arrays) -> None:
        medium = np.searchsorted(self.offsets[1:], out["target_item"], side="right")
        for name in ("weight_item", "weight_rating"):
            asked = out[name] > 0
            alike = (out["segment"][:, :, None] == out["segment"][:, None, :]) & (
                medium[:, :, None] == medium[:, None, :]
            )
            counts = (alike & asked[:, None, :]).sum(axis=2)
            out[name] = np.where(asked, 1 / np.maximum(counts, 1), 0).astype(np.float32)


# --- The reader against the stream


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind of split: 247, 266 and 199 training windows of 5 tokens in chunks of 2; two packings."""
    from streamfeat.builder.coordinator import build_shards

    folder = tmp_path_factory.mktemp("page")
    events = write_csv(folder / "e.csv", invent_events(seed=7, num_users=121, media={"anime": 30, "manga": 20}))
    for split in ("users:0.2", "last:2", "time:0.2"):
        build_shards([str(events)], folder / split[:4], window_len=5, split=split, packings=2, chunk_windows=2,
                     shard_windows=16)  # fmt: skip
    return {"users": folder / "user", "last": folder / "last", "time": folder / "time"}


@pytest.mark.parametrize(("objective", "policy"), [("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed")])
@pytest.mark.parametrize(("kind", "split"), [
    ("users", "training"), pytest.param("users", "validation", marks=pytest.mark.slow), ("last", "validation"),
])  # fmt: skip
@pytest.mark.parametrize("load", LOADERS)
def test_the_page_is_enough_to_rebuild_every_batch(
    datasets: dict[str, Path], load: Load, kind: str, split: str, objective: str, policy: str
) -> None:
    """Two epochs: order, masks, targets, weights, told times, every array, through each reader of Zarr."""
    from streamfeat import WindowStream

    reader = PageReader(datasets[kind], load, split=split, seed=11, batch_windows=6)
    stream = WindowStream(datasets[kind], objective=objective, mask_policy=policy, split=split, seed=11,
                          batch_windows=6, copy=True)  # type: ignore[arg-type]  # fmt: skip
    assert reader.counts["chunk_windows"] == 2
    for epoch in (0, 1):
        ours, rebuilt = list(stream), reader.epoch(epoch, objective, policy)
        assert len(ours) == len(rebuilt) > 3
        for one, other in zip(ours, rebuilt, strict=True):
            assert one.keys() == other.keys()
            for name, values in one.items():
                np.testing.assert_array_equal(values, other[name].astype(values.dtype), name)


def test_the_batches_that_are_rebuilt_have_something_to_rebuild(datasets: dict[str, Path]) -> None:
    """Hidden told times, empty windows, shared weights, rating targets, last targets."""
    training = PageReader(datasets["users"], load_with_zarr, split="training", seed=11, batch_windows=6)
    causal = training.epoch(0, "causal", "disjoint")
    assert any((b["window"] < 0).any() for b in causal)
    assert any(((b["weight_item"] > 0) & ~b["told_time_known"]).any() for b in causal)
    validation = PageReader(datasets["users"], load_with_zarr, split="validation", seed=11, batch_windows=6)
    assert any(
        ((b["weight_item"] > 0) & (b["weight_item"] < 1)).any() for b in validation.epoch(0, "causal", "disjoint")
    )
    last = PageReader(datasets["last"], load_with_zarr, split="validation", seed=11, batch_windows=6)
    for policy in ("disjoint", "seed"):
        batches = last.epoch(0, "masked", policy)
        asked = sum(((b["weight_item"] > 0) | (b["weight_rating"] > 0)).sum() for b in batches)
        assert asked == last.manifest["splits"]["validation"]["users"] > 20
        assert sum((b["weight_rating"] > 0).sum() for b in batches) > 5


def test_the_test_vectors_of_the_page_hold() -> None:
    """Draws as the page defines them give the values that it lists."""
    assert int(splitmix64(np.uint64(0))) == 0xE220A8397B1DCDAF
    rows = re.findall(r"^\| draw\(([^)]*)\)[^|]*\| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) >= 5
    for arguments, value in rows:
        counters = [int(re.sub(r" .*", "", part.strip()), 0) for part in arguments.split(",") if part.strip()]
        if "FNV" not in arguments:
            assert int(draw(*counters)) == int(value), arguments
    assert permutation(20221221, 3, 0, 0, num=8).tolist() == [6, 5, 0, 2, 1, 4, 7, 3]


def test_the_page_names_every_purpose_of_a_draw() -> None:
    """With its number, which is part of the format."""
    from streamfeat.kernels import draws

    rows = re.findall(r"^\| ([\d, ]+) \|", section("Draws"), re.MULTILINE)
    numbers = {name: value for name, value in vars(draws).items() if name.isupper() and isinstance(value, int)}
    assert sorted(int(n) for row in rows for n in row.split(",")) == sorted(numbers.values())


def test_histories_and_tables_are_as_the_page_says(datasets: dict[str, Path]) -> None:
    """Offsets, partitions, events of each user, and what the splits may use of them."""
    zarr = pytest.importorskip("zarr")
    for kind, root in datasets.items():
        store = zarr.open_group(str(root / "histories.zarr"), mode="r")
        manifest = json.loads((root / "dataset.json").read_text("utf-8"))
        offsets = np.asarray(store["offsets"])
        users = pq.read_table(root / "users.parquet").to_pydict()
        items = pq.read_table(root / "items.parquet").to_pydict()
        assert users["id"] == list(range(len(offsets) - 1)) == list(range(manifest["schema"]["num_users"]))
        assert users["events"] == np.diff(offsets).tolist()
        assert np.asarray(store["partition_offsets"]).tolist()[-1] == len(users["id"])
        assert users["raw_id"] == sorted(users["raw_id"], key=str.encode)  # one partition
        item, time, status = (np.asarray(store[name]) for name in ("item", "time", "status"))
        assert np.bincount(item).tolist() == items["events"]
        popular = np.zeros(len(items["id"]), int)
        for user, (low, high) in enumerate(pairwise(offsets)):
            assert (np.diff(time[low:high].astype(np.int64)) >= 0).all()
            trained, validated = users["training_events"][user], users["validation_events"][user]
            targets = np.flatnonzero(status[low:high] != 0)
            if kind == "last":
                place = targets[-2] if len(targets) >= 3 else None
                assert (trained, validated) == ((high - low, 0) if place is None else (place, place + 1))
            elif kind == "time":
                first, second = (manifest["time_split"][f"{name}_start"] for name in ("validation", "test"))
                unix = time[low:high].astype(np.int64) + manifest["schema"]["time_origin"]
                asked = [place for place in targets if first <= unix[place] < second]
                assert trained == np.count_nonzero(unix < first)
                assert validated == (asked[0] + 1 if asked and trained else 0)
            else:
                assert (trained, validated) in ((high - low, 0), (0, high - low))
            assert users["split"][user] == ("training" if trained else "validation")
            mine = slice(low, low + trained)
            popular += np.bincount(item[mine][status[mine] != 0], minlength=len(popular))
        assert items["targets"] == popular.tolist()


def test_checksum_fingerprint_and_digests_are_as_the_page_says(datasets: dict[str, Path]) -> None:
    """From the manifest alone."""
    for root in datasets.values():
        manifest = json.loads((root / "dataset.json").read_text("utf-8"))
        checksum = manifest.pop("checksum")
        compact = json.dumps(manifest, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        assert hashlib.sha256(compact.encode()).hexdigest() == checksum
        config = {key: value for key, value in manifest["config"].items() if key not in ("packings", "max_rejected")}
        first = [
            r for r in manifest["receipts"]
            if r["kind"] in ("offsets", "history", "tables") or r.get("store") == "histories.zarr"
        ]  # fmt: skip
        files = sorted([file["path"], file["sha256"]] for receipt in first for file in receipt["files"])
        text = json.dumps([manifest["schema"], config, files], sort_keys=True, ensure_ascii=False)
        assert hashlib.sha256(text.encode()).hexdigest() == manifest["fingerprint"]
        for receipt in manifest["receipts"]:
            assert json.loads((root / "receipts" / f"{receipt['task']}.json").read_text("utf-8")) == receipt
            for file in receipt["files"]:
                content = (root / file["path"]).read_bytes()
                assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])


# --- The page names what there is, and nothing else


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that has something of everything: rejected rows, filters, columns by name, other codes."""
    from streamfeat.builder.coordinator import build_shards

    folder = tmp_path_factory.mktemp("messy")
    lines = ["who,item,medium,timestamp,rating,status,completion"]
    lines += [f"u{i % 9},i{i % 5},{'ab'[i % 2]},{1_400_000_000 + i},{i % 7}.5,completed,1" for i in range(90)]
    lines += """u1,i1,a,4000000000,1,watching,1
u1,i9,a,1400000000,1,planned,1
u1,i1,c,1400000000,1,planned,1
u1,i1,a,5,1,watching,1
lonely,i1,a,1400000000,1,watching,1
,i1,a,1400000000,1,watching,1
u1,i1,a,no,1,watching,1
u1,i1,a,1400000000,1""".splitlines()
    (folder / "e.csv").write_text("\n".join(lines) + "\n", "utf-8")
    build_shards([str(folder / "e.csv")], folder / "data", window_len=8, split="users:0.2", columns={"user": "who"},
                 status={"seen": "completed"}, constant={"title": "One"}, media=["a", "b"], keep_planned=False,
                 min_item_events=2,
                 min_user_events=2, max_rejected=0.5, compression="zstd")  # fmt: skip
    return folder / "data"


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}")[2].partition("\n## ")[0]


def flat(values: Any, prefix: str = "") -> set[str]:
    """The keys of a JSON value, dotted; `[]` is an element of a list of objects."""
    if isinstance(values, dict):
        return set().union(*(flat(value, f"{prefix}.{key}" if prefix else key) for key, value in values.items()))
    if isinstance(values, list) and values and isinstance(values[0], dict):
        return set().union(*(flat(value, f"{prefix}[]") for value in values))
    return {prefix}


def named_keys() -> list[str]:
    """The first column of the manifest's table."""
    rows = re.findall(r"^\| ([^|]+) \|", section("Manifest"), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def pattern_of(name: str) -> re.Pattern[str]:
    """`*` is one key."""
    return re.compile(re.escape(name).replace(r"\*", r"[^.\[]+") + "$")


def test_the_page_names_every_key_of_the_manifest_and_no_other(datasets: dict[str, Path], messy: Path) -> None:
    """Each key of four datasets fits a named one, and each named one is a key of one of them."""
    found = set()
    for root in (*datasets.values(), messy):
        found |= flat(json.loads((root / "dataset.json").read_text("utf-8")))
    found -= {"config.columns", "config.status"}  # of a dataset without any
    patterns = {name: pattern_of(name) for name in named_keys()}
    assert len(patterns) == len(named_keys()) > 60, "one is named twice"
    assert sorted(key for key in found if not any(p.match(key) for p in patterns.values())) == []
    assert sorted(name for name, p in patterns.items() if not any(p.match(key) for key in found)) == []


def test_the_page_names_every_count_of_cleaning(messy: Path, datasets: dict[str, Path]) -> None:
    """And each reason for which a row is rejected."""
    from streamfeat.events.casts import REASONS
    from streamfeat.events.text import LINE_REASONS

    text = section("Manifest").partition("- **Cleaning**:")[2].partition("\n- **")[0]
    reasons = set(re.findall(r"\w+", re.findall(r"\(([^)]+)\)", text)[0]))
    assert reasons == {*REASONS[1:], *LINE_REASONS.values()}
    named = set(re.findall(r"`([a-z_0-9]+)`", text))
    counts = set()
    for root in (messy, *datasets.values()):
        counts |= json.loads((root / "dataset.json").read_text("utf-8"))["cleaning"].keys()
    counts.add("undated")  # of lists alone
    assert {name for name in counts if not name.startswith("rejected_")} == named
    assert {name.removeprefix("rejected_") for name in counts if name.startswith("rejected_")} <= reasons
    with (messy / "rejected.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    listed = re.findall(r"`(\w+)`", " ".join(section("Tables").split()).partition("has the columns")[2])
    assert [list(row) for row in rows] == [listed] * len(rows)
    assert {row["reason"] for row in rows} <= reasons


def test_the_page_names_every_column_with_its_type(datasets: dict[str, Path]) -> None:
    """In the order of the file."""
    named: dict[str, list[tuple[str, str]]] = {}
    for file, column, kind in re.findall(r"^\| ([\w.]*) ?\| `(\w+)` \| (\w+)", section("Tables"), re.MULTILINE):
        table = file or table  # noqa: F821  an empty cell repeats the one above
        named.setdefault(table, []).append((column, kind))
    for table, columns in named.items():
        schema = pq.read_schema(datasets["users"] / table)
        assert [(field.name, str(field.type)) for field in schema] == columns
    assert named.keys() == {"items.parquet", "users.parquet"}


def test_the_page_names_every_attribute_and_dimension(datasets: dict[str, Path], messy: Path) -> None:
    """Of each group and array; what is named is there."""
    text = section("Zarr").partition("| where | attribute | content |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|[^|]*\|([^|]*)\|", text, re.MULTILINE))))
    documents = [
        (path.parent, json.loads(path.read_text("utf-8")))
        for root in (*datasets.values(), messy) for path in root.rglob("zarr.json")
    ]  # fmt: skip
    found = set().union(*(document["attributes"] for _, document in documents))
    assert found == named
    layout = section("Zarr")
    for folder, document in documents:
        if document["node_type"] == "array":
            assert all(re.search(rf"\b{name}\b", layout) for name in document["dimension_names"])
            assert re.search(rf"^\| (\w+, )*{folder.name}(, \w+)* \|", layout, re.MULTILINE), folder.name
            assert "long_name" in document["attributes"]
            (sharding,) = document["codecs"]
            names = [codec["name"] for codec in sharding["configuration"]["codecs"]]
            assert names in (["bytes", "blosc", "crc32c"], ["bytes", "zstd", "crc32c"])


def test_the_page_names_every_file_of_a_dataset(datasets: dict[str, Path], messy: Path) -> None:
    """At the top of the folder."""
    listing = PAGE.partition("```\n")[2].partition("```")[0]
    named = set(re.findall(r"^([a-z.]+)/? ", listing, re.MULTILINE))
    found = {path.name for root in (*datasets.values(), messy) for path in root.iterdir()} - {".lock"}
    assert found == named


def test_the_page_names_every_key_of_a_live_run() -> None:
    """`run.json` and the rank files."""
    from streamfeat.live.folder import LiveRun
    from streamfeat.live.positions import RankRecord

    text = section("Live runs").partition("```")[2].partition("```")[0]
    parts = dict(re.findall(r"^(run\.json|rank-\S+) +((?:.|\n +)+)", text, re.MULTILINE))
    for name, record in (("run.json", LiveRun), ("rank-⟨r⟩.json", RankRecord)):
        assert [key for key in record.model_fields if not re.search(rf"\b{key}\b", parts[name])] == []


def test_the_page_names_every_array_and_attribute_of_an_export(datasets: dict[str, Path], tmp_path: Path) -> None:
    """Both objectives; what is named is there."""
    from streamfeat.export import export_steps

    text = section("Exported features")
    arrays = text.partition("| array |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| ([^|]*) \|", arrays, re.MULTILINE))))
    attributes = " ".join(text.partition("Attributes of DEST")[2].split())
    of_group, of_array = (set(re.findall(r"`(\w+)`", part)) for part in attributes.split("Of an array:"))
    for objective in ("causal", "masked"):
        dest = tmp_path / objective
        list(export_steps(datasets["users"], dest, objective=objective))  # type: ignore[arg-type]
        group = json.loads((dest / "zarr.json").read_text("utf-8"))["attributes"]
        assert of_group - group.keys() == ({"mask_policy"} if objective == "causal" else set())
        assert group.keys() <= of_group
        found: dict[str, set[str]] = {}
        for path in dest.glob("*/zarr.json"):
            found[path.parent.name] = set(json.loads(path.read_text("utf-8"))["attributes"])
        expected = named - {name for name in named if "⟨" in name} | {"anime", "manga"}
        expected |= {
            name.replace("⟨medium⟩", medium).replace("⟨task⟩", task)
            for name in named if "⟨" in name for medium in ("anime", "manga") for task in ("item", "rating")
        } - {"item"}  # fmt: skip
        assert found.keys() == expected - {"item"}
        assert set().union(*found.values()) == of_array

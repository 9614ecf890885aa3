"""A built dataset opens in the tools that others use, and explains itself there."""

from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from streamfeat import load_manifest


def test_xarray_reads_windows_with_names_dimensions_and_decoded_ratings(tiny_dataset: Path) -> None:
    """CF decoding turns stored codes into ratings, missing ones into NaN."""
    manifest = load_manifest(tiny_dataset)
    windows = xr.open_zarr(tiny_dataset / "windows.zarr", group="training/1", consolidated=False)
    assert set(windows.data_vars) == {field.name for field in manifest.data_schema.token_fields()}
    assert windows["item"].dims == ("window", "token")
    assert dict(windows.sizes) == {"window": manifest.splits["training"].windows, "token": 32}
    for name, array in windows.data_vars.items():
        assert array.attrs["long_name"], name
    ratings = windows["rating"].values
    raw = zarr.open_group(str(tiny_dataset / "windows.zarr"), mode="r")["training/1/rating"][:]
    np.testing.assert_array_equal(ratings, manifest.data_schema.rating.decode(raw))
    assert set(np.unique(ratings[~np.isnan(ratings)])) == set(range(1, 11))


def test_plain_zarr_reads_histories_and_windows(tiny_dataset: Path) -> None:
    """Groups can be walked, arrays say what their special values are."""
    manifest = load_manifest(tiny_dataset)
    histories = zarr.open_group(str(tiny_dataset / "histories.zarr"), mode="r")
    offsets = histories["offsets"][:]
    assert offsets[-1] == histories["item"].shape[0] == manifest.num_events
    assert histories["item"].metadata.dimension_names == ("event",)
    assert histories["offsets"].attrs["long_name"]
    windows = zarr.open_group(str(tiny_dataset / "windows.zarr"), mode="r")
    assert sorted(windows) == ["training", "validation"]
    item = windows["training/0/item"]
    assert item.attrs["cls_value"] == manifest.num_items
    assert item.attrs["pad_value"] == item.fill_value == manifest.num_items + 1
    assert windows["training/0/time"].attrs["time_origin_unix_seconds"] == manifest.data_schema.time_origin


def test_windows_hold_the_histories_that_they_came_from(tiny_dataset: Path) -> None:
    """Token by token: (user, position) leads to the event of `histories.zarr`."""
    histories = zarr.open_group(str(tiny_dataset / "histories.zarr"), mode="r")
    windows = zarr.open_group(str(tiny_dataset / "windows.zarr"), mode="r")["training/0"]
    num_items = load_manifest(tiny_dataset).num_items
    offsets = histories["offsets"][:]
    item, user, position, time = (windows[name][:].ravel() for name in ("item", "user", "position", "time"))
    is_event = item < num_items
    # Histories longer than a window wrap; the shorter ones lead straight back.
    short = is_event & (np.diff(offsets)[np.where(is_event, user, 0)] <= 32)
    assert short.sum() > 100
    events = offsets[user[short]] + position[short]
    np.testing.assert_array_equal(histories["item"][:][events], item[short])
    np.testing.assert_array_equal(histories["time"][:][events], time[short])

"""Reads the Parquet tables of a dataset with polars: popular items, users of each split, titles in a batch."""

import tempfile
from pathlib import Path

import polars as pl

import streamfeat
from streamfeat import WindowStream
from streamfeat.events.synthetic import write_synthetic

with tempfile.TemporaryDirectory() as folder:
    events, data = Path(folder, "events.csv"), Path(folder, "data")
    write_synthetic(events, num_users=200, num_events=8_000, seed=1, items_per_medium=50)
    titled = pl.read_csv(events).with_columns(title=pl.format("{} no. {}", "medium", "item"))
    titled.write_csv(events)
    schema = streamfeat.build(events, data, window_len=64, split="users:0.1").manifest.data_schema

    items, users = pl.read_parquet(data / "items.parquet"), pl.read_parquet(data / "users.parquet")
    print("Most watched:", items.top_k(3, by="targets").select("title", "medium", "targets"))
    print("Users:", users.group_by("split").agg(pl.len().alias("users"), pl.sum("events")))

    with WindowStream(data, objective="masked", batch_windows=2) as stream:
        batch = next(iter(stream))
        window = pl.DataFrame({name: batch[name][0] for name in ("user", "item", "time", "rating", "rating_known")})
    window = window.cast({"user": pl.Int64, "item": pl.Int64})
    # A batch has the ids of the tables. The ids CLS, PAD, MASK and EMPTY are not in the tables: the join gives null.
    watched = window.join(items, left_on="item", right_on="id", maintain_order="left")
    watched = watched.join(users, left_on="user", right_on="id", maintain_order="left", suffix="_of_user")
    print(
        "The first events of a window:",
        watched.head(4).select(
            pl.col("raw_id_of_user").alias("user"),
            pl.from_epoch(pl.col("time") + schema.time_origin).alias("at"),
            "title",
            pl.when("rating_known").then("rating").alias("rating"),
        ),
    )

"""`invent`."""

from pathlib import Path
from typing import Annotated

import typer

from streamfeat.errors import StorageError
from streamfeat_cli.console import PLAIN, Json, out, show


def invent(
    path: Annotated[Path, typer.Argument(help="File to write: .csv or .parquet.")],
    users: Annotated[int, typer.Option(max=2**31, help="Number of users.")] = 2000,
    events: Annotated[int, typer.Option(max=2**40, help="Number of events.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 0,
    as_json: Json = False,
) -> None:
    """Invent watch histories of two media, with structure that a model can learn."""
    from streamfeat.events.synthetic import write_synthetic

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synthetic(path, num_users=users, num_events=events, seed=seed)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}); give another file") from None
    note = f"{path}: {events:,} invented events of {users:,} users"
    show(as_json, {"file": str(path), "users": users, "events": events, "seed": seed}, lambda: out.print(note, **PLAIN))

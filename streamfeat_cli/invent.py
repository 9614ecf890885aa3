"""The command `invent`: writes a file of invented events."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from streamfeat.errors import StorageError
from streamfeat.records import Frozen
from streamfeat_cli.console import PLAIN, Json, out, show
from streamfeat_cli.declaration import Next, command
from streamfeat_cli.options import Options


class InventOptions(Frozen):
    """The size of the file and the seed."""

    users: int = Field(default=2000, le=2**31, description="Number of users.")
    events: int = Field(default=100_000, le=2**40, description="Number of events.")
    seed: int = Field(default=0, ge=0, description="Seed of the draws.")


@command(
    "invent",
    Options(InventOptions),
    examples=(
        "invent events.csv",
        "invent events.parquet --users 10000 --events 1000000",
        "invent small.csv --users 60 --events 2000 --seed 3",
    ),
)
def invent(
    path: Annotated[Path, typer.Argument(metavar="EVENTS", help="File to write: .csv or .parquet.")],
    options: InventOptions,
    as_json: Json = False,
) -> Next:
    """Invent watch histories of two media, with structure that a model can learn."""
    from streamfeat.events.synthetic import write_synthetic

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synthetic(path, num_users=options.users, num_events=options.events, seed=options.seed)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}); give another file") from None
    note = f"{path}: {options.events:,} invented events of {options.users:,} users"
    show(as_json, {"file": str(path), **options.model_dump()}, lambda: out.print(note, **PLAIN))
    return "build-shards", path, "OUT"

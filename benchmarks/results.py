"""How a benchmark records what it measured."""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any


def write_results(name: str, rows: list[dict[str, Any]]) -> None:
    """Write benchmarks/results/<name>.json and print the rows: each has name, value and unit."""
    machine = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
    }
    command = " ".join(["python", "benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"command": command, "machine": machine, "rows": rows}, indent=1) + "\n")
    for row in rows:
        value = row["value"]
        print(f"{row['name']:<60} {value:>16,.3f} {row['unit']}" if isinstance(value, int | float) else row)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")

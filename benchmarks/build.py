"""CPU-seconds per million events and peak memory of a build of invented events, in Parquet or CSV.

    python benchmarks/build.py [--events 10000000] [--workers 2] [--format csv]

Writes benchmarks/results/build.json, for CSV build-csv.json. CPU is that of this machine's processes, children
included; memory is the largest sum of resident sizes over all processes of the build, sampled every 50 ms.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from results import write_results

CLI = Path(__file__).parent.parent / "cli.py"


def resident_bytes(root: int) -> int:
    """Resident size of a process and its descendants, shared pages counted once per process."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            # Anonymous memory only: mapped input and spill files belong to the page cache, not to the build.
            status = (entry / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        anonymous = [line for line in status.splitlines() if line.startswith("RssAnon")]
        sizes[pid] = int(anonymous[0].split()[1]) * 1024 if anonymous else 0
    family, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        grown = bool(more)
        family |= more
    return sum(sizes.get(pid, 0) for pid in family)


def run_measured(command: list[str]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and peak bytes of a command and its children."""
    before = os.times()
    started = time.monotonic()
    process = subprocess.Popen(command)
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, resident_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    after = os.times()
    if code:
        raise SystemExit(f"{' '.join(command)}: exit code {code}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - started, cpu, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        events = f"{folder}/events.{options.format}"
        users = str(max(options.events // 100, 10))
        subprocess.run(
            [sys.executable, str(CLI), "invent", events, "--users", users, "--events", str(options.events)], check=True
        )
        warm = [sys.executable, str(CLI), "invent", f"{folder}/warm.csv", "--users", "50", "--events", "1000"]
        subprocess.run(warm, check=True)
        build = [sys.executable, str(CLI), "build-shards"]
        # Compiles and caches every kernel. A user pays for this once per installation.
        subprocess.run([*build, f"{folder}/warm.csv", f"{folder}/warm"], check=True, stdout=subprocess.DEVNULL)
        _, start_cpu, _ = run_measured([sys.executable, "-c", "import streamfeat.builder.coordinator"])
        rows: list[dict[str, object]] = [
            {"name": "events", "value": options.events, "unit": "events"},
            {"name": "input", "value": Path(events).stat().st_size / options.events, "unit": "bytes/event"},
            {"name": "start of one process (imports)", "value": start_cpu, "unit": "CPU-s"},
        ]
        for workers in sorted({1, options.workers}):
            out = Path(folder, f"data-{workers}")
            wall, cpu, peak = run_measured([*build, events, str(out), "--workers", str(workers)])
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
            name = f"{workers} worker{'s' * (workers > 1)}"
            rows += [
                {"name": f"{name}: cpu per million events", "value": cpu / options.events * 1e6, "unit": "CPU-s"},
                {"name": f"{name}: wall", "value": wall, "unit": "s"},
                {"name": f"{name}: peak memory of all processes (anonymous)", "value": peak, "unit": "bytes"},
            ]
        rows.append({"name": "dataset", "value": size / options.events, "unit": "bytes/event"})
    write_results("build" if options.format == "parquet" else "build-csv", rows)


if __name__ == "__main__":
    main()

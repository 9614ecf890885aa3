"""How well the model ranks and rates on real data, beside tuned baselines, and which bars it meets.

    python benchmarks/quality.py NAME [--events FILE] [--seeds 0,1,2] [--train "--epochs 8 ..."] [--label TEXT]

NAME is one of the sets below. FILE holds its events as published: `u.data` of MovieLens-100K, `ratings.dat` of
MovieLens-1M (GroupLens; cite Harper and Konstan 2015), `ratings.dat` of MovieTweetings 100K (Dooms et al. 2013); `demo`
invents its own. Builds once, then trains and evaluates for each seed with the commands that a user types. Every choice
is made on validation events; the test events are asked once, by `evaluate`. Adds each run with its command to
benchmarks/results/quality-NAME.json; --label keeps a trial apart from the runs with default options.
"""

import argparse
import json
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import write_results

CLI = Path(__file__).parent.parent / "cli.py"


@dataclass(frozen=True)
class Bars:
    """What a set of runs must reach in the mean over seeds; None: no bar."""

    told: float | None = None  # NDCG@10, the time of the target given
    hidden: float | None = None
    rmse: float | None = None
    cpu_s: float | None = None  # of training
    calibration: float = 0.01  # largest excess of the calibration error over chance


@dataclass(frozen=True)
class Study:
    """A data set with its protocol."""

    build: str
    train: str
    bars: Bars
    evaluate: str = ""
    invent: str = ""


STUDIES = {
    "ml-100k": Study("--split last:2", "", Bars(0.140, 0.136, 0.95, 120)),
    "ml-100k-masked": Study("--split last:2", "--objective masked", Bars(0.105, 0.09)),
    "ml-1m": Study("--split last:2", "", Bars(0.215, 0.185, 0.90, 2400)),
    "movietweetings": Study("--split last:2 --window-len 128", "", Bars(0.165)),
    "movietweetings-time": Study("--split time:0.1 --window-len 128", "", Bars()),
    "demo": Study("--window-len 256 --split last:2", "", Bars(), invent="--users 1500 --events 90000 --seed 1"),
}


def call(*words: str) -> tuple[dict[str, Any], float]:
    """The JSON that a command prints, and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, str(CLI), *words, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"cli.py {shlex.join(words)} ended with {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found: dict[str, Any] = json.loads(done.stdout)
    return found, spent


def summary(report: dict[str, Any], trained: dict[str, Any], cpu_s: float) -> dict[str, Any]:
    """The figures of one run: the model's and the best baselines', paired differences, calibration."""
    found: dict[str, Any] = {"cpu_s": round(cpu_s, 1), "step": trained["step"], "reason": trained.get("reason")}
    best: dict[str, tuple[float, str]] = {}
    for line in report["ranking"]:
        if line["seen"] != "removed" or line["medium"] != "all":
            continue
        value = round(line["figures"]["ndcg@10"]["value"], 4)
        if line["system"] == "model":
            found[f"ndcg@10 {line['time']}"] = value
            found[f"hr@10 {line['time']}"] = round(line["figures"]["hr@10"]["value"], 4)
        else:
            name = f"{line['system']} ({line['time']})"
            best["baseline"] = max(best.get("baseline", (0.0, "")), (value, name))
    found["best baseline on the test events"] = list(best["baseline"]) if best else None
    for line in report["ratings"]:
        if line["medium"] == "all" and line["system"] in ("model", "biased_svd", "user_item_bias"):
            name = "rmse" if line["system"] == "model" else line["system"]
            found[f"{name} {line['time']}"] = round(line["figures"]["rmse"]["value"], 4)
    for line in report["differences"]:
        if line["medium"] == "all" and line["seen"] != "kept":
            values = [round(line["difference"][part], 4) for part in ("value", "low", "high")]
            found[f"{line['figure']} {line['time']} minus {line['baseline']}"] = values
    for line in report["calibration"]:
        if line["medium"] == "all":
            error = line["calibration"]["error"] - line["calibration"]["error_if_calibrated"]
            found[f"calibration above chance {line['time']}"] = round(error, 4)
    found["verdicts"] = [verdict["text"] for verdict in report["verdicts"]]
    return found


def verdicts(runs: list[dict[str, Any]], bars: Bars) -> dict[str, str]:
    """Bar → whether the mean over runs meets it."""

    def mean(name: str) -> float:
        return statistics.fmean(run[name] for run in runs if run.get(name) is not None)

    wanted = {"ndcg@10 given": bars.told, "ndcg@10 hidden": bars.hidden}
    met = {
        f"{name} at least {bar}": f"{mean(name):.4f}, {'met' if mean(name) >= bar else 'missed'}"
        for name, bar in wanted.items()
        if bar is not None
    }
    for name, bar in {"rmse given": bars.rmse, "cpu_s": bars.cpu_s}.items():
        if bar is not None:
            met[f"{name} at most {bar}"] = f"{mean(name):.4f}, {'met' if mean(name) <= bar else 'missed'}"
    for time in ("given", "hidden"):
        name = f"calibration above chance {time}"
        if any(name in run for run in runs):
            met[f"{name} at most {bars.calibration}"] = (
                f"{mean(name):.4f}, {'met' if mean(name) <= bars.calibration else 'missed'}"
            )
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=STUDIES)
    parser.add_argument("--events", help="the file of events as published")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--train", default="", help="further options of train, in quotes")
    parser.add_argument("--label", default="", help="of a trial")
    parser.add_argument("--folder", help="where data and runs stay; default: a temporary folder")
    given = parser.parse_args()
    study = STUDIES[given.name]
    if not study.invent and not given.events:
        parser.error(f"{given.name} needs --events FILE")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(given.folder or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        events = given.events or str(folder / "events.csv")
        if study.invent and not Path(events).exists():
            subprocess.run([sys.executable, str(CLI), "invent", events, *study.invent.split()], check=True)
        data = str(folder / given.name)
        if not Path(data).exists():
            call("build-shards", events, data, *study.build.split())
        options = shlex.split(f"{study.train} {given.train}")
        runs = []
        for seed in given.seeds.split(","):
            run = str(folder / f"{given.name}-{given.label or 'default'}-{seed}")
            words = ["train", data, run, *options, "--seed", seed, "--overwrite"]
            trained, cpu_s = call(*words)
            report, _ = call("evaluate", run, *study.evaluate.split())
            runs.append({"seed": int(seed), **summary(report, trained, cpu_s)})
            print(json.dumps(runs[-1], indent=1))
    name = "-".join(filter(None, ("quality", given.name, given.label)))
    shown = shlex.join(["train", "DATA", "RUN", *options])
    rows = [{"name": f"build-shards {study.build}; {shown}; evaluate", "value": run, "unit": "run"} for run in runs]
    rows.append({"name": "bars, mean over seeds", "value": verdicts(runs, study.bars), "unit": ""})
    write_results(name, rows)


if __name__ == "__main__":
    main()

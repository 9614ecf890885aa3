"""metrics.jsonl: what is written comes back, whatever interrupted the writing."""

import json
import math
from pathlib import Path

import pytest

from streamfeat.errors import DamagedError
from train.runs.metrics import METRICS, MetricsLog, read_metrics


def test_every_digit_comes_back(tmp_path: Path) -> None:
    """Full precision: a number read back is the same float64."""
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -2.0]
    with MetricsLog(tmp_path) as log:
        for step, value in enumerate(values, start=1):
            log.append("train", step, {"loss": value})
    assert [line["loss"] for line in read_metrics(tmp_path)] == values


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_is_null(tmp_path: Path, value: float | None) -> None:
    """Never NaN: strict JSON parsers read every line."""
    with MetricsLog(tmp_path) as log:
        log.append("train", 1, {"loss": value})

    def refuse(text: str) -> float:
        raise AssertionError(f"{text} is not JSON")

    line = json.loads((tmp_path / METRICS).read_text(), parse_constant=refuse)
    assert line == {"kind": "train", "step": 1, "loss": None}


def test_a_line_is_on_disk_before_the_next_step(tmp_path: Path) -> None:
    """Flushed per line: another process sees it while the run goes on."""
    with MetricsLog(tmp_path) as log:
        for step in (1, 2):
            log.append("train", step, {"loss": 1.0})
            assert len((tmp_path / METRICS).read_text().splitlines()) == step


def test_the_later_line_of_a_step_counts(tmp_path: Path) -> None:
    """A resumed run appends; its steps replace those that were lost."""
    for loss in (1.0, 2.0):
        with MetricsLog(tmp_path) as log:
            log.append("train", 1, {"loss": loss})
            log.append("validation", 2, {"loss": loss + 10})
            log.append("train", 2, {"loss": loss + 20})
    kinds = [(line["step"], line["kind"], line["loss"]) for line in read_metrics(tmp_path)]
    assert kinds == [(1, "train", 2.0), (2, "train", 22.0), (2, "validation", 12.0)]


def test_a_line_cut_off_by_a_kill_is_dropped_and_not_continued(tmp_path: Path) -> None:
    """Cut at every byte of the last line, what was whole stays and what is appended is whole."""
    with MetricsLog(tmp_path) as log:
        log.append("train", 1, {"loss": 1.5})
        log.append("train", 2, {"loss": 2.5})
    whole = (tmp_path / METRICS).read_bytes()
    first_len = whole.index(b"\n") + 1
    for length in range(first_len, len(whole)):
        (tmp_path / METRICS).write_bytes(whole[:length])
        assert [line["step"] for line in read_metrics(tmp_path)] == [1]
        with MetricsLog(tmp_path) as log:
            log.append("train", 2, {"loss": 3.5})
        assert [line["loss"] for line in read_metrics(tmp_path)] == [1.5, 3.5]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "3", '{"step": 1}', '{"kind": "train", "step": "x"}', "\x00", '{"kind": "trial", "step": 1}',
     '{"kind": "train", "step": 1, "loss": NaN}', '{"kind": "train", "step": 1, "loss": "low"}',
     '{"kind": "train", "step": 1, "loss": 1e999}'],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path: Path, text: str) -> None:
    """A line that is no metrics line is an error with its number, never skipped silently."""
    (tmp_path / METRICS).write_text('{"kind": "train", "step": 1}\n' + text + "\n")
    with pytest.raises(DamagedError, match=r"metrics\.jsonl: line 2 "):
        read_metrics(tmp_path)


def test_a_run_without_metrics_has_no_lines(tmp_path: Path) -> None:
    """Nothing yet is not an error."""
    assert read_metrics(tmp_path) == []


def test_tensorboard_is_told_the_same_but_nulls(tmp_path: Path) -> None:
    """A curve has a point per finite number of a line."""
    points: list[tuple[str, float, int]] = []

    class Recorder:
        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            points.append((tag, scalar_value, global_step))

        def close(self) -> None:
            pass

    with MetricsLog(tmp_path, Recorder()) as log:
        log.append("train", 3, {"loss": 1.5, "loss_a_watch": None, "loss_b_watch": math.nan, "lr": 0.1})
    assert points == [("train/loss", 1.5, 3), ("train/lr", 0.1, 3)]

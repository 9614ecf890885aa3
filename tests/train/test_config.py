"""A file of options, what overrides it, and what cannot be."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as given_by
from hypothesis import strategies as st
from train_config_file import read_config

from streamfeat.errors import ConfigError
from train.config import PRESETS, ModelConfig, TrainConfig, new_config, overridden, parse_bytes


def written(folder: Path, text: str) -> Path:
    file = folder / "run.toml"
    file.write_text(text)
    return file


def test_a_file_sets_any_field(tmp_path: Path) -> None:
    """Fields of the run and, plain or below [model], of the model; what it leaves out is the preset's."""
    lines = ('preset = "small"', 'objective = "masked"', "learning_rate = 0.5", "layers = 3", 'live_disk = "3MB"',
             "[model]", "width = 96", "heads = 3")  # fmt: skip
    file = written(tmp_path, "\n".join(lines))
    config = new_config(read_config(file))
    assert (config.objective, config.learning_rate, config.live_disk) == ("masked", 0.5, 3_000_000)
    assert (config.model.layers, config.model.width, config.model.heads) == (3, 96, 3)
    assert config.model.dropout == PRESETS["small"]["dropout"]


def test_every_field_of_a_configuration_can_be_read_back_from_a_file(tmp_path: Path) -> None:
    """No field is left to the command line alone."""
    config = new_config({"preset": "base", "steps": 5})
    values = {**config.model_dump(), **config.model.model_dump()}
    del values["model"], values["epochs"]  # steps and epochs exclude each other

    def toml(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')

    fields = TrainConfig.model_fields.keys() | ModelConfig.model_fields.keys()
    assert values.keys() == fields - {"model", "epochs"}
    file = written(tmp_path, "".join(f"{name} = {toml(value)}\n" for name, value in values.items()))
    assert new_config(read_config(file)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learnign_rate = 1.0", r"unknown key 'learnign_rate'; did you mean 'learning_rate'"),
        ("[model]\nwidht = 3", r"unknown key 'model.widht'; did you mean 'width'"),
        ("[adam]\nlr = 3", r"unknown key 'adam'; known: "),
        ("width = 32\n[model]\nwidth = 64", "width: is given twice"),
        ("model = 3", "is a table"),
        ("epochs = 0", "epochs: "),
        ("dropout = 2.0", "dropout: "),
        ("preset = 'huge'", "'tiny', 'small' or 'base'"),
        ("steps = 3\nepochs = 4", "contradict"),
        ("live_workers = -1", "live_workers: give a number of processes, 0 to 1,024, or auto"),
        ("live_workers = 1025", "live_workers: give a number"),
        ("live_workers = '1025'", "live_workers: give a number"),
        ("live_workers = true", "live_workers: give a number"),
        ("preset = ['tiny']", "'tiny', 'small' or 'base'"),
        ("batch_tokens = '2048'", "batch_tokens: .*integer"),
        ("live = 'yes'", "live: .*boolean"),
        ("resume = true", "so it is typed: --resume"),
        ("live_disk = '20 apples'", "for instance 20GB"),
        ("epochs = ", "is not valid TOML"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "is not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    """The file, the key, what was found, the closest name."""
    file = written(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as error:
        read_config(file)
    assert str(file) in str(error.value)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Some editors write one."""
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbfwidth = 32")
    assert read_config(tmp_path / "run.toml") == {"width": 32}


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    """No traceback."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read_config(tmp_path / "bytes.toml")


def test_typed_options_win_over_the_file() -> None:
    """Also where steps and epochs exclude each other: what was typed stands."""
    assert overridden({"width": 3, "seed": 1}, {"seed": 2}) == {"width": 3, "seed": 2}
    assert overridden({"epochs": 3}, {"steps": 10}) == {"steps": 10}
    assert overridden({"epochs": 3}, {"steps": 0}) == {"epochs": 3, "steps": 0}  # 0: as epochs says
    assert overridden({"steps": 3}, {"epochs": 10}) == {"epochs": 10}
    with pytest.raises(ConfigError, match="contradict"):
        new_config(overridden({}, {"steps": 10, "epochs": 3}))


@pytest.mark.parametrize(
    ("text", "num"), [("1KB", 1000), ("20GB", 20 * 10**9), ("1.5 mb", 1_500_000), ("2TB", 2 * 10**12), (7, 7)]
)
def test_sizes_are_powers_of_1000(text: Any, num: int) -> None:
    """In either case, with or without a space; a number is bytes."""
    assert parse_bytes(text) == num


@given_by(st.text())
def test_no_text_as_a_size_gives_another_error_than_the_refusal(text: str) -> None:
    """Whatever is typed."""
    with contextlib.suppress(ValueError):
        assert isinstance(parse_bytes(text), int)


def test_passes_divide_a_ranks_share() -> None:
    """Micro-batches of one shape, at any number of ranks."""
    config = TrainConfig(batch_tokens=24 * 32, micro_batch_tokens=5 * 32)
    assert [config.micro_batch_windows(32, size) for size in (1, 2, 3, 4, 6, 24)] == [4, 4, 4, 3, 4, 1]

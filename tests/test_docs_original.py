"""The page for users of the original is compared with the code: names in backticks must exist at their place."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer

import streamfeat_cli.commands
from streamfeat.config import BuildConfig
from streamfeat.stream.featurize import TOKEN_ARRAYS
from train.config import TrainConfig

HOUSE = Path(__file__).parents[1]
PAGE = (HOUSE / "docs/original.md").read_text("utf-8")
TICKED = sorted(set(re.findall(r"`([^`]+)`", PAGE)))
PLACED = re.findall(r"`([\w/]+\.py)`:\s+((?:`[\w.]+`(?:,\s+)?)+)", PAGE)  # a file, then names in it

words = re.compile(r"\S+").findall

# Every function of the notebook, and every key of its configuration.
FUNCTIONS = words("""featurize weight_by_user! shuffle_training_data get_training_data get_sentences set_rngs
    create_training_config set_epoch_size! get_temp_path setup_training save_features advance!
    spawn_feature_workers""")
PARAMETERS = words("""name base_vocab_sizes cls_tokens pad_tokens mask_tokens empty_tokens vocab_sizes
    max_document_length include_ptw_impressions media chunk_size num_training_shards
    num_validation_shards num_dataloader_workers max_sequence_length mode causal training_epoch_size
    validation_epoch_size config_checkpoint config_epoch""")
# What else the page quotes of it, and commands of others.
QUOTED = words("""all/Transformer/v2 Data.ipynb Pytorch.py training.$i.h5 .complete .read plan_to_watch ALL_TASKS
    wordtype get_token_ids subset_sentence num_items num_users GC.gc ThreadPinning rm(outdir)
    config.json anime manga timestamp positions_* labels_*_item labels_*_rating weights_*_item
    weights_*_rating torchrun taskset""")
FILES = ("windows.zarr", "design.md", "format.md")

COMMANDS: dict[str, Any] = typer.main.get_command(streamfeat_cli.commands.app).commands  # type: ignore[attr-defined]


def names_in(file: Path) -> set[str]:
    """The names that a file defines: top-level names, and those of its classes as `Class.name`."""
    names = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        for name in _defined(node):
            names.add(name)
            if isinstance(node, ast.ClassDef):
                names.update(f"{name}.{inner}" for part in node.body for inner in _defined(part))
    return names


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def options_of(command: str) -> set[str]:
    return {option for parameter in COMMANDS[command].params for option in (*parameter.opts, *parameter.secondary_opts)}


def exists(ticked: str, names: set[str]) -> bool:
    """Whether a text in backticks is a file, a name in one, a command, an option, an array or a name of the
    original."""
    word, *rest = ticked.split()
    if word == "cli.py" and rest:
        return rest[0] in COMMANDS and set(rest[1:]) <= options_of(rest[0])
    if word.startswith("--"):
        return any(word in options_of(command) for command in COMMANDS)
    if word in (*QUOTED, *FUNCTIONS, *PARAMETERS):
        return True
    return word in names or word in TOKEN_ARRAYS or word in FILES or (HOUSE / word).exists()


@pytest.mark.parametrize(("file", "listed"), PLACED)
def test_a_name_is_defined_in_the_file_that_the_page_gives_for_it(file: str, listed: str) -> None:
    """Not only imported there, so that a reader finds it."""
    assert set(re.findall(r"`([\w.]+)`", listed)) - names_in(HOUSE / file) == set()


def test_nothing_that_stands_in_backticks_is_made_up() -> None:
    """Files, classes, functions, commands, options, arrays; names of the original are listed above."""
    assert len(PLACED) >= 20
    names = set().union(*(names_in(HOUSE / file) for file, _ in PLACED))
    assert [ticked for ticked in TICKED if not exists(ticked, names)] == []
    links = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert [link for link in links if not (HOUSE / "docs" / link).exists()] == []


def test_made_up_names_are_noticed() -> None:
    """The check above finds wrong names."""
    names = names_in(HOUSE / "streamfeat/config.py")
    assert {"BuildConfig", "BuildConfig.seed", "BuildConfig.max_crop_len", "MEDIUM_NAME"} <= names
    assert not {"Frozen", "BuildConfig.epochs", "seed"} & names
    for ticked in (
        "streamfeat/nowhere.py",
        "cli.py teach",
        "cli.py verify --overwrite",
        "--pin-threads",
        "no_such_name",
    ):
        assert not exists(ticked, names)


def test_every_function_and_parameter_of_the_original_has_its_place() -> None:
    """Functions in a heading, parameters in the row of a table."""
    headings = " ".join(line for line in PAGE.splitlines() if line.startswith("### "))
    assert [name for name in FUNCTIONS if f"`{name}`" not in headings] == []
    assert [name for name in PARAMETERS if name not in TICKED] == []


def test_what_the_page_calls_the_same_is_the_same() -> None:
    """Defaults that are the same in the original."""
    build, train = BuildConfig(), TrainConfig()
    assert (build.window_len, build.max_document_len, build.keep_planned) == (1024, "unlimited", True)
    assert (build.split, build.seed, build.packings) == ("users:0.01", 20221221, 1)
    assert (build.shard_windows, build.chunk_windows) == (2048, 64)
    assert (train.objective, train.epochs, train.threads) == ("causal", 64, 1)

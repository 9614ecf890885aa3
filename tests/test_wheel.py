"""The wheel, installed in its own environment, used from an empty folder."""

import json
import os
import shlex
import shutil
import site
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
PACKAGES = {"streamfeat", "streamfeat_cli", "train"}
_TREE = ["LICENSE", "README.md", "cli.py", "pyproject.toml", "benchmarks", "examples", "tests", *PACKAGES]
_BUILD = ["invent events.csv --users 60 --events 1500 --seed 1",
          "build-shards events.csv data --window-len 16 --split users:0.2 --workers 1"]  # fmt: skip
_TRAIN = ["train data run --layers 1 --width 16 --heads 2 --batch-tokens 256 --steps 4",
          "recommend run --history mine.csv -k 2 --json"]  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools leaves folders where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in _TREE:
        if (HOUSE / name).is_dir():
            shutil.copytree(HOUSE / name, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / "tree").mkdir(exist_ok=True)
            shutil.copy(HOUSE / name, folder / "tree" / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "tree"], check=True
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; the wheel's requirements come from the environment of these tests."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", folder / "bin/python"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
    # A line of a .pth file is one more folder to import from, whose own .pth files (an editable install) do not count.
    (_site_packages(folder) / "required.pth").write_text(
        "\n".join([sysconfig.get_path("purelib"), *site.getsitepackages()])
    )
    return folder


def _site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages"))


def _clean(**variables: str) -> dict[str, str]:
    dropped = ("PYTHONPATH", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    return {**{name: value for name, value in os.environ.items() if name not in dropped}, **variables}


def test_a_wheel_holds_the_three_packages_and_nothing_else(environment: Path) -> None:
    """Other top-level names, such as `tests`, could be imported in other people's environments."""
    ours = {path.name for path in _site_packages(environment).iterdir()} - {"required.pth"}
    assert {name for name in ours if not name.endswith(".dist-info")} == PACKAGES
    for package in PACKAGES:
        installed = {
            path.relative_to(_site_packages(environment)) for path in _files(_site_packages(environment) / package)
        }
        assert installed == {path.relative_to(HOUSE) for path in _files(HOUSE / package)}
        assert (HOUSE / package / "py.typed").exists()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]


@pytest.mark.slow
def test_an_installed_wheel_builds_trains_and_recommends(environment: Path, tmp_path: Path) -> None:
    """By the console script and by `python -m streamfeat`, in a folder without other files."""
    (tmp_path / "mine.csv").write_text("user,item,medium,timestamp\n1,1,anime,1700000000\n1,2,anime,1700000600\n")
    for program in ([environment / "bin/streamfeat"], [environment / "bin/python", "-m", "streamfeat"]):
        for words in [*_BUILD, *_TRAIN]:
            again = ["--overwrite"] if words.startswith(("build", "train")) else []
            done = subprocess.run(
                [*program, *words.split(), *again], cwd=tmp_path, env=_clean(), capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
    code = "import streamfeat, train; print(streamfeat.__file__, train.__file__)"
    done = subprocess.run(
        [environment / "bin/python", "-c", code], cwd=tmp_path, env=_clean(), capture_output=True, text=True
    )
    assert done.stdout.count(str(_site_packages(environment))) == 2


@pytest.mark.slow
def test_where_package_and_home_are_read_only_kernels_are_kept_in_a_private_folder(
    environment: Path, tmp_path: Path
) -> None:
    """As in a container image or a shared installation: each command says where in one line, its workers do not."""
    home, temporary, work = tmp_path / "home", tmp_path / "tmp", tmp_path / "work"
    for folder in (home, temporary, work):
        folder.mkdir()
    private = temporary / f"streamfeat-numba-{os.geteuid()}"
    compiled = []
    for words in (_BUILD[0], f"{_BUILD[1]} --overwrite", f"{_BUILD[1]} --overwrite --workers 2"):
        done = _run_read_only([environment, home], [environment / "bin/streamfeat", *words.split()], work,
                              _clean(HOME=str(home), TMPDIR=str(temporary)))  # fmt: skip
        assert done.returncode == 0, done.stderr
        compiled.append({path: path.stat().st_mtime_ns for path in temporary.rglob("*.nbc")})
        assert done.stderr.count(f"compiled kernels are kept in {private}, because") == words.startswith("build")
    assert stat.S_IMODE(private.lstat().st_mode) == 0o700
    assert len(compiled[1]) > 10
    assert compiled[1].items() <= compiled[2].items()
    assert list(home.iterdir()) == []


def _run_read_only(
    folders: list[Path], command: list[object], cwd: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Permissions do not limit root, so root gets a read-only mount in its own namespace."""
    words = shlex.join(map(str, command))
    if os.geteuid():
        for folder in folders:
            subprocess.run(["chmod", "-R", "a-w", folder], check=True)
        try:
            return subprocess.run(["sh", "-c", words], cwd=cwd, env=env, capture_output=True, text=True)
        finally:
            for folder in folders:
                subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    mounts = " && ".join(
        f"mount --bind {f} {f} && mount -o remount,ro,bind {f}" for f in map(shlex.quote, map(str, folders))
    )
    unshare = ["unshare", "--mount", "sh", "-c"]
    if subprocess.run([*unshare, mounts], capture_output=True).returncode:
        pytest.skip("root may not mount here")
    return subprocess.run([*unshare, f"{mounts} && exec {words}"], cwd=cwd, env=env, capture_output=True, text=True)

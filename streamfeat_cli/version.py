"""`--version`: prints versions, the device, and the folder of compiled kernels."""

import platform

import typer

import streamfeat
from streamfeat_cli.console import PLAIN, out


def print_version(is_asked: bool) -> None:
    """Prints the versions and exits if `is_asked`. Loads torch, to name the device."""
    if not is_asked:
        return
    from streamfeat.kernel_cache import find_cache
    from train.devices.device import torch_and_device

    torch, device = torch_and_device()
    for line in (
        f"streamfeat {streamfeat.__version__}",
        f"Python {platform.python_version()}",
        f"torch {torch}",
        f"device: {device}",
    ):
        out.print(line, **PLAIN)
    out.print(f"compiled kernels: {find_cache()}", **PLAIN)
    raise typer.Exit

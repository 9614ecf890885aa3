"""Settings that depend on the device: deterministic operations, precision of products, largest width of heads."""

import contextlib
from collections.abc import Iterator

import torch

from streamfeat.errors import ConfigError
from train.config import ModelConfig

MOST_CUDA_HEAD = 128  # width of a head: with more, a block of queries and keys may not fit a GPU's shared memory


def check_heads(device: torch.device, shape: ModelConfig) -> None:
    """Raises ConfigError for heads that are too wide for the CUDA kernels."""
    if device.type == "cuda" and shape.width // shape.heads > MOST_CUDA_HEAD:
        raise ConfigError(
            f"--heads {shape.heads}: heads of {shape.width // shape.heads} values are too wide for a GPU; a width of "
            f"{shape.width} needs at least {-(-shape.width // MOST_CUDA_HEAD)} heads"
        )


def torch_and_device() -> tuple[str, str]:
    """torch's version, and the device that a single process trains on."""
    gpu = torch.cuda.is_available()
    return torch.__version__, f"cuda ({torch.cuda.get_device_name()})" if gpu else "cpu"


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """On a CPU, use only operations that give the same bits each time. There it costs no time."""
    deterministic = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    # By default torch would fill every new buffer, which costs time; our buffers are written before they are read.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        deterministic.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on CUDA; float32 elsewhere, where bfloat16 is slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

"""Fixtures of the trainer's tests."""

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from invented import Invented, invent

# Without a GPU the kernels of CUDA are interpreted: set before anything loads Triton.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def invented_batch() -> Callable[..., Invented]:
    """Makes batches like those of a `WindowStream`: `invented_batch(objective="masked", …)`."""
    return invent


@pytest.fixture(autouse=True)
def _on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests compare bits, so tests without the mark `gpu` train on the CPU, even if there is a GPU."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread, because sums of floats depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

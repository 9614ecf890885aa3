"""Fixtures of the trainer's tests."""

from collections.abc import Callable

import pytest
from invented import Invented, invent


@pytest.fixture(scope="session")
def invented_batch() -> Callable[..., Invented]:
    """Makes batches as a `WindowStream` delivers them: `invented_batch(objective="masked", …)`."""
    return invent

"""What the doctests of this package share."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    """Matplotlib warns of more than twenty, and a warning fails a test."""
    yield
    plt.close("all")

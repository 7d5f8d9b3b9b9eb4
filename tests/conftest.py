"""What tests of every room share."""

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module", autouse=True)
def _old_objects_are_no_garbage() -> None:
    """SpikeInterface collects garbage after each piece of voltage that it writes; among all that the tests have imported this takes
    a quarter of a second each time, which was a third of the time of tests/test_conversion.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def published_v4() -> Path:
    """The folder of the published V4 data; tests that need it are skipped where it is absent."""
    return _data("v4", "published V4 data")


@pytest.fixture(scope="session")
def raw_data() -> Path:
    """The folder of the vendors' example recordings; tests that need it are skipped where it is absent."""
    return _data("raw", "example recordings")


def _data(name: str, what: str) -> Path:
    beside_the_checkout = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NWB_COMPACT_TEST_DATA", beside_the_checkout)) / name
    if not folder.is_dir():
        pytest.skip(f"no {what} in {folder}; set NWB_COMPACT_TEST_DATA to the folder that holds {name}/")
    return folder


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Any, Any], None]:
    """Compares two sessions, results or parts of them: every field, every number, NaN equal to NaN.

    Whole numbers may differ in width and floats in precision of storage only where the values agree exactly.
    """
    return _assert_same


def _assert_same(one: Any, other: Any, where: str = "") -> None:
    if is_dataclass(one):
        assert type(one) is type(other), where
        for item in fields(one):
            _assert_same(getattr(one, item.name), getattr(other, item.name), f"{where}.{item.name}")
    elif isinstance(one, Mapping):
        assert list(one) == list(other), where
        for key in one:
            _assert_same(one[key], other[key], f"{where}[{key}]")
    elif isinstance(one, tuple):
        assert len(one) == len(other), where
        for index, (mine, yours) in enumerate(zip(one, other, strict=True)):
            _assert_same(mine, yours, f"{where}[{index}]")
    elif hasattr(one, "shape"):
        mine, yours = np.asarray(one), np.asarray(other)
        assert mine.dtype.kind == yours.dtype.kind, where
        np.testing.assert_array_equal(mine, yours, err_msg=where, strict=False)
        assert mine.shape == yours.shape, where
    else:
        assert one == other, where

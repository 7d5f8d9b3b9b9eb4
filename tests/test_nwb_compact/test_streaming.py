import threading
import time

import numpy as np
import pytest
import torch

from nwb_compact.streaming import on_device, one_ahead, read_rows


def test_all_are_given_in_order_whatever_they_take():
    def load(n):
        time.sleep(0.002 * (n % 3))
        return n * n

    assert list(one_ahead(range(20), load)) == [n * n for n in range(20)]
    assert list(one_ahead([], load)) == []


def test_the_next_is_loaded_while_the_present_is_used_and_no_further():
    loaded = []
    given = one_ahead(range(10), lambda n: loaded.append((n, threading.current_thread())) or n)
    assert next(given) == 0
    time.sleep(0.05)
    assert [n for n, _ in loaded] == [0, 1]
    assert all(thread is not threading.main_thread() for _, thread in loaded)
    given.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("one_ahead")]


def test_a_fault_while_loading_reaches_who_asked():
    def load(n):
        if n == 2:
            raise OSError("the disk is gone")
        return n

    given = one_ahead(range(5), load)
    assert [next(given), next(given)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(given)


def test_rows_of_a_memory_map_are_read_as_they_are(tmp_path):
    maps = np.random.default_rng(0).normal(size=(9, 3, 4, 5)).astype(np.float16)
    np.save(tmp_path / "maps.npy", maps)
    rows = np.array([7, 0, 3])
    x = on_device(read_rows(np.load(tmp_path / "maps.npy", mmap_mode="r"), rows, "cpu"), "cpu")
    np.testing.assert_array_equal(x.numpy(), maps[rows].astype(np.float32))
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_images_get_their_colours_first():
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    x = on_device(read_rows(images, np.array([4, 1]), "cpu"), "cpu")
    assert x.dtype == torch.float32
    np.testing.assert_array_equal(x.numpy(), images[[4, 1]].transpose(0, 3, 1, 2))

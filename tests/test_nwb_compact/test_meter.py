import mmap
import sys
import time

import pytest
import torch

from nwb_compact import meter
from nwb_compact.meter import energy_counters, metered

MIB = 2**20


@pytest.fixture
def root(tmp_path):
    """The file tree of a machine with two processor packages and what lies beside and within them."""
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core", "intel-rapl:2": "psys"}
    for zone, name in zones.items():
        folder = tmp_path / "sys" / "class" / "powercap" / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")
        (folder / "energy_uj").write_text("999000000\n")
    return tmp_path


def set_uj(root, package, value):
    counter = root / "sys" / "class" / "powercap" / f"intel-rapl:{package}" / "energy_uj"
    counter.with_suffix(".new").write_text(f"{value}\n")
    counter.with_suffix(".new").replace(counter)  # never empty, as the system's never is


# Energy ---------------------------------------------------------------------------------------------------------------
def test_joules_of_all_packages_are_added_also_where_a_counter_begins_again(root):
    told = []
    with metered(told.append, root=root):
        set_uj(root, 0, 2_500_000)  # from 999 J over the end at 1,000 J to 2.5 J
        set_uj(root, 1, 999_500_000)
    assert told[-1].joules == pytest.approx(3.5 + 0.5)


def test_a_counter_that_begins_again_twice_is_read_in_between(root, monkeypatch):
    monkeypatch.setattr(meter, "TELL_S", 0.0)
    told = []
    with metered(told.append, root=root):
        for value in (400_000_000, 800_000_000, 100_000_000, 500_000_000):  # 401 + 400 + 300 + 400 J
            set_uj(root, 0, value)
            n = len(told)
            while len(told) < n + 2:  # the second one began after the file was written
                time.sleep(0.01)
    assert told[-1].joules == pytest.approx(1501)


def test_where_no_counter_can_be_read_there_are_no_joules(root, tmp_path):
    for package in (0, 1):
        (root / "sys" / "class" / "powercap" / f"intel-rapl:{package}" / "energy_uj").unlink()
    for place in (root, tmp_path / "nowhere"):
        told = []
        with metered(told.append, root=place):
            pass
        assert told[-1].joules is None


def test_the_counters_are_named(root):
    assert [counter.name for counter in energy_counters(root=root)] == ["package-0", "package-1"]


def test_a_counter_that_is_lost_on_the_way_ends_no_fit_and_leaves_no_sum(root):
    told = []
    with metered(told.append, root=root):
        (root / "sys" / "class" / "powercap" / "intel-rapl:1" / "energy_uj").unlink()
    assert told[-1].joules is None


def test_without_pynvml_a_gpu_has_no_counter(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert [counter.name for counter in energy_counters("cuda", root)] == ["package-0", "package-1"]


# Memory ---------------------------------------------------------------------------------------------------------------
def held(n_bytes):
    """Fill memory that the system gets back, whatever the C library keeps of its own."""
    with mmap.mmap(-1, n_bytes) as block:
        block.write(b"x" * n_bytes)
        time.sleep(3 * meter.SAMPLE_S)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the peak of the whole process is known")
def test_a_peak_belongs_to_the_stage_in_which_it_was():
    told = {}
    for stage, n_bytes in (("before", MIB), ("large", 300 * MIB), ("after", MIB)):
        with metered(lambda cost, stage=stage: told.update({stage: cost.peak_bytes})):
            held(n_bytes)
    assert told["large"] - told["before"] > 280 * MIB
    assert told["large"] - told["after"] > 280 * MIB


def test_where_only_the_peak_of_the_whole_process_is_known_it_is_told(tmp_path):
    told = []
    with metered(told.append, root=tmp_path):
        pass
    assert told[-1].peak_bytes > 50 * MIB


# Time and operations --------------------------------------------------------------------------------------------------
def test_work_that_fails_is_told_too():
    told = []

    def stopped():
        torch.zeros(2, 3) @ torch.zeros(3, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), metered(told.append):
        stopped()
    assert (told[-1].flop, told[-1].seconds > 0) == (48, True)


def test_what_was_spent_is_told_while_it_is_spent(monkeypatch):
    monkeypatch.setattr(meter, "TELL_S", 0.0)
    told = []
    with metered(told.append):
        torch.zeros(2, 3) @ torch.zeros(3, 4)
        while len(told) < 3:
            time.sleep(0.01)
        so_far = list(told)
    assert so_far[-1].flop == 48
    assert so_far[0].seconds < so_far[-1].seconds < told[-1].seconds


def test_a_full_disk_ends_the_work_only_at_its_end(monkeypatch):
    monkeypatch.setattr(meter, "TELL_S", 0.0)
    calls = []

    def tell(cost):
        calls.append(cost)
        raise OSError("No space left on device")

    def work():
        while len(calls) < 2:
            time.sleep(0.01)

    with pytest.raises(OSError, match="No space left"), metered(tell):
        work()
    assert len(calls) >= 3


def test_work_without_operations_has_no_number_of_them():
    told = []
    with metered(told.append):
        pass
    assert told[-1].flop is None

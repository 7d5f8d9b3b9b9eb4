"""Folders of phy and Kilosort are written here as those programs write them, those of SpikeInterface by itself."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spikeinterface import NumpyRecording, NumpySorting
from spikeinterface.core import NpzSortingExtractor

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Units
from nwb_compact_conversion.recorded import Events, Recorded
from nwb_compact_conversion.sources.sorted_spikes import read_sorted

RATE_HZ = 25_000.0


@dataclass
class Phy:
    """Three clusters on four channels of a probe, 5 good, 7 mua, 9 noise; the spikes of 7 are out of order."""

    folder: Path
    sample: list[int] = field(default_factory=lambda: [100, 250, 900, 700, 1000, 1100, 1200])
    cluster: list[int] = field(default_factory=lambda: [5, 9, 7, 7, 5, 9, 9])
    template: list[int] = field(default_factory=lambda: [0, 2, 1, 1, 0, 2, 0])
    params: str = f"dat_path = r'raw.bin'\nn_channels_dat = 8\ndtype = 'int16'\nsample_rate = {RATE_HZ}\nhp_filtered = False\n"
    tables: dict[str, str] = field(
        default_factory=lambda: {
            "cluster_info.tsv": "cluster_id\tch\tfr\tgroup\tKSLabel\n5\t6\t0.5\tgood\tmua\n7\t2\t1.5\t\tmua\n9\t0\t2.5\tnoise\tgood\n"
        }
    )
    more: dict[str, np.ndarray] = field(
        default_factory=lambda: {
            "channel_map": np.array([0, 2, 4, 6], np.int32),
            "channel_positions": np.array([[0, 0], [0, 20], [32, 0], [32, 20]], float),
        }
    )

    def write(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        arrays = {"spike_times": np.array(self.sample, np.int64)[:, None], "spike_clusters": np.array(self.cluster, np.int32)}
        arrays["spike_templates"] = np.array(self.template, np.int32)
        for name, values in (arrays | self.more).items():
            np.save(self.folder / f"{name}.npy", values)
        (self.folder / "params.py").write_text(self.params)
        for name, content in self.tables.items():
            (self.folder / name).write_text(content)
        return self.folder


@pytest.fixture
def phy(tmp_path):
    return Phy(tmp_path / "phy")


def read(path, **options):
    return read_sorted(path, **({"format": None, "sampling_frequency_hz": None} | options))


def refused(path, **options):
    with pytest.raises(NwbCompactError) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_phy_folder_gives_units_labels_and_electrodes(phy):
    recorded = read(phy.write())
    units = recorded.units
    assert units.name == ("5", "7"), "noise is left out"
    assert [train.tolist() for train in units.spike_times_s] == [[100 / RATE_HZ, 1000 / RATE_HZ], [700 / RATE_HZ, 900 / RATE_HZ]]
    assert units.resolution_s == 1 / RATE_HZ
    assert units.properties["label"].tolist() == ["good", "mua"], "what a person said, then what Kilosort said"
    assert units.properties["fr"].tolist() == [0.5, 1.5]
    assert recorded.electrodes.name == ("0", "2", "4", "6")
    assert recorded.electrodes.rel_x_um.tolist() == [0, 0, 32, 32]
    assert units.electrode_index.tolist() == [3, 1]
    assert recorded.reader.startswith("NeuroConv ")
    assert recorded.reader.endswith(" PhySortingInterface")
    assert {file.name for file in recorded.files} >= {"spike_times.npy", "params.py", "cluster_info.tsv"}
    assert recorded.recording is recorded.start_time is units.obs_intervals_s is None


def test_which_labels_are_left_out_is_an_argument(phy):
    assert read(phy.write(), exclude_labels=()).units.name == ("5", "7", "9")
    assert read(phy.folder, exclude_labels=("noise", "mua")).units.name == ("5",)
    assert "found 3 units, all labelled noise or mua or good" in refused(phy.folder, exclude_labels=("noise", "mua", "good"))


def test_nobody_labelled(phy):
    phy.tables = {}
    assert read(phy.write()).units.properties["label"].tolist() == ["unsorted"] * 3


def test_a_calibrated_rate_replaces_the_nominal_one(phy):
    units = read(phy.write(), sampling_frequency_hz=25_001.5).units
    np.testing.assert_array_equal(units.spike_times_s[0], np.array([100, 1000]) / 25_001.5)


def events_csv(folder):
    (folder / "events.csv").write_text("time_s,code,channel\n0.5,7,words\n0.6,1,reward\n0.75,8,words\n")
    return folder / "events.csv"


def test_digital_events_come_from_a_csv(phy, tmp_path):
    path, csv = phy.write(), events_csv(tmp_path)
    recorded = read(path, events_csv=csv)
    assert {name: (one.time_s.tolist(), one.code.tolist()) for name, one in recorded.events.items()} == {
        "words": ([0.5, 0.75], [7, 8]), "reward": ([0.6], [1]),
    }
    alone = read(path)
    assert alone.events == {}
    assert recorded.files == (*alone.files, csv), "its hash belongs to the record"
    assert recorded.units.name == alone.units.name
    csv.write_text("time,code\n0.5,7\n")
    assert refused(path, events_csv=csv).startswith(f"{csv}: found no column 'time_s' among 'time', 'code', expected a CSV with columns")


def kilosort(phy):
    """As Kilosort leaves it: no cluster_info, labels in their own table, templates in whitened space."""
    phy.tables = {
        "cluster_group.tsv": "cluster_id\tKSLabel\n5\tgood\n7\tmua\n9\tgood\n",
        "cluster_Amplitude.tsv": "cluster_id\tAmplitude\n5\t10.5\n7\t20\n9\t30\n",
    }
    templates = np.zeros((3, 11, 4), np.float32)
    templates[0, 4, [1, 2]] = -2.0, -1.9
    templates[1, 5, 3] = -1.0
    templates[2, 5, 0] = -1.0
    phy.more["templates"] = templates
    return phy


def test_a_kilosort_folder_gives_electrodes_from_its_templates(phy):
    recorded = read(kilosort(phy).write(), format="kilosort")
    assert recorded.reader.endswith(" KiloSortSortingInterface")
    assert recorded.units.electrode_index.tolist() == [1, 3, 0], "9 has two spikes of template 2 and one of template 0"
    assert recorded.units.properties["label"].tolist() == ["good", "mua", "good"]
    assert recorded.units.properties["Amplitude"].tolist() == [10.5, 20, 30]


def test_templates_are_unwhitened_before_the_largest_is_looked_for(phy):
    kilosort(phy).more["whitening_mat_inv"] = np.diag([1.0, 1.0, 5.0, 1.0])
    assert read(phy.write()).units.electrode_index.tolist() == [2, 3, 0]


@pytest.mark.parametrize("name", ["templates_ind", "template_ind"])
def test_sparse_templates_name_their_channels(phy, name):
    kilosort(phy)
    phy.more["templates"] = phy.more["templates"][:, :, [1, 3]]
    phy.more[name] = np.array([[0, 1], [1, 3], [1, 2]])  # the first as if none were left out
    phy.more["templates"][2, 5, 1] = -3
    assert read(phy.write()).units.electrode_index.tolist() == [0, 3, 2]


@pytest.mark.parametrize("name", ["shank", "group"])
def test_shanks_are_groups(phy, name):
    phy.more[f"channel_{name}s"] = np.array([0, 0, 1, 1])
    assert read(phy.write()).electrodes.group == (f"{name} 0", f"{name} 0", f"{name} 1", f"{name} 1")


def test_channels_that_disagree_are_refused(phy):
    phy.more["channel_positions"] = phy.more["channel_positions"][:3]
    assert "channel_positions.npy: found 3 channels, expected 4 as in channel_map.npy" in refused(phy.write())


def test_clusters_that_a_table_forgets_are_no_silent_loss(phy):
    kilosort(phy).tables["cluster_group.tsv"] = "cluster_id\tgroup\n5\tgood\n"
    message = refused(phy.write())
    assert message.startswith(f"{phy.folder}: found spikes of 2 clusters that not every table lists (7, 9, ...), expected every cluster in")


def test_params_with_code_are_not_run(phy):
    phy.params += "import os; os.mkdir(r'%s')\n" % (phy.folder / "made")
    assert f"{phy.folder / 'params.py'}: found code in line 6 (not run), expected plain values." in refused(phy.write())
    assert not (phy.folder / "made").exists()


def test_missing_params_are_asked_for(phy):
    (phy.write() / "params.py").unlink()
    assert refused(phy.folder).startswith(f"{phy.folder / 'params.py'}: found no such file, expected it, since it tells the sampling rate")


def test_a_damaged_folder_ends_in_one_line(phy):
    (phy.write() / "spike_times.npy").write_bytes(b"\x93NUMPY")
    assert refused(phy.folder).startswith(f"{phy.folder}: found what its reader cannot read (")


def test_a_unit_twice_is_refused(phy):
    phy.tables["cluster_info.tsv"] += "5\t6\t0.5\tgood\tmua\n"
    assert f"{phy.folder}: found unit '5' twice, expected each unit once." in refused(phy.write())


def test_a_spike_before_the_recording_is_refused(phy):
    phy.sample[0] = -3
    assert f"{phy.folder}: found a spike 3 samples before the first sample of the recording" in refused(phy.write())


SAVING = pytest.mark.filterwarnings("ignore:The extractor is not serializable")  # a sorting in memory has no provenance
TRAINS = {"a": np.array([5, 80, 4000]), "b": np.array([], np.int64), "c": np.array([7])}


@pytest.fixture
def sorting():
    sorting = NumpySorting.from_unit_dict([TRAINS], RATE_HZ)
    sorting.set_property("snr", np.array([5.0, np.nan, 3.0]))
    sorting.set_property("quality", np.array(["good", "mua", "noise"]))
    sorting.set_property("place", np.zeros((3, 2)))
    return sorting


def check_trains(units):
    assert units.name == tuple(TRAINS)
    for train, samples in zip(units.spike_times_s, TRAINS.values(), strict=True):
        np.testing.assert_array_equal(train, samples / RATE_HZ)


@SAVING
def test_a_folder_of_spikeinterface(sorting, tmp_path):
    sorting.save(folder=tmp_path / "saved")
    recorded = read(tmp_path / "saved", exclude_labels=())
    check_trains(recorded.units)
    assert set(recorded.units.properties) == {"snr", "label"}, "one value a unit, or it stays in its source"
    assert recorded.units.electrode_index is recorded.electrodes is None
    assert read(tmp_path / "saved").units.name == ("a", "b")


@SAVING
def test_the_sorting_of_an_analyzer(sorting, tmp_path):
    sorting.save(folder=tmp_path / "analyzer" / "sorting")
    check_trains(read(tmp_path / "analyzer", exclude_labels=()).units)


def test_a_folder_of_old_spikeinterface(sorting, tmp_path):
    (tmp_path / "properties").mkdir()
    NpzSortingExtractor.write_sorting(sorting, tmp_path / "sorting_cached.npz")
    np.save(tmp_path / "properties" / "snr.npy", sorting.get_property("snr"))
    (tmp_path / "npz.json").write_text("{}")
    units = read(tmp_path).units
    check_trains(units)
    np.testing.assert_array_equal(units.properties["snr"], [5.0, np.nan, 3.0])


def test_an_npz_of_spikeinterface(sorting, tmp_path):
    NpzSortingExtractor.write_sorting(sorting, tmp_path / "sorting.npz")
    recorded = read(tmp_path / "sorting.npz")
    check_trains(recorded.units)
    assert recorded.files == (tmp_path / "sorting.npz",)


@SAVING
def test_a_pickled_property_is_not_unpickled(sorting, tmp_path):
    sorting.save(folder=tmp_path / "saved")
    file = tmp_path / "saved" / "properties" / "evil.npy"
    np.save(file, np.array([{}, 1, "x"], object), allow_pickle=True)
    assert f"{file}: found a pickled property, expected text or numbers." in refused(tmp_path / "saved")


@SAVING
def test_segments_whose_distance_is_not_told_are_refused(tmp_path):
    NumpySorting.from_unit_dict([TRAINS, TRAINS], RATE_HZ).save(folder=tmp_path / "saved")
    assert "found 2 segments, whose distance in time is not told, expected one." in refused(tmp_path / "saved")


def test_an_npz_of_something_else_ends_in_one_line(tmp_path):
    np.savez(tmp_path / "counts.npz", counts=np.zeros(3))
    assert "found what its reader cannot read (KeyError: " in refused(tmp_path / "counts.npz")


def test_what_no_reader_knows_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "spikes.txt").touch()
    assert "found a folder without spike_clusters.npy, spike_templates.npy" in refused(tmp_path / "empty")
    expected = "a phy, Kilosort or SpikeInterface folder, or a .nev, .plx or .npz file"
    assert f"found a .txt, expected {expected}." in refused(tmp_path / "spikes.txt")
    assert "found format 'phi', expected one of phy, kilosort, spikeinterface, npz, blackrock, plexon" in refused(tmp_path, format="phi")
    assert "did you mean 'phy'?" in refused(tmp_path, format="phi")


@pytest.mark.parametrize(("suffix", "module"), [(".nev", "blackrock"), (".plx", "plexon")])
def test_devices_are_read_by_their_own_modules(tmp_path, monkeypatch, suffix, module):
    file, units = tmp_path / f"a{suffix}", Units(("1",), (np.array([0.5]),))
    file.touch()
    answers = {file: Recorded((file,), "reader", units=units)}
    stand_in, asked = ModuleType(module), []
    setattr(stand_in, f"read_{module}", lambda path, *, keep_unsorted: asked.append(keep_unsorted) or answers[path])
    monkeypatch.setitem(sys.modules, f"nwb_compact_conversion.sources.{module}", stand_in)
    assert read(file) is answers[file]
    assert f"found a sampling frequency for it, expected none: a {suffix} file tells its clock." in refused(file, sampling_frequency_hz=1.0)
    csv = events_csv(tmp_path)
    assert read(file, events_csv=csv).events["words"].time_s.tolist() == [0.5, 0.75], "the file has no events, so these are no others"
    answers[file] = replace(answers[file], events={"strobed": Events(np.array([0.5]), np.array([1]))})
    expected = f"found events beside a recording that has its own, expected those of {file.name}. Next: leave --events out"
    assert refused(file, events_csv=csv) == f"{csv}: {expected}"
    answers[file] = Recorded((file,), "reader")
    assert refused(file) == f"{file}: found no sorted unit, expected at least one. Next: sort it, or convert its voltage"
    assert set(asked) == {True}
    assert refused(file, keep_unsorted=False).endswith("Next: sort it, or convert its voltage, or set sorting.curation.keep_unsorted: true")
    assert asked[-1] is False


def test_voltage_beside_sorted_units_is_neither_sorted_nor_kept(tmp_path, monkeypatch):
    """A .plx may hold both."""
    file = tmp_path / "a.plx"
    file.touch()
    voltage = NumpyRecording([np.zeros((3000, 2))], 1000.0, channel_ids=["WB01", "WB02"])
    units = Units(("SPK02#1",), (np.array([0.5]),), electrode_index=np.array([1], np.uint32))
    stand_in = ModuleType("plexon")
    stand_in.read_plexon = lambda path, *, keep_unsorted: Recorded((file,), "reader", recording=voltage, units=units)
    monkeypatch.setitem(sys.modules, "nwb_compact_conversion.sources.plexon", stand_in)
    recorded = read(file)
    assert recorded.recording is None
    assert recorded.electrodes.name == ("WB01", "WB02")
    assert recorded.units.electrode_index.tolist() == [1]
    assert recorded.units.obs_intervals_s.tolist() == [[0, 3]], "how long the voltage ran is how long there could be spikes"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from([3, 4, 11])), min_size=3, max_size=60))
def test_every_spike_of_every_cluster_arrives_once(tmp_path_factory, spikes):
    sample, cluster = zip(*spikes, strict=True)
    folder = Phy(tmp_path_factory.mktemp("phy") / "phy", list(sample), list(cluster), [0] * len(spikes), tables={}, more={}).write()
    units = read(folder).units
    want = {str(one): sorted(s / RATE_HZ for s, c in spikes if c == one) for one in set(cluster)}
    assert {name: train.tolist() for name, train in zip(units.name, units.spike_times_s, strict=True)} == want

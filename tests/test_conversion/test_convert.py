"""The whole way from a recording to a file, on a world small enough to know what must come out."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pynwb import NWBHDF5IO
from spikeinterface import NumpyRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import read_session, write_session
from nwb_compact.session import Device, Electrodes, Session, Subject, Units, image_sha256
from nwb_compact_conversion import convert as pipeline
from nwb_compact_conversion.convert import Converted, convert_counted, convert_recorded
from nwb_compact_conversion.metadata import Metadata
from nwb_compact_conversion.recorded import Events, Recorded
from nwb_compact_conversion.session_yaml import SessionYaml

START = datetime(2024, 5, 15, 12, 30, 45, tzinfo=UTC)
RATE_HZ = 10_000.0
GAIN_UV = 0.5
ANIMAL = {"subject_id": "M1", "species": "Macaca mulatta", "sex": "F", "age": "P8Y"}
SPIKES_S = (np.array([0.06, 0.56, 0.6, 1.07, 2.5, 3.26, 5.3]), np.array([0.3, 1.06, 1.1, 1.14, 4.5]))
"""Units a and b."""
ONSET_S = 0.5 * np.arange(12)


def voltage(duration_s: float = 6.0, starts_s: tuple[float, ...] = (0.0,), *, gains: bool = True, rate_hz: float = RATE_HZ):
    """Two channels of noise with a dip of 60 microvolts at the spikes of a on e1 and of b on e2; a segment for each start."""
    rng = np.random.default_rng(0)
    pieces = [rng.normal(0, 8, (round(duration_s * rate_hz), 2)).round().astype(np.int16) for _ in starts_s]
    for channel, train in enumerate(SPIKES_S):
        frame = (train[train < duration_s] * rate_hz).round().astype(int)
        pieces[0][frame, channel] -= round(60 / GAIN_UV)
    recording = NumpyRecording(pieces, rate_hz, t_starts=list(starts_s), channel_ids=["e1", "e2"])
    if gains:
        recording.set_channel_gains(GAIN_UV)
        recording.set_channel_offsets(0.0)
    return recording


def units(**more) -> Units:
    return Units(("a", "b"), SPIKES_S, resolution_s=1 / RATE_HZ, electrode_index=np.array([0, 1], np.uint32), **more)


@dataclass
class World:
    """A recording, three images in a folder, and session.yaml as a person would write it."""

    folder: Path
    recorded: Recorded
    told: dict[str, Any] = field(default_factory=lambda: {"alignment": {"method": "none"}, "sorting": {"sorter": "none"}})
    subject: dict[str, Any] = field(default_factory=lambda: dict(ANIMAL))
    said: list[str] = field(default_factory=list)

    def log(self, onset_s=ONSET_S, image=None, **columns) -> None:
        image = image or ["abc"[row % 3] for row in range(len(onset_s))]
        names = ["image", "onset", *columns]
        onset = ["" if np.isnan(time_s) else f"{time_s:.6f}" for time_s in onset_s]
        rows = [",".join(map(str, row)) for row in zip(image, onset, *columns.values(), strict=True)]
        (self.folder / "log.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
        self.tell(stimuli={"images": self.folder / "images", "log": self.folder / "log.csv", "duration_s": 0.1})

    def tell(self, **sections: dict[str, Any]) -> None:
        for name, section in sections.items():
            self.told[name] = self.told.get(name, {}) | section

    def convert(self, **options) -> Converted:
        told = SessionYaml.model_validate(self.told | {"subject": self.subject})
        options = {"scratch": self.folder, "command": "nwb-compact convert", "report": self.said.append} | options
        return convert_recorded(self.recorded, told, Metadata(told.subject, told.session), **options)

    def write(self, **options) -> Path:
        converted = self.convert(**options)
        path = self.folder / "out.nwb"
        write_session(converted.session, path, overwrite=True, add_voltage=converted.add_voltage, voltage_bytes=converted.voltage_bytes)
        return path

    def session(self, **options) -> Session:
        return read_session(self.write(**options))


@pytest.fixture
def world(tmp_path, write_images, make_png):
    write_images(tmp_path / "images", {f"{name}.png": make_png(value) for value, name in enumerate("abc")})
    (tmp_path / "source.bin").write_bytes(b"what was recorded")
    world = World(tmp_path, Recorded((tmp_path / "source.bin",), "a reader", START, Device("amplifier"), voltage(), units()))
    world.log()
    return world


def refused(act, *asked, **settings) -> str:
    with pytest.raises(NwbCompactError) as caught:
        act(*asked, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counted(trains, onset_s, window_s=(0.05, 0.15)):
    return [[int(((train >= onset + window_s[0]) & (train < onset + window_s[1])).sum()) for train in trains] for onset in onset_s]


# The plain way ----------------------------------------------------------------------------------------------------------


def test_what_was_recorded_shown_and_counted_is_in_the_file(world, assert_same):
    session = world.session()
    assert session.images.name == ("a.png", "b.png", "c.png")
    np.testing.assert_array_equal(session.presentations.start_time_s, ONSET_S)
    np.testing.assert_allclose(session.presentations.stop_time_s, ONSET_S + 0.1)
    assert session.presentations.image_index.tolist() == [0, 1, 2] * 4
    assert session.presentations.repeat.tolist() == [row // 3 for row in range(12)]
    assert session.presentations.is_valid.all()
    assert session.counts.count.tolist() == counted(SPIKES_S, ONSET_S)
    assert session.response_units.window_start_s.tolist() == [0.05, 0.05]
    assert_same(session.units.spike_times_s, SPIKES_S)
    assert session.units.obs_intervals_s.tolist() == [[0, 6]]
    assert (session.device.name, session.subject.subject_id, session.about.session_start_time) == ("amplifier", "M1", START)
    assert session.electrodes.name == ("e1", "e2")
    assert world.said == ["12 onsets taken as they are: the log is on the recording's clock"]


def test_the_same_seed_gives_the_same_session(world, assert_same):
    once, again = world.convert(seed=3).session, world.convert(seed=3).session
    assert_same(once.response_units, again.response_units)


def test_what_could_not_be_computed_is_absent(world):
    properties = {"snr": np.array([np.nan, np.nan]), "firing_rate": np.array([np.nan, 2.0]), "sort_code": np.array([1, 2])}
    world.recorded = replace(world.recorded, units=units(properties=properties))
    world.log(np.array([0.5]))
    session = world.session()
    assert set(session.units.properties) == {"firing_rate", "sort_code"}
    assert session.presentations.alignment_residual_s is None, "nothing was aligned"
    assert session.response_units.reliability is session.response_units.snr is session.response_units.latency_s is None, "no repeats"


def test_facts_of_the_source_are_used_where_the_person_is_silent(world):
    world.subject = {"subject_id": "M2"}
    converted = world.convert(subject=Subject("other", "Macaca mulatta", "M", "P5Y"))
    assert converted.session.subject == Subject("M2", "Macaca mulatta", "M", "P5Y")


# Refused before any work ------------------------------------------------------------------------------------------------


def never(*_, **__):
    raise AssertionError("sorted before the faults were told")


@pytest.mark.parametrize(("start", "found"), [(None, "no date in the source"), (START.replace(tzinfo=None), "without a time zone")])
def test_all_missing_facts_are_told_at_once_and_before_sorting(world, monkeypatch, start, found):
    monkeypatch.setattr(pipeline, "sort_units", never)
    monkeypatch.setattr(pipeline, "_stimuli", never)
    world.subject, world.recorded = {}, replace(world.recorded, start_time=start)
    world.tell(sorting={"sorter": "threshold"})
    with pytest.raises(NwbCompactError) as caught:
        world.convert()
    lines = str(caught.value).split("\n")
    assert [line.split(":")[0] for line in lines] == [
        "session_start_time", "subject.subject_id", "subject.species", "subject.sex", "subject.age"
    ]
    assert found in lines[0]
    assert all(" Next: " in line and " expected " in line for line in lines)


def test_a_birthday_does_for_the_age_and_a_told_zone_for_the_source_s(world):
    world.subject = {name: value for name, value in ANIMAL.items() if name != "age"} | {"date_of_birth": "2016-01-01"}
    world.recorded = replace(world.recorded, start_time=START.replace(tzinfo=None))
    world.tell(session={"session_start_time": "2024-05-15T12:30:45+02:00"})
    assert world.session().about.session_start_time.isoformat() == "2024-05-15T12:30:45+02:00"


@pytest.mark.parametrize("fault", ["no such image", "no such channel", "no position"])
def test_what_is_wrong_with_the_stimuli_is_told_before_sorting(world, monkeypatch, fault):
    monkeypatch.setattr(pipeline, "sort_units", never)
    world.tell(sorting={"sorter": "threshold"})
    if fault == "no such image":
        world.log(image=["d"] * 12)
        assert "'d'" in refused(world.convert)
    elif fault == "no such channel":
        world.tell(alignment={"method": "photodiode", "channel": "diode"})
        assert refused(world.convert) == (
            "photodiode: found 'diode' (there: none), expected an analog channel of the recording. "
            "Next: use alignment.method events, or none if the clocks are one"
        )
    else:
        (world.folder / "map.csv").write_text("channel,x_um,y_um\ne1,0,0\n")
        world.tell(device={"geometry": world.folder / "map.csv"})
        assert "no position of 1 of 2 channels (e2)" in refused(world.convert)


def test_a_sorter_needs_voltage(world):
    world.recorded = replace(world.recorded, recording=None)
    world.tell(sorting={"sorter": "threshold"})
    found = "sorting.sorter: found threshold, expected none, since the source holds no voltage. Next: name the file that holds the voltage"
    assert refused(world.convert).startswith(found)
    del world.told["sorting"]
    assert world.session().units.name == ("a", "b"), "a default is no wish"


# Time -------------------------------------------------------------------------------------------------------------------


def test_presentations_outside_the_recording_do_not_count(world):
    onset_s = np.array([0.0, 5.8, 5.86, 6.5, 70.0])
    world.log(onset_s)
    session = world.session()
    assert session.presentations.is_valid.tolist() == [True, True, False, False, False], "the window ends 150 ms after the onset"
    assert session.counts.count.tolist() == counted(SPIKES_S, onset_s)
    assert session.presentations.start_time_s.tolist() == onset_s.tolist()


def test_a_window_before_the_onset_must_have_been_recorded_too(world):
    world.tell(responses={"window_s": [-0.1, 0.1]})
    world.log(np.array([0.05, 0.2]))
    assert world.session().presentations.is_valid.tolist() == [False, True]


def test_gaps_stay_gaps(world):
    world.recorded = replace(world.recorded, recording=voltage(starts_s=(0.0, 10.0)))
    onset_s = np.array([1.0, 5.9, 7.0, 9.99, 10.0, 15.9])
    world.log(onset_s)
    path = world.write()
    session = read_session(path)
    assert session.presentations.is_valid.tolist() == [True, False, False, False, True, False]
    assert session.units.obs_intervals_s.tolist() == [[0, 6], [10, 16]]
    with NWBHDF5IO(path, "r") as io:
        nwbfile = io.read()
        series = sorted(nwbfile.acquisition.values(), key=lambda one: one.starting_time)
        assert [(one.neurodata_type, one.starting_time, one.rate) for one in series] == [
            ("ElectricalSeries", start_s, RATE_HZ) for start_s in (0.0, 10.0)
        ]
        for segment, one in enumerate(series):
            np.testing.assert_array_equal(one.data[:], world.recorded.recording.get_traces(segment))
            np.testing.assert_allclose(one.conversion, 1e-6 * GAIN_UV)
        assert [nwbfile.invalid_times[edge].data[:].tolist() for edge in ("start_time", "stop_time")] == [[6.0], [10.0]]


def test_words_of_the_recording_put_the_log_on_its_clock(world):
    onset_s = np.cumsum([0.5, 0.3, 0.4, 0.6, 0.35, 0.45, 0.5, 0.3, 0.7, 0.4])
    residual_s = 1e-3 * np.array([0, 1, -1, 0, 1, -1, 0, 0, 1, -1])
    word = np.arange(10) + 100
    world.recorded = replace(world.recorded, events={"port": Events(onset_s, word), "line": Events(np.array([1.0]), np.array([1]))})
    world.log(1000 + onset_s - residual_s, word=word)
    world.tell(alignment={"method": "events", "channel": "port"}, stimuli={"columns": {"code": "word"}})
    session = world.session()
    np.testing.assert_allclose(session.presentations.start_time_s, onset_s)
    np.testing.assert_allclose(session.presentations.alignment_residual_s, residual_s, atol=5e-4)
    record = session.about.source_script.splitlines()
    assert {"alignment.marks: 10 words of 'port'", "alignment.paired: 10 of 10"} <= set(record)
    assert any(line.startswith("alignment.residual_max_s: 0.00") for line in record)
    assert [line for line in world.said if line.startswith("10 of 10 onsets paired with words")]
    assert set(session.events) == {"port", "line"}


def test_a_photodiode_puts_the_log_on_the_recording_s_clock(world):
    onset_s = np.cumsum([0.5, 0.3, 0.4, 0.6, 0.35, 0.45, 0.5, 0.3, 0.7, 0.4])
    time_s = np.arange(6000) / 1000
    light = ((time_s[:, None] >= onset_s) & (time_s[:, None] < onset_s + 0.1)).any(axis=1)
    diode = NumpyRecording([(1000 * light).astype(np.int16)[:, None]], 1000.0, channel_ids=["ainp1"])
    world.recorded = replace(world.recorded, analog={"ainp1": diode})
    world.log(7200 + onset_s)
    world.tell(alignment={"method": "photodiode", "channel": "ainp1"})
    session = world.session()
    np.testing.assert_allclose(session.presentations.start_time_s, onset_s, atol=1e-3)
    assert session.presentations.is_valid.all()
    assert "alignment.paired: 10 of 10" in session.about.source_script.splitlines()
    expected = "expected an analog channel of the recording. Next: name one as alignment.channel"
    world.tell(alignment={"channel": "ainp2"})
    assert refused(world.convert) == f"photodiode: found 'ainp2' (there: ainp1), {expected}"
    world.tell(alignment={"channel": None})
    np.testing.assert_array_equal(world.convert().session.presentations.start_time_s, session.presentations.start_time_s)
    world.recorded = replace(world.recorded, analog={"ainp1": diode, "ainp2": diode})
    assert refused(world.convert) == f"photodiode: found no channel named (there: ainp1, ainp2), {expected}"


def test_without_a_log_the_words_are_the_log(world):
    onset_s, word = np.array([0.5, 1.0, 1.5, 2.0]), np.array([3, 1, 99, 2])
    world.recorded = replace(world.recorded, events={"port": Events(onset_s, word)})
    world.told["stimuli"] = {"images": world.folder / "images", "duration_s": 0.2}
    world.tell(alignment={"method": "events"})
    assert "99" in refused(world.convert)
    world.tell(alignment={"codes": [1, 2, 3]})
    presentations = world.session().presentations
    assert presentations.image_index.tolist() == [2, 0, 1]
    assert presentations.start_time_s.tolist() == [0.5, 1.0, 2.0]
    np.testing.assert_allclose(presentations.stop_time_s, [0.7, 1.2, 2.2])


def test_what_is_told_of_a_device_without_electrodes_is_said_to_be_lost(world):
    world.recorded = replace(world.recorded, recording=None, device=None, units=replace(units(), electrode_index=None))
    world.tell(device={"name": "Neuropixels", "location": "V4"})
    assert world.session().electrodes is None
    assert "the source tells of no electrodes, so device (location, name) is not in the file" in world.said


@pytest.mark.parametrize("known", [True, False])
def test_electrodes_that_the_units_do_not_name_are_told(world, known):
    world.recorded = world.recorded if known else replace(world.recorded, units=replace(units(), electrode_index=None))
    session = world.session()
    assert len(session.electrodes.name) == 2
    assert (session.units.electrode_index is not None) == known
    said = "not every unit is known to lie on one of the 2 electrodes, so the file tells the electrode of none"
    assert (said in world.said) != known


@pytest.mark.parametrize("name", ["Utah: V4", "V1/V2"])
def test_a_device_that_cannot_be_named_so_in_a_file_is_told_before_the_work(world, monkeypatch, name):
    monkeypatch.setattr(pipeline, "_stimuli", lambda *_: 1 / 0)
    world.tell(device={"name": name})
    assert refused(world.convert) == (
        f"device: found '{name}', expected names of device and arrays without / and :. Next: rename it in session.yaml or in the map"
    )


@pytest.mark.parametrize("method", ["none", "events"])
def test_a_log_that_was_forgotten_is_asked_for_where_no_word_could_replace_it(world, method):
    world.tell(stimuli={"log": None}, alignment={"method": method})
    assert refused(world.convert) == (
        "stimuli.log: found nothing, expected the log of what was shown, as the source has no events. Next: name it in session.yaml"
    )


def test_rows_without_a_time_are_left_out_and_told(world):
    world.log(np.where(np.arange(12) == 4, np.nan, ONSET_S))
    session = world.session()
    assert len(session.presentations) == len(session.counts.count) == 11
    assert world.said[-1] == "1 rows of the log have no onset, so no time: they are left out"


def test_every_unit_may_have_a_latency_of_its_own(world):
    n_images, n_repeats = 24, 4
    rng = np.random.default_rng(1)
    image, onset_s = rng.permutation(np.repeat(np.arange(n_images), n_repeats)), 0.3 * np.arange(n_images * n_repeats)
    n_spikes = 1 + image % 7
    answers = np.sort(np.repeat(onset_s, n_spikes) + rng.uniform(0.07, 0.12, n_spikes.sum()))
    noise = np.sort(rng.uniform(0, 29, 400))
    world.recorded = replace(world.recorded, recording=voltage(30.0, rate_hz=1000.0),
                             units=Units(("answers", "noise"), (answers, noise), electrode_index=np.array([0, 1], np.uint32)))
    world.log(onset_s, image=[f"{one + 1}" for one in image])
    np.save(world.folder / "stack.npy", rng.integers(0, 256, (n_images, 4, 4), dtype=np.uint8))
    world.tell(stimuli={"images": world.folder / "stack.npy"}, responses={"window_s": [0.0, 0.05], "latency": "per-unit"})
    session = world.session()
    rows = session.response_units
    assert rows.latency_s[0] == pytest.approx(0.07)
    assert np.isnan(rows.latency_s[1]), "shuffled images are as reliable"
    np.testing.assert_allclose(rows.window_start_s, [0.07, 0.0])
    np.testing.assert_allclose(rows.window_stop_s, [0.12, 0.05])
    np.testing.assert_array_equal(session.counts.count[:, 0], n_spikes)
    assert session.counts.count[:, 1].tolist() == [row[1] for row in counted((answers, noise), onset_s, (0.0, 0.05))]
    assert rows.reliability[0] > 0.99
    assert session.presentations.is_valid.tolist() == (onset_s + 0.15 + 0.05 <= 30).tolist()


# What a file can hold ---------------------------------------------------------------------------------------------------


def test_without_stimuli_the_file_holds_the_recording(world):
    del world.told["stimuli"]
    world.recorded = replace(world.recorded, events={"line": Events(np.array([1.0, 2.0]), np.array([1, 0]))})
    with NWBHDF5IO(world.write(), "r") as io:
        nwbfile = io.read()
        assert nwbfile.units["unit_name"].data[:].tolist() == ["a", "b"]
        assert list(nwbfile.acquisition) == ["ElectricalSeries"]
        assert nwbfile.events["digital_events"]["timestamp"].data[:].tolist() == [1.0, 2.0]
        assert not nwbfile.stimulus
        assert not nwbfile.intervals
    assert world.said == ["session.yaml names no stimuli.images: the file will hold the recording, and cannot be fitted"]


def test_without_units_and_voltage_the_file_holds_what_was_shown(world):
    world.recorded = replace(world.recorded, recording=None, units=None, events={"line": Events(np.array([1.0]), np.array([1]))})
    converted = world.convert()
    assert (converted.session.counts, len(converted.session.presentations), converted.add_voltage) == (None, 12, None)
    assert world.said[-1] == "there are no units, so the file will hold no responses and cannot be fitted"
    world.write()


def test_a_person_s_facts_on_the_device_come_first(world):
    (world.folder / "map.csv").write_text("channel,x_um,y_um,array\ne2,400,0,B\ne1,0,800,A\n")
    told = {"name": "Utah", "manufacturer": "Blackrock", "description": "two arrays", "location": {"A": "V1", "B": "V4"}}
    world.tell(device=told | {"geometry": world.folder / "map.csv"})
    session = world.session()
    assert session.device == Device("Utah", "two arrays", "Blackrock")
    electrodes = session.electrodes
    assert (electrodes.group, electrodes.location) == (("A", "B"), ("V1", "V4"))
    assert (electrodes.rel_x_um.tolist(), electrodes.rel_y_um.tolist()) == ([0, 400], [800, 0])
    assert any(line.startswith("file: map.csv sha256:") for line in session.about.source_script.splitlines())


def test_electrodes_without_voltage_are_placed_too(world):
    (world.folder / "map.csv").write_text("channel,x_um,y_um\n1,0,0\n2,400,0\n")
    electrodes = Electrodes(("ch1", "ch2"), ("array", "array"), ("unknown", "unknown"))
    world.recorded = replace(world.recorded, recording=None, electrodes=electrodes)
    world.tell(device={"geometry": world.folder / "map.csv", "location": "IT"})
    session = world.session()
    assert session.electrodes.rel_x_um.tolist() == [0, 400]
    assert session.electrodes.location == ("IT", "IT")
    assert session.units.electrode_index.tolist() == [0, 1]


def test_the_voltage_may_be_left_out(world):
    world.tell(device={"keep_voltage": False})
    path = world.write()
    with NWBHDF5IO(path, "r") as io:
        assert not io.read().acquisition
    session = read_session(path)
    assert session.electrodes.name == ("e1", "e2")
    assert session.units.electrode_index.tolist() == [0, 1]
    assert world.convert().voltage_bytes == 0


def test_room_is_asked_for_the_voltage(world):
    assert world.convert().voltage_bytes == 6 * RATE_HZ * 2 * 2


def test_voltage_without_a_gain_is_no_voltage(world, monkeypatch):
    monkeypatch.setattr(pipeline, "sort_units", never)
    world.recorded = replace(world.recorded, recording=voltage(gains=False))
    world.tell(sorting={"sorter": "threshold"})
    assert refused(world.convert).startswith("recording: found voltage without a gain, expected microvolts per count. Next: set gain_to_uV")
    world.tell(device={"keep_voltage": False}, sorting={"sorter": "none"})
    assert world.session().units.name == ("a", "b")


def test_images_may_be_kept_as_hashes(world, make_png):
    world.tell(stimuli={"keep_pixels": False, "kind": "natural", "licence": "all rights reserved"})
    images = world.session().images
    assert images.pixels is None
    assert images.sha256 == tuple(image_sha256(np.full((4, 4), value, np.uint8)) for value in range(3))
    assert (images.kind, images.licence) == (("natural",) * 3, ("all rights reserved",) * 3)


def test_blanks_and_broken_fixations_stay_as_invalid_rows(world):
    fixation = [1, 1, 0, 1]
    world.log(ONSET_S[:4], image=["a", "none", "b", "c"], fixation=fixation)
    world.tell(stimuli={"blank": ["none"], "columns": {"is_valid": "fixation"}})
    session = world.session()
    assert session.presentations.is_valid.tolist() == [True, False, False, True]
    assert session.images.name[session.presentations.image_index[1]] == "blank"
    assert len(session.counts.count) == 4


# Sorting ----------------------------------------------------------------------------------------------------------------


def test_units_can_be_found_by_threshold(world):
    told = {"freq_max_hz": 4000.0, "bad_channels": [], "threshold_mad": 5.0, "curation": {"min_num_spikes": 1}}
    world.tell(sorting={"sorter": "threshold"} | told)
    session = world.session()
    assert session.units.name == ("e1", "e2")
    for found, true in zip(session.units.spike_times_s, SPIKES_S, strict=True):
        assert len(found) == len(true)
        np.testing.assert_allclose(found, true, atol=2 / RATE_HZ)
    assert session.units.obs_intervals_s.tolist() == [[0, 6]]
    assert session.counts.count.tolist() == counted(session.units.spike_times_s, ONSET_S)
    assert session.units.waveforms.mean_v.min() < -20e-6
    record = session.about.source_script.splitlines()
    assert {"sorting.sorter: threshold", "sorting.units_kept: 2", "setting.sorting.threshold_mad: 5.0"} <= set(record)
    assert "units: 2 of 2 kept" in world.said


# A stub -----------------------------------------------------------------------------------------------------------------


def test_a_stub_is_the_beginning_of_the_whole(world):
    world.recorded = replace(world.recorded, recording=voltage(starts_s=(0.0, 10.0)))
    path = world.write(stub_s=2.0)
    session = read_session(path)
    assert session.presentations.start_time_s.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert session.presentations.is_valid.all()
    assert [train.tolist() for train in session.units.spike_times_s] == [[0.06, 0.56, 0.6, 1.07], [0.3, 1.06, 1.1, 1.14]]
    assert session.units.obs_intervals_s.tolist() == [[0, 2]]
    with NWBHDF5IO(path, "r") as io:
        assert [one.data.shape for one in io.read().acquisition.values()] == [(2 * RATE_HZ, 2)]


def test_a_stub_holds_no_presentation_whose_window_it_cuts(world):
    """Else spikes that the whole has would be counted as none."""
    world.recorded = replace(world.recorded, recording=voltage(starts_s=(0.0, 10.0)))
    world.log(np.concatenate([ONSET_S, 10 + ONSET_S]))
    whole, long, short = (world.convert(stub_s=stub_s).session for stub_s in (None, 60.0, 1.62))
    assert whole.presentations.is_valid.all()
    for stub, onset_s in ((long, ONSET_S), (short, [0.0, 0.5, 1.0])):  # a stub holds no second stretch; the image at 1.5 s counts to 1.65
        np.testing.assert_array_equal(stub.presentations.start_time_s, onset_s)
        np.testing.assert_array_equal(stub.counts.count, whole.counts.count[: len(onset_s)])


def test_a_stub_before_the_first_image_says_so(world):
    world.log(4 + ONSET_S)
    session = world.convert(stub_s=2.0).session
    assert (session.presentations, session.counts, len(session.images)) == (None, None, 3)
    assert world.said[-1] == "no image was shown in the first 2 s"
    world.write(stub_s=2.0)


# Counts -----------------------------------------------------------------------------------------------------------------


def of_counts(world, values, **sections) -> Session:
    np.save(world.folder / "counts.npy", values)
    world.tell(session={"session_start_time": START.isoformat()}, **sections)
    told = SessionYaml.model_validate(world.told | {"subject": world.subject})
    converted = convert_counted(world.folder / "counts.npy", told, Metadata(told.subject, told.session), command="convert counts")
    write_session(converted.session, world.folder / "counts.nwb", overwrite=True)
    return read_session(world.folder / "counts.nwb")


def test_counts_belong_to_the_rows_of_the_log(world):
    counts = np.arange(24).reshape(12, 2)
    session = of_counts(world, counts)
    np.testing.assert_array_equal(session.counts.count, counts)
    assert session.response_units.window_start_s is None, "nobody said how they were counted"
    assert "does not say in which window" in session.counts.description
    told = of_counts(world, counts, responses={"window_s": [0.05, 0.15]})
    assert told.response_units.window_stop_s.tolist() == [0.15, 0.15]


def test_counts_of_a_row_without_an_onset_are_refused(world):
    world.log(np.where(np.arange(12) == 4, np.nan, ONSET_S))
    assert "log.csv: found 1 rows without an onset, expected an onset in each row" in refused(of_counts, world, np.ones((12, 2)))


def untimed(world, *names, **columns) -> dict[str, Any]:
    """The lab has a list of names, perhaps with more columns, and no times."""
    rows = [",".join(map(str, row)) for row in zip(["image", *names], *([name, *values] for name, values in columns.items()), strict=True)]
    (world.folder / "names.csv").write_text("\n".join(rows) + "\n")
    return {"stimuli": {"log": world.folder / "names.csv", "columns": {"onset": None, **{name: name for name in columns}}}}


def test_counts_need_no_times(world):
    values = np.array([[1, 2], [3, 4], [5, 6], [7, 8], [np.nan, np.nan]])
    told = untimed(world, "b", "a.png", "3", "b", "none", is_valid=[1, 1, 0, 1, 1]) | {"responses": {"axes": ["presentation", "unit"]}}
    told["stimuli"]["blank"] = ["none"]
    session = of_counts(world, values, **told)
    assert session.presentations.image_index.tolist() == [1, 0, 2, 1, 3]
    assert session.presentations.repeat.tolist() == [0, 0, 0, 1, 0]
    assert session.presentations.is_valid.tolist() == [True, True, False, True, False]
    assert session.presentations.start_time_s is session.presentations.stop_time_s is None
    assert session.images.name[3] == "blank"
    assert session.counts.presentation_index.tolist() == [0, 1, 2, 3]
    assert session.counts.count.tolist() == values[:4].tolist()
    assert session.counts.description.endswith(". Rows are in the order shown; the times are not given.")


def test_a_log_without_times_must_be_as_long_as_the_counts(world):
    told = untimed(world, "b", "a") | {"responses": {"axes": ["presentation", "unit"]}}
    found = "found 3 presentations (shape (3, 2) as [presentation, unit]), expected 2 as in the stimulus log."
    assert found in refused(of_counts, world, np.ones((3, 2)), **told)


def test_what_is_no_matrix_of_counts_needs_times(world):
    expected = "expected a column of onsets: only a matrix of counts (convert counts) can do without. Next: name the column"
    world.tell(**untimed(world, "b", "a"))
    assert refused(world.convert) == f"stimuli.columns.onset: found null, {expected}"
    spikes = np.array([[1, 0.25], [1, 0.5], [2, 0.75]])
    (world.folder / "spikes.csv").write_text("unit,time\n" + "\n".join(f"{int(unit)},{time_s}" for unit, time_s in spikes) + "\n")
    world.tell(session={"session_start_time": START.isoformat()})
    told = SessionYaml.model_validate(world.told | {"subject": world.subject})
    found = refused(convert_counted, world.folder / "spikes.csv", told, Metadata(told.subject, told.session), command="convert counts")
    assert found == f"stimuli.columns.onset: found null, {expected}"


def test_counts_by_image_need_no_log(world):
    del world.told["stimuli"]["log"]
    session = of_counts(world, np.array([[1, 2], [3, 4], [5, 6]]))
    assert session.presentations.start_time_s is None
    assert session.counts.count.tolist() == [[1, 2], [3, 4], [5, 6]]
    means = of_counts(world, np.array([[1.5, 2], [3, 4], [5, 6]]))
    assert means.mean_responses.mean.tolist() == [[1.5, 2], [3, 4], [5, 6]]
    assert means.counts is None


def test_curation_of_units_that_come_sorted_is_refused(world):
    world.tell(sorting={"sorter": "none", "curation": {"min_snr": 3.0, "exclude_labels": ["mua"]}})
    assert refused(world.convert).startswith("sorting.curation: found min_snr, expected none, since the units come sorted.")


@pytest.mark.parametrize(("alignment", "columns", "asked"), [({}, {}, 1), ({"check_words": False}, {}, 0), ({}, {"code": "word"}, 0)])
def test_words_are_held_against_the_images_of_a_log_that_was_paired_by_time(world, monkeypatch, alignment, columns, asked):
    words = np.arange(len(ONSET_S)) % 3 + 7
    world.recorded = replace(world.recorded, events={"words": Events(np.asarray(ONSET_S), words)})
    world.log(word=words)
    world.tell(alignment={"method": "events"} | alignment)
    world.told["stimuli"] |= {"columns": columns}
    seen = []
    monkeypatch.setattr(pipeline, "refuse_other_images", lambda image, code: seen.append(list(zip(image, code.tolist(), strict=True))))
    world.convert()
    assert seen == [[("abc"[row % 3], row % 3 + 7) for row in range(len(ONSET_S))]] * asked

"""What every converter must keep: one class of tests, and each source of the command line passes it.

Sources are the smallest files of the other tests and the vendors' examples. Images and a log are made up to fit when each one recorded.
"""

import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from pynwb import NWBHDF5IO, validate

from nwb_compact.cli import main
from nwb_compact.nwb_session import read_session
from nwb_compact.session import Session
from nwb_compact_conversion import cli, stub
from nwb_compact_conversion.electrodes import electrodes_of, with_geometry
from nwb_compact_conversion.recorded import Recorded, observed_s
from nwb_compact_conversion.session_yaml import DeviceFacts, LogColumns, Stimuli
from nwb_compact_conversion.sources.blackrock import read_blackrock
from nwb_compact_conversion.sources.cowley_v4 import read_cowley_v4
from nwb_compact_conversion.sources.foreign_nwb import read_foreign_nwb
from nwb_compact_conversion.sources.intan import read_intan
from nwb_compact_conversion.sources.openephys import read_openephys
from nwb_compact_conversion.sources.plexon import read_plexon
from nwb_compact_conversion.sources.recording import read_recording
from nwb_compact_conversion.sources.sorted_spikes import read_sorted
from nwb_compact_conversion.sources.spikeglx import read_spikeglx
from nwb_compact_conversion.spikes import sorting

N_IMAGES = 24
"""A fit needs 20."""
NONE = {"sorter": "none"}
THRESHOLD = {"sorter": "threshold", "threshold_mad": 1.0, "bad_channels": [], "curation": {"min_num_spikes": 0}}
"""Finds crossings in the noise of recordings that last some milliseconds."""
FACTS = {
    "subject": {"subject_id": "M1", "species": "Macaca mulatta", "sex": "F", "age": "P8Y"},
    "session": {"session_start_time": "2024-05-15T12:30:45+02:00", "keywords": ["V4"], "experimenter": ["Last, First"]},
}


@dataclass
class Source:
    """A source in a folder of its own, and what its own reader gives."""

    folder: Path
    arguments: list[str]
    recorded: Recorded | None = None
    sorting: dict[str, Any] = field(default_factory=lambda: dict(NONE))
    told: dict[str, Any] = field(default_factory=dict)
    """Further sections of session.yaml."""
    counts: np.ndarray | None = None
    session: Session | None = None
    """Where the source is read as a whole."""
    files: list[Path] = field(default_factory=list)

    def shown(self) -> tuple[float, float]:
        """From when to when images can be shown."""
        if self.recorded is None or (self.recorded.units is None and self.recorded.recording is None):
            return 0.0, 10.0
        if self.recorded.recording is not None:
            first, last = observed_s(self.recorded.recording)[0]
            return float(first), float(last)
        spikes = np.concatenate(self.recorded.units.spike_times_s)
        return float(spikes.min()), float(spikes.max()) + 0.001

    def write(self) -> None:
        """Images, a log that shows each once on the recording's clock, and session.yaml, in no relation to the files of the source."""
        (self.folder / "images").mkdir(parents=True)
        for number, pixels in enumerate(PIXELS, 1):
            Image.fromarray(pixels).save(self.folder / "images" / f"picture {number}.png")
        start_s, stop_s = self.shown()
        window_s = round(0.99 * (stop_s - start_s) / N_IMAGES, 7)
        onset_s = start_s + window_s * np.arange(N_IMAGES)
        rows = [f"picture {number}.png,{onset:.9f}" for number, onset in enumerate(onset_s, 1)]
        (self.folder / "log.csv").write_text("\n".join(["image,onset", *rows]) + "\n")
        told = FACTS | {
            "stimuli": {"images": "images", "log": "log.csv", "duration_s": window_s / 2},
            "alignment": {"method": "none"},
            "responses": {"window_s": [0.0, window_s]},
            "sorting": self.sorting,
        }
        (self.folder / "session.yaml").write_text(yaml.safe_dump(told | self.told))


PIXELS = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 6, 6), dtype=np.uint8)


def loaded(name: str) -> ModuleType:
    """A module of this folder, for the files that it makes."""
    spec = spec_from_file_location(f"made_by_{name}", Path(__file__).parent / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their own module there
    spec.loader.exec_module(module)
    return module


def of_blackrock(folder: Path, vendor: ModuleType, suffix: str, told: dict) -> Source:
    vendor.write_blackrock(folder)
    path = folder / f"day{suffix}"
    return Source(folder / "told", ["blackrock", str(path)], read_blackrock(path), told)


def of_spikeinterface(folder: Path, vendor: ModuleType, raw_data: Path | None) -> Source:
    """In two segments, with a CSV of events."""
    path, events = vendor.write_saved(folder / "day")["path"], vendor.write_events(folder / "events.csv")
    return Source(folder / "told", ["recording", str(path), "--events", str(events)], read_recording(path, events_csv=events), THRESHOLD)


def of_counts(folder: Path) -> Source:
    counts = np.random.default_rng(2).poisson(3.0, (N_IMAGES, 5))
    np.save(folder / "counts.npy", counts)
    return Source(folder / "told", ["counts", str(folder / "counts.npy")], counts=counts, files=[folder / "counts.npy"])


def of_spike_times(folder: Path) -> Source:
    trains = [np.sort(np.random.default_rng(unit).uniform(0, 10, 300)) for unit in range(3)]
    rows = [f"u{unit},{time_s:.6f}" for unit, train in enumerate(trains) for time_s in train]
    (folder / "spikes.csv").write_text("\n".join(["unit,time", *rows]) + "\n")
    return Source(folder / "told", ["counts", str(folder / "spikes.csv")], files=[folder / "spikes.csv"])


def of_another_program(folder: Path) -> Source:
    made = loaded("test_foreign_nwb").Made(folder / "foreign.nwb")
    made.electrodes()
    made.units(with_electrodes=True)
    step_s = 0.19 / N_IMAGES  # spikes at 0.25, 0.5 and 0.75 s
    made.table("flashes", start_time=0.2 + 3 * step_s * np.arange(N_IMAGES), stop_time=0.2 + 3 * step_s * (np.arange(N_IMAGES) + 0.5),
               picture=[f"picture {number}.png" for number in range(1, N_IMAGES + 1)])
    told = {"stimuli": {"images": "images", "columns": {"image": "picture"}}, "responses": {"window_s": [0.0, 3 * step_s]}}
    recorded, *_ = read_foreign_nwb(made.write(), Stimuli(images=Path("images"), columns=LogColumns(image="picture")))
    return Source(folder / "told", ["nwb", str(made.path)], recorded, told=told)


def of_cowley(folder: Path) -> Source:
    made = loaded("conftest")
    raw = np.random.default_rng(3).poisson(2.0, (2, N_IMAGES, 3)).astype(float)
    source = made.Source(folder / "data", members={f"image{k:04d}.jpg": made.jpeg(k) for k in range(1, N_IMAGES + 1)}, raw=raw,
                         mean=raw.mean(axis=2)).write()
    (folder / "facts.yaml").write_text(yaml.safe_dump(FACTS))
    arguments = ["cowley-v4", "--data", str(source.data), "--session", source.session, "--metadata", str(folder / "facts.yaml")]
    return Source(folder / "told", arguments, session=read_cowley_v4(source.data, source.session),
                  files=[source.zip, source.raw_file, source.mean_file])


def example(read: Callable, command: str, *parts: str) -> Callable:
    """One of the vendors' files."""

    def made(folder: Path, vendor: ModuleType, raw_data: Path) -> Source:
        path = raw_data.joinpath(command, *parts)
        return Source(folder / "told", [command, str(path)], read(path))

    return made


def written(read: Callable, command: str, write: str, name: str, told: dict) -> Callable:
    """A file that `vendor_files` writes."""

    def made(folder: Path, vendor: ModuleType, raw_data: Path) -> Source:
        path = getattr(vendor, write)(folder / name)["path"]
        return Source(folder / "told", [command, str(path)], read(path), told)

    return made


def of_spikeglx(folder: Path, vendor: ModuleType, raw_data: Path) -> Source:
    path = vendor.write_spikeglx(folder / "run", raw_data / "spikeglx" / "NP2_with_sync")["path"]
    return Source(folder / "told", ["spikeglx", str(path)], read_spikeglx(path), THRESHOLD)


def of_phy(folder: Path, vendor: ModuleType, raw_data: Path) -> Source:
    path = loaded("test_sorted_spikes").Phy(folder / "phy").write()
    return Source(folder / "told", ["sorted", str(path)], read_sorted(path, format=None, sampling_frequency_hz=None))


SOURCES: dict[str, Callable[[Path, ModuleType, Path | None], Source]] = {
    "blackrock .ns6 and .nev": lambda folder, vendor, _: of_blackrock(folder, vendor, ".ns6", NONE),
    "blackrock .ns6, sorted": lambda folder, vendor, _: of_blackrock(folder, vendor, ".ns6", THRESHOLD),
    "blackrock .nev": lambda folder, vendor, _: of_blackrock(folder, vendor, ".nev", NONE),
    "blackrock example .ns5": example(read_blackrock, "blackrock", "FileSpec2.3001.ns5"),
    "blackrock example .nev": example(read_blackrock, "blackrock", "blackrock_2_1", "l101210-001.nev"),
    "spikeglx": of_spikeglx,
    "openephys binary": written(read_openephys, "openephys", "write_openephys", "day", THRESHOLD),
    "openephys legacy": written(read_openephys, "openephys", "write_openephys_legacy", "day", THRESHOLD),
    "intan": written(read_intan, "intan", "write_intan", "day_240515_123045.rhd", THRESHOLD),
    "plexon": written(read_plexon, "plexon", "write_plx", "a.plx", NONE),
    "plexon example": example(read_plexon, "plexon", "File_plexon_3.plx"),
    "recording": of_spikeinterface,
    "sorted": of_phy,
    "counts": lambda folder, _, __: of_counts(folder),
    "counts of spike times": lambda folder, _, __: of_spike_times(folder),
    "nwb": lambda folder, _, __: of_another_program(folder),
    "cowley-v4": lambda folder, _, __: of_cowley(folder),
}
NEED_EXAMPLES = ("blackrock example .ns5", "blackrock example .nev", "spikeglx", "plexon example")


@contextmanager
def typed(words: list[str], **constants: float):
    """The command line as a person typed it; constants of the modules may be shortened with the recordings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nwb-compact", *words])
        patch.setattr(sorting, "MIN_S", 0.0)  # these recordings last some milliseconds
        for name, value in constants.items():
            patch.setattr(stub, name, value)
        yield CliRunner().invoke(main, words)


def run(source: Source, output: Path, *more: str, **constants: float) -> Any:
    told = [] if source.session is not None else ["--yaml", str(source.folder / "session.yaml")]
    words = ["convert", *source.arguments, *told, "-o", str(output), *more]
    with typed(words, **constants) as result:
        return result


@dataclass
class Conversion:
    """A source, its file, and what was seen on the way."""

    source: Source
    output: Path
    result: Any
    before: dict[Path, str]
    read: Session

    def again(self, output: Path, *more: str, **constants: float) -> Any:
        return run(self.source, output, *more, **constants)


def digests(folder: Path) -> dict[Path, str]:
    return {path: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module", params=list(SOURCES))
def conversion(request, tmp_path_factory, vendor):
    """Every source, converted once."""
    raw_data = request.getfixturevalue("raw_data") if request.param in NEED_EXAMPLES else None
    folder = tmp_path_factory.mktemp("source")
    source = SOURCES[request.param](folder, vendor, raw_data)
    source.write()
    before, output = digests(folder), tmp_path_factory.mktemp("out") / "day.nwb"
    result = run(source, output)
    assert result.exit_code == 0, result.output
    return Conversion(source, output, result, before, read_session(output))


CORE = {"core", "hdmf-common", "hdmf-experimental"}


def faults(output: Path) -> list[str]:
    """Of the schema, and what the inspector calls critical; the file is opened once for both, since that takes most of the time."""
    from nwbinspector import Importance, inspect_nwbfile_object, load_config

    with h5py.File(output, "r") as file, NWBHDF5IO(file=file, mode="r", load_namespaces=True) as io:
        assert set(file["specifications"]) == CORE, "so that pynwb's own copy of the schema is the one to validate against"
        found = [str(error) for error in validate(io=io, use_cached_namespaces=False)]
        critical = inspect_nwbfile_object(io.read(), config=load_config("dandi"), importance_threshold=Importance.CRITICAL)
        return found + [f"{one.check_function_name}: {one.message}" for one in critical]


class TestConverter:
    """The contract."""

    def test_it_ends_well_and_leaves_one_file(self, conversion):
        assert conversion.result.stdout.startswith(f"{conversion.output}: {len(conversion.read.units)} units, {N_IMAGES} images, ")
        assert list(conversion.output.parent.iterdir()) == [conversion.output]

    def test_the_schema_is_kept_and_the_inspector_finds_nothing_critical(self, conversion):
        assert faults(conversion.output) == []

    def test_the_voltage_is_the_source_s_in_volts(self, conversion):
        recorded = conversion.source.recorded
        with h5py.File(conversion.output, "r") as file:
            series = [one for one in file["acquisition"].values() if one.attrs["neurodata_type"] == "ElectricalSeries"]
            if recorded is None or recorded.recording is None:
                assert series == []
                return
            series.sort(key=lambda one: one["starting_time"][()])
            assert len(series) == recorded.recording.get_num_segments()
            for segment, one in enumerate(series):
                data, start = one["data"], one["starting_time"]
                scale = data.attrs["conversion"] * (one["channel_conversion"][:] if "channel_conversion" in one else 1.0)
                stored = data[:] * scale + data.attrs["offset"]
                assert (data.attrs["unit"], start.attrs["unit"]) == ("volts", "seconds")
                np.testing.assert_allclose(stored, 1e-6 * recorded.recording.get_traces(segment, return_in_uV=True), rtol=1e-5, atol=1e-12)
                expected = (recorded.recording.get_start_time(segment), recorded.recording.sampling_frequency)
                assert (start[()], start.attrs["rate"]) == expected

    def test_units_are_the_source_s(self, conversion, assert_same):
        source, units = conversion.source, conversion.read.units
        if source.recorded is None or source.sorting != NONE:
            assert units.name
            return
        given = source.recorded.units
        for name in ("name", "spike_times_s", "resolution_s", "electrode_index", "properties"):
            assert_same(getattr(units, name), getattr(given, name))
        expected = given.obs_intervals_s if source.recorded.recording is None else observed_s(source.recorded.recording)
        assert_same(units.obs_intervals_s, expected)

    def test_electrodes_and_events_are_the_source_s(self, conversion, assert_same):
        recorded, read = conversion.source.recorded, conversion.read
        if recorded is None:
            assert (read.electrodes, read.device, read.events) == (None, None, {})
            return
        known = recorded.electrodes if recorded.recording is None else electrodes_of(with_geometry(recorded.recording, DeviceFacts()))
        assert_same(read.electrodes, known)
        if known is not None:
            assert read.device.name == ("unknown" if recorded.device is None else recorded.device.name)
        assert set(read.events) == set(recorded.events)
        for name, events in recorded.events.items():
            assert_same(read.events[name], events)

    def test_images_and_presentations_are_those_of_folder_and_log(self, conversion, assert_same):
        read, source = conversion.read, conversion.source
        if source.session is not None:
            assert_same(read.images, source.session.images)
            assert_same(read.presentations, source.session.presentations)
            return
        assert read.images.name == tuple(f"picture {number}.png" for number in range(1, N_IMAGES + 1))
        np.testing.assert_array_equal(read.images.pixels, PIXELS)
        assert read.presentations.image_index.tolist() == list(range(N_IMAGES))
        assert read.presentations.is_valid.all()

    def test_counts_can_be_counted_again(self, conversion):
        read, source = conversion.read, conversion.source
        count = read.counts.count[np.argsort(read.counts.presentation_index)]
        if source.session is not None:
            np.testing.assert_array_equal(count, source.session.counts.count)
        elif source.counts is not None:
            np.testing.assert_array_equal(count, source.counts)
        else:
            onset_s, trains = read.presentations.start_time_s, read.units.spike_times_s
            window_s = window_of(source)
            assert set(read.response_units.window_stop_s) == {window_s}
            again = [[((train >= onset) & (train < onset + window_s)).sum() for train in trains] for onset in onset_s]
            np.testing.assert_array_equal(count, again)
        assert count.any()

    def test_a_person_s_facts_are_in_the_file(self, conversion):
        read = conversion.read
        assert (read.subject.subject_id, read.subject.species, read.subject.sex, read.subject.age) == ("M1", "Macaca mulatta", "F", "P8Y")
        assert read.about.session_start_time.isoformat() == "2024-05-15T12:30:45+02:00"
        assert (read.about.keywords, read.about.experimenter) == (("V4",), ("Last, First",))

    def test_nothing_that_was_read_is_changed(self, conversion):
        folder = conversion.source.folder.parent
        assert digests(folder) == conversion.before

    def test_the_file_says_how_it_was_made(self, conversion):
        source, record = conversion.source, conversion.read.about.source_script.splitlines()
        assert record[0] == "program: nwb-compact"
        assert any(line.startswith("version: ") for line in record)
        files = list(source.files if source.recorded is None else source.recorded.files)
        if source.session is None:
            assert any(line.startswith("reader: ") and len(line) > 10 for line in record)
            assert f"setting.responses.window_s: (0.0, {window_of(source)})" in record
            command = " ".join(next(line for line in record if line.startswith("command: ")).split()[1:])
            assert command == f"nwb-compact convert {' '.join(Path(word).name for word in source.arguments)} --yaml session.yaml -o day.nwb"
            files += [] if source.arguments[0] == "nwb" else [source.folder / "log.csv"]
            if source.recorded is not None:
                assert f"reader: {source.recorded.reader}" in record
        digest = {line.rsplit("sha256:", 1)[1] for line in record if line.startswith("file: ")}
        assert digest == {sha256(path.read_bytes()).hexdigest() for path in files}
        metadata = next(line for line in record if line.startswith("metadata: "))
        told = source.folder / "session.yaml" if source.session is None else source.folder.parent / "facts.yaml"
        assert metadata == f"metadata: {told.name} sha256:{sha256(told.read_bytes()).hexdigest()}"

    def test_no_folder_of_this_machine_is_in_the_file(self, conversion):
        content = conversion.output.read_bytes()
        for path in (conversion.source.folder.parent, conversion.output.parent, *(Path(word) for word in conversion.source.arguments)):
            if path.is_absolute():
                assert str(path).encode() not in content
                assert str(path.parent).encode() not in content

    def test_check_is_content(self, conversion):
        result = CliRunner().invoke(main, ["check", str(conversion.output)])
        assert (result.exit_code, ": all is well; " in result.output) == (0, True), result.output

    def test_twice_is_the_same(self, conversion, assert_same):
        content = conversion.output.read_bytes()
        refused = conversion.again(conversion.output)
        assert (refused.exit_code, conversion.output.read_bytes() == content) == (1, True)
        result = conversion.again(conversion.output, "--overwrite")
        assert result.exit_code == 0, result.output
        once, twice = conversion.read, read_session(conversion.output)
        for item in fields(Session):
            if item.name != "about":
                assert_same(getattr(twice, item.name), getattr(once, item.name))
        record, again = (one.about.source_script.replace(" --overwrite", "").splitlines() for one in (once, twice))
        of_this_program = ("commit: ", "working_tree: ")  # may be worked on meanwhile
        assert len(again) == len(record)
        assert {one for one in set(again) ^ set(record) if not one.startswith(of_this_program)} == set()
        assert twice.about.identifier == once.about.identifier

    def test_a_stub_holds_the_beginning_and_takes_seconds(self, conversion, tmp_path):
        if conversion.source.session is not None or conversion.source.counts is not None:
            pytest.skip("a table of counts has no length of time")
        stub_s = float(conversion.read.presentations.stop_time_s[N_IMAGES // 2])
        began = time.process_time()  # not how busy the machine is with other things
        result = conversion.again(tmp_path / "stub.nwb", "--stub", STUB_S=stub_s)
        assert time.process_time() - began < 10
        assert result.exit_code == 0, result.output
        stub, whole = read_session(tmp_path / "stub.nwb"), conversion.read
        assert 0 < len(stub.presentations) < len(whole.presentations)
        assert stub.presentations.stop_time_s.max() <= stub_s
        assert max(train.max(initial=0) for train in stub.units.spike_times_s) < stub_s
        assert (stub.images.sha256, stub.about.session_start_time) == (whole.images.sha256, whole.about.session_start_time)


def window_of(source: Source) -> float:
    return yaml.safe_load((source.folder / "session.yaml").read_text())["responses"]["window_s"][1]


def test_every_source_of_the_command_line_is_here():
    """But the published models, which come with averages only and with runs: see test_cowley_v4_models."""
    commands = {words[0] for words in (name.split() for name in SOURCES)}
    assert commands == {*cli.SOURCES, "cowley-v4"} == set(cli.convert.commands) - {"template", "cowley-v4-models"}


def test_a_board_that_recorded_events_only_becomes_a_file_of_them(raw_data, tmp_path):
    path = raw_data / "spikeglx" / "DigitalChannelTest_g0"
    (tmp_path / "session.yaml").write_text(yaml.safe_dump(FACTS))
    with typed(["convert", "spikeglx", str(path), "--yaml", str(tmp_path / "session.yaml"), "-o", str(tmp_path / "a.nwb")]) as result:
        assert result.exit_code == 0, result.output
    assert faults(tmp_path / "a.nwb") == []
    with NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        rows = io.read().events["digital_events"]
        np.testing.assert_array_equal(rows["timestamp"].data[:], read_spikeglx(path).events["XD0"].time_s)

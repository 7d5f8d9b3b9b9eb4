"""Our interfaces among those of NeuroConv: in one pipe, with one metadata, and the tables of the command line."""

import sys
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from neuroconv import ConverterPipe, NWBConverter
from neuroconv.basedatainterface import BaseDataInterface
from neuroconv.datainterfaces import BlackrockRecordingInterface
from neuroconv.tools.testing.mock_interfaces import MockRecordingInterface
from pynwb import NWBHDF5IO, validate

from nwb_compact.cli import main
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import read_session
from nwb_compact.nwb_units import read_electrodes
from nwb_compact_conversion.interfaces import (
    FlashedImagesInterface,
    SpikeCountMatrixInterface,
    StimulusPresentationsInterface,
    UtahArrayProbeInterface,
)

N_IMAGES, N_REPEATS = 24, 2
N = N_IMAGES * N_REPEATS
START = datetime(2024, 5, 15, 12, 30, 45, tzinfo=ZoneInfo("Europe/Berlin"))
FACTS = {
    "subject": {"subject_id": "M1", "species": "Macaca mulatta", "sex": "F", "age": "P8Y"},
    "session": {"session_start_time": START.isoformat()},
}
COUNT = np.random.default_rng(0).poisson(3.0, (N, 5))
CMP = "//made by Blackrock\nCerebus mapping\n//col row bank elec label\n0 0 A 1 chan1\n3 1 A 2 chan2\n"
INTERFACES = (FlashedImagesInterface, StimulusPresentationsInterface, SpikeCountMatrixInterface, UtahArrayProbeInterface)


@pytest.fixture
def lab(tmp_path, write_images, make_png):
    """Images, a log with a broken fixation, counts and the map of an array."""
    write_images(tmp_path / "images", {f"im{number:02}.png": make_png(10 * number, height=6, width=6) for number in range(N_IMAGES)})
    rows = [f"im{k % N_IMAGES:02},{0.01 + 0.02 * k:.2f},{int(k != 7)}" for k in range(N)]
    (tmp_path / "log.csv").write_text("\n".join(["picture,onset,fixation", *rows]) + "\n")
    np.save(tmp_path / "counts.npy", COUNT)
    (tmp_path / "array.cmp").write_text(CMP)
    return tmp_path


def source_data(lab: Path) -> dict[str, dict]:
    return {
        "Images": {"images": str(lab / "images"), "kind": "natural", "licence": "CC0-1.0"},
        "Presentations": {"log": str(lab / "log.csv"), "duration_s": 0.01, "columns": {"image": "picture", "is_valid": "fixation"}},
        "Responses": {"file_path": str(lab / "counts.npy"), "axes": ["presentation", "unit"], "window_s": (0.05, 0.15)},
    }


def ours(lab: Path) -> dict[str, BaseDataInterface]:
    return {name: kind(**told) for (name, told), kind in zip(source_data(lab).items(), INTERFACES, strict=False)}


def metadata_of(pipe) -> dict:
    metadata = pipe.get_metadata()
    metadata["NWBFile"] |= {"session_start_time": START, "session_description": "flashed images"}
    metadata["Subject"] = dict(FACTS["subject"])
    return metadata


def run(pipe, output: Path, **options) -> Path:
    metadata = metadata_of(pipe)
    before = deepcopy(metadata)
    pipe.run_conversion(nwbfile_path=str(output), metadata=metadata, **options)
    assert metadata == before, "metadata belong to who gives them"
    return output


def by_command(lab: Path, command: str, path: Path, **told) -> Path:
    (lab / "session.yaml").write_text(yaml.safe_dump(FACTS | told))
    words = ["convert", command, str(path), "--yaml", str(lab / "session.yaml"), "-o", str(lab / "command.nwb")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nwb-compact", *words])
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return lab / "command.nwb"


def refused(act, *asked, **settings) -> str:
    with pytest.raises(NwbCompactError) as caught:
        act(*asked, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# In one pipe ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["mock", "blackrock"])
def recording(request):
    """An interface of NeuroConv."""
    if request.param == "mock":
        yield MockRecordingInterface(num_channels=2, durations=(1.0,))
        return
    file = request.getfixturevalue("raw_data") / "blackrock" / "FileSpec2.3001.ns5"
    interface = BlackrockRecordingInterface(file_path=str(file))
    yield interface
    for opened in interface.recording_extractor.neo_reader._nsx_fids.values():
        opened.close()  # Neo leaves it to Python, which warns


def test_the_tables_are_those_of_the_command_line(lab, assert_same, recording):
    stub = {"Recording": {"stub_test": True}}
    output = run(ConverterPipe({"Recording": recording, **ours(lab)}), lab / "pipe.nwb", conversion_options=stub)
    assert list(validate(path=str(output))) == []
    stimuli = {"images": "images", "log": "log.csv", "duration_s": 0.01, "columns": {"image": "picture", "is_valid": "fixation"}}
    stimuli |= {"kind": "natural", "licence": "CC0-1.0"}
    told = {"stimuli": stimuli, "responses": {"window_s": [0.05, 0.15], "axes": ["presentation", "unit"]}}
    piped, typed = read_session(output), read_session(by_command(lab, "counts", lab / "counts.npy", **told))
    for name in ("images", "presentations", "units", "response_units", "counts", "mean_responses"):
        assert_same(getattr(piped, name), getattr(typed, name))
    np.testing.assert_array_equal(piped.counts.count, COUNT)
    assert piped.presentations.is_valid.sum() == N - 1
    assert len(piped.electrodes) == recording.recording_extractor.get_num_channels()
    check = CliRunner().invoke(main, ["check", str(output)])
    assert (check.exit_code, ": all is well; " in check.output) == (0, True), check.output
    with NWBHDF5IO(output, "r") as io:
        nwbfile = io.read()
        assert [one.neurodata_type for one in nwbfile.acquisition.values()] == ["ElectricalSeries"]
        assert nwbfile.stimulus_template["stimulus_images"].order_of_images[0].name is not None


def test_more_images_than_fit_as_objects(lab):
    pixels = np.random.default_rng(1).integers(0, 256, (501, 4, 4), dtype=np.uint8)
    np.save(lab / "stack.npy", pixels)
    output = run(ConverterPipe([FlashedImagesInterface(images=lab / "stack.npy"), MockRecordingInterface(durations=(0.1,))]), lab / "a.nwb")
    with NWBHDF5IO(output, "r") as io:
        series = io.read().stimulus_template["stimulus_images"]
        assert series.neurodata_type == "OpticalSeries"
        np.testing.assert_array_equal(series.data[:], pixels)


def test_beside_field_potentials_which_neuroconv_puts_where_counts_go(lab):
    from neuroconv.tools.nwb_helpers import get_module

    class FieldPotentials(MockRecordingInterface):
        def add_to_nwbfile(self, nwbfile, metadata=None, **options):
            get_module(nwbfile, "ecephys", "what was processed")

    pipe = ConverterPipe({"LFP": FieldPotentials(durations=(0.1,)), **ours(lab)})
    assert read_session(run(pipe, lab / "a.nwb")).counts.count.shape == COUNT.shape


def test_a_converter_class_of_a_lab_is_validated_against_our_schemas(lab):
    class LabConverter(NWBConverter):
        data_interface_classes = dict(zip(source_data(lab), INTERFACES, strict=False))  # noqa: RUF012 as NeuroConv declares it

    output = run(LabConverter(source_data=source_data(lab)), lab / "a.nwb")
    np.testing.assert_array_equal(read_session(output).counts.count, COUNT)


def test_a_stub_names_what_it_holds(lab):
    stub = {name: {"stub_test": True} for name in ("Recording", *source_data(lab))}
    pipe = ConverterPipe({"Recording": MockRecordingInterface(durations=(0.1,)), **ours(lab)})
    session = read_session(run(pipe, lab / "a.nwb", conversion_options=stub))
    assert session.counts.presentation_index.max() < len(session.presentations)
    assert session.presentations.image_index.max() < len(session.images)


def test_onsets_can_be_aligned(lab):
    interfaces = ours(lab)
    shown = interfaces["Presentations"]
    shown.set_aligned_onsets(100 + np.arange(N))
    session = read_session(run(ConverterPipe(interfaces), lab / "a.nwb"))
    assert session.presentations.start_time_s.tolist() == (100.0 + np.arange(N)).tolist()
    assert refused(shown.set_aligned_onsets, np.zeros(3)) == (
        f"set_aligned_onsets: found onsets of shape (3,), expected {N}, one for each row of the log. Next: give NaN where a row has none"
    )


def test_a_utah_array_as_the_command_line_has_it(lab, vendor, assert_same):
    vendor.write_blackrock(lab)
    array = UtahArrayProbeInterface(file_path=lab / "array.cmp", location="V4", device_name="Utah")
    output = run(ConverterPipe([array]), lab / "a.nwb")
    with NWBHDF5IO(output, "r") as io:
        nwbfile = io.read()
        electrodes = read_electrodes(nwbfile, output)
        assert list(nwbfile.devices) == ["Utah"]
    assert electrodes.rel_x_um.tolist() == [0, 1200]
    told = {"device": {"geometry": "array.cmp", "location": "V4"}, "sorting": {"sorter": "none"}}
    with NWBHDF5IO(by_command(lab, "blackrock", lab / "day.ns6", **told), "r") as io:
        assert_same(electrodes, read_electrodes(io.read(), output))


# As NeuroConv wants its interfaces ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", INTERFACES)
def test_every_interface_tells_what_it_is(kind):
    assert issubclass(kind, BaseDataInterface)
    assert kind.display_name
    assert kind.keywords
    assert kind.associated_suffixes
    assert kind.info
    assert kind.__doc__
    schema = kind.get_source_schema()
    assert len(schema["required"]) == 1
    assert "verbose" in schema["properties"]


def test_schemas_hold_for_what_is_given_and_for_nothing_else(lab):
    from jsonschema import ValidationError

    told = source_data(lab) | {"Array": {"file_path": str(lab / "array.cmp")}}
    for (name, given), kind in zip(told.items(), INTERFACES, strict=True):
        interface = kind(**given)
        kind._validate_source_data(kind, given)
        kind._validate_source_data(kind, interface.source_data)
        with pytest.raises(ValidationError):
            kind._validate_source_data(kind, given | {"colour": "red"})
        assert set(interface.get_conversion_options_schema()["properties"]) == {"stub_test"}, name
        interface.validate_metadata(metadata_of(interface))
        assert interface.get_metadata_schema()["properties"]["NWBFile"]
        assert not interface.verbose


def test_an_interface_alone_makes_a_file(lab):
    images = ours(lab)["Images"]
    metadata = metadata_of(images)
    images.run_conversion(nwbfile_path=str(lab / "a.nwb"), metadata=metadata)
    assert list(validate(path=str(lab / "a.nwb"))) == []


# Faults -----------------------------------------------------------------------------------------------------------------


def test_what_is_named_must_be_added_before(lab):
    interfaces = ours(lab)
    backwards = ConverterPipe({name: interfaces[name] for name in ("Presentations", "Images", "Responses")})
    assert refused(run, backwards, lab / "a.nwb") == (
        "ConverterPipe: found no images, expected the images. Next: put FlashedImagesInterface before StimulusPresentationsInterface"
    )
    without = ConverterPipe({name: interfaces[name] for name in ("Images", "Responses", "Presentations")})
    assert refused(run, without, lab / "a.nwb").startswith("ConverterPipe: found no presentations, expected the presentations. Next: put ")
    assert not (lab / "a.nwb").exists()


def test_electrodes_of_a_recording_are_not_added_twice(lab):
    pipe = ConverterPipe([MockRecordingInterface(durations=(0.1,)), UtahArrayProbeInterface(file_path=lab / "array.cmp")])
    assert refused(run, pipe, lab / "a.nwb").startswith("ConverterPipe: found electrodes of another interface, expected none yet. Next: ")


def test_counts_must_fit_the_presentations(lab):
    np.save(lab / "counts.npy", COUNT[:-1])
    assert f"found {N - 1} presentations (shape ({N - 1}, 5) as [presentation, unit]), expected {N} as in the stimulus log" in refused(
        run, ConverterPipe(ours(lab)), lab / "a.nwb"
    )
    np.save(lab / "spikes.npy", np.array([1]))
    (lab / "spikes.csv").write_text("unit,time\na,0.5\n")
    spikes = ours(lab) | {"Responses": SpikeCountMatrixInterface(file_path=lab / "spikes.csv")}
    assert "spikes.csv: found " in (line := refused(run, ConverterPipe(spikes), lab / "a.nwb"))
    assert "expected counts of presentations and units." in line


def test_what_cannot_be_read_is_told_when_the_interface_is_made(lab):
    assert refused(FlashedImagesInterface, images=lab / "none").startswith(f"{lab / 'none'}: found no such file or folder")
    assert "'image'" in refused(StimulusPresentationsInterface, log=lab / "log.csv")
    assert "array.cmp" in refused(UtahArrayProbeInterface, file_path=lab / "more" / "array.cmp")

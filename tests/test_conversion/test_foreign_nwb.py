"""Files of other programs, made here with pynwb as those programs make them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pynwb import NWBHDF5IO, NWBFile
from pynwb.base import ImageReferences, Images
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject as NwbSubject
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries, OpticalSeries, RGBImage

from nwb_compact.cli import main
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import read_session
from nwb_compact.session import image_sha256
from nwb_compact_conversion.session_yaml import LogColumns, Stimuli
from nwb_compact_conversion.sources.foreign_nwb import read_foreign_nwb, with_blank
from nwb_compact_conversion.stimulus.presentations import present
from nwb_compact_conversion.stimulus.while_recording import SILENCE_S

START = datetime(2021, 3, 4, 5, tzinfo=UTC)
NAN = float("nan")
NOT_TOLD = object()
SPIKES = {14: [0.5, 0.75, 3.0], 11: [0.25], 12: []}
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5), dtype=np.uint8)


@dataclass
class Made:
    """A file that tests fill."""

    path: Path
    nwbfile: NWBFile = field(
        default_factory=lambda: NWBFile("a session", "id-1", START, session_id="S1", keywords=["V4"], experimenter="Last, First")
    )

    def electrodes(self):
        device = self.nwbfile.create_device("array")
        group = self.nwbfile.create_electrode_group("A", description="an array", location="V4", device=device)
        for channel in range(3):
            self.nwbfile.add_electrode(group=group, location="V4", x=float(channel), y=0.0, z=0.0)

    def units(self, *, with_electrodes=False, observed_s=None):
        self.nwbfile.add_unit_column("quality", "what the lab says")
        self.nwbfile.add_unit_column("snr", "signal to noise")
        for row, (unit, times) in enumerate(SPIKES.items()):
            more = {"electrodes": [2 - row], "electrode_group": self.nwbfile.electrode_groups["A"]} if with_electrodes else {}
            more |= {"quality": "good" if row else "noise", "snr": row + 0.5}
            observed = [[0.0, 10.0], [12.0, 20.0]] if observed_s is None else observed_s[row]
            self.nwbfile.add_unit(id=unit, spike_times=times, **more | ({} if observed is NOT_TOLD else {"obs_intervals": observed}))

    def table(self, name, **columns):
        rows = TimeIntervals(name=name, description="what was shown")
        for column in columns:
            if column not in ("start_time", "stop_time"):
                rows.add_column(column, column)
        for values in zip(*columns.values(), strict=True):
            rows.add_row(**dict(zip(columns, values, strict=True)))
        self.nwbfile.add_time_intervals(rows)

    def write(self):
        with NWBHDF5IO(self.path, "w") as io:
            io.write(self.nwbfile)
        return self.path


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path / "foreign.nwb")


def allen(made, *, frame=(2.0, -1.0, 0.0, 3.0, NAN)):
    """Visual Coding Neuropixels: stimulus_index counts blocks, frame the images; the images are in a folder of their own."""
    n = len(frame)
    start = np.arange(n) * 0.25 + 10
    told = {"stimulus_name": ["natural_scenes"] * n, "stimulus_index": [7] * n, "frame": list(frame)}
    made.table("natural_scenes_presentations", start_time=start, stop_time=start + 0.25, **told)
    made.table("spontaneous_presentations", start_time=[0.0], stop_time=[5.0])
    made.units()
    return made


ALLEN = Stimuli(table="natural_scenes_presentations", images=Path("scenes"), columns=LogColumns(image="frame"), first_number=0)


def refused(path, stimuli):
    with pytest.raises(NwbCompactError) as caught:
        read_foreign_nwb(path, stimuli)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def series(kind=OpticalSeries, data=PIXELS, name="scenes", **more):
    optical = {"orientation": "row 0 is the top"} if kind is OpticalSeries else {}
    return kind(name=name, data=data, unit="n.a.", rate=1.0, starting_time=0.0, format="raw", **optical, **more)


def of_names(names, pixels=PIXELS, *, ordered=True, name="scenes"):
    objects = [GrayscaleImage(name=one, data=image) for one, image in zip(names, pixels, strict=True)]
    order = ImageReferences(name="order_of_images", data=objects) if ordered else None
    return Images(name=name, description="shown", images=objects, order_of_images=order)


# Allen Institute --------------------------------------------------------------------------------------------------------


def test_flashed_scenes_of_the_allen_institute(made):
    recorded, log, images, about, subject = read_foreign_nwb(allen(made).write(), ALLEN)
    assert images is subject is None
    assert log.image == ("2", "blank", "0", "3", "blank")
    assert log.is_valid.tolist() == [True, False, True, True, False]
    np.testing.assert_array_equal(log.onset_s, np.arange(5) * 0.25 + 10)
    np.testing.assert_array_equal(log.offset_s - log.onset_s, [0.25] * 5)
    assert log.code is None
    assert (about.session_id, about.keywords, about.session_start_time) == ("S1", ("V4",), START)
    assert about.identifier == "id-1-nwb-compact"
    assert recorded.start_time == START
    assert recorded.reader.startswith("pynwb ")
    assert recorded.files == (made.path,)
    assert recorded.recording is None


def test_units_with_their_scalar_columns(made):
    made.electrodes()
    made.units(with_electrodes=True)
    made.table("shown", start_time=[1.0], stop_time=[2.0], image=["a.png"])
    recorded = read_foreign_nwb(made.write(), Stimuli(images=Path("scenes")))[0]
    units = recorded.units
    assert units.name == ("14", "11", "12")
    assert [train.tolist() for train in units.spike_times_s] == list(SPIKES.values())
    assert units.obs_intervals_s.tolist() == [[0, 10], [12, 20]]
    assert units.properties["quality"].tolist() == ["noise", "good", "good"]
    assert units.properties["snr"].tolist() == [0.5, 1.5, 2.5]
    assert set(units.properties) == {"quality", "snr"}
    assert units.electrode_index.tolist() == [2, 1, 0]
    assert recorded.electrodes.group == ("A", "A", "A")
    assert recorded.electrodes.location == ("V4", "V4", "V4")
    assert recorded.device.name == "array"


def test_the_animal_is_taken_from_the_file(made):
    made.nwbfile.subject = NwbSubject(subject_id="M1", species="Macaca mulatta", sex="M", age="P8Y")
    subject = read_foreign_nwb(allen(made).write(), ALLEN)[4]
    assert (subject.subject_id, subject.species, subject.sex, subject.age) == ("M1", "Macaca mulatta", "M", "P8Y")


@pytest.mark.parametrize("name", ["scenes", None])
def test_frames_of_a_series_are_the_images(made, name):
    made.nwbfile.add_stimulus_template(series())
    told = Stimuli(table="natural_scenes_presentations", templates=name, columns=LogColumns(image="frame"), kind="natural")
    _, log, images, _, _ = read_foreign_nwb(allen(made).write(), told)
    assert log.image == ("image00002", "blank", "image00000", "image00003", "blank")
    np.testing.assert_array_equal(images.pixels, PIXELS)
    assert images.sha256 == tuple(image_sha256(image) for image in PIXELS)
    assert images.kind == ("natural",) * 4


def test_the_log_and_the_images_can_be_joined(made):
    made.nwbfile.add_stimulus_template(series())
    told = Stimuli(table="natural_scenes_presentations", columns=LogColumns(image="frame"))
    _, log, images, _, _ = read_foreign_nwb(allen(made).write(), told)
    images, shown = present(log, images, with_blank(told), log.onset_s, None)
    assert [images.name[row] for row in shown.image_index] == ["image00002", "blank", "image00000", "image00003", "blank"]
    assert shown.is_valid.tolist() == [True, False, True, True, False]


def test_first_number_is_0_in_a_file_unless_told(made):
    made.nwbfile.add_stimulus_template(series())
    told = {"table": "natural_scenes_presentations", "columns": LogColumns(image="frame")}
    allen(made, frame=(1.0, 4.0, 2.0))
    assert read_foreign_nwb(made.write(), Stimuli(**told, first_number=1))[1].image == ("image00001", "image00004", "image00002")
    message = refused(made.path, Stimuli(**told))
    found = "found image number 4, expected 0 to 3, for the 4 images in the file."
    assert message.startswith(f"{made.path}: natural_scenes_presentations: {found}")


def test_control_description_names_frames(made):
    names = ["im061", "im062", "im063", "im064"]
    made.nwbfile.add_stimulus_template(series(ImageSeries, control=np.arange(4, dtype=np.uint8), control_description=names))
    made.table("flashes", start_time=[1.0, 2.0, 3.0], stop_time=[1.2, 2.2, 3.2], image_name=["im063", "omitted", "im061"])
    made.units()
    _, log, images, _, _ = read_foreign_nwb(made.write(), Stimuli(columns=LogColumns(image="image_name"), blank=("omitted",)))
    assert log.image == ("im063", "blank", "im061")
    assert images.name == tuple(names)
    assert log.is_valid.tolist() == [True, False, True]


# DiCarlo lab ------------------------------------------------------------------------------------------------------------


def dicarlo(made, *, names=("im7.png", "im12.png", "im30.png", "im2.png"), ordered=True):
    images = of_names(names, ordered=ordered, name="stimuli")
    made.nwbfile.add_stimulus(images)
    index = {"data": np.array([3, 0, 0, 1], np.uint32), "timestamps": [1.0, 1.5, 2.0, 3.25], "indexed_images": images}
    made.nwbfile.add_stimulus(IndexSeries(name="stimulus_presentation", unit="N/A", **index))
    for name in ("stimulus_presented", "fixation_correct", "stimulus_filename"):
        made.nwbfile.add_trial_column(name, name)
    for row, (number, held) in enumerate(zip([3, 0, 0, 1], [True, False, True, True], strict=True)):
        start = 3.0 - row  # rows out of order
        told = {"stimulus_presented": number, "fixation_correct": held, "stimulus_filename": names[number]}
        made.nwbfile.add_trial(start_time=start, stop_time=start + 0.1, **told)
    made.units()
    return made


def test_trials_are_presentations(made):
    told = Stimuli(table="trials", columns=LogColumns(image="stimulus_presented", is_valid="fixation_correct"))
    _, log, images, _, _ = read_foreign_nwb(dicarlo(made).write(), told)
    assert log.image == ("im12.png", "im7.png", "im7.png", "im2.png"), "in the order of time"
    assert log.onset_s.tolist() == [0, 1, 2, 3]
    assert log.is_valid.tolist() == [True, True, False, True]
    assert images.name == ("im7.png", "im12.png", "im30.png", "im2.png"), "in the order of order_of_images"
    np.testing.assert_array_equal(images.pixels, PIXELS)


def test_names_of_images_need_no_order(made):
    told = {"table": "trials", "templates": "stimuli"}
    dicarlo(made, ordered=False).nwbfile.stimulus.pop("stimulus_presentation")
    _, log, images, _, _ = read_foreign_nwb(made.write(), Stimuli(**told, columns=LogColumns(image="stimulus_filename")))
    assert log.image == ("im12.png", "im7.png", "im7.png", "im2.png")
    for name, pixels in zip(("im7.png", "im12.png", "im30.png", "im2.png"), PIXELS, strict=True):
        np.testing.assert_array_equal(images.pixels[images.name.index(name)], pixels)
    message = refused(made.path, Stimuli(**told, columns=LogColumns(image="stimulus_presented")))
    assert "trials: found numbers of images without order_of_images, expected their order. Next: name a column with the names" in message


@pytest.mark.parametrize("images_in_folder", [False, True])
def test_an_index_series_is_a_log_of_its_own(made, images_in_folder):
    told = {"images": Path("scenes")} if images_in_folder else {}
    _, log, images, _, _ = read_foreign_nwb(dicarlo(made).write(), Stimuli(table="stimulus_presentation", **told))
    assert log.onset_s.tolist() == [1.0, 1.5, 2.0, 3.25]
    assert log.offset_s is None
    assert log.image == (("4", "1", "1", "2") if images_in_folder else ("im2.png", "im7.png", "im7.png", "im12.png"))
    assert (images is None) == images_in_folder


def test_images_that_are_called_by_numbers_are_found_by_them(made):
    told = Stimuli(table="trials", columns=LogColumns(image="stimulus_presented"))
    _, log, images, _, _ = read_foreign_nwb(dicarlo(made, names=("3", "1", "5", "0")).write(), told)
    assert images.name == ("image 3", "image 1", "image 5", "image 0")
    assert log.image == ("image 1", "image 0", "image 0", "image 3")
    joined, shown = present(log, images, told, log.onset_s, None)
    assert tuple(joined.name[row] for row in shown.image_index) == log.image


# Multi-unit trials ------------------------------------------------------------------------------------------------------


def test_a_file_with_one_of_everything_needs_names_of_columns_only(made):
    for name in ("picture", "word"):
        made.nwbfile.add_trial_column(name, name)
    for start, picture, word in [(0.5, "cat", 12.0), (1.5, "dog", NAN)]:
        made.nwbfile.add_trial(start_time=start, stop_time=start + 0.5, picture=picture, word=word)
    made.nwbfile.add_stimulus_template(of_names(["cat.png", "dog.png"], PIXELS[:2]))
    made.nwbfile.add_invalid_time_interval(start_time=30.0, stop_time=31.0)
    made.units()
    recorded, log, images, _, _ = read_foreign_nwb(made.write(), Stimuli(columns=LogColumns(image="picture", code="word")))
    assert log.image == ("cat.png", "dog.png")
    assert log.code.tolist() == [12, -1]
    assert images.name == ("cat.png", "dog.png")
    assert recorded.electrodes is recorded.device is recorded.units.electrode_index is None


def test_units_in_a_processing_module(made):
    from pynwb.misc import Units as NwbUnits

    rows = NwbUnits(name="sorted", description="units")
    rows.add_column("unit_name", "names")
    rows.add_unit(spike_times=[2.0, 1.0], unit_name="a")
    made.nwbfile.create_processing_module("ecephys", "sorted").add(rows)
    made.table("shown", start_time=[1.0], stop_time=[2.0], image=["a.png"])
    units = read_foreign_nwb(made.write(), Stimuli(images=Path("scenes")))[0].units
    assert units.name == ("a",)
    assert units.spike_times_s[0].tolist() == [1.0, 2.0]


# Which rows count -------------------------------------------------------------------------------------------------------


def with_flags(made, flags, **more):
    start = 1.0 + np.arange(len(flags))
    made.table("shown", start_time=start, stop_time=start + 0.1, image=["a.png"] * len(flags), err=flags, **more)
    made.units()
    return made.write()


@pytest.mark.parametrize("flags", [[0, 1, 0, 5], [0.0, 1.0, 0.0, NAN], ["0", "1", "0", "x"], [False, True, False, True]])
def test_the_values_that_a_lab_names_are_valid_and_no_others(made, flags):
    yes = ("False",) if flags[0] is False else ("0",)
    told = Stimuli(images=Path("scenes"), columns=LogColumns(is_valid="err"), valid_values=yes)
    assert read_foreign_nwb(with_flags(made, flags), told)[1].is_valid.tolist() == [True, False, True, False]


def test_a_table_is_held_to_the_rules_of_a_log(made):
    told = Stimuli(images=Path("scenes"), columns=LogColumns(is_valid="err"))
    message = refused(with_flags(made, [1.0, 0.0, -1.0, 7.5], stamp=["x", "y", "z", "x"]), told)
    assert message.startswith(f"{made.path}: shown: err: found values that are neither yes nor no: '-1', '7.5', expected 1 or 0,")
    named = {"columns": LogColumns(onset="stamp")}
    assert "shown: stamp: found 'x' in row 1, expected a number, in s." in refused(made.path, told.model_copy(update=named))
    swapped = told.model_copy(update={"columns": LogColumns(onset="stop_time", offset="start_time")})
    assert "shown: start_time: found an image that goes off before it comes on in row 1" in refused(made.path, swapped)
    in_ms = told.model_copy(update={"onset_unit": "ms"})
    assert refused(made.path, in_ms).startswith("stimuli.onset_unit: found ms, expected s, as all times of NWB are.")


def test_a_column_with_several_values_a_row_is_refused(made):
    rows = TimeIntervals(name="trials", description="some flashes each")
    rows.add_column("flashed", "which", index=True)
    for start, flashed in [(0.0, [1, 2]), (1.0, [2, 0, 3])]:
        rows.add_row(start_time=start, stop_time=start + 1, flashed=flashed)
    made.nwbfile.trials = rows
    made.units()
    message = refused(made.write(), Stimuli(images=Path("scenes"), columns=LogColumns(image="flashed")))
    assert message.startswith(f"{made.path}: trials: flashed: found several values a row, expected one value a presentation.")


# When the units were observed -------------------------------------------------------------------------------------------


def observed_differently(made, *observed_s):
    made.units(observed_s=observed_s)
    made.table("shown", start_time=[1.0, 29.0, 45.0], stop_time=[1.1, 29.1, 45.1], image=["a.png"] * 3)
    return made.write()


SHOWN = Stimuli(images=Path("scenes"))


def test_units_observed_at_different_times_count_while_all_were(made):
    path, said = observed_differently(made, [[0.0, 20.0], [20.0, 30.0]], [[10.0, 60.0]], [[0.0, 28.0], [28.5, 60.0]]), []
    assert read_foreign_nwb(path, SHOWN, said.append)[0].units.obs_intervals_s.tolist() == [[10, 28], [28.5, 30]]
    assert said == ["units were observed at different times: the 19.5 s common to all 3 count, of 60.0 s in all"]


def test_stretches_that_touch_are_one_and_nothing_is_told(made):
    path, said = observed_differently(made, [[0.0, 20.0], [20.0, 30.0]], [[0.0, 30.0]], [[5.0, 30.0], [0.0, 5.0]]), []
    assert read_foreign_nwb(path, SHOWN, said.append)[0].units.obs_intervals_s.tolist() == [[0, 30]]
    assert said == []


OBSERVED_FAULTS = {
    "never together": (([[0.0, 30.0]], [[30.0, 60.0]], [[0.0, 60.0]]),
                       "found units that were never observed all at the same time ('14' from 0 to 30 s, '11' from 30 to 60 s), expected"),
    "one untold": (([[0.0, 30.0]], np.zeros((0, 2)), [[0.0, 30.0]]),
                   "obs_intervals: found none for 1 of 3 units ('11'), expected some for each unit"),
    "backwards": (([[0.0, 30.0]], [[30.0, 0.0]], [[0.0, 30.0]]), "obs_intervals of unit '11': found 30 to 0 s in row 1, expected starts"),
    "open": (([[0.0, 30.0]], [[0.0, 1.0], [2.0, NAN]], [[0.0, 30.0]]), "of unit '11': found 2 to nan s in row 2, expected starts"),
}


@pytest.mark.parametrize("fault", OBSERVED_FAULTS)
def test_units_that_tell_no_common_time_are_refused(made, fault):
    observed_s, message = OBSERVED_FAULTS[fault]
    assert message in refused(observed_differently(made, *observed_s), SHOWN)


def test_invalid_times_are_cut_out(made):
    made.nwbfile.add_invalid_time_interval(start_time=9.0, stop_time=13.0)
    made.nwbfile.add_invalid_time_interval(start_time=15.0, stop_time=15.5)
    made.nwbfile.add_invalid_time_interval(start_time=15.2, stop_time=16.0)
    assert read_foreign_nwb(allen(made).write(), ALLEN)[0].units.obs_intervals_s.tolist() == [[0, 9], [13, 15], [16, 20]]


def test_invalid_times_without_obs_intervals_are_cut_out_of_the_time_from_0_to_after_the_last_spike(made):
    made.units(observed_s=[NOT_TOLD] * 3)
    made.table("shown", start_time=[1.0], stop_time=[1.1], image=["a.png"])
    path = made.write()
    assert read_foreign_nwb(path, SHOWN)[0].units.obs_intervals_s is None, "nothing tells"
    made.nwbfile.add_invalid_time_interval(start_time=1.0, stop_time=2.0)
    made.nwbfile.set_modified()
    assert read_foreign_nwb(made.write(), SHOWN)[0].units.obs_intervals_s.tolist() == [[0, 1], [2, 3 + SILENCE_S]]


@pytest.mark.parametrize(("start_s", "stop_s", "message"), [
    (0.0, 20.0, "invalid_times: found all 18.0 s of the units invalid, expected some valid time."),
    (1.0, NAN, "invalid_times: found 1 to nan s in row 1, expected starts before stops."),
])  # fmt: skip
def test_invalid_times_that_leave_or_tell_nothing_are_refused(made, start_s, stop_s, message):
    made.nwbfile.add_invalid_time_interval(start_time=start_s, stop_time=stop_s)
    assert message in refused(allen(made).write(), ALLEN)


def test_what_is_shown_in_an_invalid_time_is_invalid_in_the_new_file(made, tmp_path):
    """Onsets at 10 to 13 s: the image at 11 s is gone before the gap, its window is not; that at 12 s comes within it."""
    start = np.array([10.0, 11.0, 12.0, 13.0])
    made.table("shown", start_time=start, stop_time=start + 0.05, image=[0, 1, 0, 1])
    made.units(observed_s=[[[0.0, 20.0]]] * 3)
    made.nwbfile.add_stimulus_template(series())
    made.nwbfile.add_invalid_time_interval(start_time=11.1, stop_time=12.5)
    made.nwbfile.subject = NwbSubject(subject_id="M1", species="Macaca mulatta", sex="M", age="P8Y")
    result = CliRunner().invoke(main, ["convert", "nwb", str(made.write()), "-o", str(tmp_path / "day.nwb")])
    assert result.exit_code == 0, result.output
    session = read_session(tmp_path / "day.nwb")
    assert session.presentations.is_valid.tolist() == [True, False, False, True]
    assert session.units.obs_intervals_s.tolist() == [[0, 11.1], [12.5, 20]]
    with NWBHDF5IO(tmp_path / "day.nwb", "r") as io:
        rows = io.read().invalid_times
        assert [rows[edge].data[:].tolist() for edge in ("start_time", "stop_time")] == [[11.1], [12.5]]


@pytest.mark.parametrize("command", ["nwb", "recording", "sorted"])
def test_the_source_is_never_overwritten(made, command):
    """Voltage, for one, is not copied."""
    made.units()
    path = made.write()
    before = path.read_bytes()
    done = CliRunner().invoke(main, ["convert", command, str(path), "-o", str(path), "--overwrite"])
    assert done.exit_code == 1
    assert "foreign.nwb: found the source as the output, expected another file" in done.output
    assert path.read_bytes() == before


def test_a_log_beside_the_file_is_refused(made, tmp_path):
    made.table("shown", start_time=[10.0, 11.0], stop_time=[10.05, 11.05], image=[0, 1])
    made.units()
    made.nwbfile.add_stimulus_template(series())
    (tmp_path / "session.yaml").write_text("stimuli: {log: log.csv}", encoding="utf-8")
    words = ["convert", "nwb", str(made.write()), "--yaml", str(tmp_path / "session.yaml"), "-o", str(tmp_path / "day.nwb")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert "stimuli.log: found a file, expected nothing: the log is in the NWB file" in done.output


# Numbers and names ------------------------------------------------------------------------------------------------------


def numbered(made, names, values, *, ordered=True):
    made.nwbfile.add_stimulus(of_names(names, ordered=ordered))
    start = 1.0 + np.arange(len(values))
    made.table("shown", start_time=start, stop_time=start + 0.1, image=values)
    made.units()
    return made.write()


def test_numbers_that_the_names_of_the_images_contradict_are_refused(made):
    """Counted from 0 the images 1 to 3 would each be taken for the next one; the last of the four was never shown."""
    path = numbered(made, ["im1.png", "im2.png", "im3.png", "im4.png"], [1, 2, 3])
    message = refused(path, Stimuli())
    assert "found image number 1, which is 'im2.png' when counted from 0, expected the number that is in the file name." in message
    assert message.endswith("Next: set stimuli.first_number to the number of the file's first image, or name a column with names")
    assert read_foreign_nwb(path, Stimuli(first_number=1))[1].image == ("im1.png", "im2.png", "im3.png")
    assert read_foreign_nwb(path, Stimuli(first_number=0))[1].image == ("im2.png", "im3.png", "im4.png"), "who says so is believed"


def test_names_without_zeros_are_found_by_number(made):
    path = numbered(made, ["003.png", "002.png", "001.png", "004.png"], ["1", "002", "3"])
    assert read_foreign_nwb(path, Stimuli())[1].image == ("001.png", "002.png", "003.png")


def test_numbers_among_names_are_counted_as_without_them(made):
    path = numbered(made, ["a.png", "b.png", "c.png", "d.png"], ["0", "b", "3", "-1"])
    assert read_foreign_nwb(path, Stimuli())[1].image == ("a.png", "b.png", "d.png", "blank")


def test_a_name_that_is_no_image_of_the_file_is_refused(made):
    message = refused(numbered(made, ["a.png", "b.png", "c.png", "d.png"], ["a", "x", "x"]), Stimuli())
    found, expected = "found 1 image that is not there ('x'; 2 rows)", f"expected images of {made.path}: scenes (from 'a.png' to 'd.png')"
    assert message.startswith(f"{made.path}: shown: {found}, {expected}.")


def test_an_index_is_a_place_in_the_order_whatever_the_images_are_called(made):
    images = of_names(["3", "1", "2", "0"])
    made.nwbfile.add_stimulus(images)
    told = {"data": np.array([0, 1, 3], np.uint32), "timestamps": [1.0, 2.0, 3.0], "indexed_images": images}
    made.nwbfile.add_stimulus(IndexSeries(name="shown", unit="N/A", **told))
    made.units()
    assert read_foreign_nwb(made.write(), Stimuli())[1].image == ("image 3", "image 1", "image 0")


# Pixels -----------------------------------------------------------------------------------------------------------------


def with_images(made, *images):
    for one in images:
        made.nwbfile.add_stimulus_template(one)
    made.table("shown", start_time=[1.0, 2.0], stop_time=[1.1, 2.1], image=[0, 1])
    made.units()
    return made.write()


def test_levels_from_0_to_1_become_0_to_255(made):
    path = with_images(made, series(ImageSeries, PIXELS.astype(np.float32) / 255))
    np.testing.assert_array_equal(read_foreign_nwb(path, Stimuli())[2].pixels, PIXELS)


def test_grey_among_colour_becomes_colour(made):
    colour = np.repeat(PIXELS[:1, :, :, None], 3, axis=3)[0] // 2
    objects = [RGBImage(name="a", data=colour), GrayscaleImage(name="b", data=PIXELS[1])]
    order = ImageReferences(name="order_of_images", data=objects)
    images = read_foreign_nwb(with_images(made, Images(name="scenes", images=objects, order_of_images=order)), Stimuli())[2]
    np.testing.assert_array_equal(images.pixels, [colour, np.repeat(PIXELS[1, :, :, None], 3, axis=2)])


def test_hashes_only(made):
    images = read_foreign_nwb(with_images(made, series()), Stimuli(keep_pixels=False))[2]
    assert images.pixels is None
    assert images.sha256[1] == image_sha256(PIXELS[1])


PIXEL_FAULTS = {
    "16 bits": (PIXELS.astype(np.uint16) * 4, "scenes, frame 0: found uint16 of shape (6, 5), "),
    "levels above 1": (PIXELS.astype(np.float32), "found float32 of shape (6, 5), "),
    "no number": (np.full((2, 6, 5), np.nan), "found float64 of shape (6, 5), nan to nan, expected opaque grey or RGB, 8 bits or levels"),
    "transparent": (np.repeat(PIXELS[..., None], 4, axis=3), "found uint8 of shape (6, 5, 4), "),
}


@pytest.mark.parametrize("fault", PIXEL_FAULTS)
def test_pixels_that_would_have_to_be_changed_are_refused(made, fault):
    data, message = PIXEL_FAULTS[fault]
    assert message in refused(with_images(made, series(ImageSeries, data)), Stimuli())


def test_an_opaque_alpha_channel_is_dropped(made):
    data = np.concatenate([np.repeat(PIXELS[..., None], 3, axis=3), np.full((*PIXELS.shape, 1), 255, np.uint8)], axis=3)
    images = read_foreign_nwb(with_images(made, series(ImageSeries, data)), Stimuli())[2]
    np.testing.assert_array_equal(images.pixels, data[..., :3])


def test_images_of_two_sizes_are_refused(made):
    objects = [GrayscaleImage(name="a", data=PIXELS[0]), GrayscaleImage(name="b", data=PIXELS[1, :4])]
    message = refused(with_images(made, Images(name="scenes", images=objects)), Stimuli())
    assert f"{made.path}: scenes/b: found (4, 5) px, expected (6, 5) px as in 'a'." in message


def test_frames_in_other_files_are_refused(made):
    outside = ImageSeries(name="movie", external_file=["a.mp4"], format="external", starting_frame=[0], timestamps=[0.0], unit="n.a.")
    assert "movie: found frames in other files, expected frames of (height width)" in refused(with_images(made, outside), Stimuli())


# What is not there ------------------------------------------------------------------------------------------------------


def test_a_missing_table_lists_what_is_there(made):
    path = allen(made).write()
    message = refused(path, Stimuli(table="natural_scenes", images=Path("scenes")))
    there = "(there: natural_scenes_presentations, spontaneous_presentations)"
    assert message == (
        f"{path}: found no table 'natural_scenes' {there}, expected a table of intervals or IndexSeries "
        "(did you mean 'natural_scenes_presentations'?). Next: name the right one as stimuli.table"
    )
    assert f"{path}: found 2 tables {there}, expected one that says what was shown when." in refused(path, Stimuli(images=Path("scenes")))


def test_a_missing_column_lists_what_is_there(made):
    message = refused(allen(made).write(), ALLEN.model_copy(update={"columns": LogColumns(image="frames")}))
    there = "start_time, stop_time, stimulus_name, stimulus_index, frame"
    assert f"found no column 'frames' (there: {there}), expected a column of it (did you mean 'frame'?)." in message
    assert message.endswith("Next: name the right one as stimuli.columns.image")
    assert "found no column 'began'" in refused(made.path, ALLEN.model_copy(update={"columns": LogColumns(image="frame", onset="began")}))
    untimed = ALLEN.model_copy(update={"columns": LogColumns(image="frame", onset=None)})
    assert refused(made.path, untimed).startswith("stimuli.columns.onset: found null, expected a column of onsets: only a matrix of counts")


def test_missing_images_list_what_is_there(made):
    path = with_images(made, series(name="a"), series(name="b"))
    assert "found 2 sets of images (there: a, b), expected one. Next: name the right one as stimuli.templates" in refused(path, Stimuli())
    assert "found no images 'c' (there: a, b), expected a set of images (use one of: a, b)." in refused(path, Stimuli(templates="c"))


def test_no_images_at_all(made):
    message = refused(with_images(made), Stimuli())
    assert "found no sets of images (there: none), expected one. Next: give the images as stimuli.images" in message


def test_units_without_spikes_and_no_units(made):
    made.table("shown", start_time=[1.0], stop_time=[2.0], image=["a.png"])
    assert "found no unit, expected units with spike times." in refused(made.write(), Stimuli(images=Path("scenes")))
    made.nwbfile.add_unit_column("quality", "what the lab says")
    made.nwbfile.add_unit(quality="good")
    made.nwbfile.set_modified()
    message = refused(made.write(), Stimuli(images=Path("scenes")))
    assert "found units without spike times (columns quality), expected spike times." in message


def test_no_valid_row(made):
    message = refused(allen(made, frame=(-1.0, NAN)).write(), ALLEN)
    assert "natural_scenes_presentations: found no valid row of 2, expected presentations." in message


def test_a_file_of_another_kind_ends_in_one_line(tmp_path):
    (tmp_path / "a.nwb").write_text("not HDF5")
    assert "found a file that is damaged or not HDF5" in refused(tmp_path / "a.nwb", Stimuli())

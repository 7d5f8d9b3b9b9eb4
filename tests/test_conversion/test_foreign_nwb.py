"""Files of other programs, made here with pynwb as those programs make them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile
from pynwb.base import ImageReferences, Images
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject as NwbSubject
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries, OpticalSeries, RGBImage

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import image_sha256
from nwb_compact_conversion.session_yaml import LogColumns, Stimuli
from nwb_compact_conversion.sources.foreign_nwb import read_foreign_nwb, with_blank
from nwb_compact_conversion.stimulus.presentations import present

START = datetime(2021, 3, 4, 5, tzinfo=UTC)
NAN = float("nan")
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

    def units(self, *, with_electrodes=False):
        self.nwbfile.add_unit_column("quality", "what the lab says")
        self.nwbfile.add_unit_column("snr", "signal to noise")
        for row, (unit, times) in enumerate(SPIKES.items()):
            more = {"electrodes": [2 - row], "electrode_group": self.nwbfile.electrode_groups["A"]} if with_electrodes else {}
            more |= {"quality": "good" if row else "noise", "snr": row + 0.5}
            self.nwbfile.add_unit(id=unit, spike_times=times, obs_intervals=[[0.0, 10.0], [12.0, 20.0]], **more)

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
    assert log.image == ("cat", "dog")
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

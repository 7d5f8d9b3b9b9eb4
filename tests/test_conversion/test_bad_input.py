"""What a person can get wrong: each ends with status 1 and a line a fault, and leaves nothing behind.

All of it goes through the command line, on a lab's folder that converts well before one thing in it is changed.
"""

import shutil
import sys
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from nwb_compact.cli import main
from nwb_compact.nwb_session import read_session
from nwb_compact_conversion import convert as pipeline

ONSET_S = 0.003 * np.arange(1, 21)
"""Images are shown 3 ms apart, since the recording lasts 0.1 s."""


@dataclass
class Lab:
    """A Blackrock recording whose .nev marks each onset with the number of the image, images, a log and session.yaml."""

    folder: Path
    told: dict[str, Any] = field(default_factory=lambda: {
        "subject": {"subject_id": "M1", "species": "Macaca mulatta", "sex": "F", "age": "P8Y"},
        "stimuli": {"images": "images", "log": "log.csv", "duration_s": 0.002, "columns": {"code": "word"}},
        "alignment": {"channel": "digital_input_port"},
        "responses": {"window_s": [0.0, 0.002]},
        "sorting": {"sorter": "none"},
    })
    rows: list[list[Any]] = field(default_factory=lambda: [[f"im{k % 5}", 50 + t, k % 5 + 1] for k, t in enumerate(ONSET_S)])
    arguments: tuple[str, ...] = ("blackrock", "day.ns6")

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def write(self) -> None:
        (self.folder / "session.yaml").write_text(yaml.safe_dump(self.told))
        rows = [",".join(map(str, row)) for row in self.rows]
        (self.folder / "log.csv").write_text("\n".join(["image,onset,word", *rows]) + "\n")

    def run(self, *more: str, output: str = "a.nwb"):
        self.write()
        command, *paths = self.arguments
        words = ["convert", command, *(str(self.folder / path) for path in paths), "--yaml", str(self.folder / "session.yaml"),
                 "-o", str(self.out / output), *more]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["nwb-compact", *words])
            return CliRunner().invoke(main, words)

    def refused(self, *more: str, lines: int = 1, notes: int = 0, output: str = "a.nwb") -> str:
        """The fault, after `notes` lines that tell of steps that went well."""
        before = {path: path.read_bytes() for path in self.out.iterdir()}
        inputs = sorted(path for path in self.folder.rglob("*") if self.out not in path.parents)
        result = self.run(*more, output=output)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        told = result.stderr.splitlines()
        assert len(told) == lines + notes, result.stderr
        for line in told[notes:]:
            assert ": found " in line
            assert ", expected " in line
            assert ". Next: " in line
            assert "defect" not in line
        assert "Traceback" not in result.output
        assert {path: path.read_bytes() for path in self.out.iterdir()} == before
        assert set(self.folder.rglob("*")) - set(self.out.rglob("*")) - {self.out} - set(inputs) <= {
            self.folder / "session.yaml", self.folder / "log.csv"
        }
        return told[-1] if lines == 1 else "\n".join(told[notes:])


@pytest.fixture
def lab(tmp_path, vendor, write_images, make_png):
    lab = Lab(tmp_path / "lab")
    lab.folder.mkdir()
    lab.out.mkdir()
    vendor.write_nsx(lab.folder / "day.ns6", [(0, vendor.words(3000, 2))], vendor.NEURAL)
    packets = [(round(30_000 * time_s), 0, 1, row[2]) for time_s, row in zip(ONSET_S, lab.rows, strict=True)]
    spikes = [(round(30_000 * time_s) + 15, 1 + k % 2, 1, 0) for k, time_s in enumerate(ONSET_S)]
    vendor.write_nev(lab.folder / "day.nev", sorted(packets + spikes), [1, 2])
    write_images(lab.folder / "images", {f"im{k}.png": make_png(50 * k, height=6, width=6) for k in range(5)})
    return lab


def test_the_lab_converts_before_anything_is_wrong(lab):
    result = lab.run()
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("20 of 20 onsets paired with words of 'digital_input_port'; ")
    assert result.stdout == f"{lab.out / 'a.nwb'}: 2 units, 5 images, 20 presentations (4 to 4 repeats an image)\n"
    session = read_session(lab.out / "a.nwb")
    np.testing.assert_allclose(session.presentations.start_time_s, ONSET_S, atol=1e-6)
    assert session.counts.count.tolist() == [[1, 0], [0, 1]] * 10
    assert list(lab.out.iterdir()) == [lab.out / "a.nwb"]


# The recording ----------------------------------------------------------------------------------------------------------


def cut(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-n_bytes])


def test_truncated_voltage(lab):
    cut(lab.folder / "day.ns6", 2_001)
    assert "day.ns6: found " in (line := lab.refused())
    assert "the file ends in the middle of its data" in line


def test_the_truncated_example(lab, raw_data):
    shutil.copy(raw_data / "blackrock" / "FileSpec2.3001.ns5", lab.folder / "example.ns5")
    cut(lab.folder / "example.ns5", 12_345)
    lab.arguments = ("blackrock", "example.ns5")
    size = (lab.folder / "example.ns5").stat().st_size
    assert f"example.ns5: found {size:,} bytes: the file ends in the middle of its data, expected " in lab.refused()


@pytest.mark.parametrize("sorting", [None, {"sorter": "threshold"}])
def test_events_without_their_voltage(lab, sorting):
    (lab.folder / "day.ns6").unlink()
    lab.arguments = ("blackrock", "day.nev")
    del lab.told["sorting"]
    lab.told |= {} if sorting is None else {"sorting": sorting}
    assert "day.nev: found a .nev without its .nsX, expected the .nsX that holds the voltage beside it" in lab.refused()


def test_no_voltage_at_all_for_the_sorter(lab):
    lab.arguments = ("sorted", "day.nev")
    lab.told |= {"sorting": {"sorter": "threshold"}, "session": {"session_start_time": "2024-05-15T12:30:45+00:00"}}
    assert lab.refused().startswith("sorting.sorter: found threshold, expected none, since the source holds no voltage.")


def test_a_clock_that_was_reset(lab, vendor):
    samples = vendor.words(300, 2)
    vendor.write_nsx(lab.folder / "day.ns6", [(600_000, samples), (0, samples)], vendor.NEURAL)
    assert "day.ns6: found a reset clock: a stretch that begins at 0.000 s" in lab.refused()


def test_events_of_a_clock_that_was_reset(lab, vendor):
    vendor.write_nev(lab.folder / "day.nev", [(900, 0, 1, 1), (1500, 0, 1, 2), (300, 0, 1, 3)], [1])
    assert "day.nev: found a clock that was reset 1 times" in lab.refused()


def test_timestamps_that_go_back(lab, vendor):
    vendor.write_plx(lab.folder / "day.plx", gap_ticks=-2000)
    lab.arguments = ("plexon", "day.plx")
    assert "day.plx: found blocks of voltage that go back from 0.107 s to 0.065 s, expected timestamps that only increase." in lab.refused()


@pytest.mark.parametrize("command", ["blackrock", "spikeglx", "openephys", "intan", "plexon", "recording", "sorted", "counts", "nwb"])
def test_a_source_that_is_not_there(lab, command):
    lab.arguments = (command, "nothing here.xyz")
    assert lab.refused().startswith(f"{lab.folder / 'nothing here.xyz'}: found no ")


@pytest.mark.parametrize("command", ["blackrock", "spikeglx", "openephys", "intan", "plexon", "recording", "sorted", "counts", "nwb"])
def test_a_source_of_another_kind(lab, command):
    (lab.folder / "notes.txt").write_text("no recording")
    lab.arguments = (command, "notes.txt")
    assert lab.refused().startswith(f"{lab.folder / 'notes.txt'}: found ")


# Units ------------------------------------------------------------------------------------------------------------------


def test_two_units_of_one_name(lab):
    (lab.folder / "counts.csv").write_text("u1,u1\n" + "1,2\n" * 20)
    lab.arguments = ("counts", "counts.csv")
    lab.told["session"] = {"session_start_time": "2024-05-15T12:30:45+00:00"}
    assert "counts.csv: found unit 'u1' twice, expected each unit once." in lab.refused()


def test_two_clusters_of_one_number(lab):
    folder = lab.folder / "phy"
    folder.mkdir()
    np.save(folder / "spike_times.npy", np.array([100, 200, 300]))
    np.save(folder / "spike_clusters.npy", np.array([0, 1, 0]))
    np.save(folder / "spike_templates.npy", np.array([0, 1, 0]))
    (folder / "params.py").write_text("sample_rate = 30000.0\ndtype = 'int16'\nn_channels_dat = 2\n")
    (folder / "cluster_info.tsv").write_text("cluster_id\tgroup\n0\tgood\n1\tgood\n0\tgood\n")
    lab.arguments = ("sorted", "phy")
    assert f"{folder}: found unit '0' twice, expected each unit once." in lab.refused()


# The log ----------------------------------------------------------------------------------------------------------------


def test_a_log_with_more_rows_than_events(lab):
    lab.rows += [["im0", 50.06 + 0.003 * k, 1] for k in range(1, 6)]
    line = lab.refused()
    assert line.startswith("alignment: found 5 of 25 onsets without a mark among 20 words of 'digital_input_port'")


def test_a_log_of_another_recording(lab):
    for row, time_s in zip(lab.rows, np.cumsum(np.linspace(0.002, 0.02, 20)), strict=True):
        row[1] = 50 + time_s
    assert lab.refused().startswith("alignment: found ")


def test_no_channel_of_that_name(lab):
    lab.told["alignment"] = {"channel": "digital_input_prt"}
    assert "alignment.channel: found 'digital_input_prt', expected one of: digital_input_port (20 events)." in (line := lab.refused())
    assert line.endswith("Next: did you mean 'digital_input_port'?")


def test_an_image_that_is_not_there(lab):
    lab.rows[3][0] = "im7"
    assert "'im7'" in (line := lab.refused(notes=1))
    assert line.startswith(f"{lab.folder / 'log.csv'}: found ")


def test_an_onset_before_the_one_above(lab):
    lab.rows[3][1], lab.rows[4][1] = lab.rows[4][1], lab.rows[3][1]
    assert "log.csv: onset: found an onset in row 5 that is 0.003 s before the one above it" in lab.refused()


def test_a_stimulus_clock_that_was_reset(lab):
    for row in lab.rows[10:]:
        row[1] -= 50
    assert "log.csv: onset: found a clock reset at row 11 (the onset falls by 49.997 s)" in lab.refused()


def test_no_such_log_and_no_such_column(lab):
    lab.told["stimuli"]["columns"] = {"image": "picture"}
    assert "'picture'" in lab.refused()
    lab.told["stimuli"] |= {"log": "lgo.csv", "columns": {}}
    assert f"{lab.folder / 'lgo.csv'}: found no such file" in lab.refused()


# Images -----------------------------------------------------------------------------------------------------------------


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    image.save(path)


IMAGE_FAULTS = {
    "another size": (lambda file: save(Image.new("L", (6, 7)), file), "found 7 x 6 px, expected 6 x 6 px (height x width) as in 'im0"),
    "16 bits": (lambda file: save(Image.fromarray(np.full((6, 6), 40_000, np.uint16)), file), "more than 8 bits a channel"),
    "CMYK": (lambda file: save(Image.new("CMYK", (6, 6)), file.with_suffix(".jpg")), "found a CMYK image, expected an 8-bit"),
    "corrupt": (lambda file: cut(file, 30), "found "),
    "no image at all": (lambda file: file.write_text("<html>"), "found "),
    "transparent": (lambda file: save(Image.new("LA", (6, 6), (9, 9)), file), "found transparent pixels, expected an opaque image."),
    "two of one name": (lambda file: save(Image.new("L", (6, 6)), file.parent / "more" / file.name), "found two images named 'im2.png'"),
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
@pytest.mark.parametrize("zipped", [False, True])
def test_images_that_cannot_be_what_was_shown(lab, fault, zipped):
    change, message = IMAGE_FAULTS[fault]
    file = lab.folder / "images" / "im2.png"
    if fault == "CMYK":
        file.unlink()
    change(file)
    if zipped:
        shutil.make_archive(str(lab.folder / "images"), "zip", lab.folder / "images")
        lab.told["stimuli"]["images"] = "images.zip"
    line = lab.refused()
    assert line.startswith(str(lab.folder / lab.told["stimuli"]["images"]))
    assert message in line
    assert "im2" in line


def test_no_such_folder_of_images(lab):
    lab.told["stimuli"]["images"] = "imgs"
    assert lab.refused().startswith(f"{lab.folder / 'imgs'}: found no such file or folder, expected the images. Next: name a folder")


# session.yaml -----------------------------------------------------------------------------------------------------------


def test_keys_that_do_not_exist_all_at_once(lab):
    lab.told["stimuli"]["clumns"] = lab.told["stimuli"].pop("columns")
    lab.told["respomses"] = lab.told.pop("responses")
    lab.told["sorting"] |= {"threshold_mad": "deep", "sorter": "spykingcircus3"}
    told = lab.refused(lines=4)
    assert "unknown key 'stimuli.clumns', expected a known key (did you mean 'columns'?)" in told
    assert "unknown key 'respomses', expected a known key (did you mean 'responses'?)" in told
    assert "found sorting.threshold_mad = 'deep', expected " in told
    assert "found sorting.sorter = 'spykingcircus3', expected " in told


def test_no_yaml_and_no_file(lab):
    lab.write()
    (lab.folder / "other.yaml").write_text("subject: [\n")
    assert lab.refused("--yaml", str(lab.folder / "other.yaml")).startswith(f"{lab.folder / 'other.yaml'}: found ")
    (lab.folder / "other.yaml").unlink()
    assert "No such file" in lab.refused("--yaml", str(lab.folder / "other.yaml"))


def test_missing_facts_a_line_each_and_before_the_sorting(lab, monkeypatch):
    monkeypatch.setattr(pipeline, "sort_units", lambda *_, **__: pytest.fail("sorted before the facts were asked for"))
    lab.told |= {"subject": {"subject_id": "M1"}, "sorting": {"sorter": "threshold"}}
    told = lab.refused(lines=3).splitlines()
    assert [line.split(":")[0] for line in told] == ["subject.species", "subject.sex", "subject.age"]
    assert "what DANDI demands of every animal" in told[0]


def test_no_time_zone(lab, vendor):
    vendor.write_plx(lab.folder / "day.plx")
    lab.arguments = ("plexon", "day.plx")
    line = lab.refused()
    assert line.startswith("session_start_time: found 2024-05-15 12:30:45 without a time zone in the source, expected a time zone. Next:")
    lab.told["session"] = {"session_start_time": "2024-05-15T12:30:45"}
    assert "found session.session_start_time = '2024-05-15 12:30:45', expected " in lab.refused()


@pytest.mark.parametrize("told", [{"freq_max_hz": 20_000.0}, {"threshold_mad": 1000.0}, {"bad_channels": ["chan9"]}])
def test_a_sorting_that_cannot_be(lab, monkeypatch, told):
    monkeypatch.setattr("nwb_compact_conversion.spikes.sorting.MIN_S", 0.0)
    lab.told["sorting"] = {"sorter": "threshold", "bad_channels": []} | told
    notes = 3 if "threshold_mad" in told else 2
    assert lab.refused(notes=notes).startswith("sorting")


def test_too_little_voltage_to_sort(lab):
    del lab.told["sorting"]
    assert lab.refused(notes=2).startswith("the recording: found 0.1 s of voltage, expected at least 1 s.")


# The disk ---------------------------------------------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("keep_voltage", [True, False])
def test_no_disk_space(lab, monkeypatch, keep_voltage):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - 10**6, 10**6))
    monkeypatch.setattr(pipeline, "sort_units", lambda *_, **__: pytest.fail("sorted before the disk was looked at"))
    lab.told["device"] = {"keep_voltage": keep_voltage}
    if keep_voltage:
        lab.told["sorting"] = {"sorter": "threshold"}
    line = lab.refused(notes=0 if keep_voltage else 1)
    assert line.startswith(f"{lab.out / 'a.nwb'}: found 1 MiB free on its disk, expected at least 6")


def test_a_file_that_is_there_is_kept(lab):
    (lab.out / "a.nwb").write_bytes(b"mine")
    assert lab.refused() == f"{lab.out / 'a.nwb'}: found a file, expected none. Next: choose another name or give --overwrite"
    lab.rows[3][0] = "im7"
    lab.refused("--overwrite", notes=1)
    assert (lab.out / "a.nwb").read_bytes() == b"mine"
    lab.rows[3][0] = "im3"
    assert lab.run("--overwrite").exit_code == 0
    assert len(read_session(lab.out / "a.nwb").units) == 2
    assert list(lab.out.iterdir()) == [lab.out / "a.nwb"]


def test_no_folder_to_write_in(lab):
    assert f"{lab.out / 'none'}: found no such folder, expected a folder for the output" in lab.refused(output="none/a.nwb")
    line = lab.refused("--scratch", str(lab.folder / "full"))
    assert line.startswith(f"{lab.folder / 'full'}: found no such folder, expected a folder for --scratch")


def test_whatever_fails_while_the_voltage_is_written_leaves_nothing(lab, monkeypatch):
    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuroconv.tools.spikeinterface.add_recording_to_nwbfile", no_space)
    line = lab.refused(notes=1)
    assert line.startswith(f"{lab.out / 'a.nwb'}: found that it could not be written (")
    assert "No space left on device" in line


def test_a_wrong_option_is_wrong_usage(lab):
    result = lab.run("--jbos", "2")
    assert result.exit_code == 2
    assert "No such option" in result.output
    assert list(lab.out.iterdir()) == []

import csv
import filecmp
from collections import namedtuple

import numpy as np
import pytest
import spikeinterface
import yaml
from click.testing import CliRunner
from PIL import Image

import nwb_compact.simulated_lab as lab_module
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import read_session
from nwb_compact.session import image_sha256
from nwb_compact.simulate import command, simulate_session
from nwb_compact.simulated_lab import lab_folder, require_lab_folder

Lab = namedtuple("Lab", "folder truth session events log")


def rows(file):
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """80 images, 5 repeats: enough presentations that one each is lost."""
    folder = tmp_path_factory.mktemp("simulated") / "lab"
    session = simulate_session(n_units=2, n_images=80, n_repeats=5, seed=3)
    with lab_folder(session, folder, n_channels=2, seed=3) as truth:
        assert not folder.exists()
    return Lab(folder, dict(np.load(folder / "truth.npz")), truth, rows(folder / "events.csv"), rows(folder / "log.csv"))


def test_the_voltage_opens_in_spikeinterface(lab):
    recording = spikeinterface.load(lab.folder / "recording")
    assert (recording.sampling_frequency, recording.get_num_channels(), recording.dtype.name) == (30_000, 2, "int16")
    assert recording.get_total_duration() == pytest.approx(lab.session.units.obs_intervals_s[0, 1])
    np.testing.assert_allclose(recording.get_channel_gains(), 0.195)
    np.testing.assert_array_equal(recording.get_channel_locations()[:, 1], lab.session.electrodes.rel_y_um)
    assert tuple(recording.channel_ids) == lab.session.electrodes.name
    unit = int(np.argmax(lab.truth["snr"]))
    best = int(lab.truth["best_channel"][unit])
    spikes = np.round(lab.session.units.spike_times_s[unit] * 30_000).astype(int)
    trace = recording.get_traces(return_in_uV=True)[:, best]
    mean = np.mean([trace[one - 30:one + 60] for one in spikes if 30 < one < len(trace) - 60], axis=0)
    assert mean.argmin() == 30


def test_every_presentation_is_a_row_of_the_log(lab):
    shown = lab.session.presentations
    assert [row["image"] for row in lab.log] == [f"{lab.session.images.name[index]}.png" for index in shown.image_index]
    assert [row["fixation"] == "1" for row in lab.log] == shown.is_valid.tolist()
    assert 0 < sum(row["fixation"] == "0" for row in lab.log) < 0.1 * len(lab.log)
    assert [index for index, row in enumerate(lab.log) if row["onset"] == ""] == lab.truth["unlogged_presentation"].tolist()
    assert len(lab.truth["unlogged_presentation"]) == len(lab.truth["unmarked_presentation"]) == len(lab.truth["spurious_s"]) == 1


def test_a_line_through_log_and_onsets_finds_the_clock(lab):
    logged = np.array([row["onset"] != "" for row in lab.log])
    log_s = np.array([float(row["onset"]) / 1e3 for row in lab.log if row["onset"]])
    onset_s = lab.session.presentations.start_time_s[logged]
    slope, offset_s = np.polyfit(onset_s, log_s, 1)
    assert 1e6 * (slope - 1) == pytest.approx(float(lab.truth["clock_drift_ppm"]), abs=1)
    assert offset_s == pytest.approx(float(lab.truth["clock_offset_s"]), abs=1e-4)
    assert 20 <= abs(float(lab.truth["clock_drift_ppm"])) <= 60
    assert 3600 <= offset_s <= 72_000
    residual_s = log_s - (offset_s + slope * onset_s)
    assert np.abs(residual_s).max() < 1e-3
    assert 1e-4 < residual_s.std() < 3e-4


def test_words_are_at_the_onsets_but_for_those_lost(lab):
    words = [row for row in lab.events if row["channel"] == "words"]
    time_s, code = np.array([float(row["time_s"]) for row in words]), np.array([int(row["code"]) for row in words])
    assert np.all(np.diff([float(row["time_s"]) for row in lab.events]) >= 0)
    onset_s = lab.session.presentations.start_time_s
    distance = np.abs(onset_s[:, None] - time_s)
    paired = distance.min(axis=1) < 0.5 / 30_000 + 1e-6
    np.testing.assert_array_equal(np.flatnonzero(~paired), lab.truth["unmarked_presentation"])
    np.testing.assert_array_equal(code[distance.argmin(axis=1)][paired], lab.session.presentations.image_index[paired] + 1)
    extra = np.setdiff1d(np.arange(len(time_s)), distance.argmin(axis=1)[paired])
    np.testing.assert_allclose(time_s[extra], lab.truth["spurious_s"], atol=1 / 30_000)
    assert distance[:, extra].min() > 0.025


def test_a_second_line_marks_no_image(lab):
    reward = [(float(row["time_s"]), row["code"]) for row in lab.events if row["channel"] == "reward"]
    assert [code for _, code in reward] == ["1", "0"] * (len(reward) // 2)
    rises = np.array([time_s for time_s, code in reward if code == "1"])
    assert len(rises) > 50
    assert np.abs(rises[:, None] - lab.session.presentations.start_time_s).min() > 0.2


def test_losses_stay_below_what_an_alignment_accepts():
    session = simulate_session(n_units=1, n_images=100, n_repeats=20)
    losses = lab_module._losses(session, np.random.default_rng(0))
    n = len(session.presentations)
    assert len(losses.unmarked) == len(losses.unlogged) == len(losses.spurious_s) == int(0.003 * n) > 4
    assert not set(losses.unmarked) & set(losses.unlogged)
    assert len(losses.unmarked) + len(losses.unlogged) < 0.01 * n
    onset_s = session.presentations.start_time_s
    after = losses.spurious_s - onset_s[np.searchsorted(onset_s, losses.spurious_s) - 1]
    assert np.all((after >= 0.03) & (after <= 0.17))


def test_images_are_those_of_the_session_to_the_pixel(lab):
    files = sorted((lab.folder / "images").iterdir())
    assert [file.stem for file in files] == sorted(lab.session.images.name)
    for file in files[::17]:
        row = lab.session.images.name.index(file.stem)
        with Image.open(file) as image:
            assert image.format == "PNG"
            assert image_sha256(np.asarray(image)) == lab.session.images.sha256[row]


def test_the_yaml_names_what_lies_beside_it(lab):
    told = yaml.safe_load((lab.folder / "session.yaml").read_text())
    assert (lab.folder / told["stimuli"]["images"]).is_dir()
    assert (lab.folder / told["stimuli"]["log"]).is_file()
    assert set(told["stimuli"]["columns"].values()) == set(lab.log[0])
    assert told["alignment"]["channel"] == "words"
    assert told["stimuli"]["duration_s"] == 0.1
    assert told["responses"]["window_s"] == [0.05, 0.15]


def test_the_truth_tells_what_judges_a_sorter(lab):
    assert lab.truth["unit"].tolist() == list(lab.session.units.name)
    np.testing.assert_array_equal(lab.truth["best_channel"], lab.session.units.electrode_index)
    assert lab.truth["templates_uv"].shape == (2, 120, 2)
    for name in ("snr", "nearest_similarity", "is_well_isolated"):
        np.testing.assert_array_equal(lab.truth[name], lab.session.units.properties[name])


# The folder as a whole ----------------------------------------------------------------------------------------------


def same_files(one, other):
    compared = filecmp.dircmp(one, other)
    assert not compared.left_only + compared.right_only
    _, different, failed = filecmp.cmpfiles(one, other, compared.common_files, shallow=False)
    assert not different + failed
    for folder in compared.common_dirs:
        same_files(one / folder, other / folder)


def test_same_arguments_same_bytes(tmp_path):
    session = simulate_session(n_units=2, n_images=20, n_repeats=2, seed=3)
    for name in ("one", "other"):
        with lab_folder(session, tmp_path / name, n_channels=2, seed=3, drift_um=10.0):
            pass
    same_files(tmp_path / "one", tmp_path / "other")


def test_nothing_is_left_behind_when_the_block_fails(tmp_path):
    session = simulate_session(n_units=1, n_images=20, n_repeats=1)
    with pytest.raises(RuntimeError, match="no"), lab_folder(session, tmp_path / "lab", n_channels=1, seed=0):
        raise RuntimeError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_module.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(70_000_000))
    said = []
    session = simulate_session(n_units=1, n_images=20, n_repeats=4)
    with pytest.raises(NwbCompactError) as refused, lab_folder(session, tmp_path / "lab", n_channels=4, seed=0, report=said.append):
        pass
    n_mb = round(session.units.obs_intervals_s[0, 1] * 30_000) * 8 / 1e6
    assert f"found 70 MB free on its disk, expected at least {n_mb + 67.1:.0f} MB" in str(refused.value)
    assert said == [f"recording {session.units.obs_intervals_s[0, 1] / 60:.1f} min of 4 channels: {n_mb:.0f} MB, "
                    f"about {n_mb / 30:.0f} s"]
    assert list(tmp_path.iterdir()) == []


# The command --------------------------------------------------------------------------------------------------------

SMALL = ["--units", "2", "--images", "20", "--repeats", "1", "--seed", "7"]


def run(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments), *SMALL])


def test_the_command_writes_truth_and_folder(tmp_path):
    file, folder = tmp_path / "truth.nwb", tmp_path / "lab"
    ran = run(file, "--raw", folder, "--channels", 4)
    assert ran.exit_code == 0, ran.output
    said = ran.output.splitlines()
    assert said[3].startswith("recording 0.2 min of 4 channels: ")
    assert said[-1] == (f"wrote {folder}. Next: nwb-compact convert recording {folder}/recording --events {folder}/events.csv "
                        f"--yaml {folder}/session.yaml -o converted.nwb")
    assert {path.name for path in folder.iterdir()} == {"recording", "images", "events.csv", "log.csv", "session.yaml", "truth.npz"}
    truth = read_session(file)
    assert truth.about.identifier == "nwb-compact-simulated-units2-images20-repeats1-seed7-probe4-drift0"
    assert truth.units.resolution_s == 1 / 30_000
    np.testing.assert_array_equal(truth.counts.count, simulate_session(n_units=2, n_images=20, n_repeats=1, seed=7).counts.count)


def test_an_earlier_simulation_is_replaced_only_when_asked(tmp_path):
    file, folder = tmp_path / "truth.nwb", tmp_path / "lab"
    assert run(file, "--raw", folder, "--channels", 4).exit_code == 0
    ran = run(tmp_path / "other.nwb", "--raw", folder, "--channels", 4)
    assert str(ran.exception) == f"{folder}: found something of this name, expected none. Next: choose another name or add --overwrite"
    assert ran.output == ""
    assert not (tmp_path / "other.nwb").exists()
    assert run(file, "--raw", folder, "--channels", 4, "--layout", "utah", "--overwrite").exit_code == 0
    assert yaml.safe_load((folder / "session.yaml").read_text())["sorting"]["sorter"] == "threshold"


def test_a_folder_of_somebody_else_is_never_deleted(tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("mine")
    with pytest.raises(NwbCompactError, match="found something that this program did not write"):
        require_lab_folder(folder, tmp_path / "truth.nwb", overwrite=True)
    require_lab_folder(tmp_path / "new", tmp_path / "truth.nwb", overwrite=False)


def test_the_truth_may_not_lie_in_the_folder(tmp_path):
    with pytest.raises(NwbCompactError, match="expected a file outside"):
        require_lab_folder(tmp_path / "lab", tmp_path / "lab" / "truth.nwb", overwrite=True)


def test_a_missing_parent_is_told(tmp_path):
    with pytest.raises(NwbCompactError, match=r"expected an existing folder. Next: mkdir -p"):
        require_lab_folder(tmp_path / "nowhere" / "lab", tmp_path / "truth.nwb", overwrite=False)


def test_too_many_units_leave_neither_file_nor_folder(tmp_path):
    ran = CliRunner().invoke(command, [str(tmp_path / "a.nwb"), "--units", "5", "--images", "20", "--repeats", "1",
                                       "--raw", str(tmp_path / "lab"), "--channels", "4", "--layout", "utah"])
    assert "utah of 4 channels: found 5 units, expected at most 4" in str(ran.exception)
    assert list(tmp_path.iterdir()) == []

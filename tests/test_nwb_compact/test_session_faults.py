"""A sound file has no fault; a file with one or many is told all of them, in one line each, whatever they are."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from nwb_compact.check import check, require_sound
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import write_session
from nwb_compact.session import MeanResponses, Session, example_session
from nwb_compact.session_faults import session_faults

TIMED = "timed and spiking"
MEANS = "means only"
STACK = "stack"


def timed_session() -> Session:
    session = example_session()
    assert session.presentations is not None
    start = np.arange(len(session.presentations)) * 0.3
    spikes = tuple(np.sort(np.random.default_rng(unit).uniform(0, 15, 50)) for unit in range(2))
    presentations = replace(session.presentations, start_time_s=start, stop_time_s=start + 0.1)
    return replace(session, presentations=presentations, units=replace(session.units, spike_times_s=spikes))


def means_session() -> Session:
    mean = np.random.default_rng(0).random((24, 2))
    mean[3, 1] = np.nan
    return replace(example_session(), presentations=None, counts=None, mean_responses=MeanResponses(mean))


@pytest.fixture
def file_path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    kind = getattr(request, "param", "")
    session = {TIMED: timed_session, MEANS: means_session}.get(kind, example_session)()
    write_session(session, tmp_path / "a.nwb", objects_limit=0 if kind == STACK else 500)
    return tmp_path / "a.nwb"


@pytest.mark.parametrize("file_path", ["", TIMED, MEANS, STACK], indirect=True)
def test_a_sound_file_has_no_fault(file_path: Path) -> None:
    assert check(file_path) == ()
    require_sound(file_path)


def overwrite(path: str, data: object) -> Callable[[h5py.File], None]:
    """Put other values into a dataset and keep what is said about it."""

    def change(file: h5py.File) -> None:
        about = dict(file[path].attrs)
        values = np.asarray(data(file[path][()]) if callable(data) else data)
        del file[path]
        file[path] = values
        file[path].attrs.update(about)

    return change


def without(path: str) -> Callable[[h5py.File], None]:
    return lambda file: file.pop(path)


def changed(index: object, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.int64 if float(value).is_integer() else float)
        values[index] = value
        return values

    return change


IMAGES, PRESENTED = "stimulus/presentation/stimulus_image_table", "stimulus/presentation/stimulus_presentations"
ECEPHYS, TEMPLATES, TIMES = "processing/ecephys", "stimulus/templates/stimulus_images", "intervals/stimulus_presentations"
COUNT, MEAN, PRESENTATION = f"{ECEPHYS}/spike_counts/count", f"{ECEPHYS}/mean_responses/mean", f"{ECEPHYS}/spike_counts/presentation"
SHOWN, STACKED = f"{PRESENTED}/image_index", f"{TEMPLATES}/data"


def darken(file: h5py.File) -> None:
    file[f"{TEMPLATES}/image_000003"][...] = 0


def enlarge(file: h5py.File) -> None:
    overwrite(f"{TEMPLATES}/image_000003", np.zeros((9, 8, 3), np.uint8))(file)
    file[f"{TEMPLATES}/order_of_images"][2] = file[f"{TEMPLATES}/image_000003"].ref


FAULTS: dict[str, tuple[str, Callable[[h5py.File], None], str]] = {
    "no image table": ("", without(IMAGES), r"stimulus_image_table: found no such table \(there: .*neurons.*stimulus_presentations\)"),
    "no units": ("", without(f"{ECEPHYS}/neurons"), r"units: found no such table"),
    "no response units": ("", without(f"{ECEPHYS}/response_units"), r"response_units: found no such table"),
    "no presentations": ("", without(PRESENTED), r"stimulus_presentations: found no such table"),
    "no responses": ("", without(f"{ECEPHYS}/spike_counts"), "found neither spike_counts nor mean_responses"),
    "no hashes": ("", without(f"{IMAGES}/sha256"), r"stimulus_image_table: found columns image_name, expected also sha256"),
    "no validity": ("", without(f"{PRESENTED}/is_valid"), r"found columns image_index, repeat, expected also is_valid"),
    "no spike times": (TIMED, without("units/spike_times"), r"found columns unit_name, expected also spike_times"),
    "hashes only": ("", without(TEMPLATES), r"found hashes only, no pixels.*Next: convert the sess"),
    "short column": ("", overwrite(f"{PRESENTED}/repeat", np.zeros(7, np.uint8)), r"found 7 rows of repeat, expected 60"),
    "counts of other shape": ("", overwrite(COUNT, np.eye(60, 3, dtype=np.uint8)), r"count: found shape \(60, 3\), expected \(60, 2\)"),
    "negative count": ("", overwrite(COUNT, changed((3, 1), -2)), r"count: found 1 negative numbers"),
    "NaN count": ("", overwrite(COUNT, changed((3, 1), np.nan)), r"count: found 1 NaN"),
    "half a spike": ("", overwrite(COUNT, changed((3, 1), 0.5)), r"count: found 1 numbers that are not whole"),
    "counts as floats": ("", overwrite(COUNT, lambda v: v.astype("f4")), r"count: found whole numbers stored as float32"),
    "silence": ("", overwrite(COUNT, np.zeros((60, 2), np.uint8)), r"count: found no unit whose count ever changes"),
    "presentation beyond": ("", overwrite(PRESENTATION, changed(5, 60)), r"presentation: found 1 rows beyond .*expected 0 to 59"),
    "image beyond": ("", overwrite(SHOWN, changed(0, 24)), r"image_index: found 1 rows beyond the end .*expected 0 to 23"),
    "negative image": ("", overwrite(SHOWN, changed(0, -1)), r"image_index: found 1 negative numbers"),
    "unit beyond": ("", overwrite(f"{ECEPHYS}/response_units/unit", changed(1, 2)), r"unit: found 1 rows beyond the end of the units"),
    "unit twice": ("", overwrite(f"{ECEPHYS}/response_units/unit", [0, 0]), r"found 1 rows of a unit that has one already"),
    "window": ("", overwrite(f"{ECEPHYS}/response_units/window_stop_s", [0.15, 0.01]), r"found 1 counting windows that do not start"),
    "few images": ("", overwrite(SHOWN, lambda v: v % 19), r"found 19 different images with a usable response \("),
    "other pixels": ("", darken, r"found 1 of 24 images looked at with other pixels .*\(rows 2\)"),
    "other pixels, stack": (STACK, overwrite(STACKED, lambda v: v[::-1]), r"found 24 of 24 images looked at"),
    "fewer pixels": (STACK, overwrite(STACKED, lambda v: v[:20]), r"found 20 images, expected 24, one a row"),
    "pixels as floats": (STACK, overwrite(STACKED, lambda v: v / 255), r"found float64 pixels, expected uint8"),
    "images that are not square": (STACK, overwrite(STACKED, lambda v: v[:, :, :6]), r"found images of 8 x 6 px, expected square images"),
    "images of two sizes": ("", enlarge, r"found images of 2 shapes or types"),
    "images without order": ("", without(f"{TEMPLATES}/order_of_images"), "found images without order_of_images"),
    "same name twice": ("", overwrite(f"{ECEPHYS}/neurons/unit_name", [b"u", b"u"]), r"found 1 unit names that occur"),
    "backwards": (TIMED, overwrite(f"{TIMES}/stop_time", lambda v: v - 1), r"found 60 rows that start after they stop"),
    "unknown time": (TIMED, overwrite(f"{TIMES}/start_time", changed(2, np.nan)), r"found 1 times that are not finite"),
    "unknown spike": (TIMED, overwrite("units/spike_times", changed(2, np.inf)), r"/units: found 1 spike times that are not finite"),
    "means of other shape": (MEANS, overwrite(MEAN, np.eye(24, 3)), r"mean: found shape \(24, 3\), expected \(24, 2\)"),
    "infinite mean": (MEANS, overwrite(MEAN, changed((0, 0), np.inf)), r"mean: found 1 infinite means"),
    "flat means": (MEANS, overwrite(MEAN, np.ones((24, 2))), r"mean: found no unit whose mean ever changes"),
    "few means": (MEANS, overwrite(MEAN, changed(slice(5), np.nan)), r"found 19 different images with a usable"),
    "no row": ("", overwrite(f"{ECEPHYS}/spike_counts/id", np.zeros(0, int)), r"spike_counts: found no row"),
    "group as column": ("", lambda f: (f.pop(COUNT), f.create_group(COUNT)), r"counts: found something that cannot be read"),
    "not NWB": ("", lambda f: f.attrs.pop("nwb_version"), r"found an HDF5 file without nwb_version"),
    "required by pynwb": ("", without("session_start_time"), r"found a file that pynwb cannot read"),
    "no processing": ("", lambda f: (f.pop("processing"), f.create_dataset("processing", data=1)), r"units: found no such table"),
}


@pytest.mark.parametrize(("file_path", "name"), [(kind, name) for name, (kind, _, _) in FAULTS.items()], indirect=["file_path"], ids=FAULTS)
def test_each_fault_is_found_and_told_in_one_line(file_path: Path, name: str) -> None:
    _, spoil, said = FAULTS[name]
    with h5py.File(file_path, "a") as file:
        spoil(file)
    faults = [str(fault) for fault in check(file_path)]
    assert any(re.search(said, fault) for fault in faults), faults
    assert all("\n" not in fault and fault.startswith(str(file_path)) for fault in faults)


def test_all_faults_are_told_at_once(file_path: Path) -> None:
    with h5py.File(file_path, "a") as file:
        for name in ("no hashes", "negative count", "image beyond", "hashes only", "short column", "window"):
            FAULTS[name][1](file)
    faults = "\n".join(map(str, check(file_path)))
    for found in ("also sha256", "1 negative", "beyond the end", "hashes only", "7 rows of repeat", "counting windows"):
        assert found in faults
    with pytest.raises(NwbCompactError) as error:
        require_sound(file_path)
    assert str(error.value) == faults
    assert len(error.value.faults) == len(faults.splitlines())


def test_a_silent_unit_among_others_is_no_fault(tmp_path: Path) -> None:
    session = example_session()
    assert session.counts is not None
    count = session.counts.count.copy()
    count[:, 0] = 0
    write_session(replace(session, counts=replace(session.counts, count=count), subject=None), tmp_path / "a.nwb")
    assert check(tmp_path / "a.nwb") == ()


def only_valid(images: set[int]) -> Callable[[h5py.File], None]:
    """The presentations of these images valid, all others not."""

    def change(file: h5py.File) -> None:
        file[f"{PRESENTED}/is_valid"][...] = np.isin(file[SHOWN][()], sorted(images))

    return change


UNANSWERED: dict[str, tuple[str, Callable[[h5py.File], None]]] = {
    "never shown": ("", overwrite(SHOWN, lambda v: np.where(v < 4, 5, v))),
    "only in invalid presentations": ("", only_valid(set(range(4, 24)))),
    "no mean": (MEANS, overwrite(MEAN, changed(slice(4), np.nan))),
}


SPOILED = [(kind, name) for name, (kind, _) in UNANSWERED.items()]


@pytest.mark.parametrize(("file_path", "name"), SPOILED, indirect=["file_path"], ids=UNANSWERED)
def test_images_without_a_usable_response_are_no_fault_while_enough_have_one(file_path: Path, name: str) -> None:
    with h5py.File(file_path, "a") as file:
        UNANSWERED[name][1](file)
    assert check(file_path) == ()


@pytest.mark.parametrize("n_answered", [0, 19, 20])
def test_responses_count_in_valid_presentations_only_whatever_the_means_say(tmp_path: Path, n_answered: int) -> None:
    """A fit uses counts where there are any, so means beside them make up for no count."""
    write_session(replace(example_session(), mean_responses=MeanResponses(np.random.default_rng(0).random((24, 2)))), tmp_path / "a.nwb")
    with h5py.File(tmp_path / "a.nwb", "a") as file:
        only_valid(set(range(n_answered)))(file)
        faults = [str(fault) for fault in session_faults(file, "a.nwb")]
    few = (
        f"a.nwb: stimulus_image_table: found {n_answered} different images with a usable response (24 images in all), "
        "expected at least 20. Next: fit a session with more images; responses count where is_valid is True"
    )
    assert faults == ([few] if n_answered < 20 else [])


def test_one_picture_under_two_names_counts_once(file_path: Path) -> None:
    with h5py.File(file_path, "a") as file:
        images, hashes = file[TEMPLATES], file[f"{IMAGES}/sha256"]
        for row in range(5):  # 24 images, 19 different ones
            images[f"image_{row + 1:06d}"][...] = images["image_000024"][()]
            hashes[row] = hashes[23]
    assert [fault.found for fault in check(file_path)] == ["19 different images with a usable response (24 images in all)"]


@pytest.mark.parametrize("wrong", [np.nan, 0.0, -1.0, np.inf])
def test_a_mean_of_no_repeats_is_a_fault_and_no_weight(tmp_path: Path, wrong: float) -> None:
    session = means_session()
    n_repeats = np.full(24, 5.0)
    n_repeats[7] = wrong
    write_session(replace(session, mean_responses=replace(session.mean_responses, n_repeats=n_repeats)), tmp_path / "a.nwb")
    (fault,) = check(tmp_path / "a.nwb")
    assert "n_repeats: found 1 images with a mean of no repeats, for example row 7, expected a number above 0" in str(fault)


def test_an_image_without_a_mean_may_have_no_repeats(tmp_path: Path) -> None:
    session = means_session()
    mean, n_repeats = session.mean_responses.mean.copy(), np.full(24, 5.0)
    mean[7], n_repeats[7] = np.nan, 0
    write_session(replace(session, mean_responses=MeanResponses(mean, n_repeats)), tmp_path / "a.nwb")
    assert check(tmp_path / "a.nwb") == ()

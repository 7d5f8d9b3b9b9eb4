from itertools import permutations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.io import savemat

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Presentations, Units
from nwb_compact_conversion.session_yaml import Responses
from nwb_compact_conversion.sources.counts import AXES, Counted, long_form, read_counts, responses_of

NAN = float("nan")
DEFAULT = Responses()


def saved(tmp_path, array, name="counts.npy"):
    np.save(tmp_path / name, array)
    return tmp_path / name


def shown(image_index):
    n = len(image_index)
    return Presentations(np.array(image_index, np.uint32), np.zeros(n, np.uint16), np.ones(n, bool), np.arange(n) * 0.5, np.arange(n) + 0.1)


def refused(file_path, responses=DEFAULT, **sizes):
    with pytest.raises(NwbCompactError) as caught:
        read_counts(file_path, responses, **sizes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Axes -------------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data(), axes=st.sampled_from(AXES), suffix=st.sampled_from([".npy", ".npz", ".mat"]))
def test_told_axes_of_any_order_come_back_in_ours(tmp_path_factory, data, axes, suffix):
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * len(axes)))
    values = data.draw(arrays(np.uint8, shape)).astype(float)
    order = data.draw(st.sampled_from(list(permutations(axes))))
    stored = values.transpose([axes.index(axis) for axis in order])
    file = tmp_path_factory.mktemp("counts") / f"counts{suffix}"
    write = {".npy": lambda: np.save(file, stored), ".npz": lambda: np.savez(file, c=stored), ".mat": lambda: savemat(file, {"c": stored})}
    write[suffix]()
    sizes = dict(zip(axes, shape, strict=True))
    counted = read_counts(file, Responses(axes=order), n_images=sizes.get("image"), n_presentations=sizes.get("presentation"))
    assert counted.axes == axes
    np.testing.assert_array_equal(counted.values, values)
    assert len(counted.units) == sizes["unit"]


def test_sizes_that_leave_one_possibility_are_enough(tmp_path):
    counts = np.arange(15.0).reshape(3, 5)
    file = saved(tmp_path, counts)
    assert read_counts(file, Responses(), n_images=5).values.tolist() == counts.T.tolist()
    counted = read_counts(file, Responses(), n_presentations=3, n_images=99)
    assert (counted.axes, counted.values.tolist()) == (("presentation", "unit"), counts.tolist())


def test_names_of_units_may_leave_one_possibility(tmp_path):
    np.savez(tmp_path / "a.npz", counts=np.zeros((2, 5, 3)), names=["x", "y"])
    counted = read_counts(tmp_path / "a.npz", Responses(unit_names="names"), n_images=5)
    assert counted.values.shape == (5, 3, 2)
    assert counted.units.name == ("x", "y")


def test_several_possibilities_are_shown(tmp_path):
    file = saved(tmp_path, np.zeros((4, 4)))
    assert refused(file, n_images=4) == (
        f"{file}: array: found an array of shape (4, 4) with 4 images, expected one way to read it, "
        "not [image, unit] or [unit, image]. Next: say which with responses.axes"
    )
    assert "with no images to compare with, expected one way to read it, not [image, unit] or [unit, image]" in refused(file)
    assert "not [image, repeat, unit] or [image, unit, repeat]." in refused(saved(tmp_path, np.zeros((7, 2, 3))), n_images=7)


def test_sizes_that_fit_nothing_are_shown(tmp_path):
    found = "found an array of shape (4, 5) with 6 images, expected sizes that fit [image, unit] or [unit, image]."
    assert found in refused(saved(tmp_path, np.zeros((4, 5))), n_images=6)
    assert "expected sizes that fit two or three axes." in refused(saved(tmp_path, np.zeros((2, 3, 4, 5))), n_images=3)


TOLD_FAULTS = {
    "fewer images": (("image", "unit"), {"n_images": 6}, "found 4 images (shape (4, 5) as [image, unit]), expected 6 as there are images."),
    "more rows than the log": (
        ("presentation", "unit"), {"n_presentations": 3},
        "found 4 presentations (shape (4, 5) as [presentation, unit]), expected 3 as in the stimulus log.",
    ),
    "no such thing": (("image", "repeat"), {}, "found axes [image, repeat], expected [presentation, unit] or [image, unit] or"),
    "too many": (("image", "unit", "repeat"), {}, "found an array of shape (4, 5), expected 3 axes, [image, unit, repeat]."),
    "a log that has no use": (
        ("image", "unit"), {"n_presentations": 4},
        "found axes [image, unit] and a stimulus log, expected axes [presentation, unit], one row of the log each.",
    ),
    "no log": (("presentation", "unit"), {}, "and no stimulus log, expected a log that says what was shown. Next: give stimuli.log, or"),
}


@pytest.mark.parametrize("fault", TOLD_FAULTS)
def test_told_axes_that_do_not_fit_are_refused_with_both_numbers(tmp_path, fault):
    axes, sizes, message = TOLD_FAULTS[fault]
    assert message in refused(saved(tmp_path, np.zeros((4, 5))), Responses(axes=axes), **sizes)


def test_other_number_of_names(tmp_path):
    np.savez(tmp_path / "a.npz", counts=np.zeros((5, 3)), ids=[11, 12])
    message = refused(tmp_path / "a.npz", Responses(unit_names="ids", axes=("image", "unit")))
    assert "found 3 units (shape (5, 3) as [image, unit]), expected 2 as there are names." in message


# Variables and names ------------------------------------------------------------------------------------------------------


def test_the_variable_is_named_only_where_there_are_several(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, counts=np.ones((5, 3)), rates=np.ones((5, 3)), rate_hz=30_000.0, n_repeats=np.ones(5))
    assert refused(file, n_images=5).startswith(f"{file}: found 2 arrays of numbers (counts (5, 3), rates (5, 3)), expected one array")
    assert read_counts(file, Responses(variable="counts"), n_images=5).values.shape == (5, 3)
    message = refused(file, Responses(variable="count"), n_images=5)
    assert "found no array 'count', expected an array of numbers (did you mean 'counts'?)" in message
    np.savez(file, counts=np.ones((5, 3)), rate_hz=30_000.0)
    assert read_counts(file, Responses(), n_images=5).values.shape == (5, 3)
    assert "found no variable 'name', expected the names of the units" in refused(file, Responses(unit_names="name"), n_images=5)


def test_object_arrays_are_refused_with_a_hint(tmp_path):
    np.savez(tmp_path / "a.npz", spikes=np.array([np.ones(2), np.ones(3)], object))
    assert "spikes: pickled objects (not read: unpickling can run code); save one array a unit instead" in refused(tmp_path / "a.npz")
    assert "found pickled objects" in refused(tmp_path / "a.npz", Responses(variable="spikes"))


def test_a_csv_names_its_units(tmp_path):
    file = tmp_path / "counts.csv"
    file.write_text("v4-1,v4-2\n1,2\n0,4\n,\n")
    counted = read_counts(file, Responses(), n_presentations=3)
    assert counted.units.name == ("v4-1", "v4-2")
    file.write_text("im1,im2,im3\n1,2,3\n0,4,5\n")
    counted = read_counts(file, Responses(), n_images=3)
    assert counted.units.name == ("unit-1", "unit-2"), "its header names images here"
    file.write_text("a,a\n1,2\n0,4\n3,3\n")
    assert f"{file}: found unit 'a' twice, expected each unit once." in refused(file, n_presentations=3)
    file.write_text("a,\n1,2\n0,4\n3,3\n")
    assert f"{file}: found unit 2 of 2 without a name, expected a name for every unit." in refused(file, n_presentations=3)


def test_counts_of_a_version_73_file(tmp_path):
    counts = np.arange(24.0).reshape(2, 3, 4)  # in MATLAB: 2 x 3 x 4
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file.create_dataset("counts", data=counts.T).attrs["MATLAB_class"] = np.bytes_(b"double")
    counted = read_counts(tmp_path / "a.mat", Responses(axes=("unit", "image", "repeat")), n_images=3)
    np.testing.assert_array_equal(counted.values, counts.transpose(1, 2, 0))


# Values -----------------------------------------------------------------------------------------------------------------

WHOLE = "whole counts of at least 0, or NaN where missing"
VALUE_FAULTS = {
    "negative": (-1, f"found -1 at image 2, repeat 3, unit 1, expected {WHOLE}."),
    "fraction": (0.5, f"found 0.5 at image 2, repeat 3, unit 1, expected {WHOLE}."),
    "infinite": (float("inf"), f"found inf at image 2, repeat 3, unit 1, expected {WHOLE}."),
    "missing for one": (NAN, "found nan at image 2, repeat 3, unit 1, expected all units to miss the same, since they were"),
}


@pytest.mark.parametrize("fault", VALUE_FAULTS)
def test_values_that_are_no_counts_are_refused(tmp_path, fault):
    value, message = VALUE_FAULTS[fault]
    counts = np.ones((2, 3, 4))
    counts[1, 2, 0] = value
    assert message in refused(saved(tmp_path, counts), Responses(axes=("image", "repeat", "unit")))


def test_negative_means_and_nothing_at_all_are_refused(tmp_path):
    axes = Responses(axes=("image", "unit"))
    assert "found -0.5 at image 1, unit 2, expected a mean of at least 0." in refused(saved(tmp_path, np.array([[0.5, -0.5]])), axes)
    assert "found no value that is not NaN, expected counts." in refused(saved(tmp_path, np.full((2, 2), NAN)), axes)


# Responses --------------------------------------------------------------------------------------------------------------


def counted(values, axes):
    return Counted((), "", Units(tuple("ab")), np.asarray(values, float), axes)


def test_rows_of_the_log_that_are_nan_are_not_counted():
    log = shown([4, 4, 2])
    presentations, counts = responses_of(counted([[1, 2], [NAN, NAN], [70_000, 0]], AXES[0]), log, "spike counts")
    assert presentations is log
    assert counts.presentation_index.tolist() == [0, 2]
    assert counts.count.tolist() == [[1, 2], [70_000, 0]]
    assert counts.count.dtype == np.uint32


def test_repeats_are_counted_anew_where_one_is_missing():
    presentations, counts = responses_of(counted([[[1, 2], [NAN, NAN], [5, 6]], [[NAN] * 2, [3, 4], [NAN] * 2]], AXES[2]), None, "counts")
    assert presentations.image_index.tolist() == [0, 0, 1]
    assert presentations.repeat.tolist() == [0, 1, 0]
    assert counts.count.tolist() == [[1, 2], [5, 6], [3, 4]]
    assert presentations.start_time_s is None
    assert counts.description == "counts. Rows are ordered by image, then repeat: the order in which images were shown is not given."


def test_one_value_an_image_is_a_mean_unless_all_are_whole():
    presentations, means = responses_of(counted([[0.5, 2], [NAN, 4]], AXES[1]), None, "spikes in 100 ms")
    assert presentations is None
    np.testing.assert_array_equal(means.mean, [[0.5, 2], [NAN, 4]])
    assert means.n_repeats is None
    presentations, counts = responses_of(counted([[1, 2], [3, 4]], AXES[1]), None, "spikes in 100 ms")
    assert presentations.repeat.tolist() == [0, 0]
    assert counts.count.tolist() == [[1, 2], [3, 4]]
    presentations, counts = responses_of(counted([[1, 2], [NAN, NAN], [3, 4]], AXES[1]), None, "spikes in 100 ms")
    assert presentations.image_index.tolist() == [0, 2], "an image that was not shown makes no means of counts"
    assert counts.count.tolist() == [[1, 2], [3, 4]]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_long_form_can_be_folded_back(data):
    n_images, n_repeats, n_units = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)))
    values = data.draw(arrays(np.uint8, (n_images, n_repeats, n_units))).astype(float)
    repeats = data.draw(st.lists(st.integers(0, n_repeats), min_size=n_images, max_size=n_images))
    for image, last in enumerate(repeats):
        values[image, last:] = NAN
    presentations, counts = long_form(values, "counts")
    back = np.full(values.shape, NAN)
    back[presentations.image_index, presentations.repeat] = counts.count
    np.testing.assert_array_equal(back, values)

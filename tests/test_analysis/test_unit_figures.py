from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from nwb_compact.measured import measured_means
from nwb_compact_analysis import unit_figures


def test_filters_are_scaled_symmetrically_about_grey_largest_norm_first():
    kernel = np.zeros((3, 3, 5, 5), np.float32)
    kernel[1, :, 2, 2], kernel[2, 0, 0, 0], kernel[2, 1, 0, 0] = 1.0, -4.0, 2.0
    pictures = unit_figures.filter_pictures(kernel)
    np.testing.assert_array_equal(pictures[0, 0, 0], [0.0, 0.75, 0.5])  # kernel 2: red -4 is black, green +2 half way to bright
    np.testing.assert_array_equal(pictures[1, 2, 2], [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(pictures[2], np.full((5, 5, 3), 0.5))  # a filter of zeros is grey, not a division by zero


@pytest.mark.parametrize(("filters", "text"), [(47, "24 of 47"), (10, "10")])
def test_more_filters_than_fit_are_counted(filters, text, make_fit, close_figures):
    results, _ = make_fit(1)
    results.students[0].arrays["layer1.kernel"] = np.ones((filters, 3, 5, 5), np.float32)
    ax = unit_figures.plot_first_layer_filters(results, [0])
    assert [label.get_text() for label in ax.texts] == [text]


def test_predicted_against_measured_shows_scored_images_on_equal_axes(make_fit, close_figures):
    results, session = make_fit(3, 40)
    measured = measured_means(session, results)
    ax = unit_figures.plot_predicted_against_measured(results, measured, 1)
    scored = np.asarray(results.side) == "scored"
    points = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_array_equal(points, np.stack([results.student_prediction[scored, 1].astype(float), measured[scored, 1]], axis=1))
    assert ax.get_xlim() == ax.get_ylim()
    r2, corrected = results.scores["student_r2"][1], results.scores["student_r2_er"][1]
    assert ax.get_title(loc="left") == f"unit-2\nr² {r2:.2f}, corr. {corrected:.2f}"


def test_the_bar_is_the_median_disagreement_of_the_members_to_either_side(make_fit, close_figures):
    results, session = make_fit(3, 40)
    ax = unit_figures.plot_predicted_against_measured(results, measured_means(session, results), 1)
    left, right = ax.lines[1].get_xdata()
    scored = np.asarray(results.side) == "scored"
    spread = [np.std(answers, ddof=1) for answers in results.teacher_member_prediction[scored, 1].astype(float)]
    assert (right - left) / 2 == pytest.approx(np.median(spread), rel=1e-4)
    (low, high), level = ax.get_ylim(), ax.lines[1].get_ydata()
    assert level == pytest.approx(low + 0.95 * (high - low))


@pytest.mark.parametrize("change", ["none stored", "one member", "no number"])
def test_there_is_no_bar_where_disagreement_is_not_known(change, make_fit, close_figures):
    results, session = make_fit(2)
    members = {
        "none stored": None,
        "one member": results.teacher_member_prediction[:, :, :1],
        "no number": np.full_like(results.teacher_member_prediction, np.nan),
    }[change]
    known = replace(results, teacher_member_prediction=members)
    assert len(unit_figures.plot_predicted_against_measured(known, measured_means(session, results), 0).lines) == 1


def test_a_unit_that_was_never_measured_gives_an_empty_panel(make_fit, close_figures):
    results, _ = make_fit(1, 12, nan_units=(0,))
    ax = unit_figures.plot_predicted_against_measured(results, np.full((12, 1), np.nan), 0)
    assert len(ax.collections[0].get_offsets()) == 0
    assert ax.get_title(loc="left").endswith("corr. –")


@pytest.mark.parametrize(("n", "best", "worst"), [(12, [11, 10, 9, 8, 7], [0, 1, 2, 3, 4]), (5, [4, 3], [0, 1]), (1, [], [])])
def test_best_and_worst_never_share_an_image(n, best, worst):
    found = unit_figures.extreme_images(np.arange(n, dtype=np.float32))
    assert [group.tolist() for group in found] == [best, worst]


@pytest.mark.parametrize("grey", [True, False])
def test_best_and_worst_images_are_those_of_the_prediction(grey, make_fit, close_figures):
    results, session = make_fit(2, 20, grey=grey)
    pixels, measured = session.images.pixels, measured_means(session, results)
    ax = unit_figures.plot_best_and_worst_images(results, pixels, measured, [1])
    best = int(np.argmax(results.student_prediction[:, 1]))
    worst = int(np.argmin(results.student_prediction[:, 1]))
    np.testing.assert_array_equal(ax.images[0].get_array(), pixels[best])
    np.testing.assert_array_equal(ax.images[5].get_array(), pixels[worst])
    star = "*" if results.side[best] == "scored" else ""
    written = [text.get_text() for text in ax.texts]
    assert written[:2] == ["unit-2", f"{results.student_prediction[best, 1]:.1f} | {measured[best, 1]:.1f}{star}"]


def test_pixels_are_read_one_image_at_a_time(make_fit, close_figures):
    results, session = make_fit(1, 30)

    class OnDisk:
        shape = (30, 112, 112, 3)
        read: list[int] = []  # noqa: RUF012

        def __getitem__(self, index):
            self.read.append(index)
            return session.images.pixels[index]

    pixels = OnDisk()
    unit_figures.plot_best_and_worst_images(results, pixels, measured_means(session, results), [0])
    assert len(pixels.read) == 2 * unit_figures.EXTREMES
    assert all(isinstance(index, int) for index in pixels.read)
    assert plt.get_fignums()

import numpy as np
import pytest

from nwb_compact.interpretation.tables import Column, Table
from nwb_compact_analysis import made_image_figures as made
from tests.test_analysis.interpreted import STEPS, example_tables, table

pytestmark = pytest.mark.usefixtures("close_figures")


def natural(rows, kind="natural-strongest", rank=None):
    n = len(rows)
    return table(kind=[kind] * n, rank=np.arange(n) if rank is None else rank, row=rows, answer=np.arange(n) + 0.25)


def captions(ax) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_text()[0] in "−–0123456789"]


def test_a_row_of_the_pool_is_the_session_s_image_where_the_session_has_images_twice():
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    ax = made.plot_natural_images(natural([3]), pixels, np.array([0.0, 1.0, 0.0, 7.5]), np.zeros(4, bool))
    assert ax.images[0].get_array().min() == 3
    assert captions(ax) == ["0.2 | 7.5"]


def test_images_from_elsewhere_have_no_picture_and_no_response():
    pixels = np.zeros((3, 8, 8), np.uint8)
    ax = made.plot_natural_images(natural([1, -1]), pixels, np.full(3, np.nan), np.array([False, True, False]))
    assert len(ax.images) == 1
    assert captions(ax) == ["0.2 | –*", "1.2"]
    assert "not an image\nof the session" in [text.get_text() for text in ax.texts]


def test_images_from_elsewhere_are_named_by_the_end_of_their_file():
    files = ["", "/data/photos.zip:faces/a_rather_long_name_of_image_0123.jpg"]
    found = Table("", {**natural([1, -1]).columns, "file": Column("", np.array(files))})
    ax = made.plot_natural_images(found, None, np.full(3, np.nan), np.zeros(3, bool))
    assert "a_rather_long_name_of_image_0123.jpg"[-made.LETTERS :] in [text.get_text().replace("\n", "") for text in ax.texts]


def test_the_most_extreme_image_comes_first_and_only_so_many_are_drawn():
    n = made.RANKS + 3
    rank = np.arange(n)[::-1]
    pixels = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    ax = made.plot_natural_images(natural(np.arange(n), rank=rank), pixels, np.zeros(n), np.zeros(n, bool))
    assert [int(image.get_array().max()) for image in ax.images] == list(range(n - 1, n - 1 - made.RANKS, -1))


def test_a_file_without_pixels_gives_frames_that_say_so():
    ax = made.plot_natural_images(natural([0]), None, np.ones(1), np.ones(1, bool))
    assert not ax.images
    assert "no picture\nin the file" in [text.get_text() for text in ax.texts]


def test_made_images_stand_under_their_kind_with_the_answer_before_and_after():
    tables = example_tables((0,))
    ax = made.plot_made_images(tables["made_images"])
    assert [text.get_text() for text in ax.texts if "to" not in text.get_text()[:6]][:3] == ["maximizing", "in grey", "minimizing"]
    assert captions(ax) == ["1.0\nto 9.0", "1.0\nto 8.0", "1.0\nto 0.1", "2.0\nto 4.0", "2.0\nto 0.5"]
    for image, expected in zip(ax.images, tables["made_images"]["image"], strict=True):
        np.testing.assert_array_equal(image.get_array(), expected)


def test_as_many_made_images_as_fit_in_a_line_stand_in_one_with_what_the_teacher_answers():
    kinds = [key for key, n in zip(made.MADE, (2, 2, 2, 1, 2, 2), strict=True) for _ in range(n)]  # as in the settings
    assert len(kinds) == made.MADE_A_ROW
    full = table(kind=[kind for kind, _ in kinds], is_grey=np.array([is_grey for _, is_grey in kinds]),
                 image=np.zeros((11, 112, 112, 3), np.uint8), answer=np.full(11, 32.1), start_answer=np.zeros(11))
    ax = made.plot_made_images(full, table(answer=np.full(11, -2.9)))
    assert len({image.get_extent()[3] for image in ax.images}) == 1
    assert max(image.get_extent()[1] for image in ax.images) <= ax.get_xlim()[1]
    assert captions(ax) == ["0.0\nto 32.1\n(−2.9)"] * 11
    assert made.made_height_in(full) == made.made_height_in(example_tables((0,))["made_images"])


def test_many_made_images_go_on_in_another_line_and_another_program_s_kinds_keep_their_name():
    n = 14
    many = table(kind=["maximizing"] * 7 + ["minimizing"] * 6 + ["caricature"], is_grey=np.zeros(n, bool),
                 image=np.zeros((n, 112, 112, 3), np.uint8), answer=np.ones(n), start_answer=np.zeros(n))
    assert [title for title, _ in made.made_groups(many)] == ["maximizing", "minimizing", "caricature"]
    assert made.made_height_in(many) == pytest.approx(2 * made.made_height_in(example_tables((0,))["made_images"]))
    ax = made.plot_made_images(many)
    right = max(image.get_extent()[1] for image in ax.images)
    assert right <= ax.get_xlim()[1]


def test_more_made_images_of_a_kind_than_a_line_holds_go_on_below():
    n = 2 * made.MADE_A_ROW + 3
    many = table(kind=["maximizing"] * n, is_grey=np.zeros(n, bool), image=np.zeros((n, 112, 112, 3), np.uint8), answer=np.ones(n),
                 start_answer=np.zeros(n))
    ax = made.plot_made_images(many)
    assert len(ax.images) == n
    assert max(image.get_extent()[1] for image in ax.images) <= ax.get_xlim()[1]
    assert len({image.get_extent()[3] for image in ax.images}) == 3


@pytest.mark.parametrize(("change", "steps"), [("noise", [1, 2]), ("blur", [3, 4]), ("contrast", [5])])
def test_each_change_shows_its_own_levels_beside_the_intact_images(change, steps):
    tables = example_tables((0, 2))
    r2, answer_r2 = tables["robustness"]["r2"][:, 1], tables["robustness"]["answer_r2"][:, 1]
    ax = made.plot_change(tables["robustness"], change, r2, answer_r2)
    intact, own, measured = (line.get_ydata() for line in ax.lines)
    assert intact[0] == r2[0]
    np.testing.assert_array_equal(own, answer_r2[steps])
    np.testing.assert_array_equal(measured, r2[steps])
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"{STEPS[step][1]:g}" for step in steps]


def test_the_teacher_has_open_marks_of_its_own():
    tables = example_tables((0, 2))
    r2, answer_r2 = tables["robustness"]["r2"][:, 1], tables["robustness"]["answer_r2"][:, 1]
    ax = made.plot_change(tables["robustness"], "noise", r2, answer_r2, r2 / 2)
    (teacher,) = [line for line in ax.lines if line.get_fillstyle() == "none"]
    np.testing.assert_array_equal(teacher.get_ydata(), r2[[1, 2]] / 2)


def test_all_changes_have_one_scale():
    found = example_tables((0,))["robustness"]
    figure = made.robustness_figure(found, found["r2"][:, 0], found["answer_r2"][:, 0], 100)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["noise", "blur", "contrast", "luminance", "occlusion", "shift"]
    assert {ax.get_ylim() for ax in figure.axes} == {(0, 1)}

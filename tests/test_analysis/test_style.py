import matplotlib as mpl
import numpy as np
import pytest

from nwb_compact_analysis.style import STUDENT, TEACHER, axes_or_new, chunks, number, short_label, spikes_text, styled


def test_given_axes_are_used_and_no_figure_is_made(close_figures):
    ax = axes_or_new(None, 2.0)
    before = mpl.pyplot.get_fignums()
    assert axes_or_new(ax, 3.0) is ax
    assert mpl.pyplot.get_fignums() == before


def test_style_leaves_the_callers_settings_alone():
    @styled
    def size() -> float:
        return mpl.rcParams["font.size"]

    before = mpl.rcParams["font.size"]
    assert size() == 7.5
    assert mpl.rcParams["font.size"] == before


@pytest.mark.parametrize("most", [5, 8, 13, 20])
@pytest.mark.parametrize("length", [1, 5, 13, 14, 60])
def test_short_labels_fit_and_keep_both_ends(most, length):
    name = ("abcdefghij" * 6)[:length]
    short = short_label(name, most)
    assert len(short) == min(length, most)
    assert (short[0], short[-1]) == (name[0], name[-1])


@pytest.mark.parametrize(("name", "drawn"), [("单-1", "?-1"), ("ü", "ü"), ("a\tb", "a?b"), ("$a$", "$a$"), ("", "")])
def test_characters_without_a_picture_become_question_marks(name, drawn):
    assert short_label(name) == drawn


@pytest.mark.parametrize(("n", "size", "parts"), [(0, 5, []), (5, 5, [5]), (6, 5, [3, 3]), (33, 25, [17, 16]), (90, 8, [8] * 6 + [7] * 6)])
def test_chunks_are_complete_in_order_and_even(n, size, parts):
    made = chunks(range(n), size)
    assert [len(part) for part in made] == parts
    assert [item for part in made for item in part] == list(range(n))


def test_numbers_round_to_three_figures():
    assert [number(value) for value in (0.0, 12.0, 8_413.0, 999_999.0, 62.8e6, 3e9)] == ["0", "12", "8.41 k", "1 M", "62.8 M", "3 G"]


def test_teacher_and_student_differ_in_lightness_too():
    """Two colours that differ only in hue are one colour in print; relative luminance as in WCAG 2."""

    def luminance(colour: str) -> float:
        rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    assert abs(luminance(STUDENT) - luminance(TEACHER)) > 0.05


@pytest.mark.parametrize(("answer", "shown"), [(-0.04, "0.0"), (-0.06, "−0.1"), (123.4, "123"), (np.nan, "–")])
def test_answers_are_short_and_nothing_is_minus_zero(answer, shown):
    assert spikes_text(answer) == shown

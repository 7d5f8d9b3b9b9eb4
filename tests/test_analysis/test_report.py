from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import ResponseUnits
from nwb_compact_analysis.page import render_page
from nwb_compact_analysis.report import DOTS_PER_INCH, UNITS_A_FIGURE, draw_sections, write_report


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


FIGURES = [
    "figure_1_teacher_against_student.png",
    "figure_2_accuracy_against_parameters.png",
    "figure_2c_members.png",
    "figure_3_scores_by_unit.png",
    "figure_4_filters_per_layer.png",
    "figure_5_predicted_against_measured.png",
    "figure_6_first_layer_filters.png",
    "figure_7_best_and_worst_images.png",
]


def test_the_folder_holds_the_figures_and_the_page_that_holds_them(make_fit, tmp_path):
    page = write_report(*make_fit(3), "a.nwb", tmp_path / "made" / "here")
    assert page == tmp_path / "made" / "here" / "index.html"
    assert names(page.parent) == [*FIGURES, "index.html"]
    html = page.read_text(encoding="utf-8")
    assert html.count("<img ") == len(FIGURES)
    for name in FIGURES:
        assert name in html
        Image.open(page.parent / name).verify()


def test_a_run_with_baselines_has_a_section_of_its_own_that_says_what_they_are(make_fit, tmp_path):
    page = write_report(*make_fit(3, baselines=("ridge", "ln")), "a.nwb", tmp_path)
    assert names(tmp_path) == sorted([*FIGURES, "figure_2b_beside_baselines.png", "index.html"])
    html = page.read_text(encoding="utf-8")
    assert "<h2>Beside baselines</h2>" in html
    assert "(ridge: made-up ridge; ln: made-up ln)" in html


@pytest.mark.parametrize("n_members", [0, 1])
def test_a_run_that_holds_no_ensemble_says_nothing_of_members(n_members, make_fit, tmp_path):
    results, session = make_fit(3)
    members = results.teacher_member_prediction[:, :, :n_members] if n_members else None
    page = write_report(replace(results, teacher_member_prediction=members), session, "a.nwb", tmp_path)
    assert names(tmp_path) == sorted({*FIGURES, "index.html"} - {"figure_2c_members.png"})
    html = page.read_text(encoding="utf-8")
    assert "Members of the teacher" not in html
    assert "disagree" not in html


def test_of_an_ensemble_the_page_tells_what_averaging_gains_and_how_far_members_disagree(make_fit, tmp_path):
    html = write_report(*make_fit(3), "a.nwb", tmp_path).read_text(encoding="utf-8")
    assert "<h2>Members of the teacher</h2>" in html
    assert "how far the teacher&#x27;s members disagree: one SD over members to either side" in html


def test_imported_students_have_no_teacher_beside_them_and_only_units_that_answered_are_drawn(make_fit):
    """The published models are of four sessions, and a file has the responses of one."""
    results, session = make_fit(3, 12, averages_only=True)
    counted = ResponseUnits(np.array([0, 2], np.uint32), None, None)
    means = replace(session.mean_responses, mean=session.mean_responses.mean[:, [0, 2]])
    session = replace(session, response_units=counted, mean_responses=means)
    of_teacher = [name for name in results.scores if name.startswith("teacher")]
    scores = results.scores | {name: np.full(3, np.nan) for name in of_teacher} | {"student_r2": np.array([0.4, np.nan, 0.3])}
    results = replace(results, scores=scores, teacher_prediction=np.full_like(results.teacher_prediction, np.nan),
                      teacher_member_prediction=None, reason=("no teacher", "not here", "no teacher"))
    sections = {section.heading: section for section in draw_sections(results, session)}
    assert [picture.file_name for picture in sections["Accuracy and size"].pictures] == ["figure_2_accuracy_against_parameters.png"]
    assert [picture.alt for picture in sections["Every unit"].pictures] == ["r² of 2 units."]
    assert sections["Every unit"].text.endswith("cannot be shown for any unit: no teacher.")
    fits = sections["Predicted against measured"].pictures
    assert [picture.alt for picture in fits] == ["Predicted against measured responses of 2 units."]
    page = render_page(results, session, "models.nwb", list(sections.values()))
    assert ("nan" in page.split("data:image")[0], "between their predictions" in page) == (False, False)
    assert "with a median r² of 0.35.</p>" in page
    assert "<th>median over units</th><th>student</th><th>units</th>" in page


def test_without_pixels_there_is_a_note_in_place_of_pictures(make_fit, tmp_path):
    page = write_report(*make_fit(3, pixels=False), "a.nwb", tmp_path)
    assert names(tmp_path) == [*FIGURES[:-1], "index.html"]
    assert "keeps only the hashes of its images" in page.read_text(encoding="utf-8")


def test_many_units_are_spread_over_figures_and_none_is_lost(make_fit):
    n = UNITS_A_FIGURE["images"] + 1
    sections = draw_sections(*make_fit(n, 24))
    assert [picture.file_name for picture in sections[-1].pictures] == [
        "figure_7_best_and_worst_images_1.png",
        "figure_7_best_and_worst_images_2.png",
    ]


@pytest.mark.parametrize("fit", [{"n_units": 1}, {"n_units": 2, "averages_only": True}, {"n_units": 3, "grey": True, "n_images": 7}])
def test_small_grey_and_average_only_sessions_are_drawn_at_print_size(fit, make_fit):
    for section in draw_sections(*make_fit(**fit)):
        for picture in section.pictures:
            drawn = Image.open(BytesIO(picture.png)).size
            assert drawn == pytest.approx([DOTS_PER_INCH * size for size in picture.size_in], abs=1)
            assert picture.size_in[0] <= 7
            assert picture.size_in[1] <= 9.5


def test_names_that_a_font_or_mathtext_would_trip_over_are_drawn(make_fit):
    sections = draw_sections(*make_fit(3, names=("$a_{", "单元\n1", "a very long name " * 9)))
    assert len(sections) == 7


@pytest.mark.parametrize("n_units", [1, 30])
def test_nothing_is_cut_at_the_edge_of_a_figure(n_units, make_fit):
    names = tuple(f"WE-190923-array-{unit % 3}-electrode-{unit:03d}-unit" for unit in range(n_units))
    nan_units = (0,) if n_units > 1 else ()
    for section in draw_sections(*make_fit(n_units, 24, names=names, nan_units=nan_units, baselines=("ridge", "direct", "ln"))):
        for picture in section.pictures:
            ink = np.asarray(Image.open(BytesIO(picture.png)).convert("L")) < 250
            touching = [edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1])]
            assert touching == [False] * 4, picture.file_name


def test_the_same_run_gives_the_same_bytes(make_fit, tmp_path):
    one, two = (write_report(*make_fit(2), "a.nwb", tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_folder_in_use_is_refused_and_left_alone(make_fit, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(NwbCompactError) as caught:
        write_report(*make_fit(2), "a.nwb", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: found a folder with 1 file in it, expected an empty or a new folder. Next: name another with -o, or add --overwrite"
    )
    assert names(tmp_path) == ["notes.txt"]


def test_overwriting_replaces_the_report_and_nothing_else(make_fit, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "figure_7_best_and_worst_images_12.png").write_text("of an older, larger report")
    write_report(*make_fit(2), "a.nwb", tmp_path, overwrite=True)
    assert names(tmp_path) == [*FIGURES, "index.html", "notes.txt"]


def test_a_file_in_place_of_the_folder_is_refused(make_fit, tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(NwbCompactError) as caught:
        write_report(*make_fit(2), "a.nwb", tmp_path / "report", overwrite=True)
    assert str(caught.value) == f"{tmp_path / 'report'}: found a file, expected a folder. Next: name another folder with -o"

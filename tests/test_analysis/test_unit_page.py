from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.measured import measured_means
from nwb_compact_analysis import unit_page
from nwb_compact_analysis.page import Picture
from tests.test_analysis.interpreted import constant, example_tables, taught, with_full_students

HEADINGS = [
    "Preference, fit and receptive field", "Filters, layer by layer", "Tuning to made images", "When images are changed",
    "Natural images it answers most and least", "Images made for it", "Which filters it needs",
    "The smallest circuit for its dot-size curve",
]
HOSTILE = "<script>alert('1')</script>&\"$a_{"


@pytest.fixture
def interpreted(make_fit):
    """A run of three units, two of them interpreted."""

    def make(**fit) -> tuple:
        results, session = make_fit(3, 40, **fit)
        results = with_full_students(results)
        return results, session, example_tables((0, 2)), measured_means(session, results)

    return make


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of what is said: figures are laid out but not rendered, which takes most of the time."""
    monkeypatch.setattr(unit_page, "saved", lambda name, alt, figure: Picture(name, b"", alt, tuple(figure.get_size_inches())))


def labelled(preferences: Table, label: str) -> Table:
    """The same table with one label for all units."""
    labels = Column("", np.array([label] * len(preferences)))
    return Table("", {**preferences.columns, "preference": labels})


def pictures(sections) -> dict[str, str]:
    return {section.heading: section.text for section in sections if section.pictures}


def test_a_unit_has_all_its_sections_in_order_each_with_a_figure(interpreted, undrawn):
    results, session, tables, measured = interpreted()
    sections = unit_page.unit_sections(results, session, tables, measured, 2)
    assert [section.heading for section in sections] == HEADINGS
    assert [len(section.pictures) for section in sections] == [1, 1, 2, 1, 1, 1, 1, 1]
    assert "3.0 spikes on average; with random phases: 1.0 (index 0.50)" in sections[2].text
    assert "predicted with an r² of 0.20, between any two with 0.40" in sections[3].text
    assert sections[1].text.endswith("the largest fall is after layer 2, by 4 kernels.")
    assert "Of 1,234 natural images" in sections[4].text
    assert "correlate 0.40" in sections[5].text
    assert "explain 93%" in sections[7].text


def test_what_the_teacher_says_stands_beside_its_student(interpreted, undrawn):
    results, session, tables, measured = interpreted()
    sections = unit_page.unit_sections(results, session, taught(tables), measured, 2)
    assert "Orange: the teacher" in sections[3].text
    assert sections[5].text.endswith(
        "In brackets: what the teacher answers. It answers 50 % of the maximizing images above its best image of the session and 100 % of "
        "the minimizing ones below its median image. 100 % of the changed photographs move it as they move the student.")
    without = unit_page.unit_sections(results, session, tables, measured, 2)
    assert "teacher" not in without[3].text + without[5].text


def test_a_page_is_about_two_printed_sheets(interpreted, undrawn):
    """210 x 297 mm with margins of 10 mm; text at 8 pt runs to about 140 letters a line."""
    results, session, tables, measured = interpreted()
    sections = unit_page.unit_sections(results, session, tables, measured, 0)
    figures = sum(picture.size_in[1] for section in sections for picture in section.pictures)
    text = sum(0.27 + 0.14 * -(-len(section.text) // 140) for section in sections)
    assert figures + text < 2 * 10.9
    assert all(picture.size_in[0] == 7 for section in sections for picture in section.pictures)


@pytest.mark.parametrize("unit", [0, 2])
def test_nothing_is_cut_at_the_edge_of_a_figure_and_no_text_is_too_small(unit, interpreted, monkeypatch):
    sizes: list[float] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **more: (
        sizes.extend(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()), save(figure, *args, **more)))
    results, session, tables, measured = interpreted(names=("WE-190923-array-1-electrode-081-unit-2", "b", "$a_{ 单元"))
    for section in unit_page.unit_sections(results, session, taught(tables), measured, unit):
        for picture in section.pictures:
            ink = np.asarray(Image.open(BytesIO(picture.png)).convert("L")) < 250
            assert [edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1])] == [False] * 4, picture.file_name
    assert min(sizes) >= 7


def test_a_unit_that_was_left_out_shows_what_the_fit_knows_and_says_so_of_the_rest(interpreted, undrawn):
    results, session, tables, measured = interpreted()
    for found in (tables, {}):
        sections = unit_page.unit_sections(results, session, found, measured, 1)
        assert list(pictures(sections)) == HEADINGS[:2]
        assert {section.text for section in sections if not section.pictures} == {unit_page.NOT_INTERPRETED}


def test_made_images_that_the_file_does_not_hold_are_missed(interpreted, undrawn):
    results, session, tables, measured = interpreted()
    del tables["made_images"]
    (section,) = [one for one in unit_page.unit_sections(results, session, tables, measured, 2) if one.heading == "Images made for it"]
    assert (section.text, section.pictures) == ("They are not in this file: its images were left out.", ())


def test_a_student_that_answers_all_alike_gets_sentences_and_the_other_unit_its_figures(interpreted, undrawn):
    results, session, tables, measured = interpreted()
    still = constant(tables, 2)
    sections = {section.heading: section for section in unit_page.unit_sections(results, session, still, measured, 2)}
    assert {heading: section.text for heading, section in sections.items() if not section.pictures} == {
        "Tuning to made images": "The model answers every made image alike, with 1.00 spikes.",
        "When images are changed": "The model's answers do not vary, so nothing can be said of changed images.",
        "Natural images it answers most and least": "The model answers all natural images alike, so none is its strongest or weakest.",
        "Which filters it needs": "The model's answers to natural images do not vary, so no filter can be told to matter.",
        "The smallest circuit for its dot-size curve": "The model answers dots of all sizes alike, so there is no circuit to find.",
    }
    assert "No change of an image moves this model's answer" in sections["Images made for it"].text
    assert len(pictures(unit_page.unit_sections(results, session, still, measured, 0))) == len(HEADINGS)


def test_answers_that_are_no_numbers_are_told_from_a_unit_that_was_not_interpreted(interpreted, undrawn):
    results, session, tables, measured = interpreted()
    tables["probes"]["student"][:, 0] = np.nan
    assert unit_page.unit_sections(results, session, tables, measured, 0)[2].text == "The model's answers to made images are not numbers."


def test_without_scored_images_pixels_or_scores_the_page_says_so(interpreted, undrawn):
    results, session, tables, measured = interpreted(pixels=False)
    scores = {name: np.full(3, np.nan) for name in results.scores}
    blind = replace(results, side=("fit",) * 40, scores=scores, reason=("never measured",) * 3)
    sections = unit_page.unit_sections(blind, session, tables, measured, 0)
    assert "No scored image has a measured response" in sections[0].text
    assert "keeps only hashes" in sections[4].text
    page = unit_page.render_unit_page(blind, session, "a.nwb", tables, measured, 0)
    assert "How well the model predicts it is not known: never measured." in page
    assert ">nan<" not in page


def test_images_from_elsewhere_are_announced(interpreted, undrawn):
    results, session, tables, measured = interpreted()
    assert "not in the file" not in unit_page.unit_sections(results, session, tables, measured, 0)[4].text
    tables["natural_images"]["file"][0] = "photos.zip:one.jpg"
    assert "not in the file" in unit_page.unit_sections(results, session, tables, measured, 0)[4].text


@pytest.mark.parametrize(("label", "sentence"), [
    ("dot", "Its model prefers dots: it answers them more than large edges and surfaces (index 0.70, at least 0.33 is needed)."),
    ("unclear", "What its model prefers is unclear: of the labels whose images drive it, none passes its criterion by a clear margin."),
])
def test_the_headline_says_what_is_preferred_with_its_evidence_and_how_good_the_model_is(label, sentence, interpreted):
    results, _, tables, _ = interpreted()
    unit = {"dot": 0, "unclear": 2}[label]
    r2 = results.scores["student_r2"][unit]
    assert unit_page.unit_headline(results, tables, unit).startswith(sentence)
    assert f"r² of {r2:.2f}" in unit_page.unit_headline(results, tables, unit)


@pytest.mark.parametrize("corrected", [True, False])
def test_the_noise_corrected_score_is_there_where_it_is_known(corrected, interpreted, undrawn):
    results, session, tables, measured = interpreted(nan_units=() if corrected else (0,))
    page = unit_page.render_unit_page(results, session, "a.nwb", tables, measured, 0)
    assert ("noise-corrected" in page) == corrected
    assert f"<td>{results.scores['student_r2'][0]:.2f}</td>" in page


class Reader(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text.append(data)


def test_words_of_the_file_stay_words_and_the_page_loads_nothing(interpreted, undrawn):
    results, session, tables, measured = interpreted(names=(HOSTILE, "b", "c"))
    provenance = {"answers": HOSTILE}
    results = replace(results, run_id=HOSTILE, provenance=provenance)
    session = replace(session, about=replace(session.about, session_id=HOSTILE))
    tables["preferences"] = labelled(tables["preferences"], HOSTILE)
    page = Reader(unit_page.render_unit_page(results, session, HOSTILE, tables, measured, 0))
    assert not set(page.tags) & {"script", "link", "iframe", "object", "base", "form"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/png;base64,") for name, value in page.attributes if name == "src")
    assert [value for name, value in page.attributes if name == "href"] == ["index.html"]
    assert sum(HOSTILE in text for text in page.text) >= 4


def test_the_same_unit_gives_the_same_bytes(interpreted):
    results, session, tables, measured = interpreted()
    one, two = (unit_page.render_unit_page(results, session, "a.nwb", tables, measured, 0) for _ in range(2))
    assert one == two


def test_pages_have_names_that_every_file_system_takes_and_no_two_are_alike(interpreted):
    results = interpreted(names=("a/b", "a b", "单元"))[0]
    assert [unit_page.page_name(results, unit) for unit in range(3)] == ["unit_1_a-b.html", "unit_2_a-b.html", "unit_3_unit.html"]

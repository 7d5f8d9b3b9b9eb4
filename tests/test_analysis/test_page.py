from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from nwb_compact_analysis.baseline_figures import plot_models
from nwb_compact_analysis.page import Picture, Section, headline, render_page

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Tags in balance, every attribute and every text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


HOSTILE = "<script>alert('1')</script>&\"quoted\""


@pytest.fixture
def hostile(make_fit):
    results, session = make_fit(2, names=(HOSTILE, "plain"), nan_units=(0,))
    results = replace(results, run_id=HOSTILE, reason=(HOSTILE, ""), provenance={HOSTILE: HOSTILE, "preset": HOSTILE, "seed": HOSTILE})
    about = replace(session.about, session_id=HOSTILE, session_description=HOSTILE, related_publications=(HOSTILE,))
    picture = Picture("figure.png", b"\x89PNG", HOSTILE, (3.4, 3.0))
    return results, replace(session, about=about), HOSTILE, [Section(HOSTILE, HOSTILE, (picture,))]


def test_words_of_the_file_stay_words(hostile):
    page = Reader(render_page(*hostile))
    assert "script" not in page.tags
    assert not [attribute for attribute in page.attributes if attribute[1].startswith("on")]
    assert sum(HOSTILE in text for text in page.text) >= 8


def test_the_page_loads_nothing(hostile):
    page = Reader(render_page(*hostile))
    assert not set(page.tags) & {"link", "iframe", "object", "base", "form", "a"}
    assert all(value.startswith("data:image/png;base64,") for _, name, value in page.attributes if name in ("src", "href", "srcset"))
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_pictures_are_inside_with_their_words_and_size(hostile):
    page = Reader(render_page(*hostile))
    image = {name: value for tag, name, value in page.attributes if tag == "img"}
    assert b64decode(image["src"].split(",")[1]) == b"\x89PNG"
    assert (image["alt"], image["width"], image["height"]) == (HOSTILE, "326", "288")


def test_headline_is_the_median_of_the_units_that_have_a_score(make_fit):
    results, _ = make_fit(3, 10)
    results.scores["student_r2"][:] = [0.2, np.nan, 0.4]
    results.scores["teacher_r2"][:] = [0.3, 0.5, 0.7]
    assert headline(results) == "On 5 scored images the students predict 2 of 3 units with a median r² of 0.30; the teacher reaches 0.50."


def test_medians_of_baselines_stand_beside_those_of_teacher_and_student(make_fit):
    results, session = make_fit(3, baselines=("ridge", "ln"))
    text = Reader(render_page(results, session, "a.nwb", [])).text
    head = text.index("median over units")
    assert text[head + 1 : head + 6] == ["teacher", "student", "ridge", "ln", "units"]
    row = text.index("noise-corrected r²", head)
    medians = [np.median(results.scores[f"{model}_r2_er"]) for model in ("teacher", "student", "ridge", "ln")]
    assert text[row + 1 : row + 6] == [*(f"{value:.2f}" for value in medians), "3"]


def test_medians_are_over_the_same_units_or_a_model_that_fails_for_one_would_look_better(make_fit):
    results, session = make_fit(3, baselines=("ridge", "ln"))
    for model in ("teacher", "student", "ridge"):
        results.scores[f"{model}_r2_er"][:] = [0.1, 0.5, 0.9]
    results.scores["ln_r2_er"][:] = [np.nan, 0.4, 0.6]
    text = Reader(render_page(results, session, "a.nwb", [])).text
    row = text.index("noise-corrected r²", text.index("median over units"))
    assert text[row + 1 : row + 6] == ["0.70", "0.70", "0.70", "0.50", "2"]
    ax = plot_models(results, "r2_er")
    assert [label.get_text().split()[1] for label in ax.get_xticklabels()] == ["0.70", "0.70", "0.70", "0.50"]
    assert ax.get_title(loc="left").startswith("2 units;")


def test_every_unit_has_a_row_with_its_numbers(make_fit):
    results, session = make_fit(5, nan_units=(2,))
    page = Reader(render_page(results, session, "a.nwb", []))
    for unit, name in enumerate(results.unit_name):
        at = page.text.index(name)
        assert page.text[at + 1] == f"{results.scores['teacher_r2'][unit]:.2f}"
        corrected = page.text[at + 4]
        assert corrected == "–" if unit == 2 else corrected.startswith(f"{results.scores['student_r2_er'][unit]:.2f} [")


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        ({"nan_units": (1,)}, "Some scores of 1 of 3 units (unit-2) are missing: repeat averages only: noise cannot be told from signal."),
        ({"averages_only": True}, "Some scores of all 3 units are missing: repeat averages only: noise cannot be told from signal."),
    ],
)
def test_missing_scores_are_explained_once(fit, said, make_fit):
    results, session = make_fit(3, **fit)
    assert Reader(render_page(results, session, "a.nwb", [])).text.count(said) == 1


@pytest.mark.parametrize(
    ("provenance", "command"),
    [
        ({"preset": "quick", "seed": "3"}, "nwb-compact fit 'my session.nwb' --preset quick --seed 3"),
        ({"command": "nwb-compact fit a.nwb --train b.nwb"}, "nwb-compact fit a.nwb --train b.nwb"),
    ],
)
def test_the_commands_that_reproduce_the_numbers_can_be_pasted(provenance, command, make_fit):
    results, session = make_fit(2)
    text = "".join(Reader(render_page(replace(results, provenance=provenance), session, "my session.nwb", [])).text)
    assert f"{command}\nnwb-compact report 'my session.nwb' --run made-up-1" in text


def test_the_costs_of_a_run_are_a_table_and_a_students_share_a_sentence(make_fit):
    results, session = make_fit(3)
    known = {"seconds.teacher": "60", "flop.teacher": "6e12", "seconds.students": "30", "energy_counters": "package-0"}
    page = Reader(render_page(replace(results, provenance=known), session, "a.nwb", []))
    at = page.text.index("What it cost")
    said = " ".join(page.text[at : at + 4])
    assert "A student took 10 s, its share of what was done for the students alone." in said
    assert "Energy is what the counters of package-0 told, whatever else ran there." in said
    row = page.text.index("teacher", page.text.index("peak memory"))
    assert page.text[row : row + 6] == ["teacher", "1 min 0 s", "6 TFLOP", "100 GFLOP/s", "–", "–"]


def test_a_run_of_an_earlier_version_tells_no_costs(make_fit):
    assert "What it cost" not in Reader(render_page(*make_fit(3), "a.nwb", [])).text

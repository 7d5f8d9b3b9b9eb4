"""One HTML page that explains itself: no script, no network, every word from the file escaped, pictures inside.

`render_page` is text in, text out. The page reads on a phone (figures keep their size and scroll sideways when they are
wide), prints on A4 without cut figures, and needs nothing but itself: a content policy forbids the browser to load anything.
"""

import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from nwb_compact import __version__
from nwb_compact.errors import counted
from nwb_compact.results import MODELS, SCORE_COLUMNS, Results, baselines_of, median
from nwb_compact.session import Session
from nwb_compact_analysis.cost_table import costs_section
from nwb_compact_analysis.figures import order_by_accuracy, teacher_parameters
from nwb_compact_analysis.style import number

PAGE = "index.html"
"""Name of the page of all units."""
STUDY = (
    "Cowley, B. R., Stan, P. L., Pillow, J. W. & Smith, M. A. Compact deep neural network models of the visual cortex. "
    "Nature (2026). https://doi.org/10.1038/s41586-026-10150-1"
)
NOISE_CORRECTION = (
    "Pospisil, D. A. & Bair, W. The unbiased estimation of the fraction of variance explained by a model. "
    "PLoS Comput. Biol. 17, e1009212 (2021). https://doi.org/10.1371/journal.pcbi.1009212"
)


@dataclass(frozen=True)
class Picture:
    """One figure of the page, already drawn."""

    file_name: str
    png: bytes
    alt: str
    """What a person who cannot see it should know."""
    size_in: tuple[float, float]
    """Width and height on paper."""


@dataclass(frozen=True)
class Section:
    """A heading, what to look for, and the figures that show it."""

    heading: str
    text: str
    pictures: tuple[Picture, ...] = ()


def render_page(
    results: Results, session: Session, source: str, sections: Sequence[Section], pages: Mapping[int, str] | None = None
) -> str:
    """The whole page as HTML.

    Parameters
    ----------
    results
        The run to show.
    session
        The session it belongs to.
    source
        The session file as the user named it; it is shown and used in the commands that reproduce the numbers.
    sections
        Figures with their captions, in the order of the page.
    pages
        Files beside this one that tell more of a unit, by row of the unit.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> from nwb_compact.session import example_session
    >>> render_page(example_results(example_session()), example_session(), "a & b.nwb", [])[:15]
    '<!DOCTYPE html>'
    """
    name = session.about.session_id or session.about.identifier
    parts = [
        f"<h1>Compact models of {_e(name)}</h1>",
        _headline(results),
        _what_was_fitted(results, session, source),
        _how_well(results),
        *(section_html(section) for section in sections),
        _unit_table(results, pages or {}),
        costs_section(results),
        _how_to_cite(session),
        _how_to_reproduce(results, source),
        _provenance(results.provenance),
    ]
    title = f"nwb-compact: {name}, run {results.run_id}"
    return document(title, parts)


def document(title: str, parts: Sequence[str], style: str = "") -> str:
    """Parts of a body, HTML, as a whole page; `style` is added to that of all pages.

    Examples
    --------
    >>> document("a & b", ["<p>text</p>"]).split("<title>")[1].split("</title>")[0]
    'a &amp; b'
    """
    return _FRAME.format(title=_e(title), style=_STYLE + style, body="\n".join(parts))


def headline(results: Results) -> str:
    """The result in one sentence.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> headline(example_results())
    'On 3 scored images the students predict 2 of 2 units with a median r² of 0.48; the teacher reaches 0.63.'
    """
    student = results.scores["student_r2"]
    n = int(np.isfinite(student).sum())
    teacher = median(results.scores["teacher_r2"])
    beside = "" if np.isnan(teacher) else f"; the teacher reaches {teacher:.2f}"  # students that were imported come without one
    return (
        f"On {results.side.count('scored'):,} scored images the students predict {n} of {len(student)} units with a median r² of "
        f"{median(student):.2f}{beside}."
    )


def _headline(results: Results) -> str:
    return f'<p class="lead">{_e(headline(results))}</p>'


def _what_was_fitted(results: Results, session: Session, source: str) -> str:
    sides = ", ".join(f"{results.side.count(side):,} {side}" for side in dict.fromkeys(results.side))
    about = session.about
    rows = {
        "file": source,
        "session": f"{about.session_id or about.identifier}: {about.session_description}",
        "run": results.run_id,
        "fitted": _first(results.provenance, "date", "finished", "started", "created") or "not recorded",
        "preset": results.provenance.get("preset", "not recorded"),
        "seed": results.provenance.get("seed", "not recorded"),
        "units": str(len(results.unit_name)),
        "images": f"{len(results.side):,}: {sides}",
        "version": _first(results.provenance, "version", "nwb_compact", "version.nwb_compact") or "not recorded",
    }
    return "<h2>What was fitted</h2>\n" + _pairs(rows)


def _how_well(results: Results) -> str:
    scores = results.scores
    rows = {
        "r²": "r2",
        "noise-corrected r²": "r2_er",
        "explainable variance explained (FEVE)": "feve",
        "single-trial correlation": "single_trial_r",
    }
    models = [model for model in (*MODELS, *baselines_of(scores)) if model == "student" or np.isfinite(scores[f"{model}_r2"]).any()]
    heads = "".join(f"<th>{_e(model)}</th>" for model in models)
    body = "".join(_median_row(label, [scores[f"{model}_{name}"] for model in models]) for label, name in rows.items())
    table = (
        f'<div class="scroll"><table><thead><tr><th>median over units</th>{heads}<th>units</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    with_teacher = median(scores["teacher_student_r2"])
    sizes = {
        "parameters": f"teacher {number(teacher_parameters(results))}, student {number(median(scores['student_parameters']))} (median)",
        "compression": f"{median(scores['compression']):,.0f} times fewer parameters (median)",
        "size of a student": f"{number(median(scores['student_bytes']))}B as float32 (median)",
        **({} if np.isnan(with_teacher) else {"student against teacher": f"r² {with_teacher:.2f} between their predictions (median)"}),
    }
    return f"<h2>How well</h2>\n{table}\n{_reasons(results)}\n{_MEANING}\n{_pairs(sizes)}"


def _median_row(label: str, of_models: Sequence[np.ndarray]) -> str:
    """Over the same units for all models that have the score, or one that fails for a unit would look better without it."""
    known = [scores for scores in of_models if np.isfinite(scores).any()]
    common = np.isfinite(known).all(axis=0) if known else np.zeros(0, bool)
    cells = "".join(f"<td>{decimals(median(scores[common]) if np.isfinite(scores).any() else np.nan)}</td>" for scores in of_models)
    return f"<tr><th>{_e(label)}</th>{cells}<td>{common.sum()}</td></tr>"


def _reasons(results: Results) -> str:
    """Why numbers are missing, said once for all units that share the reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in zip(results.unit_name, results.reason, strict=True):
        if reason:
            by_reason.setdefault(reason, []).append(name)
    total = len(results.unit_name)
    lines = []
    for reason, names in by_reason.items():
        some = f"{len(names)} of {counted(total, 'unit')} ({', '.join(names[:5])}{', …' if names[5:] else ''})"
        who = ("the unit" if total == 1 else f"all {total} units") if len(names) == total else some
        lines.append(f"<p class=note>Some scores of {_e(who)} are missing: {_e(reason)}.</p>")
    return "\n".join(lines)


def section_html(section: Section) -> str:
    """A heading, its text and its figures."""
    figures = "\n".join(_figure(picture) for picture in section.pictures)
    return f'<h2>{_e(section.heading)}</h2>\n<p class="before">{_e(section.text)}</p>\n<div class="figures">\n{figures}\n</div>'


def _figure(picture: Picture) -> str:
    width, height = (round(96 * size) for size in picture.size_in)
    kind = "wide" if picture.size_in[0] > 4 else "narrow"
    data = b64encode(picture.png).decode("ascii")
    image = f'<img src="data:image/png;base64,{data}" alt="{_e(picture.alt)}" width="{width}" height="{height}">'
    return f'<figure class="{kind}"><div class="scroll">{image}</div><figcaption>{_e(picture.file_name)}</figcaption></figure>'


def _unit_table(results: Results, pages: Mapping[int, str]) -> str:
    heads = "".join(f'<th title="{_e(title)}">{_e(head)}</th>' for head, title in _UNIT_COLUMNS.items())
    notes = {reason: f"{k}" for k, reason in enumerate(dict.fromkeys(reason for reason in results.reason if reason), 1)}
    rows = "\n".join(_unit_row(results, int(unit), notes, pages.get(int(unit))) for unit in order_by_accuracy(results))
    more = " The name of a unit leads to a page on what its model computes." if pages else ""
    below = "".join(f"<p class=note>{number}: {_e(reason)}</p>" for reason, number in notes.items())
    return (
        "<h2>All units</h2>\n<p>From the best predicted to the worst. A dash stands for what could not be computed; the note in "
        "the last column says why. [ ] holds the 90 % interval. An r² called corrected is noise-corrected."
        f"{more}</p>\n"
        f'<div class="scroll"><table class="units"><thead><tr><th>unit</th>{heads}</tr></thead>\n<tbody>{rows}</tbody></table></div>{below}'
    )


def _unit_row(results: Results, unit: int, notes: Mapping[str, str], page: str | None) -> str:
    value = {name: float(column[unit]) for name, column in results.scores.items()}
    interval = f"[{decimals(value['student_r2_er_low'])}, {decimals(value['student_r2_er_high'])}]"
    cells = [
        decimals(value["teacher_r2"]),
        decimals(value["student_r2"]),
        decimals(value["teacher_r2_er"]),
        decimals(value["student_r2_er"]) + (f" {interval}" if np.isfinite(value["student_r2_er_low"]) else ""),
        decimals(value["teacher_student_r2"]),
        decimals(value["reliability"]),
        decimals(value["snr"]),
        decimals(value["mean_count"], 1),
        decimals(value["student_parameters"], 0),
        decimals(value["student_filters"], 0),
        decimals(value["compression"], 0),
    ]
    numbers = "".join(f"<td>{cell}</td>" for cell in cells)
    name = _e(results.unit_name[unit])
    linked = f'<a href="{_e(page)}">{name}</a>' if page else name
    return f'<tr><th>{linked}</th>{numbers}<td>{notes.get(results.reason[unit], "")}</td></tr>'


def _how_to_cite(session: Session) -> str:
    data = [f"The data: {publication}" for publication in session.about.related_publications or ()]
    program = f"The program: nwb-compact {__version__}, see its CITATION.cff."
    items = [f"The method: {STUDY}", f"The noise correction: {NOISE_CORRECTION}", *data, program]
    return "<h2>How to cite</h2>\n<ul>" + "".join(f"<li>{_e(item)}</li>" for item in items) + "</ul>"


def _how_to_reproduce(results: Results, source: str) -> str:
    settings = results.provenance
    options = "".join(f" --{name} {shlex.quote(settings[name])}" for name in ("preset", "seed") if name in settings)
    fit = settings.get("command") or f"nwb-compact fit {shlex.quote(source)}{options}"
    report = f"nwb-compact report {shlex.quote(source)} --run {shlex.quote(results.run_id)}"
    return (
        "<h2>How to get these numbers again</h2>\n"
        "<p>On the same machine, with the versions and files listed below, the first command gives the same scores and the second "
        "this page.</p>\n"
        f"<pre>{_e(fit)}\n{_e(report)}</pre>"
    )


def _provenance(provenance: Mapping[str, str]) -> str:
    return "<h2>Provenance</h2>\n<p>Every setting, version and input of the run, as stored in the file.</p>\n" + _pairs(provenance)


def _pairs(rows: Mapping[str, str]) -> str:
    body = "".join(f"<tr><th>{_e(key)}</th><td>{_e(value)}</td></tr>" for key, value in rows.items())
    return f'<table class="pairs"><tbody>{body}</tbody></table>'


def _first(provenance: Mapping[str, str], *keys: str) -> str:
    return next((provenance[key] for key in keys if provenance.get(key)), "")


def decimals(value: float, places: int = 2) -> str:
    """A number, or a dash where there is none."""
    return f"{value:,.{places}f}" if np.isfinite(value) else "–"


def _e(text: str) -> str:
    return escape(str(text), quote=True)


_UNIT_COLUMNS: Mapping[str, str] = {
    "teacher r²": SCORE_COLUMNS["teacher_r2"],
    "student r²": SCORE_COLUMNS["student_r2"],
    "teacher corrected": SCORE_COLUMNS["teacher_r2_er"],
    "student corrected": SCORE_COLUMNS["student_r2_er"],
    "student to teacher": SCORE_COLUMNS["teacher_student_r2"],
    "reliability": SCORE_COLUMNS["reliability"],
    "SNR": SCORE_COLUMNS["snr"],
    "mean spikes": SCORE_COLUMNS["mean_count"],
    "parameters": SCORE_COLUMNS["student_parameters"],
    "filters": SCORE_COLUMNS["student_filters"],
    "compression": SCORE_COLUMNS["compression"],
    "note": "why a number is missing",
}

_MEANING = """<p><b>r²</b> is the squared correlation, over images that no model was fitted on, between what a model predicts and the
average response over repeats; even a perfect model stays below 1, because that average still holds noise.
<b>Noise-corrected r²</b> estimates what r² would be after infinitely many repeats (Pospisil &amp; Bair 2021); as an estimate it can lie
above 1 or below 0 where a neuron was noisy, so read it with its 90 % interval (bootstrap over images).</p>"""

_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 52rem; margin: 0 auto; padding: 1rem; }
p, li { max-width: 44rem; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.4rem; border-bottom: 1px solid #ccc; }
.lead { font-size: 1.15rem; }
.note { background: #f3f3f3; padding: 0.4rem 0.6rem; }
table { border-collapse: collapse; margin: 0.5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.7rem 0.15rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid #e5e5e5; }
th:first-child { text-align: left; font-weight: 600; }
.pairs td { text-align: left; overflow-wrap: anywhere; }
.pairs th { font-weight: 400; color: #555; overflow-wrap: anywhere; }
.units { font-size: 0.72rem; }
.units th, .units td { padding-right: 0.45rem; }
.units td { white-space: nowrap; }
.units tbody th { min-width: 4rem; max-width: 10rem; overflow-wrap: anywhere; position: sticky; left: 0; background: #fff; }
.costs td { white-space: nowrap; }
.costs tbody tr:last-child th, .costs tbody tr:last-child td { border-top: 2px solid #ccc; }
.scroll { overflow-x: auto; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; align-items: flex-start; }
figure { margin: 0; max-width: 100%; }
figure img { display: block; height: auto; }
figure.narrow img { max-width: 100%; }
figcaption { font-size: 0.75rem; color: #767676; }
pre { background: #f3f3f3; padding: 0.6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print {
  @page { size: A4; margin: 15mm; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  figure, tr, pre { break-inside: avoid; }
  figure img { max-width: 100%; }
  h2, p.before { break-after: avoid; }
  .figures { display: block; }
  figure.narrow { display: inline-block; margin-right: 3mm; }
  .units { font-size: 6.5pt; }
  .units th, .units td { padding-right: 0.3rem; }
  .units tbody th { position: static; }
}
"""

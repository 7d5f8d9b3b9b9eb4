"""Figures of the images that drive and silence one unit, natural and made, and of how its model stands changes of images.

The same contract as `unit_figures`: values in, axes out. Values are tables of `nwb-compact interpret`.
"""

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nwb_compact.interpretation.tables import Table
from nwb_compact.session import Pixels
from nwb_compact_analysis.image_figures import INTACT, changes_of
from nwb_compact_analysis.strips import INK, say_nothing_known
from nwb_compact_analysis.style import GREY, PAGE_IN, STUDENT, STUDENT_MARKER, TEACHER, TEACHER_MARKER, axes_or_new, spikes_text, styled

NATURAL = {"natural-strongest": "strongest", "natural-weakest": "weakest"}
"""Kinds of natural images, and what stands above them."""
RANKS = 10
"""Natural images of each kind that are drawn."""
LETTERS = 33
"""Of the name of an image from elsewhere, its last ones: what fits in the place of the picture."""
MADE: Mapping[tuple[str, bool], str] = {
    ("maximizing", False): "maximizing",
    ("maximizing", True): "in grey",
    ("minimizing", False): "minimizing",
    ("minimizing", True): "in grey",
    ("adversarial-up", False): "changed to raise",
    ("adversarial-down", False): "changed to lower",
}
"""Kinds of made images and whether they are grey, in the order of the figure, and what stands above them."""
MADE_A_ROW = 11
ROBUSTNESS_IN = 1.3
LEVELS = {
    "noise": "SD, grey levels", "blur": "SD, px", "contrast": "contrast left", "luminance": "added levels", "occlusion": "share covered",
    "shift": "shift, px",
}
"""What the levels of each change are, in a few letters."""
_PITCH, _ROW_PITCH, _MADE_ROW_PITCH, _GAP = 1.06, 1.5, 1.98, 0.15
"""In widths of one image."""


# Natural images -----------------------------------------------------------------------------------------------------------


@styled
def plot_natural_images(
    natural: Table, pixels: Pixels | None, measured: Float[np.ndarray, "image"], is_new: Bool[np.ndarray, "image"],
    ax: Axes | None = None,
) -> Axes:
    """The natural images that a unit's student answers most (above) and least (below), with predicted | measured response.

    Parameters
    ----------
    natural
        Of one unit: rows of `natural_images`. Of an image from elsewhere the file has no picture and no response.
    pixels
        Of the session, read one by one; None where the file keeps only hashes.
    measured
        Repeat averages of the session's images, NaN where not measured.
    is_new
        Which of the session's images no model learned from, whether they are scored or not; they get an asterisk.
    ax
        Where to draw; a new figure when not given.
    """
    ax = axes_or_new(ax, natural_height_in(), PAGE_IN)
    for line, (kind, title) in enumerate(NATURAL.items()):
        top = line * _ROW_PITCH
        ax.text(0, top - 0.06, f"{title}: predicted | measured, spikes" if line == 0 else title, va="bottom", color=GREY, fontsize=7.5)
        chosen = np.flatnonzero(natural["kind"] == kind)
        for rank, row in enumerate(chosen[np.argsort(natural["rank"][chosen], kind="stable")][:RANKS]):
            number, answer = int(natural["row"][row]), float(natural["answer"][row])
            image = number if number >= 0 else None
            left = rank * _PITCH
            if image is None or pixels is None:
                _draw_absent(ax, _elsewhere(natural, int(row)) if image is None else "no picture\nin the file", left, top)
            else:
                draw_image(ax, np.asarray(pixels[image]), left, top)
            response = "" if image is None else f" | {spikes_text(measured[image])}{'*' if is_new[image] else ''}"
            ax.text(left + 0.5, top + 1.04, f"{spikes_text(answer)}{response}", ha="center", va="top", fontsize=7)
    ax.set(xlim=(-0.02, RANKS * _PITCH), ylim=(2 * _ROW_PITCH - 0.26, -0.26), aspect="equal")
    ax.set_axis_off()
    return ax


def natural_height_in() -> float:
    """Height of the figure of natural images, inches."""
    return 2 * _ROW_PITCH * PAGE_IN / (RANKS * _PITCH)


def draw_image(ax: Axes, picture: UInt8[np.ndarray, "*image_shape"], left: float, top: float) -> None:
    """One image, one unit wide, grey or colour."""
    extent = (left, left + 1, top + 1, top)
    ax.imshow(picture.squeeze(), extent=extent, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")


def _elsewhere(natural: Table, row: int) -> str:
    """Name of an image that is not of the session, its end where it is long."""
    name = Path(str(natural["file"][row])).name if "file" in natural.columns else ""
    return "\n".join(wrap(name[-LETTERS:], LETTERS // 3)) if name else "not an image\nof the session"


def _draw_absent(ax: Axes, text: str, left: float, top: float) -> None:
    ax.add_patch(Rectangle((left, top), 1, 1, facecolor="#F0F0F0", edgecolor=GREY, linewidth=0.6))
    ax.text(left + 0.5, top + 0.5, text, ha="center", va="center", fontsize=7, color="#595959")


# Made images --------------------------------------------------------------------------------------------------------------


@styled
def plot_made_images(made: Table, teacher: Table | None = None, ax: Axes | None = None) -> Axes:
    """The images made for a unit; below each the student's answer to the image it started from, and to itself (the teacher's).

    Parameters
    ----------
    made
        Of one unit: rows of `made_images`.
    teacher
        The same of `teacher_made_images`, None where the teacher was not asked.
    ax
        Where to draw; a new figure when not given.
    """
    lines = _made_lines(made)
    ax = axes_or_new(ax, made_height_in(made), PAGE_IN)
    for line, title, start, rows in [(number, *group) for number, groups in enumerate(lines) for group in groups]:
        ax.text(start, line * _MADE_ROW_PITCH - 0.06, title, va="bottom", color=GREY, fontsize=7.5)
        for left, row in zip(start + _PITCH * np.arange(len(rows)), rows, strict=True):
            draw_image(ax, made["image"][row], left, line * _MADE_ROW_PITCH)
            text = f"{spikes_text(made['start_answer'][row])}\nto {spikes_text(made['answer'][row])}"
            text += "" if teacher is None else f"\n({spikes_text(teacher['answer'][row])})"
            ax.text(left + 0.5, line * _MADE_ROW_PITCH + 1.04, text, ha="center", va="top", fontsize=7)
    ax.set(xlim=(-0.02, _made_width()), ylim=(len(lines) * _MADE_ROW_PITCH - 0.3, -0.3), aspect="equal")
    ax.set_axis_off()
    return ax


def made_groups(made: Table) -> list[tuple[str, Integer[np.ndarray, "image"]]]:
    """Title and rows of each kind of made image that there is; kinds of another program last, under their own name."""
    kind, is_grey = made["kind"].tolist(), made["is_grey"].astype(bool).tolist()
    known = [key for key in MADE if key in set(zip(kind, is_grey, strict=True))]
    other = [key for key in dict.fromkeys(zip(kind, is_grey, strict=True)) if key not in MADE]
    rows = {key: np.flatnonzero((made["kind"] == key[0]) & (made["is_grey"] == key[1])) for key in [*known, *other]}
    return [(MADE.get(key, key[0][:24]), of_kind) for key, of_kind in rows.items()]


def made_height_in(made: Table) -> float:
    """Height of the figure of made images, inches."""
    return len(_made_lines(made)) * _MADE_ROW_PITCH * PAGE_IN / _made_width()


def _made_lines(made: Table) -> list[list[tuple[str, float, Integer[np.ndarray, "image"]]]]:
    """Title, left border and rows of each kind, line by line of `MADE_A_ROW` images at most; a kind of more goes on in further lines."""
    lines: list[list[tuple[str, float, Integer[np.ndarray, "image"]]]] = [[]]
    parts = [(title, part) for title, rows in made_groups(made) for part in np.split(rows, range(MADE_A_ROW, len(rows), MADE_A_ROW))]
    for title, rows in parts:
        n_before = sum(len(before) for *_, before in lines[-1])
        if n_before and n_before + len(rows) > MADE_A_ROW:
            lines.append([])
            n_before = 0
        lines[-1].append((title, n_before * _PITCH + len(lines[-1]) * _GAP, rows))
    return lines


def _made_width() -> float:
    return MADE_A_ROW * _PITCH + (len(MADE) - 1) * _GAP


# Changed images -----------------------------------------------------------------------------------------------------------


@styled
def robustness_figure(
    robustness: Table, r2: Float[np.ndarray, "step"], answer_r2: Float[np.ndarray, "step"], dots_per_inch: int,
    teacher_r2: Float[np.ndarray, "step"] | None = None,
) -> Figure:
    """Scores of one unit against the level of each change of the images, on one scale."""
    changes = changes_of(robustness)
    figure = Figure(figsize=(PAGE_IN, ROBUSTNESS_IN), dpi=dots_per_inch, layout="constrained")
    axes = figure.subplots(1, max(1, len(changes)), sharey=True, squeeze=False)[0]
    for ax, change in zip(axes, changes, strict=False):
        plot_change(robustness, change, r2, answer_r2, teacher_r2, ax)
    for ax in axes[1:]:
        ax.set_ylabel("")
    return figure


@styled
def plot_change(
    robustness: Table, change: str, r2: Float[np.ndarray, "step"], answer_r2: Float[np.ndarray, "step"],
    teacher_r2: Float[np.ndarray, "step"] | None = None, ax: Axes | None = None,
) -> Axes:
    """One change of the images: r2 with what was measured (circles) and with the answers to the intact images (squares).

    Parameters
    ----------
    robustness
        The changes and their levels.
    change
        One of them.
    r2, answer_r2
        One unit's columns of the table.
    teacher_r2
        The same as `r2` of the teacher (open squares), None where it was not asked.
    ax
        Where to draw; a new figure when not given.
    """
    ax = axes_or_new(ax, ROBUSTNESS_IN, 1.3)
    rows = np.flatnonzero(robustness["change"] == change)
    intact = np.flatnonzero(robustness["change"] == INTACT)
    x = np.arange(len(rows))
    if len(intact) and np.isfinite(r2[intact[0]]):
        ax.axhline(r2[intact[0]], color=STUDENT, linewidth=0.8, linestyle="--", zorder=0)
    ax.plot(x, answer_r2[rows], color=INK, linewidth=1, marker="s", markersize=3, zorder=2, clip_on=False)
    if teacher_r2 is not None:
        (line,) = ax.plot(x, teacher_r2[rows], color=TEACHER, linewidth=1, marker=TEACHER_MARKER, markersize=3.5, zorder=2, clip_on=False)
        line.set_fillstyle("none")
    ax.plot(x, r2[rows], color=STUDENT, linewidth=1.2, marker=STUDENT_MARKER, markersize=3.5, zorder=3, clip_on=False)
    ax.set(xlim=(-0.4, len(rows) - 0.6), ylim=(0, 1), ylabel="r²", xlabel=LEVELS.get(change, "level"))
    ax.set_xticks(x, [f"{level:g}".replace("-", "−") for level in robustness["level"][rows]])
    ax.set_title(change, loc="left")
    if not (np.isfinite(r2[rows]).any() or np.isfinite(answer_r2[rows]).any()):
        say_nothing_known(ax, "not known")
    return ax


"""Figures of one unit: what it prefers, where it looks, and how it is tuned to made images.

The same contract as `unit_figures`: values in, axes out. Values are tables of `nwb-compact interpret`; `unit` is a row of the run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from nwb_compact.interpretation.stimuli import COLOURS
from nwb_compact.interpretation.stimuli import GREY as GREY_LEVEL
from nwb_compact.interpretation.tables import UNIT, Column, Table, Tables
from nwb_compact.results import IMAGE_PX
from nwb_compact_analysis.physiology_figures import criterion, labels_of
from nwb_compact_analysis.strips import INK, say_nothing_known
from nwb_compact_analysis.style import GREY, PAGE_IN, STUDENT, STUDENT_MARKER, axes_or_new, styled

PANEL_IN = 1.9, 1.75
HEIGHT_IN = 2.9
"""Of the tuning figure: two rows of panels."""

EXTENT_PX = (-IMAGE_PX / 2, IMAGE_PX / 2, IMAGE_PX / 2, -IMAGE_PX / 2)
"""Left, right, bottom and top of an image, from its centre."""
LINE: Mapping[str, Any] = {"color": STUDENT, "marker": STUDENT_MARKER, "markersize": 3, "linewidth": 1.2}


def row_of(tables: Tables, name: str, unit: int) -> int | None:
    """First row of a unit in a table; None where there is no such table, or the unit is not in it (see `interpret --units`).

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> tables = {"tuning": Table("", {"unit": Column("", np.array([4, 7]))})}
    >>> row_of(tables, "tuning", 7), row_of(tables, "tuning", 0), row_of(tables, "probes", 7)
    (1, None, None)
    """
    if name not in tables:
        return None
    rows = np.flatnonzero(tables[name][UNIT] == unit)
    return int(rows[0]) if len(rows) else None


def rows_of(tables: Tables, name: str, unit: int) -> Table | None:
    """The rows of a unit as a table of their own; None where there is none."""
    if row_of(tables, name, unit) is None:
        return None
    table = tables[name]
    return _where(table, table[UNIT] == unit)


# What it prefers, where it looks ------------------------------------------------------------------------------------------


@styled
def plot_evidence(preference: Table, ax: Axes | None = None) -> Axes:
    """The index of each label as a bar from 0, with a tick at the least that the label needs; the label given is filled.

    Parameters
    ----------
    preference
        Of one unit, from `rows_of`.
    ax
        Where to draw; a new figure when not given.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> index = Column("", np.array([0.5]))
    >>> ax = plot_evidence(Table("", {"preference": Column("", np.array(["dot"])), "dot_index": index}))
    >>> ax.texts[0].get_text(), ax.get_title(loc="left")
    ('0.50', 'prefers: dot')
    """
    ax = axes_or_new(ax, PANEL_IN[1], PANEL_IN[0])
    label, names = str(preference["preference"][0]), labels_of(preference)
    for y, name in enumerate(names):
        index, least = float(preference[f"{name}_index"][0]), criterion(preference, name)
        look = {"color": STUDENT} if name == label else {"facecolor": "#D0D0D0", "edgecolor": GREY, "linewidth": 0.6}
        if np.isfinite(index):
            ax.barh(y, index, height=0.6, **look)
        ax.plot([least, least], [y - 0.42, y + 0.42], color=INK, linewidth=1.4)
        ax.text(1.08, y, f"{index:.2f}".replace("-", "−") if np.isfinite(index) else "none", va="center", fontsize=7)
    ax.axvline(0, color=GREY, linewidth=0.6)
    ax.set(xlim=(-1, 1), ylim=(len(names) - 0.5, -0.5), xlabel="index (tick: least needed)")
    ax.set_xticks([-1, 0, 1])
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.set_title("preference: unclear" if label not in names else f"prefers: {label}", loc="left")
    return ax


def image_axes(ax: Axes) -> Axes:
    """Axes as large as an image, in pixels from its centre."""
    ax.set(xlim=EXTENT_PX[:2], ylim=EXTENT_PX[2:], aspect="equal", xlabel="px right of the centre")
    ax.set_xticks([-50, 0, 50])
    ax.set_yticks([-50, 0, 50])
    ax.spines[:].set_visible(True)
    return ax


@styled
def plot_receptive_field(field: Table, ax: Axes | None = None) -> Axes:
    """Share of the change of the answer when a place of natural images is covered; the ring is the receptive field.

    Parameters
    ----------
    field
        Of one unit, from `rows_of`.
    ax
        Where to draw; a new figure when not given.
    """
    ax = image_axes(axes_or_new(ax, PANEL_IN[1], PANEL_IN[0]))
    ax.set(ylabel="px below the centre")
    share, row, column, diameter = (field[name][0] for name in ("rf_map", "rf_row_px", "rf_column_px", "rf_diameter_px"))
    if not np.isfinite(share).all():
        say_nothing_known(ax, "no cover changes\nits answer")
        return ax
    ax.imshow(share, extent=EXTENT_PX, cmap="Greys", vmin=0, interpolation="nearest")
    ax.add_patch(Circle((column, row), diameter / 2, fill=False, edgecolor=STUDENT, linewidth=1.5))
    ax.plot([column], [row], color=STUDENT, marker="+", markersize=7, markeredgewidth=1.5)
    ax.set_title(f"receptive field {diameter:.0f} px\ndarkest place {share.max():.0%}", loc="left")
    return ax


# How it is tuned ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Probed:
    """What one unit answers to made images."""

    probes: Table
    answers: Float[np.ndarray, "stimulus"]
    """Expected spikes in the counting window."""
    tuning: Mapping[str, float]
    """Indices of the unit, NaN where one is not defined."""

    def family(self, *names: str) -> Bool[np.ndarray, "stimulus"]:
        """Which stimuli are of these families."""
        return np.isin(self.probes["family"], names)

    def best(self, among: Bool[np.ndarray, "stimulus"]) -> int:
        """The stimulus with the strongest answer among some."""
        return int(np.flatnonzero(among)[np.argmax(self.answers[among])])

    def best_over_phases(self, among: Bool[np.ndarray, "stimulus"]) -> int:
        """A stimulus of the kind that is answered most on average over phases, above the blank screen: so the indices choose theirs."""
        above = np.maximum(self.answers - np.nan_to_num(self.blank), 0)
        rows = np.flatnonzero(among)
        kinds = [among & self.like(row, "orientation_deg", "wavelength_px", "size_px", "contrast") for row in rows.tolist()]
        return int(rows[np.argmax([above[kind].mean() for kind in kinds])])

    def like(self, stimulus: int, *names: str) -> Bool[np.ndarray, "stimulus"]:
        """Which stimuli have these properties in common with one."""
        return np.all([self.probes[name] == self.probes[name][stimulus] for name in names], axis=0)

    @property
    def blank(self) -> float:
        """Answer to the empty screen; NaN where it was not shown."""
        return float(self.answers[self.family("blank")].mean()) if self.family("blank").any() else float("nan")


def probed_of(tables: Tables, unit: int) -> Probed | None:
    """Answers and indices of a unit; None where it was not probed or its answers are not numbers."""
    column, row = row_of(tables, "receptive_fields", unit), row_of(tables, "tuning", unit)
    if column is None or row is None or "probes" not in tables:
        return None
    answers = tables["probes"]["student"][:, column].astype(float)
    tuning = {name: float(values.values[row]) for name, values in tables["tuning"].columns.items()}
    return Probed(tables["probes"], answers, tuning) if np.isfinite(answers).all() else None


@styled
def tuning_figure(probed: Probed, dots_per_inch: int) -> Figure:
    """All tuning curves of a unit, on one scale of answers; dashed: the answer to the blank screen."""
    figure = Figure(figsize=(PAGE_IN, HEIGHT_IN), dpi=dots_per_inch, layout="constrained")
    axes = figure.subplots(2, 3, sharey=True)
    for ax, plot in zip(axes.ravel(), PANELS, strict=True):
        plot(probed, ax)
    for ax in axes[:, 1:].ravel():
        ax.set_ylabel("")
    return figure


@styled
def plot_families(probed: Probed, ax: Axes | None = None) -> Axes:
    """The strongest answer to each kind of made image."""
    ax = panel(probed, ax)
    names = [name for name in np.unique(probed.probes["family"]).tolist() if name not in ("blank", "surround", "contrast")]
    strongest = [probed.answers[probed.family(name)].max() for name in names]
    ax.vlines(range(len(names)), probed.blank, strongest, color=GREY, linewidth=1)
    ax.plot(range(len(names)), strongest, color=STUDENT, marker=STUDENT_MARKER, markersize=4, linestyle="none")
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_title("strongest answer to\neach kind of image", loc="left")
    return ax


@styled
def plot_orientations(probed: Probed, ax: Axes | None = None) -> Axes:
    """Gratings of the best wavelength: the mean over phases (line) and its range (band); a complex cell has a narrow band."""
    grey = probed.family("grating") & (probed.probes["colour"] == "grey")
    ax = panel(probed, ax)
    ax.set(xlabel="orientation, degrees (0: horizontal)", xlim=(-8, 188))
    ax.set_xticks([0, 45, 90, 135, 180])
    if not grey.any():
        return _said(ax, "no grating was shown")
    shown = grey & probed.like(probed.best(grey), "wavelength_px")
    angle, answers = answers_over(probed, shown, "orientation_deg")
    angle, answers = np.append(angle, 180 + angle[0]), [*answers, answers[0]]
    ax.fill_between(angle, [some.min() for some in answers], [some.max() for some in answers], color=STUDENT, alpha=0.25, linewidth=0)
    ax.plot(angle, [some.mean() for some in answers], **LINE)
    wavelength, osi, f1_f0 = probed.probes["wavelength_px"][probed.best(grey)], number_of(probed, "osi"), number_of(probed, "f1_f0")
    ax.set_title(f"gratings of {wavelength:g} px (band: phases)\nOSI {osi}, F1/F0 {f1_f0}", loc="left")
    return ax


@styled
def plot_dots(probed: Probed, ax: Axes | None = None) -> Axes:
    """Bright and dark dots of growing diameter in the middle of the receptive field."""
    ax = panel(probed, ax)
    offset = np.hypot(probed.probes["row_offset_px"], probed.probes["column_offset_px"])
    ax.set(xlabel="diameter, px")
    centred = probed.family("dot") & (offset == 0)
    if not centred.any():
        return _said(ax, "no dot was shown")
    for polarity, look in ((1, LINE), (-1, {**LINE, "color": INK, "linestyle": "--", "marker": "s"})):
        size, answers = answers_over(probed, centred & (probed.probes["polarity"] == polarity), "size_px")
        ax.plot(size, [some.mean() for some in answers], **look)
    best, suppression = number_of(probed, "dot_px", "g"), number_of(probed, "size_suppression")
    ax.set_title(f"bright (●) and dark (■) dots\nbest {best} px, largest suppresses {suppression}", loc="left")
    return ax


@styled
def plot_sizes(probed: Probed, ax: Axes | None = None) -> Axes:
    """Gratings of the best orientation and wavelength in growing apertures."""
    ax, shown = panel(probed, ax), probed.family("surround")
    ax.set(xlabel="diameter, px")
    if not shown.any():
        return _said(ax, "no grating of several sizes\nwas shown")
    size, answers = answers_over(probed, shown & probed.like(probed.best_over_phases(shown), "orientation_deg", "wavelength_px"), "size_px")
    ax.plot(size, [some.mean() for some in answers], **LINE)
    ax.set_title(f"gratings of growing size\nlargest suppresses {number_of(probed, 'surround_suppression')}", loc="left")
    return ax


@styled
def plot_curves(probed: Probed, ax: Axes | None = None) -> Axes:
    """Curves that face different directions, of the best diameter and polarity."""
    ax, shown = panel(probed, ax), probed.family("curve")
    ax.set(xlabel="faces, degrees (0: right, 90: up)", xlim=(-15, 375))
    ax.set_xticks([0, 90, 180, 270, 360])
    if not shown.any():
        return _said(ax, "no curve was shown")
    best = probed.best(shown)
    angle, answers = answers_over(probed, shown & probed.like(best, "size_px", "polarity"), "orientation_deg")
    ax.plot(np.append(angle, 360 + angle[0]), [some.mean() for some in (*answers, answers[0])], **LINE)
    polarity = "bright" if probed.probes["polarity"][best] > 0 else "dark"
    size = probed.probes["size_px"][best]
    ax.set_title(f"{polarity} curves of {size:g} px\nselectivity {number_of(probed, 'curve_selectivity')}", loc="left")
    return ax


@styled
def plot_colours(probed: Probed, ax: Axes | None = None) -> Axes:
    """Coloured disks on the grey background, a bar from the blank screen to the answer; the first four are as bright as it."""
    ax, shown = panel(probed, ax), probed.family("colour")
    if not shown.any():
        return _said(ax, "no colour was shown")
    names = [name for name in COLOURS if name in probed.probes["colour"][shown]]
    sizes = np.unique(probed.probes["size_px"][shown])
    width, base = 0.8 / len(sizes), np.nan_to_num(probed.blank)
    for x, name in enumerate(names):
        colour = np.clip((GREY_LEVEL + np.array(COLOURS[name])) / 255, 0, 1)
        for k, size in enumerate(sizes):
            height = probed.answers[shown & (probed.probes["colour"] == name) & (probed.probes["size_px"] == size)].mean() - base
            left = x - 0.4 + k * width
            ax.bar(left, height, width, bottom=base, align="edge", color=colour, edgecolor=INK, linewidth=0.6)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_title("colours, disks of\n" + " and ".join(f"{size:g}" for size in sizes) + " px (left to right)", loc="left")
    return ax


PANELS: Sequence[Callable[[Probed, Axes], Axes]] = (
    plot_families, plot_orientations, plot_dots, plot_colours, plot_curves, plot_sizes,
)
"""Of the tuning figure, row by row."""


def panel(probed: Probed, ax: Axes | None) -> Axes:
    """Axes that hold every answer of the unit, so that all its curves are on one scale; dashed: the blank screen."""
    ax = axes_or_new(ax, PANEL_IN[1], PANEL_IN[0])
    low, high = float(probed.answers.min()), float(probed.answers.max())
    air = 0.06 * (high - low) or 0.5
    ax.set(ylim=(low - air, high + air), ylabel="answer, spikes")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    if np.isfinite(probed.blank):
        ax.axhline(probed.blank, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    return ax


def answers_over(
    probed: Probed, shown: Bool[np.ndarray, "stimulus"], name: str
) -> tuple[Float[np.ndarray, "value"], list[Float[np.ndarray, "_"]]]:
    """Values of a property, and the answers to the stimuli that have each."""
    values = np.unique(probed.probes[name][shown]).astype(float)
    return values, [probed.answers[shown & (probed.probes[name] == value)] for value in values]


def _said(ax: Axes, text: str) -> Axes:
    say_nothing_known(ax, text)
    return ax


def number_of(probed: Probed, name: str, form: str = ".2f") -> str:
    """An index of the unit, or "none"."""
    value = probed.tuning.get(name, np.nan)
    return f"{value:{form}}" if np.isfinite(value) else "none"


def _where(table: Table, rows: Bool[np.ndarray, "row"]) -> Table:
    return Table(table.description, {name: Column(column.meaning, column.values[rows]) for name, column in table.columns.items()})

"""Figures of one unit: where it looks by gradients and by sparse noise, and how its answer grows with contrast.

The same contract as `tuning_figures`.
"""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nwb_compact.interpretation.tables import Table
from nwb_compact_analysis.strips import say_nothing_known
from nwb_compact_analysis.style import PAGE_IN, axes_or_new, styled
from nwb_compact_analysis.tuning_figures import EXTENT_PX, LINE, Probed, answers_over, image_axes, number_of, panel

HEIGHT_IN = 1.65
PANEL_IN = 1.65


@styled
def field_figure(maps: Table, probed: Probed, dots_per_inch: int) -> Figure:
    """Gradient, bright squares, dark squares (on one scale) and contrast, of one unit."""
    figure = Figure(figsize=(PAGE_IN, HEIGHT_IN), dpi=dots_per_inch, layout="constrained")
    gradient, bright, dark, contrast = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.1])
    plot_gradient(maps, gradient)
    most = float(max(np.abs(maps["sparse_bright"][0]).max(), np.abs(maps["sparse_dark"][0]).max()))
    for ax, name in ((bright, "bright"), (dark, "dark")):
        plot_squares(maps, name, most, ax)
    plot_contrast(probed, contrast)
    return figure


@styled
def plot_gradient(maps: Table, ax: Axes | None = None) -> Axes:
    """How strongly the answer to natural images depends on each place, from 0 (white).

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> ax = plot_gradient(Table("", {"gradient_map": Column("", np.ones((1, 28, 28)))}))
    >>> ax.get_title(loc="left")
    'gradient (white: 0)'
    """
    gradient = maps["gradient_map"][0]
    ax = _map(gradient, "Greys", 0.0, float(gradient.max()), ax)
    ax.set(ylabel="px below the centre")
    ax.set_title("gradient (white: 0)", loc="left")
    return ax


@styled
def plot_squares(maps: Table, polarity: str, most: float, ax: Axes | None = None) -> Axes:
    """Answers to single squares: red above, blue below that to the blank screen; `most` spikes is the end of the scale.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> ax = plot_squares(Table("", {"sparse_dark": Column("", np.ones((1, 14, 14)))}), "dark", 1.5)
    >>> ax.get_title(loc="left")
    'dark squares (±1.50)'
    """
    ax = _map(maps[f"sparse_{polarity}"][0], "RdBu_r", -most, most, ax)
    ax.set_title(f"{polarity} squares (±{most:.2f})", loc="left")
    return ax


@styled
def plot_contrast(probed: Probed, ax: Axes | None = None) -> Axes:
    """Gratings of growing contrast, of the orientation and wavelength that are answered most at full contrast."""
    ax, shown = panel(probed, ax), probed.family("contrast")
    ax.set(xlabel="share of full contrast", xlim=(0, 1.05))
    if not shown.any():
        say_nothing_known(ax, "one contrast only\nwas shown")
        return ax
    best = probed.best_over_phases(shown & (probed.probes["contrast"] == probed.probes["contrast"][shown].max()))
    contrast, answers = answers_over(probed, shown & probed.like(best, "orientation_deg", "wavelength_px"), "contrast")
    ax.plot(contrast, [some.mean() for some in answers], **LINE)
    ax.set_title(f"contrast\nhalf of it at {number_of(probed, 'c50')}", loc="left")
    return ax


def _map(values: Float[np.ndarray, "row column"], colours: str, low: float, high: float, ax: Axes | None) -> Axes:
    ax = image_axes(axes_or_new(ax, PANEL_IN, PANEL_IN))
    if not np.isfinite(values).all() or not high > 0:
        say_nothing_known(ax, "nothing\nanswered")
        return ax
    ax.imshow(values, extent=EXTENT_PX, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    return ax

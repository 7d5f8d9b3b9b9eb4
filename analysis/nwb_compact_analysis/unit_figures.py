"""Figures that show one unit at a time, or a row a unit: filters, fit, preferred images.

The same contract as `figures`: values in, axes out, a figure only when no axes are given. `units` are rows of `results`
in the order in which they are to be drawn; what fits on one page is the caller's business (`style.chunks`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Integer
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nwb_compact.results import Results, disagreement, median
from nwb_compact.session import Pixels
from nwb_compact_analysis.made_image_figures import draw_image
from nwb_compact_analysis.style import GREY, PAGE_IN, STUDENT, TEACHER, axes_or_new, short_label, spikes_text, styled

LARGEST_FILTERS = 24
"""Filters shown of a unit's first layer; 24 pictures of 5 x 5 pixels are what a 7 in page shows large enough to read."""
EXTREMES = 5
"""Best and worst images shown of a unit."""
_FILTER_PX, _FILTER_PITCH_PX, _ROW_PITCH_PX = 5, 6, 8
_IMAGE_PITCH, _GROUP_GAP, _ROW_PITCH = 1.06, 0.5, 1.62  # in widths of one image


@styled
def plot_first_layer_filters(results: Results, units: Sequence[int], ax: Axes | None = None) -> Axes:
    """The first layer of each student as colour pictures: a row a unit, the filters with the largest norm first.

    Each picture is scaled by its own largest weight, symmetrically about grey: grey is zero, brighter than grey is positive
    in that colour, darker negative. At most `LARGEST_FILTERS` are shown; the number at the end of the row says of how many.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> ax = plot_first_layer_filters(example_results(), [0, 1])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['unit-1', 'unit-2']
    """
    kernels = [results.students[unit].arrays["layer1.kernel"] for unit in units]
    columns = min(LARGEST_FILTERS, max(12, *(len(kernel) for kernel in kernels))) if kernels else LARGEST_FILTERS
    ax = axes_or_new(ax, filters_height_in(len(units)), PAGE_IN)
    mosaic = np.ones((max(len(units), 1) * _ROW_PITCH_PX, columns * _FILTER_PITCH_PX, 3))
    centre = np.arange(len(units)) * _ROW_PITCH_PX + (_FILTER_PX - 1) / 2
    for row, kernel in enumerate(kernels):
        top = row * _ROW_PITCH_PX
        for column, picture in enumerate(filter_pictures(kernel)[:columns]):
            left = column * _FILTER_PITCH_PX
            mosaic[top : top + _FILTER_PX, left : left + _FILTER_PX] = picture
        text = f"{len(kernel)}" if len(kernel) <= columns else f"{columns} of {len(kernel)}"
        ax.text(columns * _FILTER_PITCH_PX, centre[row], text, va="center", color=GREY, fontsize=7)
    ax.imshow(mosaic, interpolation="nearest")
    ax.set_xlim(-1, columns * _FILTER_PITCH_PX + 14)
    ax.set_yticks(centre, [short_label(results.unit_name[unit], 20) for unit in units])
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def filters_height_in(n_units: int) -> float:
    """Height of the filter figure of so many units, inches."""
    return 0.25 + 0.285 * n_units


def filter_pictures(kernel: Float32[np.ndarray, "filter 3 5 5"]) -> Float[np.ndarray, "filter 5 5 3"]:
    """First-layer filters as RGB pictures in 0..1, largest norm first, zero weight at 0.5.

    Examples
    --------
    >>> kernel = np.zeros((2, 3, 5, 5), np.float32)
    >>> kernel[1, 0, 0, 0] = -3
    >>> filter_pictures(kernel)[:, 0, 0].tolist()
    [[0.0, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """
    order = np.argsort(-np.linalg.norm(kernel.reshape(len(kernel), -1), axis=1), kind="stable")
    largest = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(kernel, largest, out=np.zeros(kernel.shape, np.float64), where=largest > 0)
    return np.moveaxis(0.5 + 0.5 * scaled[order], 1, -1)


@styled
def plot_predicted_against_measured(results: Results, measured: Float[np.ndarray, "image unit"], unit: int, ax: Axes | None = None) -> Axes:
    """One unit on the scored images: the student's prediction (across) against the repeat average (up), both in spikes a window.

    Both axes have the same scale and the dashed line is where they agree, so a wrong gain or offset, which r2 does not see, shows.
    Where the run holds two members of the teacher or more, the bar on top left is their disagreement, one standard deviation to either
    side, the median over scored images: a bar at every point cannot be read in a session of hundreds of images.

    Parameters
    ----------
    results
        One fit.
    measured
        Repeat averages of every image, NaN where not measured; (image unit) as in `results`.
    unit
        Row of `results`.
    ax
        Where to draw; a new figure when not given.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> results = example_results()
    >>> plot_predicted_against_measured(results, results.teacher_prediction.astype(float), 0).get_ylabel()
    'measured'
    """
    ax = axes_or_new(ax, 1.9, 1.75)
    scored = np.asarray(results.side) == "scored"
    predicted, answer = results.student_prediction[scored, unit].astype(float), measured[scored, unit]
    known = np.isfinite(predicted) & np.isfinite(answer)
    predicted, answer = predicted[known], answer[known]
    low = min(0.0, predicted.min(initial=0), answer.min(initial=0))
    high = 1.05 * max(predicted.max(initial=0), answer.max(initial=0)) or 1.0
    ax.plot([low, high], [low, high], color=GREY, linewidth=0.6, linestyle="--", zorder=1)
    ax.scatter(predicted, answer, s=3, color=STUDENT, alpha=0.35, linewidth=0, zorder=2)
    _draw_disagreement(ax, results, unit, (low, high))
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="predicted", ylabel="measured")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=3))
    ax.set_title(f"{short_label(results.unit_name[unit], 16)}\n{_r2_text(results, unit)}", fontsize=7, loc="left", pad=3)
    return ax


@styled
def plot_best_and_worst_images(
    results: Results, pixels: Pixels, measured: Float[np.ndarray, "image unit"], units: Sequence[int], ax: Axes | None = None
) -> Axes:
    """The images each student answers most (left) and least (right), predicted and measured response below each; a row a unit.

    All images that the fit used compete. An asterisk marks those that were scored, that is, not used for fitting.

    Parameters
    ----------
    results
        One fit.
    pixels
        uint8, (image height width channel) or (image height width), in the order of `results.image_sha256`; read one by one.
    measured
        Repeat averages of every image, NaN where not measured; (image unit) as in `results`.
    units
        Rows of `results`, the first on top.
    ax
        Where to draw; a new figure when not given.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> results = example_results()
    >>> pixels = np.zeros((6, 8, 8), np.uint8)
    >>> len(plot_best_and_worst_images(results, pixels, results.teacher_prediction.astype(float), [0]).images)
    6
    """
    ax = axes_or_new(ax, images_height_in(len(units)), PAGE_IN)
    second_group = EXTREMES * _IMAGE_PITCH + _GROUP_GAP
    for row, unit in enumerate(units):
        top = row * _ROW_PITCH
        ax.text(0, top - 0.1, short_label(results.unit_name[unit], 60), fontsize=7.5, fontweight="bold", va="bottom")
        best, worst = extreme_images(np.where(results.is_used, results.student_prediction[:, unit], np.nan).astype(np.float32))
        for start, group in ((0.0, best), (second_group, worst)):
            for rank, image in enumerate(group):
                left = start + rank * _IMAGE_PITCH
                draw_image(ax, np.asarray(pixels[int(image)]), left, top)
                text = f"{spikes_text(float(results.student_prediction[image, unit]))} | {spikes_text(measured[image, unit])}"
                star = "*" if results.side[image] == "scored" else ""
                ax.text(left + 0.5, top + 1.04, text + star, ha="center", va="top", fontsize=7)
    for left, text in ((0.0, "strongest predicted response: predicted | measured"), (second_group, "weakest predicted response")):
        ax.text(left, -0.42, text, fontsize=7.5, va="bottom", color=GREY)
    ax.set(xlim=(-0.02, second_group + EXTREMES * _IMAGE_PITCH), ylim=(len(units) * _ROW_PITCH - 0.3, -0.62), aspect="equal")
    ax.set_axis_off()
    return ax


def images_height_in(n_units: int) -> float:
    """Height of the figure of best and worst images of so many units, inches."""
    width = 2 * EXTREMES * _IMAGE_PITCH + _GROUP_GAP
    return (n_units * _ROW_PITCH + 0.4) * (PAGE_IN - 0.1) / width


def extreme_images(predicted: Float32[np.ndarray, "image"]) -> tuple[Integer[np.ndarray, "best"], Integer[np.ndarray, "worst"]]:
    """Images with the strongest prediction, strongest first, and those with the weakest, weakest first; none is in both.

    Examples
    --------
    >>> best, worst = extreme_images(np.array([2.0, 9.0, 1.0, np.nan, 5.0], np.float32))
    >>> best.tolist(), worst.tolist()
    ([1, 4], [2, 0])
    """
    order = np.argsort(predicted, kind="stable")[: int(np.isfinite(predicted).sum())]
    n = min(EXTREMES, len(order) // 2)
    return order[::-1][:n], order[:n]


def _draw_disagreement(ax: Axes, results: Results, unit: int, limits: tuple[float, float]) -> None:
    """In the teacher's colour, since it is the teacher's and not the student's."""
    spread = disagreement(results, [unit])
    if spread is None:
        return
    typical = median(spread[np.asarray(results.side) == "scored", 0])
    low, high = limits
    if np.isfinite(typical):
        start, level = low + 0.05 * (high - low), low + 0.95 * (high - low)
        ax.plot([start, start + 2 * typical], [level, level], color=TEACHER, linewidth=1.0, marker="|", markersize=3.5, zorder=3)


def _r2_text(results: Results, unit: int) -> str:
    r2, corrected = results.scores["student_r2"][unit], results.scores["student_r2_er"][unit]
    raw = f"r² {r2:.2f}" if np.isfinite(r2) else "r² –"
    return f"{raw}, corr. {corrected:.2f}" if np.isfinite(corrected) else f"{raw}, corr. –"



"""The `vone` backbone: a fixed model of primary visual cortex, nothing in it trained.

The VOneBlock of Dapello et al. 2020 (NeurIPS), written from its description: Gabor filters with the orientations, spatial frequencies
and envelopes measured in macaque V1, then simple cells (rectified) and complex cells (the length of a quadrature pair). What is ours:

- Nothing is random after the seed, and the seed covers everything: the colour channel of a filter is drawn from it too.
- Both filters of a quadrature pair look at the same colour channel. Only then does a complex cell answer alike to every phase.
- No noise: features serve to predict mean responses.
- Images of any size are resized to 224 px first, so degrees of visual angle stay right; `visual_degrees` says how wide they were.
- The 56 x 56 map is averaged to 14 x 14. Sessions hold images of 112 px, whose teacher needs no finer map, and 512 x 56 x 56 maps
  (3.2 MB an image as float16, against 0.2 MB) do not fit a cache on disk.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Integer
from scipy.special import ndtr
from torch import Tensor, nn
from torch.nn import functional

from nwb_compact.errors import NwbCompactError

IMAGE_PX = 224
"""Side of the image that the filters see; larger and smaller ones are resized."""
KERNEL_PX = 25
"""Side of a filter. Wide envelopes are cut by it, as in the published block: the SD is more than half of this in 5 % of the filters of
images 8 degrees wide, in 31 % at 4 degrees."""
STRIDE_PX = 4
EXCITATION = 25.0
"""Gain of all cells (k_exc of the published block); no unit."""
COLOURS = 3
WIDTHS_DEG = (1.0, 100.0)
"""Image widths that make sense: outside, hardly one filter suits the pixels."""
TINY = 1e-30
"""Added to one filter of a pair so that the slope of its length is defined on an empty image; changes no other number."""

ORIENTATION_EDGES_DEG = (-22.5, 22.5, 67.5, 112.5, 157.5)
ORIENTATION_COUNTS = (66, 49, 77, 54)
"""Preferred orientations of macaque V1 cells (De Valois et al. 1982a, Vision Research 22:531)."""
FREQUENCY_EDGES_CPD = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
FREQUENCY_COUNTS = (4, 4, 8, 25, 32, 26, 28, 12)
"""Preferred spatial frequencies, cycles a degree (De Valois et al. 1982b, Vision Research 22:545)."""
ENVELOPE_EDGES = tuple(np.logspace(-1, 0.2, 6))
ENVELOPE_COUNTS = ((2, 0, 1, 0, 0), (8, 9, 4, 1, 0), (1, 2, 19, 17, 3), (0, 0, 1, 7, 4), (0, 0, 0, 0, 0))
"""Envelope SD x spatial frequency, across the stripes (rows) and along them (columns) (Ringach 2002b, J Neurophysiology 88:455)."""
ENVELOPE_FREQUENCY_CORRELATION = 0.75
"""Between the normal scores of nx and of spatial frequency, as in the published block."""


@dataclass(frozen=True, eq=False)
class Gabors:
    """What distinguishes the filters of a population."""

    orientation_rad: Float[np.ndarray, "filter"]
    """Direction across the stripes, 0 to pi: 0 is down the image, pi/2 to its right. De Valois et al. 1982a."""
    frequency_cpd: Float[np.ndarray, "filter"]
    """Cycles a degree of visual angle. De Valois et al. 1982b."""
    nx: Float[np.ndarray, "filter"]
    """SD of the envelope across the stripes, in periods of the grating. Ringach 2002b."""
    ny: Float[np.ndarray, "filter"]
    """SD of the envelope along the stripes, in periods of the grating. Ringach 2002b."""
    phase_rad: Float[np.ndarray, "filter"]
    """Of the cosine at the centre, 0 to 2 pi, uniform."""
    colour: Integer[np.ndarray, "filter"]
    """The one channel that a filter sees: 0 red, 1 green, 2 blue, alike likely. Sorted, so that a channel's filters lie together."""


class VOne(nn.Module):
    """Simple and complex cells of V1 on the images.

    Parameters
    ----------
    simple_cells, complex_cells
        Cells of each kind; the published block has 256 of each.
    seed
        Of everything that is drawn.
    visual_degrees
        Width of the images in degrees of visual angle. Frequencies above the Nyquist limit of 224 px in that width (beyond 14
        degrees) are not drawn.
    pool
        The map is averaged over squares of this side; a divisor of 56.

    Raises
    ------
    NwbCompactError
        If the width in degrees is outside `WIDTHS_DEG`.

    Examples
    --------
    >>> VOne(simple_cells=2, complex_cells=3)(torch.full((1, 3, 112, 112), 127.5)).shape
    torch.Size([1, 5, 14, 14])
    """

    def __init__(self, *, simple_cells: int = 256, complex_cells: int = 256, seed: int = 0, visual_degrees: float = 8.0, pool: int = 4):
        super().__init__()
        low, high = WIDTHS_DEG
        if not low <= visual_degrees <= high:
            expected, next_step = f"{low:g} to {high:g} degrees", "give the width of the images in degrees of visual angle"
            raise NwbCompactError("vone_visual_degrees", found=f"{visual_degrees:g}", expected=expected, next_step=next_step)
        px_per_deg, rng = IMAGE_PX / visual_degrees, np.random.default_rng(seed)
        self.simple_cells = gabor_parameters(simple_cells, rng, highest_cpd=px_per_deg / 2)
        self.complex_cells = gabor_parameters(complex_cells, rng, highest_cpd=px_per_deg / 2)
        self._visual_degrees, self._pool = visual_degrees, pool
        for colour in range(COLOURS):
            self.register_buffer(f"_simple_{colour}", _kernels(self.simple_cells, colour, px_per_deg, 0.0))
            pairs = [_kernels(self.complex_cells, colour, px_per_deg, shift) for shift in (0.0, np.pi / 2)]
            self.register_buffer(f"_complex_{colour}", torch.cat(pairs))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch cell row column"]:
        """Responses to RGB images in 0..255: all simple cells, then all complex cells.

        Raises
        ------
        NwbCompactError
            If the images are not square.
        """
        contrast = _seen(images) / 127.5 - 1
        return EXCITATION * torch.cat([*self._cells(contrast, "simple", torch.relu), *self._cells(contrast, "complex", _length)], dim=1)

    def extra_repr(self) -> str:
        """What weights do not tell: a cache of features asks for it."""
        return f"visual_degrees={self._visual_degrees:g}, pool={self._pool}"

    def _cells(self, contrast: Tensor, kind: str, answer: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Averaged maps of one kind of cell, a tensor a colour: convolved over all three, two thirds of the kernels would be zeros."""
        maps = []
        for colour in range(COLOURS):
            kernels = self.get_buffer(f"_{kind}_{colour}")
            if len(kernels):  # a small bank may have no filter of a colour, which torch refuses
                filtered = functional.conv2d(contrast[:, colour : colour + 1], kernels, stride=STRIDE_PX, padding=KERNEL_PX // 2)
                maps.append(functional.avg_pool2d(answer(filtered), self._pool))
        return maps


def gabor_parameters(n: int, rng: np.random.Generator, *, highest_cpd: float = FREQUENCY_EDGES_CPD[-1]) -> Gabors:
    """Filters drawn from what was measured in macaque V1 (see the fields of `Gabors`).

    Each value is drawn by inverting the cumulative histogram, linear within a bin on the axis of the histogram (degrees, log2 cycles
    a degree, log10 periods). nx and spatial frequency are correlated by a Gaussian copula: normal scores that correlate by 0.75 become the
    quantiles of both. ny is drawn from the cells that share the bin of nx.

    Parameters
    ----------
    n
        Filters.
    rng
        The one source of randomness.
    highest_cpd
        The part of the spatial frequencies above this is left out.

    Examples
    --------
    >>> gabor_parameters(2, np.random.default_rng(0)).frequency_cpd.round(1)
    array([2.9, 3.4])
    """
    orientation_deg = _quantile(rng.random(n), ORIENTATION_EDGES_DEG, ORIENTATION_COUNTS)
    orientation_deg = np.where(orientation_deg < 0, orientation_deg + 180, orientation_deg)
    envelope_score, own_score = rng.standard_normal((2, n))
    own_weight = np.sqrt(1 - ENVELOPE_FREQUENCY_CORRELATION**2)
    envelope_share, frequency_share = ndtr(envelope_score), ndtr(ENVELOPE_FREQUENCY_CORRELATION * envelope_score + own_weight * own_score)
    log_edges = np.log2(FREQUENCY_EDGES_CPD)
    kept = np.interp(np.log2(highest_cpd), log_edges, _cumulative(FREQUENCY_COUNTS))
    nx_counts = np.sum(ENVELOPE_COUNTS, axis=1)
    nx_bin = np.searchsorted(_cumulative(nx_counts), envelope_share, side="right") - 1
    ny_share, log_ny = rng.random(n), np.empty(n)
    for row in np.unique(nx_bin):
        log_ny[nx_bin == row] = _quantile(ny_share[nx_bin == row], np.log10(ENVELOPE_EDGES), ENVELOPE_COUNTS[row])
    return Gabors(
        orientation_rad=np.deg2rad(orientation_deg),
        frequency_cpd=2 ** _quantile(kept * frequency_share, log_edges, FREQUENCY_COUNTS),
        nx=10 ** _quantile(envelope_share, np.log10(ENVELOPE_EDGES), nx_counts),
        ny=10**log_ny,
        phase_rad=rng.uniform(0, 2 * np.pi, n),
        colour=np.sort(rng.integers(COLOURS, size=n)),
    )


def gabor(
    orientation_rad: float, frequency: float, nx: float, ny: float, phase_rad: float, *, size_px: int = KERNEL_PX
) -> Float[np.ndarray, "row column"]:
    """One Gabor filter: a cosine grating under a Gaussian whose integral is 1. Its mean is not removed.

    Parameters
    ----------
    orientation_rad
        Direction across the stripes: 0 down the image, pi/2 to its right.
    frequency
        Cycles a pixel.
    nx, ny
        SD of the Gaussian across and along the stripes, in periods.
    phase_rad
        Of the cosine at the middle pixel.
    size_px
        Side of the filter, odd.

    Examples
    --------
    >>> gabor(0.0, 0.25, 0.25, 0.25, 0.0, size_px=3).round(3)  # SD 1 px, a quarter of a period from the middle row to the next
    array([[0.   , 0.   , 0.   ],
           [0.097, 0.159, 0.097],
           [0.   , 0.   , 0.   ]])
    """
    offsets = np.arange(size_px) - size_px // 2
    row, column = np.meshgrid(offsets, offsets, indexing="ij")
    across = row * np.cos(orientation_rad) + column * np.sin(orientation_rad)
    along = column * np.cos(orientation_rad) - row * np.sin(orientation_rad)
    sd_across, sd_along = nx / frequency, ny / frequency
    envelope = np.exp(-((across / sd_across) ** 2 + (along / sd_along) ** 2) / 2) / (2 * np.pi * sd_across * sd_along)
    return envelope * np.cos(2 * np.pi * frequency * across + phase_rad)


def _seen(images: Tensor) -> Tensor:
    """The images at the size for which the filters are made."""
    height, width = images.shape[2:]
    if height != width:
        found, next_step = f"images of {height} x {width} px", "crop or pad them before the session is written"
        raise NwbCompactError("images", found=found, expected="square images", next_step=next_step)
    if height == IMAGE_PX:
        return images
    return functional.interpolate(images, size=(IMAGE_PX, IMAGE_PX), mode="bilinear", antialias=True)


def _length(pairs: Float[Tensor, "batch kernel row column"]) -> Float[Tensor, "batch cell row column"]:
    """Of quadrature pairs, all even filters before all odd ones."""
    even, odd = pairs.chunk(2, dim=1)
    return torch.hypot(even, odd + TINY) / 2**0.5


def _kernels(cells: Gabors, colour: int, px_per_deg: float, phase_shift_rad: float) -> Float32[Tensor, "kernel 1 row column"]:
    """The filters of the cells that see one colour, in the order of the cells."""
    kernels = [
        gabor(
            cells.orientation_rad[cell], cells.frequency_cpd[cell] / px_per_deg, cells.nx[cell], cells.ny[cell],
            cells.phase_rad[cell] + phase_shift_rad,
        )
        for cell in np.flatnonzero(cells.colour == colour)
    ]
    return torch.from_numpy(np.reshape(kernels, (-1, 1, KERNEL_PX, KERNEL_PX)).astype(np.float32))


def _quantile(share: np.ndarray, edges: np.ndarray | tuple[float, ...], counts: np.ndarray | tuple[int, ...]) -> np.ndarray:
    """The value below which a share of a histogram lies, linear within a bin."""
    return np.interp(share, _cumulative(counts), edges)


def _cumulative(counts: np.ndarray | tuple[int, ...]) -> np.ndarray:
    return np.append(0, np.cumsum(counts)) / np.sum(counts)

"""The first stage that all simulated neurons share: a few oriented, round and colour filters, rectified and locally pooled.

Like the early layers of the compact models of the study, this stage is the same for every neuron; what makes neurons
differ comes after it. A channel is one polarity of one filter, named:

    edge-fine-045.0     luminance rises towards 45 degrees (0 right, 90 up), every 22.5 degrees; likewise edge-coarse-...
    line-fine-bright-045.0, line-fine-dark-...   a line along 45 degrees, every 22.5 below 180; likewise line-coarse-...
    spot-bright, spot-dark                       centre against surround in luminance
    colour-red, colour-green, colour-blue, colour-yellow    one pole of an opponent pair, blurred

Maps have one value every `STRIDE_PX`; units are contrast: a black-white edge gives its edge channel about 1 before pooling.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Complex, Float, UInt8

STRIDE_PX = 2
POOL_SIGMA_PX = 2.0
"""Gaussian over which rectified responses are pooled, so that a channel tolerates shifts of a pixel or two."""
WAVELENGTH_PX = {"fine": 7.0, "coarse": 14.0}
SIGMA_PER_WAVELENGTH = 0.4
"""Envelope of a Gabor filter: about 1.3 octaves of bandwidth, in the range of V1 cells (De Valois et al. 1982)."""
SPOT_SIGMA_PX = (1.5, 3.0)
COLOUR_SIGMA_PX = 2.5
LUMINANCE = np.array([0.299, 0.587, 0.114])
OPPONENT = {"red-green": np.array([1.0, -1.0, 0.0]), "blue-yellow": np.array([-0.5, -0.5, 1.0])}
OPPONENT_GAIN = 3.0
"""Natural chroma is several times weaker than natural luminance contrast; cones' opponent cells make up for it."""
_COLOUR_POLES = {"red": ("red-green", 1), "green": ("red-green", -1), "blue": ("blue-yellow", 1), "yellow": ("blue-yellow", -1)}

DIRECTIONS_DEG = tuple(22.5 * step for step in range(16))
ORIENTATIONS_DEG = DIRECTIONS_DEG[:8]
CHANNELS = (
    *(f"edge-{scale}-{angle:05.1f}" for scale in WAVELENGTH_PX for angle in DIRECTIONS_DEG),
    *(f"line-{scale}-{sign}-{angle:05.1f}" for scale in WAVELENGTH_PX for sign in ("bright", "dark") for angle in ORIENTATIONS_DEG),
    "spot-bright", "spot-dark", *(f"colour-{pole}" for pole in _COLOUR_POLES),
)

Maps = Float[np.ndarray, "image row column"]
Planes = Float[np.ndarray, "image height width"]


def channel_maps(images: UInt8[np.ndarray, "image height width 3"], channels: Sequence[str]) -> dict[str, Maps]:
    """Rectified, pooled responses of some channels.

    Parameters
    ----------
    images
        RGB, 0 to 255.
    channels
        Names out of `CHANNELS`; only these are computed.

    Returns
    -------
    dict
        One (image row column) map a channel, at every second pixel: entry (i, j) looks at pixel (2 i + 0.5, 2 j + 0.5).

    Raises
    ------
    KeyError
        If a channel does not exist.

    Examples
    --------
    >>> brighter_to_the_right = np.zeros((1, 32, 32, 3), np.uint8)
    >>> brighter_to_the_right[:, :, 16:] = 255
    >>> maps = channel_maps(brighter_to_the_right, ["edge-fine-000.0", "edge-fine-180.0"])
    >>> [round(float(response[0, 8].max()), 1) for response in maps.values()]
    [0.5, 0.1]
    """
    for channel in channels:
        if channel not in CHANNELS:
            raise KeyError(f"no channel {channel!r}; the names are in nwb_compact.simulated_filters.CHANNELS")
    scaled = images / 255.0
    linear = _LinearResponses(scaled)
    pool = [_blur_matrix(size // STRIDE_PX, POOL_SIGMA_PX / STRIDE_PX, 1) for size in images.shape[1:3]]
    return {channel: _filtered(np.maximum(linear.of(channel), 0), *pool) for channel in dict.fromkeys(channels)}


class _LinearResponses:
    """Signed filter responses to a few images, each filter computed once however many channels read it."""

    def __init__(self, scaled: Float[np.ndarray, "image height width 3"]):
        self._scaled = scaled
        self._luminance: Planes = scaled @ LUMINANCE
        self._kept: dict[tuple[str, ...], np.ndarray] = {}

    def of(self, channel: str) -> Maps:
        family, *rest = channel.split("-")
        if family == "spot":
            return self._spot() * (1 if rest[0] == "bright" else -1)
        if family == "colour":
            axis, sign = _COLOUR_POLES[rest[0]]
            return sign * _smoothed(OPPONENT_GAIN * self._scaled @ OPPONENT[axis], COLOUR_SIGMA_PX)
        angle = float(rest[-1])
        if family == "edge":  # opposite directions are the two signs of one filter
            return self._gabor(rest[0], angle % 180).imag * (1 if angle < 180 else -1)
        return self._gabor(rest[0], (angle + 90) % 180).real * (1 if rest[1] == "bright" else -1)

    def _gabor(self, scale: str, angle_deg: float) -> Complex[np.ndarray, "image row column"]:
        key = (scale, str(angle_deg))
        if key not in self._kept:
            self._kept[key] = _gabor(self._luminance, WAVELENGTH_PX[scale], np.deg2rad(angle_deg))
        return self._kept[key]

    def _spot(self) -> Maps:
        if ("spot",) not in self._kept:
            centre, surround = (_smoothed(self._luminance, sigma) for sigma in SPOT_SIGMA_PX)
            self._kept["spot",] = 2 * (centre - surround)
        return self._kept["spot",]


def _gabor(planes: Planes, wavelength_px: float, angle: float) -> Complex[np.ndarray, "image row column"]:
    """Quadrature pair of one direction: real part even (lines across it), imaginary part odd (edges that rise along it).

    A Gabor filter with a round envelope is the product of a complex filter along rows and one along columns. The even
    part loses its mean, so that a grey field gives nothing.
    """
    sigma = SIGMA_PER_WAVELENGTH * wavelength_px
    frequency = 2 * np.pi / wavelength_px
    row_filter = _filter_matrix(planes.shape[1], sigma, -frequency * np.sin(angle))  # rows count downwards
    column_filter = _filter_matrix(planes.shape[2], sigma, frequency * np.cos(angle))
    paired = _filtered(planes, row_filter, column_filter)
    paired -= np.exp(-((frequency * sigma) ** 2) / 2) * _smoothed(planes, sigma)
    return paired / _step_response(sigma, frequency)


def _step_response(sigma: float, frequency: float) -> float:
    """What a unit step gives the odd filter: the integral of a Gaussian x sine over one half line."""
    distance = np.linspace(0, 6 * sigma, 2001)
    density = np.exp(-(distance**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi)) * np.sin(frequency * distance)
    return float(density.sum() * (distance[1] - distance[0]))


def _smoothed(planes: Planes, sigma_px: float) -> Maps:
    return _filtered(planes, *(_blur_matrix(size, sigma_px, STRIDE_PX) for size in planes.shape[1:]))


def _filtered(
    planes: Planes, rows: np.ndarray, columns: np.ndarray
) -> Float[np.ndarray, "image row column"] | Complex[np.ndarray, "image row column"]:
    """Of each plane rows @ plane @ columns.T, in one product for all: threads that share many small ones mostly wait for each other."""
    along_columns = np.tensordot(planes, columns, axes=(2, 1))
    return np.moveaxis(np.tensordot(rows, along_columns, axes=(1, 1)), 1, 0)


def _blur_matrix(size: int, sigma: float, stride: int) -> Float[np.ndarray, "output input"]:
    return _filter_matrix(size, sigma, 0.0, stride).real


def _filter_matrix(size: int, sigma: float, frequency: float, stride: int = STRIDE_PX) -> Complex[np.ndarray, "output input"]:
    """Gaussian x complex exponential as a matrix, mirrored at the border so that no frame appears around an image."""
    reach = int(np.ceil(3.5 * sigma)) + 1
    centres = np.arange(size // stride) * stride + (stride - 1) / 2
    inputs = np.floor(centres)[:, None].astype(int) + np.arange(-reach, reach + 1)
    offsets = inputs - centres[:, None]
    envelope = np.exp(-(offsets**2) / (2 * sigma**2))
    weights = envelope / envelope.sum(axis=1, keepdims=True) * np.exp(1j * frequency * offsets)
    period = 2 * size
    mirrored = np.minimum(inputs % period, period - 1 - inputs % period)
    matrix = np.zeros((len(centres), size), complex)
    np.add.at(matrix, (np.arange(len(centres))[:, None], mirrored), weights)
    return matrix

"""Images with the statistics of natural ones, made from random numbers alone: no download, no licence to ask for.

Three kinds, mixed in every set: occluding leaves whose sizes follow a power law, textures with a 1/f spectrum, and
objects on a blurred background. Each image has its own random stream, so a longer set starts with the shorter one.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy import ndimage

KINDS = ("dead leaves", "objects", "texture")
KIND_CYCLE = ("dead leaves", "objects", "texture", "dead leaves", "objects")
"""Kind of image i is entry i modulo 5: occlusion and objects make the structure that V4 answers, so they prevail."""

Grey = Float[np.ndarray, "height width"]
Colour = Float[np.ndarray, "height width 3"]


def natural_images(n: int, *, seed: int, size_px: int = 112) -> UInt8[np.ndarray, "image height width 3"]:
    """Make `n` different RGB images.

    Parameters
    ----------
    n
        How many images.
    seed
        Image i depends on `seed` and i only, so `natural_images(5, seed=1)` starts `natural_images(9, seed=1)`.
    size_px
        Height and width, pixels. 112 is what the study's models take (see docs/methods.md).

    Returns
    -------
    UInt8[np.ndarray, "image height width 3"]
        Mean about 110; the amplitude spectrum falls about as 1 / spatial frequency.

    Notes
    -----
    Dead leaves with disk radii r drawn from r^-3 have scale-invariant statistics (Lee, Mumford & Huang 2001, Occlusion
    models for natural images); natural amplitude spectra fall as 1/f (Field 1987). Colours follow a luminance axis with
    two weak opponent axes (Ruderman, Cronin & Chiao 1998).

    Examples
    --------
    >>> images = natural_images(3, seed=0, size_px=32)
    >>> images.shape, [natural_image_kind(index) for index in range(3)]
    ((3, 32, 32, 3), ['dead leaves', 'objects', 'texture'])
    """
    images = np.empty((n, size_px, size_px, 3), np.uint8)
    for index in range(n):
        images[index] = _one_image(natural_image_kind(index), np.random.default_rng([seed, index]), size_px)
    return images


def natural_image_kind(index: int) -> str:
    """Which of `KINDS` image `index` of any set is.

    Examples
    --------
    >>> natural_image_kind(0), natural_image_kind(5)
    ('dead leaves', 'dead leaves')
    """
    return KIND_CYCLE[index % len(KIND_CYCLE)]


def _one_image(kind: str, rng: np.random.Generator, size_px: int) -> UInt8[np.ndarray, "height width 3"]:
    scene = _SCENES[kind](rng, size_px)
    return _exposed(scene, rng)


def _exposed(scene: Colour, rng: np.random.Generator) -> UInt8[np.ndarray, "height width 3"]:
    """Brightness, contrast and light colour of one photograph: these vary more between images than within one."""
    luminance = scene.mean(axis=2)
    mean = np.clip(rng.normal(110, 18), 70, 150)
    contrast = np.clip(rng.lognormal(np.log(42), 0.25), 20, 70)
    gain = contrast / (luminance.std() + 1e-6)
    chroma = (scene - luminance[..., None]) * min(gain, MOST_CHROMA_GAIN)  # fog hides luminance, it does not make neon colours
    balanced = (luminance[..., None] - luminance.mean()) * gain + mean + chroma
    light = 1 + rng.normal(0, 0.05) * np.array([1.0, 0.0, -1.0])
    return np.clip(np.rint(balanced * light), 0, 255).astype(np.uint8)


MOST_CHROMA_GAIN = 170.0
"""Grey levels (0 to 255) per unit of surface colour (0 to 1)."""

# Scenes: grey level about 0 to 1, any contrast ---------------------------------------------------------------------


def _dead_leaves(rng: np.random.Generator, size_px: int) -> Colour:
    leaf = _leaf_map(rng, size_px)
    n_leaves = int(leaf.max()) + 1
    colours = _colours(rng, n_leaves)
    rows, columns = _pixel_grid(size_px)
    slope = rng.normal(0, 0.12, (n_leaves, 2)) / size_px
    shading = 1 + slope[leaf, 0] * (rows - size_px / 2) + slope[leaf, 1] * (columns - size_px / 2)
    roughness = np.abs(rng.normal(0, 0.04, n_leaves))
    surface = shading[..., None] * colours[leaf] + (roughness[leaf] * _one_over_f(rng, size_px))[..., None]
    return _blurred(surface, 0.35)  # a lens: no edge of a photograph is sharper than this


def _leaf_map(rng: np.random.Generator, size_px: int) -> Int[np.ndarray, "height width"]:
    """Which leaf is seen at each pixel. Later leaves lie on top; the first covers everything."""
    leaf = np.zeros((size_px, size_px), np.int64)
    smallest, largest = np.exp(rng.uniform(np.log(1.8), np.log(9.0))), 0.45 * size_px  # foliage near or far
    leaf_area = 2 * np.pi * np.log(largest / smallest) / (smallest**-2 - largest**-2)
    n_leaves = int(3 * (1.3 * size_px) ** 2 / leaf_area)  # each place is covered three times on average
    radii = _power_law_radii(rng, n_leaves, smallest=smallest, largest=largest)
    centres = rng.uniform(-0.15, 1.15, (n_leaves, 2)) * size_px  # the margin of 1.3 above
    aspects = np.exp(rng.normal(0, 0.35, n_leaves))
    angles = rng.uniform(0, np.pi, n_leaves)
    is_square = rng.random(n_leaves) < 0.25
    for index in range(n_leaves):
        _stamp(leaf, index + 1, centres[index], radii[index], aspects[index], angles[index], is_square[index])
    return np.unique(leaf, return_inverse=True)[1].reshape(leaf.shape)


def _power_law_radii(rng: np.random.Generator, n: int, *, smallest: float, largest: float) -> Float[np.ndarray, "leaf"]:
    """Radii with density r^-3 between two bounds, by inversion of the cumulative distribution."""
    uniform = rng.random(n)
    return (smallest**-2 - uniform * (smallest**-2 - largest**-2)) ** -0.5


def _stamp(leaf: Int[np.ndarray, "height width"], index: int, centre: Float[np.ndarray, "2"], radius: float,
           aspect: float, angle: float, is_square: bool | np.bool_) -> None:
    """Write `index` where one ellipse or rectangle covers the map."""
    reach = radius * max(aspect, 1 / aspect) * (1.5 if is_square else 1.0) + 1
    top, left = np.maximum(np.floor(centre - reach), 0).astype(int)
    bottom, right = np.minimum(np.ceil(centre + reach) + 1, leaf.shape).astype(int)
    if top >= bottom or left >= right:
        return
    rows = np.arange(top, bottom)[:, None] - centre[0]
    columns = np.arange(left, right)[None, :] - centre[1]
    along = (rows * np.cos(angle) + columns * np.sin(angle)) / (radius * aspect)
    across = (columns * np.cos(angle) - rows * np.sin(angle)) / (radius / aspect)
    inside = np.maximum(np.abs(along), np.abs(across)) < 0.9 if is_square else along**2 + across**2 < 1
    leaf[top:bottom, left:right][inside] = index


def _texture(rng: np.random.Generator, size_px: int) -> Colour:
    """1/f noise, often stretched along one orientation or folded into ridges, with weaker noise of its own in colour."""
    stretch = np.exp(abs(rng.normal(0, 0.6)))
    angle = rng.uniform(0, np.pi)
    grey = _one_over_f(rng, size_px, slope=rng.normal(1.15, 0.15), stretch=stretch, angle=angle)
    if rng.random() < 0.4:
        grey = np.abs(grey) * 1.6  # folds give ridges: as in bark, water or cloth
    red_green, blue_yellow = (_one_over_f(rng, size_px, slope=1.2) for _ in range(2))
    base = _colours(rng, 1, saturation=0.6)[0]
    return base + 0.15 * (grey[..., None] + 0.22 * red_green[..., None] * RED_GREEN + 0.3 * blue_yellow[..., None] * BLUE_YELLOW)


def _objects(rng: np.random.Generator, size_px: int) -> Colour:
    """A few things in focus on a background that is not."""
    background = _texture(rng, size_px) if rng.random() < 0.5 else _dead_leaves(rng, size_px)
    scene = _blurred(background, rng.uniform(0.3, 1.8)) * 0.8 + 0.1
    for _ in range(rng.integers(2, 7)):
        _paint(scene, _SHAPES[rng.integers(len(_SHAPES))](rng, size_px), rng)
    return scene


def _paint(scene: Colour, alpha: Grey, rng: np.random.Generator) -> None:
    """Lay one shaded, slightly textured surface over the scene where `alpha` says so."""
    size_px = scene.shape[0]
    rows, columns = _pixel_grid(size_px)
    slope = rng.normal(0, 0.35, 2) / size_px
    colour = _colours(rng, 1, saturation=1.3)[0]
    shading = 1 + slope[0] * (rows - size_px / 2) + slope[1] * (columns - size_px / 2)
    roughness = abs(rng.normal(0, 0.05)) * (rng.random() < 0.5)
    surface = shading[..., None] * colour + (roughness * _one_over_f(rng, size_px))[..., None]
    scene += alpha[..., None] * (surface - scene)


# Shapes: opacity 0 to 1 of one object ------------------------------------------------------------------------------


def _blob(rng: np.random.Generator, size_px: int) -> Grey:
    """A closed smooth outline: a circle with a few harmonics, as fruit, heads or stones have."""
    distance, angle = _polar(rng, size_px)
    outline = np.ones_like(angle)
    for harmonic in range(2, 6):
        outline = outline + rng.normal(0, 0.35 / harmonic) * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    return _soft(rng.uniform(0.08, 0.28) * size_px * np.maximum(outline, 0.15) - distance)


def _dots(rng: np.random.Generator, size_px: int) -> Grey:
    """One disk, or a few of one size, as berries, eyes or lights are."""
    radius = rng.uniform(2.5, 9)
    disks = [_soft(radius - _polar(rng, size_px)[0]) for _ in range(rng.integers(1, 6))]
    return np.max(disks, axis=0)


def _edge(rng: np.random.Generator, size_px: int) -> Grey:
    """A bar from thin twig to horizon."""
    distance, angle = _polar(rng, size_px)
    across = distance * np.cos(angle - rng.uniform(0, np.pi))
    return _soft(np.exp(rng.uniform(np.log(1.5), np.log(0.5 * size_px))) - np.abs(across))


def _arc(rng: np.random.Generator, size_px: int) -> Grey:
    """Part of a ring."""
    distance, angle = _polar(rng, size_px)
    ring = rng.uniform(1.5, 4) - np.abs(distance - rng.uniform(6, 0.3 * size_px))
    return _soft(ring) * (np.cos(angle - rng.uniform(0, 2 * np.pi)) > rng.uniform(-1, 0.3))


def _soft(inside_px: Grey) -> Grey:
    """Opacity from the signed distance to an outline: the edge takes about one pixel, so it does not alias."""
    return np.clip(0.5 + inside_px, 0, 1)


def _polar(rng: np.random.Generator, size_px: int) -> tuple[Grey, Grey]:
    """Distance (pixels) and angle about a random centre."""
    rows, columns = _pixel_grid(size_px)
    row, column = rng.uniform(0.1, 0.9, 2) * size_px
    return np.hypot(rows - row, columns - column), np.arctan2(rows - row, columns - column)


# Parts that all scenes share ---------------------------------------------------------------------------------------

RED_GREEN = np.array([1.0, -0.7, -0.3])
BLUE_YELLOW = np.array([-0.5, -0.4, 0.9])
"""Directions of the two chromatic axes in RGB. Natural colours vary along them several times less than in luminance."""


def _colours(rng: np.random.Generator, n: int, saturation: float = 1.0) -> Float[np.ndarray, "colour 3"]:
    """Random surface colours: luminance first, most of them dull and a few vivid (Laplace)."""
    luminance = np.clip(rng.normal(0.43, 0.2, (n, 1)), 0.03, 1)
    red_green, blue_yellow = rng.laplace(0, saturation * 0.11, (n, 1)), rng.laplace(0, saturation * 0.15, (n, 1))
    return np.clip(luminance * (1 + np.clip(red_green, -0.7, 0.7) * RED_GREEN + np.clip(blue_yellow, -0.7, 0.7) * BLUE_YELLOW), 0, 1.2)


def _one_over_f(rng: np.random.Generator, size_px: int, *, slope: float = 1.0, stretch: float = 1.0, angle: float = 0.0) -> Grey:
    """Gaussian noise whose amplitude falls as 1 / frequency^slope; mean 0, standard deviation 1."""
    vertical, horizontal = np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None, :]
    along = vertical * np.cos(angle) + horizontal * np.sin(angle)
    across = horizontal * np.cos(angle) - vertical * np.sin(angle)
    frequency = np.hypot(along * stretch, across / stretch)
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size_px, size_px))) / frequency**slope, s=(size_px, size_px))
    return noise / noise.std()


def _blurred(scene: Colour, sigma_px: float) -> Colour:
    blurred: Colour = ndimage.gaussian_filter(scene, (sigma_px, sigma_px, 0), mode="nearest")
    return blurred


def _pixel_grid(size_px: int) -> tuple[Grey, Grey]:
    rows, columns = np.mgrid[:size_px, :size_px].astype(float)
    return rows, columns


Scene = Callable[[np.random.Generator, int], np.ndarray]
_SCENES: dict[str, Scene] = {"dead leaves": _dead_leaves, "texture": _texture, "objects": _objects}
_SHAPES: tuple[Scene, ...] = (_blob, _blob, _dots, _dots, _edge, _arc)

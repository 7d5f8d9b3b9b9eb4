import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwb_compact.simulated_filters import CHANNELS, DIRECTIONS_DEG, channel_maps

ROWS, COLUMNS = np.mgrid[:64, :64] - 31.5


def as_rgb(grey):
    return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[None, ..., None], 3, axis=3)


def step(direction_deg):
    """Brighter towards one direction; 90 is up."""
    angle = np.deg2rad(direction_deg)
    return as_rgb(127 + 100 * np.clip(COLUMNS * np.cos(angle) - ROWS * np.sin(angle), -0.5, 0.5))


def at_centre(maps):
    return {channel: float(response[0, 14:18, 14:18].max()) for channel, response in maps.items()}


@pytest.mark.parametrize("scale", ["fine", "coarse"])
@pytest.mark.parametrize("direction", DIRECTIONS_DEG)
def test_an_edge_drives_the_edge_channel_of_its_direction_most(scale, direction):
    responses = at_centre(channel_maps(step(direction), [f"edge-{scale}-{angle:05.1f}" for angle in DIRECTIONS_DEG]))
    assert max(responses, key=responses.get) == f"edge-{scale}-{direction:05.1f}"


@pytest.mark.parametrize("orientation", [0.0, 45.0, 90.0, 135.0])
@pytest.mark.parametrize(("sign", "level"), [("bright", 200), ("dark", 20)])
def test_a_line_drives_the_line_channel_of_its_orientation_and_sign_most(orientation, sign, level):
    angle = np.deg2rad(orientation)
    across = COLUMNS * np.sin(angle) + ROWS * np.cos(angle)
    line = as_rgb(110 + (level - 110) * np.clip(2 - np.abs(across), 0, 1))
    names = [name for name in CHANNELS if name.startswith("line-fine")]
    responses = at_centre(channel_maps(line, names))
    assert max(responses, key=responses.get) == f"line-fine-{sign}-{orientation:05.1f}"


@pytest.mark.parametrize(("rgb", "pole"), [((160, 90, 110), "red"), ((70, 140, 110), "green"), ((100, 100, 180), "blue"),
                                           ((140, 140, 60), "yellow")])
def test_a_coloured_field_drives_its_pole_most(rgb, pole):
    field = np.full((1, 32, 32, 3), rgb, np.uint8)
    responses = {channel: maps.mean() for channel, maps in channel_maps(field, [name for name in CHANNELS if "colour" in name]).items()}
    assert max(responses, key=responses.get) == f"colour-{pole}"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 255))
def test_a_grey_field_drives_nothing(level):
    maps = channel_maps(np.full((1, 32, 32, 3), level, np.uint8), CHANNELS)
    assert max(response.max() for response in maps.values()) < 1e-3


def test_maps_agree_with_a_filter_written_out_pixel_by_pixel():
    """Independent oracle for one odd filter: an explicit double loop over a two-dimensional kernel."""
    image = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3), np.uint8)
    luminance = image[0] / 255.0 @ [0.299, 0.587, 0.114]
    sigma, frequency, reach = 0.4 * 7, 2 * np.pi / 7, 14
    offsets = np.arange(-reach, reach) + 0.5
    down, right = np.meshgrid(offsets, offsets, indexing="ij")
    envelope = np.exp(-(down**2 + right**2) / (2 * sigma**2))
    kernel = envelope / envelope.sum() * np.sin(frequency * (right * np.cos(np.pi / 4) - down * np.sin(np.pi / 4)))
    distance = np.linspace(0, 6 * sigma, 4001)
    density = np.exp(-(distance**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
    unit_step = np.trapezoid(density * np.sin(frequency * distance), distance)
    padded = np.pad(luminance, reach, mode="symmetric")
    places = [2 * index + 0.5 for index in range(24)]
    windows = [[padded[int(row + 0.5):int(row + 0.5) + 2 * reach, int(column + 0.5):int(column + 0.5) + 2 * reach] for column in places]
               for row in places]
    rectified = np.maximum(np.array([[(window * kernel).sum() for window in line] for line in windows]) / unit_step, 0)
    pool = np.exp(-((np.arange(24)[:, None] - np.arange(24)) ** 2) / 2)[6:18]
    pool /= pool.sum(axis=1, keepdims=True)
    found = channel_maps(image, ["edge-fine-045.0"])["edge-fine-045.0"][0, 6:18, 6:18]
    np.testing.assert_allclose(found, pool @ rectified @ pool.T, atol=2e-3 * rectified.max())


def test_an_unknown_channel_is_named():
    with pytest.raises(KeyError, match=r"no channel 'edge-medium-000\.0'; the names are in nwb_compact\.simulated_filters\.CHANNELS"):
        channel_maps(np.zeros((1, 32, 32, 3), np.uint8), ["edge-medium-000.0"])

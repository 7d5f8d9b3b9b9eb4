import numpy as np
import pytest

from nwb_compact.interpretation.stimuli import APERTURE_PX, COLOURS, GREY, RMS_CONTRAST, Stimulus, battery, columns_of, drawn

MIDDLE = slice(56 - 16, 56 + 16)


def one(stimulus, **place):
    return drawn([stimulus], **place)[0].astype(float)


def test_no_stimulus_is_in_the_battery_twice():
    written = [repr(stimulus) for stimulus in battery()]
    assert len(set(written)) == len(written)


def test_every_stimulus_but_the_blank_shows_something_and_none_touches_the_corners():
    images = drawn(battery())
    for stimulus, image in zip(battery(), images, strict=True):
        assert (image != GREY).any() == (stimulus.family != "blank"), stimulus
        if not (stimulus.family == "surround" and stimulus.size_px > 90):
            assert (image[:4, :4] == GREY).all(), stimulus


@pytest.mark.parametrize("orientation", [0.0, 45.0, 90.0, 165.0])
def test_a_grating_varies_across_its_orientation_and_not_along_it(orientation):
    """The strongest Fourier component points across the stripes, counted counter-clockwise while rows count downwards."""
    image = one(Stimulus("grating", orientation, 10.0, 0.0, APERTURE_PX))[:, :, 0] - GREY
    power = np.abs(np.fft.fftshift(np.fft.fft2(image))) ** 2
    row, column = np.unravel_index(power.argmax(), power.shape)
    across = np.rad2deg(np.arctan2(-(row - 56), column - 56))
    assert abs((across - (orientation + 90) + 90) % 180 - 90) < 3
    assert np.hypot(row - 56, column - 56) == pytest.approx(112 / 10, abs=1)


@pytest.mark.parametrize("stimulus", [
    Stimulus("grating", 30.0, 10.0, 90.0, 64.0), Stimulus("edge", 30.0, size_px=64.0),
    Stimulus("lines", 30.0, 10.0, size_px=64.0, second_orientation_deg=75.0),
])
def test_what_fills_the_aperture_has_the_same_contrast(stimulus):
    inside = one(stimulus)[MIDDLE, MIDDLE, 0]
    assert inside.std() / GREY == pytest.approx(RMS_CONTRAST, rel=0.1)
    assert inside.mean() == pytest.approx(GREY, rel=0.05)


@pytest.mark.parametrize(("direction", "bright"), [(0.0, (56, 80)), (90.0, (32, 56)), (180.0, (56, 32)), (270.0, (80, 56))])
def test_an_edge_is_bright_on_the_side_it_faces(direction, bright):
    image = one(Stimulus("edge", direction, size_px=APERTURE_PX))[:, :, 0]
    assert image[bright] > GREY > image[112 - bright[0], 112 - bright[1]]


@pytest.mark.parametrize(("direction", "outline"), [(0.0, (56, 61)), (90.0, (51, 56)), (225.0, (59, 53))])
def test_a_curve_is_strongest_at_the_side_it_faces_and_fades_away_from_it(direction, outline):
    image = np.abs(one(Stimulus("curve", direction, size_px=16.0, polarity=-1.0))[:, :, 0] - GREY)
    opposite = image[111 - outline[0], 111 - outline[1]]
    assert image[outline] > 5 * opposite


def test_an_angle_points_where_it_faces():
    """A wedge that points to the right lies left of its corner."""
    image = np.abs(one(Stimulus("angle", 0.0, size_px=90.0, polarity=1.0))[:, :, 0] - GREY)
    assert image[:, :50].sum() > 20 * image[:, 62:].sum()
    assert image[56, 40] > 0
    assert image[30, 50] == 0, "outside a right angle"


@pytest.mark.parametrize("colour", ["red", "green", "blue", "yellow"])
def test_colours_have_the_luma_of_the_background(colour):
    assert np.array([0.299, 0.587, 0.114]) @ np.array(COLOURS[colour]) == pytest.approx(0, abs=0.2)
    patch = one(Stimulus("colour", size_px=40.0, colour=colour))[56, 56]
    np.testing.assert_allclose(patch - GREY, COLOURS[colour], atol=0.51)


def test_dots_cover_their_area_and_lie_where_they_should():
    dot = one(Stimulus("dot", size_px=20.0, polarity=-1.0, row_offset_px=10.0), row_px=-6.0, column_px=8.0)[:, :, 0]
    dark = (GREY - dot) / (GREY - dot.min())
    assert dark.sum() == pytest.approx(np.pi * 100, rel=0.02)
    rows, columns = np.indices(dot.shape)
    assert (dark * rows).sum() / dark.sum() == pytest.approx(55.5 + 4, abs=0.05)
    assert (dark * columns).sum() / dark.sum() == pytest.approx(55.5 + 8, abs=0.05)


def test_bars_have_their_width_and_lie_along_their_orientation():
    bar = one(Stimulus("bar", 90.0, size_px=6.0, polarity=1.0))[:, :, 0] - GREY
    assert bar[56].sum() / bar.max() == pytest.approx(6, abs=0.1)
    assert (bar[:, 56] > 0).sum() == pytest.approx(64, abs=2)


def test_columns_say_what_each_stimulus_is():
    columns = columns_of([Stimulus("blank"), Stimulus("dot", size_px=8.0, polarity=-1.0)])
    assert columns["family"].values.tolist() == ["blank", "dot"]
    np.testing.assert_array_equal(columns["size_px"].values, [np.nan, 8.0])
    assert all(column.meaning for column in columns.values())

import numpy as np
import pytest
import torch
from scipy import stats

from nwb_compact.errors import NwbCompactError
from nwb_compact.vone import VOne, gabor, gabor_parameters

# Published histograms, written down once more so that a slip of the pen in the module is seen.
ORIENTATION_EDGES_DEG, ORIENTATION_COUNTS = np.arange(-22.5, 160, 45), np.array([66, 49, 77, 54])
FREQUENCY_EDGES_CPD, FREQUENCY_COUNTS = np.array([0.5, 0.7, 1, 1.4, 2, 2.8, 4, 5.6, 8]), np.array([4, 4, 8, 25, 32, 26, 28, 12])
ENVELOPE_EDGES = 10 ** np.array([-1, -0.76, -0.52, -0.28, -0.04, 0.2])
ENVELOPE_COUNTS = np.array([[2, 0, 1, 0, 0], [8, 9, 4, 1, 0], [1, 2, 19, 17, 3], [0, 0, 1, 7, 4], [0, 0, 0, 0, 0]])
PX_PER_DEG = 28
INSIDE = slice(3, 53)
"""Rows and columns of the 56 x 56 map whose filters lie wholly in the image."""
NOISE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224)).astype(np.float32))


@pytest.fixture(scope="module")
def full() -> VOne:
    """The default bank before averaging."""
    return VOne(pool=1)


@pytest.fixture(scope="module")
def drawn():
    return gabor_parameters(20_000, np.random.default_rng(0))


def respond(bank, images):
    with torch.inference_mode():
        return bank(torch.as_tensor(np.asarray(images), dtype=torch.float32)).double().numpy()


def grating(across_rad, frequency_cpd, phase=0.0, *, size=224, degrees=8.0, contrast=0.8):
    """Grey (3 size size) image of a grating; the phase is that of the first pixel of the 224 px version."""
    position_deg = ((np.arange(size) + 0.5) / size - 0.5 / 224) * degrees
    along_rows, along_columns = frequency_cpd * np.cos(across_rad), frequency_cpd * np.sin(across_rad)
    wave = np.cos(2 * np.pi * (along_rows * position_deg[:, None] + along_columns * position_deg) + phase)
    return np.repeat(127.5 * (1 + contrast * wave)[None], 3, axis=0)


def well_sampled(cells, px_per_deg=PX_PER_DEG):
    """Cells whose Gaussian is smooth on pixels and ends inside the kernel, so that sums over pixels are integrals."""
    sd_px = np.stack([cells.nx, cells.ny]) * px_per_deg / cells.frequency_cpd
    return np.flatnonzero(((sd_px > 1.6) & (sd_px < 3.2)).all(axis=0))


def narrow_band(cells, px_per_deg):
    """Three well-sampled cells that hardly see zero frequency, so that a grating of their own frequency suits them best."""
    narrow = (np.minimum(cells.nx, cells.ny) > 0.3) & (1.5 * cells.frequency_cpd < px_per_deg / 2)
    found = [cell for cell in well_sampled(cells, px_per_deg) if narrow[cell]]
    assert len(found) >= 3
    return found[:3]


def filtered(cells, across_rad, frequency_cpd, phase, phase_shift=0.0, contrast=0.8):
    """What a Gabor gives to a grating, (cell row column) inside the map, from its Fourier transform.

    cos a cos b = (cos(a + b) + cos(a - b)) / 2, and a Gaussian of SD s times a wave of k cycles integrates to exp(-2 (pi s k)**2).
    """
    def gain(sign):
        """Transform of the envelope at the grating's frequency minus (sign 1) or plus (sign -1) the filter's."""
        turned = across_rad - cells.orientation_rad
        across = frequency_cpd * np.cos(turned) - sign * cells.frequency_cpd
        along = frequency_cpd * np.sin(turned)
        return np.exp(-2 * np.pi**2 * ((cells.nx * across) ** 2 + (cells.ny * along) ** 2) / cells.frequency_cpd**2)

    centre_deg = 4 * np.arange(56)[INSIDE] / PX_PER_DEG
    path = np.cos(across_rad) * centre_deg[:, None] + np.sin(across_rad) * centre_deg
    here = (2 * np.pi * frequency_cpd * path + phase)[None]
    own = (cells.phase_rad + phase_shift)[:, None, None]
    return contrast / 2 * (np.cos(here - own) * gain(1)[:, None, None] + np.cos(here + own) * gain(-1)[:, None, None])


# Responses ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("across_rad", "frequency_cpd", "phase"), [(0.0, 4.0, 0.0), (0.7, 3.0, 1.0), (np.pi / 2, 5.0, 2.5), (2.4, 2.0, 4.0), (1.9, 6.5, 5.0)]
)
def test_gratings_are_answered_as_the_fourier_transform_of_the_filters_says(full, across_rad, frequency_cpd, phase):
    answers = respond(full, [grating(across_rad, frequency_cpd, phase)])[0, :, INSIDE, INSIDE]
    simple, paired = well_sampled(full.simple_cells), well_sampled(full.complex_cells)
    assert min(len(simple), len(paired)) > 30
    wave = (across_rad, frequency_cpd, phase)
    even, odd = filtered(full.complex_cells, *wave), filtered(full.complex_cells, *wave, np.pi / 2)
    expected_simple = 25 * np.maximum(filtered(full.simple_cells, *wave), 0)[simple]
    expected_complex = 25 * (np.sqrt(even**2 + odd**2) / np.sqrt(2))[paired]
    assert expected_simple.max() > 3
    assert expected_complex.max() > 3
    np.testing.assert_allclose(answers[:256][simple], expected_simple, atol=0.002)
    np.testing.assert_allclose(answers[256:][paired], expected_complex, atol=0.002)


def test_every_cell_is_the_sum_of_filter_times_pixels_of_its_colour_with_grey_beyond_the_border():
    bank = VOne(simple_cells=9, complex_cells=9, seed=4, pool=1)
    contrast = np.pad(NOISE[0].double().numpy() / 127.5 - 1, ((0, 0), (12, 12), (12, 12)))
    answers = respond(bank, NOISE[:1])[0]
    for cell, kind in enumerate([bank.simple_cells] * 9 + [bank.complex_cells] * 9):
        own = cell % 9
        shape = (kind.orientation_rad[own], kind.frequency_cpd[own] / 28, kind.nx[own], kind.ny[own])
        for row, column in ((0, 0), (20, 31), (55, 2)):
            patch = contrast[kind.colour[own], 4 * row : 4 * row + 25, 4 * column : 4 * column + 25]
            even, odd = ((gabor(*shape, kind.phase_rad[own] + shift) * patch).sum() for shift in (0, np.pi / 2))
            expected = max(even, 0) if cell < 9 else np.sqrt((even**2 + odd**2) / 2)
            assert answers[cell, row, column] == pytest.approx(25 * expected, abs=1e-4)


def test_a_cell_sees_one_colour_and_answers_a_grey_image_alike_whichever_it_is():
    bank = VOne(simple_cells=30, complex_cells=30)
    colours = np.append(bank.simple_cells.colour, bank.complex_cells.colour)
    grey = NOISE[:1, :1].repeat(1, 3, 1, 1)
    whole = respond(bank, grey)[0]
    assert set(colours) == {0, 1, 2}
    for colour in range(3):
        tinted = torch.full_like(grey, 127.5)
        tinted[:, colour] = grey[:, colour]
        answers = respond(bank, tinted)[0]
        np.testing.assert_array_equal(answers[colours == colour], whole[colours == colour])
        assert answers[colours != colour].max() < 1e-20


def test_complex_cells_do_not_mind_the_phase_and_simple_cells_do():
    bank = VOne(simple_cells=80, complex_cells=80, seed=1, pool=1)
    phases = np.arange(8) * np.pi / 4
    for first, cells in ((0, bank.simple_cells), (80, bank.complex_cells)):
        narrow = narrow_band(cells, PX_PER_DEG)
        for cell in narrow:
            images = [grating(cells.orientation_rad[cell], cells.frequency_cpd[cell], phase) for phase in phases]
            answers = respond(bank, images)[:, first + cell, 20, 30]
            if first == 0:
                assert answers.min() == 0
                assert answers.max() > 0.9 * 25 * 0.4
            else:
                np.testing.assert_allclose(answers, 25 * 0.4 / np.sqrt(2), rtol=0.01)


@pytest.mark.parametrize("degrees", [8.0, 12.0])
def test_cells_prefer_their_own_orientation_and_frequency(degrees):
    bank = VOne(simple_cells=80, complex_cells=80, seed=1, visual_degrees=degrees, pool=1)
    turns = np.array([0, 20, 45, 90, 135, 160])
    factors = np.array([1, 0.6, 0.8, 1.25, 1.5])
    for first, cells in ((0, bank.simple_cells), (80, bank.complex_cells)):
        narrow = narrow_band(cells, 224 / degrees)
        for cell in narrow:
            own, frequency = cells.orientation_rad[cell], cells.frequency_cpd[cell]
            turned = [grating(own + np.deg2rad(turn), frequency, degrees=degrees) for turn in turns]
            scaled = [grating(own, frequency * factor, degrees=degrees) for factor in factors]
            strongest = respond(bank, turned + scaled)[:, first + cell, INSIDE, INSIDE].max(axis=(1, 2))
            assert strongest[: len(turns)].argmax() == 0
            assert strongest[len(turns) :].argmax() == 0


def test_the_same_degrees_are_answered_alike_at_other_sizes(full):
    wave = (0.6, 1.2, 0.4)
    answers = respond(full, [grating(*wave)])[0, :, INSIDE, INSIDE]
    for size in (112, 180, 448):
        other = respond(full, [grating(*wave, size=size)])[0, :, INSIDE, INSIDE]
        assert np.abs(other - answers).max() < 0.05 * answers.max()
        assert np.abs(other - np.roll(answers, 1, axis=2))[:, :, 1:].max() > 0.2 * answers.max()


def test_the_map_is_averaged_over_squares(full):
    fine = respond(full, NOISE)
    coarse = respond(VOne(), NOISE)
    assert coarse.shape == (2, 512, 14, 14)
    np.testing.assert_allclose(coarse, fine.reshape(2, 512, 14, 4, 14, 4).mean(axis=(3, 5)), rtol=1e-4, atol=1e-5)


def test_an_empty_image_gives_nothing_and_still_has_a_slope():
    empty = torch.full((1, 3, 224, 224), 127.5, requires_grad=True)
    answers = VOne(simple_cells=20, complex_cells=20)(empty)
    answers.sum().backward()
    assert answers.abs().max() < 1e-20
    assert torch.isfinite(empty.grad).all()


@pytest.mark.parametrize(("simple", "paired"), [(1, 0), (0, 1), (2, 2)])
def test_banks_that_miss_a_colour_or_a_kind_work(simple, paired):
    assert respond(VOne(simple_cells=simple, complex_cells=paired), NOISE).shape == (2, simple + paired, 14, 14)


# What is drawn --------------------------------------------------------------------------------------------------------
def fits(counts, published):
    """Chi-square p of counts against a published histogram; empty bins of it must be empty."""
    counts, published = np.ravel(counts), np.ravel(published)
    assert not counts[published == 0].any()
    share = published[published > 0] / published.sum()
    return stats.chisquare(counts[published > 0], share * counts.sum()).pvalue


def test_orientations_follow_de_valois(drawn):
    degrees = np.rad2deg(drawn.orientation_rad)
    assert degrees.min() >= 0
    assert degrees.max() < 180
    unwrapped = np.where(degrees > 157.5, degrees - 180, degrees)
    assert fits(np.histogram(unwrapped, ORIENTATION_EDGES_DEG)[0], ORIENTATION_COUNTS) > 0.01
    in_first_bin = unwrapped[unwrapped < 22.5]
    assert stats.kstest(in_first_bin, stats.uniform(-22.5, 45).cdf).pvalue > 0.01


def test_frequencies_follow_de_valois(drawn):
    assert fits(np.histogram(drawn.frequency_cpd, FREQUENCY_EDGES_CPD)[0], FREQUENCY_COUNTS) > 0.01
    fifth = drawn.frequency_cpd[(drawn.frequency_cpd > 2) & (drawn.frequency_cpd < 2.8)]
    assert stats.kstest(np.log2(fifth), stats.uniform(1, np.log2(1.4)).cdf).pvalue > 0.01


def test_envelopes_follow_ringach(drawn):
    table = np.histogram2d(drawn.nx, drawn.ny, [ENVELOPE_EDGES, ENVELOPE_EDGES])[0]
    assert table.sum() == 20_000
    assert fits(table, ENVELOPE_COUNTS) > 0.01
    third = np.log10(drawn.nx[(drawn.nx > ENVELOPE_EDGES[2]) & (drawn.nx < ENVELOPE_EDGES[3])])
    assert stats.kstest(third, stats.uniform(-0.52, 0.24).cdf).pvalue > 0.01


def test_phases_and_colours_are_alike_likely_and_independent_of_the_rest(drawn):
    assert stats.kstest(drawn.phase_rad, stats.uniform(0, 2 * np.pi).cdf).pvalue > 0.01
    assert fits(np.bincount(drawn.colour), np.ones(3)) > 0.01
    values = [drawn.orientation_rad, drawn.frequency_cpd, drawn.phase_rad, drawn.colour]
    correlations = stats.spearmanr(np.stack(values, axis=1)).statistic
    assert np.abs(correlations[np.triu_indices(4, 1)]).max() < 0.025


def test_envelope_and_frequency_correlate_as_a_gaussian_copula_of_75_percent_does(drawn):
    ranks = stats.spearmanr(drawn.nx, drawn.frequency_cpd).statistic
    assert ranks == pytest.approx(6 / np.pi * np.arcsin(0.75 / 2), abs=0.012)  # Pearson 1907; holds whatever the margins
    assert 0.7 < np.corrcoef(np.log(drawn.nx), np.log(drawn.frequency_cpd))[0, 1] < 0.76


def test_frequencies_that_the_pixels_cannot_carry_are_left_out():
    drawn = gabor_parameters(20_000, np.random.default_rng(0), highest_cpd=4.0)
    assert drawn.frequency_cpd.max() <= 4.0
    assert fits(np.histogram(drawn.frequency_cpd, FREQUENCY_EDGES_CPD)[0][:6], FREQUENCY_COUNTS[:6]) > 0.01
    wide = VOne(simple_cells=300, complex_cells=300, visual_degrees=28.0)
    assert max(wide.simple_cells.frequency_cpd.max(), wide.complex_cells.frequency_cpd.max()) <= 4.0


# One seed -------------------------------------------------------------------------------------------------------------
def test_a_seed_says_everything_and_torch_is_left_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = VOne(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(5)
    other, next_seed = VOne(seed=3), VOne(seed=4)
    for name, weights in one.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name])
        assert weights.shape != next_seed.state_dict()[name].shape or not torch.equal(weights, next_seed.state_dict()[name])
    np.testing.assert_array_equal(respond(one, NOISE), respond(other, NOISE))
    np.testing.assert_array_equal(respond(one, NOISE), respond(one, NOISE))


def test_nothing_is_trained_and_training_mode_changes_nothing(full):
    assert not list(full.parameters())
    images = NOISE[:1]
    np.testing.assert_array_equal(respond(full.train(), images), respond(full.eval(), images))


def test_its_text_tells_apart_what_weights_do_not():
    assert repr(VOne(simple_cells=1, complex_cells=1, visual_degrees=9.5, pool=2)) == "VOne(visual_degrees=9.5, pool=2)"


def test_the_images_are_not_changed():
    images = NOISE.clone()
    respond(VOne(simple_cells=3, complex_cells=3), images)
    assert torch.equal(images, NOISE)


# Wrong inputs ---------------------------------------------------------------------------------------------------------
def test_images_that_are_not_square_are_refused():
    with pytest.raises(NwbCompactError) as caught:
        VOne(simple_cells=1, complex_cells=1)(torch.zeros(1, 3, 10, 20))
    assert str(caught.value) == (
        "images: found images of 10 x 20 px, expected square images. Next: crop or pad them before the session is written"
    )


@pytest.mark.parametrize(("degrees", "said"), [(0.5, "0.5"), (500.0, "500"), (float("nan"), "nan")])
def test_widths_that_suit_no_filter_are_refused(degrees, said):
    with pytest.raises(NwbCompactError) as caught:
        VOne(visual_degrees=degrees)
    assert str(caught.value) == (
        f"vone_visual_degrees: found {said}, expected 1 to 100 degrees. Next: give the width of the images in degrees of visual angle"
    )

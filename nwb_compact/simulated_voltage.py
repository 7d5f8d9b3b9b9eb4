"""What electrodes pick up: where they are, what a spike looks like on each of them, and what else there is.

    voltage = spikes of the session's neurons                  size falls with distance; neighbouring channels see the same ones
            + spikes of many small neurons further away        the hash that a lab calls noise
            + slow waves below 100 Hz                          why a recording is filtered before spikes are looked for
            + noise of the amplifier

Everything that can be is SpikeInterface's (Buccino et al. 2020): waveforms, their injection, drift, noise. No sample is computed
before it is read.
"""

from collections.abc import Sequence
from math import ceil
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer
from probeinterface import Probe, generate_multi_columns_probe
from spikeinterface import BaseRecording, NumpySorting

from nwb_compact.simulate import SAMPLING_HZ

Layout = Literal["probe", "utah"]

LSB_UV = 0.195
"""Microvolts of one step of the 16-bit converter, as in Intan's amplifiers."""
COLUMN_PITCH_UM, ROW_PITCH_UM = 30.0, 40.0
"""Between the two columns of the probe, and between the sites of a column."""
UTAH_PITCH_UM = 400.0
BEFORE_PEAK_S, AFTER_PEAK_S = 0.001, 0.003
"""What is kept of a spike around its negative peak."""
DECAY_UM = (20.0, 35.0)
"""Distance at which a spike has fallen to 1/e, as drawn for each neuron."""
AMPLITUDE_SD = 0.05
"""Spikes of one neuron differ in size by this share."""
AMPLIFIER_UV = 10.0
"""SD of the amplifier's white noise over the whole band."""
HASH_A_CHANNEL, HASH_UV, HASH_HZ, HASH_DECAY_UM = 8, (4.0, 14.0), (5.0, 20.0), (35.0, 60.0)
"""Small neurons: how many, the size of their spikes, their rates, and how far they are seen."""
WAVE_SD_S, WAVE_UV, WAVES_HZ = (0.005, 0.01, 0.02, 0.04), 60.0, 20.0
"""Slow waves: widths, SD of their heights, and how many begin in a second."""
BAND_HZ = (300.0, 6000.0)
"""In which spikes are looked for, and in which signal and noise are therefore measured."""
NOISE_SAMPLES = 150_000
"""As much of the background is made to measure it."""


def probe_of(n_channels: int, layout: Layout) -> Probe:
    """Two staggered columns (probe), or a grid that is as square as can be (utah).

    Examples
    --------
    >>> probe_of(4, "probe").contact_positions.tolist()
    [[0.0, 0.0], [0.0, 40.0], [30.0, 20.0], [30.0, 60.0]]
    """
    columns = 2 if layout == "probe" else ceil(np.sqrt(n_channels))
    sites = [len(part) for part in np.array_split(np.arange(n_channels), columns)]
    if layout == "probe":
        probe = generate_multi_columns_probe(columns, sites, COLUMN_PITCH_UM, ROW_PITCH_UM, y_shift_per_column=[0, ROW_PITCH_UM / 2])
    else:
        probe = generate_multi_columns_probe(columns, sites, UTAH_PITCH_UM, UTAH_PITCH_UM)
    probe.set_device_channel_indices(np.arange(n_channels))
    return probe


def spike_shapes(places_um: Float[np.ndarray, "unit 3"], probe: Probe, seed: int,
                 decay_um: tuple[float, float] = DECAY_UM) -> Float[np.ndarray, "unit sample channel"]:
    """The spike of each neuron on each channel, 1 where the neuron is: narrow and broad ones, each with its own field.

    Neuron i has the same shape at whatever place, if `seed` and their number stay.
    """
    from spikeinterface.generation import generate_templates

    parameters = {"alpha": 1.0, "spatial_decay": decay_um, "repolarization_ms": (0.3, 0.8)}
    return generate_templates(probe.contact_positions, places_um, SAMPLING_HZ, 1e3 * BEFORE_PEAK_S, 1e3 * AFTER_PEAK_S,
                              seed=seed, unit_params=parameters)


def background(probe: Probe, n_samples: int, seed: int) -> BaseRecording:
    """All but the spikes of the session, microvolts."""
    from spikeinterface.generation import InjectTemplatesRecording, NoiseGeneratorRecording

    rng = np.random.default_rng([seed, 13])
    noise = NoiseGeneratorRecording(probe.get_contact_count(), SAMPLING_HZ, [(n_samples + 0.5) / SAMPLING_HZ], noise_levels=AMPLIFIER_UV,
                                    seed=int(rng.integers(2**31)), strategy="on_the_fly")
    waves = _slow_waves(probe, rng)
    times = _poisson(np.full(len(waves), WAVES_HZ / len(waves)), n_samples, rng)
    heights = rng.normal(size=sum(map(len, times)))
    noise = InjectTemplatesRecording(_sorting(times), waves, waves.shape[1] // 2, heights, noise)
    shapes = _far_neurons(probe, rng)
    times = _poisson(rng.uniform(*HASH_HZ, len(shapes)), n_samples, rng)
    return InjectTemplatesRecording(_sorting(times), shapes, round(BEFORE_PEAK_S * SAMPLING_HZ), None, noise)


def noise_uv(recording: BaseRecording) -> Float[np.ndarray, "channel"]:
    """Median absolute deviation / 0.6745 from 300 to 6000 Hz."""
    quiet = filtered(recording.get_traces(end_frame=min(NOISE_SAMPLES, recording.get_num_samples())), axis=0)
    return np.median(np.abs(quiet - np.median(quiet, axis=0)), axis=0) / 0.6745


def filtered(voltage: Float[np.ndarray, "*any"], axis: int) -> Float[np.ndarray, "*any"]:
    """From 300 to 6000 Hz, without moving a peak."""
    from scipy.signal import butter, sosfiltfilt

    return sosfiltfilt(butter(5, BAND_HZ, "bandpass", fs=SAMPLING_HZ, output="sos"), voltage, axis=axis)


def with_spikes(noise: BaseRecording, spikes: Sequence[Integer[np.ndarray, "_"]],
                templates_uv: Float[np.ndarray, "move unit sample channel"], moves_um: Float[np.ndarray, "move"], probe: Probe,
                rng: np.random.Generator) -> BaseRecording:
    """Microvolts: spikes with their peaks at the given samples, one array a unit, while the tissue goes through its moves."""
    from spikeinterface.generation import DriftingTemplates, InjectDriftingTemplatesRecording, InjectTemplatesRecording

    sorting, before = _sorting(spikes), round(BEFORE_PEAK_S * SAMPLING_HZ)
    sizes = rng.normal(1.0, AMPLITUDE_SD, len(sorting.to_spike_vector()))
    if len(moves_um) == 1:
        return InjectTemplatesRecording(sorting, templates_uv[0], before, sizes, noise)
    places_um = np.column_stack([np.zeros(len(moves_um)), moves_um])
    moving = DriftingTemplates.from_precomputed_templates(templates_uv, places_um, SAMPLING_HZ, before, probe)
    seconds = ceil(noise.get_num_samples() / SAMPLING_HZ)
    course_um = np.zeros((seconds, 2, 1))
    course_um[:, 1, 0] = np.linspace(moves_um[0], moves_um[-1], seconds)
    return InjectDriftingTemplatesRecording(sorting, moving, [course_um], 1.0, np.ones((len(spikes), 1)), noise, amplitude_factor=sizes)


def digitised(voltage: BaseRecording, probe: Probe) -> BaseRecording:
    """As the converter stores it: int16 with its gain, on the sites of the probe."""
    from spikeinterface.preprocessing import astype, scale

    steps = astype(scale(voltage, gain=1 / LSB_UV, offset=0.0, dtype="float32"), "int16", round=True)
    steps.set_channel_gains(LSB_UV)
    steps.set_channel_offsets(0.0)
    steps.set_probe(probe)
    steps.annotate(is_filtered=False)
    return steps


def _slow_waves(probe: Probe, rng: np.random.Generator) -> Float[np.ndarray, "wave sample channel"]:
    """Humps that change slowly along the electrodes: the sum of many is a local field potential."""
    time_s = np.arange(-4 * WAVE_SD_S[-1], 4 * WAVE_SD_S[-1], 1 / SAMPLING_HZ)
    sites = probe.contact_positions
    along = (sites[:, 1] - sites[:, 1].min()) / max(np.ptp(sites[:, 1]), 1.0)
    across = np.cos(rng.uniform(0, np.pi, len(WAVE_SD_S))[:, None] + along)
    hump = np.exp(-time_s**2 / (2 * np.square(WAVE_SD_S)[:, None]))
    return (WAVE_UV * hump[:, :, None] * across[:, None, :]).astype(np.float32)


def _far_neurons(probe: Probe, rng: np.random.Generator) -> Float[np.ndarray, "unit sample channel"]:
    sites = np.repeat(probe.contact_positions, HASH_A_CHANNEL, axis=0)
    places_um = np.column_stack([sites + rng.uniform(-40, 40, sites.shape), rng.uniform(60, 100, len(sites))])
    shapes = spike_shapes(places_um, probe, int(rng.integers(2**31)), HASH_DECAY_UM)
    return (shapes * (rng.uniform(*HASH_UV, len(shapes)) / -shapes.min(axis=(1, 2)))[:, None, None]).astype(np.float32)


def _poisson(rates_hz: Float[np.ndarray, "unit"], n_samples: int, rng: np.random.Generator) -> list[Integer[np.ndarray, "_"]]:
    return [np.unique(rng.integers(n_samples, size=rng.poisson(rate_hz * n_samples / SAMPLING_HZ))) for rate_hz in rates_hz]


def _sorting(spikes: Sequence[Integer[np.ndarray, "_"]]) -> NumpySorting:
    units = np.repeat(np.arange(len(spikes)), [len(one) for one in spikes])
    return NumpySorting.from_samples_and_labels([np.concatenate(spikes)], [units], SAMPLING_HZ, unit_ids=np.arange(len(spikes)))

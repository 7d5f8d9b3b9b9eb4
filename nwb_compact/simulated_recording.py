"""The recording of a simulated session, and the truth about it.

The truth is exact: a spike time of the session that `simulated_recording` returns is the sample of that spike's negative peak. How the
voltage comes about tells `nwb_compact.simulated_voltage`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from jaxtyping import Float, Integer
from probeinterface import Probe
from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Device, Electrodes, Session, Waveforms
from nwb_compact.simulate import SAMPLING_HZ
from nwb_compact.simulated_voltage import (
    BEFORE_PEAK_S,
    Layout,
    background,
    digitised,
    filtered,
    noise_uv,
    probe_of,
    spike_shapes,
    with_spikes,
)

REFRACTORY_S = 0.002
"""Shortest interval between two spikes of a neuron: cortical neurons rest 1 to 3 ms, and sorters count on it."""
MOST_UNITS_A_CHANNEL = {"probe": 2, "utah": 1}
SNR_OF_UNITS = ((0.15, (3.0, 4.0)), (0.15, (5.0, 8.0)), (0.7, (8.0, 20.0)))
"""Share of the units and the range of their signal-to-noise ratios: most stand out, some barely."""
WELL_ISOLATED_SNR, WELL_ISOLATED_SIMILARITY = 8.0, 0.9
"""A unit is well isolated that reaches this ratio, and to which no other unit's spike has a larger cosine than this."""
DRIFT_STEPS = 21
"""Positions of the tissue between which it moves."""


@dataclass(frozen=True, eq=False)
class SimulatedRecording:
    """A voltage recording and its truth."""

    session: Session
    """With the spikes that are in the voltage, electrodes, the true waveforms and how well each unit is isolated."""
    recording: BaseRecording
    """int16, computed when it is read."""
    templates_uv: Float[np.ndarray, "unit sample channel"]
    """Mean spike of each unit when the tissue is in its middle position; the peak lies `BEFORE_PEAK_S` after the first sample."""
    noise_uv: Float[np.ndarray, "channel"]
    """Robust standard deviation, from 300 to 6000 Hz, of all that is not a spike of the session."""
    similarity: Float[np.ndarray, "unit unit"]
    """Cosine of the spikes of two units, from 300 to 6000 Hz over all channels."""


def simulated_recording(session: Session, *, seed: int, n_channels: int = 16, layout: Layout = "probe",
                        drift_um: float = 0.0) -> SimulatedRecording:
    """Record the spikes of a simulated session with electrodes.

    Parameters
    ----------
    session
        From `nwb_compact.simulate.simulate_session`.
    seed
        Same arguments, same voltage.
    n_channels
        Electrodes.
    layout
        probe: two staggered columns with a site every 40 um, so that several sites see a unit and a site sees several units.
        utah: 400 um apart, each with one unit at most.
    drift_um
        How far the tissue moves along the probe from the first sample to the last.

    Returns
    -------
    SimulatedRecording
        Its session has the given one's images, presentations and counts; spikes were moved as `spikes_on_samples` says.

    Raises
    ------
    NwbCompactError
        If there are more units than the electrodes have room for.

    Examples
    --------
    >>> from nwb_compact.simulate import simulate_session
    >>> simulated = simulated_recording(simulate_session(n_units=2, n_images=20, n_repeats=1), n_channels=4, seed=0)
    >>> simulated.recording.get_traces(end_frame=300).shape, simulated.templates_uv.shape
    ((300, 4), (2, 120, 4))
    """
    n_units = len(session.units)
    _require_room(n_units, n_channels, layout)
    probe = probe_of(n_channels, layout)
    rest = background(probe, recorded_samples(session), seed)
    noise = noise_uv(rest)
    moves_um = np.linspace(-drift_um / 2, drift_um / 2, DRIFT_STEPS) if drift_um else np.zeros(1)
    templates = _templates_uv(n_units, probe, layout, moves_um, noise, seed)
    spikes = spikes_on_samples(session)
    voltage = with_spikes(rest, spikes, templates, moves_um, probe, np.random.default_rng([seed, 12]))
    middle = templates[len(templates) // 2]
    similarity = _similarity(middle)
    truth = _truth(session, spikes, middle, noise, similarity, probe, layout)
    return SimulatedRecording(truth, digitised(voltage, probe), middle, noise, similarity)


def recorded_samples(session: Session) -> int:
    """Length of the recording of a session, in samples of `SAMPLING_HZ`."""
    assert session.units.obs_intervals_s is not None
    return ceil(float(session.units.obs_intervals_s[-1, 1]) * SAMPLING_HZ - 1e-6)  # so that a length that is a sample's stays so


def spikes_on_samples(session: Session) -> tuple[Integer[np.ndarray, "_"], ...]:
    """The sample of every spike, as near to its time as a neuron and a converter allow, with not one count changed.

    Within each counting window and each pause between two windows, n spikes that were uniform on its K samples become uniform among all
    ways to place n spikes with at least R samples from one to the next: sample(i) = u(i) * (K - n * R) + i * R, with u(i) the place of
    spike i in the window, from 0 to 1. Poisson counts stay Poisson, which thinning would not leave them. R is `REFRACTORY_S`,
    less where a window is so full that these would take more than four fifths of it.

    Returns
    -------
    tuple[Integer[np.ndarray, "_"], ...]
        One ascending array a unit.
    """
    presentations, windows = session.presentations, session.response_units
    assert presentations is not None
    assert presentations.start_time_s is not None
    assert windows.window_start_s is not None
    assert windows.window_stop_s is not None
    assert session.units.spike_times_s is not None
    end_s = recorded_samples(session) / SAMPLING_HZ
    moved = []
    for times_s, window_s in zip(session.units.spike_times_s, zip(windows.window_start_s, windows.window_stop_s, strict=True), strict=True):
        edges_s = np.concatenate([[0.0], np.add.outer(presentations.start_time_s, window_s).ravel(), [end_s]])
        moved.append(_spaced(times_s, edges_s))
    return tuple(moved)


def _spaced(times_s: Float[np.ndarray, "_"], edges_s: Float[np.ndarray, "edge"]) -> Integer[np.ndarray, "_"]:
    # A sample of margin at both edges, so that rounding moves no spike into another window.
    first = np.ceil(edges_s[:-1] * SAMPLING_HZ).astype(np.int64) + 1
    length = np.floor(edges_s[1:] * SAMPLING_HZ).astype(np.int64) - 1 - first
    stretch = np.searchsorted(edges_s, times_s, side="right") - 1
    n = np.bincount(stretch, minlength=len(length))
    apart = np.minimum(round(REFRACTORY_S * SAMPLING_HZ), 4 * length // (5 * np.maximum(n, 1)))
    place = (times_s - edges_s[stretch]) / np.diff(edges_s)[stretch]
    rank = np.arange(len(times_s)) - (np.cumsum(n) - n)[stretch]
    return first[stretch] + np.floor(place * (length - n * apart)[stretch]).astype(np.int64) + rank * apart[stretch]


def _require_room(n_units: int, n_channels: int, layout: Layout) -> None:
    most = MOST_UNITS_A_CHANNEL[layout] * n_channels
    if n_units > most:
        raise NwbCompactError(f"{layout} of {n_channels} channels", found=f"{n_units} units", expected=f"at most {most}",
                              next_step="ask for fewer units or more channels")


# The neurons' places and spikes ------------------------------------------------------------------------------------


def _templates_uv(n_units: int, probe: Probe, layout: Layout, moves_um: Float[np.ndarray, "move"], noise: Float[np.ndarray, "channel"],
                  seed: int) -> Float[np.ndarray, "move unit sample channel"]:
    """Spikes at each position of the tissue, scaled so that the middle position has the drawn signal-to-noise ratio."""
    rng = np.random.default_rng([seed, 10])
    places_um = _neurons_um(n_units, probe, layout, rng)
    snr = _signal_to_noise(n_units, rng)
    shape_seed = int(rng.integers(2**31))
    shapes = np.stack([spike_shapes(places_um + np.array([0.0, move_um, 0.0]), probe, shape_seed) for move_um in moves_um])
    scale = snr / (_depth(shapes[len(shapes) // 2]) / noise).max(axis=1)
    return shapes * scale[:, None, None].astype(np.float32)


def _neurons_um(n_units: int, probe: Probe, layout: Layout, rng: np.random.Generator) -> Float[np.ndarray, "unit 3"]:
    """Beside a site each on an array; spread over the length of a probe, each at its own depth."""
    sites = probe.contact_positions
    if layout == "utah":
        beside = sites[rng.permutation(len(sites))[:n_units]]
        return np.column_stack([beside + rng.uniform(-20, 20, beside.shape), rng.uniform(20, 40, n_units)])
    low, high = sites.min(axis=0), sites.max(axis=0)
    depth = low[1] + (high[1] - low[1]) * (rng.permutation(n_units) + rng.uniform(0.2, 0.8, n_units)) / n_units
    return np.column_stack([rng.uniform(low[0] - 10, high[0] + 10, n_units), depth, rng.uniform(10, 40, n_units)])


def _signal_to_noise(n_units: int, rng: np.random.Generator) -> Float[np.ndarray, "unit"]:
    poor, fair = (round(share * n_units) for share, _ in SNR_OF_UNITS[:2])
    kind = rng.permutation(np.repeat([0, 1, 2], [poor, fair, n_units - poor - fair]))
    low, high = np.array([limits for _, limits in SNR_OF_UNITS])[kind].T
    return rng.uniform(low, high)


def _depth(templates: Float[np.ndarray, "unit sample channel"]) -> Float[np.ndarray, "unit channel"]:
    return -_in_band(templates).min(axis=1)


def _in_band(templates: Float[np.ndarray, "unit sample channel"]) -> Float[np.ndarray, "unit longer channel"]:
    silence = round(0.01 * SAMPLING_HZ)  # for the filter to start and end in
    return filtered(np.pad(templates, ((0, 0), (silence, silence), (0, 0))), axis=1)


def _similarity(templates: Float[np.ndarray, "unit sample channel"]) -> Float[np.ndarray, "unit unit"]:
    flat = _in_band(templates).reshape(len(templates), -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return flat @ flat.T


# The truth ---------------------------------------------------------------------------------------------------------


def _truth(session: Session, spikes: Sequence[Integer[np.ndarray, "_"]], templates_uv: Float[np.ndarray, "unit sample channel"],
           noise: Float[np.ndarray, "channel"], similarity: Float[np.ndarray, "unit unit"], probe: Probe, layout: Layout) -> Session:
    ratio = _depth(templates_uv) / noise
    best, snr = ratio.argmax(axis=1), ratio.max(axis=1)
    nearest = np.max(similarity - 2 * np.eye(len(similarity)), axis=1)  # minus 1, for a unit alone, means that none is near
    is_well_isolated = (snr >= WELL_ISOLATED_SNR) & (nearest <= WELL_ISOLATED_SIMILARITY)
    n_channels = probe.get_contact_count()
    mean_v = 1e-6 * templates_uv[np.arange(len(best)), :, best].astype(float)
    units = replace(
        session.units,
        spike_times_s=tuple(one / SAMPLING_HZ for one in spikes),
        obs_intervals_s=np.array([[0.0, recorded_samples(session) / SAMPLING_HZ]]),
        resolution_s=1 / SAMPLING_HZ,
        electrode_index=best.astype(np.uint32),
        properties={"snr": snr, "nearest_similarity": nearest, "is_well_isolated": is_well_isolated},
        waveforms=Waveforms(mean_v, None, SAMPLING_HZ, BEFORE_PEAK_S),
    )
    x_um, y_um = probe.contact_positions.T.astype(float)
    electrodes = Electrodes(tuple(str(channel) for channel in range(n_channels)), (layout,) * n_channels, ("V4",) * n_channels, x_um, y_um)
    return replace(session, units=units, electrodes=electrodes,
                   device=Device(f"simulated {layout}", f"no device: {n_channels} simulated electrodes"))

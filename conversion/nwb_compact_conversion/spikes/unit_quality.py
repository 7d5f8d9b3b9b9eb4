"""How good a unit is and what its spike looks like: SpikeInterface's quality metrics, the mean spike on the best channel, curation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature

import numpy as np
from jaxtyping import Bool, Float, Integer, Num
from spikeinterface import BaseRecording, BaseSorting

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.session_yaml import Curation
from nwb_compact_conversion.spikes.jobs import job_kwargs, silence
from nwb_compact_conversion.spikes.threshold import AFTER_S, BEFORE_S, Crossings

METRICS = ("num_spikes", "firing_rate", "presence_ratio", "snr", "isi_violations_ratio", "amplitude_cutoff")
"""As SpikeInterface names and computes them (`spikeinterface.metrics`); snr is the largest deflection of the mean spike over the noise."""
SHAPE_SPIKES = 500
"""Spikes of a sorted unit that its mean shape is taken over; SpikeInterface's default."""
PRESENCE_BIN_S = 60.0
"""Stretches of which presence_ratio counts those with a spike; SpikeInterface's default. NaN where the recording is shorter."""
CUTOFF = {"num_histogram_bins": 500, "histogram_smoothing_value": 3, "amplitudes_bins_min_ratio": 5}
"""Of amplitude_cutoff, hence NaN for fewer than 2,500 spikes; SpikeInterface's defaults."""
LARGEST_V = 0.01
"""No extracellular spike reaches this, volts."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Units of one array, with what was measured of them."""

    frames: tuple[Integer[np.ndarray, "_"], ...]
    """Spikes of each unit, ascending; the samples of all segments are counted through."""
    channel: Integer[np.ndarray, "unit"]
    """Where the unit is largest: row in the recording that was measured."""
    metrics: Mapping[str, Num[np.ndarray, "unit"]]
    """By the names in METRICS; NaN where a metric cannot be computed."""
    mean_v: Float[np.ndarray, "unit sample"] | None
    """The mean spike on that channel; None where the recording does not say what a step of it is in volts."""
    sd_v: Float[np.ndarray, "unit sample"] | None
    before: int
    """Samples before the peak."""
    at_seams: int = 0
    """Spikes that were dropped because they were found where two stretches of the recording were joined."""

    def part(self, keep: Bool[np.ndarray, "unit"]) -> "Measured":
        """Some of its units."""
        return replace(
            self,
            frames=tuple(frames for frames, kept in zip(self.frames, keep, strict=True) if kept),
            channel=self.channel[keep],
            metrics={name: values[keep] for name, values in self.metrics.items()},
            mean_v=None if self.mean_v is None else self.mean_v[keep],
            sd_v=None if self.sd_v is None else self.sd_v[keep],
        )


def joined(parts: Sequence[Measured]) -> Measured:
    """The units of several, in their order."""
    has_shapes = all(part.mean_v is not None for part in parts)
    return Measured(
        frames=tuple(frames for part in parts for frames in part.frames),
        channel=np.concatenate([part.channel for part in parts]),
        metrics={name: np.concatenate([part.metrics[name] for part in parts]) for name in METRICS},
        mean_v=np.concatenate([part.mean_v for part in parts if part.mean_v is not None]) if has_shapes else None,
        sd_v=np.concatenate([part.sd_v for part in parts if part.sd_v is not None]) if has_shapes else None,
        before=parts[0].before,
        at_seams=sum(part.at_seams for part in parts),
    )


def measure_sorted(sorting: BaseSorting, recording: BaseRecording, *, n_jobs: int = 1) -> Measured:
    """Units that a sorter found.

    Parameters
    ----------
    sorting
        One segment.
    recording
        What was sorted: filtered, one segment.
    n_jobs
        Threads.

    Notes
    -----
    SpikeInterface's SortingAnalyzer (Buccino et al. 2020), sparse and in memory: means and deviations of shapes are summed up while
    reading, so that no single shape is kept.
    """
    from spikeinterface import create_sorting_analyzer

    jobs, scaled = job_kwargs(n_jobs), recording.has_scaleable_traces()
    # SpikeInterface 0.104 has a fixed seed there and no such argument.
    seed = {"seed": 0} if "seed" in signature(create_sorting_analyzer).parameters else {}
    with silence():
        analyzer = create_sorting_analyzer(sorting, recording, format="memory", sparse=True, return_in_uV=scaled, **seed, **jobs)
        analyzer.compute("random_spikes", max_spikes_per_unit=SHAPE_SPIKES, seed=0)
        analyzer.compute("noise_levels", random_slices_kwargs={"seed": 0}, **jobs)
        analyzer.compute("templates", ms_before=1e3 * BEFORE_S, ms_after=1e3 * AFTER_S, **jobs)
        analyzer.compute("spike_amplitudes", **jobs)
    templates = analyzer.get_extension("templates")
    # (unit sample channel), zero on channels that are far from the unit.
    mean, sd = templates.get_data(operator="average"), templates.get_data(operator="std")
    channel = np.abs(mean).max(axis=1).argmax(axis=1)
    unit = np.arange(len(channel))
    mean, sd = mean[unit, :, channel].astype(np.float64), sd[unit, :, channel].astype(np.float64)
    frames = tuple(np.sort(sorting.get_unit_spike_train(unit_id=name)) for name in sorting.unit_ids)
    amplitudes = analyzer.get_extension("spike_amplitudes").get_data(outputs="by_unit", concatenated=True)
    depth = [_upright(amplitudes[name]) for name in sorting.unit_ids]
    noise = np.asarray(analyzer.get_extension("noise_levels").get_data(), np.float64)[channel]
    return Measured(
        frames=frames,
        channel=channel,
        metrics=_metrics(frames, depth, mean, noise, recording),
        mean_v=1e-6 * mean if scaled else None,
        sd_v=1e-6 * sd if scaled else None,
        before=templates.nbefore,
    )


def measure_crossings(found: Crossings, recording: BaseRecording) -> Measured:
    """Multi-unit activity: one unit for each channel that has a spike.

    Parameters
    ----------
    found
        As `threshold.crossings` gives it.
    recording
        What the crossings were found in.

    Notes
    -----
    Measured from what the one pass over the voltage has kept. An interval across a gap of the recording is none.
    """
    depth = [_upright(depth) for depth in found.depth]
    to_v = 1e-6 * recording.get_channel_gains()[:, None] if recording.has_scaleable_traces() else None
    every = Measured(
        frames=found.frames,
        channel=np.arange(len(found.frames)),
        metrics=_metrics(found.frames, depth, found.mean, found.noise, recording),
        mean_v=None if to_v is None else found.mean * to_v,
        sd_v=None if to_v is None else found.sd * to_v,
        before=found.before,
    )
    return every.part(every.metrics["num_spikes"] > 0)


def meets(metrics: Mapping[str, Num[np.ndarray, "unit"]], curation: Curation) -> tuple[Bool[np.ndarray, "unit"], dict[str, int]]:
    """Which units meet every criterion, and how many miss each; a metric that is NaN excludes none.

    Examples
    --------
    >>> metrics = {"num_spikes": np.array([900, 900, 20]), "snr": np.array([8.0, np.nan, 3.0])}
    >>> keep, missed = meets(metrics, Curation(min_num_spikes=50, min_snr=5))
    >>> keep.tolist(), missed
    ([True, True, False], {'min_num_spikes 50': 1, 'min_snr 5.0': 1})
    """
    keep = np.ones(len(next(iter(metrics.values()))), bool)
    missed = {}
    for name, limit in curation.model_dump(exclude_none=True).items():
        side, metric = name.split("_", 1)
        if side not in ("min", "max"):
            continue
        values = metrics[metric]
        misses = values < limit if side == "min" else values > limit  # both False for NaN
        keep &= ~misses
        if misses.any():
            missed[f"{name} {limit}"] = int(misses.sum())
    return keep, missed


def check_volts(mean_v: Float[np.ndarray, "unit sample"]) -> None:
    """Raise `NwbCompactError` where a mean spike is larger than any spike: then the scale of the voltage is wrong."""
    largest = float(np.nanmax(np.abs(mean_v), initial=0.0))
    if largest >= LARGEST_V:
        next_step = "correct the gain (microvolts a step) of the recording; a source without one cannot be sorted in volts"
        raise NwbCompactError(
            "scale of the voltage", found=f"a mean spike of {largest:.3g} V", expected=f"less than {LARGEST_V} V", next_step=next_step
        )


def _upright(amplitudes: Num[np.ndarray, "_"]) -> Num[np.ndarray, "_"]:
    return -amplitudes if len(amplitudes) and np.median(amplitudes) < 0 else amplitudes


def _metrics(
    frames: Sequence[Integer[np.ndarray, "_"]], amplitudes: Sequence[Num[np.ndarray, "_"]], mean: Float[np.ndarray, "unit sample"],
    noise: Float[np.ndarray, "unit"], recording: BaseRecording,
) -> dict[str, Num[np.ndarray, "unit"]]:
    lengths = [recording.get_num_samples(segment) for segment in range(recording.get_num_segments())]
    trains = [_train(*one, lengths, recording.sampling_frequency) for one in zip(frames, amplitudes, strict=True)]
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.abs(mean).max(axis=1) / noise
    return {name: snr if name == "snr" else np.array([one[name] for one in trains]) for name in METRICS}


def _train(
    frames: Integer[np.ndarray, "_"], amplitudes: Num[np.ndarray, "_"], lengths: list[int], rate_hz: float
) -> dict[str, int | float]:
    from spikeinterface.metrics.quality.misc_metrics import amplitude_cutoff, isi_violations, presence_ratio

    duration_s, bin_frames = sum(lengths) / rate_hz, int(PRESENCE_BIN_S * rate_hz)
    by_segment = np.split(frames / rate_hz, np.searchsorted(frames, np.cumsum(lengths)[:-1]))
    edges = np.arange(0, sum(lengths) // bin_frames * bin_frames + 1, bin_frames)
    return {
        "num_spikes": len(frames),
        "firing_rate": len(frames) / duration_s,
        "presence_ratio": float(presence_ratio(frames, bin_edges=edges)) if len(edges) > 1 else float("nan"),
        "isi_violations_ratio": float(isi_violations(by_segment, duration_s)[0]),
        "amplitude_cutoff": float(amplitude_cutoff(amplitudes, **CUTOFF)),
    }

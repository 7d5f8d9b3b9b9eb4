"""A phy or Kilosort folder: its clusters, its channels as electrodes, and the electrode of each unit."""

import ast
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, Num, UInt
from spikeinterface import BaseSorting

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Electrodes, Units
from nwb_compact_conversion.recorded import Recorded
from nwb_compact_conversion.sources.source_files import read_array


def read_phy(path: Path) -> tuple[str, BaseSorting]:
    """What read a folder of phy, and its clusters; raises `NwbCompactError` where params.py or the tables will not do."""
    from neuroconv.datainterfaces import PhySortingInterface

    _require_plain_params(path)
    return _complete(path, "PhySortingInterface", PhySortingInterface(folder_path=path).sorting_extractor)


def read_kilosort(path: Path) -> tuple[str, BaseSorting]:
    """The same for a folder that Kilosort wrote and nobody opened in phy; clusters without a spike are left out."""
    from neuroconv.datainterfaces import KiloSortSortingInterface

    _require_plain_params(path)
    return _complete(path, "KiloSortSortingInterface", KiloSortSortingInterface(folder_path=path).sorting_extractor)


def electrodes_of_phy(folder: Path, recorded: Recorded) -> Recorded:
    """The recorded units with their electrodes, as far as the folder tells.

    An electrode is a row of channel_map.npy, named by its number in the raw data. Its place is the row of channel_positions.npy, its
    group the shank in channel_shanks.npy or else the group in channel_groups.npy. A unit's electrode is the one that the column `ch`
    of cluster_info.tsv names, and else the one where the template of most of its spikes is largest (peak to peak, unwhitened as phy
    does).

    Raises
    ------
    NwbCompactError
        If one of these files is damaged, or they differ in the number of channels.

    Examples
    --------
    >>> electrodes_of_phy(Path("no-such-folder"), Recorded((), "")).electrodes is None
    True
    """
    channel = _rows(folder / "channel_map.npy", None)
    if channel is None or recorded.units is None:
        return recorded
    electrodes = _electrodes(folder, channel.astype(np.int64).ravel())
    index = _electrode_index(folder, recorded.units, channel.astype(np.int64).ravel())
    return replace(recorded, electrodes=electrodes, units=replace(recorded.units, electrode_index=index))


def _require_plain_params(path: Path) -> None:
    """Every reader of phy folders runs params.py as a program."""
    file_path = path / "params.py"
    if not file_path.is_file():
        expected = "it, since it tells the sampling rate: a line such as sample_rate = 30000.0"
        raise NwbCompactError(file_path, found="no such file", expected=expected, next_step="write that line into such a file")
    for statement in ast.parse(file_path.read_text()).body:
        try:
            assert isinstance(statement, ast.Assign)
            ast.literal_eval(statement.value)
        except (AssertionError, ValueError) as error:
            found = f"code in line {statement.lineno} (not run)"
            next_step = "keep only the lines with plain values, such as sample_rate = 30000.0"
            raise NwbCompactError(file_path, found=found, expected="plain values", next_step=next_step) from error


def _complete(path: Path, interface: str, sorting: BaseSorting) -> tuple[str, BaseSorting]:
    """SpikeInterface joins the tables of a folder by what all of them list, and drops the spikes of all other clusters."""
    clusters = np.load(path / ("spike_clusters.npy" if (path / "spike_clusters.npy").is_file() else "spike_templates.npy"))
    given = sorting.get_property("original_cluster_id")
    lost = np.setdiff1d(clusters, sorting.unit_ids if given is None else given)
    if len(lost):
        found = f"spikes of {len(lost)} clusters that not every table lists ({', '.join(str(cluster) for cluster in lost[:3])}, ...)"
        next_step = "save in phy again (it writes cluster_info.tsv), or remove the incomplete .tsv or .csv"
        raise NwbCompactError(path, found=found, expected="every cluster in every .tsv and .csv", next_step=next_step)
    return f"NeuroConv {version('neuroconv')} {interface}", sorting


def _electrodes(folder: Path, channel: Integer[np.ndarray, "electrode"]) -> Electrodes:
    n = len(channel)
    place = _rows(folder / "channel_positions.npy", n)
    told = {name: _rows(folder / f"channel_{name}s.npy", n) for name in ("shank", "group")}
    groups = [tuple(f"{name} {int(one)}" for one in values.ravel()) for name, values in told.items() if values is not None]
    group = groups[0] if groups else ("probe",) * n
    x, y = (None, None) if place is None else (place[:, 0].astype(float), place[:, 1].astype(float))
    return Electrodes(tuple(str(number) for number in channel), group, ("unknown",) * n, x, y)


def _rows(file_path: Path, n: int | None) -> Num[np.ndarray, "..."] | None:
    if not file_path.is_file():
        return None
    values = read_array(file_path)
    if n is not None and len(values) != n:
        expected = f"{n} as in channel_map.npy"
        raise NwbCompactError(file_path, found=f"{len(values)} channels", expected=expected, next_step="sort the recording again")
    return values


def _electrode_index(folder: Path, units: Units, channel: Integer[np.ndarray, "electrode"]) -> UInt[np.ndarray, "unit"] | None:
    told = units.properties.get("ch")
    if told is not None and np.isin(told, channel).all():
        return np.array([np.flatnonzero(channel == number)[0] for number in told], np.uint32)
    files = {name: _rows(folder / f"{name}.npy", None) for name in ("templates", "spike_templates", "spike_clusters")}
    if files["templates"] is None or files["spike_templates"] is None:
        return None
    template = files["spike_templates"].astype(np.int64).ravel()
    cluster = template if files["spike_clusters"] is None else files["spike_clusters"].astype(np.int64).ravel()
    ids = units.properties.get("original_cluster_id", np.array([int(name) for name in units.name]))
    if not np.isin(ids, cluster).all():
        return None  # a unit without a spike has no template
    peak = _peak(folder, np.asarray(files["templates"], np.float32))
    return np.array([peak[np.bincount(template[cluster == one]).argmax()] for one in ids], np.uint32)


def _peak(folder: Path, templates: Float[np.ndarray, "template sample channel"]) -> Integer[np.ndarray, "template"]:
    """The channel where each template is largest."""
    # Kilosort's name, and SpikeInterface's.
    channels = next((one for name in ("templates_ind", "template_ind") if (one := _rows(folder / f"{name}.npy", None)) is not None), None)
    if channels is not None and channels.shape == templates.shape[::2] and (channels != np.arange(channels.shape[1])).any():
        # Sparse: each template has its own channels, padded with a number that is none.
        largest = np.ptp(templates, axis=1).argmax(axis=1)
        return channels[np.arange(len(channels)), largest].astype(np.int64)
    unwhiten = _rows(folder / "whitening_mat_inv.npy", templates.shape[2])
    whole = templates if unwhiten is None else templates @ unwhiten
    return np.ptp(whole, axis=1).argmax(axis=1)

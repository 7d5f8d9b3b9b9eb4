"""Electrodes and units as NWB tables, in and out.

Whoever writes the voltage (NeuroConv, see `nwb_compact_conversion`) has made the electrodes table already; then it is used as it is.
"""


import numpy as np
from hdmf.common import DynamicTable, VectorData, VectorIndex
from jaxtyping import Float, UInt
from pynwb import NWBFile
from pynwb.misc import Units as NwbUnits

from nwb_compact import contract as c
from nwb_compact.nwb_io import column, numbers, ragged, ragged_rows, region, strings, table
from nwb_compact.session import Device, Electrodes, Units, Waveforms

OWN_COLUMNS = {c.UNIT_NAME, c.SPIKE_TIMES, c.OBS_INTERVALS, c.ELECTRODES, c.WAVEFORM_MEAN, c.WAVEFORM_SD, "electrode_group", "waveforms"}

def add_electrodes(nwbfile: NWBFile, electrodes: Electrodes, device: Device | None) -> None:
    """Device, groups and electrodes of a session without voltage, named as NeuroConv names them."""
    device = device or Device("unknown", "the source does not name the device")
    model = None
    if device.manufacturer is not None:
        model = nwbfile.create_device_model(name=f"{device.name} model", manufacturer=device.manufacturer)
    recorder = nwbfile.create_device(name=device.name, description=device.description, model=model)
    for name in dict.fromkeys(electrodes.group):
        where = {place for group, place in zip(electrodes.group, electrodes.location, strict=True) if group == name}
        location = where.pop() if len(where) == 1 else "several, see the electrodes"
        nwbfile.create_electrode_group(name=name, description="electrodes sorted together", location=location, device=recorder)
    nwbfile.add_electrode_column(c.CHANNEL_NAME, "name of the channel in the recording")
    given = {"rel_x": electrodes.rel_x_um, "rel_y": electrodes.rel_y_um}
    for row, (name, group, location) in enumerate(zip(electrodes.name, electrodes.group, electrodes.location, strict=True)):
        place = {key: float(values[row]) for key, values in given.items() if values is not None}
        nwbfile.add_electrode(group=nwbfile.electrode_groups[group], location=location, **{c.CHANNEL_NAME: name}, **place)


def add_units(nwbfile: NWBFile, units: Units) -> DynamicTable:
    """The units where NWB wants them: /units with spike times, else processing/ecephys/neurons. Gaps become invalid times."""
    columns = [column(c.UNIT_NAME, "name of the unit in its source", units.name)]
    if units.obs_intervals_s is not None:
        _add_gaps(nwbfile, units.obs_intervals_s)
        columns += ragged(c.OBS_INTERVALS, "when the recording ran, seconds", [units.obs_intervals_s] * len(units), np.float64)
    if units.electrode_index is not None and nwbfile.electrodes is not None:
        where = region(c.ELECTRODES, "the electrode where the unit is largest", units.electrode_index, nwbfile.electrodes)
        columns += [where, VectorIndex(name=f"{c.ELECTRODES}_index", data=np.arange(1, len(units) + 1), target=where)]
    for name, values in units.properties.items():
        stored = [str(value) for value in values] if values.dtype.kind in "OUST" else values
        columns.append(column(name, c.UNIT_PROPERTIES.get(name, "as the source gave it"), stored))
    if units.spike_times_s is None:
        rows = table(c.NEURONS, "the recorded units; the source gave no spike times", len(units), *columns)
        nwbfile.processing[c.ECEPHYS].add(rows)
        return rows
    columns += ragged(c.SPIKE_TIMES, "seconds", units.spike_times_s, np.float64)
    about = {} if units.resolution_s is None else {"resolution": units.resolution_s}
    if (waveforms := units.waveforms) is not None:
        shapes = {c.WAVEFORM_MEAN: waveforms.mean_v, c.WAVEFORM_SD: waveforms.sd_v}
        said = "the spike on the unit's electrode, volts"
        columns += [column(name, said, values) for name, values in shapes.items() if values is not None]
        about |= {"waveform_rate": waveforms.rate_hz, "waveform_time_before_peak_in_ms": 1e3 * waveforms.before_peak_s}
    nwbfile.units = NwbUnits(name="units", description="the recorded units", id=np.arange(len(units)), columns=columns, **about)
    return nwbfile.units


def read_electrodes(nwbfile: NWBFile, where: object) -> Electrodes | None:
    """The electrodes table of any NWB file; None where there is none."""
    rows = nwbfile.electrodes
    if rows is None:
        return None
    names = strings(rows, c.CHANNEL_NAME, where) if c.CHANNEL_NAME in rows.colnames else tuple(str(value) for value in rows.id[:])
    groups = tuple(str(group.name) for group in rows["group"].data[:])
    rel_x, rel_y = (numbers(rows, name, where).astype(float) if name in rows.colnames else None for name in ("rel_x", "rel_y"))
    return Electrodes(names, groups, strings(rows, "location", where), rel_x, rel_y)


def read_device(nwbfile: NWBFile) -> Device | None:
    """The device of the first electrode group; None where there is none."""
    for group in (nwbfile.electrode_groups or {}).values():
        device = group.device
        return Device(device.name, device.description, device.manufacturer if device.model is None else device.model.manufacturer)
    return None


def read_units(rows: DynamicTable, where: object, names: tuple[str, ...] | None = None) -> Units:
    """The units of either table; a column that is ragged or points elsewhere and is not ours is left in the file.

    `names` are for a table that is not ours and has no column of names. Where units were observed at different times, which no file of
    ours says, there are no `obs_intervals_s`: one set cannot tell them; see `observed_of_units`.
    """
    plain = [one for one in rows.columns if type(one) is VectorData and one.name in rows.colnames and rows[one.name] is one]
    further = {one.name: np.asarray(one.data[:]) for one in plain if one.name not in OWN_COLUMNS and len(np.shape(one.data)) == 1}
    resolution = getattr(rows, "resolution", None)
    return Units(
        name=strings(rows, c.UNIT_NAME, where) if names is None else names,
        spike_times_s=tuple(ragged_rows(rows, c.SPIKE_TIMES, where)) if isinstance(rows, NwbUnits) else None,
        obs_intervals_s=_observed(rows, where),
        resolution_s=None if resolution is None else float(resolution),
        electrode_index=_electrode_index(rows, where),
        properties={name: values.astype(str) if values.dtype.kind == "O" else values for name, values in further.items()},
        waveforms=_waveforms(rows, where),
    )


def observed_of_units(rows: DynamicTable, where: object) -> list[Float[np.ndarray, "_ 2"]] | None:
    """When each unit was observed, a row for each stretch; None where the table does not tell."""
    if c.OBS_INTERVALS not in rows.colnames:
        return None
    return [np.asarray(one, float).reshape(-1, 2) for one in ragged_rows(rows, c.OBS_INTERVALS, where)]


def _add_gaps(nwbfile: NWBFile, observed_s: Float[np.ndarray, "interval 2"]) -> None:
    for stop, start in zip(observed_s[:-1, 1], observed_s[1:, 0], strict=True):
        nwbfile.add_invalid_time_interval(start_time=float(stop), stop_time=float(start))


def _observed(rows: DynamicTable, where: object) -> Float[np.ndarray, "interval 2"] | None:
    of_units = observed_of_units(rows, where)
    if not of_units or any(not np.array_equal(one, of_units[0]) for one in of_units[1:]):
        return None
    return of_units[0]


def _electrode_index(rows: DynamicTable, where: object) -> UInt[np.ndarray, "unit"] | None:
    if c.ELECTRODES not in rows.colnames:
        return None
    of_units = ragged_rows(rows, c.ELECTRODES, where)
    if not of_units or any(len(one) == 0 for one in of_units):
        return None
    return np.array([one[0] for one in of_units], np.uint32)


def _waveforms(rows: DynamicTable, where: object) -> Waveforms | None:
    """Only one electrode a unit, as this program writes them, and only with the rate that gives their time axis."""
    rate_hz, before_peak_ms = (getattr(rows, name, None) for name in ("waveform_rate", "waveform_time_before_peak_in_ms"))
    if c.WAVEFORM_MEAN not in rows.colnames or rate_hz is None or before_peak_ms is None:
        return None
    mean = numbers(rows, c.WAVEFORM_MEAN, where)
    sd = numbers(rows, c.WAVEFORM_SD, where) if c.WAVEFORM_SD in rows.colnames else None
    return Waveforms(mean, sd, float(rate_hz), 1e-3 * float(before_peak_ms)) if mean.ndim == 2 else None

"""An NWB file of another program, with units and presentations under its own names, as `session.yaml` maps them.

Seen so far: tables of intervals (Allen Institute: natural_scenes_presentations; DiCarlo lab: trials), IndexSeries, and units in /units
or in a processing module. All times of an NWB file are on one clock, so such a session needs no alignment.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_io import numbers, opened
from nwb_compact.nwb_session import in_memory
from nwb_compact.nwb_units import observed_of_units, read_device, read_electrodes, read_units
from nwb_compact.session import BLANK, About, Images, Subject, Units
from nwb_compact_conversion.recorded import Recorded
from nwb_compact_conversion.session_yaml import Stimuli
from nwb_compact_conversion.sources.foreign_log import read_foreign_log
from nwb_compact_conversion.sources.reading import read_by, reading
from nwb_compact_conversion.sources.stretches import Stretches, in_common, joined, without
from nwb_compact_conversion.sources.unit_names import require_names
from nwb_compact_conversion.stimulus.stimulus_log import StimulusLog
from nwb_compact_conversion.stimulus.while_recording import recorded_s


def with_blank(stimuli: Stimuli) -> Stimuli:
    """The settings under which the log of `read_foreign_nwb` is joined with images: `BLANK` then means that nothing was shown."""
    return stimuli.model_copy(update={"blank": (*stimuli.blank, BLANK)})


def read_foreign_nwb(
    file_path: Path, stimuli: Stimuli, report: Callable[[str], None] = lambda line: None
) -> tuple[Recorded, StimulusLog, Images | None, About, Subject | None]:
    """Units, log, images, session and animal of an NWB file.

    Parameters
    ----------
    file_path
        The file.
    stimuli
        `table` and `columns` name the log, `templates` the images in the file. Where `images` names a folder none are read from
        the file. What the file leaves no choice about needs no name.
    report
        Called with a line where units were observed at different times.

    Returns
    -------
    tuple
        Recorded units, with scalar columns as properties and their electrodes; the log in the order of its onsets, whose images
        are names of the images in the file or what the column says; those images, None where `stimuli.images` names others;
        and what the file says of session and animal. A row whose image is NaN, negative or empty showed nothing: it stays, as
        an invalid one of the image `BLANK`; see `with_blank`. The units' `obs_intervals_s` are the time in which all of them were
        observed, less the file's invalid times whatever their tags. A file with invalid times and without obs_intervals is taken to
        have recorded as `while_recording.recorded_s` says, until shortly after the last spike of all.

    Raises
    ------
    NwbCompactError
        If the file is damaged or lacks a table, column, units or spike times that are asked for (the message lists what is
        there), has a unit twice, units that were never observed all at the same time, no valid time, a log as `log_of` refuses it,
        images that are not 8 bits or numbers in the log that count none of them.

    Examples
    --------
    >>> read_foreign_nwb(Path("no-such-file.nwb"), Stimuli())
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such-file.nwb: found no file, expected an NWB file. Next: correct the path
    """
    with reading(file_path, "a whole NWB file"), opened(file_path) as file:
        nwbfile = file.nwbfile
        log, images = read_foreign_log(nwbfile, stimuli, file_path)
        recorded = Recorded(
            files=(file_path,),
            reader=read_by("pynwb", "NWBHDF5IO"),
            start_time=nwbfile.timestamps_reference_time,
            device=read_device(nwbfile),
            units=_units(nwbfile, file_path, report),
            electrodes=read_electrodes(nwbfile, file_path),
        )
        # All times count from the reference time. An identifier belongs to one file, and so does the record of how it was made.
        about = replace(
            in_memory(About, nwbfile),
            identifier=f"{nwbfile.identifier}-nwb-compact",
            session_start_time=nwbfile.timestamps_reference_time,
            source_script=None,
        )
        subject = None if nwbfile.subject is None else in_memory(Subject, nwbfile.subject)
        return _with_gaps(recorded, nwbfile, file_path), log, images, about, subject


# Units ------------------------------------------------------------------------------------------------------------------


def _units(nwbfile: Any, file_path: Path, report: Callable[[str], None]) -> Units:
    tables = [nwbfile.units] if nwbfile.units is not None else [
        one for module in nwbfile.processing.values() for one in module.data_interfaces.values() if one.neurodata_type == "Units"
    ]
    if not tables or not len(tables[0]):
        found, next_step = "no unit", "convert a file that has /units"
        raise NwbCompactError(file_path, found=found, expected="units with spike times", next_step=next_step)
    rows = tables[0]
    if c.SPIKE_TIMES not in rows.colnames:
        found = f"units without spike times (columns {', '.join(rows.colnames)})"
        raise NwbCompactError(file_path, found=found, expected="spike times", next_step="convert a file that has them, or counts")
    column = next((name for name in (c.UNIT_NAME, "unit_id", "name") if name in rows.colnames), None)
    names = tuple(str(one) for one in (rows.id if column is None else rows[column])[:])
    require_names(file_path, names)
    units = read_units(rows, file_path, names)
    assert units.spike_times_s is not None
    spikes = tuple(np.sort(np.asarray(train, np.float64)) for train in units.spike_times_s)
    for name, train in zip(names, spikes, strict=True):
        if not np.isfinite(train).all():
            found = f"spike times of unit '{name}' that are no numbers"
            raise NwbCompactError(file_path, found=found, expected="seconds", next_step="correct or remove that unit")
    of_units = observed_of_units(rows, file_path)
    observed = None if of_units is None else _observed(of_units, names, file_path, report)
    return replace(units, spike_times_s=spikes, obs_intervals_s=observed)


# When they were observed ------------------------------------------------------------------------------------------------


def _observed(of_units: Sequence[Stretches], names: Sequence[str], file_path: Path, report: Callable[[str], None]) -> Stretches | None:
    """When all units were observed: outside of that a unit without spikes may have been silent or out of sight."""
    where = f"{file_path}: {c.OBS_INTERVALS}"
    for name, stretches in zip(names, of_units, strict=True):
        _require_stretches(f"{where} of unit '{name}'", stretches)
    whole = [joined(stretches) for stretches in of_units]
    if not any(map(len, whole)):
        return None
    untold = [name for name, stretches in zip(names, whole, strict=True) if not len(stretches)]
    if untold:
        found, expected = f"none for {len(untold)} of {len(names)} units ('{untold[0]}')", "some for each unit, or for none"
        raise NwbCompactError(where, found=found, expected=expected, next_step="give them theirs, or leave these units out")
    common = in_common(whole)
    if not len(common):
        first, last = int(np.argmin([one[-1, 1] for one in whole])), int(np.argmax([one[0, 0] for one in whole]))
        said = ", ".join(f"'{names[unit]}' from {whole[unit][0, 0]:g} to {whole[unit][-1, 1]:g} s" for unit in (first, last))
        next_step = "save units that were observed together as files of their own and convert each, or leave units out"
        found = f"units that were never observed all at the same time ({said})"
        raise NwbCompactError(where, found=found, expected="time common to all", next_step=next_step)
    if any(not np.array_equal(stretches, common) for stretches in whole):
        together_s, any_s = _seconds(common), _seconds(joined(np.concatenate(whole)))
        report(f"units were observed at different times: the {together_s:.1f} s common to all {len(whole)} count, of {any_s:.1f} s in all")
    return common


def _with_gaps(recorded: Recorded, nwbfile: Any, file_path: Path) -> Recorded:
    """The invalid times cut out of when the units were observed."""
    units, observed, rows = recorded.units, recorded_s(recorded), nwbfile.invalid_times
    if units is None or observed is None or rows is None or not len(rows):
        return recorded
    where = f"{file_path}: {rows.name}"
    gaps = np.column_stack([numbers(rows, name, file_path).astype(float) for name in (c.START_TIME, c.STOP_TIME)])
    _require_stretches(where, gaps)
    left = without(observed, gaps)
    if not len(left):
        found, next_step = f"all {_seconds(joined(observed)):.1f} s of the units invalid", "correct the table of invalid times"
        raise NwbCompactError(where, found=found, expected="some valid time", next_step=next_step)
    return replace(recorded, units=replace(units, obs_intervals_s=left))


def _require_stretches(where: str, stretches: Stretches) -> None:
    broken = np.flatnonzero(~np.isfinite(stretches).all(axis=1) | (stretches[:, 0] > stretches[:, 1]))
    if len(broken):
        found = "{:g} to {:g} s".format(*stretches[broken[0]]) + f" in row {broken[0] + 1}"
        raise NwbCompactError(where, found=found, expected="starts before stops", next_step="correct that row in the file")


def _seconds(stretches: Stretches) -> float:
    return float(np.diff(stretches).sum())

"""The electrodes of a recording: each channel's name, array, brain area and position, as NeuroConv writes them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from probeinterface import Probe, ProbeGroup
from spikeinterface import BaseRecording

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.session import Electrodes
from nwb_compact_conversion.geometry import Contact, read_contacts
from nwb_compact_conversion.session_yaml import DeviceFacts
from nwb_compact_conversion.sources.reading import channel_names

ONE_ARRAY = "array"
"""Group of electrodes of which nobody told an array. Not `electrodes`: that is the name of the table in the file."""
UNKNOWN = "unknown"
APART_UM = 10_000.0
"""Distance at which SpikeInterface is told that arrays lie, since positions are relative to their own array: no spike reaches so far."""


def with_geometry(recording: BaseRecording, device: DeviceFacts) -> BaseRecording:
    """The same voltage with what NeuroConv writes of its electrodes: names, groups, brain areas and positions.

    Parameters
    ----------
    recording
        As its source gives it; it is not changed. What it knows of probes stays, unless `device.geometry` replaces it.
    device
        `geometry` and `location` are used. A geometry may hold more contacts than were recorded; every recorded channel must be in it.

    Returns
    -------
    BaseRecording
        Has the properties channel_name, group_name, group and brain_area, and with a geometry a probe for each group. The property
        `location` holds the positions on each array, micrometres: NeuroConv 0.10 writes rel_x and rel_y from it, and
        SpikeInterface 0.105 no longer sets it.

    Raises
    ------
    NwbCompactError
        If the geometry cannot be read, lacks a recorded channel, or gives two of them one position; or if `location` names an array
        that does not exist or leaves one out.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> recording = NumpyRecording([np.zeros((30, 2))], sampling_frequency=1000.0, channel_ids=["1", "2"])
    >>> electrodes_of(with_geometry(recording, DeviceFacts(location="V4")))
    Electrodes(name=('1', '2'), group=('array', 'array'), location=('V4', 'V4'), rel_x_um=None, rel_y_um=None)
    """
    known = recording.select_channels(recording.channel_ids)
    before, contacts = electrodes_of(recording), None
    if device.geometry is not None:
        ids = [str(channel) for channel in recording.channel_ids]
        called = [(name, channel, f"#{row}") for row, (name, channel) in enumerate(zip(before.name, ids, strict=True))]
        contacts = _matched(device.geometry, before.name, called)
    groups = _groups(before.group, contacts)
    locations = _locations(before.location, contacts, groups, device.location)
    if contacts is not None:
        _attach(known, contacts, groups)
    elif known.has_probe():
        known.set_property("location", np.array(known.get_channel_locations(), float))
    known.set_property(c.CHANNEL_NAME, np.array(before.name))
    known.set_property("group_name", np.array(groups))
    known.set_channel_groups(np.unique(groups, return_inverse=True)[1])
    known.set_property("brain_area", np.array(locations))
    return known


def electrodes_of(recording: BaseRecording) -> Electrodes:
    """The electrodes of a recording, a row a channel; see `with_geometry`."""
    n = recording.get_num_channels()
    group, area, position = (recording.get_property(name) for name in ("group_name", "brain_area", "location"))
    numbers = recording.get_channel_groups()
    if group is None and numbers is not None and len(np.unique(numbers)) > 1:
        group = np.array([f"group {number}" for number in numbers])  # shanks that the source only numbers
    return Electrodes(
        name=tuple(channel_names(recording)),
        group=(ONE_ARRAY,) * n if group is None else tuple(str(name) or ONE_ARRAY for name in group),
        location=(UNKNOWN,) * n if area is None else tuple(str(name) or UNKNOWN for name in area),
        rel_x_um=None if position is None else np.asarray(position[:, 0], float),
        rel_y_um=None if position is None else np.asarray(position[:, 1], float),
    )


def placed(electrodes: Electrodes, device: DeviceFacts) -> Electrodes:
    """Electrodes of a source without voltage, with what `device` tells of them; as `with_geometry` does for a recording.

    An electrode is found by its name, else by the number at its end: ch12 of a .nev is channel 12 of a map.

    Raises
    ------
    NwbCompactError
        As `with_geometry`.

    Examples
    --------
    >>> placed(Electrodes(("ch1", "ch2"), ("A", "B"), ("unknown", "unknown")), DeviceFacts(location={"A": "V1", "B": "V4"})).location
    ('V1', 'V4')
    """
    contacts = None
    if device.geometry is not None:
        numbers = ["".join(name[len(name.rstrip("0123456789")) :]) for name in electrodes.name]
        contacts = _matched(device.geometry, electrodes.name, list(zip(electrodes.name, numbers, strict=True)))
    groups = _groups(electrodes.group, contacts)
    locations = _locations(electrodes.location, contacts, groups, device.location)
    if contacts is None:
        return replace(electrodes, group=tuple(groups), location=tuple(locations))
    x_um, y_um = (np.array([getattr(contact, axis) for contact in contacts], float) for axis in ("x_um", "y_um"))
    return Electrodes(electrodes.name, tuple(groups), tuple(locations), x_um, y_um)


def read_geometry(file_path: Path, location: str | None = None) -> Electrodes:
    """All electrodes of a geometry file, whether recorded or not, in its order; see `geometry.read_contacts`.

    Parameters
    ----------
    file_path
        A .cmp, .csv or .json.
    location
        Brain area of those of which the file tells none.

    Raises
    ------
    NwbCompactError
        If the file cannot be read.
    """
    contacts = read_contacts(file_path)
    return Electrodes(
        name=tuple(contact.known_as[0] for contact in contacts),
        group=tuple(contact.array or ONE_ARRAY for contact in contacts),
        location=tuple(contact.location or location or UNKNOWN for contact in contacts),
        rel_x_um=np.array([contact.x_um for contact in contacts], float),
        rel_y_um=np.array([contact.y_um for contact in contacts], float),
    )


def _matched(geometry: Path, names: Sequence[str], called: Sequence[Sequence[str]]) -> list[Contact]:
    """The contact of each channel, which may be called in several ways; the first that is known counts."""
    contacts = {key: contact for contact in read_contacts(geometry) for key in contact.known_as}
    found = [next((contacts[key] for key in keys if key in contacts), None) for keys in called]
    if absent := [name for name, contact in zip(names, found, strict=True) if contact is None]:
        shown = f"{', '.join(absent[:5])}{' and more' if len(absent) > 5 else ''}"
        next_step = f"add them; it names {', '.join(list(contacts)[:5])} ..."
        raise NwbCompactError(geometry, found=f"no position of {len(absent)} of {len(names)} channels ({shown})",
                              expected="one for every recorded channel", next_step=next_step)
    matched = [contact for contact in found if contact is not None]
    for index, contact in enumerate(matched):
        if (first := matched.index(contact)) != index:
            raise NwbCompactError(geometry, found=f"one position for channels {names[first]} and {names[index]}",
                                  expected="one electrode a channel", next_step="correct the names of channels in it")
    return matched


def _groups(known: Sequence[str], contacts: Sequence[Contact] | None) -> list[str]:
    return list(known) if contacts is None else [contact.array or name for contact, name in zip(contacts, known, strict=True)]


def _locations(
    known: Sequence[str], contacts: Sequence[Contact] | None, groups: list[str], told: str | dict[str, str] | None
) -> list[str]:
    if isinstance(told, str):
        return [told] * len(groups)
    if told is not None:
        for name in told:
            if name not in groups:
                found, expected = f"an array {name!r}", f"an array of the recording ({nearest(name, sorted(set(groups)))})"
                raise NwbCompactError("device.location", found=found, expected=expected, next_step="correct session.yaml")
        if absent := sorted(set(groups) - set(told)):
            raise NwbCompactError("device.location", found=f"no brain area of array {absent[0]!r}", expected="one for each array",
                                  next_step="add it to session.yaml (unknown is a possible value)")
        return [told[group] for group in groups]
    return list(known) if contacts is None else [contact.location or name for contact, name in zip(contacts, known, strict=True)]


def _attach(recording: BaseRecording, contacts: Sequence[Contact], groups: list[str]) -> None:
    """A probe for each group; sorters and the noise between neighbours need them."""
    position_um = np.array([[contact.x_um, contact.y_um] for contact in contacts], float)
    together, edge_um = ProbeGroup(), 0.0
    for group in dict.fromkeys(groups):
        rows = np.flatnonzero(np.array(groups) == group)
        probe = Probe(ndim=2, si_units="um")
        shifted_um = position_um[rows] + [edge_um - position_um[rows, 0].min() if edge_um else 0.0, 0.0]
        probe.set_contacts(shifted_um, shapes="circle", shape_params={"radius": 1})
        probe.set_device_channel_indices(rows)
        together.add_probe(probe)
        edge_um = shifted_um[:, 0].max() + APART_UM
    recording.set_probegroup(together)
    recording.set_property("location", position_um)

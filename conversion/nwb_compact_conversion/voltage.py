"""The raw voltage and its electrodes in the session file, as NeuroConv writes them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Device, Electrodes

BUFFER_GB = 0.25
"""Voltage held in memory at a time while it is written."""
SERIES, DEVICE, MODEL = "raw", "recorder", "model"
"""Keys by which NeuroConv's metadata name what belongs together; they are not in the file."""


def voltage_adder(recording: BaseRecording, electrodes: Electrodes, device: Device | None, *, keep_voltage: bool) -> Callable[[Any], None]:
    """What adds a recording to an empty `NWBFile`: device, groups and electrodes, and unless unwanted the compressed voltage.

    Parameters
    ----------
    recording
        One segment for each stretch without a gap; each becomes an `ElectricalSeries` in /acquisition with its own start.
    electrodes
        The same channels in the same order (see `electrodes_of`).
    device
        What recorded.
    keep_voltage
        False writes the electrodes only.

    Raises
    ------
    NwbCompactError
        If the voltage is to be kept and has no scale: a count of the converter is then no known number of volts.
    """
    if keep_voltage and not recording.has_scaleable_traces():
        next_step = "set gain_to_uV and offset_to_uV of its channels, or leave the voltage out (device: {keep_voltage: false})"
        raise NwbCompactError("recording", found="voltage without a gain", expected="microvolts per count", next_step=next_step)

    def add(nwbfile: Any) -> None:
        from neuroconv.tools.nwb_helpers import configure_backend, get_default_backend_configuration
        from neuroconv.tools.spikeinterface import add_recording_metadata_to_nwbfile, add_recording_to_nwbfile

        metadata = _metadata(electrodes, device)
        if not keep_voltage:
            add_recording_metadata_to_nwbfile(recording, nwbfile, metadata)
            return
        options = {"buffer_gb": BUFFER_GB, "display_progress": False}
        add_recording_to_nwbfile(recording, nwbfile, metadata, metadata_key=SERIES, iterator_options=options)
        configure_backend(nwbfile, get_default_backend_configuration(nwbfile, backend="hdf5"))

    return add


def voltage_bytes(recording: BaseRecording) -> int:
    """Room that the uncompressed voltage takes."""
    return sum(recording.get_memory_size(segment) for segment in range(recording.get_num_segments()))


def _metadata(electrodes: Electrodes, device: Device | None) -> dict[str, Any]:
    device = device or Device("unknown")
    facts = {"name": device.name, "description": device.description or "The source does not describe it."}
    models: dict[str, Any] = {}
    if device.manufacturer is not None:
        facts["device_model_metadata_key"] = MODEL
        models = {MODEL: {"name": f"{device.name} model", "manufacturer": device.manufacturer}}
    return {
        "Devices": {DEVICE: facts},
        "DeviceModels": models,
        "Ecephys": {
            "ElectrodeGroups": {name: _group(name, electrodes) for name in dict.fromkeys(electrodes.group)},
            "ElectricalSeries": {SERIES: {"name": "ElectricalSeries", "description": "the voltage as it was recorded, unfiltered"}},
        },
    }


def _group(name: str, electrodes: Electrodes) -> dict[str, str]:
    where = np.unique([place for group, place in zip(electrodes.group, electrodes.location, strict=True) if group == name])
    location = str(where[0]) if len(where) == 1 else "several, see the electrodes"
    return {"name": name, "description": "electrodes that are sorted together", "location": location, "device_metadata_key": DEVICE}

"""What NeuroConv lacks, as its own kind of interface, for labs that convert with NeuroConv already and want to add flashed images.

    pipe = ConverterPipe({
        "Recording": BlackrockRecordingInterface(file_path="a.ns5"),
        "Images": FlashedImagesInterface(images="images"),
        "Presentations": StimulusPresentationsInterface(log="log.csv", duration_s=0.1),
        "Responses": SpikeCountMatrixInterface(file_path="counts.npy", axes=["presentation", "unit"]),
    })

Interfaces add to the file in this order: presentations name images, counts name presentations. `nwb-compact convert` writes the same
tables by the same functions. A stub holds all of them: they are small beside a recording, and name each other.
"""

from pathlib import Path
from typing import Any

import numpy as np
from neuroconv.basedatainterface import BaseDataInterface

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_responses import add_responses
from nwb_compact.nwb_stimuli import add_presentations, add_stimulus_images, read_presentations
from nwb_compact.nwb_units import add_electrodes
from nwb_compact.session import Device, Images, SpikeCounts
from nwb_compact_conversion.electrodes import read_geometry
from nwb_compact_conversion.session_yaml import Responses, Stimuli
from nwb_compact_conversion.sources.counts import read_counts, responses_of, told_windows
from nwb_compact_conversion.stimulus.presentations import present
from nwb_compact_conversion.stimulus.stimuli import read_stimuli
from nwb_compact_conversion.stimulus.stimulus_log import read_log


class FlashedImagesInterface(BaseDataInterface):
    """The images that were shown, in an order that presentations can count."""

    display_name = "Flashed images"
    keywords = ("stimulus", "images")
    associated_suffixes = (".zip", ".npy")
    info = "Images of a folder, a zip or a .npy stack."

    def __init__(self, images: str | Path, kind: str | None = None, licence: str | None = None, verbose: bool = False):
        super().__init__(verbose=verbose, images=str(images), kind=kind, licence=licence)
        self.images = read_stimuli(Stimuli(images=Path(images), kind=kind, licence=licence))

    def add_to_nwbfile(self, nwbfile: Any, metadata: dict | None = None, stub_test: bool = False) -> None:
        """Add the images."""
        add_stimulus_images(nwbfile, self.images)


class StimulusPresentationsInterface(BaseDataInterface):
    """What was shown when, from the log of the stimulus computer."""

    display_name = "Stimulus presentations"
    keywords = ("stimulus", "presentations", "log")
    associated_suffixes = (".csv", ".tsv", ".jsonl", ".mat")
    info = "One row a presentation; onsets on the clock of the recording, or put there with set_aligned_onsets."

    def __init__(self, log: str | Path, columns: dict[str, str] | None = None, duration_s: float | None = None, first_number: int = 1,
                 onset_unit: str = "s", verbose: bool = False):
        told = {"duration_s": duration_s, "first_number": first_number, "onset_unit": onset_unit}
        super().__init__(verbose=verbose, log=str(log), columns=columns, **told)
        self.settings = Stimuli.model_validate({"log": log, "columns": columns or {}, **told})
        self.log = read_log(self.settings)
        self.onset_s = self.log.onset_s

    def set_aligned_onsets(self, onset_s: np.ndarray) -> None:
        """Put the onsets on the recording's clock, in seconds; one for each row of the log (see `alignment.align`).

        Raises
        ------
        NwbCompactError
            If there are more or fewer than rows.
        """
        aligned_s = np.asarray(onset_s, float)
        if aligned_s.shape != self.onset_s.shape:
            found, expected = f"onsets of shape {aligned_s.shape}", f"{len(self.onset_s)}, one for each row of the log"
            raise NwbCompactError("set_aligned_onsets", found=found, expected=expected, next_step="give NaN where a row has none")
        self.onset_s = aligned_s

    def add_to_nwbfile(self, nwbfile: Any, metadata: dict | None = None, stub_test: bool = False) -> None:
        """Add the presentations of the images that the file holds already."""
        rows = nwbfile.stimulus.get(c.IMAGE_TABLE)
        if rows is None:
            raise _missing("images", "FlashedImagesInterface before StimulusPresentationsInterface")
        names = tuple(str(name) for name in rows[c.NAME].data)
        images = Images(names, tuple(str(one) for one in rows[c.SHA256].data))
        _, presentations = present(self.log, images, self.settings, self.onset_s, None)
        add_presentations(nwbfile, presentations)


class SpikeCountMatrixInterface(BaseDataInterface):
    """Counts of units that somebody sorted and counted already."""

    display_name = "Spike count matrix"
    keywords = ("spike counts", "responses")
    associated_suffixes = (".npy", ".npz", ".csv", ".mat")
    info = "Counts per presentation and unit, in the order of the presentations."

    def __init__(self, file_path: str | Path, window_s: tuple[float, float] | None = None, axes: list[str] | None = None,
                 variable: str | None = None, verbose: bool = False):
        super().__init__(verbose=verbose, file_path=str(file_path), window_s=window_s, axes=axes, variable=variable)
        self.file_path = Path(file_path)
        told = {} if window_s is None else {"window_s": window_s}
        self.responses = Responses.model_validate(told | {"axes": axes, "variable": variable})

    def add_to_nwbfile(self, nwbfile: Any, metadata: dict | None = None, stub_test: bool = False) -> None:
        """Add the units and their counts in the presentations that the file holds already."""
        presentations = read_presentations(nwbfile, Path("NWBFile"))
        if presentations is None:
            raise _missing("presentations", "StimulusPresentationsInterface before SpikeCountMatrixInterface")
        counted = read_counts(self.file_path, self.responses, n_presentations=len(presentations))
        if counted.values is None or counted.axes != ("presentation", "unit"):
            found, expected, next_step = f"axes {counted.axes}", "counts of presentations and units", "give axes=['presentation', 'unit']"
            raise NwbCompactError(self.file_path, found=found, expected=expected, next_step=next_step)
        response_units, counted_in = told_windows(self.responses, len(counted.units))
        _, counts = responses_of(counted, presentations, counted_in)
        add_responses(nwbfile, counted.units, response_units, counts if isinstance(counts, SpikeCounts) else None, None)


class UtahArrayProbeInterface(BaseDataInterface):
    """The electrodes of one or more Utah arrays, from the map file that came with them."""

    display_name = "Utah array"
    keywords = ("electrodes", "Utah array", "geometry")
    associated_suffixes = (".cmp", ".csv")
    info = "Positions of electrodes for sources that keep spikes or counts but no voltage."

    def __init__(self, file_path: str | Path, location: str = "unknown", device_name: str = "Utah array", verbose: bool = False):
        super().__init__(verbose=verbose, file_path=str(file_path), location=location, device_name=device_name)
        self.electrodes = read_geometry(Path(file_path), location)
        self.device = Device(device_name)

    def add_to_nwbfile(self, nwbfile: Any, metadata: dict | None = None, stub_test: bool = False) -> None:
        """Add device, groups and electrodes.

        Raises
        ------
        NwbCompactError
            If another interface has added electrodes: those of a recording get their places from `electrodes.with_geometry`.
        """
        if nwbfile.electrodes is not None:
            next_step = "leave UtahArrayProbeInterface out, and give the recording its geometry with electrodes.with_geometry"
            raise NwbCompactError("ConverterPipe", found="electrodes of another interface", expected="none yet", next_step=next_step)
        add_electrodes(nwbfile, self.electrodes, self.device)


def _missing(what: str, before: str) -> NwbCompactError:
    return NwbCompactError("ConverterPipe", found=f"no {what}", expected=f"the {what}", next_step=f"put {before}")

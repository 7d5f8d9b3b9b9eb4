"""Open Ephys: voltage, TTL events and ADC channels, from either of its formats."""

from pathlib import Path

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.recorded import Recorded
from nwb_compact_conversion.sources.openephys_binary import read_binary
from nwb_compact_conversion.sources.openephys_legacy import read_legacy
from nwb_compact_conversion.sources.reading import existing_folder, reading

EXPECTED = "an Open Ephys folder (structure.oebin, or .continuous files)"


def read_openephys(folder: Path, *, stream: str | None = None) -> Recorded:
    """One Open Ephys recording.

    Parameters
    ----------
    folder
        Of the whole session, or of one record node, experiment or recording in it.
    stream
        Which continuous stream, for example Record Node 101#Acquisition_Board-100.acquisition_board; needed where there are several.

    Returns
    -------
    Recorded
        Events are the edges of each TTL line (TTL1, TTL2, ...), 1 where it rose and 0 where it fell. `analog` are the ADC channels of
        the same stream. Recordings of one experiment, and samples that were lost, are segments.

    Raises
    ------
    NwbCompactError
        If the folder is absent or another, holds several streams or experiments, a file ends early, or sample numbers go back.

    Notes
    -----
    TTL lines of the stream itself are placed by their sample numbers. Lines of another processor (a NI-DAQ beside a probe, named
    `stream#TTL1`) have a clock of their own: they are placed by the common time stamps that the program writes since version 0.6,
    which are as good as the synchronisation that was set up there; in recordings of earlier versions they are left out.

    Examples
    --------
    >>> read_openephys(Path("no-such-session"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such-session: found no such folder, expected an Open Ephys folder
    (structure.oebin, or .continuous files). Next: correct the path
    """
    existing_folder(folder, EXPECTED)
    binary, legacy = any(folder.rglob("structure.oebin")), any(folder.rglob("*.continuous"))
    if binary == legacy:
        found = "files of both formats" if binary else "neither of these"
        raise NwbCompactError(folder, found=found, expected=EXPECTED, next_step="name the folder of one recording")
    with reading(folder, EXPECTED):
        return read_binary(folder, stream) if binary else read_legacy(folder, stream)

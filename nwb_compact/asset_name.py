"""What a session file is called in a dandiset.

`dandi organize` drops the session from a name where two files of a dandiset would get the same one, so files are named here instead.
"""

import re

from nwb_compact.errors import NwbCompactError

MODALITIES = "ecephys+image"
"""What was recorded and what was shown, as DANDI abbreviates it; also where a file keeps only hashes of its images."""


def asset_name(subject_id: str, session_id: str | None, run_id: str | None) -> str:
    """Path of a session file in its dandiset.

    Parameters
    ----------
    subject_id, session_id
        As the file gives them; other characters than letters and digits become dashes, since `_`, `.` and `/` part the name.
    run_id
        The last run of the file, or None where it has none.

    Raises
    ------
    NwbCompactError
        If nothing is left of an id.

    Examples
    --------
    >>> asset_name("M1", "2024.01_01", "20240203-101500")
    'sub-M1/sub-M1_ses-2024-01-01_desc-compact-20240203-101500_ecephys+image.nwb'
    >>> asset_name("M1", None, None)
    'sub-M1/sub-M1_ecephys+image.nwb'
    """
    subject = f"sub-{_label('subject_id', subject_id)}"
    session = "" if session_id is None else f"_ses-{_label('session_id', session_id)}"
    run = "" if run_id is None else f"_desc-compact-{_label('run id', run_id)}"
    return f"{subject}/{subject}{session}{run}_{MODALITIES}.nwb"


def _label(what: str, name: str) -> str:
    label = re.sub("[^A-Za-z0-9]+", "-", name).strip("-")
    if not label:
        raise NwbCompactError(what, found=repr(name), expected="letters or digits, from which DANDI makes a name",
                              next_step="give it in the YAML of nwb-compact convert and convert again")
    return label

"""What made the numbers: program, versions, commit, machine, settings and inputs, as plain keys and values."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from nwb_compact import __version__
from nwb_compact.address import Address, is_address
from nwb_compact.config import Fit, flat
from nwb_compact.responses import Responses

PACKAGES = ("torch", "numpy", "scipy", "pynwb", "hdmf", "h5py")


def record(config: Fit, command: str, facts: Mapping[str, str], *, fitted_teacher: bool = True) -> dict[str, str]:
    """One flat table: the program and its world, the given facts, then every setting that was used. What is not known has no key.

    Parameters
    ----------
    config
        All settings.
    command
        The command line that would repeat the fit.
    facts
        What the fit itself knows: inputs, sizes, seconds.
    fitted_teacher
        Whether there was one; of a teacher from a file the settings say nothing.

    Examples
    --------
    >>> from nwb_compact.config import configure
    >>> record(configure("quick"), "nwb-compact fit a.nwb", {"device": "cpu"})["setting.teacher.members"]
    '2'
    """
    settings = {f"setting.{name}": value for name, value in flat(config).items() if fitted_teacher or not name.startswith("teacher.")}
    return world(command) | {"preset": config.preset, "seed": str(config.seed)} | dict(facts) | settings


def world(command: str) -> dict[str, str]:
    """The program, and the machine and moment in which it ran.

    Examples
    --------
    >>> list(world("nwb-compact fit a.nwb"))[:2]
    ['program', 'version']
    """
    return {
        "program": "nwb-compact",
        "version": __version__,
        **commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{f"version.{package}": found for package in PACKAGES if (found := _version(package))},
    }


def command_line(command: str) -> str:
    """How this program was called, without what only this once was needed.

    Neither keys to the addresses that it read nor folders of a lab's machines belong in a file that is shared. Only of a backbone that
    lies in a folder (`hf:FOLDER`) the name stays whole, here as in the settings.
    """
    words = sys.argv[sys.argv.index(command) + 1 :] if command in sys.argv else []
    return shlex.join(["nwb-compact", command, *(_shareable(word) for word in words if word != "--resume")])


def _shareable(word: str) -> str:
    if is_address(word):
        return Address(word).shown
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if os.sep not in value or value.startswith(("hf:", "torch:")):  # names of a backbone, which the settings tell too
        return word
    return option + equals + (os.path.basename(value.rstrip(os.sep)) or os.sep)


def input_hash(responses: Responses) -> str:
    """SHA-256 of what a fit reads of a session: units, images, averages, repeats, single counts. Results in the file do not change it.

    Examples
    --------
    >>> from nwb_compact.responses import responses_of
    >>> from nwb_compact.session import example_session
    >>> len(input_hash(responses_of(example_session())))
    64
    """
    digest = sha256("\n".join((*responses.unit_name, *responses.image_sha256)).encode())
    for numbers in (responses.mean, responses.n_repeats, responses.count, responses.image_of_count):
        if numbers is not None:
            digest.update(str(numbers.shape).encode() + np.ascontiguousarray(numbers, dtype="<f8").tobytes())
    return digest.hexdigest()


def program() -> list[object]:
    """What must be the same where half-finished work is gone on with: the program, its commit, and torch.

    Examples
    --------
    >>> program()[0] == __version__
    True
    """
    return [__version__, _version("torch"), commit()]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def commit() -> dict[str, str]:
    """Commit and state of the checkout the program runs from; nothing for an installed wheel."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return {}
    try:
        run = [subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
               for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))]
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": run[0], "working_tree": "modified" if run[1] else "clean"}

"""The work folder of a fit: what is already computed, kept so that a fit that was killed goes on where it stopped.

The folder lies beside the file and is named by everything that decides the scores, so nothing of another fit is ever taken for this one's.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from nwb_compact.errors import NwbCompactError
from nwb_compact.feature_cache import default_cache_folder


@dataclass(frozen=True)
class Work:
    """Where a fit computes, where it keeps what it has, and how loudly."""

    device: str
    """cpu or cuda."""
    folder: Path
    quiet: bool = False
    cache: Path = field(default_factory=default_cache_folder)
    """Folder of the features of frozen backbones; other fits use it too."""

    def path(self, name: str) -> Path:
        """A file in the folder."""
        return self.folder / name

    def array(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """An array that is computed once; read from the disk as it is used."""
        path = self.path(f"{name}.npy")
        if not path.exists():
            beside = path.with_suffix(".part")
            with beside.open("wb") as stream:
                np.save(stream, compute())
            os.replace(beside, path)
        return np.load(path, mmap_mode="r")

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds that pass inside to those of a stage, over all resumptions."""
        start = time.monotonic()
        yield
        seconds = self.seconds()
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
        self.path("seconds.json").write_text(json.dumps(seconds), encoding="utf-8")

    def seconds(self) -> dict[str, float]:
        """Seconds of each finished stage."""
        path = self.path("seconds.json")
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def run_id(self, default: str) -> str:
        """The name of the run, the same after resuming."""
        path = self.path("run_id")
        if not path.exists():
            path.write_text(default, encoding="utf-8")
        return path.read_text(encoding="utf-8")

    def remove(self) -> None:
        """Remove the folder, and the one above it when it holds no other fit."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()


def work_folder(beside: Path, decisive: object, *, resume: bool) -> Path:
    """The folder of the fit that `decisive` names; emptied unless the fit is resumed.

    Parameters
    ----------
    beside
        The file that will get the results.
    decisive
        Everything that decides the scores, as JSON can hold it.
    resume
        Go on with what is there.

    Raises
    ------
    NwbCompactError
        If there is nothing to resume.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = work_folder(Path(mkdtemp()) / "session.nwb", {"seed": 0}, resume=False)
    >>> folder.parent.name, len(folder.name)
    ('.session.nwb-compact', 12)
    """
    key = sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]
    folder = beside.resolve().with_name(f".{beside.stem}.nwb-compact") / key
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    elif not folder.exists():
        expected = f"{folder}, left by a fit of the same data with the same settings"
        raise NwbCompactError("--resume", found="no stopped fit", expected=expected, next_step="leave --resume out")
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""The work folder of a fit: what is already computed, kept so that a fit that was killed goes on where it stopped.

The folder lies beside the file and is named by everything that decides the scores, so nothing of another fit is ever taken for this one's.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from nwb_compact.cost import Cost, as_provenance
from nwb_compact.errors import NwbCompactError
from nwb_compact.feature_cache import default_cache_folder
from nwb_compact.meter import energy_counters, metered
from nwb_compact.safe_write import sole_access
from nwb_compact.unfinished import written_whole

IMAGES = "images"
"""Beside the work folders of a file: what lists the images of `--images`."""


LOCK = "lock"
"""In a work folder: locked while a process works there."""
COSTS, RUN_ID = "costs.json", "run_id"


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

    def within(self, name: str) -> "Work":
        """A folder in this one with costs of its own; the same one where the name is empty."""
        self.path(name).mkdir(exist_ok=True)
        return replace(self, folder=self.path(name))

    def array(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """An array that is computed once; read from the disk as it is used."""
        path = self.path(f"{name}.npy")
        if not path.exists():
            with written_whole(path) as beside, beside.open("wb") as stream:
                np.save(stream, compute())
        return np.load(path, mmap_mode="r")

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add what is spent inside to the cost of a stage, over all resumptions; stages do not stand inside each other."""
        costs = self.costs()
        before, path = costs.get(name), self.path(COSTS)

        def keep(spent: Cost) -> None:
            costs[name] = spent if before is None else before + spent
            with written_whole(path) as beside:
                beside.write_text(json.dumps({stage: vars(cost) for stage, cost in costs.items()}), encoding="utf-8")

        with metered(keep, device=self.device):
            yield

    def costs(self) -> dict[str, Cost]:
        """Of each stage, in the order in which they began."""
        path = self.path(COSTS)
        return {stage: Cost(**cost) for stage, cost in json.loads(path.read_text(encoding="utf-8")).items()} if path.exists() else {}

    def spent(self) -> dict[str, str]:
        """The costs as provenance tells them, and the names of the counters that told the energy, if any could be read."""
        counters = " ".join(counter.name for counter in energy_counters(self.device))
        return as_provenance(self.costs()) | ({"energy_counters": counters} if counters else {})

    def run_id(self, given: str | None, default: str) -> str:
        """The name of the run: the one that is given now, else the same as before the fit was resumed, else the default."""
        path = self.path(RUN_ID)
        if given is not None or not path.exists():
            with written_whole(path) as beside:
                beside.write_text(given or default, encoding="utf-8")
        return path.read_text(encoding="utf-8")

    def remove(self) -> None:
        """Remove the folder, and the one above it with the images when no other fit is there or looks at images."""
        shutil.rmtree(self.folder, ignore_errors=True)
        being_written = list((self.folder.parent / IMAGES).glob(".*"))
        if not being_written and all(path.name == IMAGES for path in self.folder.parent.iterdir()):
            shutil.rmtree(self.folder.parent, ignore_errors=True)


@contextmanager
def work_folder(beside: Path, decisive: object, *, resume: bool, what: str = "fit") -> Iterator[Path]:
    """The folder of the work that `decisive` names, for this process alone within the block.

    Parameters
    ----------
    beside
        The file that will get the results.
    decisive
        Everything that decides the scores, as JSON can hold it.
    resume
        Go on with what is there.
    what
        What a message calls the work.

    Raises
    ------
    NwbCompactError
        If there is nothing to resume, if there is something and it is not asked for (it may have taken hours), or if the same work
        runs in another process.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> with work_folder(Path(mkdtemp()) / "session.nwb", {"seed": 0}, resume=False) as folder:
    ...     folder.parent.name, len(folder.name)
    ('.session.nwb-compact', 12)
    """
    key = sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]
    folder = _fits_folder(beside) / key
    if resume and not folder.exists():
        expected = f"{folder}, left by the same data and settings"
        raise NwbCompactError("--resume", found=f"no stopped {what}", expected=expected, next_step="leave --resume out")
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK
    lock.touch()
    found, next_step = "the same work under way in another process", "wait for its end, or change --seed for a run beside it"
    with sole_access(lock, 0.0, found=found, next_step=next_step):
        if not resume:
            _require_nothing_computed(folder, beside, what)
            for name in (COSTS, RUN_ID):  # of work that was stopped before it had anything
                folder.joinpath(name).unlink(missing_ok=True)
        yield folder


def _require_nothing_computed(folder: Path, beside: Path, what: str) -> None:
    if any(path.is_file() and path.name not in (LOCK, COSTS, RUN_ID) for path in folder.rglob("[!.]*")):
        next_step = f"add --resume to go on with it, or remove {folder} to begin anew"
        raise NwbCompactError(beside, found=f"the same {what}, stopped before its end", expected="none yet", next_step=next_step)


def images_folder(beside: Path) -> Path:
    """Where the pool of further images lies (see `image_pool`), for all fits of a file, as each of them lists the same ones.

    Examples
    --------
    >>> images_folder(Path("/data/session.nwb")).as_posix()
    '/data/.session.nwb-compact/images'
    """
    return _fits_folder(beside) / IMAGES


def _fits_folder(beside: Path) -> Path:
    return beside.resolve().with_name(f".{beside.stem}.nwb-compact")

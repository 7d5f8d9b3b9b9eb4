"""What is in a session file, on a page: a first look at a file, and most of all at one that lies on a network."""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from nwb_compact.address import FILE_OR_ADDRESS, Address
from nwb_compact.check import contents
from nwb_compact.nwb_results import read_scores
from nwb_compact.nwb_session import open_session
from nwb_compact.remote_file import traffic
from nwb_compact.results import headline
from nwb_compact.session import About, Images, Presentations, Subject


@click.command("open")
@click.argument("file", type=FILE_OR_ADDRESS)
def command(file: Path | Address) -> None:
    """Say what is in a session FILE, or in one at an address, of which only what is said is fetched."""
    for line in overview(file):
        click.echo(line)
    if isinstance(file, Address):
        click.echo(f"fetched    {traffic(file)}")


def overview(file_path: str | Path) -> Iterator[str]:
    """The lines of the page.

    Raises
    ------
    NwbCompactError
        If the file cannot be read or is no session file.

    Examples
    --------
    >>> from nwb_compact.nwb_results import example_file
    >>> print(*overview(example_file()), sep="\\n")
    session    example, 2020-01-01 00:00 UTC: a made-up session
    subject    example, Macaca mulatta, U, P8Y
    holds      2 units, 24 images (24 different, 0 without a response), 60 presentations, single-trial counts
    images     8 x 8 px, RGB
    repeats    2 to 3 of an image
    results    run example, 2 units, median r2 of the teacher 0.228, of the students 0.179 with 0 parameters
    """
    with open_session(file_path) as session:
        yield f"session    {_session(session.about)}"
        yield f"subject    {_subject(session.subject)}"
        yield f"holds      {contents(session)}"
        yield f"images     {_images(session.images)}"
        if session.presentations is not None:
            yield f"repeats    {_repeats(session.presentations)}"
    runs = read_scores(file_path)
    for run_id, scores in runs.items():
        yield f"results    {headline(run_id, scores)}"
    if not runs:
        yield "results    none yet"


def _session(about: About) -> str:
    return f"{about.session_id or about.identifier}, {about.session_start_time:%Y-%m-%d %H:%M %Z}: {about.session_description}"


def _subject(subject: Subject | None) -> str:
    told = () if subject is None else (subject.subject_id, subject.species, subject.sex, subject.age)
    return ", ".join(filter(None, told)) or "not told"


def _images(images: Images) -> str:
    if images.pixels is None:
        return "their hashes only"
    height, width = images.pixels.shape[1:3]
    return f"{height} x {width} px, {'RGB' if len(images.pixels.shape) == 4 else 'grey'}"


def _repeats(presentations: Presentations) -> str:
    """How often images were shown in valid presentations."""
    shown = np.unique(presentations.image_index[presentations.is_valid], return_counts=True)[1]
    return f"{shown.min()} to {shown.max()} of an image" if len(shown) else "no valid presentation"

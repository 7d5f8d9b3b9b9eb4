"""A session file without what may not, or need not, be given away: raw voltage, or the pixels of the images.

Without pixels the table of images keeps their hashes, which is one of the three ways in which a session keeps images (`nwb_images`). A run
holds pixels too: images that were made by changing a natural one by a few grey levels show that image.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pynwb import NWBFile
from pynwb.base import Images as NwbImages
from pynwb.image import ImageSeries, IndexSeries

from nwb_compact.contract import INTERPRETATION_PREFIX, RUN_PREFIX
from nwb_compact.nwb_io import drop_voltage, export_changed, opened

MADE_IMAGES, START_ROW = f"{INTERPRETATION_PREFIX}made_images", "start_row"
"""What `interpret` calls the images it makes, and the natural image that each was made from, -1 for noise."""


def write_stripped(source: Path, target: Path, *, raw: bool, images: bool) -> tuple[str, ...]:
    """Write a copy of a session file without some of what it holds.

    Parameters
    ----------
    source
        Only read.
    target
        The new file, complete when this returns.
    raw
        Leave out the voltage, as `fit --output` does.
    images
        Leave out the pixels in /stimulus, and the images that `interpret` made where some of them show one of those.

    Returns
    -------
    Names of what was left out; two copies of one file are the same to the byte.

    Raises
    ------
    NwbCompactError
        If the file cannot be read.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from nwb_compact.nwb_session import read_session, write_session
    >>> from nwb_compact.session import example_session
    >>> folder = Path(mkdtemp())
    >>> write_session(example_session(), folder / "session.nwb")
    >>> write_stripped(folder / "session.nwb", folder / "hashes.nwb", raw=False, images=True)
    ('stimulus_images',)
    >>> read_session(folder / "hashes.nwb").images.pixels is None
    True
    """
    with opened(source) as file:
        left_out = drop_voltage(file.nwbfile) if raw else ()
        left_out += (*_drop_pixels(file.nwbfile), *_drop_changed_images(file.nwbfile)) if images else ()
        export_changed(file, target)
    return left_out


def _drop_pixels(nwbfile: NWBFile) -> tuple[str, ...]:
    templates = tuple(nwbfile.stimulus_template)
    shown = tuple(name for name, held in nwbfile.stimulus.items() if isinstance(held, ImageSeries | IndexSeries | NwbImages))
    for name in templates:
        nwbfile.stimulus_template.pop(name)
    for name in shown:
        nwbfile.stimulus.pop(name)
    return templates + shown


def _drop_changed_images(nwbfile: NWBFile) -> Iterator[str]:
    for name, module in nwbfile.processing.items():
        made = module.data_interfaces.get(MADE_IMAGES) if name.startswith(RUN_PREFIX) else None
        if made is not None and (np.asarray(made[START_ROW].data[:]) >= 0).any():
            module.data_interfaces.pop(MADE_IMAGES)
            yield f"{MADE_IMAGES} of {name}"

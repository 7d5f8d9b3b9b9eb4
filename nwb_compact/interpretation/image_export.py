"""Images of a table as PNG files with a list, to be shown to an animal or looked at: `images.csv` says what each file is."""

import csv
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from nwb_compact import contract as c
from nwb_compact.file_names import safe_name
from nwb_compact.interpretation.tables import UNIT, Table
from nwb_compact.new_folder import require_new_folder

LIST = "images.csv"


def export_images(folder: str | Path, images: Table, unit_names: Sequence[str]) -> Path:
    """Write each image as a PNG file, and `images.csv` with one line for each, in the order of the table.

    Parameters
    ----------
    folder
        Made if it is missing.
    images
        With columns `unit`, `kind` and `image` (row 112 112 3, uint8). Each other column with one value a row goes into the list.
    unit_names
        Of all units of the run.

    Returns
    -------
    Path of the list.

    Raises
    ------
    NwbCompactError
        If `folder` is a file, or holds something.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from nwb_compact.interpretation.tables import Column
    >>> grey = np.full((1, 112, 112, 3), 128, np.uint8)
    >>> columns = {"unit": np.array([0]), "kind": np.array(["maximizing"]), "seed": np.array([7]), "image": grey}
    >>> table = Table("made", {name: Column(name, values) for name, values in columns.items()})
    >>> with TemporaryDirectory() as folder:
    ...     print(export_images(folder, table, ["V4/12 a"]).read_text())
    file,unit,unit_name,kind,seed
    V4-12-a_maximizing_00000.png,0,V4/12 a,maximizing,7
    <BLANKLINE>
    """
    folder = Path(folder)
    require_new_folder(folder, overwrite=False)
    kept = [name for name, column in images.columns.items() if column.values.ndim == 1 and name not in (UNIT, "kind")]
    header = ["file", "unit", c.UNIT_NAME, "kind", *kept]
    lines = []
    folder.mkdir(parents=True, exist_ok=True)
    for row, (unit, kind, pixels) in enumerate(zip(images[UNIT], images["kind"], images["image"], strict=True)):
        # The number makes names different that differ in letters which not all file systems keep apart.
        file_name = f"{safe_name(unit_names[unit])}_{safe_name(str(kind))}_{row:05d}.png"
        (folder / file_name).write_bytes(_png(pixels))
        lines.append([file_name, unit, unit_names[unit], kind, *(images[name][row] for name in kept)])
    with (folder / LIST).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *lines])
    return folder / LIST


def _png(pixels: np.ndarray) -> bytes:
    memory = BytesIO()
    Image.fromarray(pixels).save(memory, format="PNG")
    return memory.getvalue()

"""Export: the model of one neuron as a file that needs neither this program nor the session to be run."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import click
import numpy as np

from nwb_compact import __version__
from nwb_compact.address import FILE_OR_ADDRESS, Address, require_path
from nwb_compact.errors import NwbCompactError, counted, nearest, one_line
from nwb_compact.exported import FORMATS, as_npz, as_safetensors, missing_package
from nwb_compact.file_names import safe_name
from nwb_compact.nwb_io import open_hdf5
from nwb_compact.nwb_results import read_results
from nwb_compact.results import Results
from nwb_compact.safe_write import require_folder
from nwb_compact.student import ARCHITECTURE, n_parameters
from nwb_compact.unfinished import written_whole

ALL = "all"
INPUT = "uint8 RGB, image x 112 x 112 x 3, 0 black and 255 white"
ANSWER = "expected spikes in the counting window, one number an image"


@click.command("export")
@click.argument("file", type=FILE_OR_ADDRESS)
@click.option("--unit", "units", required=True, multiple=True, metavar="UNIT", help="Name of a unit; may be repeated, or 'all'.")
@click.option("--format", "format_name", type=click.Choice(FORMATS), help="Default: what the name of OUT ends in.")
@click.option("--run", "run_id", metavar="RUN_ID", help="The run to take it from; default: the last.")
@click.option("--float16", is_flag=True, help="Keep the weights with half the bytes.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUT",
              help="A new file; of several units a new folder.")
def command(
    file: Path | Address, units: tuple[str, ...], format_name: str | None, run_id: str | None, float16: bool, output: Path
) -> None:
    """Write the compact model of one neuron in FILE to a file of its own."""
    several = len(units) > 1 or units == (ALL,)
    format_name = _format(output, format_name, several)
    _require_new(output)
    runs = read_results(file, run_id)
    if not runs:
        raise NwbCompactError(file, found="no run", expected="at least one", next_step=f"nwb-compact fit {file}")
    run = runs[-1]
    with open_hdf5(file) as hdf5:
        session = hdf5["identifier"].asstr()[()]
    chosen = run.unit_name if units == (ALL,) else dict.fromkeys(units)
    content = [exported(run, unit, format_name, session=session, float16=float16) for unit in chosen]
    _write(output, dict(zip(_file_names(chosen, format_name), content, strict=True)) if several else content[0])
    said = f"unit {units[0]}" if not several else counted(len(content), "unit")
    click.echo(f"{output}: {said} of run {run.run_id}, {max(map(len, content)):,} bytes{' at most each' if several else ''}")


def exported(results: Results, unit: str, format_name: str, *, session: str, float16: bool = False) -> bytes:
    """Content of the file of one unit's model.

    Parameters
    ----------
    results
        The run that fitted it.
    unit
        Its name.
    format_name
        One of `exported.FORMATS`.
    session
        Identifier of the session file.
    float16
        Round the weights to half precision; sums are still made in float32.

    Raises
    ------
    NwbCompactError
        If there is no such unit, it has no student, float16 cannot hold its weights, or the package onnx is missing.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from nwb_compact.results import example_results
    >>> from nwb_compact.student import example_student
    >>> results = replace(example_results(), students=(example_student(), example_student(seed=1)))
    >>> len(exported(results, "unit-1", "safetensors", session="example")) // 1000
    13
    """
    if unit not in results.unit_name:
        found, next_step = f"no unit '{unit}'", nearest(unit, list(results.unit_name))
        raise NwbCompactError(f"run {results.run_id}", found=found, expected="a unit of this run", next_step=next_step)
    row = results.unit_name.index(unit)
    student = results.students[row]
    if "readout.bias" not in student.arrays:
        raise NwbCompactError(f"unit {unit}", found="no student", expected="one", next_step=results.reason[row] or "choose another unit")
    written = {"onnx": _as_onnx, "safetensors": as_safetensors, "npz": as_npz}[format_name]
    return written(_half(student.arrays, unit) if float16 else student.arrays, _metadata(results, row, session, float16))


def _as_onnx(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    try:
        from nwb_compact.onnx_model import onnx_model
    except ImportError as error:
        raise missing_package("onnx") from error
    return onnx_model(arrays, metadata)


def _metadata(results: Results, row: int, session: str, float16: bool) -> dict[str, str]:
    r2, r2_er = (results.scores[f"student_{name}"][row] for name in ("r2", "r2_er"))
    return {
        "unit": results.unit_name[row], "run": results.run_id, "session": session,
        "r2": f"{r2:.4f}", "r2_er": f"{r2_er:.4f}", **({"reason": results.reason[row]} if results.reason[row] else {}),
        "input": INPUT, "answer": results.provenance.get("answers", ANSWER),  # other programs' models may answer otherwise
        "architecture": results.provenance.get("architecture", ARCHITECTURE),
        "parameters": str(n_parameters(results.students[row])), "weights": "float16" if float16 else "float32",
        "nwb_compact_version": __version__,
    }


def _half(arrays: Mapping[str, np.ndarray], unit: str) -> dict[str, np.ndarray]:
    with np.errstate(over="ignore"):
        halved = {name: value if name == "input.mean" else value.astype(np.float16) for name, value in arrays.items()}
    if not all(np.isfinite(value).all() for value in halved.values()):
        found, next_step = "weights that float16 cannot hold", "leave out --float16"
        raise NwbCompactError(f"unit {unit}", found=found, expected="numbers up to 65,504", next_step=next_step)
    return halved


# Files ----------------------------------------------------------------------------------------------------------------


def _require_new(output: Path) -> None:
    require_path(output)
    if output.exists():
        found = "a folder" if output.is_dir() else "a file"
        raise NwbCompactError(output, found=found, expected="none yet", next_step="choose another name or remove it")
    require_folder(output)


def _format(output: Path, asked: str | None, several: bool) -> str:
    """The format that was asked for, or that the file's name says."""
    if several and asked is None:
        next_step = "name it: of several units OUT is a folder"
        raise NwbCompactError("--format", found="none", expected=f"one of {', '.join(FORMATS)}", next_step=next_step)
    endings = [f".{name}" for name in FORMATS if asked in (None, name)]
    if not several and output.suffix not in endings:
        found = f"a name that ends in '{output.suffix}'" if output.suffix else "a name without an ending"
        raise NwbCompactError(output, found=found, expected=" or ".join(endings), next_step=nearest(output.suffix, endings))
    return asked or output.suffix.removeprefix(".")


def _file_names(units: Iterable[str], ending: str) -> list[str]:
    """A name a unit that every file system takes, numbered where two would have the same."""
    names = [safe_name(unit) for unit in units]
    if len({name.lower() for name in names}) < len(names):
        names = [f"{number}_{name}" for number, name in enumerate(names, start=1)]
    return [f"{name}.{ending}" for name in names]


def _write(output: Path, content: bytes | Mapping[str, bytes]) -> None:
    """A file, or a folder of files, as a whole or not at all."""
    try:
        with written_whole(output) as beside:
            if isinstance(content, bytes):
                beside.write_bytes(content)
            else:
                beside.mkdir()
                for name, one in content.items():
                    (beside / name).write_bytes(one)
    except OSError as error:
        found, expected = f"that it could not be written ({one_line(error)})", "a disk and folder that can be written"
        raise NwbCompactError(output, found=found, expected=expected, next_step="free disk space or correct the permissions") from error

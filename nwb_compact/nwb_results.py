"""The results of a fit as one processing module of the session's own file: the one writer and the one reader, side by side.

Core NWB types only, few large tables, no torch. A run is added to the file as a whole or not at all (see `safe_write`).
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hdmf.common import DynamicTable
from pynwb import NWBHDF5IO, NWBFile, ProcessingModule

from nwb_compact import contract as c
from nwb_compact.address import FETCH, Address, located, require_path
from nwb_compact.errors import COPY_AGAIN, NwbCompactError, nearest, told_as_damage
from nwb_compact.nwb_io import (
    column,
    drop_voltage,
    export_changed,
    numbers,
    opened,
    region,
    smallest_unsigned,
    strings,
    table,
)
from nwb_compact.nwb_networks import read_students, read_teacher, student_tables, teacher_table
from nwb_compact.results import Results, baselines_of, score_columns, shared_arrays
from nwb_compact.safe_write import replaced_safely

N_PREFERRED = 10
"""Images a unit whose indices are kept as the ones its student answers most and least."""


def write_results(results: Results, file_path: str | Path, *, output: str | Path | None = None, replace: bool = False) -> Path:
    """Add the results of a fit to the file of the session that was fitted.

    Parameters
    ----------
    results
        About units and images of that session, the images in its order.
    file_path
        The session file; changed in place and safely unless `output` is given.
    output
        A new, self-contained file instead: the session and the results without the raw voltage. `file_path` is only read, and may
        then be an address.
    replace
        Take the place of a run of the same id (its room in the file is freed) and, with `output`, of a file there.

    Returns
    -------
    Path
        The file that holds the results.

    Raises
    ------
    NwbCompactError
        If the run is in the file already, the results are about other units or images, or the file cannot be written.

    Examples
    --------
    >>> from dataclasses import replace
    >>> file_path = example_file()
    >>> (example,) = read_results(file_path)
    >>> written = write_results(replace(example, run_id="second"), file_path)
    >>> [results.run_id for results in read_results(written)]
    ['example', 'second']
    """
    file_path, output = located(file_path), None if output is None else Path(output)
    _require_new_output(output, file_path, replace)
    target = output or require_path(file_path, next_step=FETCH)
    with replaced_safely(target, source=file_path) as temporary:
        is_there = results.run_id in run_ids(file_path, locking=False)
        _require_names(results.run_id, is_there and not replace, file_path)
        if output is None and not is_there:
            shutil.copyfile(file_path, temporary)
        else:
            _export(file_path, temporary, without_run=results.run_id, without_voltage=output is not None)
        with NWBHDF5IO(temporary, "a") as io:
            nwbfile = io.read()
            _add_run(results, nwbfile, file_path)
            io.write(nwbfile)
    return target


def read_results(file_path: str | Path, run_id: str | None = None, *, with_teacher: bool = False) -> tuple[Results, ...]:
    """The runs of a file, oldest first, or the one that is named; all in memory but their teachers' networks, unless asked for.

    Raises
    ------
    NwbCompactError
        If the file cannot be read, has no run of that id, or holds one that a later version of this program wrote.
    """
    file_path = located(file_path)
    with opened(file_path) as file:
        modules = _run_modules(file.nwbfile)
        if run_id is not None:
            run_module(file.nwbfile, run_id, file_path)  # or say that there is none
        runs = [
            _read_run(one, module, f"{file_path}: {c.RUN_PREFIX}{one}", with_teacher)
            for one, module in modules.items() if run_id in (None, one)
        ]
    return tuple(results for _, results in sorted(runs, key=lambda numbered: numbered[0]))


def read_scores(file_path: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """The scores of every run by its id, oldest first, and nothing else of it; raises as `read_results` does."""
    place = located(file_path)
    with opened(place) as file:
        scores = []
        for run_id, module in _run_modules(file.nwbfile).items():
            where = f"{place}: {c.RUN_PREFIX}{run_id}"
            with told_as_damage(where, "the tables of a run"):
                rows = _part(module, c.RUN_SCORES, where)
                scores.append((_run_number(module, where), run_id, {name: numbers(rows, name, where) for name in rows.colnames}))
    return {run_id: columns for _, run_id, columns in sorted(scores, key=lambda numbered: numbered[0])}


def example_file(file_path: Path | None = None) -> Path:
    """A session file with one run, for documentation and tests; a new folder for temporary files gets it by default.

    Returns
    -------
    Path
        The file.
    """
    from tempfile import mkdtemp

    from nwb_compact.nwb_session import write_session
    from nwb_compact.results import example_results
    from nwb_compact.session import example_session

    file_path = file_path or Path(mkdtemp()) / "session.nwb"
    session = example_session()
    write_session(session, file_path)
    return write_results(example_results(session), file_path)


def run_module(nwbfile: NWBFile, run_id: str, where: object) -> ProcessingModule:
    """The module of a run; raises `NwbCompactError` where the file has none of that id."""
    modules = _run_modules(nwbfile)
    if run_id not in modules:
        next_step = nearest(run_id, list(modules)) if modules else "fit the file first: nwb-compact fit"
        raise NwbCompactError(where, found=f"no run '{run_id}'", expected="a run of this file", next_step=next_step)
    return modules[run_id]


def latest_run_id(nwbfile: NWBFile, where: Path) -> str | None:
    """The run that was added last; None where there is none."""
    modules = _run_modules(nwbfile)
    return max(modules, key=lambda run_id: _run_number(modules[run_id], f"{where}: {c.RUN_PREFIX}{run_id}"), default=None)


def run_ids(file_path: str | Path, *, locking: bool = True) -> tuple[str, ...]:
    """Names of the runs of a file, in no order, without reading them."""
    with opened(file_path, locking=locking) as file:
        return tuple(_run_modules(file.nwbfile))


# Writing --------------------------------------------------------------------------------------------------------------


def require_place(file_path: Path | Address, *, run_id: str | None, output: Path | None, replace: bool) -> None:
    """Stop before a long run where its results could not be written.

    Raises
    ------
    NwbCompactError
        If the run id is not letters, digits and dashes, or it or the output file exists and is not to be replaced.
    """
    _require_new_output(output, file_path, replace)
    if run_id is not None:
        _require_names(run_id, run_id in run_ids(file_path) and not replace, file_path)


def _require_new_output(output: Path | None, file_path: Path | Address, replace: bool) -> None:
    if output is None:
        return
    if isinstance(file_path, Path) and output.resolve() == file_path.resolve():
        next_step = "leave out --output to write in place"
        raise NwbCompactError(output, found="the session file itself", expected="a new file", next_step=next_step)
    if output.exists() and not replace:
        raise NwbCompactError(output, found="a file", expected="none yet", next_step="choose another name or give --replace")


def _require_names(run_id: str, is_taken: bool, file_path: Path | Address) -> None:
    if not re.fullmatch(r"[A-Za-z0-9-]+", run_id):
        next_step = "choose another run id"
        raise NwbCompactError("run id", found=f"'{run_id}'", expected="letters, digits and dashes", next_step=next_step)
    if is_taken:
        found, next_step = f"a run '{run_id}'", "choose another run id or give --replace"
        raise NwbCompactError(file_path, found=found, expected="none of this id yet", next_step=next_step)


def _export(source: Path | Address, target: Path, *, without_run: str, without_voltage: bool) -> None:
    """Copy a file object by object, leaving some out, which frees their room; what is linked from other files is copied too."""
    with opened(source, locking=False) as file:
        nwbfile = file.nwbfile
        if without_run in _run_modules(nwbfile):
            nwbfile.processing.pop(c.RUN_PREFIX + without_run)
        if without_voltage:
            drop_voltage(nwbfile)
        export_changed(file, target)


def _add_run(results: Results, nwbfile: NWBFile, where: object) -> None:
    session_units = _session_units(nwbfile, where)
    rows = _rows_of_units(results.unit_name, session_units, where)
    _require_same_images(results, nwbfile, where)
    number = 1 + max((_run_number(module, f"{where}: {module.name}") for module in _run_modules(nwbfile).values()), default=0)
    module = nwbfile.create_processing_module(c.RUN_PREFIX + results.run_id, f"models of every unit, run {results.run_id} of nwb-compact")
    units = _unit_table(results, rows, session_units)
    for part in (
        units,
        _score_table(results),
        _prediction_table(results),
        *student_tables(results.students, units),
        *(() if results.teacher is None else (teacher_table(results.teacher),)),
        _preferred_table(results, units),
        _provenance_table(results, number, nwbfile.object_id),
    ):
        module.add(part)


def _session_units(nwbfile: NWBFile, where: object) -> DynamicTable:
    if nwbfile.units is not None:
        return nwbfile.units
    if c.ECEPHYS in nwbfile.processing and c.NEURONS in nwbfile.processing[c.ECEPHYS].data_interfaces:
        return nwbfile.processing[c.ECEPHYS][c.NEURONS]
    found, next_step = f"neither units nor {c.NEURONS}", "write results into the file of the session that was fitted"
    raise NwbCompactError(where, found=found, expected="a table of units", next_step=next_step)


def _rows_of_units(unit_name: tuple[str, ...], units: DynamicTable, where: object) -> np.ndarray:
    names = strings(units, c.UNIT_NAME, where)
    unknown = [name for name in unit_name if names.count(name) != 1]
    if unknown:
        found, expected = f"{len(unknown)} fitted unit(s) such as '{unknown[0]}'", "units that the file names exactly once"
        next_step = "write results into the file of the session that was fitted"
        raise NwbCompactError(where, found=found, expected=expected, next_step=next_step)
    return np.array([names.index(name) for name in unit_name])


def _require_same_images(results: Results, nwbfile: NWBFile, where: object) -> None:
    rows = nwbfile.stimulus.get(c.IMAGE_TABLE)
    if rows is None or strings(rows, c.SHA256, where) != results.image_sha256:
        found, expected = "results about other images", "the images of this file in its order"
        next_step = "write results into the file of the session that was fitted"
        raise NwbCompactError(where, found=found, expected=expected, next_step=next_step)


def _unit_table(results: Results, rows: np.ndarray, session_units: DynamicTable) -> DynamicTable:
    return table(
        c.RUN_UNITS,
        "the fitted units; row j is unit j in every table of this module",
        len(results.unit_name),
        region(c.UNIT, "the unit among those of the session", rows, session_units),
        column(c.UNIT_NAME, "its name", results.unit_name),
        column(c.UNIT_REASON, "why a score of this unit is NaN, empty when none is", results.reason),
        column(c.FILTERS_PER_LAYER, "spatial filters that each layer of the student keeps", results.filters_per_layer),
    )


def _score_table(results: Results) -> DynamicTable:
    meaning = score_columns(baselines_of(results.scores))
    columns = [column(name, meaning[name], values) for name, values in results.scores.items()]
    description = f"one row a row of {c.RUN_UNITS}; NaN where a score cannot be computed, {c.UNIT_REASON} there says why"
    return table(c.RUN_SCORES, description, len(results.unit_name), *columns)


def _prediction_table(results: Results) -> DynamicTable:
    n_images = len(results.image_sha256)
    width = f"one column a row of {c.RUN_UNITS}"
    members = results.teacher_member_prediction
    each = () if members is None else (
        column(c.TEACHER_MEMBERS, f"prediction of each member of the teacher's ensemble, {width}, last axis the member", members),
    )
    return table(
        c.RUN_PREDICTIONS,
        "expected response (spikes in the counting window) to every image of the session",
        n_images,
        column(c.IMAGE_INDEX, f"row in {c.IMAGE_TABLE}, from 0", smallest_unsigned(np.arange(n_images))),
        column(c.SHA256, "identity of the image", results.image_sha256),
        column(c.SIDE, "what the image served for: fit, validation, scored or unused", results.side),
        column(c.TEACHER, f"prediction of the teacher, {width}", results.teacher_prediction),
        column(c.STUDENT, f"prediction of the compact students, {width}", results.student_prediction),
        *each,
    )


def _preferred_table(results: Results, units: DynamicTable) -> DynamicTable:
    return table(
        c.RUN_PREFERRED,
        f"rows of {c.IMAGE_TABLE} that each student answers most and least, also derived from {c.RUN_PREDICTIONS}",
        len(results.unit_name),
        region(c.UNIT, "the unit", np.arange(len(results.unit_name)), units),
        column(c.BEST, "images answered most, strongest first", smallest_unsigned(results.preferred_images(N_PREFERRED))),
        column(c.WORST, "images answered least, weakest first", smallest_unsigned(results.spurned_images(N_PREFERRED))),
    )


def _provenance_table(results: Results, number: int, source: str) -> DynamicTable:
    version = c.CONTRACT_VERSION if shared_arrays(results.students) else c.CONTRACT_VERSION_WITHOUT_SHARED
    rows = {c.CONTRACT_VERSION_KEY: version, c.RUN_NUMBER_KEY: str(number), c.SOURCE_KEY: source}
    rows |= {key: value for key, value in results.provenance.items() if key not in rows}
    keys = column(c.KEY, "what it says", list(rows))
    return table(c.RUN_PROVENANCE, "everything that made the numbers", len(rows), keys, column(c.VALUE, "the value", list(rows.values())))


# Reading --------------------------------------------------------------------------------------------------------------


def _run_modules(nwbfile: NWBFile) -> dict[str, ProcessingModule]:
    return {name.removeprefix(c.RUN_PREFIX): held for name, held in nwbfile.processing.items() if name.startswith(c.RUN_PREFIX)}


def _read_run(run_id: str, module: ProcessingModule, where: str, with_teacher: bool) -> tuple[int, Results]:
    with told_as_damage(where, "the tables of a run"):
        number, results = _held_run(run_id, module, where)
        if with_teacher:
            results = replace(results, teacher=read_teacher(module.data_interfaces.get(c.RUN_TEACHER), where))
    infinite = [name for name, column in results.scores.items() if np.isinf(column).any()]
    if infinite:
        found = f"infinite numbers in {c.RUN_SCORES}/{infinite[0]}"
        raise NwbCompactError(where, found=found, expected="numbers, or NaN where there is none", next_step=COPY_AGAIN)
    return number, results


def _held_run(run_id: str, module: ProcessingModule, where: str) -> tuple[int, Results]:
    number, units = _run_number(module, where), _part(module, c.RUN_UNITS, where)
    scores, predictions = _part(module, c.RUN_SCORES, where), _part(module, c.RUN_PREDICTIONS, where)
    unit_name = strings(units, c.UNIT_NAME, where)
    return number, Results(
        run_id=run_id,
        unit_name=unit_name,
        scores={name: numbers(scores, name, where) for name in scores.colnames},
        reason=strings(units, c.UNIT_REASON, where),
        image_sha256=strings(predictions, c.SHA256, where),
        side=strings(predictions, c.SIDE, where),
        teacher_prediction=numbers(predictions, c.TEACHER, where),
        student_prediction=numbers(predictions, c.STUDENT, where),
        teacher_member_prediction=numbers(predictions, c.TEACHER_MEMBERS, where) if c.TEACHER_MEMBERS in predictions.colnames else None,
        filters_per_layer=numbers(units, c.FILTERS_PER_LAYER, where),
        students=read_students(_part(module, c.RUN_PARAMETERS, where), module.data_interfaces.get(c.RUN_SHARED), len(unit_name), where),
        provenance=_read_provenance(module, where),
    )


def _run_number(module: ProcessingModule, where: Any) -> int:
    """Place of the run among those of the file; also stops at a contract of a later version."""
    rows = _key_values(module, where)
    version = rows.get(c.CONTRACT_VERSION_KEY, "")
    if not version.isdigit() or int(version) > int(c.CONTRACT_VERSION):
        found, expected = f"contract version '{version}'", f"at most {c.CONTRACT_VERSION}"
        raise NwbCompactError(where, found=found, expected=expected, next_step="read it with the program that wrote it")
    return int(rows.get(c.RUN_NUMBER_KEY, "0"))


def _read_provenance(module: ProcessingModule, where: str) -> dict[str, str]:
    rows = _key_values(module, where)
    return {key: value for key, value in rows.items() if key not in c.FILE_KEYS}


def _key_values(module: ProcessingModule, where: Any) -> dict[str, str]:
    rows = _part(module, c.RUN_PROVENANCE, where)
    return dict(zip(strings(rows, c.KEY, where), strings(rows, c.VALUE, where), strict=True))


def _part(module: ProcessingModule, name: str, where: Any) -> DynamicTable:
    part = module.data_interfaces.get(name)
    if not isinstance(part, DynamicTable):
        found = f"no table {name} (there: {', '.join(sorted(module.data_interfaces)) or 'none'})"
        raise NwbCompactError(where, found=found, expected="a whole run", next_step="fit the file again with --replace")
    return part

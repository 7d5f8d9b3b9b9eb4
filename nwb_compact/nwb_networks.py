"""The networks of a run as tables of its module, in and out: every array once, also where all students hold the same one."""

from collections.abc import Iterable, Sequence

import numpy as np
from hdmf.common import DynamicTable, VectorData, VectorIndex

from nwb_compact import contract as c
from nwb_compact.nwb_io import column, numbers, ragged, ragged_rows, region, strings, table
from nwb_compact.results import StudentWeights, TeacherWeights, shared_arrays

FIRST_KERNEL = "layer1.kernel"


def student_tables(students: Sequence[StudentWeights], units: DynamicTable) -> list[DynamicTable]:
    """The arrays of all students, and their first-layer filters stacked for viewing.

    An array that is the same object in all students, as the layers of a shared network are, goes once into a table of its own; 219 readouts
    of one network of 200 filters would otherwise take 130 MB.

    Parameters
    ----------
    students
        One a row of `units`.
    units
        The table of fitted units, which rows of one student point at.
    """
    shared = shared_arrays(students)
    own = [(unit, name, array) for unit, student in enumerate(students) for name, array in student.arrays.items() if name not in shared]
    of_units = table(
        c.RUN_PARAMETERS,
        f"one row an array of one student: with {c.RUN_SHARED}, if there, all that is needed to rebuild and run it",
        len(own),
        region(c.UNIT, "the unit", np.array([unit for unit, _, _ in own], int), units),
        *_array_columns([(name, array) for _, name, array in own]),
    )
    of_all = table(c.RUN_SHARED, "one row an array that every student of the run holds", len(shared), *_array_columns(shared.items()))
    return [of_units, *([of_all] if shared else []), *_filter_tables(students, units, are_shared=FIRST_KERNEL in shared)]


def read_students(of_units: DynamicTable, of_all: DynamicTable | None, n_units: int, where: object) -> tuple[StudentWeights, ...]:
    """One student a unit; an array of the shared table is the same object in all of them.

    Parameters
    ----------
    of_units
        `student_parameters` of a run.
    of_all
        `shared_parameters`, None where there is none.
    n_units
        Rows of the fitted units.
    where
        The run, for what is wrong with it.
    """
    shared = dict(_arrays(of_all, where)) if of_all is not None else {}
    arrays: list[dict[str, np.ndarray]] = [dict(shared) for _ in range(n_units)]
    if len(of_units):
        for owner, (name, array) in zip(numbers(of_units, c.UNIT, where), _arrays(of_units, where), strict=True):
            arrays[owner][name] = array
    return tuple(StudentWeights(one) for one in arrays)


def teacher_table(teacher: TeacherWeights) -> DynamicTable:
    """The arrays of the teacher."""
    description = "one row an array of the teacher's own network, which answers after a frozen backbone if the provenance names one"
    return table(c.RUN_TEACHER, description, len(teacher.arrays), *_array_columns(teacher.arrays.items()))


def read_teacher(rows: DynamicTable | None, where: object) -> TeacherWeights | None:
    """The teacher of a run, None where there is no such table."""
    return None if rows is None else TeacherWeights(dict(_arrays(rows, where)))


def _array_columns(arrays: Iterable[tuple[str, np.ndarray]]) -> list[VectorData | VectorIndex]:
    named = list(arrays)
    return [
        _strings_or_none(c.ARRAY_NAME, "name of the array in the network", [name for name, _ in named]),
        *ragged(c.ARRAY_SHAPE, "shape of the array", [np.array(array.shape, int) for _, array in named], np.int32),
        *ragged(c.ARRAY_VALUE, "the numbers, last axis fastest", [array.ravel() for _, array in named], np.float32),
    ]


def _strings_or_none(name: str, description: str, values: list[str]) -> VectorData:
    """A column of strings; hdmf cannot guess the type of an empty list."""
    return column(name, description, values if values else np.empty(0, "S1"))


def _arrays(rows: DynamicTable, where: object) -> Iterable[tuple[str, np.ndarray]]:
    shapes, values = ragged_rows(rows, c.ARRAY_SHAPE, where), ragged_rows(rows, c.ARRAY_VALUE, where)
    named = zip(strings(rows, c.ARRAY_NAME, where), shapes, values, strict=True)
    return ((name, value.reshape(shape)) for name, shape, value in named)


def _filter_tables(students: Sequence[StudentWeights], units: DynamicTable, *, are_shared: bool) -> list[DynamicTable]:
    """One table, or none where no student has filters; filters that all share stand there once and belong to no unit."""
    holders = students[:1] if are_shared else students
    kernels = [student.arrays.get(FIRST_KERNEL, np.empty((0, 3, 5, 5), np.float32)) for student in holders]
    counts = [len(kernel) for kernel in kernels]
    if not sum(counts) or len({kernel.shape[1:] for kernel in kernels}) > 1:
        return []
    owners = np.repeat(np.arange(len(kernels)), counts)
    rows = table(
        c.RUN_FILTERS,
        f"first-layer filters {'that all students share' if are_shared else 'of all students'}, also among their arrays; one row a filter",
        len(owners),
        *(() if are_shared else (region(c.UNIT, "the unit", owners, units),)),
        column(c.FILTER_INDEX, "place of the filter in its layer", np.concatenate([np.arange(count) for count in counts])),
        column(c.KERNEL, "weights, (channel height width), channels red green blue", np.concatenate(kernels)),
    )
    return [rows]

"""Units' responses as NWB tables, in and out: single-trial counts, repeat averages, and how they were counted."""

from collections.abc import Mapping
from typing import Any

from hdmf.common import DynamicTable
from pynwb import NWBFile

from nwb_compact import contract as c
from nwb_compact.nwb_io import column, given, indices, numbers, region, smallest_unsigned, table, unsigned
from nwb_compact.nwb_stimuli import presentation_table
from nwb_compact.nwb_units import add_units
from nwb_compact.session import MeanResponses, ResponseUnits, SpikeCounts, Units


def add_responses(
    nwbfile: NWBFile, units: Units, response_units: ResponseUnits, counts: SpikeCounts | None, means: MeanResponses | None
) -> None:
    """The units and how they answered the presentations that the file has already."""
    if c.ECEPHYS not in nwbfile.processing:  # NeuroConv may have put field potentials there
        nwbfile.create_processing_module(c.ECEPHYS, "units and their responses to the images")
    ecephys = nwbfile.processing[c.ECEPHYS]
    rows = add_units(nwbfile, units)
    ecephys.add(_response_unit_table(response_units, rows))
    presentations = presentation_table(nwbfile)
    if counts is not None and presentations is not None:
        ecephys.add(_count_table(counts, presentations))
    if means is not None:
        ecephys.add(_mean_table(means))


def read_response_units(rows: DynamicTable, where: object) -> ResponseUnits:
    """How the responses were counted."""
    names = (c.WINDOW_START, c.WINDOW_STOP, *c.OPTIONAL_RESPONSE_UNIT_COLUMNS)
    given = {name: numbers(rows, name, where) if name in rows.colnames else None for name in names}
    return ResponseUnits(indices(rows, c.UNIT, where), **given)


def read_counts(tables: Mapping[str, Any], where: object) -> SpikeCounts | None:
    """The counts among the tables of processing/ecephys; None where there are none."""
    rows = tables.get(c.SPIKE_COUNTS)
    if rows is None:
        return None
    count = unsigned(numbers(rows, c.COUNT, where), f"{where}: {c.SPIKE_COUNTS}/{c.COUNT}")
    return SpikeCounts(indices(rows, c.PRESENTATION, where), count, rows.description)


def read_means(tables: Mapping[str, Any], where: object) -> MeanResponses | None:
    """The repeat averages among the tables of processing/ecephys; None where there are none."""
    rows = tables.get(c.MEAN_RESPONSES)
    if rows is None:
        return None
    n_repeats = numbers(rows, c.N_REPEATS, where).astype(float) if c.N_REPEATS in rows.colnames else None
    return MeanResponses(numbers(rows, c.MEAN, where), n_repeats, rows.description)


def _response_unit_table(response_units: ResponseUnits, units: DynamicTable) -> DynamicTable:
    about = {
        c.WINDOW_START: "start of the counting window after image onset, seconds",
        c.WINDOW_STOP: "end of the counting window after image onset, seconds",
        "latency_s": "latency of the response, seconds",
        "reliability": "split-half reliability of the responses",
        "snr": "signal-to-noise ratio of the responses",
    }
    told = given(response_units)
    columns = [region(c.UNIT, "the unit", response_units.unit_index, units)]
    columns += [column(name, description, told[name]) for name, description in about.items() if name in told]
    return table(c.RESPONSE_UNITS, "row j describes column j of the responses", len(response_units.unit_index), *columns)


def _count_table(counts: SpikeCounts, presentations: DynamicTable) -> DynamicTable:
    columns = [
        region(c.PRESENTATION, "the presentation", counts.presentation_index, presentations),
        column(c.COUNT, f"spikes in the counting window, one column a row of {c.RESPONSE_UNITS}", smallest_unsigned(counts.count)),
    ]
    return table(c.SPIKE_COUNTS, counts.description, len(counts.presentation_index), *columns)


def _mean_table(means: MeanResponses) -> DynamicTable:
    columns = [column(c.MEAN, f"mean spike count over repeats, one column a row of {c.RESPONSE_UNITS}; NaN where not held", means.mean)]
    columns += [] if means.n_repeats is None else [column(c.N_REPEATS, "repeats behind each mean", means.n_repeats)]
    return table(c.MEAN_RESPONSES, means.description, len(means.mean), *columns)

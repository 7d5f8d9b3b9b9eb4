"""Hand-made tables of `nwb-compact interpret`, and students with all their layers: nothing is computed, so every number is known.

Unit 0 of the run likes dark dots of 12 px and gratings of 45 degrees; the other interpreted unit answers at random.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.results import Results, StudentWeights

WIDTHS = (6, 5, 4, 3, 2)
DOT_PX = (4.0, 12.0, 32.0)
CONTRASTS = (0.25, 0.5, 1.0)
BLANK = 0.5
LEAST = {"colour": 0.2, "edge": 0.5, "curvature": 0.4, "dot": 0.33, "texture": 0.45}
STEPS = (("none", 0.0), ("noise", 4.0), ("noise", 32.0), ("blur", 1.0), ("blur", 4.0), ("contrast", 0.5), ("luminance", -40.0),
         ("occlusion", 0.1), ("shift", 2.0))


def table(**columns) -> Table:
    """A table whose columns have no meanings."""
    return Table("", {name: Column("", np.asarray(values)) for name, values in columns.items()})


def full_student(widths: Sequence[int] = WIDTHS, seed: int = 0) -> StudentWeights:
    """All arrays of a student, at random."""
    rng = np.random.default_rng(seed)
    arrays = {"input.mean": np.zeros(3), "layer1.kernel": rng.normal(size=(widths[0], 3, 5, 5))}
    for layer, (below, above) in enumerate(pairwise(widths), start=2):
        arrays |= {f"layer{layer}.depthwise": rng.normal(size=(below, 5, 5)), f"layer{layer}.pointwise": rng.normal(size=(above, below))}
    arrays |= {f"layer{layer}.bias": np.zeros(width) for layer, width in enumerate(widths, start=1)}
    arrays |= {"readout.weight": rng.normal(size=(widths[-1], 28, 28)), "readout.bias": np.zeros(1)}
    return StudentWeights({name: array.astype(np.float32) for name, array in arrays.items()})


def with_full_students(results: Results, widths: Sequence[int] = WIDTHS) -> Results:
    """The same run, with students that hold all their layers."""
    kernels = [widths[0], *widths[:-1]]
    students = tuple(full_student(widths, seed) for seed in range(len(results.unit_name)))
    return replace(results, students=students, filters_per_layer=np.tile(kernels, (len(students), 1)))


def example_tables(units: Sequence[int] = (0, 2), seed: int = 0) -> dict[str, Table]:
    """Tables of a run of which these units were interpreted; at most one is unit 0."""
    rng = np.random.default_rng(seed)
    n = len(units)
    field = np.zeros((8, 8))
    field[1, 6] = 1.0
    return {
        "receptive_fields": table(unit=units, rf_row_px=np.full(n, -35.0), rf_column_px=np.full(n, 35.0), rf_diameter_px=np.full(n, 20.0),
                                  rf_map=np.tile(field, (n, 1, 1))),
        "probes": _probes(units, rng),
        "tuning": table(unit=units, osi=np.full(n, 0.8), f1_f0=np.full(n, 0.1), dot_px=np.full(n, 12.0), size_suppression=np.full(n, 0.6),
                        surround_suppression=np.full(n, 0.3), curve_selectivity=np.full(n, 0.2)),
        "preferences": _preferences(units),
        "field_maps": table(unit=units, gradient_map=rng.uniform(0, 1, (n, 28, 28)), sparse_bright=rng.normal(size=(n, 14, 14)),
                            sparse_dark=rng.normal(size=(n, 14, 14))),
        "structure": table(unit=units, natural_answer=np.full(n, 3.0), scrambled_answer=np.full(n, 1.0),
                           structure_modulation=np.full(n, 0.5)),
        "near_pairs": table(unit=units, near_r2=np.full(n, 0.2), any_r2=np.full(n, 0.4)),
        "robustness": table(change=[change for change, _ in STEPS], level=[level for _, level in STEPS],
                            r2=rng.uniform(0, 0.5, (len(STEPS), n)), answer_r2=rng.uniform(0.5, 1, (len(STEPS), n))),
        **_networks(units, rng),
        **_images(units, rng),
    }


def taught(tables: dict[str, Table], units: Sequence[int] = (0, 2)) -> dict[str, Table]:
    """The same tables where the teacher was asked, too."""
    made, n = tables["made_images"], len(units)
    return tables | {
        "teacher_robustness": table(r2=tables["robustness"]["r2"] / 2),
        "teacher_made_images": table(unit=made["unit"], answer=made["answer"] - 0.5),
        "teacher_agreement": table(unit=units, probe_r2=np.full(n, 0.8), maximizing_above_best=np.full(n, 0.5),
                                   minimizing_below_median=np.full(n, 1.0), adversarial_followed=np.linspace(0, 1, n)),
    }


def constant(tables: dict[str, Table], unit: int) -> dict[str, Table]:
    """The same tables where the student of one unit answers everything alike, as `interpret` then writes them."""
    place = int(np.flatnonzero(tables["receptive_fields"]["unit"] == unit)[0])
    changed = dict(tables)
    for name in ("receptive_fields", "tuning", "preferences", "ablation", "circuits", "natural_images", "made_image_similarity"):
        changed[name] = _changed(tables[name], tables[name]["unit"] == unit)
    for name in ("circuit_filters", "circuit_connections"):
        keep = tables[name]["unit"] != unit
        changed[name] = Table("", {key: Column("", column.values[keep]) for key, column in tables[name].columns.items()})
    made = tables["made_images"]
    answer = np.where(made["unit"] == unit, made["start_answer"], made["answer"])
    changed["made_images"] = Table("", {**made.columns, "answer": Column("", answer)})
    for name, value in (("probes", 1.0), ("robustness", np.nan)):
        columns = dict(tables[name].columns)
        for key in ("student", "r2", "answer_r2"):
            if key in columns:
                values = columns[key].values.copy()
                values[:, place] = value
                columns[key] = Column("", values)
        changed[name] = Table("", columns)
    return changed


def _changed(found: Table, rows: np.ndarray) -> Table:
    columns = {}
    for name, column in found.columns.items():
        values = column.values.copy()
        if name == "preference":
            values = values.astype("<U12")
            values[rows] = "unclear"
        elif name in ("row", "n_kept"):
            values[rows] = -1 if name == "row" else 0
        elif values.dtype.kind == "f" and name not in ("curve_intact", "mean_change"):
            values[rows] = np.nan
        columns[name] = Column(column.meaning, values)
    return Table(found.description, columns)


def _preferences(units: Sequence[int]) -> Table:
    index = {"colour": -0.5, "edge": 0.6, "curvature": np.nan, "dot": 0.7, "texture": 0.1}
    columns = {f"{name}_index": Column("", np.full(len(units), value)) for name, value in index.items()}
    columns |= {f"{name}_least": Column("", np.full(len(units), LEAST[name])) for name in index}
    labels = Column("", np.array(["dot" if unit == 0 else "unclear" for unit in units]))
    return Table("", {"unit": Column("", np.array(units)), "preference": labels, **columns})


def _probes(units: Sequence[int], rng: np.random.Generator) -> Table:
    nan = np.nan
    rows = [("blank", nan, nan, nan, nan, nan, "grey", 0.0)]
    rows += [("grating", angle, wavelength, phase, 64.0, nan, "grey", 0.0)
             for angle in (0.0, 45.0, 90.0, 135.0) for wavelength in (7.0, 14.0) for phase in (0.0, 180.0)]
    rows += [("surround", 45.0, 7.0, 0.0, size, nan, "grey", 0.0) for size in (8.0, 32.0, 96.0)]
    rows += [("dot", nan, nan, nan, size, polarity, "grey", 0.0) for size in DOT_PX for polarity in (1.0, -1.0)]
    rows += [("dot", nan, nan, nan, 12.0, -1.0, "grey", 24.0)]
    rows += [("curve", angle, nan, nan, 16.0, polarity, "grey", 0.0) for angle in (0.0, 90.0, 180.0, 270.0) for polarity in (1.0, -1.0)]
    rows += [("colour", nan, nan, nan, size, nan, colour, 0.0) for colour in ("red", "green", "blue", "yellow", "white", "black")
             for size in (24.0, 56.0)]
    rows += [(family, 0.0, nan, nan, 16.0, nan, "grey", 0.0) for family in ("lines", "edge", "bar", "angle")]
    rows += [("contrast", 45.0, 7.0, 0.0, 64.0, nan, "grey", 0.0) for _ in CONTRASTS]
    names = ("family", "orientation_deg", "wavelength_px", "phase_deg", "size_px", "polarity", "colour", "row_offset_px")
    stimuli = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    answers = [[_likes_dots(row) for row in rows] if unit == 0 else rng.gamma(2.0, 1.0, len(rows)) for unit in units]
    contrast = np.ones(len(rows))
    contrast[np.array(stimuli["family"]) == "contrast"] = CONTRASTS
    return table(**stimuli, contrast=contrast, column_offset_px=np.zeros(len(rows)), student=np.transpose(answers).astype(np.float32))


def _likes_dots(row: tuple) -> float:
    family, angle, wavelength, phase, size, polarity, _, offset = row
    if family == "dot":
        return BLANK + (4.0 if polarity < 0 else 1.0) * {4.0: 0.5, 12.0: 1.0, 32.0: 0.25}[size] * (offset == 0)
    if family == "grating":
        return BLANK + (2.0 if angle == 45.0 else 0.2) * (1.0 if wavelength == 7.0 else 0.5) * (1.5 if phase == 0 else 0.5)
    return BLANK + (0.3 if family == "curve" and polarity > 0 else 0.1 if family != "blank" else 0.0)


def _networks(units: Sequence[int], rng: np.random.Generator) -> dict[str, Table]:
    layer = np.repeat(np.arange(1, 6), WIDTHS).astype(np.int8)
    number = np.concatenate([np.arange(width) for width in WIDTHS]).astype(np.int16)
    n, n_filters, kept = len(units), len(layer), number < 2
    pairs = [(above, k, i) for above in range(2, 6) for k in range(2) for i in range(2)]
    read, reader, source = (np.tile(column, n) for column in zip(*pairs, strict=True))
    n_curve = 1 + len(DOT_PX)
    return {
        "consolidation": table(unit=units, largest_drop_after_layer=np.full(n, 2), largest_drop=np.full(n, 4),
                               drop_3_to_4=np.ones(n, int)),
        "ablation": table(unit=np.repeat(units, n_filters), layer=np.tile(layer, n), filter=np.tile(number, n),
                          r2_change=rng.normal(0, 0.1, n * n_filters), r2_with_intact=rng.uniform(0, 1, n * n_filters),
                          mean_change=rng.normal(0, 1, n * n_filters), size_index=rng.uniform(0, 1, n * n_filters),
                          curve=rng.gamma(2, 1, (n * n_filters, n_curve)).astype(np.float32)),
        "circuits": table(unit=units, explained=np.full(n, 0.93), n_kept=np.full((n, 5), 2), n_filters=np.tile(WIDTHS, (n, 1)),
                          curve=rng.gamma(2, 1, (n, n_curve)), curve_intact=rng.gamma(2, 1, (n, n_curve))),
        "circuit_filters": table(unit=np.repeat(units, kept.sum()), layer=np.tile(layer[kept], n), filter=np.tile(number[kept], n),
                                 sign=np.ones(n * kept.sum(), np.int8), effect=rng.normal(size=n * kept.sum()),
                                 effect_curve=rng.normal(size=(n * kept.sum(), n_curve))),
        "circuit_connections": table(unit=np.repeat(units, len(pairs)), layer=read, filter=reader, input=source,
                                     weight=rng.normal(size=n * len(pairs))),
    }


def _images(units: Sequence[int], rng: np.random.Generator) -> dict[str, Table]:
    kinds = ["maximizing", "maximizing", "minimizing", "adversarial-up", "adversarial-down"]
    n, made, ranks = len(units), len(kinds), 12
    return {
        "made_images": table(unit=np.repeat(units, made), kind=kinds * n, is_grey=[False, True, False, False, False] * n,
                             seed=np.zeros(n * made, int), start_row=np.full(n * made, -1),
                             image=rng.integers(0, 256, (n * made, 112, 112, 3), np.uint8),
                             answer=np.tile([9.0, 8.0, 0.1, 4.0, 0.5], n), start_answer=np.tile([1.0, 1.0, 1.0, 2.0, 2.0], n)),
        "made_image_similarity": table(unit=units, seed_similarity=np.full(n, 0.4)),
        "natural_images": table(unit=np.repeat(units, 2 * ranks),
                                kind=np.tile(np.repeat(["natural-strongest", "natural-weakest"], ranks), n),
                                rank=np.tile(np.arange(ranks), 2 * n), row=np.tile([*range(ranks), *range(20, 20 + ranks)], n),
                                answer=np.tile([*np.linspace(6, 4, ranks), *np.linspace(0, 1, ranks)], n),
                                file=np.array([""] * (2 * ranks * n), dtype="<U40")),
        "natural_answers": table(unit=units, mean_answer=np.full(n, 1.5), sd_answer=np.full(n, 0.7), n_images=np.full(n, 1234)),
    }

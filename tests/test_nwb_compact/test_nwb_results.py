"""Results written into a session file and read again are the same results, and the session beside them stays as it was."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pynwb
import pytest
from pynwb import NWBHDF5IO

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_results import read_results, run_ids, write_results
from nwb_compact.nwb_session import read_session, write_session
from nwb_compact.results import SCORE_COLUMNS, Results, StudentWeights, example_results, score_columns
from nwb_compact.session import example_session

Same = Callable[[Any, Any], None]


@pytest.fixture
def session_file(tmp_path: Path) -> Path:
    write_session(example_session(), tmp_path / "session.nwb")
    return tmp_path / "session.nwb"


@pytest.fixture
def results() -> Results:
    """Results with all that may be odd: NaN, a unit without a student, arrays of any shape, no values at all."""
    plain = example_results(example_session())
    scores = {name: np.array([np.nan, index]) for index, name in enumerate(plain.scores)}
    deep = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    odd = {"scalar": np.array(3, np.float32), "none": np.empty((0, 3), np.float32), "ü/deep": deep}
    return replace(
        plain,
        scores=scores,
        reason=("averages only: no noise ceiling", ""),
        students=(StudentWeights({}), StudentWeights(odd)),
        provenance={"seed": "3", "empty": "", "ü": "{'a': 1}"},
    )


def test_what_is_written_is_read(session_file: Path, results: Results, assert_same: Same) -> None:
    before = read_session(session_file)
    assert write_results(results, session_file) == session_file
    (read,) = read_results(session_file)
    assert_same(results, read)
    assert read.teacher_prediction.dtype == np.float32
    assert_same(before, read_session(session_file))
    assert [path.name for path in session_file.parent.iterdir()] == ["session.nwb"]


def test_results_without_any_student_array_survive(session_file: Path, results: Results, assert_same: Same) -> None:
    bare = replace(results, students=(StudentWeights({}),) * 2)
    write_results(bare, session_file)
    assert_same(bare, read_results(session_file)[0])


def test_results_of_some_units_point_at_their_rows(session_file: Path, assert_same: Same) -> None:
    session = example_session()
    one = replace(session, units=replace(session.units, name=("unit-2",)))
    write_results(example_results(one), session_file)
    assert_same(example_results(one), read_results(session_file)[0])
    with NWBHDF5IO(session_file, "r") as io:
        nwbfile = io.read()
        fitted = nwbfile.processing[c.RUN_PREFIX + "example"][c.RUN_UNITS]
        assert fitted[c.UNIT].data[:].tolist() == [1]
        assert fitted[c.UNIT].table is nwbfile.processing[c.ECEPHYS][c.NEURONS]


def test_the_module_holds_few_tables_that_explain_themselves(session_file: Path) -> None:
    results = example_results(example_session())
    write_results(results, session_file)
    with NWBHDF5IO(session_file, "r") as io:
        nwbfile = io.read()
        module = nwbfile.processing["nwb_compact_example"]
        assert sorted(module.data_interfaces) == sorted(
            [c.RUN_UNITS, c.RUN_SCORES, c.RUN_PREDICTIONS, c.RUN_PARAMETERS, c.RUN_FILTERS, c.RUN_PREFERRED, c.RUN_PROVENANCE]
        )
        assert {column.name: column.description for column in module[c.RUN_SCORES].columns} == dict(SCORE_COLUMNS)
        filters = module[c.RUN_FILTERS]
        np.testing.assert_array_equal(filters[c.KERNEL].data[3:], results.students[1].arrays["layer1.kernel"])
        assert filters[c.UNIT].data[:].tolist() == [0, 0, 0, 1, 1, 1]
        assert filters[c.FILTER_INDEX].data[:].tolist() == [0, 1, 2, 0, 1, 2]
        best, worst = module[c.RUN_PREFERRED][c.BEST].data[:], module[c.RUN_PREFERRED][c.WORST].data[:]
        assert best.shape == worst.shape == (2, 10)
        ordered = np.sort(results.student_prediction[:, 1])
        np.testing.assert_array_equal(results.student_prediction[best[1], 1], ordered[::-1][:10])
        np.testing.assert_array_equal(results.student_prediction[worst[1], 1], ordered[:10])
        rows = dict(zip(module[c.RUN_PROVENANCE][c.KEY].data[:], module[c.RUN_PROVENANCE][c.VALUE].data[:], strict=True))
        assert rows == {"contract_version": "1", "run_number": "1", "source_object_id": nwbfile.object_id, **results.provenance}


def test_baselines_are_columns_of_their_own(session_file: Path) -> None:
    example = example_results(example_session())
    extra = {name: np.array([0.25, np.nan]) for name in score_columns(["ridge"]) if name.startswith("ridge_")}
    write_results(replace(example, scores={**example.scores, **extra}), session_file)
    (read,) = read_results(session_file)
    assert list(read.scores) == list(score_columns(["ridge"]))
    np.testing.assert_array_equal(read.scores["ridge_r2_er"], [0.25, np.nan])
    with NWBHDF5IO(session_file, "r") as io:
        columns = io.read().processing["nwb_compact_example"][c.RUN_SCORES].columns
        assert {column.name: column.description for column in columns} == score_columns(["ridge"])


def test_a_run_with_fewer_scores_is_read_as_it_is(session_file: Path) -> None:
    """As runs of earlier versions are."""
    example = example_results(example_session())
    write_results(replace(example, scores={name: example.scores[name] for name in ("teacher_r2", "student_r2", "snr")}), session_file)
    (read,) = read_results(session_file)
    assert list(read.scores) == ["teacher_r2", "student_r2", "snr"]


def test_runs_keep_their_order(session_file: Path) -> None:
    results = example_results(example_session())
    for run_id in ("b", "c", "a"):
        write_results(replace(results, run_id=run_id), session_file)
    assert [run.run_id for run in read_results(session_file)] == ["b", "c", "a"]
    assert sorted(run_ids(session_file)) == ["a", "b", "c"]
    assert [run.run_id for run in read_results(session_file, "c")] == ["c"]
    write_results(replace(results, run_id="b"), session_file, replace=True)
    assert [run.run_id for run in read_results(session_file)] == ["c", "a", "b"]


def test_a_run_is_replaced_only_on_request_and_its_room_is_freed(session_file: Path, assert_same: Same) -> None:
    before = read_session(session_file)
    rng = np.random.default_rng(0)
    heavy = tuple(StudentWeights({"layer1.kernel": rng.normal(size=(200, 3, 5, 5)).astype(np.float32)}) for _ in range(2))
    first = replace(example_results(before), students=heavy)
    second = replace(first, scores={name: values / 2 for name, values in first.scores.items()})
    write_results(first, session_file)
    size = session_file.stat().st_size
    written = session_file.read_bytes()
    with pytest.raises(NwbCompactError, match=r"found a run 'example', expected none of this id yet\. Next: choose another run id or give"):
        write_results(second, session_file)
    assert session_file.read_bytes() == written
    for _ in range(3):
        write_results(second, session_file, replace=True)
    assert_same(second, read_results(session_file)[0])
    assert_same(before, read_session(session_file))
    assert session_file.stat().st_size < 1.05 * size
    assert pynwb.validate(path=session_file) == []


def test_output_is_self_contained_without_voltage_and_the_original_is_not_touched(session_file: Path, assert_same: Same) -> None:
    add_voltage(session_file)
    write_results(replace(example_results(example_session()), run_id="old"), session_file)
    before = session_file.read_bytes()
    output = session_file.with_name("output.nwb")
    assert write_results(example_results(example_session()), session_file, output=output) == output
    assert session_file.read_bytes() == before
    assert [run.run_id for run in read_results(output)] == ["old", "example"]
    assert_same(read_session(session_file), read_session(output))
    assert output.stat().st_size < len(before) - 1_000_000
    with h5py.File(output) as file:
        assert list(file["acquisition"]) == ["eye_position"]
        assert file[f"stimulus/templates/{c.IMAGES}/image_000001"].compression == "gzip"
        links: list[str] = []
        file.visititems_links(lambda name, link: links.append(name) if isinstance(link, h5py.ExternalLink) else None)
        assert links == []
        provenance = file[f"processing/{c.RUN_PREFIX}example/{c.RUN_PROVENANCE}"]
        source = dict(zip(provenance[c.KEY].asstr()[:], provenance[c.VALUE].asstr()[:], strict=True))[c.SOURCE_KEY]
        with h5py.File(session_file) as original:
            assert source == original.attrs["object_id"] == file.attrs["object_id"]
    assert pynwb.validate(path=output) == []


def test_output_does_not_overwrite_unasked(session_file: Path) -> None:
    results, output = example_results(example_session()), session_file.with_name("output.nwb")
    with pytest.raises(NwbCompactError, match="found the session file itself"):
        write_results(results, session_file, output=session_file)
    write_results(results, session_file, output=output)
    with pytest.raises(NwbCompactError, match=r"output\.nwb: found a file, expected none yet"):
        write_results(results, session_file, output=output)
    write_results(results, session_file, output=output, replace=True)
    assert run_ids(output) == ("example",)
    assert run_ids(session_file) == ()


@pytest.mark.parametrize("linked", ["acquisition/eye_position", "acquisition/eye_position/data"])
def test_output_holds_what_the_session_only_links_to(session_file: Path, linked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NWB_COMPACT_FOLLOW_LINKS", "1")
    other = session_file.with_name("other.nwb")
    write_session(example_session(), other)
    add_voltage(other)
    with h5py.File(session_file, "a") as file, h5py.File(other) as source:
        if linked.endswith("data"):
            source.copy("acquisition/eye_position", file["acquisition"])
            del file[linked]
        file[linked] = h5py.ExternalLink("other.nwb", f"/{linked}")
    output = session_file.with_name("output.nwb")
    write_results(example_results(example_session()), session_file, output=output)
    other.unlink()
    with h5py.File(output) as file:
        assert isinstance(file.get(linked, getlink=True), h5py.HardLink)
        assert file["acquisition/eye_position/data"][:].tolist() == list(range(10))


WRONG: dict[str, Callable[[Results], Results]] = {
    r"found 1 fitted unit\(s\) such as 'x'": lambda r: replace(r, unit_name=("unit-1", "x")),
    "found results about other images": lambda r: replace(r, image_sha256=r.image_sha256[::-1]),
    "run id: found 'a_b', expected letters, digits and dashes": lambda r: replace(r, run_id="a_b"),
    "run id: found '../x'": lambda r: replace(r, run_id="../x"),
}


@pytest.mark.parametrize("found", WRONG)
def test_results_that_do_not_belong_to_the_file_leave_it_untouched(session_file: Path, found: str) -> None:
    before = session_file.read_bytes()
    with pytest.raises(NwbCompactError, match=found):
        write_results(WRONG[found](example_results(example_session())), session_file)
    assert session_file.read_bytes() == before
    assert len(list(session_file.parent.iterdir())) == 1


def test_reading_names_what_is_missing(session_file: Path) -> None:
    assert read_results(session_file) == ()
    with pytest.raises(NwbCompactError, match=r"found no run 'example-1', expected a run of this file\. Next: fit the file first"):
        read_results(session_file, "example-1")
    write_results(example_results(example_session()), session_file)
    with pytest.raises(NwbCompactError, match="did you mean 'example'"):
        read_results(session_file, "example-1")
    with h5py.File(session_file, "a") as file:
        del file["processing/nwb_compact_example/scores"]
    with pytest.raises(NwbCompactError, match=r"nwb_compact_example: found no table scores \(there: first_layer_filters, "):
        read_results(session_file)


def test_paths_may_be_strings(session_file: Path) -> None:
    output = session_file.with_name("out.nwb")
    assert write_results(example_results(example_session()), str(session_file)) == session_file
    assert write_results(replace(example_results(example_session()), run_id="two"), str(session_file), output=str(output)) == output
    assert set(run_ids(str(session_file))) == {"example"}
    assert [run.run_id for run in read_results(str(output))] == ["example", "two"]
    with pytest.raises(NwbCompactError, match=r"^typo\.nwb: found no file, expected an NWB file\. Next: correct the path$"):
        read_results("typo.nwb")


def test_a_later_contract_is_refused(session_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(c, "CONTRACT_VERSION_WITHOUT_SHARED", "3")
        write_results(example_results(example_session()), session_file)
    with pytest.raises(NwbCompactError, match=r"nwb_compact_example: found contract version '3', expected at most 2"):
        read_results(session_file)


def test_inspector_finds_nothing_critical_after_results_were_written(session_file: Path) -> None:
    from nwbinspector import Importance, inspect_nwbfile, load_config

    write_results(example_results(example_session()), session_file)
    output = write_results(replace(example_results(example_session()), run_id="b"), session_file, output=session_file.with_name("o.nwb"))
    for file_path in (session_file, output):
        found = inspect_nwbfile(
            nwbfile_path=file_path, config=load_config("dandi"), importance_threshold=Importance.CRITICAL, skip_validate=False
        )
        assert [message.message for message in found] == []


def test_reading_results_needs_no_torch(session_file: Path) -> None:
    write_results(example_results(example_session()), session_file)
    program = (
        "import sys; from pathlib import Path; from nwb_compact.nwb_results import read_results;"
        "print(read_results(Path(sys.argv[1]))[0].run_id, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(session_file)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["example", "False"]


def add_voltage(file_path: Path) -> None:
    """What a conversion of a raw recording leaves in /acquisition: the voltage, and eye positions that are not raw voltage."""
    with NWBHDF5IO(file_path, "a") as io:
        nwbfile = io.read()
        device = nwbfile.create_device("array")
        group = nwbfile.create_electrode_group(name="group", description="g", location="V4", device=device)
        nwbfile.add_electrode(location="V4", group=group)
        rows = nwbfile.create_electrode_table_region([0], "all")
        noise = np.random.default_rng(0).integers(-100, 100, (1_000_000, 1), dtype=np.int16)
        voltage = pynwb.ecephys.ElectricalSeries(name="voltage", data=noise, electrodes=rows, rate=30_000.0, conversion=1e-6)
        nwbfile.add_acquisition(voltage)
        nwbfile.add_acquisition(pynwb.TimeSeries(name="eye_position", data=np.arange(10.0), unit="deg", rate=1_000.0))
        io.write(nwbfile)

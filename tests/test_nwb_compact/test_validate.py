import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact import contract as c
from nwb_compact import validate
from nwb_compact.cli import main
from nwb_compact.nwb_results import example_file
from nwb_compact.nwb_session import write_session
from nwb_compact.session import example_session

pytest.importorskip("nwbinspector")


@pytest.fixture
def file(tmp_path):
    """A session with a run."""
    return example_file(tmp_path / "a.nwb")


def run(*arguments):
    return CliRunner().invoke(main, ["validate", *map(str, arguments)])


def without_subject(path):
    with h5py.File(path, "a") as hdf5:
        del hdf5["general/subject"]
    return path


def test_a_session_with_a_run_is_valid(file):
    done = run(file)
    assert done.exit_code == 0, done.output
    assert f"{file}: valid; " in done.output.splitlines()[-1]
    assert not [one for one in validate.findings(file) if one.blocks]


def test_what_dandi_refuses_is_critical_and_says_what_to_do(file):
    done = run(without_subject(file))
    assert done.exit_code == 1
    first, second, *_ = done.output.splitlines()
    assert first.startswith("CRITICAL")
    assert "check_subject_exists" in first
    assert "convert again" in second
    assert "1 to mend before it is shared" in done.output


def test_a_file_that_breaks_the_schema_is_critical(file):
    with h5py.File(file, "a") as hdf5:
        del hdf5[f"processing/ecephys/{c.SPIKE_COUNTS}"].attrs["description"]
    found = validate.findings(file)
    assert found[0].severity == "CRITICAL"
    assert c.SPIKE_COUNTS in found[0].where + found[0].says


def test_a_file_that_pynwb_cannot_read_is_critical_and_shows_no_traceback(file):
    with h5py.File(file, "a") as hdf5:
        del hdf5["session_description"]
    done = run(file)
    assert done.exit_code == 1
    assert done.output.startswith("CRITICAL")
    assert "unreadable" in done.output
    assert "Traceback" not in done.output


def test_a_file_that_breaks_our_contract_cannot_be_shared(file):
    with h5py.File(file, "a") as hdf5:
        hdf5[f"stimulus/presentation/{c.IMAGE_TABLE}/{c.SHA256}"][0] = "of another image"
    blocking = [one for one in validate.findings(file) if one.blocks]
    assert "contract" in {one.check for one in blocking}


def test_what_only_stops_a_fit_does_not_stop_sharing(tmp_path):
    """A file of hashes is a supported layout; so is one of few images."""
    hashes, few = tmp_path / "hashes.nwb", tmp_path / "few.nwb"
    session = example_session()
    write_session(replace(session, images=replace(session.images, pixels=None)), hashes)
    write_session(example_session(n_images=10), few)
    for path, said in ((hashes, "hashes only"), (few, "10 different images")):
        assert CliRunner().invoke(main, ["check", str(path)]).exit_code == 1
        done = run(path)
        assert done.exit_code == 0, done.output
        assert said in done.output
        assert f"allowed: {validate.ALLOWED_UNFIT}" in done.output


def test_spike_times_without_a_resolution_say_where_to_give_it(tmp_path):
    session, path = example_session(), tmp_path / "a.nwb"
    spikes = tuple(np.arange(5.0) for _ in session.units.name)
    write_session(replace(session, units=replace(session.units, spike_times_s=spikes)), path)
    found = [one for one in validate.findings(path) if one.check == "check_units_resolution_is_set"]
    assert found
    assert "responses.sampling_frequency_hz" in found[0].next_step


def test_an_allowed_violation_is_shown_with_its_reason_and_does_not_block(file, monkeypatch):
    def inspected(path):
        yield validate.Finding("VIOLATION", "check_regular_timestamps", "/x", "regular", "mend it",
                               validate.ALLOWED["check_regular_timestamps"])

    monkeypatch.setattr(validate, "_inspected", inspected)
    done = run(file)
    assert done.exit_code == 0
    assert "allowed: times of events" in done.output
    monkeypatch.setattr(validate, "_inspected", lambda path: [replace(next(inspected(path)), allowed="")])
    assert run(file).exit_code == 1


def test_json_holds_every_finding_of_every_file(file, tmp_path):
    other = tmp_path / "b.nwb"
    write_session(example_session(), other)
    done = run("--json", without_subject(file), other)
    assert done.exit_code == 1
    first, second = (json.loads(line) for line in done.output.splitlines())
    assert (first["file"], first["valid"], second["valid"]) == (str(file), False, True)
    assert {"severity", "check", "where", "says", "next_step", "allowed"} == set(first["findings"][0])


def test_what_is_no_file_is_one_line(tmp_path):
    (tmp_path / "a.nwb").write_bytes(b"no HDF5")
    for name in ("a.nwb", "b.nwb"):
        done = run(tmp_path / name)
        assert done.exit_code == 1
        assert len(done.output.strip().splitlines()) == 1
        assert "Next:" in done.output


def test_the_file_is_not_changed(file):
    before = file.read_bytes()
    run(file)
    assert file.read_bytes() == before


def test_every_name_of_the_inspector_is_known():
    from nwbinspector import Importance

    assert {one.name for one in Importance} == set(validate.SEVERITIES)

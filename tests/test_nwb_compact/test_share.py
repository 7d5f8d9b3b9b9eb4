"""Uploads against a server on this machine that checks every request; a real archive cannot be installed from a package index."""

import logging
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from pynwb import NWBHDF5IO, TimeSeries
from pynwb.ecephys import ElectricalSeries

from nwb_compact import contract as c
from nwb_compact import dandi_archive
from nwb_compact.cli import main
from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.nwb_interpretation import read_interpretation, write_interpretation
from nwb_compact.nwb_results import read_results, write_results
from nwb_compact.nwb_session import read_session, write_session
from nwb_compact.results import example_results
from nwb_compact.session import Electrodes, example_session

pytest.importorskip("dandi")
pytest.importorskip("nwbinspector")

from tests.test_nwb_compact.dandi_server import DANDISET, archive, etag_of

KEY = "recognizable0key1of2nobody"
NAME = "sub-M1/sub-M1_ses-{}_desc-compact-example_ecephys+image.nwb"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """An archive, a key for it, a home without a keyring, few and quick repetitions, and no way to any other machine."""
    import dandi.dandiapi

    monkeypatch.setenv("DANDI_API_KEY", KEY)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(dandi.dandiapi, "REQUEST_RETRIES", 2)
    with archive(KEY) as state:
        asked, known = [], socket.getaddrinfo

        def found(host, port, *more, **named):
            asked.append(f"http://{host}:{port}")
            return known(host, port, *more, **named)

        monkeypatch.setattr(socket, "getaddrinfo", found)
        yield state
        assert set(asked) <= {state.address}
        assert state.faults == []


def a_file(folder, session_id="one", *, run=True):
    """A session with a run."""
    session = example_session()
    about = replace(session.about, session_id=session_id, identifier=session_id)
    session = replace(session, about=about, subject=replace(session.subject, subject_id="M1"))
    path = folder / f"{session_id}.nwb"
    write_session(session, path)
    if run:
        write_results(example_results(session), path)
    return path


def share(server, *arguments, answer=None, dandiset=DANDISET):
    instance = [] if "--instance" in arguments else ["--instance", server.address]
    done = CliRunner().invoke(main, ["share", *map(str, arguments), "--dandiset", dandiset, *instance], input=answer)
    assert KEY not in done.output
    assert "Traceback" not in done.output or "--debug" in arguments
    return done


def refused(server, *arguments, **named):
    done = share(server, *arguments, **named)
    assert done.exit_code == 1, done.output
    line = done.stderr.strip().splitlines()[-1]
    assert "Next:" in line
    return line


def held(server, path):
    """The bytes that the archive holds of an asset."""
    (blob,) = (blob for blob in server.blobs.values() if blob["blob_id"] == server.assets[path]["blob"])
    return blob["bytes"]


def test_files_are_shown_sent_whole_and_said_where_they_are(server, tmp_path):
    files = [a_file(tmp_path), a_file(tmp_path, "two_2.b", run=False)]
    done = share(server, *files, answer="y\n")
    assert done.exit_code == 0, done.output
    names = [NAME.format("one"), "sub-M1/sub-M1_ses-two-2-b_ecephys+image.nwb"]
    assert list(server.assets) == names
    for file, name in zip(files, names, strict=True):
        assert held(server, name) == file.read_bytes()
        assert f"{file} -> {name}, {file.stat().st_size / 1e6:,.1f} MB" in done.output
        assert f"{file}: {server.address}/api/assets/{server.assets[name]['asset_id']}/download/" in done.output
    assert "Upload 2 files" in done.output
    assert server.assets[names[0]]["metadata"]["wasAttributedTo"][0]["identifier"] == "M1"


def test_the_validation_of_the_dandi_program_finds_no_error(server, tmp_path):
    file = a_file(tmp_path)
    with dandi_archive.library():
        from dandi.validate import Severity

        found = dandi_archive.asset(file, NAME.format("one"), file).library.get_validation_errors()
        assert [one for one in found if one.severity.value >= Severity.ERROR.value] == []
        with h5py.File(file, "a") as changed:
            del changed["general/subject/age"]
        worse = dandi_archive.asset(file, NAME.format("one"), file).library.get_validation_errors()
    assert "NWBI.check_subject_age" in [one.id for one in worse if one.severity.value >= Severity.ERROR.value]


def test_whoever_says_no_uploads_nothing(server, tmp_path):
    done = share(server, a_file(tmp_path), answer="n\n")
    assert done.exit_code == 1
    assert not server.sent("POST", "") + server.sent("PUT", "")


def test_a_second_run_sends_nothing_and_does_not_ask(server, tmp_path):
    file = a_file(tmp_path)
    assert share(server, file, "--yes").exit_code == 0
    server.requests.clear()
    done = share(server, file)
    assert done.exit_code == 0, done.output
    assert "there already" in done.output
    assert "/download/" in done.output
    assert not server.sent("POST", "") + server.sent("PUT", "")


def test_a_file_that_changed_replaces_its_asset_and_says_so(server, tmp_path):
    file = a_file(tmp_path)
    share(server, file, "--yes")
    before = server.assets[NAME.format("one")]["asset_id"]
    with h5py.File(file, "a") as hdf5:
        hdf5["session_description"][()] = "said better"
    done = share(server, file, "--yes")
    assert done.exit_code == 0, done.output
    assert "replaces an asset of" in done.output
    assert server.assets[NAME.format("one")]["asset_id"] != before
    assert held(server, NAME.format("one")) == file.read_bytes()


def test_a_file_of_many_parts_arrives_whole_though_the_storage_is_busy_once(server, tmp_path, monkeypatch):
    from dandischema.digests.dandietag import PartGenerator

    server.part_bytes = 100_000
    monkeypatch.setattr(PartGenerator, "DEFAULT_PART_SIZE", 100_000)
    monkeypatch.setattr(PartGenerator, "MIN_PART_SIZE", 1)
    server.fail["/storage/"] = 1
    file = a_file(tmp_path)
    done = share(server, file, "--yes")
    assert done.exit_code == 0, done.output
    assert len(server.sent("PUT", "/storage/")) > file.stat().st_size // 100_000
    assert held(server, NAME.format("one")) == file.read_bytes()
    assert next(iter(server.blobs)) == etag_of(file.read_bytes(), 100_000)


def test_an_error_in_the_middle_says_what_is_there_and_the_next_run_sends_the_rest(server, tmp_path):
    files = [a_file(tmp_path), a_file(tmp_path, "two")]
    assert share(server, files[0], "--yes").exit_code == 0
    server.fail["/storage/"] = 100
    line = refused(server, *files, "--yes")
    assert line.startswith(f"{files[1]}: ")
    assert "uploaded before: 1 of 2 files" in line
    assert "Signature=" not in line
    server.fail.clear()
    server.requests.clear()
    assert share(server, *files, "--yes").exit_code == 0
    assert len(server.sent("PUT", "/storage/")) == 1
    assert set(server.assets) == {NAME.format("one"), NAME.format("two")}


def test_an_upload_that_ended_before_its_asset_was_made_does_not_send_the_bytes_again(server, tmp_path):
    file = a_file(tmp_path)
    server.refuse["POST /api/dandisets/"] = 400
    assert "error of the archive" in refused(server, file, "--yes")
    assert not server.assets
    server.refuse.clear()
    server.requests.clear()
    assert share(server, file, "--yes").exit_code == 0
    assert not server.sent("PUT", "/storage/")
    assert held(server, NAME.format("one")) == file.read_bytes()


@pytest.mark.parametrize("fault", ["loses_a_byte", "swaps_blobs"])
def test_what_arrived_otherwise_is_noticed(server, tmp_path, fault):
    setattr(server, fault, True)
    line = refused(server, a_file(tmp_path), "--yes")
    assert "ETag" in line or "digest" in line or "parts differ" in line


def test_a_dry_run_asks_nobody_and_needs_no_key(server, tmp_path, monkeypatch):
    monkeypatch.delenv("DANDI_API_KEY")
    file = a_file(tmp_path)
    done = share(server, file, "--dry-run", "--instance", "dandi-sandbox")
    assert done.exit_code == 0, done.output
    assert f"{file} -> {NAME.format('one')}" in done.output
    assert "nothing was sent" in done.output
    assert server.requests == []


def test_a_file_that_validate_refuses_is_not_shared(server, tmp_path):
    good, bad = a_file(tmp_path), a_file(tmp_path, "two")
    with h5py.File(bad, "a") as hdf5:
        del hdf5["general/subject/sex"]
    line = refused(server, good, bad, "--yes")
    assert line.startswith(f"{bad}: ")
    assert "CRITICAL check_subject_sex" in line
    assert server.requests == []


def test_a_species_that_dandi_does_not_know_is_said_before_anything_is_sent(server, tmp_path):
    file = a_file(tmp_path)
    with h5py.File(file, "a") as hdf5:
        del hdf5["general/subject/species"]
        hdf5["general/subject/species"] = "Macaca unknownii"
    assert "NCBITaxon" in refused(server, file, "--yes")
    with h5py.File(file, "a") as hdf5:  # one that it would look up on another server
        del hdf5["general/subject/species"]
        hdf5["general/subject/species"] = "http://purl.obolibrary.org/obo/NCBITaxon_9541"
    assert share(server, file, "--yes").exit_code == 0
    assert server.assets[NAME.format("one")]["metadata"]["wasAttributedTo"][0]["species"]["identifier"].endswith("NCBITaxon_9541")


# What is left out -----------------------------------------------------------------------------------------------------


def with_voltage(folder):
    """A session with a run and a recording."""
    session = example_session()
    electrodes = Electrodes(("1",), ("array",), ("V4",))
    session = replace(session, electrodes=electrodes, subject=replace(session.subject, subject_id="M1"))
    path = folder / "recorded.nwb"

    def add(nwbfile):
        device = nwbfile.create_device("amplifier")
        group = nwbfile.create_electrode_group("array", description="array", location="V4", device=device)
        nwbfile.add_electrode(group=group, location="V4")
        region = nwbfile.create_electrode_table_region(region=[0], description="all")
        noise = np.random.default_rng(0).normal(size=(200_000, 1))
        nwbfile.add_acquisition(ElectricalSeries(name="ElectricalSeries", data=noise, electrodes=region, rate=3e4))

    write_session(session, path, add_voltage=add)
    write_results(example_results(session), path)
    return path


def test_strip_raw_leaves_out_the_voltage_of_what_is_sent_only(server, tmp_path):
    file = with_voltage(tmp_path)
    before = file.read_bytes()
    done = share(server, file, "--strip", "raw", "--yes")
    assert done.exit_code == 0, done.output
    assert "without ElectricalSeries" in done.output
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]
    (tmp_path / "received.nwb").write_bytes(held(server, NAME.format("example")))
    with h5py.File(tmp_path / "received.nwb") as hdf5:
        assert not len(hdf5["acquisition"])
    assert (tmp_path / "received.nwb").stat().st_size < len(before) / 2
    assert [run.run_id for run in read_results(tmp_path / "received.nwb")] == ["example"]
    server.requests.clear()
    assert share(server, file, "--strip", "raw").exit_code == 0
    assert not server.sent("PUT", "/storage/")  # two stripped copies are the same to the byte


def test_strip_images_leaves_their_hashes_and_no_pixel(server, tmp_path):
    file = a_file(tmp_path)
    session, results = read_session(file), read_results(file)[0]
    shown = np.resize(session.images.pixels[3], (112, 112, 3))
    made = Table("made", {"unit": Column("the unit", np.array([0, 0])), "start_row": Column("its start", np.array([-1, 3])),
                          "image": Column("RGB", np.stack([np.zeros_like(shown), shown]))})
    kept = Table("kept", {"unit": Column("the unit", np.array([0])), "size_px": Column("pixels", np.array([8.0]))})
    write_interpretation({"made_images": made, "physiology": kept}, file, results.run_id)
    before = file.read_bytes()
    done = share(server, file, "--strip", "images", "--strip", "raw", "--yes")
    assert done.exit_code == 0, done.output
    assert file.read_bytes() == before
    assert f"without {c.IMAGES}, interpretation_made_images of nwb_compact_example" in done.output
    received = tmp_path / "received.nwb"
    received.write_bytes(held(server, NAME.format("one")))
    got = read_session(received)
    assert got.images.pixels is None
    assert got.images.sha256 == session.images.sha256
    assert list(read_interpretation(received, "example")) == ["physiology"]
    with h5py.File(received) as hdf5:
        pixels = []
        hdf5.visititems(lambda name, item: pixels.append(name) if getattr(item, "dtype", None) == np.uint8 and item.ndim > 2 else None)
    assert pixels == []
    assert CliRunner().invoke(main, ["validate", str(received)]).exit_code == 0
    assert CliRunner().invoke(main, ["check", str(received)]).exit_code == 1


def test_a_stripped_copy_is_removed_when_the_upload_fails(server, tmp_path):
    server.refuse["/uploads/initialize/"] = 403
    line = refused(server, a_file(tmp_path), "--strip", "raw", "--yes")
    assert "your account may not" in line
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["one.nwb"]


def test_room_for_the_copy_is_asked_for(server, tmp_path, monkeypatch):
    file = a_file(tmp_path)
    monkeypatch.setattr("nwb_compact.safe_write.SPARE_BYTES", 2**62)
    assert "free on its disk" in refused(server, file, "--strip", "raw", "--yes")
    assert server.requests == []


def test_other_series_stay(server, tmp_path):
    file = with_voltage(tmp_path)
    with NWBHDF5IO(file, "a") as io:
        nwbfile = io.read()
        nwbfile.add_acquisition(TimeSeries(name="photodiode", data=np.zeros(9), unit="volts", rate=1e3))
        io.write(nwbfile)
    done = share(server, file, "--strip", "raw", "--dry-run")
    assert "without ElectricalSeries\n" in done.output


# Bad input ------------------------------------------------------------------------------------------------------------


def test_no_key_a_refused_key_and_one_that_is_no_key_are_a_line_each(server, tmp_path, monkeypatch):
    file = a_file(tmp_path)
    monkeypatch.setenv("DANDI_API_KEY", "wrong-key-0")
    line = refused(server, file)
    assert "refuses" in line
    assert "wrong-key-0" not in line
    monkeypatch.setenv("DANDI_API_KEY", "two\nlines-of-key")
    line = refused(server, file, "--debug")
    assert "lines-of-key" not in line
    monkeypatch.delenv("DANDI_API_KEY")
    assert "no API key in DANDI_API_KEY or the keyring" in refused(server, file)


def test_the_key_of_one_archive_is_not_sent_to_another(tmp_path, monkeypatch):
    from nwb_compact import dandi_archive

    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setenv("DANDI_API_KEY", KEY)
    monkeypatch.delenv("DANDI_SANDBOX_API_KEY", raising=False)
    assert dandi_archive._key("dandi", "dandi") == KEY
    with pytest.raises(dandi_archive.NwbCompactError, match="DANDI_SANDBOX_API_KEY"):
        dandi_archive._key("dandi-sandbox", "dandi-sandbox")


def test_the_keyring_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.delenv("DANDI_API_KEY")
    monkeypatch.setattr("keyring.get_password", lambda service, user: KEY if (service[:17], user) == ("dandi-api-127.0.0", "key") else None)
    assert share(server, a_file(tmp_path), "--yes").exit_code == 0


@pytest.mark.parametrize(("given", "said"), [
    ("--instance=dandy", "did you mean 'dandi'?"),
    ("--instance=http://archive.example.org", "https://"),
    ("--instance=https://", "https://"),
    ("--dandiset=12", "six digits"),
])
def test_a_wrong_address_or_number_is_a_line(server, tmp_path, given, said):
    done = CliRunner().invoke(main, ["share", str(a_file(tmp_path)), "--dandiset", DANDISET, "--instance", server.address, given])
    assert done.exit_code == 1
    assert said in done.output
    assert len(done.output.splitlines()) == 1
    assert server.requests == []


def test_no_such_dandiset(server, tmp_path):
    line = refused(server, a_file(tmp_path), dandiset="000999")
    assert "dandiset 000999" in line


def test_an_address_where_nobody_answers(server, tmp_path):
    server.close()
    assert "no answer from the network" in refused(server, a_file(tmp_path))


def test_what_is_no_archive(server, tmp_path):
    server.refuse["info"] = 404
    assert "an archive that the dandi library can write to" in refused(server, a_file(tmp_path))


def test_two_files_of_one_name_are_refused_before_anything_is_sent(server, tmp_path):
    (tmp_path / "a").mkdir()
    one, other = a_file(tmp_path), a_file(tmp_path / "a")
    line = refused(server, one, other, "--yes")
    assert f"{one}, {other}: found one name for all of them, {NAME.format('one')}" in line
    assert server.requests == []


def test_what_is_no_session_is_a_line(server, tmp_path):
    (tmp_path / "text.nwb").write_text("no HDF5")
    assert "text.nwb" in refused(server, tmp_path / "text.nwb")
    assert "no file" in refused(server, tmp_path / "none.nwb")
    file = a_file(tmp_path, run=False)
    with h5py.File(file, "a") as hdf5:
        del hdf5["processing/ecephys"]
    assert f"{file}: units: found VIOLATION contract" in refused(server, file)
    assert server.requests == []


def test_without_the_library_a_line_says_what_to_install(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dandi.metadata", None)
    assert 'pip install "nwb-compact[dandi]"' in refused(server, a_file(tmp_path))


# The key --------------------------------------------------------------------------------------------------------------


def test_the_key_is_seen_nowhere_though_the_server_repeats_it(server, tmp_path, caplog):
    """In the output with --debug, the log, or any file: of a server that says in its errors what it was sent."""
    server.echoes = True
    server.refuse["/uploads/initialize/"] = 400
    caplog.set_level(logging.DEBUG)
    done = share(server, a_file(tmp_path), "--yes", "--debug")
    assert done.exit_code == 1
    assert "[key]" in done.output
    assert KEY not in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_the_command_as_it_is_typed_says_the_key_nowhere(server, tmp_path):
    """In a process of its own, with a home of its own, whose every file is searched afterwards."""
    server.echoes = True
    server.refuse["/uploads/initialize/"] = 400
    file, home = a_file(tmp_path), tmp_path / "home"
    home.mkdir()
    where = ["--dandiset", DANDISET, "--instance", server.address]
    typed = [sys.executable, "-m", "nwb_compact.cli", "share", str(file), *where, "--yes", "--debug"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(home / "cache"), "XDG_STATE_HOME": str(home / "state"), "DANDI_LOG_LEVEL": "DEBUG"}
    done = subprocess.run(typed, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert re.search(r"^\S+: sub-M1/.*found an error of the archive .*\[key\]", done.stderr, re.MULTILINE), done.stderr
    assert KEY not in done.stdout + done.stderr + " ".join(typed)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not list(home.rglob("*.log"))


def test_the_room_is_imported_without_the_library():
    code = "import sys, nwb_compact.share; sys.exit(any(name.split('.')[0] in ('dandi', 'dandischema', 'keyring') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

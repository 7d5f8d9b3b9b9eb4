import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from nwb_compact.cli import main
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_results import write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import example_results
from nwb_compact.session import example_session
from nwb_compact_analysis.cli import report


@pytest.fixture
def fitted(tmp_path) -> Path:
    session, file_path = example_session(), tmp_path / "session.nwb"
    write_session(session, file_path)
    for run_id in ("first", "second"):
        write_results(replace(example_results(session), run_id=run_id), file_path)
    return file_path


def run(*arguments: object):
    return CliRunner().invoke(report, [str(argument) for argument in arguments], catch_exceptions=True)


def test_the_last_run_is_reported_beside_the_file(fitted):
    done = run(fitted)
    page = fitted.parent / "session_report" / "index.html"
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0].startswith("run second: On 12 scored images the students predict 2 of 2 units with a median r²")
    assert done.output.splitlines()[1:] == [f"report: {page}"]
    assert page.read_text(encoding="utf-8").count("<img ") == 8


def test_a_run_can_be_named(fitted, tmp_path):
    done = run(fitted, "-o", tmp_path / "out", "--run", "first")
    assert done.output.startswith("run first: ")


def test_the_file_is_not_changed(fitted, tmp_path):
    before = fitted.read_bytes()
    run(fitted, "-o", tmp_path / "out")
    assert fitted.read_bytes() == before


def test_hash_only_sessions_and_averages_are_reported(tmp_path):
    session = example_session()
    session = replace(session, images=replace(session.images, pixels=None))
    write_session(session, tmp_path / "a.nwb")
    write_results(example_results(session), tmp_path / "a.nwb")
    assert run(tmp_path / "a.nwb", "-o", tmp_path / "out").exit_code == 0
    assert "only the hashes" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_an_unknown_run_names_the_nearest(fitted, tmp_path):
    done = run(fitted, "-o", tmp_path / "out", "--run", "frst")
    assert isinstance(done.exception, NwbCompactError)
    assert str(done.exception) == f"{fitted}: found no run 'frst', expected a run of this file. Next: did you mean 'first'?"
    assert not (tmp_path / "out").exists()


def test_on_the_command_line_a_fault_is_one_line_and_status_one(fitted):
    done = CliRunner().invoke(main, ["report", str(fitted), "--run", "frst"])
    assert done.exit_code == 1
    assert done.output.splitlines() == [f"{fitted}: found no run 'frst', expected a run of this file. Next: did you mean 'first'?"]


def test_a_file_without_a_run_is_told_so(tmp_path):
    write_session(example_session(), tmp_path / "a.nwb")
    done = run(tmp_path / "a.nwb")
    expected = f"{tmp_path}/a.nwb: found no fitted run, expected at least one. Next: run 'nwb-compact fit {tmp_path}/a.nwb' first"
    assert str(done.exception) == expected


def test_a_folder_in_use_is_refused_before_the_file_is_read(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    done = run(tmp_path / "missing.nwb", "-o", tmp_path / "out")
    assert str(done.exception).startswith(f"{tmp_path / 'out'}: found a folder with 1 file in it")


def test_wrong_usage_exits_with_two():
    assert run().exit_code == 2


def test_help_and_report_do_without_torch_and_help_without_pynwb():
    code = "import sys; import nwb_compact_analysis.cli; assert not {'torch', 'pynwb', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys; import nwb_compact_analysis.report, nwb_compact.nwb_results; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

import socket
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from nwb_compact import meter
from nwb_compact.cost import Cost
from nwb_compact.errors import NwbCompactError
from nwb_compact.work import Work, work_folder
from tests.processes import dead_pid


def work_in(folder) -> Work:
    return Work("cpu", folder, quiet=True)


def made(session: Path, decisive: object, *, resume: bool = False) -> Path:
    """A work folder that a process made, and left."""
    with work_folder(session, decisive, resume=resume) as folder:
        return folder


def test_an_array_is_computed_once_and_half_a_file_is_not_taken_for_one(tmp_path):
    work, calls = work_in(tmp_path), []

    def compute():
        calls.append(1)
        return np.arange(3.0)

    (tmp_path / ".a.npy.writing-host-7").write_bytes(b"killed while writing")
    killed = tmp_path / f".a.npy.writing-{socket.gethostname()}-{dead_pid()}"
    killed.write_bytes(b"killed while writing")
    np.testing.assert_array_equal(work.array("a", compute), [0, 1, 2])
    np.testing.assert_array_equal(work_in(tmp_path).array("a", compute), [0, 1, 2])
    assert len(calls) == 1
    assert not killed.exists()


def test_costs_add_up_over_resumptions_also_of_a_stage_that_failed(tmp_path):
    for n in (1, 2):
        with pytest.raises(KeyboardInterrupt) if n == 1 else nullcontext(), work_in(tmp_path).timed("teacher"):
            torch.zeros(2, 3) @ torch.zeros(3, 4)
            time.sleep(0.1)
            if n == 1:
                raise KeyboardInterrupt
        with work_in(tmp_path).timed("students"):
            pass
        costs = work_in(tmp_path).costs()
        assert list(costs) == ["teacher", "students"]
        assert costs["teacher"].flop == 48 * n
        assert 0.1 * n <= costs["teacher"].seconds < 0.1 * n + 1
        assert costs["students"].flop is None
    assert work_in(tmp_path).spent()["flop.teacher"] == "96"


def test_a_fit_that_is_killed_has_its_costs_up_to_a_little_before(tmp_path, monkeypatch):
    monkeypatch.setattr(meter, "TELL_S", 0.0)
    work = work_in(tmp_path)
    with work.timed("teacher"):
        torch.zeros(2, 3) @ torch.zeros(3, 4)
        while work_in(tmp_path).costs().get("teacher", Cost(0.0)).flop is None:
            time.sleep(0.01)


def test_the_run_keeps_its_name(tmp_path):
    assert work_in(tmp_path).run_id(None, "first") == "first"
    assert work_in(tmp_path).run_id(None, "second") == "first"
    assert work_in(tmp_path).run_id("given", "third") == "given"
    assert work_in(tmp_path).run_id(None, "fourth") == "given"


def test_the_folder_is_named_by_all_that_decides(tmp_path):
    session = tmp_path / "session.nwb"
    folders = {made(session, decisive) for decisive in ({"seed": 0}, {"seed": 1}, {"seed": 0, "sides": ["fit"]})}
    assert len(folders) == 3
    assert made(session, {"seed": 0}, resume=True) in folders


@pytest.mark.parametrize("what", ["fit", "interpretation"])
@pytest.mark.parametrize("left", ["teacher_0.pt", "K5/students_0.pt"])
def test_what_was_left_is_kept_and_without_resume_nothing_begins(left, what, tmp_path):
    """It may have taken hours."""
    session = tmp_path / "session.nwb"
    folder = made(session, 1)
    (folder / left).parent.mkdir(exist_ok=True)
    (folder / left).write_bytes(b"x")
    told = f"found the same {what}, stopped before its end, .* add --resume to go on with it, or remove {folder} "
    with pytest.raises(NwbCompactError, match=told), work_folder(session, 1, resume=False, what=what):
        pytest.fail("begun anew")
    assert (made(session, 1, resume=True) / left).read_bytes() == b"x"


def test_work_that_was_stopped_before_it_had_anything_begins_anew(tmp_path):
    folder = made(tmp_path / "session.nwb", 1)
    work_in(folder).run_id("old", "")
    with work_in(folder).timed("teacher"):
        pass
    (folder / ".answers_0.npy.writing-host-7").touch()
    (folder / "K5").mkdir()
    assert made(tmp_path / "session.nwb", 1) == folder
    assert work_in(folder).run_id(None, "new") == "new"
    assert work_in(folder).costs() == {}


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(NwbCompactError, match="--resume: found no stopped fit"):
        made(tmp_path / "session.nwb", 1, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_the_same_fit_at_the_same_time_is_refused_and_takes_nothing_away(tmp_path, resume):
    with work_folder(tmp_path / "session.nwb", 1, resume=False) as folder:
        (folder / "teacher_0.pt").write_bytes(b"x")
        with pytest.raises(NwbCompactError, match="found the same work under way in another process"):
            made(tmp_path / "session.nwb", 1, resume=resume)
        assert (folder / "teacher_0.pt").exists()
        assert made(tmp_path / "session.nwb", 2) != folder
    assert made(tmp_path / "session.nwb", 1, resume=True) == folder


def test_removing_leaves_other_fits_alone(tmp_path):
    one, other = (made(tmp_path / "session.nwb", key) for key in (1, 2))
    work_in(one).remove()
    assert other.exists()
    work_in(other).remove()
    assert list(tmp_path.iterdir()) == []


def test_images_stay_while_a_fit_that_has_no_folder_yet_looks_at_them(tmp_path):
    folder = made(tmp_path / "session.nwb", 1)
    survey = folder.parent / "images" / ".writing-host-7"
    survey.mkdir(parents=True)
    work_in(folder).remove()
    assert survey.exists()
    survey.rmdir()
    work_in(folder).remove()
    assert list(tmp_path.iterdir()) == []

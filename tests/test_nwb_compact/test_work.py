import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact.work import Work, work_folder


def work_in(folder) -> Work:
    return Work("cpu", folder, quiet=True)


def test_an_array_is_computed_once_and_half_a_file_is_not_taken_for_one(tmp_path):
    work, calls = work_in(tmp_path), []

    def compute():
        calls.append(1)
        return np.arange(3.0)

    (tmp_path / "a.part").write_bytes(b"killed while writing")
    np.testing.assert_array_equal(work.array("a", compute), [0, 1, 2])
    np.testing.assert_array_equal(work_in(tmp_path).array("a", compute), [0, 1, 2])
    assert len(calls) == 1


def test_seconds_add_up_over_resumptions(tmp_path):
    for _ in range(2):
        work = work_in(tmp_path)
        before = work.seconds().get("teacher", 0.0)
        with work.timed("teacher"):
            pass
        assert work.seconds()["teacher"] > before


def test_the_run_keeps_its_name(tmp_path):
    assert work_in(tmp_path).run_id("first") == "first"
    assert work_in(tmp_path).run_id("second") == "first"


def test_the_folder_is_named_by_all_that_decides(tmp_path):
    session = tmp_path / "session.nwb"
    folders = {work_folder(session, decisive, resume=False) for decisive in ({"seed": 0}, {"seed": 1}, {"seed": 0, "sides": ["fit"]})}
    assert len(folders) == 3
    assert work_folder(session, {"seed": 0}, resume=True) in folders


def test_without_resume_what_was_left_is_thrown_away_and_with_it_kept(tmp_path):
    folder = work_folder(tmp_path / "session.nwb", 1, resume=False)
    (folder / "teacher_0.pt").write_bytes(b"x")
    assert (work_folder(tmp_path / "session.nwb", 1, resume=True) / "teacher_0.pt").exists()
    assert not (work_folder(tmp_path / "session.nwb", 1, resume=False) / "teacher_0.pt").exists()


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(NwbCompactError, match="--resume: found no stopped fit"):
        work_folder(tmp_path / "session.nwb", 1, resume=True)


def test_removing_leaves_other_fits_alone(tmp_path):
    one, other = (work_folder(tmp_path / "session.nwb", key, resume=False) for key in (1, 2))
    work_in(one).remove()
    assert other.exists()
    work_in(other).remove()
    assert list(tmp_path.iterdir()) == []

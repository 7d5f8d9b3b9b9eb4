"""Nothing of a sorter is left: neither by a conversion that ends, nor by one that failed, nor, after the next, by one that was killed."""

import os
import socket

import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.scratch import scratch_folder
from tests.processes import dead_pid


def test_it_is_gone_after_success_and_after_failure(tmp_path):
    with scratch_folder(tmp_path / "a.nwb") as folder:
        (folder / "filtered").write_bytes(b"x")
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), scratch_folder(tmp_path / "a.nwb") as folder:
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_conversion_left_is_swept_and_what_a_living_one_uses_is_not(tmp_path):
    here, gone = socket.gethostname(), dead_pid()
    names = {"dead": f".a.nwb.sorting-{here}-{gone}", "living": f".a.nwb.sorting-{here}-{os.getppid()}",
             "elsewhere": f".a.nwb.sorting-another-host-{gone}", "another file": f".b.nwb.sorting-{here}-{gone}"}
    for name in names.values():
        (tmp_path / name / "inner").mkdir(parents=True)
    with scratch_folder(tmp_path / "a.nwb"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == set(names.values()) - {names["dead"]}


def test_a_parent_that_is_no_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NwbCompactError, match=r"file: found that no folder can be made in it .* Next: name an existing folder"):
        scratch_folder(tmp_path / "a.nwb", tmp_path / "file").__enter__()

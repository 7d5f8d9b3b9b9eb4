import os
import socket

import pytest

from nwb_compact.unfinished import own_name, written_whole
from tests.processes import dead_pid


def half(beside, of):
    if of == "folder":
        beside.mkdir()
        beside /= "one"
    beside.write_text("half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_block_that_fails_leaves_what_was_there_and_nothing_beside_it(tmp_path, of):
    path = tmp_path / "a.json"
    if of == "file":
        path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as beside:
        half(beside, of)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == ([("a.json", "old")] if of == "file" else [])


def test_what_dead_processes_left_goes_and_what_others_use_stays(tmp_path):
    path, dead = tmp_path / "a.json", f".a.json.writing-{socket.gethostname()}-{dead_pid()}"
    (tmp_path / dead).mkdir()
    (tmp_path / dead / "one").write_text("half")
    others = [f".a.json.writing-{socket.gethostname()}-{os.getppid()}", dead.replace(socket.gethostname(), "elsewhere"),
              dead.replace("a.json", "axjson")]
    for name in others:
        (tmp_path / name).write_text("half")
    with written_whole(path) as beside:
        beside.write_text("new")
        assert beside.name == own_name(".a.json.writing")
    assert {one.name for one in tmp_path.iterdir()} == {"a.json", *others}
    assert path.read_text() == "new"

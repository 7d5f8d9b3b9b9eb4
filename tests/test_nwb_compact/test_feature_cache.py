import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from nwb_compact.backbones import BATCH_IMAGES, Backbone, features
from nwb_compact.errors import NwbCompactError
from nwb_compact.feature_cache import HEADER_BYTES, cached_features, cached_values, default_cache_folder, images_sha256
from tests.processes import dead_pid

IMAGES = np.random.default_rng(0).integers(0, 256, (2 * BATCH_IMAGES + 3, 8, 12, 3), np.uint8)


class Counts(nn.Module):
    """Averages blocks, and remembers how many images it was shown at a time."""

    def __init__(self, gain=1.0, layer=""):
        super().__init__()
        self.shown, self.gain, self.layer = [], gain, layer

    def forward(self, images):
        self.shown.append(len(images))
        return {self.layer: self.gain * nn.functional.avg_pool2d(images, 4)}


def backbone(sha="1f", layer="", gain=1.0) -> Backbone:
    return Backbone("torch:lab:pool", Counts(gain, layer), sha, (layer,), layer)


def made(folder, what=None, images=IMAGES, **more):
    return cached_features(what or backbone(), images, folder, name="features a", **more)


def only_file(folder) -> Path:
    (path,) = folder.iterdir()
    return path


# What is kept ---------------------------------------------------------------------------------------------------------
def test_features_are_those_of_the_network_and_made_once(tmp_path):
    first, second = backbone(), backbone()
    found = made(tmp_path, first)
    np.testing.assert_array_equal(found, features(Counts(), IMAGES))
    assert found.dtype == np.float16
    assert isinstance(found, np.memmap)
    assert first.network.shown == [BATCH_IMAGES, BATCH_IMAGES, 3]
    np.testing.assert_array_equal(made(tmp_path, second), found)
    assert second.network.shown == [1]  # one image, to see that the network still gives these features


def test_a_file_says_what_it_holds_and_is_as_long_as_it_says(tmp_path):
    made(tmp_path, backbone("ab", "stage3"))
    block = only_file(tmp_path).read_bytes()[:HEADER_BYTES]
    header = json.loads(block)
    assert header.pop("program").startswith("nwb-compact ")
    assert header == {"backbone_sha256": "ab", "layer": "stage3", "images": len(IMAGES), "images_sha256": images_sha256(IMAGES),
                      "shape": [len(IMAGES), 3, 2, 3], "dtype": "<f2"}
    assert only_file(tmp_path).stat().st_size == HEADER_BYTES + 2 * len(IMAGES) * 3 * 2 * 3


def test_another_backbone_layer_or_image_has_its_own_file(tmp_path):
    other = IMAGES.copy()
    other[-1, -1, -1, -1] ^= 1
    for what, images in ((backbone(), IMAGES), (backbone("2f"), IMAGES), (backbone(layer="b"), IMAGES), (backbone(), other),
                         (backbone(), IMAGES[:-1]), (backbone(), IMAGES.transpose(0, 2, 1, 3).copy())):
        made(tmp_path, what, images)
    assert len(list(tmp_path.iterdir())) == 6


def test_writing_to_what_is_returned_changes_no_file(tmp_path):
    found = made(tmp_path)
    before = only_file(tmp_path).read_bytes()
    found[:] = 0
    del found
    assert only_file(tmp_path).read_bytes() == before


def test_the_user_is_told_what_it_takes(tmp_path, capsys):
    large = np.zeros((1200, 4, 4, 3), np.uint8)
    pool = Backbone("pool", nn.Upsample(scale_factor=4), "1f")
    cached_features(pool, large, tmp_path, name="features 190923", quiet=False)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"features 190923: 1,200 images x 3 x 16 x 16, 2 MB, written to {only_file(tmp_path)}"
    cached_features(pool, large, tmp_path, name="features 190923", quiet=False)
    assert capsys.readouterr().err == "features 190923: 1,200 images x 3 x 16 x 16, 2 MB, from the cache\n"
    cached_features(pool, large, tmp_path, name="features 190923")
    assert capsys.readouterr().err == ""


def test_the_number_of_threads_changes_rounding_at_most(tmp_path):
    torch.manual_seed(0)
    what = Backbone("conv", nn.Sequential(nn.Conv2d(3, 16, 5), nn.Conv2d(16, 8, 3)), "1f")
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(np.asarray(made(tmp_path / str(number), what)).astype(float))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3, atol=1e-3 * found[0].std())


def test_memory_holds_a_batch_at_a_time(tmp_path):
    """The features take more than the process may grow by."""
    program = """
import resource, sys, numpy as np
from pathlib import Path
from torch import nn
from nwb_compact.backbones import Backbone
from nwb_compact.feature_cache import cached_features
images = np.zeros((3000, 16, 16, 3), np.uint8)
pool = Backbone("up", nn.Upsample(scale_factor=8), "1f")
cached_features(pool, images[:40], Path(sys.argv[1]), name="x")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = cached_features(pool, images, Path(sys.argv[1]), name="x")
print(found.nbytes / 2**20, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    on_disk_mib, grown_mib = map(float, run.stdout.split())
    assert on_disk_mib > 250
    assert grown_mib < 60


# What is not trusted --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_bytes", [0, 100, HEADER_BYTES, HEADER_BYTES + 50, -1], ids=lambda n: f"{n} bytes")
def test_a_short_file_is_made_anew(tmp_path, n_bytes):
    whole = np.array(made(tmp_path))
    path = only_file(tmp_path)
    complete = path.read_bytes()
    path.write_bytes(complete[:n_bytes])
    np.testing.assert_array_equal(made(tmp_path), whole)
    assert path.read_bytes() == complete


def fault(folder, what=None) -> str:
    with pytest.raises(NwbCompactError) as caught:
        made(folder, what)
    return str(caught.value)


def with_header(path, **changes):
    content = path.read_bytes()
    header = json.loads(content[:HEADER_BYTES]) | changes
    path.write_bytes(json.dumps(header).encode().ljust(HEADER_BYTES - 1) + b"\n" + content[HEADER_BYTES:])


NEXT = "Next: remove the file: it is made anew"


@pytest.mark.parametrize(("change", "found"), [
    ({"backbone_sha256": "77"}, "found backbone_sha256 '77' in its header, expected '1f'"),
    ({"layer": "stage9"}, "found layer 'stage9' in its header, expected ''"),
    ({"images": 9}, f"found images 9 in its header, expected {len(IMAGES)}"),
    ({"images_sha256": "88"}, f"found images_sha256 '88' in its header, expected '{images_sha256(IMAGES)}'"),
    ({"shape": [len(IMAGES), 6, 3]}, f"found a shape of ({len(IMAGES)}, 6, 3) in its header, expected {len(IMAGES)} maps"),
    ({"shape": [9, 3, 2, 3]}, f"found a shape of (9, 3, 2, 3) in its header, expected {len(IMAGES)} maps"),
    ({"shape": None}, "found another file's content (TypeError), expected features of a backbone"),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_a_file_whose_header_says_something_else_than_its_name_is_an_error(tmp_path, change, found):
    made(tmp_path)
    with_header(only_file(tmp_path), **change)
    assert fault(tmp_path) == f"{only_file(tmp_path)}: {found}. {NEXT}"


def test_a_foreign_file_of_the_name_is_an_error(tmp_path):
    made(tmp_path)
    path = only_file(tmp_path)
    path.write_bytes(b"x" * 9000)
    assert fault(tmp_path) == f"{path}: found another file's content (JSONDecodeError), expected features of a backbone. {NEXT}"


def test_a_file_that_is_too_long_is_an_error(tmp_path):
    made(tmp_path)
    path = only_file(tmp_path)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"more")
    assert fault(tmp_path) == f"{path}: found {size + 4:,} bytes, expected {size:,} for its shape. {NEXT}"


def test_a_network_that_changed_without_its_weights_is_an_error(tmp_path):
    made(tmp_path)
    made(tmp_path, backbone(gain=1.005))  # as another machine rounds
    assert fault(tmp_path, backbone(gain=1.05)) == (
        f"{only_file(tmp_path)}: found features that the backbone no longer gives, expected those of torch:lab:pool as it is now. {NEXT}")


# Faults and kills -----------------------------------------------------------------------------------------------------
class Dies(nn.Module):
    """Fails at the second batch."""

    def __init__(self):
        super().__init__()
        self.shown = 0

    def forward(self, images):
        self.shown += 1
        if self.shown == 2:
            raise KeyboardInterrupt
        return images


def test_an_interrupted_file_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, Backbone("dies", Dies(), "1f"))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    key = "0" * 32
    left = tmp_path / f".{key}.features.writing-{socket.gethostname()}-{dead_pid()}"
    kept = [tmp_path / f".{key}.features.writing-{socket.gethostname()}-{os.getppid()}", tmp_path / f".{key}.features.writing-elsewhere-1",
            tmp_path / "notes.txt"]
    for path in (left, *kept):
        path.write_bytes(b"half")
    made(tmp_path)
    assert not left.exists()
    assert all(path.exists() for path in kept)


TOGETHER = """
import sys, time
from pathlib import Path
import numpy as np
from torch import nn
from nwb_compact.backbones import Backbone
from nwb_compact.feature_cache import cached_features
folder, mine, others = map(Path, sys.argv[1:])
images = np.random.default_rng(0).integers(0, 256, (67, 8, 12, 3), np.uint8)
mine.touch()
while not others.exists():
    time.sleep(0.001)
cached_features(Backbone("pool", nn.AvgPool2d(4), "1f"), images, folder, name="features")
"""


def test_two_processes_that_make_the_same_file_do_not_harm_each_other(tmp_path):
    """Processes of their own and no forks, which hang where torch has already started threads."""
    ready = [tmp_path / "one is ready", tmp_path / "the other is ready"]
    command = [sys.executable, "-c", TOGETHER, str(tmp_path / "cache")]
    both = [subprocess.Popen([*command, *map(str, order)]) for order in (ready, ready[::-1])]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    images = np.random.default_rng(0).integers(0, 256, (67, 8, 12, 3), np.uint8)
    found = cached_features(Backbone("pool", nn.AvgPool2d(4), "1f"), images, tmp_path / "cache", name="features")
    np.testing.assert_array_equal(found, features(nn.AvgPool2d(4), images))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_full_disk_is_told_before_it_is_filled(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    message = fault(tmp_path)
    assert message.endswith("found 1 MiB free on its disk, expected at least 64 MiB for features of 67 images. "
                            "Next: free some space, or name another folder with --cache-dir")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    message = fault(tmp_path / "file")
    assert message.startswith(f"{tmp_path / 'file'}: found a fault (") or message.startswith(f"{tmp_path / 'file'}/")
    assert message.endswith("--cache-dir")


# The folder, and small tables -----------------------------------------------------------------------------------------
def test_the_folder_is_where_caches_belong(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "nwb-compact" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "nwb-compact" / "features"


def test_small_tables_are_computed_once_and_made_anew_when_cut(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"stage1": [0.5, float("nan")]}

    for _ in range(2):
        found = cached_values(tmp_path / "new", ["a", 1], compute)
        assert found["stage1"][0] == 0.5
        assert np.isnan(found["stage1"][1])
    assert len(calls) == 1
    cached_values(tmp_path / "new", ["a", 2], compute)
    assert len(calls) == 2
    for path in (tmp_path / "new").iterdir():
        path.write_text(path.read_text()[:10])
    assert cached_values(tmp_path / "new", ["a", 1], compute)["stage1"][0] == 0.5
    assert len(calls) == 3

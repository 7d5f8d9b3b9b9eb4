import io
import os
import socket
import tarfile
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest
from PIL import Image

from nwb_compact import image_pool as module
from nwb_compact.errors import NwbCompactError
from nwb_compact.image_pool import ImagePool, image_pool
from nwb_compact.images import pixel_digests, same_picture, square_rgb
from nwb_compact.natural_images import natural_images
from nwb_compact.nwb_session import write_session
from nwb_compact.session import Images, example_session, image_sha256
from nwb_compact.views import Pictures

OWN, SCORED, FURTHER = np.split(natural_images(24, seed=0), [6, 12])
NONE = OWN[:0]


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def files_of(images):
    return {f"{number % 3}/{number}.png": encoded(image) for number, image in enumerate(images)}


def folder_of(place, files):
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def session_of(place, images):
    session = example_session(len(images), height_px=8)
    write_session(replace(session, images=Images(session.images.name, tuple(map(image_sha256, images)), images)), place)
    return place


def everything(pool):
    return pool.read(np.arange(len(pool)))


def grey_of(images):
    luminance = (images @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    return np.repeat(luminance[..., None], 3, axis=3)


@pytest.fixture(params=[True, False], ids=["kept", "decoded again"])
def is_kept(request, monkeypatch):
    """Whether pixels are kept on disk."""
    if not request.param:
        monkeypatch.setattr("nwb_compact.image_survey.KEPT_BYTES", 0)
    return request.param


# What is in it --------------------------------------------------------------------------------------------------------
def test_without_places_it_is_the_sessions_own_images_each_once_and_no_file(tmp_path):
    pool = image_pool(np.concatenate([OWN, OWN[::-1]]), SCORED, [], tmp_path / "pool")
    np.testing.assert_array_equal(everything(pool), OWN)
    assert isinstance(pool, Pictures)
    assert pool.skipped == {}
    assert not (tmp_path / "pool").exists()


def test_own_images_come_first_and_further_ones_in_the_order_of_their_hashes(tmp_path, is_kept):
    pool = image_pool(OWN, SCORED, [folder_of(tmp_path / "images", files_of(FURTHER))], tmp_path / "pool")
    np.testing.assert_array_equal(everything(pool), np.concatenate([OWN, FURTHER[np.argsort(pixel_digests(FURTHER))]]))
    (there,) = (tmp_path / "pool").iterdir()
    assert (there / "0.pixels").exists() == is_kept


def test_every_kind_of_place_gives_the_same_pool(tmp_path, is_kept):
    files = files_of(FURTHER)
    places = [folder_of(tmp_path / "images", files), session_of(tmp_path / "images.nwb", FURTHER)]
    for kind, name in ((zipfile.ZIP_STORED, "stored.zip"), (zipfile.ZIP_DEFLATED, "deflated.zip")):
        with zipfile.ZipFile(tmp_path / name, "w", kind) as archive:
            for file, content in files.items():
                archive.writestr(file, content)
        places.append(tmp_path / name)
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(places[0], "images")
    pools = [image_pool(OWN, SCORED, [place], tmp_path / "pool") for place in (*places, tmp_path / "images.tar")]
    assert len(pools[0]) == 18
    for pool in pools[1:]:
        np.testing.assert_array_equal(everything(pool), everything(pools[0]))
        assert pool.sha256 == pools[0].sha256
    together = image_pool(OWN, SCORED, places, tmp_path / "pool")
    assert together.sha256 == pools[0].sha256
    assert together.skipped == {"duplicate": 36}


def test_every_image_from_elsewhere_can_be_found_again(tmp_path, is_kept):
    folder, session = folder_of(tmp_path / "images", files_of(FURTHER[:7])), session_of(tmp_path / "images.nwb", FURTHER[7:])
    pool = image_pool(OWN, SCORED, [folder, session], tmp_path / "pool")
    rows = np.arange(len(pool))[::-1]
    for name, image in zip(pool.names(rows), pool.read(rows), strict=True):
        place, _, inside = name.rpartition(":")
        if place == folder.name:
            np.testing.assert_array_equal(np.asarray(Image.open(folder / inside)), image)
        elif place:
            assert place == session.name
            np.testing.assert_array_equal(FURTHER[7:][int(inside)], image)
    assert pool.names(rows).count("") == len(OWN)


def test_names_and_order_of_files_and_places_do_not_matter(tmp_path):
    first, other, both = (tmp_path / name for name in "abc")
    folder_of(first, {f"{number}.png": encoded(image) for number, image in enumerate(FURTHER[:7])})
    folder_of(other, {f"{number}.png": encoded(image) for number, image in enumerate(FURTHER[7:])})
    folder_of(both, {f"x/{99 - number}.bmp": encoded(image, "BMP") for number, image in enumerate(FURTHER)})
    pools = [image_pool(OWN, SCORED, places, tmp_path / "pool") for places in ([first, other], [other, first], [both])]
    assert {pool.sha256 for pool in pools} == {pools[0].sha256}
    for pool in pools:
        np.testing.assert_array_equal(everything(pool), everything(pools[0]))


def test_another_picture_is_another_pool(tmp_path):
    identities = {ImagePool(OWN).sha256, ImagePool(OWN[::-1]).sha256, ImagePool(OWN[:5]).sha256}
    for number, images in enumerate((FURTHER, FURTHER[1:], np.where(FURTHER > 250, 250, FURTHER))):
        place = folder_of(tmp_path / str(number), files_of(images))
        identities.add(image_pool(OWN, SCORED, [place], tmp_path / "pool").sha256)
    assert len(identities) == 6


def test_images_of_any_size_and_kind_are_as_images_make_them(tmp_path, is_kept):
    large = natural_images(2, seed=3, size_px=224)
    files = {"a.jpg": encoded(large[0], "JPEG"), "b.webp": encoded(large[1][:, :160], "WEBP"), "c.gif": encoded(FURTHER[0], "GIF")}
    pool = image_pool(OWN, SCORED, [folder_of(tmp_path / "images", files)], tmp_path / "pool")
    wanted = np.stack([square_rgb(Image.open(io.BytesIO(content))) for content in files.values()])
    np.testing.assert_array_equal(everything(pool)[6:], wanted[np.argsort(pixel_digests(wanted))])


def test_no_scored_image_is_in_it_however_it_was_saved(tmp_path, is_kept):
    again = [encoded(image, "JPEG", quality=85) for image in SCORED[:2]] + [encoded(image) for image in SCORED[2:4]]
    again += [encoded(np.asarray(Image.fromarray(image).resize((300, 300), Image.Resampling.BICUBIC))) for image in SCORED[4:]]
    files = files_of(FURTHER) | {f"scored/{number}.jpg": content for number, content in enumerate(again)}
    pool = image_pool(OWN, SCORED, [folder_of(tmp_path / "images", files)], tmp_path / "pool")
    assert pool.skipped == {"scored": 6}
    assert len(pool) == 18
    assert not same_picture(everything(pool), SCORED).any()
    assert len(image_pool(OWN, NONE, [tmp_path / "images"], tmp_path / "pool")) == 24


def test_duplicates_of_each_other_and_of_own_images_are_there_once(tmp_path):
    place = folder_of(tmp_path / "images", files_of(np.concatenate([FURTHER, FURTHER[:5], OWN[:3]])))
    pool = image_pool(OWN, SCORED, [place], tmp_path / "pool")
    assert pool.skipped == {"duplicate": 8}
    assert len(np.unique(pixel_digests(everything(pool)))) == len(pool) == 18


# Colour ---------------------------------------------------------------------------------------------------------------
def test_grey_images_are_left_out_where_the_session_is_coloured(tmp_path):
    files = files_of(np.concatenate([FURTHER[:10], grey_of(FURTHER[10:11])])) | {"l.png": encoded(FURTHER[11])}
    pool = image_pool(OWN, SCORED, [folder_of(tmp_path / "images", files)], tmp_path / "pool")
    assert pool.skipped == {"grey": 1}
    assert len(pool) == 6 + 11


def test_all_images_are_made_grey_where_the_session_is(tmp_path, is_kept):
    place = folder_of(tmp_path / "images", files_of(np.concatenate([FURTHER[:6], grey_of(FURTHER[6:])])))
    pool = image_pool(grey_of(OWN), SCORED, [place, session_of(tmp_path / "more.nwb", OWN)], tmp_path / "pool")
    found = everything(pool)
    assert "grey" not in pool.skipped
    assert (found[..., :1] == found).all()
    assert same_picture(found, np.concatenate([OWN, FURTHER])).all()
    assert same_picture(FURTHER, found).all()


def test_all_images_are_taken_as_they_are_where_sessions_are_of_both_kinds(tmp_path):
    place = folder_of(tmp_path / "images", files_of(np.concatenate([FURTHER[:6], grey_of(FURTHER[6:])])))
    pool = image_pool(np.concatenate([OWN[:3], grey_of(OWN[3:])]), SCORED, [place], tmp_path / "pool")
    wanted = np.concatenate([FURTHER[:6], grey_of(FURTHER[6:])])
    assert set(pixel_digests(everything(pool)[6:]).tolist()) == set(pixel_digests(wanted).tolist())


# Faults ---------------------------------------------------------------------------------------------------------------
def hundreds(n):
    """Small coloured images that all differ, quick to make."""
    rng = np.random.default_rng(1)
    return {f"{number:04d}.png": encoded(rng.integers(0, 256, (56, 56, 3), np.uint8)) for number in range(n)}


FAULTY = {
    "cut.png": encoded(FURTHER[0])[:900], "text.jpg": b"no image at all", "deep.png": encoded(np.full((80, 80), 300, np.uint16)),
    "small.png": encoded(FURTHER[0][:55]), "grey.png": encoded(grey_of(FURTHER)[0]),
}


def test_one_percent_of_faults_is_left_out_and_counted(tmp_path, is_kept):
    place = folder_of(tmp_path / "images", hundreds(495) | FAULTY)
    pool = image_pool(OWN, SCORED, [place], tmp_path / "pool")
    assert pool.skipped == {"broken": 2, "16-bit": 1, "tiny": 1, "grey": 1}
    assert len(pool) == 6 + 495
    whole = image_pool(OWN, SCORED, [folder_of(tmp_path / "whole", hundreds(495))], tmp_path / "pool")
    assert pool.sha256 == whole.sha256


def test_more_than_a_tenth_is_refused_and_nothing_is_left(tmp_path):
    place = folder_of(tmp_path / "images", hundreds(89) | {f"{number}.png": FAULTY["small.png"] for number in range(11)})
    with pytest.raises(NwbCompactError) as caught:
        image_pool(OWN, SCORED, [place], tmp_path / "beside" / "pool")
    message = str(caught.value)
    assert message.startswith(f"{place}: found 11 of 100 images unusable (11 tiny; the first is ")
    assert message.endswith(
        ".png: 112 x 55 px), expected at most 10% of its 100. Next: take them out, or name another place"
    )
    assert not (tmp_path / "beside").exists()
    (place / "0.png").unlink()
    (place / "more.png").write_bytes(hundreds(90)["0089.png"])
    assert image_pool(OWN, SCORED, [place], tmp_path / "beside" / "pool").skipped == {"tiny": 10}


def test_each_place_is_judged_alone(tmp_path):
    good, bad = folder_of(tmp_path / "good", hundreds(100)), folder_of(tmp_path / "bad", FAULTY | {"a.png": encoded(FURTHER[0])})
    with pytest.raises(NwbCompactError, match=r"bad: found 5 of 6 images unusable \("):
        image_pool(OWN, SCORED, [good, bad], tmp_path / "pool")


def test_images_that_cannot_be_read_or_made_rgb_are_broken(tmp_path, monkeypatch):
    place = folder_of(tmp_path / "images", hundreds(60))
    (place / "away.png").symlink_to(tmp_path / "away.png")
    odd, decoded = Image.new("La", (80, 80)), module.decoded
    monkeypatch.setattr("nwb_compact.image_survey.decoded", lambda file: odd if file.name == "0003.png" else decoded(file))
    assert image_pool(OWN, SCORED, [place], tmp_path / "pool").skipped == {"broken": 2}


def test_a_session_without_pixels_is_refused(tmp_path):
    session = example_session(4)
    write_session(replace(session, images=Images(session.images.name, session.images.sha256)), tmp_path / "hashes.nwb")
    with pytest.raises(NwbCompactError, match=r"hashes\.nwb: found hashes instead of images, expected a session with pixels"):
        image_pool(OWN, SCORED, [tmp_path / "hashes.nwb"], tmp_path / "pool")
    write_session(session, tmp_path / "tiny.nwb")
    with pytest.raises(NwbCompactError, match=r"tiny\.nwb: found 4 of 4 images unusable \(4 tiny; the first is image 0: 8 x 8 px\)"):
        image_pool(OWN, SCORED, [tmp_path / "tiny.nwb"], tmp_path / "pool")


def test_a_damaged_session_is_named_and_not_the_folder_that_is_written(tmp_path):
    place = session_of(tmp_path / "day.nwb", natural_images(40, seed=3))
    held = []
    with h5py.File(place) as file:
        file.visititems(lambda _, one: held.append(one.id) if isinstance(one, h5py.Dataset) and one.shape[-3:] == (112, 112, 3) else None)
        chunk = held[0].get_chunk_info(0)
    with place.open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(bytes(chunk.size))
    with pytest.raises(NwbCompactError, match=r"day\.nwb: .*: found damage \(.*\), expected images that can be read\. Next: "):
        image_pool(OWN, SCORED, [place], tmp_path / "pool", quiet=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "pool").write_text("a file")
    place = folder_of(tmp_path / "images", files_of(FURTHER))
    with pytest.raises(NwbCompactError, match=r"pool: found a fault \(.*File exists: .*\), expected a folder that can be written"):
        image_pool(OWN, SCORED, [place], tmp_path / "pool")


# Reading --------------------------------------------------------------------------------------------------------------
def test_rows_are_read_in_the_order_asked_for(tmp_path, is_kept):
    places = [folder_of(tmp_path / "a", files_of(FURTHER[:7])), session_of(tmp_path / "b.nwb", FURTHER[7:])]
    pool = image_pool(OWN, SCORED, places, tmp_path / "pool")
    whole, rng = everything(pool), np.random.default_rng(0)
    for size in (0, 1, 5, 64):
        rows = rng.integers(0, len(pool), size, rng.choice([np.int64, np.uint32, np.int16]))
        np.testing.assert_array_equal(pool.read(rows), whole[rows])


def test_what_was_read_may_be_changed(tmp_path, is_kept):
    pool = image_pool(OWN, SCORED, [folder_of(tmp_path / "images", files_of(FURTHER))], tmp_path / "pool")
    before = everything(pool)
    pool.read(np.arange(len(pool)))[:] = 0
    np.testing.assert_array_equal(everything(pool), before)


@pytest.mark.parametrize("row", [-1, 6])
def test_there_is_no_such_row(row):
    with pytest.raises(IndexError, match=f"rows {row} to {row} of 6 images"):
        ImagePool(OWN).read(np.array([row]))


def test_an_image_that_changes_while_it_is_learned_from_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("nwb_compact.image_survey.KEPT_BYTES", 0)
    place = folder_of(tmp_path / "images", {"a.png": encoded(FURTHER[0])})
    pool = image_pool(OWN, SCORED, [place], tmp_path / "pool")
    (place / "a.png").write_bytes(encoded(FURTHER[1]))
    with pytest.raises(NwbCompactError) as caught:
        everything(pool)
    expected = "expected images that stay as they are while they are learned from. Next: fit again"
    assert str(caught.value) == f"{place / 'a.png'}: found another image than when the fit began, {expected}"
    (place / "a.png").unlink()
    with pytest.raises(NwbCompactError, match=r"a\.png: found FileNotFoundError: .*, expected a readable image"):
        everything(pool)


# Made once ------------------------------------------------------------------------------------------------------------
def test_a_second_pool_of_the_same_images_is_found_again(tmp_path, monkeypatch, is_kept):
    place = folder_of(tmp_path / "images", files_of(np.concatenate([FURTHER, SCORED])))
    first = image_pool(OWN, SCORED, [place], tmp_path / "pool")
    monkeypatch.setattr(module, "survey", lambda *_, **__: 1 / 0)
    again = image_pool(OWN, SCORED, [place], tmp_path / "pool")
    np.testing.assert_array_equal(everything(again), everything(first))
    assert again.skipped == first.skipped == {"scored": 6}
    assert again.sha256 == first.sha256
    for own, scored in ((OWN[1:], SCORED), (OWN, SCORED[1:])):
        with pytest.raises(ZeroDivisionError):
            image_pool(own, scored, [place], tmp_path / "pool")
    os.utime(place / "0" / "0.png", ns=(1, 1))
    with pytest.raises(ZeroDivisionError):
        image_pool(OWN, SCORED, [place], tmp_path / "pool")
    assert len(list((tmp_path / "pool").iterdir())) == 1, "no half of one is left"


def test_of_two_fits_that_look_at_the_same_images_at_once_both_go_on(tmp_path, monkeypatch):
    own, place = natural_images(2, seed=0), folder_of(tmp_path / "photos", files_of(natural_images(12, seed=1)))
    first, survey = [], module.survey

    def beside(*given, **named):
        survey(*given, **named)
        if not first:  # another fit is faster
            first.append(None)
            with monkeypatch.context() as other:
                other.setattr(module.os, "getpid", lambda: 1)
                first[0] = image_pool(own, own[:0], [place], tmp_path / "images", quiet=True)

    monkeypatch.setattr(module, "survey", beside)
    second = image_pool(own, own[:0], [place], tmp_path / "images", quiet=True)
    np.testing.assert_array_equal(everything(second), everything(first[0]))
    assert not list((tmp_path / "images").glob(".*"))


def test_what_a_killed_run_left_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    pool = tmp_path / "pool"
    for pid in (os.getpid(), os.getppid(), 2**22 + 1):
        folder_of(pool / f".writing-{socket.gethostname()}-{pid}", {"0.names": b"half"})
    image_pool(OWN, SCORED, [folder_of(tmp_path / "images", files_of(FURTHER))], pool)
    assert [path.name for path in pool.glob(".writing*")] == [f".writing-{socket.gethostname()}-{os.getppid()}"]

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import open_session, write_session
from nwb_compact.session import Images, Pixels, example_session, image_sha256
from nwb_compact_conversion.session_yaml import LogColumns, Stimuli
from nwb_compact_conversion.stimulus.presentations import BLANK_SOURCE, log_from_words, present
from nwb_compact_conversion.stimulus.stimuli import read_stimuli
from nwb_compact_conversion.stimulus.stimulus_log import StimulusLog, read_log

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
IMAGES = Images(("a.png", "b.png", "c.png"), tuple(image_sha256(image) for image in PIXELS), PIXELS)
FLASH = Stimuli(duration_s=0.1)


def logged(*image, onset_s=None, offset_s=None, is_valid=None):
    n = len(image)
    onset_s = np.arange(n) / 4 if onset_s is None else np.array(onset_s, float)
    return StimulusLog(image, onset_s, offset_s, np.ones(n, bool) if is_valid is None else np.array(is_valid), None)


def refused(log, settings=FLASH, onset_s=None, images=IMAGES):
    with pytest.raises(NwbCompactError) as caught:
        present(log, images, settings, log.onset_s if onset_s is None else onset_s, None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_become_presentations_on_the_clock_of_the_recording():
    log = logged("b", "a", "b", "b", "a", is_valid=[True, True, False, True, True])
    onset_s = log.onset_s * 1.001 + 20
    images, shown = present(log, IMAGES, FLASH, onset_s, np.array([0, 1e-3, np.nan, -1e-3, 0]))
    assert images is IMAGES
    assert shown.image_index.tolist() == [1, 0, 1, 1, 0]
    assert shown.repeat.tolist() == [0, 0, 1, 2, 1], "a broken presentation counts: the animal may have seen it"
    assert shown.is_valid.tolist() == [True, True, False, True, True]
    np.testing.assert_array_equal(shown.start_time_s, onset_s)
    np.testing.assert_allclose(shown.stop_time_s, onset_s + 0.1)
    np.testing.assert_array_equal(shown.alignment_residual_s, [0, 1e-3, np.nan, -1e-3, 0])


def test_presentations_are_in_the_order_of_time():
    log = logged("a", "b", "c", "a", is_valid=[True, False, True, True])
    _, shown = present(log, IMAGES, FLASH, np.array([4.0, 2.0, 1.0, 3.0]), np.array([0.4, 0.2, 0.1, 0.3]))
    assert shown.image_index.tolist() == [2, 1, 0, 0]
    assert shown.repeat.tolist() == [0, 0, 0, 1]
    assert shown.is_valid.tolist() == [True, False, True, True]
    assert shown.start_time_s.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert shown.alignment_residual_s.tolist() == [0.1, 0.2, 0.3, 0.4]


def test_a_row_without_a_time_is_left_out_and_one_whose_time_was_found_is_not():
    log = logged("a", "a", "b", "a", onset_s=[0, np.nan, np.nan, 3], is_valid=[True, False, False, True])
    _, shown = present(log, IMAGES, FLASH, np.array([10, np.nan, 12, 13.0]), None)
    assert shown.image_index.tolist() == [0, 1, 0]
    assert shown.repeat.tolist() == [0, 0, 1]
    assert shown.is_valid.tolist() == [True, False, True]
    assert np.isfinite(shown.stop_time_s).all()
    assert shown.alignment_residual_s is None
    assert "found no row with a time on the recording's clock" in refused(log, onset_s=np.full(4, np.nan))


def test_offsets_are_taken_from_the_log_and_else_from_the_duration():
    log = logged("a", "b", "c", onset_s=[1, np.nan, 3], offset_s=np.array([1.2, 2.2, np.nan]))
    _, shown = present(log, IMAGES, FLASH, np.array([11.0, 12.0, 13.0]), None)
    np.testing.assert_allclose(shown.stop_time_s, [11.2, 12.1, 13.1])


def test_a_row_without_an_onset_needs_no_offset():
    log = logged("a", "b", "c", onset_s=[1, np.nan, 3], offset_s=np.array([1.2, 2.2, 3.1]))
    _, shown = present(log, IMAGES, Stimuli(), log.onset_s, None)
    np.testing.assert_allclose(shown.stop_time_s, [1.2, 3.1])


def test_a_missing_offset_asks_for_the_duration():
    next_step = "expected an offset of each image. Next: set stimuli.duration_s, or name the log's column under stimuli.columns.offset"
    some = logged("a", "b", "c", offset_s=np.array([0.1, np.nan, np.nan]))
    found = "words of the recording: found 2 of 3 rows that do not tell how long the image was on (the first is row 2)"
    assert refused(some, Stimuli()) == f"{found}, {next_step}"
    assert "found 3 of 3 rows that do not tell" in refused(logged("a", "b", "c"), Stimuli())


def test_images_that_are_not_there_are_named(tmp_path):
    message = refused(logged("a", "x", "y.png"), FLASH.model_copy(update={"log": tmp_path / "log.csv"}))
    assert message.startswith(f"{tmp_path / 'log.csv'}: found 2 images that are not there ('x', 'y.png'; 2 rows)")


# Blanks ---------------------------------------------------------------------------------------------------------------
BLANKS = FLASH.model_copy(update={"blank": ("grey", "0")})


@pytest.mark.parametrize("pixels", [PIXELS, np.dstack([PIXELS[..., None]] * 3).reshape(3, 4, 4, 3)])
def test_blanks_are_invalid_presentations_of_a_placeholder(pixels):
    told = replace(IMAGES, pixels=pixels, kind=("natural",) * 3, licence=("CC-BY-4.0",) * 3)
    images, shown = present(logged("a", "grey", "c", "0"), told, BLANKS, np.arange(4.0), None)
    assert shown.image_index.tolist() == [0, 3, 2, 3]
    assert shown.is_valid.tolist() == [True, False, True, False]
    assert images.name == (*told.name, "blank")
    assert images.kind == ("natural", "natural", "natural", "blank")
    assert images.source == ("", "", "", BLANK_SOURCE), "what the images' source is nobody said"
    assert images.licence == ("CC-BY-4.0",) * 3 + ("CC0-1.0",)
    grey = np.full(pixels.shape[1:], 128, np.uint8)
    assert images.sha256 == (*told.sha256, image_sha256(grey))
    assert isinstance(images.pixels, Pixels)
    np.testing.assert_array_equal(images.pixels[:], [*pixels, grey])
    np.testing.assert_array_equal(images.pixels[3], grey)
    np.testing.assert_array_equal(images.pixels[[3, 0]], [grey, pixels[0]])


def test_no_placeholder_is_made_where_none_is_needed():
    images, shown = present(logged("a", "b"), IMAGES, BLANKS, np.arange(2.0), None)
    assert images is IMAGES
    assert shown.is_valid.all()


def test_a_blank_that_is_an_image_of_the_lab_is_that_image():
    images, shown = present(logged("a", "c.png"), IMAGES, FLASH.model_copy(update={"blank": ("c.png",)}), np.arange(2.0), None)
    assert images is IMAGES
    assert shown.image_index.tolist() == [0, 2]
    assert shown.is_valid.tolist() == [True, False]


def test_a_blank_among_hashes_is_a_hash():
    images, _ = present(logged("a", "grey"), replace(IMAGES, pixels=None), BLANKS, np.arange(2.0), None)
    assert images.pixels is None
    assert images.sha256[3] == image_sha256(np.full((1, 1), 128, np.uint8))


def test_a_stack_on_disk_stays_there_when_a_blank_is_added(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    images, _ = present(logged("1", "grey"), read_stimuli(Stimuli(images=tmp_path / "a.npy")), BLANKS, np.arange(2.0), None)
    assert not isinstance(images.pixels, np.ndarray)
    np.testing.assert_array_equal(images.pixels[:40], pixels)
    np.testing.assert_array_equal(images.pixels[[40, 39, 3]], [np.full((6, 6, 3), 128), pixels[39], pixels[3]])


# Words ----------------------------------------------------------------------------------------------------------------
def test_words_are_a_log_of_numbers():
    log = log_from_words(np.array([1.0, 1.2, 1.4]), np.array([2, 0, 2], np.uint16), FLASH)
    assert log.image == ("2", "0", "2")
    assert log.offset_s is None
    assert log.is_valid.all()
    assert log.code.tolist() == [2, 0, 2]
    _, shown = present(log, IMAGES, BLANKS, log.onset_s, None)
    assert shown.image_index.tolist() == [1, 3, 1]
    assert shown.start_time_s.tolist() == [1.0, 1.2, 1.4]


def test_words_without_a_duration_or_without_any_are_refused():
    for times, words, settings, message in [
        ([1.0], [1], Stimuli(), "stimuli.duration_s: found nothing, expected how long an image was on: words tell no offsets. Next: set "),
        ([], [], FLASH, "words of the recording: found no word that marks an image, expected a word for each image onset. Next: "),
    ]:
        with pytest.raises(NwbCompactError) as caught:
            log_from_words(np.array(times, float), np.array(words, int), settings)
        assert str(caught.value).startswith(message)


# From files to a file ---------------------------------------------------------------------------------------------------
def test_a_lab_s_images_and_log_come_back_from_a_session_file(tmp_path, image_place, write_images, write_log, make_png):
    write_images(image_place, {f"image{number}.png": make_png(number * 10) for number in range(1, 12)})
    columns = LogColumns(onset="time", is_valid="fixated")
    file = write_log("image,time,fixated", "11,1000,1", "blank,2000,1", "2,3000,0", "11,,1", "11,4000,1")
    told = Stimuli(images=image_place, log=file, columns=columns, onset_unit="ms", blank=("blank",), duration_s=0.1, kind="natural")
    log = read_log(told)
    images, shown = present(log, read_stimuli(told), told, log.onset_s + 5, np.zeros(5))
    assert len(log) - len(shown) == 1
    session = replace(example_session(), images=images, presentations=shown)
    counts = replace(session.counts, presentation_index=np.arange(4, dtype=np.uint32), count=session.counts.count[:4])
    write_session(replace(session, counts=counts), tmp_path / "session.nwb")
    with open_session(tmp_path / "session.nwb") as read:
        assert read.images.name == (*(f"image{number}.png" for number in range(1, 12)), "blank")
        assert read.images.kind == ("natural",) * 11 + ("blank",)
        assert read.images.source == ("",) * 11 + (BLANK_SOURCE,)
        np.testing.assert_array_equal(read.images.pixels[:][:, 0, 0], [*range(10, 120, 10), 128])
        assert read.presentations.image_index.tolist() == [10, 11, 1, 10]
        assert read.presentations.repeat.tolist() == [0, 0, 0, 1]
        assert read.presentations.is_valid.tolist() == [True, False, False, True]
        np.testing.assert_allclose(read.presentations.start_time_s, [6, 7, 8, 9])
        np.testing.assert_allclose(read.presentations.stop_time_s, [6.1, 7.1, 8.1, 9.1])


NAMED = tuple(f"image{number}.png" for number in range(1, 13))
ROW = st.tuples(st.integers(1, 12), st.sampled_from(["image{}.png", "image{}", "set/image{}.png", "{}"]), st.booleans(), st.booleans())


@given(st.lists(ROW, min_size=1).filter(lambda rows: any(valid for *_, valid, _ in rows) and any(timed for *_, timed in rows)))
def test_any_log_says_again_what_was_shown(tmp_path_factory, rows):
    """However a log names its images, the presentations repeat it row by row, less those without a time."""
    file = tmp_path_factory.getbasetemp() / "any_log.csv"
    lines = [f"{kind.format(number)},{row / 4 if timed else ''},{int(valid)}" for row, (number, kind, valid, timed) in enumerate(rows)]
    file.write_text("\n".join(["image,onset,ok", *lines]))
    told = Stimuli(log=file, columns=LogColumns(is_valid="ok"), duration_s=0.1)
    log = read_log(told)
    _, shown = present(log, Images(NAMED, NAMED), told, log.onset_s, None)
    timed = [(row, number, valid) for row, (number, _, valid, is_timed) in enumerate(rows) if is_timed]
    assert [NAMED[index] for index in shown.image_index] == [f"image{number}.png" for _, number, _ in timed]
    assert shown.start_time_s.tolist() == [row / 4 for row, *_ in timed]
    assert shown.is_valid.tolist() == [valid for *_, valid in timed]
    seen = [number for _, number, _ in timed]
    assert shown.repeat.tolist() == [seen[:row].count(number) for row, number in enumerate(seen)]

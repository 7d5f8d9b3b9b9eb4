from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Subject, image_sha256
from nwb_compact_conversion.sources.cowley_v4 import read_cowley_v4


def decoded(content):
    return np.asarray(Image.open(BytesIO(content)))


@pytest.mark.parametrize("inside", ["", "data_V4_responses"])
def test_raw_repeats_become_one_row_a_presentation(source, inside):
    source = replace(source, inside=inside).write()
    session = read_cowley_v4(source.data, source.session)
    assert session.images.name == ("image0001.jpg", "image0002.jpg", "image0003.jpg")
    for pixels, name, digest in zip(session.images.pixels, session.images.name, session.images.sha256, strict=True):
        np.testing.assert_array_equal(pixels, decoded(source.members[name]))
        assert digest == image_sha256(decoded(source.members[name]))
    assert session.presentations.image_index.tolist() == [0, 0, 0, 1, 2, 2]
    assert session.presentations.repeat.tolist() == [0, 1, 2, 0, 0, 1]
    assert session.presentations.is_valid.all()
    assert session.presentations.start_time_s is session.presentations.stop_time_s is None
    assert session.counts.presentation_index.tolist() == list(range(6))
    assert session.counts.count.T.tolist() == [[1, 0, 2, 5, 0, 1], [4, 4, 4, 0, 2, 3]]
    assert session.mean_responses is None
    assert session.units.name == ("neuron0", "neuron1")
    assert session.units.spike_times_s is session.response_units.window_start_s is None


def test_averages_alone_become_mean_responses(source):
    source.raw = None
    session = read_cowley_v4(source.write().data, source.session)
    np.testing.assert_array_equal(session.mean_responses.mean, source.mean.T)
    assert session.mean_responses.n_repeats is None
    assert session.counts is session.presentations is None


def test_repeats_alone_are_enough(source):
    source.mean = None
    assert read_cowley_v4(source.write().data, source.session).counts.count.shape == (6, 2)


def test_a_session_that_is_not_listed_has_no_animal_and_no_kind(source):
    session = read_cowley_v4(source.write().data, source.session)
    assert session.subject is session.images.kind is None
    assert "not in the published list" in session.about.notes


def test_the_record_names_every_file_with_its_hash(source):
    record = read_cowley_v4(source.write().data, source.session).about.source_script.splitlines()
    assert record[0] == "program: nwb-compact"
    assert f"session: {source.session}" in record
    for file in (source.zip, source.raw_file, source.mean_file):
        assert f"file: {file.parent.name}/{file.name} sha256:{sha256(file.read_bytes()).hexdigest()}" in record
    assert str(source.data) not in "".join(record), "a path of this computer says nothing elsewhere"


def test_a_picture_under_two_numbers_stays_two_images(source):
    source.members["image0003.jpg"] = source.members["image0001.jpg"]
    images = read_cowley_v4(source.write().data, source.session).images
    assert len(images) == 3
    assert images.sha256[0] == images.sha256[2] != images.sha256[1]


def refused(source):
    with pytest.raises(NwbCompactError) as caught:
        read_cowley_v4(source.data, source.session)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_is_named(source):
    assert refused(source).startswith(f"{source.data}: found no such folder, expected the published V4 data. Next: give the folder")


def test_a_folder_of_something_else_is_named(source):
    source.data.mkdir()
    assert refused(source).startswith(f"{source.data}: found none of the folders, expected the folders images, responses_repeat_averaged")


def test_an_unknown_session_lists_those_that_are_there(source):
    replace(source.write(), session="250102").write()
    message = refused(replace(source, session="250103"))
    assert message == (
        f"{source.root}: found no file of session '250103', expected one of the sessions that are there (250101, 250102). "
        "Next: choose one with --session"
    )


@pytest.mark.parametrize("session", ["251301", "25101", "monday"])
def test_a_session_id_that_is_no_date_is_refused(source, session):
    source = replace(source, session=session).write()
    assert refused(source).startswith(f"{source.zip}: found session id '{session}', expected a date as YYMMDD. Next: ")


def test_missing_images_are_named(source):
    source.write().zip.unlink()
    assert refused(source).startswith(f"{source.zip}: found no such file, expected the images of session 250101. Next: download it from ")


def test_missing_responses_are_named(source):
    source.raw = source.mean = None
    expected = "expected the responses of session 250101 here or in responses_raw. Next: "
    assert refused(source.write()).startswith(f"{source.mean_file}: found no such file, {expected}")


def test_a_wrong_number_of_units_is_refused(source):
    source = replace(source, session="211008").write()
    expected = "expected 21 as published for session 211008. Next: download the file again"
    assert refused(source) == f"{source.raw_file}: found 2 units, {expected}"


def test_the_listed_number_of_units_passes(source):
    source = replace(source, session="211008", raw=None, mean=np.ones((21, 3))).write()
    session = read_cowley_v4(source.data, source.session)
    assert session.subject == Subject(subject_id="RA", species="Macaca mulatta")
    assert session.mean_responses.n_repeats.tolist() == [24, 24, 24]
    assert "one figure the source lists for the whole session (about 24)" in session.mean_responses.description
    assert session.images.kind == ("natural",) * 3


def test_an_image_without_a_response_is_named(source):
    source.members["image0009.jpg"] = source.members["image0001.jpg"]
    assert refused(source.write()) == (
        f"{source.zip}: found image 9 without a response, expected numbers 1 to 3, one for each column of {source.raw_file}. "
        "Next: download both files again"
    )


def test_image_number_zero_has_no_response(source):
    source.members["image0000.jpg"] = source.members["image0001.jpg"]
    assert f"{source.zip}: found image 0 without a response, expected numbers 1 to 3" in refused(source.write())


def test_a_response_without_an_image_is_named(source):
    del source.members["image0002.jpg"]
    assert refused(source.write()) == (
        f"{source.zip}: found no image 2, expected one for each of the 3 columns of {source.raw_file}. Next: download both files again"
    )


NAN, INF = float("nan"), float("inf")
TOGETHER = "all units to miss the same repeats, since they were recorded together"
WHOLE = "a whole count of at least 0, or NaN where a repeat is missing"
RAW_FAULTS = {
    "negative": ((0, 0, 1), -1, "-1.0 at unit 0, image 1, repeat 1", WHOLE),
    "fraction": ((1, 2, 0), 0.5, "0.5 at unit 1, image 3, repeat 0", WHOLE),
    "infinite": ((1, 2, 0), INF, "inf at unit 1, image 3, repeat 0", WHOLE),
    "too large": ((1, 2, 0), 70000, "70000.0 at unit 1, image 3, repeat 0", WHOLE),
    "one unit only": ((1, 0, 2), NAN, "nan at unit 1, image 1, repeat 2", TOGETHER),
    "gap": ((slice(None), 0, 1), NAN, "2.0 at unit 0, image 1, repeat 2 and 1 more", "missing repeats only after the last one"),
    "no repeat": ((slice(None), 1, 0), NAN, "nan at unit 0, image 2, repeat 0 and 1 more", "at least one repeat of every image"),
}


@pytest.mark.parametrize("fault", RAW_FAULTS)
def test_raw_repeats_that_are_no_counts_are_refused(source, fault):
    where, value, found, expected = RAW_FAULTS[fault]
    source.raw[where] = value
    assert refused(source.write()) == f"{source.raw_file}: found {found}, expected {expected}. Next: download the file again"


MEAN_FAULTS = {
    "nan": (NAN, "found nan at unit 1, image 2, expected a finite mean count of at least 0"),
    "infinite": (INF, "found inf at unit 1, image 2, expected a finite mean count of at least 0"),
    "negative": (-0.5, "found -0.5 at unit 1, image 2, expected a finite mean count of at least 0"),
}


@pytest.mark.parametrize("fault", MEAN_FAULTS)
def test_averages_that_are_no_mean_counts_are_refused(source, fault):
    value, message = MEAN_FAULTS[fault]
    source.mean[1, 1] = value
    assert f"{source.mean_file}: {message}" in refused(source.write())


def test_averages_must_be_those_of_the_repeats(source):
    source.mean[1, 2] += 0.25
    expected = f"expected the averages of the repeats in {source.raw_file}."
    assert refused(source.write()).startswith(f"{source.mean_file}: found averages that differ by up to 0.25, {expected}")


def test_averages_and_repeats_must_have_one_shape(source):
    source.mean = source.mean[:, :2]
    assert f"{source.mean_file}: found shape (2, 2), expected (2, 3) as in {source.raw_file}." in refused(source.write())


def test_responses_of_another_shape_are_refused(source):
    source.raw = source.raw[:, :, 0]
    assert f"{source.raw_file}: found shape (2, 3), expected units x images x repeats, none of them 0." in refused(source.write())


def test_a_truncated_zip_or_array_ends_in_one_line(source):
    for file in (source.write().zip, source.raw_file, source.mean_file):
        whole = file.read_bytes()
        file.write_bytes(whole[:-10])
        assert refused(source).startswith(f"{file}: found ")
        file.write_bytes(whole)
    read_cowley_v4(source.data, source.session)


# The published files ---------------------------------------------------------------------------------------------------


def zipped_images(published_v4, session):
    with ZipFile(published_v4 / "images" / f"images_{session}.zip") as zipped:
        members = {name.rsplit("/", 1)[-1]: name for name in zipped.namelist() if name.endswith(".jpg")}
        return [decoded(zipped.read(members[name])) for name in sorted(members)]


@pytest.mark.parametrize(("session_id", "n_units", "kind"), [("190923", 33, "natural"), ("210322", 59, None)])
def test_published_averages_are_kept_bit_for_bit(published_v4, session_id, n_units, kind):
    session = read_cowley_v4(published_v4, session_id)
    published = np.load(published_v4 / "responses_repeat_averaged" / f"responses_{session_id}.npy")
    assert session.mean_responses.mean.T.tobytes() == published.tobytes()
    np.testing.assert_array_equal(session.images.pixels, zipped_images(published_v4, session_id))
    assert session.images.pixels.shape == (1200, 112, 112, 3)
    assert len(session.units) == n_units
    assert session.images.kind == (None if kind is None else (kind,) * 1200)
    assert session.about.session_start_time == datetime(2000 + int(session_id[:2]), int(session_id[2:4]), int(session_id[4:]), tzinfo=UTC)


def test_published_repeats_are_kept_bit_for_bit(published_v4):
    session = read_cowley_v4(published_v4, "210325")
    published = np.load(published_v4 / "responses_raw" / "responses_210325.npy")
    shown, counts = session.presentations, session.counts
    back = np.full(published.shape, np.nan)
    row = counts.presentation_index
    back[:, shown.image_index[row], shown.repeat[row]] = counts.count.T
    np.testing.assert_array_equal(back, published)
    repeats = Counter(shown.image_index.tolist())
    assert (len(repeats), min(repeats.values()), max(repeats.values())) == (640, 6, 10)
    assert counts.count.max() == 20


def test_300_pictures_of_190925_were_shown_under_two_numbers(published_v4):
    session = read_cowley_v4(published_v4, "190925")
    times = Counter(session.images.sha256)
    assert len(session.images) == len(session.mean_responses.mean) == 1200
    assert Counter(times.values()) == {1: 600, 2: 300}


def test_600_pictures_are_in_both_210322_and_210325(published_v4):
    both = [set(read_cowley_v4(published_v4, session).images.sha256) for session in ("210322", "210325")]
    assert len(both[0] & both[1]) == 600


def test_every_complete_published_session_can_be_read(published_v4):
    for session in ("190927", "190928", "190929", "210224", "210305"):
        assert read_cowley_v4(published_v4, session).about.identifier == f"cowley-v4-{session}"

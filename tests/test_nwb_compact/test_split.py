from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwb_compact.config import Split
from nwb_compact.errors import NwbCompactError
from nwb_compact.responses import Responses, responses_of
from nwb_compact.results import SIDES
from nwb_compact.split import split_images
from nwb_compact_conversion.sources.cowley_v4 import read_cowley_v4

NUMBERS = st.lists(st.integers(0, 60), min_size=20, max_size=60)
METHODS = [Split(), Split(method="random"), Split(method="random", scored_fraction=0.3, validation_fraction=0.4)]


def file_of(images: Sequence[object], *, unanswered: Sequence[int] = (), split: tuple[str, ...] | None = None) -> Responses:
    """Averages of one unit to images that are known by any name."""
    mean = np.arange(len(images), dtype=float)[:, None]
    mean[list(unanswered)] = np.nan
    return Responses(("unit",), tuple(str(image) for image in images), split, mean, None, None, None)


def where(files: Sequence[Responses], sides: Sequence[Sequence[str]]) -> dict[str, set[str]]:
    """By side, the images that some file has there."""
    found: dict[str, set[str]] = {side: set() for side in SIDES}
    for responses, of_images in zip(files, sides, strict=True):
        for image, side in zip(responses.image_sha256, of_images, strict=True):
            found[side].add(image)
    return found


@settings(max_examples=60, deadline=None)
@given(fitted=st.lists(NUMBERS, min_size=1, max_size=3), lent=st.lists(NUMBERS, max_size=2), split=st.sampled_from(METHODS),
       seed=st.integers(0, 9))
def test_an_image_has_one_side_in_all_files_and_no_scored_image_is_lent(fitted, lent, split, seed):
    files, lenders = [file_of(images) for images in fitted], [file_of(images) for images in lent]
    try:
        sides, lent_sides = split_images(files, lenders, split, seed=seed)
    except NwbCompactError:  # the files leave each other nothing to fit
        return
    used, lent_to = where(files, sides), where(lenders, lent_sides)
    trained = used["fit"] | used["validation"] | lent_to["fit"] | lent_to["validation"]
    assert not used["scored"] & trained
    assert not (used["fit"] | lent_to["fit"]) & (used["validation"] | lent_to["validation"])
    assert not used["unused"]
    assert not lent_to["scored"]
    assert lent_to["unused"] == used["scored"] & {image for responses in lenders for image in responses.image_sha256}


def test_images_without_a_response_do_not_move_the_halves():
    """A table may list many more images than were shown."""
    (sides,), _ = split_images([file_of(range(60), unanswered=range(40, 60))], [], Split(), seed=0)
    assert [sides.count(side) for side in ("scored", "unused")] == [20, 20]
    assert set(sides[20:40]) == {"scored"}


@pytest.mark.parametrize("split", METHODS)
def test_an_image_shown_under_two_numbers_stays_on_one_side(split):
    images = [number % 40 for number in range(60)]  # the last twenty repeat the first twenty
    (sides,), _ = split_images([file_of(images)], [], split, seed=0)
    assert sides[40:] == sides[:20]
    assert set(sides) == {"fit", "validation", "scored"}


def test_the_first_half_of_the_distinct_images_fits():
    (sides,), _ = split_images([file_of(range(41))], [], Split(), seed=0)
    assert [side == "scored" for side in sides] == [False] * 21 + [True] * 20


def test_the_validation_part_has_the_size_that_was_asked_for():
    (sides,), _ = split_images([file_of(range(200))], [], Split(validation_fraction=0.25), seed=0)
    assert sides.count("validation") == 25


def test_the_validation_part_is_drawn_of_images_with_a_response():
    """Or a table of many images that were never shown could leave none of it."""
    (sides,), (lent,) = split_images(
        [file_of(range(400), unanswered=range(200, 400))], [file_of(range(1000, 1200), unanswered=range(100, 200))],
        Split(validation_fraction=0.25), seed=0,
    )
    assert sides.count("validation") + lent.count("validation") == (100 + 100) / 4


@pytest.mark.parametrize("split", METHODS)
def test_an_image_scored_in_one_fitted_file_is_scored_in_all(split):
    files = [file_of(range(40)), file_of(range(10, 50)), file_of([*range(10), *range(50, 70)])]
    sides, _ = split_images(files, [], split, seed=3)
    side_of = [dict(zip(responses.image_sha256, of_images, strict=True)) for responses, of_images in zip(files, sides, strict=True)]
    for image in map(str, range(70)):
        assert len({one[image] for one in side_of if image in one}) == 1
    if split.method == "first-half":
        assert [side == "scored" for side in sides[1]] == [False] * 10 + [True] * 30, "20 to 29 because file 1 scores them"


def test_a_lent_file_does_not_use_what_a_fitted_file_scores():
    (sides,), (lent,) = split_images([file_of(range(40))], [file_of(range(30, 70))], Split(), seed=0)
    assert set(sides[20:]) == {"scored"}
    assert set(lent[:10]) == {"unused"}
    assert set(lent[10:]) <= {"fit", "validation"}


def test_images_without_an_answer_are_unused():
    (sides,), (lent,) = split_images([file_of(range(40), unanswered=[0, 39])], [file_of(range(50, 60), unanswered=[4])], Split(), seed=0)
    assert [index for index, side in enumerate(sides) if side == "unused"] == [0, 39]
    assert [index for index, side in enumerate(lent) if side == "unused"] == [4]


@given(order=st.permutations(range(30)), seed=st.integers(0, 3))
def test_a_random_split_depends_on_the_images_and_the_seed_alone(order, seed):
    split = Split(method="random")
    (sides,), _ = split_images([file_of(range(30))], [], split, seed=seed)
    (shuffled,), _ = split_images([file_of(order)], [], split, seed=seed)
    assert [sides[image] for image in order] == list(shuffled)


def test_another_seed_gives_another_random_split():
    split = Split(method="random")
    assert split_images([file_of(range(30))], [], split, seed=0) != split_images([file_of(range(30))], [], split, seed=1)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_a_random_split_scores_the_share_that_was_asked_for(fraction):
    (sides,), _ = split_images([file_of(range(100))], [], Split(method="random", scored_fraction=fraction), seed=0)
    assert sides.count("scored") == round(100 * fraction)


def test_a_stored_column_scores_what_it_calls_test():
    stored = ("train",) * 20 + ("test", "") * 10
    (sides,), _ = split_images([file_of(range(40), split=stored)], [], Split(method="column"), seed=0)
    assert [side == "scored" for side in sides] == [word == "test" for word in stored]


def test_a_lent_file_needs_no_stored_column():
    stored = ("train",) * 20 + ("test",) * 20
    _, (lent,) = split_images([file_of(range(40), split=stored)], [file_of(range(30, 50))], Split(method="column"), seed=0)
    assert [side == "unused" for side in lent] == [True] * 10 + [False] * 10


def test_a_missing_column_is_named():
    with pytest.raises(NwbCompactError, match=r"--split column: found no 'split' column in the file, expected one\. Next: use --split"):
        split_images([file_of(range(40))], [], Split(method="column"), seed=0)


@pytest.mark.parametrize(("stored", "side"), [(("train",) * 40, "scored"), (("test",) * 40, "fit")])
def test_an_empty_side_is_named(stored, side):
    with pytest.raises(NwbCompactError, match=f"split: found no image on the {side} side of 40, expected some on every side"):
        split_images([file_of(range(40), split=stored)], [], Split(method="column"), seed=0)


def test_too_few_images_for_a_validation_part_are_refused():
    with pytest.raises(NwbCompactError, match="no image on the validation side"):
        split_images([file_of(range(4))], [], Split(), seed=0)


# The two published sessions that share 600 images ---------------------------------------------------------------------
@pytest.fixture(scope="module")
def sharing(published_v4):
    return {session: responses_of(read_cowley_v4(published_v4, session)) for session in ("210322", "210325")}


@pytest.mark.parametrize(("fitted", "other"), [("210322", "210325"), ("210325", "210322")])
@pytest.mark.parametrize(("split", "lent"), [(METHODS[0], True), (METHODS[1], True), (METHODS[1], False)])
def test_no_scored_image_of_a_published_session_is_trained_on_from_the_other(sharing, fitted, other, split, lent):
    one, two = sharing[fitted], sharing[other]
    assert len(set(one.image_sha256) & set(two.image_sha256)) == 600
    if lent:
        (sides,), (other_sides,) = split_images([one], [two], split, seed=0)
    else:
        sides, other_sides = split_images([one, two], [], split, seed=0)[0]
    mine, yours = where([one], [sides]), where([two], [other_sides])
    shared_and_scored = mine["scored"] & set(two.image_sha256)
    assert len(shared_and_scored) > 200, "otherwise there would be nothing to leak"
    assert not mine["scored"] & (yours["fit"] | yours["validation"])
    assert not (yours["scored"] if not lent else set()) & (mine["fit"] | mine["validation"])
    assert shared_and_scored <= yours["unused" if lent else "scored"]


def test_published_sessions_that_leave_each_other_nothing_to_fit_are_refused_together(sharing):
    """Each session's second half holds what the other would fit on."""
    with pytest.raises(NwbCompactError, match="no image on the fit side of 640, expected some on every side"):
        split_images(list(sharing.values()), [], Split(), seed=0)

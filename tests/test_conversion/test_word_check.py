from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.clock.alignment import align
from nwb_compact_conversion.clock.word_check import refuse_other_images, together
from nwb_compact_conversion.recorded import Events
from nwb_compact_conversion.session_yaml import Alignment
from nwb_compact_conversion.stimulus.stimulus_log import NO_CODE

N_IMAGES, N_REPEATS = 26, 7


def shown_in_blocks(seed=0, n_images=N_IMAGES, n_repeats=N_REPEATS):
    """Each image once a block, in random order."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(n_images) for _ in range(n_repeats)])


def names(image):
    return tuple(f"image{number:03d}.png" for number in image)


def refused(image, code):
    with pytest.raises(NwbCompactError) as caught:
        refuse_other_images(names(image), code)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_log_of_another_session_with_the_same_cadence():
    """Each trial lasts as long as in the other session: by time alone the log fits perfectly."""
    onset_s = np.cumsum(np.where(np.arange(182) % 7, 0.2, 1.1 + np.random.default_rng(5).random(182)))
    here, there = shown_in_blocks(1), shown_in_blocks(2)
    aligned = align(onset_s, None, Events(60 + onset_s, 300 + here), Alignment(), "port")
    assert aligned.n_paired == 182
    refuse_other_images(names(here), aligned.code)
    message = refused(there, aligned.code)
    assert message.startswith("stimulus log: found 26 words as often as its 26 images, but of 546 pairs of rows with the same word ")
    assert message.endswith(
        ", as by chance (18), expected words that go with the images. Next: give the log of this recording; if the words mean something "
        "else, set alignment.check_words: false"
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 12), st.integers(0, 2))
def test_words_that_name_the_images_are_never_refused(seed, n_images, n_repeats, n_lost):
    rng = np.random.default_rng(seed)
    here = shown_in_blocks(seed, n_images, n_repeats)
    code = rng.permutation(1000)[here]
    code[rng.choice(len(code), min(n_lost, len(code)), replace=False)] = NO_CODE
    refuse_other_images(names(here), code)


@pytest.mark.parametrize(("n_images", "n_repeats"), [(10, 4), (10, 40), (60, 3), (600, 2), (1000, 8)])
def test_words_that_name_images_of_other_rows_are_refused(n_images, n_repeats):
    for seed in range(20):
        here, there = (shown_in_blocks(seed + session, n_images, n_repeats) for session in (0, 1000))
        code = 300 + here
        code[:: max(len(code) // 5, 100)] = NO_CODE
        assert f"{n_images:,} words as often as its {n_images:,} images" in refused(there, code)


def test_a_log_that_is_off_by_one_row():
    here = shown_in_blocks()
    assert "as by chance" in refused(np.roll(here, 1), 300 + here)


def test_a_few_wrong_words_are_no_other_session():
    here = shown_in_blocks()
    code = 300 + here
    code[[20, 30]] = code[[30, 20]]
    refuse_other_images(names(here), code)


ROW = np.arange(N_IMAGES * N_REPEATS)
RANDOM = np.random.default_rng(3)
OTHER_MEANINGS = {
    "constant": np.full(len(ROW), 5),
    "start and stop of trials": ROW % 2 + 1,
    "trial counter": ROW // 7,
    "row counter": ROW,
    "row counter of a byte": (ROW + 200) % 256,
    "position within the block": ROW % N_IMAGES + 1,
    "block": ROW // N_IMAGES,
    "seven conditions": RANDOM.integers(0, 7, len(ROW)),
    "categories": shown_in_blocks() // 2,
    "random trial codes": RANDOM.permutation(len(ROW)),
    "as many trials as images": np.repeat(np.arange(N_IMAGES), N_REPEATS),
    "no mark": np.full(len(ROW), NO_CODE),
}


@pytest.mark.parametrize("code", OTHER_MEANINGS.values(), ids=OTHER_MEANINGS)
def test_words_that_mean_something_else_speak_against_no_log(code):
    refuse_other_images(names(shown_in_blocks()), code)


def test_as_many_conditions_as_images_each_with_each():
    image, condition = (axis.ravel() for axis in np.indices((12, 12)))
    order = np.random.default_rng(0).permutation(144)
    refuse_other_images(names(image[order]), condition[order])


def test_images_that_are_shown_more_or_less_often_than_words_are_not_what_these_name():
    here = shown_in_blocks()
    more = here.copy()
    more[more < 5] = 25
    refuse_other_images(names(more), 300 + shown_in_blocks(1))


def test_pairs_are_those_that_one_counts():
    rng = np.random.default_rng(0)
    word, image = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
    pairs = list(combinations(range(60), 2))
    found = together(word, image)
    assert found.n_same_word == sum(word[a] == word[b] for a, b in pairs)
    assert found.n_both_same == sum(word[a] == word[b] and image[a] == image[b] for a, b in pairs)
    shuffled = [together(word, rng.permutation(image)).n_both_same for _ in range(2000)]
    assert np.mean(shuffled) == pytest.approx(found.by_chance, rel=0.02)

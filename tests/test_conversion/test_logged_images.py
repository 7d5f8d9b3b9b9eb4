import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.session_yaml import Stimuli
from nwb_compact_conversion.stimulus.logged_images import rows_of_images
from nwb_compact_conversion.stimulus.stimuli import natural_order

NAMES = ("a.png", "b.v2.png", "c.png")


def rows(logged, names=NAMES, **told):
    found = rows_of_images("log.csv", logged, names, Stimuli(**told))
    return [found[value] for value in logged]


def refused(logged, names=NAMES, **told):
    with pytest.raises(NwbCompactError) as caught:
        rows_of_images("log.csv", logged, names, Stimuli(**told))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counted(template, numbers):
    return sorted((template.format(number) for number in numbers), key=natural_order)


@pytest.mark.parametrize("value", ["b.v2.png", "b.v2", "stimuli/b.v2.png", "C:\\stimuli\\b.v2.png", "/home/lab/b.v2", "2", "2.0"])
def test_an_image_is_named_in_many_ways(value):
    assert rows(["a.png", value]) == [0, 1]


def test_numbers_count_from_where_the_lab_counts():
    assert rows(["1", "3"]) == [0, 2]
    assert rows(["0", "2"], first_number=0) == [0, 2]


def test_names_and_numbers_may_be_mixed():
    assert rows(["3", "a", "b.v2.png"]) == [2, 0, 1]


def test_accents_are_one_letter_however_they_are_written():
    assert rows(["\u00e9.png", "e\u0301"], ("e\u0301.png",)) == [0, 0]


def test_a_name_that_two_files_may_be_meant_by_is_refused_only_where_it_is_used():
    names = ("a.jpg", "a.png", "b.png")
    assert rows(["a.png", "b", "a.jpg"], names) == [1, 2, 0]
    message = "log.csv: found 'a', which may be 'a.jpg' or 'a.png', expected one image of that name. Next: write the ending in the log, "
    assert refused(["a", "b"], names) == message + "or rename one"
    assert refused(["1"], ("1.png", "001.png", "2.png")).startswith("log.csv: found '1', which may be '1.png' or '001.png', expected one")


def test_absent_images_are_named_once_with_how_often_they_occur():
    found = "found 6 images that are not there ('x.png', 'y', 'z', ...; 7 rows), expected images of set.zip (from 'a.png' to 'c.png')"
    next_step = "add them or correct the log; values that mean that nothing was shown belong under stimuli.blank"
    assert refused(["a", "x.png", "y", "x.png", "z", "w", "4", "0"], images="set.zip") == f"log.csv: {found}. Next: {next_step}"
    assert "found 1 image that is not there (''; 1 row)" in refused([""])
    assert "found 1 image that is not there ('b.png'; 1 row)" in refused(["b.png"]), "another ending than the file's"


def test_blanks_are_one_past_the_images_unless_they_are_a_file():
    assert rows(["a", "None", "0.0", "", "-1", "1"], blank=("none", "0", "", "-1")) == [0, 3, 3, 3, 3, 0]
    assert rows(["a", "c.png", "c"], blank=("c.png", "c")) == [0, 2, 2]
    assert rows(["0", "1"], blank=("0",), first_number=0) == [3, 1]


# Numbers and the numbers in file names --------------------------------------------------------------------------------
@pytest.mark.parametrize(("template", "numbers"), [
    ("image{:03d}.png", range(1, 13)),
    ("{}.png", range(1, 13)),
    ("set7_{}_112px.png", range(1, 13)),
    ("scene{}.jpg", range(501, 513)),
    ("{:012d}.jpg", [139, 285, 632, 724, 776, 785, 802, 872, 885, 1000, 1268, 1296]),
    ("2026-11-20_{}.png", "abcdefghijkl"),
])
def test_a_count_that_the_file_names_do_not_contradict_is_taken(template, numbers):
    assert rows([str(number) for number in range(1, 13)], counted(template, numbers)) == list(range(12))


def test_numbers_within_categories_do_not_count():
    names = counted("cat_{}.png", range(1, 7)) + counted("dog_{}.png", range(1, 7))
    assert rows(["1", "7", "12"], names) == [0, 6, 11]


def test_files_that_are_called_by_their_number_are_meant_where_only_that_fits():
    assert rows(["0", "1", "9"], counted("{}.png", range(10))) == [0, 1, 9]
    assert rows(["7", "250"], counted("{:05d}.png", [7, 100, 250])) == [0, 2]
    assert rows(["1", "10"], counted("{}.png", range(1, 11)), first_number=0) == [0, 9]


def test_a_count_from_elsewhere_is_refused_with_the_setting_that_would_fit():
    names = counted("image{}.png", range(10))
    assert rows(["3", "5"], names, first_number=0) == [3, 5]
    found = "found image number 3, which is 'image2.png' when counted from 1, expected the number that is in the file name"
    next_step = "set stimuli.first_number: 0, or write file names in the log"
    assert refused(["5", "3"], names) == f"log.csv: {found}. Next: {next_step}"
    assert refused(["5", "3"], ["blank.png", *counted("image{}.png", range(1, 10))]) == f"log.csv: {found}. Next: {next_step}"
    assert "set stimuli.first_number: 1, or write" in refused(["5", "3"], counted("{}.png", range(1, 11)), first_number=0)


@pytest.mark.parametrize(("names", "logged", "wrong"), [
    (counted("image{}.png", [1, 2, 3, 4, 7, 8]), [1, 2, 5], "5, which is 'image7.png'"),
    (counted("image{}_112px.png", [1, 2, 3, 4, 7, 8]), [1, 2, 5], "5, which is 'image7_112px.png'"),
    (counted("image{}.png", [3, 4, 5, 6]), [3], "3, which is 'image5.png'"),
    (sorted([*counted("image{}.png", range(1, 21)), "image5 copy.png"], key=natural_order), [2, 8], "8, which is 'image7.png'"),
    (counted("{}.png", range(10)), range(1, 11), "1, which is '0.png'"),
], ids=["a file is missing", "beside the size", "the first are missing", "a copy", "counted past the end"])
def test_a_count_that_a_file_name_contradicts_is_refused(names, logged, wrong):
    expected = "when counted from 1, expected the number that is in the file name. Next: write file names in the log"
    assert refused([str(number) for number in logged], names) == f"log.csv: found image number {wrong} {expected}"


def test_a_number_in_a_few_names_does_not_count():
    assert rows(["1", "2"], ("a.png", "b.png", "c2.png")) == [0, 1]


def test_many_images_do_not_take_the_square_of_the_time():
    names = counted("image{}.png", range(1, 20_001))
    assert rows([str(number) for number in range(1, 20_001)], names) == list(range(20_000))

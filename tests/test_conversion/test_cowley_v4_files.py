import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.cowley_v4_files import check_numbers, find_files, sessions_in
from nwb_compact_conversion.sources.source_files import NumberedImages


def test_repeats_are_preferred_to_averages(source):
    files = find_files(source.write().data, source.session)
    assert (files.images, files.raw, files.averaged) == (source.zip, source.raw_file, source.mean_file)
    assert files.responses == source.raw_file
    source.raw_file.unlink()
    assert find_files(source.data, source.session).responses == source.mean_file


def test_a_session_counts_as_there_only_with_images_and_responses(source):
    assert sessions_in(source.write().root) == (source.session,)
    source.zip.unlink()
    assert sessions_in(source.root) == ()


def test_a_long_list_of_numbers_is_cut(tmp_path):
    number = tuple(range(1, 6))
    found = NumberedImages(number, ("x",) * 5, np.zeros((5, 1, 1, 3), np.uint8))
    check_numbers(tmp_path, found, tmp_path, 5)
    with pytest.raises(NwbCompactError, match="found no image 6, 7, 8 and 2 more, expected one for each of the 10 columns"):
        check_numbers(tmp_path, found, tmp_path, 10)

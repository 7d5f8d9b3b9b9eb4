from collections import Counter
from datetime import datetime

from nwb_compact_conversion.sources.cowley_v4_sessions import SESSIONS


def test_the_list_is_that_of_the_publication():
    assert len(SESSIONS) == 50
    assert Counter(row.animal for row in SESSIONS.values()) == {"WE": 7, "PE": 29, "RA": 14}
    assert Counter(row.role for row in SESSIONS.values()) == {"train": 44, "test": 5, "val": 1}


def test_the_four_test_sessions_of_the_study_have_the_219_neurons_of_its_compact_models():
    assert sum(SESSIONS[session].n_units for session in ("190923", "201025", "210225", "211022")) == 219


def test_the_kinds_of_a_session_add_up_to_its_images():
    for session, row in SESSIONS.items():
        assert datetime.strptime(session, "%y%m%d")
        assert sum(n for _, n in row.kinds) == row.n_images, session


def test_the_kind_of_an_image_is_told_only_where_there_is_one():
    assert SESSIONS["190923"].kind == "natural"
    assert SESSIONS["190924"].kind is None
    assert SESSIONS["210303"].kind == "maximizing"
    assert SESSIONS["210325"].kind == "Bashivan et al., 2019"

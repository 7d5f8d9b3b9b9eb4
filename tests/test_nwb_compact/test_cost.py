import pytest

from nwb_compact.cost import Cost, as_provenance, cost_per_neuron, costs_of

WHOLE = Cost(12.5, flop=3 * 10**12, peak_bytes=2**31, gpu_peak_bytes=2**30, joules=400.0)


def test_sums_keep_what_is_known():
    assert Cost(25.0, 6 * 10**12, 2**31, 2**30, 800.0) == WHOLE + WHOLE
    assert WHOLE + Cost(1.0, flop=5, peak_bytes=2**32) == Cost(13.5, 3 * 10**12 + 5, 2**32, 2**30, None)
    assert Cost(1.0) + Cost(2.0) == Cost(3.0)


def test_provenance_gives_back_what_was_written_and_has_no_key_for_what_is_not_known():
    costs = {"features": Cost(1.0), "teacher": WHOLE}
    written = as_provenance(costs)
    assert list(written) == [
        "seconds.features", "seconds.teacher", "flop.teacher", "peak_bytes.teacher", "gpu_peak_bytes.teacher", "joules.teacher",
    ]
    assert costs_of({"preset": "quick", **written}) == costs


@pytest.mark.parametrize("value", ["much", "nan", "inf", "-1", ""])
def test_what_another_program_wrote_there_is_not_known(value):
    assert costs_of({"seconds.teacher": value, "flop.teacher": "1"}) == {}
    assert costs_of({"seconds.teacher": "2", "flop.teacher": value, "joules.teacher": value}) == {"teacher": Cost(2.0)}


RUN = {"seconds.teacher": "50", "flop.teacher": "9", "seconds.lessons": "3", "seconds.students": "9.0", "flop.students": "120"}


def test_a_neuron_pays_its_share_of_what_serves_the_students():
    assert cost_per_neuron(RUN, n_units=4) == Cost(3.0, flop=30)
    assert cost_per_neuron({**RUN, "seconds.retraining": "4", "joules.lessons": "1"}, n_units=4) == Cost(4.0, flop=30)
    joules = {f"joules.{stage}": "8" for stage in ("teacher", "lessons", "students")}
    assert cost_per_neuron({**RUN, **joules}, n_units=4).joules == 4.0


def test_a_neuron_of_several_files_pays_its_share_of_all():
    together = {**RUN, "fitted.0": "a.nwb", "fitted.1": "b.nwb"}
    assert cost_per_neuron({**together, "units_fitted": "12"}, n_units=4).seconds == 1.0
    assert cost_per_neuron(together, n_units=4) is None, "an earlier version did not write how many the other file had"


def test_a_run_without_seconds_tells_no_cost():
    assert cost_per_neuron({"preset": "quick"}, n_units=3) is None
    assert cost_per_neuron({**RUN, "units_fitted": "0"}, n_units=3) is None

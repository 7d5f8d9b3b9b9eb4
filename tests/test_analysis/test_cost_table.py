import pytest

from nwb_compact_analysis.cost_table import cost_rows, duration

RUN = {
    "preset": "quick", "seconds.features": "4.0", "peak_bytes.features": "900000000",
    "seconds.baseline_ridge": "0.5", "joules.baseline_ridge": "20.0",
    "seconds.students": "3661", "flop.students": str(7322 * 10**10), "peak_bytes.students": "2500000000",
}  # fmt: skip


def test_each_stage_has_a_row_and_what_is_missing_a_dash():
    assert cost_rows(RUN) == (
        ("stage", "time", "operations", "rate", "peak memory", "energy"),
        ("features", "4.0 s", "–", "–", "900 MB", "–"),
        ("baseline ridge", "0.5 s", "–", "–", "–", "20 J"),
        ("students", "1 h 1 min", "73.2 TFLOP", "20 GFLOP/s", "2.5 GB", "–"),
        ("all", "1 h 1 min", "73.2 TFLOP", "20 GFLOP/s", "2.5 GB", "–"),
    )


def test_the_rate_of_all_is_that_of_the_stages_whose_operations_are_known():
    rows = cost_rows({"seconds.lessons": "90", "seconds.students": "10", "flop.students": "2e10"})
    assert rows[-1] == ("all", "1 min 40 s", "20 GFLOP", "2 GFLOP/s", "–", "–")


def test_a_gpu_has_a_column_of_its_own():
    heads, features, *_ = cost_rows({**RUN, "gpu_peak_bytes.students": "30000000000"})
    assert (heads[4:], features[4:]) == (("peak memory", "peak on GPU", "energy"), ("900 MB", "–", "–"))


def test_a_stage_of_no_time_has_no_rate():
    assert cost_rows({"seconds.students": "0.0", "flop.students": "5"})[1] == ("students", "0.0 s", "5 FLOP", "–", "–", "–")


def test_a_run_of_an_earlier_version_has_no_rows():
    assert cost_rows({"preset": "quick"}) == ()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.5, "1 min 0 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 0 min")],
)
def test_a_duration_never_says_sixty(seconds, said):
    assert duration(seconds) == said

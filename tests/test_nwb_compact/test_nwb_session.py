"""A session written and read again is the same session."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import read_session, write_session
from nwb_compact.session import (
    About,
    Device,
    Electrodes,
    Events,
    Images,
    MeanResponses,
    Presentations,
    ResponseUnits,
    Session,
    SpikeCounts,
    Subject,
    Units,
    Waveforms,
    WiringRow,
    example_session,
    image_sha256,
)

LAYOUTS = {"objects": 500, "stack": 0}
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@dataclass(frozen=True)
class Plan:
    """What a session shall be like. Drawn plain and built in the test, since checked types may not be made while drawing."""

    seed: int
    image_names: list[str]
    unit_names: list[str]
    colour: bool
    pixels: bool
    one_picture_twice: bool
    labels: str | None
    repeats: list[int]
    presented: bool
    timed: bool
    spikes: list[int] | None
    obs_intervals_s: list[tuple[float, float]] | None
    electrodes: bool
    geometry: bool
    waveforms: bool
    n_counted_units: int
    mean_count: float | None
    means: bool
    n_repeats: bool
    window_s: float | None
    latency: bool
    description: str
    subject: int
    wiring: int


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Sessions of every kind the contract allows, small ones."""
    n_images, n_units = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    yes = st.booleans()
    return Plan(
        seed=draw(st.integers(0, 2**32 - 1)),
        image_names=draw(st.lists(names, min_size=n_images, max_size=n_images)),
        unit_names=draw(st.lists(names, min_size=n_units, max_size=n_units)),
        colour=draw(yes),
        pixels=draw(yes),
        one_picture_twice=draw(yes),
        labels=draw(st.none() | names),
        repeats=draw(st.lists(st.integers(0, 3), min_size=n_images, max_size=n_images)),
        presented=draw(yes),
        timed=draw(yes),
        spikes=draw(st.none() | st.lists(st.integers(0, 4), min_size=n_units, max_size=n_units)),
        electrodes=draw(st.booleans()),
        geometry=draw(st.booleans()),
        waveforms=draw(st.booleans()),
        obs_intervals_s=draw(st.sampled_from([None, [(0.0, 12.5)], [(0.0, 4.0), (4.5, 12.5)]])),
        n_counted_units=draw(st.integers(1, n_units)),
        mean_count=draw(st.sampled_from([None, 0.0, 2.0, 300.0])),
        means=draw(yes),
        n_repeats=draw(yes),
        window_s=draw(st.sampled_from([None, 0.05])),
        latency=draw(yes),
        description=draw(names),
        subject=draw(st.integers(0, 2)),
        wiring=draw(st.integers(0, 2)),
    )


SUBJECTS = (None, Subject(), Subject("M/1", "Macaca mulatta", "F", "P8Y", weight="7 kg"))
WIRING = (WiringRow("u", "dot", "c1", -0.5, 1.0, -2.0), WiringRow("", "ü", "c2", 1.0, 0.0, 0.0))


def built(plan: Plan) -> Session:
    rng = np.random.default_rng(plan.seed)
    presentations = planned_presentations(plan, rng)
    counted = np.flatnonzero(rng.random(0 if presentations is None else len(presentations)) < 0.8).astype(np.uint32)
    has_counts = presentations is not None and plan.mean_count is not None
    count = rng.poisson(plan.mean_count or 0.0, (len(counted), plan.n_counted_units)).astype(np.uint16)
    means = rng.random((len(plan.image_names), plan.n_counted_units))
    means[0, 0] = np.nan
    n_repeats = np.arange(len(means)) + 1.0 if plan.n_repeats else None
    window = None if plan.window_s is None else np.full(plan.n_counted_units, plan.window_s)
    return Session(
        about=About("id/ü", "déscription", datetime(2020, 2, 3, 4, 5, 6, 789, tzinfo=timezone(timedelta(hours=2)))),
        subject=SUBJECTS[plan.subject],
        images=planned_images(plan, rng),
        presentations=presentations,
        units=planned_units(plan, rng),
        electrodes=planned_electrodes(plan) if plan.electrodes else None,
        events=planned_events(rng) if plan.geometry else {},
        device=Device("Grapevine", "a test", "Ripple" if plan.geometry else None) if plan.electrodes else None,
        response_units=ResponseUnits(
            unit_index=rng.permutation(len(plan.unit_names))[: plan.n_counted_units].astype(np.uint32),
            window_start_s=window,
            window_stop_s=window,
            latency_s=rng.choice([np.nan, 0.05], plan.n_counted_units) if plan.latency else None,
        ),
        counts=SpikeCounts(counted, count, plan.description) if has_counts else None,
        mean_responses=MeanResponses(means, n_repeats) if plan.means else None,
        wiring=WIRING[: plan.wiring],
    )


def planned_electrodes(plan: Plan) -> Electrodes:
    place = np.array([0.0, 400.0, 800.0]) if plan.geometry else None
    return Electrodes(("chan1", "chan2", "chan 3"), ("B", "A", "B"), ("V4", "unknown", "V4"), place, place)


def planned_events(rng: np.random.Generator) -> dict[str, Events]:
    words = Events(np.array([0.5, 0.5, 2.0]), np.array([7, -1, 300]))
    return {"port": words, "line 2": Events(np.sort(rng.random(4)) + 0.6, np.array([1, 0, 1, 0]))}


def planned_units(plan: Plan, rng: np.random.Generator) -> Units:
    n = len(plan.unit_names)
    waveforms = None
    if plan.waveforms and plan.spikes is not None:
        waveforms = Waveforms(rng.normal(size=(n, 5)), rng.random((n, 5)) if plan.geometry else None, 30_000.0, 0.001)
    return Units(
        name=tuple(plan.unit_names),
        spike_times_s=None if plan.spikes is None else tuple(np.sort(rng.random(k)) for k in plan.spikes),
        obs_intervals_s=None if plan.obs_intervals_s is None else np.array(plan.obs_intervals_s),
        resolution_s=1 / 30_000 if plan.waveforms and plan.spikes is not None else None,
        electrode_index=rng.integers(3, size=n).astype(np.uint32) if plan.electrodes else None,
        properties={"snr": rng.random(n), "label": np.array(["good", "mua"])[rng.integers(2, size=n)]} if plan.geometry else {},
        waveforms=waveforms,
    )


def planned_images(plan: Plan, rng: np.random.Generator) -> Images:
    n = len(plan.image_names)
    pixels = rng.integers(0, 256, (n, 3, 4, 3) if plan.colour else (n, 3, 4), dtype=np.uint8)
    if plan.one_picture_twice:
        pixels[-1] = pixels[0]
    labels = None if plan.labels is None else (plan.labels,) * n
    sha256 = tuple(image_sha256(image) for image in pixels)
    return Images(tuple(plan.image_names), sha256, pixels if plan.pixels else None, kind=labels, split=labels)


def planned_presentations(plan: Plan, rng: np.random.Generator) -> Presentations | None:
    n = sum(plan.repeats)
    if not plan.presented or not n:
        return None
    image_index = np.repeat(np.arange(len(plan.repeats), dtype=np.uint32), plan.repeats)
    repeat = np.concatenate([np.arange(n, dtype=np.uint32) for n in plan.repeats])
    start = rng.random(n) if plan.timed else None
    return Presentations(image_index, repeat, rng.random(n) < 0.8, start, None if start is None else start + 0.1)


@pytest.mark.parametrize("objects_limit", LAYOUTS.values(), ids=LAYOUTS)
@given(plan=plans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_is_read(plan: Plan, objects_limit: int, assert_same: Callable[[Any, Any], None]) -> None:
    session = built(plan)
    with TemporaryDirectory() as folder:
        file_path = Path(folder) / "sëssion.nwb"
        write_session(session, file_path, objects_limit=objects_limit)
        assert_same(session, read_session(file_path))
        assert [path.name for path in Path(folder).iterdir()] == [file_path.name]


def test_every_fact_about_the_session_survives(tmp_path: Path, assert_same: Callable[[Any, Any], None]) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    about = About(
        "i", "d", start, "s", ("Doe, J.", "Ü, X."), "here", "lab", ("a", "b"), ("doi:1",), "why", "notes", "nwb-compact: 0.1\nsource: ü"
    )
    subject = Subject("m", "Macaca mulatta", "M", None, start, "calm", "7 kg", "rhesus", "wild")
    session = replace(example_session(), about=about, subject=subject)
    write_session(session, tmp_path / "a.nwb")
    assert_same(session, read_session(tmp_path / "a.nwb"))


def test_absence_stays_absent(tmp_path: Path) -> None:
    session = replace(example_session(), subject=None)
    hashes_only = replace(session.images, pixels=None)
    bare = replace(session.response_units, window_start_s=None, window_stop_s=None)
    write_session(replace(session, images=hashes_only, response_units=bare), tmp_path / "a.nwb")
    with h5py.File(tmp_path / "a.nwb") as file:
        assert sorted(file["stimulus/templates"]) == []
        assert sorted(file["stimulus/presentation"]) == sorted([c.IMAGE_TABLE, c.PRESENTATIONS])
        assert sorted(file["processing/ecephys"]) == sorted([c.NEURONS, c.RESPONSE_UNITS, c.SPIKE_COUNTS])
        assert list(file["processing/ecephys"][c.RESPONSE_UNITS].attrs["colnames"]) == [c.UNIT]
        assert "subject" not in file["general"]
        assert not {"units", "intervals"} & set(file)


def test_counts_take_the_smallest_type_that_holds_them(tmp_path: Path) -> None:
    session = example_session()
    assert session.counts is not None
    for most, dtype in ((255, np.uint8), (256, np.uint16), (70_000, np.uint32)):
        count = session.counts.count.astype(np.uint64)
        count[3, 1] = most
        write_session(replace(session, counts=replace(session.counts, count=count)), tmp_path / "a.nwb", overwrite=True)
        read = read_session(tmp_path / "a.nwb").counts
        assert read is not None
        assert read.count.dtype == dtype
        np.testing.assert_array_equal(read.count, count)


def test_an_existing_file_is_not_overwritten_unasked(tmp_path: Path) -> None:
    file_path = tmp_path / "a.nwb"
    file_path.write_text("mine")
    with pytest.raises(NwbCompactError, match=r"a\.nwb: found a file, expected none yet\. Next: choose another name"):
        write_session(example_session(), file_path)
    assert file_path.read_text() == "mine"
    write_session(example_session(), file_path, overwrite=True)
    assert len(read_session(file_path).images) == 24


def test_a_path_may_be_a_string(tmp_path: Path, assert_same: Callable[[Any, Any], None]) -> None:
    write_session(example_session(), str(tmp_path / "a.nwb"))
    assert_same(example_session(), read_session(str(tmp_path / "a.nwb")))
    with pytest.raises(NwbCompactError, match="found a file, expected none yet"):
        write_session(example_session(), str(tmp_path / "a.nwb"))
    with pytest.raises(NwbCompactError, match=r"typo\.nwb: found no file"):
        read_session("typo.nwb")


NO_RESPONSES = ResponseUnits(np.zeros(0, np.uint32), None, None)
NOTHING = Session(example_session().about, None, Images((), ()), None, Units(()), NO_RESPONSES, None, None)


def test_no_time_is_told_for_all_units_where_they_were_observed_at_different_times(tmp_path: Path) -> None:
    session, spikes = example_session(), (np.array([1.0]), np.array([2.0]))
    session = replace(session, units=replace(session.units, spike_times_s=spikes, obs_intervals_s=np.array([[0.0, 30.0]])))
    write_session(session, tmp_path / "a.nwb")
    assert read_session(tmp_path / "a.nwb").units.obs_intervals_s.tolist() == [[0, 30]]
    with h5py.File(tmp_path / "a.nwb", "r+") as hdf5:
        hdf5[f"units/{c.OBS_INTERVALS}"][1] = [30.0, 60.0]
    assert read_session(tmp_path / "a.nwb").units.obs_intervals_s is None, "0 to 60 s would make silence of what nobody saw"


def test_a_file_may_hold_only_what_was_recorded(tmp_path: Path) -> None:
    times_s = np.array([0.1, 0.7])
    write_session(replace(NOTHING, events={"line 1": Events(times_s, np.array([1, 0]))}), tmp_path / "events.nwb")
    with h5py.File(tmp_path / "events.nwb") as file:
        assert file["events/digital_events/timestamp"][:].tolist() == times_s.tolist()
    with pytest.raises(NwbCompactError, match="found no table stimulus_image_table"):
        read_session(tmp_path / "events.nwb")


CONTRADICTIONS: dict[str, Callable[[Session], Session]] = {
    "no image, no unit, no event and no electrode": lambda s: NOTHING,
    "presentations or means without images": lambda s: replace(s, images=Images((), ())),
    "responses without units": lambda s: replace(s, units=Units(())),
    "an array called 'electrodes'": lambda s: replace(s, electrodes=Electrodes(("a",), ("electrodes",), ("V4",))),
    "columns of images that differ in length": lambda s: replace(s, images=replace(s.images, kind=("natural",))),
    "pixels of more or fewer images": lambda s: replace(s, images=replace(s.images, pixels=s.images.pixels[:3])),  # type: ignore[index]
    "only one of start and stop times": lambda s: replace(s, presentations=replace(s.presentations, start_time_s=np.zeros(60))),  # type: ignore[type-var]
    "counts without presentations": lambda s: replace(s, presentations=None),
    "counts of another number of units": lambda s: replace(s, counts=replace(s.counts, count=s.counts.count[:, :1])),  # type: ignore[type-var,union-attr]
    "means of another number": lambda s: replace(s, mean_responses=MeanResponses(np.zeros((3, 2)))),
    "float64 pixels": lambda s: replace(s, images=replace(s.images, pixels=np.zeros((24, 4, 4)))),
}


@pytest.mark.parametrize("found", CONTRADICTIONS)
def test_a_session_that_contradicts_itself_is_not_written(tmp_path: Path, found: str) -> None:
    with pytest.raises(NwbCompactError, match=f"found {found}"):
        write_session(CONTRADICTIONS[found](example_session()), tmp_path / "a.nwb")
    assert list(tmp_path.iterdir()) == []


INSPECTED = {
    "objects with times and spikes": (LAYOUTS["objects"], True, True),
    "stack with times": (LAYOUTS["stack"], True, False),
    "stack without times": (LAYOUTS["stack"], False, False),
    "hashes only": (LAYOUTS["objects"], False, False),
}


@pytest.mark.parametrize("name", INSPECTED)
def test_inspector_finds_nothing_critical_under_the_dandi_configuration(tmp_path: Path, name: str) -> None:
    limit, timed, spiking = INSPECTED[name]
    session = example_session()
    assert session.presentations is not None
    if name == "hashes only":
        session = replace(session, images=replace(session.images, pixels=None))
    if timed:
        start = np.cumsum(np.random.default_rng(0).uniform(0.2, 0.3, len(session.presentations)))
        session = replace(session, presentations=replace(session.presentations, start_time_s=start, stop_time_s=start + 0.1))
    if spiking:
        spikes = tuple(np.sort(np.random.default_rng(unit).uniform(0, 15, 50)) for unit in range(2))
        session = replace(session, units=replace(session.units, spike_times_s=spikes, obs_intervals_s=np.array([[0.0, 16.0]])))
    write_session(session, tmp_path / "a.nwb", objects_limit=limit)
    assert critical(tmp_path / "a.nwb") == []


def critical(file_path: Path) -> list[str]:
    """What NWB Inspector calls critical under the DANDI configuration."""
    from nwbinspector import Importance, inspect_nwbfile, load_config

    messages = inspect_nwbfile(
        nwbfile_path=file_path, config=load_config("dandi"), importance_threshold=Importance.CRITICAL, skip_validate=False
    )
    return [f"{message.check_function_name}: {message.message}" for message in messages]

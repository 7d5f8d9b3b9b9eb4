from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch

from nwb_compact import config, students
from nwb_compact.bank import Bank
from nwb_compact.bank_training import standardised_answers
from nwb_compact.distill import lessons, train_bank
from nwb_compact.prune import narrow, specialise
from nwb_compact.results import StudentWeights, shared_arrays
from nwb_compact.student import filters_per_layer, n_parameters, predict_all
from nwb_compact.students import fit_students, shared_shape
from nwb_compact.training import derived_seed
from nwb_compact.work import Work

N_PICTURES, N_MEASURED = 24, 8
EVERYTHING = {"kept_variance": 1.0, "last_layer_r2": 1.0, "kept_first": 1.0, "min_filters": 1}
"""Settings with which nothing may be lost."""


class Killed(Exception):
    """What a kill looks like from within."""


class Blobs:
    """A bright or dark square on grey at some place; perhaps the disk fails after some reads."""

    def __init__(self, reads=None):
        rng = np.random.default_rng(0)
        self.images, self.reads_left = np.full((N_PICTURES, 112, 112, 3), 110, np.uint8), reads
        levels, places = rng.integers(0, 256, N_PICTURES), rng.integers(8, 70, (2, N_PICTURES))
        for image, level, row, column in zip(self.images, levels, *places, strict=True):
            image[row : row + 32, column : column + 32] = level

    def __len__(self):
        return len(self.images)

    def read(self, rows):
        if self.reads_left is not None:
            self.reads_left -= 1
            if self.reads_left < 0:
                raise Killed
        return self.images[rows]


IMAGES = Blobs().images


def taught_by(pictures, *, flat=False):
    """A teacher of three units: how bright, how dark, and how much brighter above than below (or always 2)."""
    above, below = IMAGES.reshape(N_PICTURES, 2, -1).mean(axis=2, dtype=np.float64).T
    answers = np.stack([(above + below) / 20, 40 - (above + below) / 10, 0 * above + 2 if flat else (above - below) / 4], axis=1)
    return lessons(pictures, (answers.astype(np.float32),), config.Distill(views=1), seed=0)


def settings_of(kind="own", readout="separable", images_seen=(20, 20, 20), **prune):
    """Trainings shorter than a person may ask for: a batch of one image in each of the 20 epochs. Some of the 6 filters of layer 1 go."""
    student = config.Student(kind=kind, readout=readout, early_filters=(6, 6), shared_filters=(6, 8, 8), most_late_filters=(4, 4, 4))
    distill = config.Distill(views=1, batch_images=2, learning_rate=0.01).model_copy(update={"images_seen": images_seen[0]})
    lengths = {"images_seen": images_seen[1], "last_images_seen": images_seen[2], "images": N_MEASURED}
    return config.Fit(student=student, distill=distill, prune=config.Prune(**({"kept_first": 0.98} | prune)).model_copy(update=lengths))


def fitted(folder, settings, taught=None, *, seed=0):
    folder.mkdir(exist_ok=True)
    found = fit_students(taught or taught_by(Blobs()), "here", settings, Work("cpu", folder, quiet=True), seed=seed)
    return found if settings.prune.tolerance else found[None]


def same(some, others):
    return all(one.arrays.keys() == other.arrays.keys() and all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
               for one, other in zip(some, others, strict=True))


@dataclass(frozen=True)
class Whole:
    """A fit that nothing disturbed."""

    students: tuple[StudentWeights, ...]
    banks: dict[int, Bank]
    """As they were after each training, by the number of layers that are shared in them."""
    measured: list[np.ndarray]
    """Images of each pruning."""
    files: list[str]
    """Checkpoints left in the work folder."""
    costs: list[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Fits by kind and readout, each made once."""

    @cache
    def made(kind, readout):
        folder, banks, measured = tmp_path_factory.mktemp(f"{kind}-{readout}"), {}, []

        def noted_train(bank, *given, **named):
            trained = train_bank(bank, *given, **named)
            banks[trained.shape.shared_layers] = trained
            return trained

        def noted(step):
            def run(bank, images, *given, **named):
                measured.append(images)
                return step(bank, images, *given, **named)

            return run

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(students, "train_bank", noted_train)
            patched.setattr(students, "specialise", noted(specialise))
            patched.setattr(students, "narrow", noted(narrow))
            found = fitted(folder, settings_of(kind, readout))
        files = sorted(path.name for path in folder.glob("*.pt"))
        return Whole(found, banks, measured, files, list(Work("cpu", folder).costs()))

    return made


KINDS = [("shared", "separable"), ("own", "separable"), ("own", "dense")]


# What is fitted -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "readout"), KINDS)
def test_students_answer_as_the_bank_did_in_the_teachers_units(whole, kind, readout):
    made, taught = whole(kind, readout), taught_by(Blobs())
    assert sorted(made.banks) == ([5] if kind == "shared" else [1, 2, 5])
    expected = standardised_answers(made.banks[min(made.banks)], IMAGES) * taught.scale + taught.offset
    assert (expected.std(axis=0) > 1e-3).all(), "or any student would do"
    np.testing.assert_allclose(predict_all(made.students, IMAGES), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("kind", "readout"), KINDS)
def test_what_was_asked_for_is_what_is_stored(whole, kind, readout):
    for student in whole(kind, readout).students:
        assert {name for name in student.arrays if name.startswith("readout")} == {
            "separable": {"readout.filter", "readout.space", "readout.bias"}, "dense": {"readout.weight", "readout.bias"}
        }[readout]
        assert len(student.arrays["input.mean"]) == 3
        assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in student.arrays.values())


@pytest.mark.parametrize(("kind", "products"), [("own", (2,)), ("shared", ())])
def test_only_a_students_own_readout_may_be_a_sum_of_products(tmp_path, kind, products):
    settings = settings_of(kind)
    two = settings.model_copy(update={"student": settings.student.model_copy(update={"readout_products": 2})})
    for student in fitted(tmp_path, two):
        assert student.arrays["readout.filter"].shape[1:] == products
        assert student.arrays["readout.space"].shape == (*products, 28, 28)


def test_students_of_one_network_hold_all_its_layers_as_the_same_objects(whole):
    first, *others = whole("shared", "separable").students
    assert len(others) == 2
    assert list(filters_per_layer(first)) == [6, 6, 6, 6, 8]
    for name, array in first.arrays.items():
        assert {other.arrays[name] is array for other in others} == {not name.startswith("readout")}
    assert whole("shared", "separable").files == ["students_here.pt"], "nothing is pruned"


def test_students_of_their_own_share_nothing_not_even_the_mean_of_the_input(whole):
    """Else a file would have to hold it apart, which readers of the first contract do not know."""
    made = whole("own", "separable").students
    assert min(filters_per_layer(student)[0] for student in made) < 6, "a layer that nothing leaves goes by one object"
    assert not shared_arrays(made)


@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_no_student_of_its_own_has_more_filters_than_it_may_though_nothing_may_be_lost(tmp_path, readout):
    for student in fitted(tmp_path, settings_of(readout=readout, **EVERYTHING)):
        n_last = len(student.arrays["readout.filter" if readout == "separable" else "readout.weight"])
        assert [*filters_per_layer(student)[1:].tolist(), n_last] == [6, 6, 4, 4, 4]


@pytest.mark.parametrize(("readout", "max_parameters"), [("separable", 3326), ("dense", 3500)])
def test_no_student_is_larger_than_allowed(tmp_path, readout, max_parameters):
    """Without the limit they would be, as the test before has shown what they keep: 3,431 and 4,203 numbers."""
    limited = fitted(tmp_path, settings_of(readout=readout, max_parameters=max_parameters, **EVERYTHING))
    assert max(n_parameters(student) for student in limited) <= max_parameters


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_a_unit_about_which_the_teacher_always_says_the_same_gets_a_student_too(tmp_path, kind):
    found = fitted(tmp_path, settings_of(kind), taught_by(Blobs(), flat=True))
    assert all(np.isfinite(array).all() for student in found for array in student.arrays.values())
    assert np.isfinite(predict_all(found, IMAGES)).all()


@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_where_nothing_may_be_lost_or_learned_students_answer_as_the_network_did_that_learned_for_all(tmp_path, monkeypatch, readout):
    """All the ways of the weights, from one network over two prunings to students, without the trainings."""
    banks = []
    monkeypatch.setattr(students, "train_bank", lambda bank, *given, **named: banks.append(bank.eval()) or bank)
    settings, taught = settings_of(readout=readout, max_parameters=20_000, **EVERYTHING), taught_by(Blobs())
    settings = settings.model_copy(update={"student": settings.student.model_copy(update={"most_late_filters": (6, 8, 8)})})
    found = predict_all(fitted(tmp_path, settings, taught), IMAGES)
    expected = standardised_answers(banks[0], IMAGES) * taught.scale + taught.offset
    np.testing.assert_allclose(found - taught.offset, expected - taught.offset, atol=1e-3 * float(np.abs(expected - taught.offset).max()))


# How it goes ----------------------------------------------------------------------------------------------------------
def test_the_network_that_learns_for_all_shares_all_layers():
    shape = shared_shape(7, config.Student(early_filters=(3, 4), shared_filters=(5, 6, 7), readout="dense"))
    assert (shape.n_units, shape.widths, shape.shared_layers, shape.readout) == (7, (3, 4, 5, 6, 7), 5, "separable")


def test_layer_1_stays_as_it_was_once_units_part_and_layer_2_learns_on(whole):
    banks = whole("own", "separable").banks
    for later in (banks[2], banks[1]):
        for before, after in zip(banks[5].arrays_of(1), later.arrays_of(1), strict=True):
            assert torch.equal(before, after)
    for before, after in zip(banks[5].arrays_of(2), banks[2].arrays_of(2), strict=True):
        assert not torch.equal(before, after)
    assert not torch.equal(banks[5].readout_space, banks[2].readout_space)
    assert not torch.equal(banks[2].readout_space, banks[1].readout_space)


def test_each_step_has_the_length_and_rate_of_its_settings(tmp_path, monkeypatch):
    told = []

    def noted(bank, taught, how, **named):
        of_training = (named["images_seen"], named["learning_rate"], how.blur_times, how.sparsity)
        told.append((bank.shape.shared_layers, bank.fixed_layers, *of_training))
        return bank.eval()

    monkeypatch.setattr(students, "train_bank", noted)
    fitted(tmp_path, settings_of(images_seen=(300, 200, 150), learning_rate=0.02, last_learning_rate=0.005))
    assert told == [(5, 0, 300, 0.01, 4, 0.15), (2, 1, 200, 0.02, 0, 0.0), (1, 2, 150, 0.005, 0, 0.0)]


def test_both_prunings_measure_the_same_images_as_many_as_they_are_told_and_none_twice(whole):
    first, again = whole("own", "separable").measured
    np.testing.assert_array_equal(first, again)
    rows = [np.flatnonzero((image == IMAGES).all(axis=(1, 2, 3))).tolist() for image in first]
    assert len(rows) == N_MEASURED
    assert len(np.unique(rows)) == N_MEASURED


# Seeds, kills and costs -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["own", "shared"])
def test_the_seed_decides(tmp_path, whole, kind):
    expected = whole(kind, "separable").students
    assert same(fitted(tmp_path / "again", settings_of(kind)), expected)
    assert not same(fitted(tmp_path / "other", settings_of("shared"), seed=1), whole("shared", "separable").students)


@pytest.mark.parametrize("reads", [0, 9, 22, 35, 50])
def test_a_fit_that_was_killed_anywhere_ends_as_one_that_was_not(tmp_path, whole, reads):
    """Images are read once to scale the bank, 20 times to train it, once to measure and 20 times for each training after that."""
    with pytest.raises(Killed):
        fitted(tmp_path, settings_of(), taught_by(Blobs(reads)))
    assert same(fitted(tmp_path, settings_of()), whole("own", "separable").students)


def test_what_is_done_is_not_done_again(tmp_path, whole):
    fitted(tmp_path, settings_of())
    again = fitted(tmp_path, settings_of(), taught_by(Blobs(2)))
    assert same(again, whole("own", "separable").students), "images are read only to scale the bank and to measure"
    assert whole("own", "separable").files == ["last retraining_here.pt", "retraining_here.pt", "students_here.pt"]


def test_sessions_do_not_take_each_others_work(tmp_path, whole):
    other = replace(taught_by(Blobs()), answers=(np.zeros((N_PICTURES, 3), np.float32),))
    fit_students(other, "there", settings_of("shared"), Work("cpu", tmp_path, quiet=True), seed=0)
    assert same(fitted(tmp_path, settings_of("shared")), whole("shared", "separable").students)


def test_the_cost_of_every_step_is_kept(whole):
    assert whole("own", "dense").costs == ["students", "pruning", "retraining"]
    assert whole("shared", "separable").costs == ["students"]


# Tolerance ------------------------------------------------------------------------------------------------------------
LADDER, TOLERANCES = (0.99, 0.8, 0.05), (1e-9, 0.03, 0.1, 0.3, 0.999_999)


def tolerant():
    return settings_of(tolerance=TOLERANCES, ladder=LADDER, min_filters=1)


@pytest.fixture(scope="module")
def tolerated(tmp_path_factory):
    """Students that may lose nothing, and up to nearly all of r2 with the teacher; the unpruned bank, those of the rungs; what is left."""
    folder, rungs, trained = tmp_path_factory.mktemp("tolerance"), [], []

    def noted(bank, *given, **named):
        narrowed = narrow(bank, *given, **named)
        rungs.append(narrowed)
        return narrowed

    def noted_train(bank, *given, **named):
        trained.append(train_bank(bank, *given, **named))
        return trained[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(students, "narrow", noted)
        patched.setattr(students, "train_bank", noted_train)
        found = fitted(folder, tolerant())
    assert tuple(found) == TOLERANCES
    return found, trained[0], rungs, folder


def test_each_unit_has_the_smallest_student_that_lost_no_more_than_it_may(tolerated):
    found, whole, rungs, _ = tolerated
    taught = taught_by(Blobs())
    order = np.random.default_rng(derived_seed(0, "measured")).permutation(N_PICTURES)
    images, z = IMAGES[order[-N_MEASURED:]], taught.z(order[-N_MEASURED:])
    ladder = [rung.cut(taught.scale, taught.offset) for rung in rungs]
    answers = [standardised_answers(whole, images), *(predict_all(models, images) for models in ladder)]
    chosen = set()
    for share, students_found in found.items():
        for unit, student in enumerate(students_found):
            r2 = [np.corrcoef(answer[:, unit], z[:, unit])[0, 1] ** 2 for answer in answers]
            good = [number for number in range(len(LADDER)) if r2[number + 1] >= (1 - share) * r2[0]]
            expected = min(good, key=lambda number: n_parameters(ladder[number][unit])) if good else 0
            assert same([student], [ladder[expected][unit]])
            chosen.add((share, expected))
    assert len({rung for _, rung in chosen}) > 1, "or any student would do"


def test_each_rung_is_made_once_from_the_one_before(tolerated):
    _, _, rungs, folder = tolerated
    sizes = [sum(n_parameters(student) for student in rung.cut(np.ones(3, np.float32), np.zeros(3, np.float32))) for rung in rungs]
    assert len(sizes) == len(LADDER)
    assert sizes[0] > sizes[1] > sizes[2]
    retrained = {f"{what}{rung}_here.pt" for what in ("retraining", "last retraining") for rung in ("", " 1", " 2")}
    assert {path.name for path in folder.glob("*.pt")} == {"students_here.pt", *retrained}
    assert list(Work("cpu", folder).costs()) == ["students", "pruning", "retraining"]


def test_no_rung_is_made_once_no_unit_is_within_the_largest_tolerance(tmp_path, monkeypatch):
    r2 = iter(np.array([[0.9, 0.9, 0.9], [0.5, 0.5, 0.85], [0.8, 0.5, 0.5]]))  # of the unpruned network, then of rung after rung
    monkeypatch.setattr(students._Training, "judged", lambda *_: next(r2))
    fitted(tmp_path, settings_of(tolerance=(0.01, 0.1), ladder=LADDER, min_filters=1))
    assert {path.name for path in tmp_path.glob("* [0-9]_here.pt")} == {"retraining 1_here.pt", "last retraining 1_here.pt"}


def test_the_first_rung_is_the_student_without_a_tolerance(tmp_path, tolerated):
    plain = fitted(tmp_path, settings_of(kept_variance=LADDER[0], min_filters=1))
    taught = taught_by(Blobs())
    assert same(plain, tolerated[2][0].cut(taught.scale, taught.offset))


def test_of_each_unit_the_smallest_student_that_is_good_enough_is_taken():
    r2 = np.array([[0.90, 0.90, 0.90, 0.3], [0.85, 0.80, 0.95, 0.2], [0.50, 0.88, 0.10, 0.1]])
    size = np.array([[90, 90, 90, 90], [50, 50, 50, 50], [20, 20, 20, 20]])
    assert students.smallest_sufficient_rung(r2, size, np.full(4, 0.85)).tolist() == [1, 2, 1, 0]
    assert students.smallest_sufficient_rung(r2, size[::-1], np.full(4, 0.85)).tolist() == [0, 0, 0, 0], "size decides, not the order"

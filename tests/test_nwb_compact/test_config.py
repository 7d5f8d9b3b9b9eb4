import pytest
from pydantic import ValidationError

from nwb_compact.config import PRESETS, Fit, Split, configure, flat
from nwb_compact.errors import NwbCompactError


def toml(tmp_path, text):
    file_path = tmp_path / "settings.toml"
    file_path.write_text(text, encoding="utf-8")
    return file_path


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_says_its_name(preset):
    config = configure(preset)
    assert config.preset == preset
    for stage, changed in PRESETS[preset].items():
        for name, value in changed.items():
            assert getattr(getattr(config, stage), name) == value


def test_presets_grow():
    quick, standard, paper = (configure(name) for name in ("quick", "standard", "paper"))
    assert quick.distill.images_seen < standard.distill.images_seen < paper.distill.images_seen
    assert quick.teacher.members < standard.teacher.members < paper.teacher.members == 25
    assert standard == Fit()


def test_a_file_wins_over_the_preset_and_single_changes_over_the_file(tmp_path):
    file = toml(tmp_path, "seed = 5\n[teacher]\nmembers = 7\nchannels = 32\n[distill]\nviews = 3\n")
    config = configure("quick", file, {"teacher": {"members": 9}})
    assert (config.seed, config.teacher.members, config.teacher.channels, config.distill.views) == (5, 9, 32, 3)
    assert config.teacher.epochs == configure("quick").teacher.epochs, "what nobody named stays"


def test_nothing_changes_the_presets(tmp_path):
    before = configure("quick")
    configure("quick", toml(tmp_path, "[teacher]\nmembers = 7\n"), {"prune": {"images": 60}})
    assert configure("quick") == before


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        configure().teacher.members = 3


@pytest.mark.parametrize(("changes", "message"), [
    ({"teacher": {"membres": 8}}, "teacher.membres: found an unknown setting, expected a known one. Next: did you mean 'members'?"),
    ({"taecher": {"members": 8}}, "taecher: found an unknown setting, expected a known one. Next: did you mean 'teacher'?"),
    ({"members": 8}, "members: found an unknown setting, expected a known one. Next: use one of: baselines, bootstraps, device, distill, "
                     "preset, prune, seed, snr_floor, split, student, teacher"),
    ({"split": {"xyz": 1}}, "split.xyz: found an unknown setting, expected a known one. Next: use one of: method, scored_fraction, "
                            "validation_fraction"),
])
def test_an_unknown_name_is_answered_with_the_nearest_known_one(changes, message):
    with pytest.raises(NwbCompactError) as caught:
        configure(changes=changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(("stage", "name", "value"), [
    ("split", "method", "second-half"), ("split", "scored_fraction", 0.0), ("split", "scored_fraction", 1.0),
    ("split", "validation_fraction", -0.1), ("teacher", "members", 0), ("teacher", "members", 1.5), ("teacher", "dropout", 1.0),
    ("teacher", "learning_rate", 0), ("teacher", "learning_rate", float("inf")), ("teacher", "dropout", float("nan")),
    ("teacher", "batch_images", 1),
    ("student", "early_filters", [1, 2, 3]), ("distill", "views", 0), ("distill", "kernel_blur_px", -1), ("prune", "kept_variance", 1.1),
    ("prune", "min_filters", 0), ("prune", "max_parameters", 10), ("prune", "kept_first", 0), ("prune", "last_images_seen", 99),
    ("prune", "last_learning_rate", 0), ("student", "kind", "both"), ("student", "readout", "sparse"),
    ("student", "shared_filters", [4, 4]), ("student", "most_late_filters", [3, 0, 3]),
    ("prune", "ladder", []), ("prune", "ladder", [0.6, 0.8]), ("prune", "ladder", [0.9, 0.9]),
])
def test_a_value_out_of_range_is_named(stage, name, value):
    with pytest.raises(NwbCompactError) as caught:
        configure(changes={stage: {name: value}})
    fault = caught.value.fault
    assert fault.where.startswith(f"{stage}.{name}")
    assert "\n" not in str(caught.value)
    assert fault.next_step == "correct the value; nwb_compact/config.py gives units and ranges"


@pytest.mark.parametrize("changes", [{"seed": -1}, {"device": "gpu"}, {"bootstraps": 1}, {"teacher": 5}])
def test_a_wrong_value_at_the_top_is_named(changes):
    (name, value), = changes.items()
    with pytest.raises(NwbCompactError, match=f"^{name}: found {value!r}, expected Input should be"):
        configure(changes=changes)


def test_an_unknown_preset_is_answered_with_the_nearest_known_one():
    with pytest.raises(NwbCompactError, match=r"--preset: found 'quik', expected a known preset\. Next: did you mean 'quick'\?"):
        configure("quik")


def test_a_file_cannot_call_itself_another_preset_than_the_one_it_changes(tmp_path):
    """The run would be stored as one of the study's size, with quick numbers."""
    with pytest.raises(NwbCompactError, match=r"preset: found one among the settings, expected it on the command line"):
        configure("quick", toml(tmp_path, 'preset = "paper"\n'))
    assert configure("quick", toml(tmp_path, 'preset = "quick"\n')) == configure("quick")


@pytest.mark.parametrize("content", [b"[teacher\n", b"members = \xff\n"])
def test_a_file_that_is_no_toml_is_named(tmp_path, content):
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(NwbCompactError, match=r"settings\.toml: found .*, expected a readable TOML file\. Next: see docs/conf"):
        configure(file=file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NwbCompactError, match=r"none\.toml: found .*No such file.*, expected a readable TOML file"):
        configure(file=tmp_path / "none.toml")


def test_settings_are_flat_and_complete():
    table = flat(configure("quick", changes={"seed": 3}))
    assert table["seed"] == "3"
    assert table["student.early_filters"] == "(24, 32)"
    assert flat(Split()) == {"method": "first-half", "scored_fraction": "0.5", "validation_fraction": "0.15"}
    assert {name.partition(".")[0] for name in table} == set(Fit.model_fields)

import csv

import numpy as np
import pytest
from PIL import Image

from nwb_compact.errors import NwbCompactError
from nwb_compact.file_names import safe_name
from nwb_compact.interpretation.image_export import export_images
from nwb_compact.interpretation.tables import Column, Table

HOSTILE = ["../../etc/passwd", "a/b", "a\\b", "a b", "A B", "神経", "..", "", "CON", "é:1\n", "x" * 400, "=1+1", ".hidden", "a\0b"]


def made(unit, **more):
    n = len(unit)
    images = np.random.default_rng(0).integers(0, 256, (n, 112, 112, 3), np.uint8)
    columns = {"unit": np.array(unit), "kind": np.array(["maximizing"] * n), "is_grey": np.zeros(n, bool), "seed": np.arange(n),
               "image": images, "answer": np.linspace(0.1, 1, n, dtype=np.float32)}
    return Table("made", {name: Column(name, values) for name, values in (columns | more).items()})


def listed(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_names_stay_in_the_folder_and_apart(tmp_path):
    folder = tmp_path / "new" / "folder"
    table = made(range(len(HOSTILE)))
    lines = listed(export_images(folder, table, HOSTILE))
    names = [line["file"] for line in lines]
    assert len({name.lower() for name in names}) == len(HOSTILE)
    assert {path.name for path in folder.iterdir()} == {*names, "images.csv"}
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert [line["unit_name"] for line in lines] == HOSTILE
    for name in names:
        assert name.isascii()
        assert len(name) < 100
        assert name[0] not in ".-"
        assert not set(name) & set('/\\:*?"<>| \n\0')


def test_pixels_and_numbers_come_back(tmp_path):
    table = made([1, 0, 1])
    lines = listed(export_images(tmp_path / "out", table, ["first", "second, of two"]))
    for line, image, answer in zip(lines, table["image"], table["answer"], strict=True):
        with Image.open(tmp_path / "out" / line["file"]) as file:
            np.testing.assert_array_equal(np.asarray(file), image)
        assert np.float32(line["answer"]) == answer
    assert [line["unit"] for line in lines] == ["1", "0", "1"]
    assert [line["unit_name"] for line in lines] == ["second, of two", "first", "second, of two"]
    assert [line["is_grey"] for line in lines] == ["False"] * 3
    assert "image" not in lines[0]


def test_a_folder_with_something_in_it_is_refused_and_left_as_it_is(tmp_path):
    mine = tmp_path / "mine_00001.png"
    mine.write_text("mine")
    with pytest.raises(NwbCompactError, match=r"found a folder with 1 file in it.*name another folder"):
        export_images(tmp_path, made([0]), ["a"])
    assert list(tmp_path.iterdir()) == [mine]
    with pytest.raises(NwbCompactError, match="found a file"):
        export_images(mine, made([0]), ["a"])


def test_no_images_give_an_empty_list(tmp_path):
    columns = made([0]).columns
    nothing = Table("none", {name: Column(column.meaning, column.values[:0]) for name, column in columns.items()})
    assert listed(export_images(tmp_path / "out", nothing, ["a"])) == []


def test_kinds_are_made_safe_too(tmp_path):
    lines = listed(export_images(tmp_path / "out", made([0], kind=np.array(["../up"])), ["a"]))
    assert lines[0]["file"] == "a_up_00000.png"
    assert safe_name("a" * 99) == "a" * 60

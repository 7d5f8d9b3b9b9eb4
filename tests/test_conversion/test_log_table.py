import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.stimulus.log_table import read_columns

NAMES = ["image", "onset"]
ROWS = {"image": ("a.png", "b c.png", ""), "onset": ("0.1", "", "2")}


def refused(file, names=NAMES):
    with pytest.raises(NwbCompactError) as caught:
        read_columns(file, names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Text -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["log.csv", "log.TSV", "log.txt"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_table_is_read_whatever_separates_it(tmp_path, separator, name, encoding, newline):
    lines = ["trial, onset , image", "1, 0.1 ,a.png", "2,,b c.png", "", "3,2,", ",,"]
    (tmp_path / name).write_bytes(newline.join(line.replace(",", separator) for line in lines).encode(encoding))
    assert read_columns(tmp_path / name, NAMES) == ROWS


def test_separators_within_quotes_belong_to_the_cell(write_log):
    assert read_columns(write_log('image;"onset (s; in, all)"', '"a;b,c";1', '"say ""hi""";2'), ["image", "onset (s; in, all)"]) == {
        "image": ("a;b,c", 'say "hi"'), "onset (s; in, all)": ("1", "2"),
    }  # fmt: skip


def test_unnamed_columns_are_passed_over(write_log):
    assert read_columns(write_log(",image,onset,", "0,a.png,1,", "1,b.png,2,"), NAMES) == {"image": ("a.png", "b.png"), "onset": ("1", "2")}


def test_one_column_is_enough(write_log):
    assert read_columns(write_log("onset", "1", "2"), ["onset"]) == {"onset": ("1", "2")}


def test_the_nearest_column_is_told(write_log):
    file = write_log("img,onsets,correct", "1,2,3")
    found = f"{file}: found columns img, onsets, correct, expected a column 'onset' (did you mean 'onsets'?). "
    found += "Next: correct stimuli.columns (null where the log has no such column)"
    assert refused(file, ["onset"]) == found


FAULTS = {
    "empty": (b"", "found no row, expected a row for each presentation"),
    "header only": (b"image,onset\n\n", "found no row, expected a row for each presentation"),
    "header twice": (b"image,onset,image\na,1,b", "found more than one column 'image', expected each column once. Next: rename one"),
    "short row": (b"image,onset\na,1\nb", "found 1 cell in row 2, expected 2 as in the header. Next: correct that row"),
    "long row": (b"image,onset\na,1,2", "found 3 cells in row 1, expected 2 as in the header"),
    "latin-1": ("image,onset\nä,1".encode("latin-1"), "found bytes that are no text in UTF-8 ('utf-8' codec can't decode byte 0xe4"),
    "cut utf-16": ("image,onset\na,1".encode("utf-16")[:-1], "found bytes that are no text in UTF-8 ("),
    "open quote": (b'image,onset\n"a,1\nb,2', "found a damaged table (unexpected end of data), expected a log as .csv"),
}


@pytest.mark.parametrize(("content", "found"), FAULTS.values(), ids=FAULTS)
def test_a_damaged_table_is_refused(tmp_path, content, found):
    file = tmp_path / "log.csv"
    file.write_bytes(content)
    assert refused(file).startswith(f"{file}: {found}")


def test_a_log_that_is_not_there_or_no_log_is_named(tmp_path, write_log):
    expected = "expected a log as .csv, .tsv, .jsonl or .mat"
    assert refused(tmp_path / "absent.csv") == f"{tmp_path / 'absent.csv'}: found no such file, {expected}. Next: correct stimuli.log"
    assert refused(tmp_path).startswith(f"{tmp_path}: found no such file, {expected}")
    file = write_log("x", name="log.xlsx")
    assert refused(file) == f"{file}: found a file that ends in .xlsx, {expected}. Next: save the log in one of these formats"


CELL = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=6)


@given(st.lists(st.tuples(CELL, CELL), min_size=1), st.sampled_from(",;\t"))
def test_any_text_survives(tmp_path_factory, rows, separator):
    import csv

    file = tmp_path_factory.getbasetemp() / "any.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened, delimiter=separator).writerows([NAMES, *rows])
    assert read_columns(file, NAMES) == {"image": tuple(row[0] for row in rows), "onset": tuple(row[1] for row in rows)}


# JSON lines -----------------------------------------------------------------------------------------------------------
def test_json_lines_are_read_and_what_a_row_lacks_is_empty(write_log):
    rows = ['{"image": "a.png", "onset": 0.1, "on": true}', "", '{"onset": NaN, "image": " b c.png"}', '{"onset": 2.0, "on": null}']
    assert read_columns(write_log(*rows, name="log.jsonl"), [*NAMES, "on"]) == ROWS | {"on": ("true", "", "")}


@pytest.mark.parametrize(("line", "found"), [
    ("[1, 2]", "found [1, 2] in line 2"),
    ("{'image': 1}", "found what is no JSON (Expecting property name enclosed in double quotes"),
    ('{"image": 1', "found what is no JSON (Expecting ',' delimiter"),
    ("[" * 100_000, "found what is no JSON ("),
])
def test_a_line_that_is_no_object_is_named(write_log, line, found):
    file = write_log('{"image": 1, "onset": 2}', line, name="log.jsonl")
    message = refused(file)
    assert message.startswith(f"{file}: {found}")
    assert message.endswith('expected an object a line, such as {"image": 1}. Next: correct that line')


def test_an_empty_file_of_json_lines_is_refused(write_log):
    assert "found columns none, expected a column 'image' (" in refused(write_log("", name="log.jsonl"))


# MATLAB ---------------------------------------------------------------------------------------------------------------
CELLS = np.array(["a.png", "b c.png", ""], dtype=object)
CELLS_WITH_NOTHING = np.array(["a.png", "b c.png", np.zeros((0, 0))], dtype=object)
ONSET = np.array([[0.1], [np.nan], [2.0]])


def save_v73(file, variables):
    """As MATLAB does: transposed, texts as numbers of letters, cells and structure arrays as references."""

    def put(group, name, value):
        if isinstance(value, dict):
            for part, one in value.items():
                put(group.require_group(name), part, one)
        elif isinstance(value, str):
            letters = np.array([[ord(letter)] for letter in value], np.uint16) if value else np.zeros(2, np.uint64)
            data = group.create_dataset(name, data=letters)
            data.attrs["MATLAB_class"] = np.bytes_("char")
            if not value:
                data.attrs["MATLAB_empty"] = np.uint8(1)
        elif np.asarray(value).dtype == object:
            refs = []
            for index, one in enumerate(value):
                put(group.file.require_group("#refs#"), f"{name}{index}", one)
                refs.append(group.file[f"#refs#/{name}{index}"].ref)
            data = group.create_dataset(name, data=np.array([refs], dtype=h5py.ref_dtype))
            data.attrs["MATLAB_class"] = np.bytes_("cell")
        else:
            group.create_dataset(name, data=np.asarray(value).T)

    with h5py.File(file, "w") as hdf5:
        for name, value in variables.items():
            put(hdf5, name, value)


SAVERS = pytest.mark.parametrize("save", [savemat, save_v73], ids=["v5", "v7.3"])


@SAVERS
@pytest.mark.parametrize("cells", [CELLS, CELLS_WITH_NOTHING])
@pytest.mark.parametrize("within", [None, "trials"])
def test_variables_and_fields_of_a_structure_are_columns(tmp_path, save, within, cells):
    columns = {"image": cells, "onset": ONSET}
    save(tmp_path / "log.mat", {"other": np.eye(3), **({within: columns} if within else columns)})
    assert read_columns(tmp_path / "log.mat", NAMES) == ROWS
    if within:
        assert read_columns(tmp_path / "log.mat", ["trials.image", "onset"]) == {"trials.image": ROWS["image"], "onset": ROWS["onset"]}


def test_a_structure_array_has_a_row_an_element(tmp_path):
    trials = np.zeros((3, 1), [("image", object), ("onset", object), ("number", object)])
    trials["image"][:, 0], trials["onset"][:, 0], trials["number"][:, 0] = CELLS, [0.1, np.zeros((0, 0)), 2.0], [1, 2, 3]
    savemat(tmp_path / "log.mat", {"trials": trials})
    assert read_columns(tmp_path / "log.mat", [*NAMES, "number"]) == ROWS | {"number": ("1", "2", "3")}


@SAVERS
def test_numbers_have_no_needless_decimals(tmp_path, save):
    save(tmp_path / "log.mat", {"image": np.array([[1, 20, 3.5]]), "onset": np.array([[2**52 + 1, 1e-7, -3]])})
    assert read_columns(tmp_path / "log.mat", NAMES) == {"image": ("1", "20", "3.5"), "onset": ("4503599627370497", "1e-07", "-3")}


@SAVERS
def test_columns_of_unequal_length_are_refused(tmp_path, save):
    save(tmp_path / "log.mat", {"image": CELLS, "onset": np.arange(2.0)[:, None]})
    expected = "expected columns of equal length. Next: save the log again"
    assert refused(tmp_path / "log.mat") == f"{tmp_path / 'log.mat'}: found 3 rows of 'image', 2 rows of 'onset', {expected}"


@SAVERS
def test_a_column_of_several_structures_must_be_named_in_full(tmp_path, save):
    save(tmp_path / "log.mat", {"a": {"image": CELLS, "onset": ONSET}, "b": {"onset": ONSET}})
    found = "found 'onset' in several places (a.onset, b.onset), expected one. Next: name it in full under stimuli.columns"
    assert refused(tmp_path / "log.mat") == f"{tmp_path / 'log.mat'}: {found}"


@SAVERS
def test_a_missing_variable_and_a_matrix_are_refused(tmp_path, save):
    save(tmp_path / "log.mat", {"images": CELLS, "onset": np.ones((3, 2))})
    assert "expected a column 'image' (did you mean 'images'?)" in refused(tmp_path / "log.mat")
    assert refused(tmp_path / "log.mat", ["onset"]).startswith(
        f"{tmp_path / 'log.mat'}: onset: found numbers of shape (3, 2), expected one value a presentation. Next: save a vector"
    )


def test_a_damaged_matlab_file_is_refused(tmp_path):
    savemat(tmp_path / "log.mat", {"image": CELLS, "onset": ONSET})
    (tmp_path / "log.mat").write_bytes((tmp_path / "log.mat").read_bytes()[:200])
    assert refused(tmp_path / "log.mat").startswith(f"{tmp_path / 'log.mat'}: found ")

import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.text_table import columns_of, read_known_columns, read_rows, read_text


def known(file):
    return read_known_columns(file, ["time", "code"], ["channel"], expected="a table of events", next_step="correct it")


def refused(read, *asked):
    with pytest.raises(NwbCompactError) as caught:
        read(*asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_as_spreadsheets_and_pandas_save_it(tmp_path, separator, encoding):
    file = tmp_path / "a.csv"
    lines = [",time,code,channel", "0, 1 ,2,é", "", "1,3,4,", ",,,"]
    file.write_bytes("\r\n".join(lines).replace(",", separator).encode(encoding))
    assert known(file) == {"time": ("1", "3"), "code": ("2", "4"), "channel": ("é", "")}


def test_an_optional_column_may_be_absent_and_rows_too(tmp_path):
    (tmp_path / "a.csv").write_text("code;time\n")
    assert known(tmp_path / "a.csv") == {"code": (), "time": ()}


@pytest.mark.parametrize(("text", "message"), [
    ("", "found no column 'time' among none, expected a table of events. Next: correct it"),
    ("time;word\n1;2", "found no column 'code' among 'time', 'word', expected a table of events. Next: correct it"),
    ("time;code;channels\n", "found unknown column 'channels', expected a known column (did you mean 'channel'?). Next: correct it"),
    ("time,code\n1,2\n3\n", "found 1 cell in row 2, expected 2 as in the header. Next: correct that row"),
    ('time,code\n"1,2\n', "found a damaged table (unexpected end of data), expected a table of events. Next: save it again"),
])
def test_faults_of_a_table_are_told(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    assert refused(known, tmp_path / "a.csv") == f"{tmp_path / 'a.csv'}: {message}"


def test_a_column_twice_is_told(tmp_path):
    assert ": found more than one column 'a', expected each column once." in refused(columns_of, tmp_path, [["a", "b", "a"]])


def test_rows_without_a_header_keep_their_empty_cells(tmp_path):
    (tmp_path / "a.csv").write_text("1;2\n\n;\n3;4\n")
    assert read_rows(tmp_path / "a.csv", "numbers") == [["1", "2"], ["", ""], ["3", "4"]]


def test_what_is_no_text_is_told(tmp_path):
    (tmp_path / "a.csv").write_bytes("ä".encode("latin-1"))
    assert "a.csv: found bytes that are no text in UTF-8 ('utf-8' codec can't" in refused(read_text, tmp_path / "a.csv", "a table")
    assert f"{tmp_path}: found " in (said := refused(read_text, tmp_path, "a table"))
    assert said.endswith(", expected a table. Next: correct the path")

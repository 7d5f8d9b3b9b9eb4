"""Geometry files of each kind, and their faults."""

import numpy as np
import pytest
from probeinterface import Probe, ProbeGroup, write_probeinterface

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.geometry import Contact, read_contacts

CMP = """// Map file made by a test
Cerebus mapping for array 1024-0001
//col\trow\tbank\telec\tlabel
0\t0\tA\t1\telec1-1
9\t1\tA\t32\telec1-32
4 2 C 3
"""


def written(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    return file


def refused(file):
    with pytest.raises(NwbCompactError) as caught:
        read_contacts(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", [CMP, CMP.replace("Cerebus mapping for array 1024-0001\n", "")])
def test_a_utah_map(tmp_path, text):
    assert read_contacts(written(tmp_path, "a.cmp", text)) == (
        Contact(("elec1-1", "1"), 0.0, 0.0),
        Contact(("elec1-32", "32"), 3600.0, 400.0),
        Contact(("67",), 1600.0, 800.0),
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table(tmp_path, separator):
    text = "channel,x_um,y_um,array,location\nchan1,0,10.5,A,V1\nchan2,400,-3,B,\n"
    assert read_contacts(written(tmp_path, "a.csv", text.replace(",", separator))) == (
        Contact(("chan1",), 0.0, 10.5, "A", "V1"),
        Contact(("chan2",), 400.0, -3.0, "B"),
    )


def test_a_probe_of_two_shanks_and_one_by_contact_ids(tmp_path):
    first, second = Probe(ndim=2), Probe(ndim=2)
    first.set_contacts(np.array([[0, 0], [0, 20], [200, 0]]), shank_ids=["0", "0", "1"])
    first.set_device_channel_indices([2, -1, 0])
    first.annotate(name="left")
    second.set_contacts(np.array([[5, 6]]))
    second.set_contact_ids(["e9"])
    files = []
    for name, probe in (("left", first), ("right", second)):
        group = ProbeGroup()
        group.add_probe(probe)
        write_probeinterface(tmp_path / f"{name}.json", group)
        files.append(read_contacts(tmp_path / f"{name}.json"))
    assert files[0] == (Contact(("#2",), 0.0, 0.0, "left shank 0"), Contact(("#0",), 200.0, 0.0, "left shank 1"))
    assert files[1] == (Contact(("e9",), 5.0, 6.0, "probe 0"),)


FAULTS = {
    "a.cmp": [
        (CMP + "1 x A 3\n", "found '1 x A 3' in line 7, expected column, row, bank (a letter), electrode and perhaps a label"),
        (CMP + "1 1 A 1\n", "found channel '1' twice, expected each once"),
        ("//nothing\n", "found no electrode, expected at least one"),
    ],
    "a.csv": [
        ("channel,x_um\n1,2\n", "found no column 'y_um' among 'channel', 'x_um', expected columns channel, x_um, y_um"),
        ("channel,x_um,y_um,array_\n1,2,3,4\n", "found unknown column 'array_', expected a known column (did you mean 'array'?)"),
        ("channel,x_um,y_um\n1,2,left\n", "found 'left' as y_um in row 1, expected a number of micrometres, with a decimal point"),
        ("channel,x_um,y_um\n1,2\n", "found 2 cells in row 1, expected 3 as in the header"),
        ("channel,x_um,y_um\n1,2,3\n1,4,5\n", "found channel '1' twice"),
        ("", "found no column 'channel' among none"),
    ],
    "a.json": [("{", "found unreadable content"), ('{"specification": "other"}', "found unreadable content")],
    "a.txt": [("", "found a file that ends in '.txt', expected a Utah map (.cmp), a table (.csv) or a probeinterface file (.json)")],
}


@pytest.mark.parametrize(("name", "text", "message"), [(name, *fault) for name, faults in FAULTS.items() for fault in faults])
def test_faults(tmp_path, name, text, message):
    assert message in refused(written(tmp_path, name, text))


def test_a_missing_file(tmp_path):
    assert refused(tmp_path / "a.cmp").startswith(f"{tmp_path / 'a.cmp'}: found no such file")

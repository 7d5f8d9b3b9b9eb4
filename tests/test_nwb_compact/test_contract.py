import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from nwb_compact import contract
from nwb_compact.results import SCORE_COLUMNS

ROOT = Path(__file__).parents[2]
NAMES = {value for name, value in vars(contract).items() if name.isupper() and isinstance(value, str) and name != "CONTRACT_VERSION"}
FOLDERS = ("nwb_compact", "conversion", "analysis")
ROOMS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.name != "contract.py")


def texts(path: Path) -> Iterator[str]:
    """Strings in the code of a file, docstrings among them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: path.name)
def test_a_name_of_the_file_is_spelled_in_the_contract_alone(path):
    """Names of one word are too common to tell; `student_parameters` is a score, `is_valid` a key of session.yaml, too."""
    distinct = {name for name in NAMES if "_" in name} - set(SCORE_COLUMNS) - {contract.IS_VALID}
    assert distinct & set(texts(path)) == set()


def test_every_name_is_on_the_page_about_the_file():
    page = (ROOT / "docs" / "nwb_layout.md").read_text(encoding="utf-8")
    assert [name for name in sorted(NAMES) if name not in page] == []


@pytest.mark.parametrize("columns", [
    (contract.NAME, contract.SHA256, *contract.OPTIONAL_IMAGE_COLUMNS),
    (contract.IMAGE_INDEX, contract.REPEAT, contract.IS_VALID, contract.START_TIME, contract.STOP_TIME),
    (contract.UNIT, contract.WINDOW_START, contract.WINDOW_STOP, *contract.OPTIONAL_RESPONSE_UNIT_COLUMNS),
    (contract.RUN_UNITS, contract.RUN_SCORES, contract.RUN_PREDICTIONS, contract.RUN_PARAMETERS, contract.RUN_FILTERS,
     contract.RUN_PREFERRED, contract.RUN_PROVENANCE),
    (contract.IMAGE_INDEX, contract.SHA256, contract.SIDE, contract.TEACHER, contract.STUDENT),
    (contract.UNIT, contract.ARRAY_NAME, contract.ARRAY_SHAPE, contract.ARRAY_VALUE),
])
def test_names_that_stand_side_by_side_differ(columns):
    assert len(set(columns)) == len(columns)

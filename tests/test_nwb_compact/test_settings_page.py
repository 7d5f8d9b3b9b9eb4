from pathlib import Path

from nwb_compact.config import PRESETS, Fit, Interpret, Stage, configure, flat
from nwb_compact.settings_page import settings_page

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def stages(stage: type[Stage] = Fit):
    yield stage
    for field in stage.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Stage):
            yield from stages(field.annotation)


def test_the_page_in_docs_is_up_to_date():
    """Renew it with: python -m nwb_compact.settings_page > docs/configuration.md."""
    assert PAGE.read_text(encoding="utf-8") == settings_page()


def test_every_setting_says_what_it_means():
    silent = {
        f"{stage.__name__}.{name}"
        for stage in (*stages(), Interpret)
        for name, field in stage.model_fields.items()
        if not field.description and not (isinstance(field.annotation, type) and issubclass(field.annotation, Stage))
    }
    assert silent == set()


def test_every_setting_has_a_row_with_its_value_in_each_preset():
    of_fit, of_interpretation = settings_page().split("## Interpretation")
    rows = [line.split(" | ") for line in of_fit.splitlines() if line.startswith("| `")]
    shown = [row[1 : 1 + len(PRESETS)] for row in rows]
    expected = zip(*(flat(configure(preset)).items() for preset in PRESETS), strict=True)
    assert sorted(shown) == sorted([value for _, value in row] for row in expected if row[0][0] != "preset")
    rows = [line.split(" | ") for line in of_interpretation.splitlines() if line.startswith("| `")]
    assert {name.strip("|` "): value for name, value, _ in rows} == flat(Interpret())

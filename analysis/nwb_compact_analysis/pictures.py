"""From a drawn figure to a picture of a page, in the same way everywhere."""

from io import BytesIO

from matplotlib.figure import Figure

from nwb_compact_analysis.page import Picture
from nwb_compact_analysis.style import styled

DOTS_PER_INCH = 150


@styled
def saved(name: str, alt: str, figure: Figure) -> Picture:
    """A figure as a picture of the page."""
    png = BytesIO()
    figure.draw_without_rendering()  # pictures keep their aspect, and the first layout does not know yet what that leaves for the names
    figure.savefig(png, format="png", metadata={"Software": None})  # no version inside: same run, same bytes
    width, height = figure.get_size_inches()
    return Picture(name, png.getvalue(), alt, (float(width), float(height)))

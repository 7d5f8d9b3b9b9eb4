"""What the publication lists for each of its 50 sessions.

Source: data_V4_responses/readme.txt of github.com/cowleygroup/V4_compact_models (Cowley et al. 2026, Extended Data Table 1).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """One row of the list."""

    animal: str
    role: str
    """train, test or val: what the whole session was for in the study."""
    n_units: int
    n_repeats: int
    """Repeats an image, one figure for the session; the true number varies from image to image."""
    n_images: int
    """As listed. The files may hold more: those of 190925, 190927, 190928 and 190929 hold 1200 (in 190925 300 of them twice)."""
    kinds: tuple[tuple[str, int], ...]
    """Kinds of images and how many of each, in the words of the list. Which image is of which kind is not told."""

    @property
    def kind(self) -> str | None:
        """The kind of every image where there is only one; the list's "normal" are natural photographs."""
        if len(self.kinds) > 1:
            return None
        return "natural" if self.kinds[0][0] == "normal" else self.kinds[0][0]


SESSIONS = {
    "190923": Listed("WE", "test", 33, 14, 1200, (("normal", 1200),)),
    "190924": Listed("WE", "train", 25, 13, 900, (("normal", 600), ("active learning", 300),)),
    "190925": Listed("WE", "train", 36, 14, 900, (("normal", 600), ("active learning", 300),)),
    "190926": Listed("WE", "train", 27, 15, 900, (("normal", 600), ("active learning", 300),)),
    "190927": Listed("WE", "train", 31, 11, 900, (("normal", 600), ("active learning", 300),)),
    "190928": Listed("WE", "train", 24, 13, 900, (("normal", 600), ("active learning", 300),)),
    "190929": Listed("WE", "train", 33, 15, 900, (("normal", 600), ("active learning", 300),)),
    "201016": Listed("PE", "train", 82, 6, 600, (("normal", 300), ("gaudy", 300),)),
    "201017": Listed("PE", "train", 88, 7, 900, (("normal", 300), ("active learning", 300), ("gaudy", 300),)),
    "201018": Listed("PE", "train", 80, 5, 600, (("normal", 600),)),
    "201019": Listed("PE", "train", 82, 4, 1600, (("normal", 800), ("active learning", 400), ("gaudy", 400),)),
    "201020": Listed("PE", "train", 87, 4, 1600, (("normal", 800), ("active learning", 400), ("gaudy", 400),)),
    "201021": Listed("PE", "train", 88, 7, 1600, (("normal", 800), ("active learning", 400), ("gaudy", 400),)),
    "201022": Listed("PE", "train", 79, 5, 2000, (("normal", 1000), ("active learning", 500), ("gaudy", 500),)),
    "201023": Listed("PE", "train", 86, 7, 2000, (("normal", 1000), ("active learning", 500), ("gaudy", 500),)),
    "201024": Listed("PE", "train", 85, 7, 2000, (("normal", 1000), ("active learning", 500), ("gaudy", 500),)),
    "201025": Listed("PE", "test", 89, 12, 1200, (("normal", 1200),)),
    "210224": Listed("PE", "val", 67, 9, 800, (("normal", 800),)),
    "210225": Listed("PE", "test", 55, 6, 1200, (("normal", 1200),)),
    "210226": Listed("PE", "train", 78, 6, 1600, (("normal", 600), ("maximizing", 1000),)),
    "210301": Listed("PE", "train", 61, 4, 2000, (("maximizing", 650), ("validation exps.", 1350),)),
    "210302": Listed("PE", "train", 70, 5, 2000, (("maximizing", 650), ("validation exps.", 1350),)),
    "210303": Listed("PE", "train", 67, 3, 2049, (("maximizing", 2049),)),
    "210304": Listed("PE", "train", 65, 5, 1968, (("maximizing", 1968),)),
    "210305": Listed("PE", "train", 70, 22, 400, (("validation exps.", 400),)),
    "210308": Listed("PE", "train", 70, 4, 2000, (("normal", 500), ("validation exps.", 1500),)),
    "210309": Listed("PE", "train", 56, 4, 2000, (("normal", 600), ("validation exps.", 1200), ("artificial", 200),)),
    "210310": Listed("PE", "train", 64, 3, 2000, (("normal", 1000), ("gaudy", 1000),)),
    "210312": Listed("PE", "train", 81, 4, 2000, (("maximizing", 2000),)),
    "210315": Listed("PE", "train", 65, 2, 2000, (("maximizing", 2000),)),
    "210316": Listed("PE", "train", 62, 3, 2000, (("normal", 1000), ("gaudy", 1000),)),
    "210322": Listed("PE", "train", 59, 4, 1200, (("normal", 600), ("Bashivan et al., 2019", 600),)),
    "210323": Listed("PE", "train", 59, 4, 1200, (("normal", 600), ("gaudy", 600),)),
    "210324": Listed("PE", "train", 54, 4, 1200, (("normal", 600), ("gaudy", 600),)),
    "210325": Listed("PE", "test", 50, 8, 640, (("Bashivan et al., 2019", 640),)),
    "210326": Listed("PE", "train", 60, 4, 1200, (("normal", 600), ("gaudy", 600),)),
    "210620": Listed("RA", "train", 42, 9, 1600, (("normal", 1600),)),
    "210621": Listed("RA", "train", 51, 16, 1200, (("normal", 1200),)),
    "211008": Listed("RA", "train", 21, 24, 1200, (("normal", 1200),)),
    "211012": Listed("RA", "train", 51, 15, 2000, (("normal", 1000), ("gaudy", 1000),)),
    "211013": Listed("RA", "train", 52, 15, 2000, (("normal", 1000), ("gaudy", 1000),)),
    "211014": Listed("RA", "train", 46, 11, 2000, (("normal", 1000), ("gaudy", 1000),)),
    "211015": Listed("RA", "train", 49, 18, 2000, (("normal", 1000), ("gaudy", 1000),)),
    "211018": Listed("RA", "train", 56, 10, 3000, (("normal", 1500), ("gaudy", 1500),)),
    "211022": Listed("RA", "test", 42, 20, 1600, (("normal", 1600),)),
    "211025": Listed("RA", "train", 54, 16, 2000, (("normal", 233), ("maximizing", 150), ("gaudy", 233), ("artificial", 1384),)),
    "211026": Listed("RA", "train", 56, 13, 2000, (("normal", 660), ("validation exps.", 840), ("active learning", 250), ("gaudy", 250),)),
    "211027": Listed("RA", "train", 56, 18, 2000, (("normal", 240), ("validation exps.", 1260), ("active learning", 250), ("gaudy", 250),)),
    "211028": Listed("RA", "train", 55, 14, 2000, (("normal", 660), ("validation exps.", 840), ("active learning", 250), ("gaudy", 250),)),
    "211103": Listed("RA", "train", 49, 13, 3000, (("normal", 750), ("maximizing", 750), ("active learning", 750), ("gaudy", 750),)),
}

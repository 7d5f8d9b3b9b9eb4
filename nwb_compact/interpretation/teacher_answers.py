"""The teacher, shown what its students were shown: does what was found in a student hold for the model that taught it?

A student imitates its teacher on natural images. On stimuli that neither has seen, and on images that were made for the student, the
teacher is a second opinion, though not an independent one: it was fitted to the same responses.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.reliability import correlation

Members = Callable[[UInt8[np.ndarray, "image 112 112 3"]], Float[np.ndarray, "member image unit"]]
"""What each member of the teacher expects, spikes in the counting window."""
SPIKES = "expected spikes in the counting window"


def asked_about(
    members: Members, images: UInt8[np.ndarray, "image 112 112 3"], unit: Integer[np.ndarray, "image"]
) -> Float[np.ndarray, "image member"]:
    """What the teacher answers for one unit an image, as the rows of `made_images` are."""
    return members(images)[:, np.arange(len(images)), unit].T


def answer_table(unit: Integer[np.ndarray, "image"], answers: Float[np.ndarray, "image member"], of: str) -> Table:
    """One row a row of the table `of`."""
    return Table(f"what the teacher answers to the images of interpretation_{of}, row by row", {
        UNIT: Column("the unit", unit),
        "answer": Column(f"of the teacher, {SPIKES}", answers.mean(axis=1)),
        "members": Column(f"of each member of its ensemble, {SPIKES}", answers),
    })


def agreement(
    made: Table, answers: Float[np.ndarray, "made"], natural: Float[np.ndarray, "image unit"], own: Integer[np.ndarray, "own"],
    probes: tuple[Float[np.ndarray, "stimulus unit"], Float[np.ndarray, "stimulus unit"]],
) -> Table:
    """How far the teacher answers as its students do to what neither has seen.

    Parameters
    ----------
    made
        `made_images` of the students; `start_row` counts the images of the session.
    answers
        Of the teacher to them.
    natural
        Of the teacher to the images of the session, by row.
    own
        Rows of its different images, which leaves out what is there twice or is a placeholder.
    probes
        Of the students and of the teacher to the battery.

    Returns
    -------
    One row a unit; a share is NaN where there is no such image.

    Examples
    --------
    >>> made = Table("", {name: Column("", np.array(values)) for name, values in {
    ...     "unit": [0, 0, 1], "kind": ["maximizing", "maximizing", "adversarial-up"], "start_row": [-1, -1, 0]}.items()})
    >>> natural, battery = np.array([[1.0, 5.0], [2.0, 3.0]]), np.arange(8.0).reshape(4, 2)
    >>> found = agreement(made, np.array([3.0, 1.5, 6.0]), natural, np.arange(2), (battery, 2 * battery))
    >>> found["maximizing_above_best"], found["adversarial_followed"], found["probe_r2"]
    (array([0.5, nan]), array([nan,  1.]), array([1., 1.]))
    """
    unit, kind, n_units = made[UNIT], made["kind"], natural.shape[1]
    best, median = natural[own].max(axis=0)[unit], np.median(natural[own], axis=0)[unit]
    moved, up, down = answers - natural[made["start_row"], unit], kind == "adversarial-up", kind == "adversarial-down"

    def share(meaning: str, holds: Bool[np.ndarray, "made"], among: Bool[np.ndarray, "made"]) -> Column:
        n, held = (np.bincount(unit[rows], minlength=n_units) for rows in (among, among & holds))
        return Column(f"share of {meaning}", np.divide(held, n, out=np.full(n_units, np.nan), where=n > 0))

    return Table("whether the teacher answers as its students do to images that neither has seen", {
        UNIT: Column("the unit", np.arange(n_units)),
        "probe_r2": Column("squared correlation of the answers of student and teacher to the battery", correlation(*probes) ** 2),
        "maximizing_above_best": share("maximizing images that it answers above its best image of the session",
                                       answers > best, kind == "maximizing"),
        "minimizing_below_median": share("minimizing images that it answers below its median image of the session",
                                         answers < median, kind == "minimizing"),
        "adversarial_followed": share("adversarial images that move its answer in the direction that they move the student's",
                                      np.where(up, moved > 0, moved < 0), up | down),
    })

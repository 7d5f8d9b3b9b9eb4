# %% [markdown]
# # A session file from your own recordings
#
# You have, as most labs do: the spike times of each unit, the onset of each image, which image it was, the images, and
# perhaps a note which trials failed. This makes a session file of them that `nwb-compact fit` takes. The arrays of the
# first cell are made up; put your own in their place. Nothing else has to change.

# %%
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from zoneinfo import ZoneInfo

import numpy as np

from nwb_compact.check import check, summary
from nwb_compact.nwb_session import write_session
from nwb_compact.session import About, Images, Presentations, ResponseUnits, Session, SpikeCounts, Subject, Units, image_sha256

# %% Stand-ins for what you recorded. All times are seconds on one clock.
rng = np.random.default_rng(1)
pixels = rng.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)  # (image height width channel), square; grey without the last axis
shown = rng.permutation(np.repeat(np.arange(40), 4))  # (presentation,) row of `pixels`, in the order shown
onset_s = 5 + 0.5 * np.arange(len(shown)) + rng.uniform(0, 0.05, len(shown))  # (presentation,)
offset_s = onset_s + 0.1  # (presentation,)
failed = rng.random(len(shown)) < 0.03  # (presentation,) fixation broke; leave it False everywhere if you do not know
spike_times_s = {f"probe 1 unit {unit}": np.sort(rng.uniform(0, 90, 1500)) for unit in range(3)}  # (spike,) of each unit, ascending

# %% The window after onset in which spikes are counted. Yours to choose: it should hold the response and little else.
WINDOW_S = (0.05, 0.15)

# %% Spikes of one unit in one window: those before its end less those before its start. (presentation, unit)
count = np.stack(
    [np.searchsorted(spikes, onset_s + WINDOW_S[1]) - np.searchsorted(spikes, onset_s + WINDOW_S[0]) for spikes in spike_times_s.values()],
    axis=1,
).astype(np.uint32)

# %% How often an image had been shown before: its presentations so far. Single trials of one image are what noise is estimated from.
repeat = np.array([np.count_nonzero(shown[:row] == image) for row, image in enumerate(shown)], dtype=np.uint32)

# %% The session. A field that is left out is None and will be absent in the file; nothing is filled in for it.
session = Session(
    about=About(  # these three are required; lab, institution, experimenter, notes and more may be None
        identifier="animal-a-2026-03-01",
        session_description="natural images flashed for 100 ms during fixation",
        session_start_time=datetime(2026, 3, 1, 10, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    ),
    subject=Subject(subject_id="animal-a", species="Macaca mulatta", sex="F", age="P8Y"),  # or None; DANDI asks for these four
    images=Images(
        name=tuple(f"image_{index:03d}.png" for index in range(len(pixels))),
        sha256=tuple(image_sha256(image) for image in pixels),  # the same picture in two sessions is recognised by it
        pixels=pixels,  # needed for a fit; None makes a file that can be shared but not fitted
        # The second half of the images, in this order, is scored. To choose yourself: split=("train", "test", ...), one an
        # image, and `fit --split column`. kind, source and licence may be None too.
    ),
    presentations=Presentations(
        image_index=shown.astype(np.uint32),
        repeat=repeat,
        is_valid=~failed,  # a failed trial stays in the file and is not used
        start_time_s=onset_s,  # both times None if you have only counts
        stop_time_s=offset_s,
    ),
    units=Units(
        name=tuple(spike_times_s),
        spike_times_s=tuple(spike_times_s.values()),  # None if you have only counts
        obs_intervals_s=np.array([[0.0, 90.0]]),  # when the recording ran, or None
        resolution_s=1 / 30_000,  # one sample of the recording; archives ask for it
    ),
    response_units=ResponseUnits(  # column j of the counts is this unit in this window
        unit_index=np.arange(len(spike_times_s), dtype=np.uint32),
        window_start_s=np.full(len(spike_times_s), WINDOW_S[0]),  # both None if you do not know the window
        window_stop_s=np.full(len(spike_times_s), WINDOW_S[1]),
    ),
    counts=SpikeCounts(presentation_index=np.arange(len(shown), dtype=np.uint32), count=count),
    mean_responses=None,  # only for a source that kept no single trials: then counts and presentations are None
)

# %% Write it, and ask for every fault at once; what follows is `nwb-compact fit animal-a.nwb`.
file_path = Path(mkdtemp()) / "animal-a.nwb"
write_session(session, file_path)
faults = check(file_path)
print(*faults or [f"{file_path}: all is well; {summary(file_path)}"], sep="\n")

# %% [markdown]
# # A published V4 session as an NWB file
#
# Session 210325 of Cowley, Stan, Pillow & Smith (Nature 2026): 50 neurons of macaque V4, 640 images, 6 to 10 repeats an
# image. Its files are in github.com/cowleygroup/V4_compact_models (GPL-3.0). On the command line the same is
#
#     nwb-compact convert cowley-v4 --data data_V4_responses --session 210325 -o 210325.nwb
#
# The environment variable `NWB_COMPACT_TEST_DATA` names the folder that holds `v4/`.

# %%
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from nwb_compact.nwb_session import open_session, write_session
from nwb_compact_conversion.sources.cowley_v4 import read_cowley_v4

data = Path(os.environ.get("NWB_COMPACT_TEST_DATA", "../shared/data"), "v4")


# %%
def convert_and_look(file_path: Path) -> None:
    session = read_cowley_v4(data, "210325")
    # The source tells neither sex nor age, and the file would have none; DANDI takes "unknown" and "this old or older" instead.
    write_session(replace(session, subject=replace(session.subject, sex="U", age="P0D/")), file_path)
    with open_session(file_path) as session:  # the pixels stay on disk until they are indexed
        counts, shown, images = session.counts, session.presentations, session.images
        image_index = shown.image_index[counts.presentation_index]
        repeats = np.bincount(image_index)
        totals = np.zeros((len(images), len(session.units)))
        np.add.at(totals, image_index, counts.count)
        mean = totals / repeats[:, None]
        unit = int(mean.max(axis=0).argmax())
        best = int(mean[:, unit].argmax())
        print(session.about.session_description)
        print(f"{len(session.units)} units of animal {session.subject.subject_id}; {len(images)} images of {images.pixels.shape[1:]}")
        print(f"{len(shown)} presentations, {repeats.min()} to {repeats.max()} an image; the largest count is {counts.count.max()}")
        print(f"{session.units.name[unit]} answers {images.name[best]} most: {mean[best, unit]:.1f} spikes in 100 ms")
        print(f"that image is {images.pixels[best].mean():.0f} of 255 bright on average")


# %%
if data.is_dir():
    with TemporaryDirectory() as folder:
        convert_and_look(Path(folder) / "210325.nwb")
else:
    print(f"Skipped: no published data in {data}. Set NWB_COMPACT_TEST_DATA to the folder that holds v4/.")

# %% [markdown]
# # Fit neurons whose wiring is known, and ask whether the fit is right
#
# A simulated session stores the wiring of its neurons, so a student can be compared with the truth itself instead of
# noisy counts. The settings below are for a minute on two cores; leave `--preset` and `--config` out for the real thing.

# %%
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from nwb_compact.nwb_results import read_results
from nwb_compact.nwb_session import read_session
from nwb_compact.simulate import expected_counts, neurons_from_wiring

folder = Path(mkdtemp())
session_path = folder / "session.nwb"
(folder / "small.toml").write_text("[teacher]\nmembers = 1\n[distill]\nimages_seen = 2000\n[prune]\nimages_seen = 500\nlast_images_seen = 200\n", encoding="utf-8")


def nwb_compact(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "nwb_compact.cli", *map(str, words)], check=True)


# %% A session of four neurons (dot, edge, colour, curvature), and a fit of it.
nwb_compact("simulate", session_path, "--units", 4, "--images", 200, "--repeats", 4, "--seed", 1)
nwb_compact("fit", session_path, "--preset", "quick", "--config", folder / "small.toml", "--quiet")

# %% What was measured, what was fitted, and what is true.
session = read_session(session_path)
(results,) = read_results(session_path)
truth = expected_counts(neurons_from_wiring(session.wiring), session.images.pixels)
scored = np.array(results.side) == "scored"
for unit, name in enumerate(results.unit_name):
    student = results.student_prediction[scored, unit]
    r2 = np.corrcoef(student, truth[scored, unit])[0, 1] ** 2
    parameters = results.scores["student_parameters"][unit]
    print(f"{name}: r2 with the noisy averages {results.scores['student_r2'][unit]:.2f}, with the true rate {r2:.2f}, {parameters:.0f} parameters")

# %% The student is a dozen arrays; here are the filters it kept in each layer.
print(results.filters_per_layer)

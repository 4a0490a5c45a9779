"""Running the benchmarks of recipes whose task is anomaly: `recurra reproduce nab`, and others."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from recurra.data.catalogue import locate
from recurra.data.recipe import Recipe
from recurra.errors import ConfigError, DataError
from recurra.report.results import make_outcome, make_result
from recurra.tasks.anomaly.baselines import (
    BASELINES,
    filled,
    frozen_memory,
    mean_max_z,
    own_alarms,
)
from recurra.tasks.anomaly.detector import AnomalyDetector
from recurra.tasks.anomaly.evaluation import OURS, Scored, mean_metrics
from recurra.tasks.anomaly.fitted import TASK
from recurra.tasks.anomaly.forecast import ForecastHead
from recurra.tasks.anomaly.heads import make_watch
from recurra.tasks.anomaly.labelled import READERS, Labelled
from recurra.tasks.anomaly.lanes import Array
from recurra.tasks.anomaly.nab import NabFile, NabScorer, Swept, read_nab, windowed_gaussian
from recurra.tasks.anomaly.nab_trial import SPLITS, NabTrials, Trial
from recurra.tasks.anomaly.settings import AnomalySettings, CheckedModel
from recurra.tasks.anomaly.table import Columns, Watched, WatchedSet
from recurra.tasks.anomaly.watch import watch_series


class AnomalySection(CheckedModel):
    """The [anomaly] table of a recipe: which benchmark's files and protocol.

    heads    the heads to measure on a labelled set, the first of which is "recurra"
    """

    benchmark: Literal["nab", "smd", "smap-msl", "ucr"]
    heads: tuple[Literal["alarm", "segment"], ...] = ("segment",)


def reproduce(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Run the benchmark: DESIGN's outcome. Nothing but the splits of cross-validation uses chance.

    Raises: DataError when the recipe's section is wrong or the data are absent.
    """
    try:
        section = AnomalySection(**recipe.section)
    except (ConfigError, ValidationError) as error:
        raise DataError(f"recipe {recipe.name!r}, [anomaly]: {error}") from error
    if recipe.dataset is None:
        raise DataError(f"recipe {recipe.name!r} names no data set; it needs one.")
    if section.benchmark == "nab":
        return _nab(recipe.dataset, seed)
    return _labelled(section)


def _nab(dataset: str, seed: int) -> dict[str, Any]:
    files = read_nab(locate(dataset))
    started = clock.monotonic()
    trials = NabTrials(files)
    watched = clock.monotonic() - started
    trial = Trial()
    surprises = trials.surprises(trial)
    swept = trials.scorer.sweep(trials.detections(trial, surprises))
    refractory = float(AnomalySettings().refractory)
    detections = trials.detections(Trial(refractory=refractory), surprises)
    fixed = trials.scorer.at(detections, trial.threshold)
    halves = {
        "threshold": trials.cross_validated(trials.thresholds(), seed),
        "settings and threshold": trials.cross_validated(trials.grid(), seed),
    }
    results = [
        make_result(OURS, _named({name: one.score for name, one in swept.items()})),
        *(
            make_result(
                f"{OURS}, {chosen} of the other half",
                _named({k: {"mean": m, "sd": s, "n": 2 * SPLITS} for k, (m, s) in found.items()}),
            )
            for chosen, found in halves.items()
        ),
        make_result(f"{OURS}, own threshold", _named(fixed)),
        make_result(f"{OURS}, forecaster", _named(_forecaster(trials, seed))),
        *_nab_baselines(files),
    ]
    rows = sum(len(file.values) for file in files)
    outcome = make_outcome(
        TASK, f"{dataset}: {len(files)} files, {rows} rows", results, clock.monotonic() - started
    )
    outcome["notes"] = [
        *_nab_notes(trials, detections, swept, refractory),
        f"watching all files took {watched:.0f} s, {1e6 * watched / rows:.0f} µs a row",
    ]
    return outcome


def _forecaster(trials: NabTrials, seed: int) -> dict[str, float]:
    """The best scores of a forecaster that was trained on the first parts of all files."""
    detector = AnomalyDetector(model="forecaster", seed=seed)
    first = [_watched(file, file.probation) for file in trials.files]
    whole = [_watched(file, len(file.values)) for file in trials.files]
    watch = make_watch(detector.settings, 1, detector.train_network(first))
    answers, _ = watch_series(
        watch,
        watch.initial_state(len(whole)),
        [one.values for one in whole],
        [one.clock for one in whole],
    )
    trial = Trial(threshold=watch.threshold)
    detections = trials.detections(trial, [rows.surprise for rows in answers])
    return {name: one.score for name, one in trials.scorer.sweep(detections).items()}


def _watched(file: NabFile, rows: int) -> Watched:
    at = np.arange(rows)
    return Watched(file.name, file.times[:rows], file.values[:rows, None], at)


def _labelled(section: AnomalySection) -> dict[str, Any]:
    """Each head and baseline on every series of a labelled set, scored after its first part."""
    started = clock.monotonic()
    series = READERS[section.benchmark]()
    found: dict[str, list[dict[str, float]]] = {}
    for number, head in enumerate(section.heads):
        name = OURS if number == 0 else f"{OURS}, {head} head"
        found[name] = [scored.metrics() for scored in watch_labelled(series, head)]
    baselines = {**BASELINES, "mean_max_z": mean_max_z}
    if series[0].train.shape[1] > 1:
        baselines["frozen_memory"] = frozen_memory
    for name, baseline in baselines.items():
        found[name] = [_score_baseline(one, baseline).metrics() for one in series]
    rows, labelled = (sum(int(f(one.labels)) for one in series) for f in (len, np.sum))
    channels = series[0].train.shape[1]
    outcome = make_outcome(
        TASK,
        f"{section.benchmark}: {len(series)} series of {channels} channel"
        f"{'s' if channels > 1 else ''}, {rows} rows scored, {labelled} of them anomalous",
        [make_result(name, mean_metrics(parts)) for name, parts in found.items()],
        clock.monotonic() - started,
    )
    outcome["notes"] = [
        f"means over the series; recurra: {section.heads[0]} head as it comes, no labels, every "
        "score depends on rows up to its own",
        "each detector alarms by a threshold of its own from the first part; no point adjustment",
    ]
    return outcome


def watch_labelled(series: Sequence[Labelled], head: str) -> list[Scored]:
    """Our scores and alarms on the test parts, going on from the train parts."""
    channels = tuple(f"c{k}" for k in range(series[0].train.shape[1]))
    columns = Columns("time", channels, "series")
    learned, later = [], []
    for one in series:
        end = len(one.train)
        times = np.arange(end + len(one.test))
        learned.append(Watched(one.name, times[:end], one.train, times[:end]))
        later.append(Watched(one.name, times[end:], one.test, times[end:], one.labels))
    fitted = AnomalyDetector.from_settings({"head": head}).learn(
        WatchedSet(columns, tuple(learned), (), None)
    )
    return [
        Scored(one.labels, np.nan_to_num(answer.surprise), answer.alarm)
        for one, answer in zip(series, fitted.answer(later), strict=True)
    ]


def _score_baseline(one: Labelled, baseline: Callable[[Array, int], Array]) -> Scored:
    end = len(one.train)
    scores = baseline(filled(np.concatenate([one.train, one.test])), end)
    return Scored(one.labels, scores[end:], own_alarms(scores, end)[end:])


def _nab_notes(
    trials: NabTrials, detections: Sequence[Any], swept: Mapping[str, Swept], refractory: float
) -> list[str]:
    parts = trials.parts(detections)
    false = sum(
        int(((level > 0) & (window == -1)).sum())
        for level, (_, window) in zip(detections, trials.worth, strict=True)
    )
    normal = sum(int((window == -1).sum()) for _, window in trials.worth)
    at = ", ".join(f"{one.threshold:.2f}" for one in swept.values())
    return [
        "one setting for all files, no labels; every score depends on rows up to its own",
        f"recurra: threshold swept as the benchmark does it ({at} for the three profiles), "
        "refractory time a fifth of the probation",
        "forecaster: one network for all files, trained on their rows of probation; its threshold "
        f"swept likewise, from {ForecastHead.threshold:g} on",
        f"own threshold: {Trial().threshold:g} with a refractory time of {refractory:g} rows, "
        f"fixed before; it finds {parts[:, 1].sum():.0f} of {trials.scorer.windows} windows and "
        f"raises {false} false alarms, {1000 * false / normal:.2f} in a thousand rows",
        "the other half: the threshold, or all settings and the threshold, with the best standard "
        f"score on half of the files, scored on the rest; mean and deviation over {SPLITS} splits, "
        "both ways. Which parts the detector has, and the settings that it comes with, were found "
        "on all files, and this cannot undo it",
    ]


def _nab_baselines(files: Sequence[NabFile]) -> list[dict[str, Any]]:
    """The baselines' sweeps, after the benchmark's own windowed Gaussian."""
    scorer = NabScorer(files)
    made = {"windowed_gaussian": [windowed_gaussian(file.values) for file in files]}
    for name, baseline in BASELINES.items():
        made[name] = [
            baseline(file.values[:, None], max(file.probation, 2)) + 1e-12 for file in files
        ]
    rows = []
    for name, scores in made.items():
        swept = scorer.sweep([np.nan_to_num(one) for one in scores])
        rows.append(make_result(name, _named({k: one.score for k, one in swept.items()})))
    return rows


def _named(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {f"nab_{profile}": value for profile, value in scores.items()}

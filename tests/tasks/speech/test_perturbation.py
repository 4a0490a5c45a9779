"""Loudness, noise and masks: how much of each, and that noise adds up as sounds do."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tasks.speech.tones import RATE, pairs, say, tiny

from recurra.data.logmel import log_mel
from recurra.errors import ConfigError, DataError
from recurra.tasks.speech.perturbation import (
    NATS_PER_DB,
    add_noise,
    change_loudness,
    make_noise,
    mask_features,
    perturb_by_noise,
)
from recurra.tasks.speech.settings import SpeechSettings


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def power(features: torch.Tensor) -> float:
    return float(features.double().exp().mean())


def test_masks_are_no_larger_than_they_may_be() -> None:
    settings = SpeechSettings(time_masks=1, time_width=40, frequency_masks=1, frequency_width=9)
    widest = [0, 0]
    for seed in range(200):
        masked = mask_features(torch.ones(100, 80), settings, torch.Generator().manual_seed(seed))
        rows, columns = (masked == 0).all(1).sum(), (masked == 0).all(0).sum()
        widest = [max(widest[0], int(rows)), max(widest[1], int(columns))]
        assert int((masked == 0).sum()) == rows * 80 + columns * 100 - rows * columns
    assert widest == [20, 9]  # a fifth of the frames, although 40 were allowed


def test_loudness_changes_by_at_most_what_is_asked() -> None:
    draw = rng()
    gains = [float(change_loudness(torch.zeros(1, 1), 6.0, draw)) for _ in range(300)]
    assert 5.5 < max(gains) / NATS_PER_DB < 6
    assert -6 < min(gains) / NATS_PER_DB < -5.5


@pytest.mark.parametrize("ratio_db", [-5.0, 0.0, 20.0])
def test_noise_is_as_loud_as_asked(ratio_db: float) -> None:
    features, noise = torch.randn(50, 8, generator=rng(1)), torch.randn(50, 8, generator=rng(2))
    added = power(add_noise(features, noise, ratio_db)) - power(features)
    assert 10 * math.log10(power(features) / added) == pytest.approx(ratio_db, abs=1e-3)


def test_features_with_noise_are_those_of_both_sounds_together() -> None:
    """Against the waveforms: powers add up on average, the logarithm is a little below."""
    sound = 0.1 * np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    noise = 0.03 * np.random.default_rng(1).normal(size=RATE).astype(np.float32)
    alone, of_noise = (torch.from_numpy(log_mel(one, RATE)) for one in (sound, noise))
    ratio_db = 10 * math.log10(power(alone) / power(of_noise))
    together = add_noise(alone, of_noise, ratio_db)
    truth = torch.from_numpy(log_mel(sound + noise, RATE))
    assert float((together - truth).mean()) == pytest.approx(0, abs=0.1)
    assert float((together - truth).abs().mean()) < 0.3


def test_made_noise_has_a_tilt_and_a_mean_power() -> None:
    tilts = []
    for seed in range(40):
        noise = make_noise(400, 20, rng(seed))
        means = noise.exp().mean(0).log()
        tilts.append(float(means[-1] - means[0]))
    assert 3 < max(tilts) < 4.5
    assert -4.5 < min(tilts) < -3


def test_a_share_is_heard_in_noise_and_nothing_without_it() -> None:
    features = torch.randn(30, 8, generator=rng(5))
    quiet = SpeechSettings()
    assert perturb_by_noise(features, [], quiet, rng()) is features
    loud = SpeechSettings(noise_db=(0.0, 10.0), noise_share=0.25)
    draw = rng()
    heard = [perturb_by_noise(features, [], loud, draw) for _ in range(400)]
    assert sum(one is not features for one in heard) == pytest.approx(100, abs=30)
    given = [torch.full((7, 8), 3.0)]  # shorter than the recording, and steady
    other = perturb_by_noise(features, given, loud.model_copy(update={"noise_share": 1.0}), rng())
    assert torch.allclose((other.exp() - features.exp()).std(), torch.tensor(0.0), atol=1e-4)


def test_noise_is_given_and_checked(tmp_path: Path) -> None:
    settings = {"noise_db": (10.0, 30.0), "noise_share": 1.0, "steps": 2, "validation": 0}
    noise = np.random.default_rng(0).normal(size=RATE // 4).astype(np.float32)
    run = tmp_path / "run"
    tiny(**settings).fit(pairs(8), noise=[noise], out=run)
    with pytest.raises(OSError, match="trained on other recordings"):
        tiny(**settings).fit(pairs(8), noise=[2 * noise], out=run, resume=True)
    with pytest.raises(ConfigError, match=r"1 recordings of noise are given, and noise_db"):
        tiny(steps=1).fit(pairs(8), noise=[noise])
    with pytest.raises(DataError, match=r"the noise 9 samples is too short: 0\.001 s"):
        tiny(**settings).fit(pairs(8), noise=[noise[:9]])
    with pytest.raises(ConfigError, match=r"two ratios in dB from -20 to 100, the lower one first"):
        tiny(noise_db=(30.0, 10.0))
    assert say("A").dtype == np.float32

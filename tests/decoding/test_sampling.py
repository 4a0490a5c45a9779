from __future__ import annotations

from typing import Any

import pytest
import torch

from recurra.decoding.sampling import Sampler
from recurra.errors import ConfigError

PROBS = torch.tensor([0.4, 0.1, 0.3, 0.15, 0.05])


def kept(**rules: Any) -> list[float]:
    sampler = Sampler(**rules)
    return [round(p, 4) for p in sampler.probabilities(PROBS.log()).tolist()]


def test_by_default_it_draws_from_the_probabilities_themselves() -> None:
    assert kept() == [0.4, 0.1, 0.3, 0.15, 0.05]
    sampler = Sampler(seed=1)
    drawn = torch.tensor([sampler.draw(PROBS.log()) for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=5) / 4000
    torch.testing.assert_close(shares, PROBS, atol=0.025, rtol=0)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"top_k": 2}, [0.5714, 0, 0.4286, 0, 0]),
        ({"top_k": 9}, [0.4, 0.1, 0.3, 0.15, 0.05]),
        ({"top_p": 0.4}, [1, 0, 0, 0, 0]),
        ({"top_p": 0.41}, [0.5714, 0, 0.4286, 0, 0]),
        ({"top_p": 0.0001}, [1, 0, 0, 0, 0]),
        ({"min_p": 0.5}, [0.5714, 0, 0.4286, 0, 0]),
        ({"temperature": 0.5}, [0.5614, 0.0351, 0.3158, 0.0789, 0.0088]),
        ({"banned": [0, 2]}, [0, 0.3333, 0, 0.5, 0.1667]),
    ],
)
def test_each_rule_keeps_what_it_says(rules: dict[str, Any], expected: list[float]) -> None:
    assert kept(**rules) == expected


def test_what_has_no_probability_is_never_drawn() -> None:
    log_probs = torch.full((1000,), -torch.inf)
    log_probs[[0, 499, 998]] = torch.tensor([1e-30, 0.5, 0.5]).log()
    sampler = Sampler()
    assert {sampler.draw(log_probs) for _ in range(300)} == {499, 998}


def test_a_temperature_next_to_0_takes_the_likeliest() -> None:
    assert kept(temperature=1e-42) == [1.0 if p == max(kept()) else 0.0 for p in kept()]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draw_from_nothing_is_refused(temperature: float) -> None:
    sampler = Sampler(temperature=temperature, banned=[0, 1])
    with pytest.raises(ConfigError, match=r"of 2 none .* banned \(2 are\)"):
        sampler.draw(torch.tensor([0.5, 0.5]).log())


def test_temperature_0_takes_the_likeliest() -> None:
    sampler = Sampler(temperature=0)
    assert [sampler.draw(PROBS.log()) for _ in range(3)] == [0, 0, 0]


def test_the_penalty_divides_the_probability_of_recent_tokens() -> None:
    sampler = Sampler(repetition_penalty=2, window=2)
    for token in (1, 0, 0):
        sampler.note(token)
    # Token 1 has left the window, token 0 counts once: 0.2 of 0.8.
    probs = sampler.probabilities(PROBS.log())
    torch.testing.assert_close(probs, torch.tensor([0.2, 0.1, 0.3, 0.15, 0.05]) / 0.8)
    greedy = Sampler(temperature=0, repetition_penalty=3, window=2)
    assert [greedy.draw(PROBS.log()) for _ in range(4)] == [0, 2, 3, 0]


def test_the_same_seed_draws_the_same_tokens() -> None:
    draws = [[Sampler(seed=seed).draw(PROBS.log()) for _ in range(1)] for seed in (3, 3)]
    several = []
    for seed in (3, 3, 4):
        sampler = Sampler(seed=seed)
        several.append([sampler.draw(PROBS.log()) for _ in range(30)])
    assert draws[0] == draws[1]
    assert several[0] == several[1] != several[2]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"temperature": -1}, "temperature=-1; expected 0 or more"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0; expected at least 1"),
        ({"top_p": 0}, "top_p=0; expected above 0"),
        ({"min_p": 1}, "min_p=1; expected from 0 to below 1"),
        ({"repetition_penalty": 0.5}, "repetition_penalty=0.5; expected at least 1"),
        ({"window": 0}, "window=0"),
    ],
)
def test_rules_out_of_range_are_refused(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampler(**rules)

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.errors import ArgumentError, ConfigError
from recurra.training.clipping import (
    AdaptiveClipper,
    Clipper,
    NormClipper,
    ValueClipper,
    ZScoreClipper,
    gradient_norm,
    largest_gradient,
    make_clipper,
)

SHAPES = [(3, 4), (5,), (), (2, 3, 2), (0,)]


def parameter(*gradient: float) -> torch.Tensor:
    value = torch.zeros(len(gradient), requires_grad=True)
    value.grad = torch.tensor(gradient)
    return value


def draw_parameters(seed: int, scale: float) -> list[torch.Tensor]:
    """Parameters of many shapes with gradients of many sizes, and one without a gradient."""
    rng = torch.Generator().manual_seed(seed)
    drawn = []
    for shape in SHAPES:
        value = torch.randn(shape, dtype=torch.float64, generator=rng)
        gradient = torch.randn(shape, dtype=torch.float64, generator=rng)
        rows = (*shape[:1], *[1] * (len(shape) - 1))
        size = 10 ** (2 * torch.rand(rows, dtype=torch.float64, generator=rng) - 1)
        gradient *= scale * size
        if len(shape) == 2:
            value[0] = 0.0
        drawn.append(value.requires_grad_())
        drawn[-1].grad = gradient
    return [*drawn, torch.zeros(2, requires_grad=True)]


def gradients_of(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    return [p.grad.clone() for p in parameters if p.grad is not None]


def norm_of(gradients: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(entry) ** 2 for g in gradients for entry in g.flatten()))


def clipped(clipper: Clipper, parameters: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    """Check what one call does to the gradients and what it reports; whether it triggered."""
    before = gradients_of(parameters)
    report = clipper.apply(iter(parameters))
    torch.testing.assert_close(gradients_of(parameters), wanted, rtol=1e-12, atol=0.0)
    assert report.norm == pytest.approx(norm_of(before), rel=1e-12)
    changed = any(not torch.equal(a, b) for a, b in zip(before, wanted, strict=True))
    assert report.triggered is changed
    if not changed:
        assert all(map(torch.equal, gradients_of(parameters), before))
    assert parameters[-1].grad is None
    return changed


def test_norm_is_taken_over_all_gradients_together():
    assert gradient_norm([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]).item() == 5.0
    assert gradient_norm([]).item() == 0.0


def by_norm(p: torch.Tensor, total: float) -> torch.Tensor:
    return p.grad * min(1.0, 0.8 / total)


def by_value(p: torch.Tensor, total: float) -> torch.Tensor:
    entries = [max(-0.8, min(0.8, float(entry))) for entry in p.grad.flatten()]
    return torch.tensor(entries, dtype=torch.float64).reshape(p.shape)


def by_unit(p: torch.Tensor, total: float) -> torch.Tensor:
    rows, weights = (p.grad, p.detach()) if p.dim() > 1 else (p.grad[None], p.detach()[None])
    pairs = zip(rows, weights, strict=True)
    out = [g * min(1.0, 0.8 * max(norm_of([w]), 0.5) / (norm_of([g]) or 1.0)) for g, w in pairs]
    return torch.stack(out).reshape(p.shape)


FORMULAS: list[tuple[Clipper, Callable[[torch.Tensor, float], torch.Tensor]]] = [
    (NormClipper(0.8), by_norm),
    (ValueClipper(0.8), by_value),
    (AdaptiveClipper(0.8, eps=0.5), by_unit),
]


@pytest.mark.parametrize(("clipper", "formula"), FORMULAS)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 0.05, 0.3, 1.0, 50.0]))
def test_gradients_are_clipped_as_the_formula_says(clipper, formula, seed, scale):
    parameters = draw_parameters(seed, scale)
    total = norm_of(gradients_of(parameters))
    wanted = [formula(p, total).clone() for p in parameters if p.grad is not None]
    triggered = clipped(clipper, parameters, wanted)
    if scale in (1e-3, 50.0):
        assert triggered is (scale == 50.0)


def test_adaptive_clipping_takes_rows_of_a_recurrent_weight_one_by_one():
    gru = torch.nn.GRU(3, 2).double()
    weight = gru.weight_ih_l0
    weight.grad = torch.zeros_like(weight)
    weight.grad[4] = 7.0
    AdaptiveClipper(0.1).apply(gru.parameters())
    assert weight.grad[4].norm().item() == pytest.approx(0.1 * weight[4].norm().item(), rel=1e-12)
    assert not weight.grad[:4].any()


def zclip(norms: list[float], limit: float, decay: float, warmup: int) -> list[float]:
    """Norms after clipping, as the paper's authors compute them."""
    out, mean, variance = [], 0.0, 0.0
    for step, norm in enumerate(norms):
        effective = norm
        if step >= warmup:
            if step == warmup:
                mean = sum(norms[:warmup]) / warmup
                variance = sum((other - mean) ** 2 for other in norms[:warmup]) / warmup
            z = (norm - mean) / (variance**0.5 + 1e-6)
            if z > limit:
                effective = mean + limit * variance**0.5 / (z / limit)
            mean = decay * mean + (1 - decay) * effective
            variance = decay * variance + (1 - decay) * (effective - mean) ** 2
        out.append(effective)
    return out


def draw_norms(seed: int, steps: int) -> list[float]:
    """Norms about 1 that drift, with spikes."""
    rng = random.Random(seed)
    level = [math.exp(0.3 * rng.gauss(0.0, 1.0) - step / 200) for step in range(steps)]
    return [norm * rng.choice([1, 1, 1, 1, 1, 1, 1, 4, 30]) for norm in level]


def norms_after(clipper: ZScoreClipper, norms: list[float]) -> list[float]:
    after = []
    for norm in norms:
        value = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        value.grad = torch.tensor([0.6, -0.8], dtype=torch.float64) * norm
        report = clipper.apply([value])
        assert report.norm == pytest.approx(norm, rel=1e-12)
        after.append(float(value.grad.norm()))
        assert report.triggered is (after[-1] < norm * (1 - 1e-12))
        assert torch.allclose(value.grad[1] / value.grad[0], torch.tensor(-4 / 3).double())
    return after


@given(
    seed=st.integers(0, 10_000),
    limit=st.sampled_from([0.5, 2.5]),
    decay=st.sampled_from([0.5, 0.97]),
    warmup=st.sampled_from([2, 25]),
)
def test_zscore_clips_a_series_with_spikes_as_the_paper_does(seed, limit, decay, warmup):
    norms = draw_norms(seed, 120)
    expected = zclip(norms, limit, decay, warmup)
    assert norms_after(ZScoreClipper(limit, decay, warmup), norms) == pytest.approx(
        expected, rel=1e-9
    )


def test_zscore_defaults_are_those_of_the_paper():
    norms = draw_norms(3, 120)
    expected = zclip(norms, 2.5, 0.97, 25)
    assert norms_after(ZScoreClipper(), norms) == pytest.approx(expected, rel=1e-9)
    assert sum(a < b for a, b in zip(expected, norms, strict=True)) > 3


@pytest.mark.parametrize("cut", [0, 7, 25, 60])
def test_zscore_goes_on_from_its_state_with_the_same_bits(cut):
    norms = draw_norms(1, 80)
    first, second, whole = ZScoreClipper(), ZScoreClipper(), ZScoreClipper()
    before = norms_after(first, norms[:cut])
    second.restore(first.state)
    assert before + norms_after(second, norms[cut:]) == norms_after(whole, norms)
    assert second.state == whole.state
    assert first.state["seen"] == cut


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradients_that_are_not_finite_stay_and_leave_no_trace(bad):
    norms = draw_norms(1, 60)
    zscore, undisturbed = ZScoreClipper(), ZScoreClipper()
    norms_after(zscore, norms)
    norms_after(undisturbed, norms)
    for clipper in (zscore, *(clipper for clipper, _ in FORMULAS)):
        value = parameter(bad, 9.0)
        report = clipper.apply([value])
        assert not report.triggered
        assert not math.isfinite(report.norm)
        assert value.grad[1] == 9.0
    assert zscore.state == undisturbed.state


def test_norm_that_the_caller_has_is_not_computed_again():
    value = parameter(3.0, 4.0)
    report = NormClipper(1.0).apply([value], norm=10.0)
    assert report == (10.0, True)
    assert value.grad.tolist() == pytest.approx([0.3, 0.4])


@pytest.mark.parametrize("name", ["norm", "value", "adaptive", "zscore"])
def test_nothing_to_clip_is_no_error(name):
    assert make_clipper(name).apply([]) == (0.0, False)
    assert make_clipper(name).apply([torch.zeros(2, requires_grad=True), parameter()]) == (0, False)


def test_clippers_are_made_by_name_with_their_usual_limits():
    limits = {name: make_clipper(name).limit for name in ("norm", "value", "adaptive", "zscore")}
    assert limits == {"norm": 1.0, "value": 1.0, "adaptive": 0.01, "zscore": 2.5}
    assert isinstance(make_clipper("zscore", 3.0), ZScoreClipper)
    assert make_clipper("adaptive", 3.0).limit == 3.0
    with pytest.raises(ConfigError, match="unknown way of clipping 'nrom'; did you mean 'norm'"):
        make_clipper("nrom")


def test_wrong_numbers_are_named():
    with pytest.raises(ConfigError, match=r"NormClipper: limit=0.0; expected a positive, finite"):
        NormClipper(0.0)
    with pytest.raises(ConfigError, match=r"ValueClipper: limit=inf"):
        ValueClipper(math.inf)
    with pytest.raises(ConfigError, match=r"AdaptiveClipper: eps=-1"):
        AdaptiveClipper(eps=-1)
    with pytest.raises(ConfigError, match=r"decay=1.0 and warmup_steps=25; expected decay between"):
        ZScoreClipper(decay=1.0)
    with pytest.raises(ConfigError, match=r"warmup_steps=1; .* at least 2 steps"):
        ZScoreClipper(warmup_steps=1)
    with pytest.raises(ConfigError, match=r"the state to restore has \[\]; expected \['mean', "):
        ZScoreClipper().restore({})
    with pytest.raises(ConfigError, match=r"the state to restore has a NoneType; expected \[\]"):
        NormClipper().restore(None)
    for wrong in ("1", [1.0], True, None):
        with pytest.raises(
            ConfigError, match=r"NormClipper: limit=.*; expected a positive, finite"
        ):
            NormClipper(wrong)
    NormClipper().restore(NormClipper().state)


def test_largest_gradient_is_found_by_size_and_nan_wins_over_infinity():
    named = {"a": parameter(1.0, -9.0), "b": parameter(5.0), "none": torch.zeros(1)}
    assert largest_gradient(named) == ("a", 9.0)
    named["c"] = parameter(0.0, -math.inf)
    assert largest_gradient(named) == ("c", math.inf)
    named["d"] = parameter(0.0, math.nan)
    name, size = largest_gradient(named)
    assert name == "d"
    assert math.isnan(size)


def test_one_parameter_alone_is_clipped_as_a_whole() -> None:
    weight = torch.nn.Parameter(torch.zeros(3, 4))
    weight.grad = torch.full((3, 4), 1e9)
    report = make_clipper("norm", 1.0).apply(weight)
    assert report.triggered
    assert float(weight.grad.norm()) == pytest.approx(1.0)


def test_what_holds_no_parameters_is_told_to_pass_them() -> None:
    model, clipper = torch.nn.Linear(3, 4), make_clipper("norm")
    start = "NormClipper: parameters is"
    for wrong, said in (
        (model, "a Linear;"),
        (torch.nn.Sequential(model), "a Sequential with a Linear in it;"),
        (dict(model.named_parameters()), "a dict with a str in it;"),
        (list(model.named_parameters()), "a list with a tuple in it;"),
        (None, "a NoneType;"),
    ):
        with pytest.raises(ArgumentError, match=rf"{start} {said} .*Pass model\.parameters\(\)"):
            clipper.apply(wrong)
    assert clipper.apply(torch.nn.ParameterList(model.parameters())) == (0.0, False)

"""Scans: every way of running one against rows worked out one by one, and the laws of time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from recurra.errors import ConfigError, ShapeError
from recurra.kernels import core, cpu, scan
from recurra.kernels.scan import linear_scan, min_gru_scan

KINDS = ("linear", "min_gru", "min_gru_plain")
# How a scan is run: "reference", or a level of the compiled core.
WAYS = ["reference", *([] if core.module is None else core.module.levels())]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6}

needs_core = pytest.mark.skipif(core.module is None, reason="the compiled core is not built here")
quick = settings(max_examples=25, deadline=None, derandomize=True)


@contextmanager
def running(way: str, threads: int = 0, slices: int = 0) -> Iterator[None]:
    """All scans inside go this way."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "reference":
            patch.setattr(core, "module", None)
        else:
            patch.setattr(cpu, "choice", cpu.Choice(way, threads, slices))
        yield


def run(kind: str, a: Tensor, b: Tensor, h_0: Tensor | None = None, **asked: Any):
    if kind == "linear":
        return linear_scan(a, b, h_0, **asked)
    return min_gru_scan(a, b, h_0, positive=kind == "min_gru", **asked)


@dataclass(frozen=True)
class Case:
    """Random inputs; a and b are (B, T, H) whatever batch_first says."""

    kind: str
    shape: tuple[int, int, int]
    dtype: torch.dtype = torch.float32
    ragged: bool = False
    reset: bool = False
    reverse: bool = False
    batch_first: bool = True
    given_state: bool = True
    seed: int = 0

    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        rng = torch.Generator().manual_seed(self.seed)
        batch, _, width = self.shape
        a = torch.randn(self.shape, generator=rng, dtype=self.dtype)
        if self.kind == "linear":
            a = a.tanh()
        b = torch.randn(self.shape, generator=rng, dtype=self.dtype)
        h_0 = torch.randn(batch, width, generator=rng, dtype=self.dtype)
        return a, b, h_0 if self.given_state else None

    def asked(self) -> dict[str, Any]:
        rng = torch.Generator().manual_seed(self.seed + 1)
        batch, time, _ = self.shape
        lengths = torch.randint(0, time + 1, (batch,), generator=rng) if self.ragged else None
        reset = torch.rand(batch, time, generator=rng) < 0.3 if self.reset else None
        return {"lengths": lengths, "reset": reset, "reverse": self.reverse}

    def run(self, *tensors: Tensor | None):
        """h as (B, T, H) and the final h."""
        a, b, h_0 = tensors
        if self.batch_first:
            return run(self.kind, a, b, h_0, **self.asked())
        a, b = a.transpose(0, 1).contiguous(), b.transpose(0, 1).contiguous()
        h, h_n = run(self.kind, a, b, h_0, **self.asked(), batch_first=False)
        return h.transpose(0, 1), h_n

    def row_by_row(self, *tensors: Tensor | None):
        """The same from the equations, for each row by itself."""
        a, b, h_0 = tensors
        batch, time, width = self.shape
        asked = self.asked()
        rows, ends = [], []
        for row in range(batch):
            length = time if asked["lengths"] is None else int(asked["lengths"][row])
            h = a.new_zeros(width) if h_0 is None else h_0[row]
            over_time = [a.new_zeros(width)] * time
            for t in range(length - 1, -1, -1) if self.reverse else range(length):
                if asked["reset"] is not None and asked["reset"][row, t]:
                    h = torch.zeros_like(h)
                first, second = a[row, t], b[row, t]
                if self.kind == "linear":
                    h = first * h + second
                else:
                    z, candidate = first.sigmoid(), second
                    if self.kind == "min_gru":
                        candidate = torch.where(second >= 0, second + 0.5, second.sigmoid())
                    h = (1 - z) * h + z * candidate
                over_time[t] = h
            rows.append(torch.stack(over_time) if time else a[row])
            ends.append(h)
        if not batch:
            return a * b, a.new_zeros(0, width)
        return torch.stack(rows), torch.stack(ends)

    def leaves(self) -> list[Tensor | None]:
        return [None if t is None else t.requires_grad_() for t in self.tensors()]


def weights_like(results: Any, seed: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed + 2)
    return [torch.randn(r.shape, generator=rng, dtype=r.dtype) for r in results]


def gradients(
    results: Any, leaves: Any, seed: int = 0, d_results: list[Tensor] | None = None
) -> list[Tensor]:
    """Of a weighted sum of all results, so that gradient arrives everywhere."""
    present = [leaf for leaf in leaves if leaf is not None]
    pairs = zip(results, d_results or weights_like(results, seed), strict=True)
    pairs = [(result, d) for result, d in pairs if result.requires_grad]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in present]
    found = torch.autograd.grad(
        [result for result, _ in pairs],
        present,
        [d for _, d in pairs],
        retain_graph=True,
        allow_unused=True,
    )
    return [torch.zeros_like(p) if d is None else d for p, d in zip(present, found, strict=True)]


def same(way: str, value: Tensor, other: Tensor) -> bool:
    """Equal bits from the core; torch's sigmoid depends on where in a tensor a number stands."""
    if way == "reference":
        return torch.allclose(value, other, rtol=0, atol=1e-6)
    return torch.equal(value, other)


def assert_close(values: Any, truths: Any, dtype: torch.dtype) -> None:
    for value, truth in zip(values, truths, strict=True):
        value, truth = value.detach(), truth.detach()
        largest = float(truth.abs().max()) if truth.numel() else 0.0
        tolerance = TOLERANCE[dtype] * max(1.0, largest)
        torch.testing.assert_close(value, truth, rtol=0, atol=tolerance)


widths = st.one_of(st.integers(0, 40), st.sampled_from([63, 64, 65, 128, 1023, 1025, 2060]))
cases = st.builds(
    Case,
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(0, 5), st.integers(0, 7), widths),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    ragged=st.booleans(),
    reset=st.booleans(),
    reverse=st.booleans(),
    batch_first=st.booleans(),
    given_state=st.booleans(),
    seed=st.integers(0, 1000),
)


@pytest.mark.parametrize("way", WAYS)
@settings(quick, max_examples=60)
@given(case=cases, slices=st.integers(0, 5))
def test_every_way_equals_rows_worked_out_one_by_one(way: str, case: Case, slices: int) -> None:
    true_leaves = case.leaves()
    truths = case.row_by_row(*true_leaves)
    leaves = case.leaves()
    with running(way, slices=slices):
        results = case.run(*leaves)
        with torch.no_grad():
            plain = case.run(*leaves)
        found = gradients(results, leaves, case.seed)
    assert [r.shape for r in results] == [t.shape for t in truths]
    assert all(torch.equal(r, p) for r, p in zip(results, plain, strict=True))
    assert_close(results, truths, case.dtype)
    assert_close(found, gradients(truths, true_leaves, case.seed), case.dtype)


@needs_core
@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_batch_layout_shares_or_threads(way: str, kind: str) -> None:
    case = Case(kind, (5, 90, 203), ragged=True, reset=True)
    leaves = case.leaves()
    asked = case.asked()

    def everything(now: Case, threads: int, slices: int) -> list[Tensor]:
        with running(way, threads, slices):
            results = now.run(*leaves)
            return [*results, *gradients(results, leaves)]

    whole = everything(case, 1, 1)
    for threads, slices in ((2, 0), (1, 2), (1, 7), (2, 64), (1, 1000)):
        for value, other in zip(everything(case, threads, slices), whole, strict=True):
            assert torch.equal(value, other), (threads, slices)
    for value, other in zip(everything(replace(case, batch_first=False), 1, 3), whole, strict=True):
        assert torch.equal(value, other)
    a, b, h_0 = (leaf.detach() for leaf in leaves)
    for row in range(5):
        for c in (slice(0, 1), slice(3, 120)):
            rows = slice(row, row + 1)
            given = {"lengths": asked["lengths"][rows], "reset": asked["reset"][rows]}
            with running(way):
                alone = run(kind, a[rows, :, c], b[rows, :, c], h_0[rows, c], **given)
            assert torch.equal(alone[0], whole[0][rows, :, c])
            assert torch.equal(alone[1], whole[1][rows, c])


@needs_core
@pytest.mark.parametrize("batch_first", [True, False])
def test_rows_that_nothing_tells_apart_are_worked_on_as_one(batch_first: bool) -> None:
    case = Case("min_gru", (6, 50, 21), batch_first=batch_first)
    leaves = case.leaves()
    with running("", slices=3):
        results = case.run(*leaves)
        found = gradients(results, leaves)
        full = torch.full((6, 50), False)
        a, b, h_0 = leaves
        apart = min_gru_scan(a, b, h_0, reset=full)
        for value, other in zip(
            (*results, *found), (*apart, *gradients(apart, leaves)), strict=True
        ):
            assert torch.equal(value, other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_and_single_steps_equal_the_whole(way: str, kind: str, reverse: bool) -> None:
    a, b, h_0 = Case(kind, (3, 11, 19)).tensors()
    with running(way):
        whole, final = run(kind, a, b, h_0, reverse=reverse)
        for cuts in ([0, 4, 11], [0, 0, 10, 11], list(range(12))):
            pieces, state = [], h_0
            parts = list(pairwise(cuts))
            for begin, end in reversed(parts) if reverse else parts:
                h, state = run(kind, a[:, begin:end], b[:, begin:end], state, reverse=reverse)
                pieces.append(h)
            if reverse:
                pieces.reverse()
            assert same(way, torch.cat(pieces, 1), whole)
            assert same(way, state, final)


@pytest.mark.parametrize("way", WAYS)
@settings(quick, max_examples=40)
@given(case=cases)
def test_padding_even_nan_changes_neither_values_nor_gradients(way: str, case: Case) -> None:
    case = replace(case, ragged=True)
    lengths = case.asked()["lengths"]
    past = (torch.arange(case.shape[1]) >= lengths.unsqueeze(1)).unsqueeze(-1)
    outcomes = []
    for filler in (0.0, math.nan):
        a, b, h_0 = case.tensors()
        leaves = [a.masked_fill(past, filler), b.masked_fill(past, filler), h_0]
        leaves = [None if leaf is None else leaf.requires_grad_() for leaf in leaves]
        with running(way):
            results = case.run(*leaves)
            d_results = weights_like(results, case.seed)
            # What comes back into the padding changes nothing either.
            d_results[0] = d_results[0].masked_fill(past, filler)
            found = gradients(results, leaves, d_results=d_results)
        assert not results[0].masked_select(past).any()
        assert not found[0].masked_select(past).any()
        assert not found[1].masked_select(past).any()
        outcomes.append([*results, *found])
    for value, other in zip(*outcomes, strict=True):
        assert same(way, value, other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_length_0_ends_where_it_began(way: str, kind: str) -> None:
    a, b, h_0 = Case(kind, (2, 3, 5)).leaves()
    lengths = torch.tensor([0, 3])
    with running(way):
        h, h_n = run(kind, a, b, h_0, lengths=lengths)
        (d_h_0,) = torch.autograd.grad(h_n[0].sum(), h_0)
        assert not run(kind, a, b, lengths=lengths)[1][0].any()
    assert same(way, h_n[0], h_0[0])
    assert not h[0].any()
    assert d_h_0.tolist() == [[1.0] * 5, [0.0] * 5]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_reset_is_a_fresh_start_and_stops_the_gradient(way: str, kind: str) -> None:
    a, b, h_0 = Case(kind, (3, 9, 10)).leaves()
    reset = torch.zeros(3, 9, dtype=torch.bool)
    reset[:, 4] = True
    with running(way):
        h, h_n = run(kind, a, b, h_0, reset=reset)
        before = run(kind, a[:, :4], b[:, :4], h_0)
        after = run(kind, a[:, 4:], b[:, 4:])
        assert same(way, h, torch.cat([before[0], after[0]], 1))
        assert same(way, h_n, after[1])
        d_a, d_b, d_h_0 = torch.autograd.grad(h[:, 4:].sum(), (a, b, h_0))
        assert not d_a[:, :4].any()
        assert not d_b[:, :4].any()
        assert not d_h_0.any()
        assert d_b[:, 4:].all()

        # Backwards, the reset of step 4 acts after step 5.
        h, h_n = run(kind, a, b, h_0, reset=reset, reverse=True)
        first = run(kind, a[:, 5:], b[:, 5:], h_0, reverse=True)
        second = run(kind, a[:, :5], b[:, :5], reverse=True)
        assert same(way, h, torch.cat([second[0], first[0]], 1))
        assert same(way, h_n, second[1])

        ragged = {"lengths": torch.tensor([4, 4, 4])}
        held = run(kind, a, b, h_0, **ragged)
        with_reset = run(kind, a, b, h_0, **ragged, reset=reset)
        assert same(way, held[1], with_reset[1]), "a reset in the padding does nothing"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_reverse_is_each_row_turned_round_on_its_own(way: str, kind: str) -> None:
    case = Case(kind, (4, 8, 13), ragged=True)
    a, b, h_0 = case.tensors()
    lengths = torch.tensor([8, 3, 0, 5])
    with running(way):
        h, h_n = run(kind, a, b, h_0, lengths=lengths, reverse=True)
        for row, length in enumerate(lengths.tolist()):
            turned = (x[row : row + 1, :length].flip(1) for x in (a, b))
            alone, end = run(kind, *turned, h_0[row : row + 1])
            assert same(way, h[row : row + 1, :length], alone.flip(1))
            assert same(way, h_n[row : row + 1], end)


def test_a_ramp_of_integers() -> None:
    b = torch.arange(1.0, 5.0).view(1, 4, 1)
    h, h_n = linear_scan(torch.full((1, 4, 1), 2.0), b, torch.tensor([[100.0]]))
    assert h.flatten().tolist() == [201, 404, 811, 1626]
    assert h_n.tolist() == [[1626]]
    h, h_n = linear_scan(torch.full((1, 4, 1), 2.0), b, torch.tensor([[100.0]]), reverse=True)
    assert h.flatten().tolist() == [1649, 824, 411, 204]
    assert h_n.tolist() == [[1649]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_by_finite_differences(way: str, kind: str, reverse: bool) -> None:
    case = Case(kind, (3, 5, 9), torch.float64, ragged=True, reset=True, reverse=reverse, seed=3)
    leaves = case.leaves()
    with running(way):
        assert torch.autograd.gradcheck(case.run, leaves)
    case = replace(case, shape=(2, 3, 2), batch_first=False)
    with running(way):
        assert torch.autograd.gradgradcheck(case.run, case.leaves())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
@pytest.mark.parametrize("result", [0, 1])
def test_some_gradients_from_one_result(
    way: str, kind: str, wanted: tuple[int, ...], result: int
) -> None:
    case = Case(kind, (3, 6, 18), torch.float64, ragged=True, reset=True)
    truths = []
    for function in (case.run, case.row_by_row):
        leaves = [t.requires_grad_(n in wanted) for n, t in enumerate(case.tensors())]
        asked_for = [leaves[n] for n in wanted]
        with running(way):
            results = function(*leaves)
            truths.append(torch.autograd.grad(results[result].square().sum(), asked_for))
    assert_close(*truths, torch.float64)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_may_be_walked_twice(way: str, kind: str) -> None:
    leaves = Case(kind, (2, 7, 20)).leaves()
    with running(way):
        results = run(kind, *leaves)
        first, second = gradients(results, leaves), gradients(results, leaves)
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)


@needs_core
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changed", ["a", "b", "h_0", "lengths", "reset"])
def test_a_change_in_place_before_backward_is_noticed(kind: str, changed: str) -> None:
    case = Case(kind, (2, 4, 3), ragged=True, reset=True)
    leaves = case.leaves()
    asked = {**case.asked(), "lengths": torch.tensor([1, 3])}
    given = dict(zip(("a", "b", "h_0"), (leaf * 1 for leaf in leaves), strict=True))
    h, _ = run(kind, **given, **asked)
    (given | asked)[changed].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_left_as_they_were(kind: str) -> None:
    case = Case(kind, (3, 5, 9), ragged=True, reset=True)
    leaves, copies = case.leaves(), case.tensors()
    case.run(*leaves)[0].sum().backward()
    for leaf, copied in zip(leaves, copies, strict=True):
        assert torch.equal(leaf, copied)


@pytest.mark.parametrize("kind", KINDS)
def test_inside_torch_func(kind: str) -> None:
    a, b, h_0 = Case(kind, (6, 5, 4), torch.float64).tensors()
    reset = torch.zeros(2, 5, dtype=torch.bool)
    reset[1, 3] = True
    stacked = [x.view(3, 2, *x.shape[1:]) for x in (a, b, h_0)]

    def total(a: Tensor, b: Tensor, h_0: Tensor) -> Tensor:
        h, h_n = run(kind, a, b, h_0, reset=reset)
        return h.square().sum() + h_n.sum()

    per_group = torch.func.vmap(torch.func.grad(total, argnums=(0, 1, 2)))(*stacked)
    for group in range(3):
        leaves = [x[group].clone().requires_grad_() for x in stacked]
        truth = torch.autograd.grad(total(*leaves), leaves)
        assert_close([d[group] for d in per_group], truth, torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_one_whole_graph_of_torch_compile(kind: str) -> None:
    tensors = Case(kind, (2, 5, 4), torch.float64).tensors()
    torch._dynamo.reset()
    graph = torch.compile(lambda *given: run(kind, *given), fullgraph=True, backend="eager")
    assert_close(graph(*tensors), run(kind, *tensors), torch.float64)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_forward_mode_derivatives(kind: str) -> None:
    tensors = Case(kind, (2, 5, 4), torch.float64).tensors()
    tangents = Case(kind, (2, 5, 4), torch.float64, seed=9).tensors()
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, d) for t, d in zip(tensors, tangents, strict=True)]
        moved = forward_ad.unpack_dual(run(kind, *duals)[0]).tangent
    step = 1e-6
    ahead, behind = (
        run(kind, *(t + sign * step * d for t, d in zip(tensors, tangents, strict=True)))[0]
        for sign in (1, -1)
    )
    torch.testing.assert_close(moved, (ahead - behind) / (2 * step), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_are_computed_in_float32(way: str, dtype: torch.dtype) -> None:
    a, b, h_0 = (t.to(dtype) for t in Case("min_gru", (2, 50, 9)).tensors())
    short = [t.clone().requires_grad_() for t in (a, b, h_0)]
    long = [t.float().requires_grad_() for t in (a, b, h_0)]
    with running(way):
        results, truths = min_gru_scan(*short), min_gru_scan(*long)
        found = torch.autograd.grad(results[0].sum(), short)
        true_gradients = torch.autograd.grad(truths[0].sum(), long)
    assert results[0].dtype == results[1].dtype == found[0].dtype == dtype
    for value, truth in zip((*results, *found), (*truths, *true_gradients), strict=True):
        assert torch.equal(value, truth.to(dtype))


# Largest errors of h, absolute, and of gradients, relative to the largest entry, over 4,096 steps.
ERRORS = {"linear": (3e-7, 5e-7), "min_gru": (1e-6, 5e-7), "min_gru_plain": (1e-6, 5e-7)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_error_of_float32_over_4096_steps(way: str, kind: str) -> None:
    rng = torch.Generator().manual_seed(7)
    shape = (2, 4096, 40)
    # A gate mostly near 0, so that h remembers tens of steps and more.
    a = torch.randn(shape, generator=rng) - 3
    if kind == "linear":
        a = torch.sigmoid(-a)
    b = torch.randn(shape, generator=rng) * (0.05 if kind == "linear" else 1)
    weights = torch.randn(shape, generator=rng)
    outcomes = []
    for dtype in (torch.float32, torch.float64):
        leaves = [t.to(dtype).requires_grad_() for t in (a, b)]
        with running(way if dtype == torch.float32 else "reference"):
            h, _ = run(kind, *leaves)
            d = torch.autograd.grad((h * weights.to(dtype)).sum(), leaves)
        outcomes.append((h.detach().double(), *(part.double() for part in d)))
    (h, *found), (true_h, *truths) = outcomes
    of_h, of_gradients = ERRORS[kind]
    assert float((h - true_h).abs().max()) < of_h
    for d, truth in zip(found, truths, strict=True):
        assert float((d - truth).abs().max() / truth.abs().max()) < of_gradients


@pytest.mark.parametrize("way", WAYS)
def test_min_gru_agrees_with_its_authors_log_space_scan(way: str) -> None:
    k, v, h_0 = Case("min_gru", (3, 40, 6), torch.float64).tensors()
    h_0 = h_0.exp()
    log_g = torch.where(v >= 0, (v.relu() + 0.5).log(), -torch.nn.functional.softplus(-v))
    log_keep = -torch.nn.functional.softplus(k)
    log_add = -torch.nn.functional.softplus(-k) + log_g
    kept = torch.nn.functional.pad(log_keep.cumsum(1), (0, 0, 1, 0))
    added = torch.cat([h_0.log().unsqueeze(1), log_add], 1)
    truth = (kept + (added - kept).logcumsumexp(1)).exp()[:, 1:]
    with running(way):
        h, _ = min_gru_scan(k, v, h_0)
    torch.testing.assert_close(h, truth, rtol=1e-11, atol=0)


@pytest.mark.parametrize("way", WAYS)
def test_the_candidate_is_g_on_both_sides_of_0(way: str) -> None:
    v = torch.tensor([-1e30, -100.0, -1.0, -0.0, 0.0, 2.0, 1e30, math.nan]).view(1, 1, 8)
    k = torch.full((1, 1, 8), 1e30).requires_grad_()
    v.requires_grad_()
    with running(way):
        h, _ = min_gru_scan(k, v)
        (d_v,) = torch.autograd.grad(h.sum(), v)
    h = h.detach()
    truth = [0.0, 0.0, 1 / (1 + math.e), 0.5, 0.5, 2.5, 1e30]
    assert h.flatten()[:7].tolist() == pytest.approx(truth, rel=1e-6, abs=1e-7)
    assert math.isnan(h.flatten()[7])
    slope = truth[2] * (1 - truth[2])
    assert d_v.flatten()[:7].tolist() == pytest.approx([0, 0, slope, 1, 1, 1, 1], abs=1e-7)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_layout_of_memory_gives_another_number(way: str, kind: str) -> None:
    a, b, h_0 = Case(kind, (4, 6, 8)).tensors()
    reset = Case(kind, (4, 6, 8), reset=True).asked()["reset"]
    lengths = torch.tensor([6, 2, 5, 0])
    with running(way):
        truths = run(kind, a, b, h_0, lengths=lengths, reset=reset)

        def check(a: Tensor, b: Tensor, h_0: Tensor, **given: Any) -> None:
            given = {"lengths": lengths, "reset": reset, **given}
            results = run(kind, a, b, h_0, **given)
            assert all(same(way, r, t) for r, t in zip(results, truths, strict=True))

        check(strided(a), strided(b), strided(h_0))
        check(a.permute(2, 1, 0).contiguous().permute(2, 1, 0), b, h_0.t().contiguous().t())
        check(torch.cat([a, a], 2)[..., :8], torch.cat([b, b], 1)[:, :6], h_0)
        check(misaligned(a), misaligned(b), misaligned(h_0))
        check(torch._neg_view(-a), torch._neg_view(-b), torch._neg_view(-h_0))
        check(a, b, h_0, lengths=strided(lengths), reset=reset.t().contiguous().t())
        check(a, b, h_0, lengths=lengths.int())

        first = a[:, :1].expand(4, 6, 8)
        spread = run(kind, first, b, h_0)
        copied = run(kind, first.contiguous(), b, h_0)
        assert same(way, spread[0], copied[0])

        # The gradient of a sum has strides of 0, others come transposed.
        leaves = [t.clone().requires_grad_() for t in (a, b, h_0)]
        results = run(kind, *leaves)
        found = torch.autograd.grad(results[0].sum(), leaves, retain_graph=True)
        full = torch.ones(8, 6, 4).permute(2, 1, 0)
        dense = torch.autograd.grad(results[0], leaves, full)
        assert all(same(way, f, d) for f, d in zip(found, dense, strict=True))


def strided(tensor: Tensor) -> Tensor:
    """The same values, every second element of a larger tensor."""
    return torch.stack([tensor, torch.zeros_like(tensor)], -1)[..., 0]


def misaligned(tensor: Tensor) -> Tensor:
    """The same values one byte past where their type would lie."""
    room = np.zeros(tensor.numel() * 4 + 1, dtype=np.uint8)
    values = room[1:].view(np.float32).reshape(tensor.shape)
    values[...] = tensor.numpy()
    return torch.from_numpy(values)


@pytest.mark.parametrize("name", ["linear_scan", "min_gru_scan"])
def test_errors_name_the_argument_and_what_to_do(name: str) -> None:
    function = getattr(scan, name)
    first, second = ("a", "b") if name == "linear_scan" else ("k", "v")
    x, h_0 = torch.zeros(2, 5, 3), torch.zeros(2, 3)

    def says(*parts: str, a: Any = x, b: Any = x, error: type = ShapeError, **given: Any) -> None:
        with pytest.raises(error) as caught:
            function(a, b, **given)
        message = str(caught.value)
        for part in (name, *parts):
            assert part in message

    says(first, "list", "(batch, time, feature)", f"torch.as_tensor({first})", a=[1.0])
    says(second, "torch.int64", f"{second}.float()", b=x.long())
    says(first, "sparse", f"{first}.to_dense()", a=x.to_sparse())
    says("2 axes", "(5, 3)", f"{first}.unsqueeze(0)", a=x[0], b=x[0])
    says("(time, batch, feature)", f"{first}.unsqueeze(1)", a=x[0], b=x[0], batch_first=False)
    says(second, "(2, 5, 4)", "(2, 5, 3)", "broadcast_tensors", b=torch.zeros(2, 5, 4))
    says(second, "torch.float64", "torch.float32", f"{second}.to({first}.dtype)", b=x.double())
    says(second, "meta", "cpu", f"{second}.to({first}.device)", b=x.to("meta"))
    says("h_0", "(3, 2)", "(2, 3)", h_0=h_0.t())
    says("h_0", "(2, 3)", "(5, 3)", h_0=h_0, batch_first=False)
    says("h_0", "torch.float64", f"h_0.to({first}.dtype)", h_0=h_0.double())
    says("lengths[1]", "6", "0..5", lengths=torch.tensor([0, 6]))
    says("lengths", "(3,)", "2 sequences", lengths=torch.tensor([1, 2, 3]))
    says("reset", "(5, 2)", "(2, 5)", reset=torch.zeros(5, 2, dtype=torch.bool))
    says("reverse", "1", "True or False", reverse=1, error=ConfigError)
    says("batch_first", "None", "True or False", batch_first=None, error=ConfigError)
    if name == "min_gru_scan":
        says("positive", "'yes'", "True or False", positive="yes", error=ConfigError)

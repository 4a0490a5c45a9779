"""The scan backend: what it refuses, its turning frame, and how it stays the reference."""

from __future__ import annotations

import pytest
import torch
from tests.cells.linear_cases import drawn, parameters
from torch import Tensor

from recurra.cells.cell import Masks, Params
from recurra.cells.gru import GRU
from recurra.cells.linear import LinearCell
from recurra.cells.lru import LRU
from recurra.cells.min_gru import MinGRU
from recurra.cells.min_lstm import MinLSTM
from recurra.cells.rg_lru import RGLRU
from recurra.errors import BackendError
from recurra.kernels import core, dispatch, reference, scan, scanned
from recurra.kernels.sequence import Features, Sequence, Zoneout, check_lengths

CPU = torch.device("cpu")
CELLS = {
    "MinGRU": MinGRU(3, 4),
    "MinLSTM": MinLSTM(3, 4, positive=False),
    "RGLRU": RGLRU(3, 4, num_heads=2),
    "LRU": LRU(3, 4),
}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
needs_core = pytest.mark.skipif(core.module is None, reason="the compiled core is not built here")


def call_of(cell: LinearCell, time: int, batch: int = 2, dtype=torch.float64) -> Sequence:
    """A ragged call with a state and resets."""
    rng = torch.Generator().manual_seed(7)
    params = {name: (0.5 * value).to(dtype) for name, value in parameters(cell).items()}
    x = torch.randn(batch, time, cell.input_size, generator=rng, dtype=torch.float64).to(dtype)
    width = cell.state_sizes()["h"]
    h_0 = torch.randn(batch, width, generator=rng, dtype=torch.float64).to(dtype)
    lengths = torch.randint(0, time + 1, (batch,), generator=rng)
    reset = torch.rand(batch, time, generator=rng) < 0.05
    checked = check_lengths(lengths, batch, time, CPU, "call")
    return Sequence(cell, x, params, cell.make_state(h_0), lengths=checked, reset=reset)


def found_by(backend, call: Sequence) -> tuple[Tensor, ...]:
    """Output, final h, and the gradients of everything."""
    leaves = [call.x, *call.params.values(), *(call.state or ())]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    x, *rest = leaves
    params = dict(zip(call.params, rest, strict=False))
    state = None if call.state is None else call.cell.make_state(rest[-1])
    output, final = backend.run(call._replace(x=x, params=params, state=state))
    factors = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    total = (output * factors).sum() + final[0].square().sum()
    found = torch.autograd.grad(total, leaves)
    return output.detach(), final[0].detach(), *found


def assert_alike(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for actual, true in zip(found, expected, strict=True):
        largest = max(1.0, float(true.abs().max()))
        torch.testing.assert_close(actual, true, rtol=1e-10, atol=1e-12 * largest)


@pytest.mark.parametrize(
    ("cell", "features", "dtype", "message"),
    [
        (GRU(2, 3), {}, torch.float32, "it runs linear recurrences only, and the cell is GRU"),
        (MinGRU(2, 3), {}, torch.int64, r"it has no torch\.int64"),
        (MinGRU(2, 3), {"masks": True}, torch.float32, "no product with h"),
        (LRU(2, 3), {"zoneout": True}, torch.float32, "zoneout keeps parts of h from turning"),
    ],
)
def test_what_it_cannot_run_says_why(cell, features, dtype, message) -> None:
    with pytest.raises(BackendError, match=rf"'scan' cannot run this {cell.name}: .*{message}"):
        dispatch.select("scan", cell, Features(2, 3, **features), dtype, CPU)


def test_auto_takes_the_scan_wherever_it_can() -> None:
    everything = Features(2, 3, lengths=True, reset=True, reverse=True, zoneout=True)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert dispatch.select("auto", RGLRU(2, 3), everything, dtype, CPU) == "scan"
        assert dispatch.select("auto", LRU(2, 3), everything, dtype, CPU) == "reference"
        assert dispatch.select("auto", LRU(2, 3), Features(2, 3), dtype, CPU) == "scan"


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("block", "time"), [(4, 0), (4, 3), (4, 4), (4, 5), (3, 19), (256, 300)])
def test_blocks_of_the_turning_frame_are_not_to_be_seen(
    monkeypatch, cell, reverse, batch_first, block, time
) -> None:
    monkeypatch.setattr(scanned, "BLOCK", block)
    call = call_of(cell, time, batch=5)._replace(reverse=reverse, batch_first=batch_first)
    if not batch_first:
        call = call._replace(x=call.x.transpose(0, 1))
    for asked in (call, call._replace(lengths=None), call._replace(reset=None, state=None)):
        output, final = scanned.run(asked)
        true_output, true_final = reference.run(asked)
        torch.testing.assert_close((output, *final), (true_output, *true_final))
        if time > 0:
            assert_alike(found_by(scanned, asked), found_by(reference, asked))


@needs_core
@pytest.mark.parametrize(
    "cell",
    # Products of one number each: torch's own sums may depend on how many rows there are.
    [
        MinGRU(1, 4, bias=False),
        MinLSTM(1, 4, bias=False),
        RGLRU(1, 4, bias=False, num_heads=4),
    ],
    ids=lambda cell: cell.name,
)
def test_time_in_pieces_has_the_bits_of_the_whole(cell) -> None:
    call = call_of(cell, 40, dtype=torch.float32)._replace(lengths=None)
    output, final = scanned.run(call)
    state, outputs = call.state, []
    for begin in range(0, 40, 8):
        own = slice(begin, begin + 8)
        piece = call._replace(x=call.x[:, own], reset=call.reset[:, own], state=state)
        y, state = scanned.run(piece)
        outputs.append(y)
    assert torch.equal(torch.cat(outputs, 1), output)
    assert torch.equal(state[0], final[0])


@pytest.mark.parametrize("make", [MinGRU, MinLSTM])
def test_the_fused_scan_of_gates_is_the_scan_of_their_coefficients(monkeypatch, make) -> None:
    cell = make(3, 4)
    call = call_of(cell, 30)
    fused = found_by(scanned, call)
    monkeypatch.setattr(scanned, "MinimalCell", type(None))
    monkeypatch.setattr(
        scanned, "min_gru_scan", lambda *a, **k: pytest.fail("the fused scan was taken")
    )
    assert_alike(found_by(scanned, call), fused)


def test_minimal_cells_are_fused_unless_zoneout_is_an_expectation(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        scanned, "min_gru_scan", lambda *a, **k: seen.append("fused") or scan.min_gru_scan(*a, **k)
    )
    call = call_of(MinGRU(3, 4), 5)
    drawn_keep = torch.zeros(2, 5, 4, dtype=torch.float64)
    for keep, fused in ((None, 1), (0.0, 1), (drawn_keep, 1), (0.3, 0)):
        seen.clear()
        scanned.run(call._replace(zoneout=None if keep is None else Zoneout((keep,))))
        assert len(seen) == fused, keep


@every_cell
def test_error_of_float32_over_4096_steps(cell) -> None:
    """Against float64: the angle of an LRU of long memory has turned by thousands of radians."""
    if isinstance(cell, LRU):
        cell = LRU(3, 4, r_min=0.99, r_max=0.999)
    short = {name: value.requires_grad_() for name, value in drawn(cell).items()}
    x = torch.randn(2, 4096, 3, generator=torch.Generator().manual_seed(7))
    call = Sequence(cell, x, short)
    long = call._replace(
        x=x.double(), params={name: value.double() for name, value in short.items()}
    )
    for number, (actual, true) in enumerate(
        zip(found_by(scanned, call), found_by(scanned, long), strict=True)
    ):
        worst = (actual - true).abs().max() / true.abs().max()
        assert worst < (2e-5 if number < 2 else 1e-4), number


def test_4096_steps_of_an_lru_are_powers_of_its_eigenvalues() -> None:
    cell = LRU(1, 1)
    params = {
        "weight_ih": torch.tensor([[1.0], [0.0], [0.0]]),
        "weight_ho": torch.tensor([[1.0, 0.0]]),
        "nu": torch.tensor([1e-4]).log(),
        "theta": torch.tensor([1.5]).log(),
        "gamma": torch.zeros(1),
    }
    x = torch.zeros(1, 4096, 1)
    x[0, 0] = 1
    output, _ = scanned.run(Sequence(cell, x, params))
    # The size of λ as float32 has it, so that what is left is the error of the angle.
    size, angle = torch.exp(-params["nu"].exp()).double(), params["theta"].double().exp()
    times = torch.arange(4096, dtype=torch.float64)
    assert (output.flatten() - size**times * torch.cos(angle * times)).abs().max() < 5e-6


def test_the_gradient_of_the_angle_keeps_its_digits_over_16384_steps() -> None:
    """It is a difference of terms that grow with the steps that a frame has turned."""
    cell = LRU(3, 8, r_min=0.5, r_max=0.9)
    short = drawn(cell)
    x = torch.randn(2, 16384, 3, generator=torch.Generator().manual_seed(7))
    long = {name: value.double() for name, value in short.items()}
    at = 3 + list(short).index("theta")
    actual = found_by(scanned, Sequence(cell, x, short))[at]
    true = found_by(scanned, Sequence(cell, x.double(), long))[at]
    assert (actual - true).abs().max() / true.abs().max() < 5e-5


def test_outputs_past_the_end_are_0_whatever_is_read_from_h() -> None:
    class Shifted(LRU):
        def readout(self, h: Tensor, projected: Tensor, params: Params) -> Tensor:
            return super().readout(h, projected, params) + 1

    call = call_of(LRU(3, 4), 9, batch=5)._replace(cell=Shifted(3, 4))
    output, _ = scanned.run(call)
    torch.testing.assert_close(output, reference.run(call)[0])
    assert not output[~call.lengths.mask(9)].any()


@every_cell
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_are_computed_in_float32_and_rounded_once(cell, dtype) -> None:
    call = call_of(cell, 20, dtype=dtype)
    wide = call._replace(
        x=call.x.float(),
        params={name: value.float() for name, value in call.params.items()},
        state=cell.make_state(call.state[0].float()),
    )
    output, final = scanned.run(call)
    true, true_final = scanned.run(wide)
    assert torch.equal(output, true.to(dtype))
    assert torch.equal(final[0], true_final[0].to(dtype))


@every_cell
def test_second_derivatives(cell) -> None:
    call = call_of(cell, 4)._replace(lengths=None)
    leaves = [t.requires_grad_() for t in (call.x, *call.params.values(), *call.state)]

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        params = dict(zip(call.params, rest, strict=False))
        state = cell.make_state(rest[-1])
        output, final = scanned.run(call._replace(x=x, params=params, state=state))
        return output, final[0]

    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@every_cell
def test_inside_torch_func(cell) -> None:
    call = call_of(cell, 5, batch=6)._replace(lengths=None, reset=None, state=None)
    names = list(call.params)

    def total(x: Tensor, *params: Tensor) -> Tensor:
        given = dict(zip(names, params, strict=True))
        output, final = dispatch.run(call._replace(x=x, params=given), "scan")
        return output.square().sum() + final[0].sum()

    stacked, params = call.x.view(3, 2, 5, 3), tuple(call.params.values())
    axes = (0, *(None for _ in params))
    one_by_one = torch.func.vmap(torch.func.grad(total, argnums=1), in_dims=axes)(stacked, *params)
    for group in range(3):
        leaves = [value.clone().requires_grad_() for value in params]
        (truth,) = torch.autograd.grad(total(stacked[group], *leaves), leaves[:1])
        torch.testing.assert_close(one_by_one[group], truth)


@every_cell
def test_without_the_core_it_is_plain_torch_and_the_same_numbers(monkeypatch, cell) -> None:
    call = call_of(cell, 12)
    with_core = found_by(scanned, call)
    monkeypatch.setattr(core, "module", None)
    assert_alike(found_by(scanned, call), with_core)


@needs_core
def test_outline_says_who_runs_the_scan(monkeypatch) -> None:
    plain = Features(2, 3)
    by_core = "by the compiled core; second derivatives in plain torch"
    assert scanned.outline(plain, torch.float32, CPU) == by_core
    assert "core, computed in float32; second" in scanned.outline(plain, torch.bfloat16, CPU)
    of_a_subclass = scanned.outline(plain._replace(plain=False), torch.float32, CPU)
    assert of_a_subclass.startswith("in plain torch, because a tensor of the call is of a subclass")
    cuda = scanned.outline(plain, torch.float32, torch.device("cuda"))
    assert cuda == "in plain torch, because x is on cuda"
    monkeypatch.setattr(core, "module", None)
    assert "the compiled core was not built" in scanned.outline(plain, torch.float32, CPU)


def test_masks_are_refused_and_not_forgotten() -> None:
    call = call_of(MinGRU(3, 4), 3)._replace(masks=Masks(torch.ones(2, 4).double()))
    with pytest.raises(BackendError, match="no product with h"):
        dispatch.run(call, "scan")
    with pytest.raises(ValueError, match="MinGRU: a dropout mask on h is given"):
        dispatch.run(call)

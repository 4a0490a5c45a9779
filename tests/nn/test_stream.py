"""layer.stream: one step at a time, with the bits of the whole batch."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from recurra import nn
from recurra.errors import ArgumentError, BackendError, ConfigError, ShapeError
from recurra.kernels import core
from recurra.nn.linear import Linear

needs_core = pytest.mark.skipif(core.module is None, reason="the compiled core is not built here")

# (kind, arguments, keywords): sizes on both sides of 32 inputs, odd ones, stacks, every cell form.
LAYERS = [
    (nn.RNN, (3, 5), {}),
    (nn.RNN, (40, 33), {"nonlinearity": "relu", "bias": False}),
    (nn.LSTM, (3, 5, 2), {}),
    (nn.LSTM, (40, 33), {"proj_size": 7}),
    (nn.LSTM, (17, [20, 9]), {"zoneout": (0.1, 0.4)}),
    (nn.GRU, (64, 64), {}),
    (nn.GRU, (5, 19, 3), {"bias": False, "zoneout": 0.2}),
    (nn.GRU, (5, 19), {"reset_after": False}),
    (nn.LSTM, (5, 19), {"peephole": True, "coupled": True}),
    (nn.IndRNN, (3, 35, 3), {"activation": "tanh"}),
    (nn.LEM, (3, [16, 25]), {"dt": 0.5, "zoneout": (0.1, 0.4)}),
    (nn.SLSTM, (3, 20, 2), {"num_heads": 2}),
    (nn.SLSTM, (40, [9, 17]), {"forget_gate": "exp", "zoneout": (0.1, 0.4, 0.3, 0.2)}),
]
# What the core has no kernel for streams by the reference.
NEWER = [
    (nn.MLSTM, (3, 6, 2), {"num_heads": 2}),
    (nn.MLSTM, (3, [6, 4]), {"forget_gate": "exp", "bias": False}),
]
every_layer = pytest.mark.parametrize(
    ("kind", "sizes", "keywords"), LAYERS, ids=lambda value: getattr(value, "__name__", str(value))
)


def made(kind, sizes, keywords, **more):
    torch.manual_seed(3)
    layer = kind(*sizes, batch_first=True, **keywords, **more).eval()
    if kind is nn.SLSTM:  # it is drawn without recurrence
        for name, value in layer.named_parameters():
            if name.startswith("weight_hh"):
                torch.nn.init.uniform_(value, -0.5, 0.5)
    return layer


def parts_of(state):
    """A state as a flat list of tensors."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [part for piece in state for part in parts_of(piece)]


@needs_core
@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
@torch.no_grad()
def test_pushes_and_chunks_have_the_bits_of_the_layer(
    kind, sizes, keywords, dtype, threads
) -> None:
    layer = made(kind, sizes, keywords, dtype=dtype)
    x = torch.randn(3, 11, layer.input_size, dtype=dtype)
    whole, final = layer(x)
    stream = layer.stream(3, threads=threads)
    pieces = [stream.push(x[:, 0]).unsqueeze(1), stream.push_chunk(x[:, 1:6])]
    pieces += [stream.push(x[:, t]).unsqueeze(1) for t in (6, 7)]
    pieces += [stream.push_chunk(x[:, 8:8]), stream.push_chunk(x[:, 8:])]
    assert torch.equal(torch.cat(pieces, 1), whole)
    for ours, theirs in zip(parts_of(stream.state), parts_of(final), strict=True):
        assert torch.equal(ours, theirs)


@needs_core
@every_layer
@torch.no_grad()
def test_a_row_has_the_same_bits_in_every_batch(kind, sizes, keywords) -> None:
    layer = made(kind, sizes, keywords)
    x = torch.randn(7, 4, layer.input_size)
    together = layer.stream(7).push_chunk(x)
    for row in range(7):
        alone = layer.stream(1)
        for t in range(4):
            assert torch.equal(alone.push(x[row : row + 1, t])[0], together[row, t])


@every_layer
@torch.no_grad()
def test_the_reference_streams_the_same_numbers(kind, sizes, keywords) -> None:
    layer = made(kind, sizes, keywords, backend="reference", dtype=torch.float64)
    x = torch.randn(2, 5, layer.input_size, dtype=torch.float64)
    stream = layer.stream(2)
    assert stream.backend == "reference"
    pushed = torch.stack([stream.push(x[:, t]) for t in range(5)], 1)
    torch.testing.assert_close(pushed, layer(x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "sizes", "keywords"), NEWER)
@torch.no_grad()
def test_layers_without_a_kernel_stream_the_numbers_of_the_layer(kind, sizes, keywords) -> None:
    layer = made(kind, sizes, keywords, dtype=torch.float64)
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    whole, final = layer(x)
    stream = layer.stream(2)
    assert stream.backend == "reference"
    pushed = [stream.push(x[:, t]) for t in range(5)]
    state = stream.state
    rest = stream.push_chunk(x[:, 5:])
    torch.testing.assert_close(torch.cat([torch.stack(pushed, 1), rest], 1), whole)
    torch.testing.assert_close(parts_of(stream.state), parts_of(final))
    torch.testing.assert_close(layer(x[:, 5:], state)[0], rest)
    stream.restore(state)
    assert torch.equal(stream.push_chunk(x[:, 5:]), rest)
    stream.reset([1])
    after = stream.push(x[:, 0])
    torch.testing.assert_close(after[1], whole[1, 0])
    assert not torch.allclose(after[0], whole[0, 0])


# docs/streams.md has this as a table.
@needs_core
@pytest.mark.parametrize(
    ("kinds", "keywords", "backend"),
    [
        ("RNN LSTM GRU IndRNN LEM SLSTM", {}, "cpu"),
        ("MLSTM MinGRU MinLSTM RGLRU LRU", {}, "reference"),
        ("LSTM", {"proj_size": 3}, "cpu"),
        ("LSTM", {"peephole": True, "coupled": True}, "cpu"),
        ("GRU", {"reset_after": False}, "cpu"),
        ("RNN LSTM GRU", {"layer_norm": True}, "reference"),
        ("GRU", {"num_layers": 2}, "cpu"),
        ("GRU", {"num_layers": 2, "residual": True}, "reference"),
        ("GRU LSTM", {"dtype": torch.float64}, "cpu"),
        ("GRU", {"dtype": torch.bfloat16}, "reference"),
        ("GRU", {"dtype": torch.float16}, "reference"),
        ("GRU LSTM", {"learn_initial_state": True, "zoneout": 0.1}, "cpu"),
    ],
)
def test_the_core_steps_what_the_documentation_says(kinds, keywords, backend) -> None:
    for kind in kinds.split():
        assert getattr(nn, kind)(4, 4, **keywords).stream(2).backend == backend, kind


def test_a_reset_goes_back_to_the_learned_start() -> None:
    layer = nn.GRU(3, 5, batch_first=True, learn_initial_state=True)
    with torch.no_grad():
        layer.h_0_l0.uniform_(-1, 1)
        x = torch.randn(1, 6, 3)
        stream = layer.stream()
        stream.push_chunk(x)
        stream.reset()
        assert torch.equal(stream.state[0, 0], layer.h_0_l0)
        torch.testing.assert_close(stream.push_chunk(x), layer(x)[0])


@torch.no_grad()
def test_time_first_layers_and_streams_without_a_batch_axis() -> None:
    layer = nn.LSTM(3, 5)
    x = torch.randn(6, 2, 3)
    assert torch.equal(layer.stream(2).push_chunk(x), layer(x)[0])
    alone = layer.stream(None)
    pushed = torch.stack([alone.push(x_t) for x_t in x[:4, 0]])
    assert torch.equal(torch.cat([pushed, alone.push_chunk(x[4:, 0])]), layer(x[:, 0])[0])
    assert [part.shape for part in alone.state] == [(1, 5), (1, 5)]


@torch.no_grad()
def test_state_is_a_copy_that_goes_back_and_into_the_layer() -> None:
    layer = nn.LSTM(3, [5, 4], batch_first=True)
    x = torch.randn(2, 9, 3)
    stream = layer.stream(2)
    stream.push_chunk(x[:, :4])
    state = stream.state
    kept = copy.deepcopy(state)
    rest = stream.push_chunk(x[:, 4:])
    for ours, before in zip(parts_of(state), parts_of(kept), strict=True):
        assert torch.equal(ours, before), "a state handed out must not follow the stream"
    assert torch.equal(layer(x[:, 4:], state)[0], rest)
    stream.restore(state)
    assert torch.equal(stream.push_chunk(x[:, 4:]), rest)
    stream.restore(None)
    assert torch.equal(stream.push_chunk(x), layer(x)[0])


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_and_pickles_are_refused_in_words(backend, take) -> None:
    stream = nn.GRU(3, 5, backend=backend).stream()
    with pytest.raises(ArgumentError, match=r"GRU stream: .*Make another, layer\.stream.*restore"):
        take(stream)


@torch.no_grad()
def test_reset_starts_the_given_rows_afresh_and_leaves_the_others() -> None:
    layer = nn.GRU(3, 5, 2, batch_first=True)
    x = torch.randn(3, 4, 3)
    for rows in (torch.tensor([False, True, False]), [1], torch.tensor([1])):
        stream, untouched = layer.stream(3), layer.stream(3)
        stream.push_chunk(x)
        untouched.push_chunk(x)
        stream.reset(rows)
        after, before = stream.push(x[:, 0]), untouched.push(x[:, 0])
        assert torch.equal(after[1], layer.stream(3).push(x[:, 0])[1])
        assert torch.equal(after[[0, 2]], before[[0, 2]])
    stream.reset()
    assert torch.equal(stream.push(x[:, 0]), layer.stream(3).push(x[:, 0]))


@needs_core
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
@every_layer
@torch.no_grad()
def test_smaller_weights_give_the_bits_of_rounded_weights(kind, sizes, keywords, weights) -> None:
    layer = made(kind, sizes, keywords)
    rounded = copy.deepcopy(layer)
    for name, value in rounded.named_parameters():
        if not name.startswith("weight") or value.dim() < 2:
            continue  # vectors are small, and stay as they are
        if weights == "bfloat16":
            value.copy_(value.bfloat16())
        else:
            scale = value.abs().amax(1, keepdim=True) / 127
            value.copy_((value / scale).round() * scale)
    x = torch.randn(3, 8, layer.input_size)
    got = layer.stream(3, weights=weights).push_chunk(x)
    assert torch.equal(got, rounded.stream(3).push_chunk(x))
    assert not torch.equal(got, layer(x)[0])


@torch.no_grad()
def test_push_into_out_is_that_very_tensor_and_streams_are_apart() -> None:
    layer = nn.GRU(3, 5)
    first, second = layer.stream(2), layer.stream(2)
    out = torch.full((2, 5), torch.nan)
    x = torch.randn(2, 3)
    assert first.push(x, out=out) is out
    assert torch.equal(out, second.push(x))
    first.push(x)
    assert torch.equal(second.push(x), layer(torch.stack([x, x]))[0][1])


@torch.no_grad()
def test_strided_inputs_give_the_same_and_later_weights_are_not_seen() -> None:
    layer = nn.GRU(3, 5)
    x = torch.randn(2, 3)
    stream = layer.stream(2)
    expected = layer.stream(2).push(x)
    wide = torch.full((4, 7), torch.nan)
    wide[::2, 1::2] = x
    layer.weight_hh_l0.zero_()
    layer.weight_ih_l0.zero_()
    assert torch.equal(stream.push(wide[::2, 1::2]), expected)


@torch.no_grad()
def test_out_may_be_the_input_itself() -> None:
    layer = nn.GRU(40, 40)
    h = torch.randn(2, 40)
    expected = layer.stream(2).push(h)
    assert torch.equal(layer.stream(2).push(h, out=h), expected)


def test_writing_into_out_is_seen_by_autograd() -> None:
    stream = nn.GRU(3, 5).stream(2)
    head = torch.nn.Linear(5, 1)
    out = stream.push(torch.randn(2, 3))
    loss = head(out).sum()
    stream.push(torch.randn(2, 3), out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_stream_made_in_inference_mode_works_outside() -> None:
    with torch.inference_mode():
        stream = nn.LSTM(3, 5).stream(2)
        state = stream.state
        x = torch.randn(2, 3)
        first = stream.push(x)
    stream.reset()
    assert torch.equal(stream.push(x), first)
    stream.restore(state)
    assert torch.equal(stream.push(x), first)


@needs_core
def test_threads_that_share_a_stream_take_turns() -> None:
    layer = nn.GRU(8, 8, num_layers=4)
    stream = layer.stream(2)
    pieces = [torch.randn(t, 2, 8) for t in (1, 50, 3, 200, 7)]

    def work(_: int) -> None:
        for piece in pieces * 5:
            assert stream.push_chunk(piece).shape == piece.shape

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@torch.no_grad()
def test_long_chunks_after_short_ones_through_a_growing_stack() -> None:
    layer = nn.GRU(3, [4, 6, 40, 80])
    x = torch.randn(70, 2, 3)
    stream = layer.stream(2)
    pieces = [stream.push_chunk(piece) for piece in x.split([1, 9, 60])]
    assert torch.equal(torch.cat(pieces), layer(x)[0])


@needs_core
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_stream_goes_on_in_a_forked_process() -> None:
    code = """
import os, signal, torch
from recurra import nn
torch.set_num_threads(2)
stream = nn.LSTM(256, 256).stream(1, threads=2)
x = torch.randn(1, 256)
stream.push(x)
state, expected = stream.state, stream.push(x)
child = os.fork()
if child == 0:
    signal.alarm(20)
    stream.restore(state)
    os._exit(0 if torch.equal(stream.push(x), expected) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "0", "-14: the child waited for threads that it does not have"


@needs_core
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
@torch.no_grad()
def test_a_weight_that_is_no_number_shows(weights) -> None:
    layer = nn.GRU(3, 5)
    layer.weight_hh_l0[2, 1] = torch.nan
    assert layer.stream(1, weights=weights).push(torch.ones(1, 3)).isnan().any()


def test_no_gradient_is_recorded() -> None:
    layer = nn.GRU(3, 5)
    assert not layer.stream(2).push(torch.randn(2, 3, requires_grad=True)).requires_grad


def test_what_cannot_stream_says_why(monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"GRU: a bidirectional layer cannot stream"):
        nn.GRU(3, 5, bidirectional=True).stream()
    with pytest.raises(ConfigError, match=r"batch_size is 0, but must be an integer of at least 1"):
        nn.GRU(3, 5).stream(0)
    with pytest.raises(ConfigError, match=r"threads is -1"):
        nn.GRU(3, 5).stream(threads=-1)
    with pytest.raises(ConfigError, match=r"int4.*int8"):
        nn.GRU(3, 5).stream(weights="int4")
    with pytest.raises(BackendError, match=r"float32 and float64, and the param"):
        nn.GRU(3, 5, dtype=torch.bfloat16, backend="cpu").stream()
    monkeypatch.setattr(core, "module", None)
    with pytest.raises(BackendError, match=r"weights='int8' needs the compiled core: .*not built"):
        nn.GRU(3, 5).stream(weights="int8")
    assert nn.GRU(3, 5).stream().backend == "reference"


def test_tensors_that_do_not_fit_say_what_does() -> None:
    stream = nn.LSTM(3, 5, batch_first=True).stream(2)
    with pytest.raises(ShapeError, match=r"x_t is a tensor of shape \(2, 4\).*\(2, 3\)"):
        stream.push(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"x_t is a list, but must have shape \(2, 3\)"):
        stream.push([[0.0] * 3] * 2)
    with pytest.raises(ShapeError, match=r"x_t has dtype torch.float64"):
        stream.push(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(ShapeError, match=r"x_t is on meta, but the stream is on cpu"):
        stream.push(torch.zeros(2, 3, device="meta"))
    with pytest.raises(ShapeError, match=r"out is a tensor of shape \(2, 3\).*\(2, 5\)"):
        stream.push(torch.zeros(2, 3), out=torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"out has strides \(10, 2\), but must be contiguous"):
        stream.push(torch.zeros(2, 3), out=torch.zeros(2, 10)[:, ::2])
    with pytest.raises(ShapeError, match=r"3 axes, \(2, 'time', 3\). For one step use push"):
        stream.push_chunk(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"\(3, 4, 3\).*must have shape \(2, 4, 3\)"):
        stream.push_chunk(torch.zeros(3, 4, 3))
    with pytest.raises(ShapeError, match=r"rows holds \[2\], but this stream has rows 0 to 1"):
        stream.reset([2])
    for wrong, said in (("1", "a str"), ({}, "a dict"), ([torch.zeros(2)], "a list")):
        with pytest.raises(ShapeError, match=rf"rows is {said}, but must be .* shape \(2,\), as a"):
            stream.reset(wrong)
    with pytest.raises(ShapeError, match=r"the initial state is a Tensor"):
        stream.restore(torch.zeros(1, 2, 5))


@needs_core
@pytest.mark.parametrize("sizes", [(5, 3), (64, 40), (33, 100)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_head_has_the_same_bits_in_every_batch(sizes, bias) -> None:
    torch.manual_seed(0)
    head = Linear(*sizes, bias=bias)
    x = torch.randn(70, 2, sizes[0])
    y = head(x)
    torch.testing.assert_close(y, torch.nn.Linear.forward(head, x), rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.stack([head(row) for row in x.flatten(0, 1)]).view_as(y), y)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    assert torch.equal(head(x), y)
    torch.set_num_threads(before)
    strided = torch.full((70, 2, 2 * sizes[0]), torch.nan)
    strided[..., ::2] = x
    assert torch.equal(head(strided[..., ::2]), y)
    assert head(x[:0]).shape == (0, 2, sizes[1])


def test_a_head_trains_like_torch_and_refuses_like_torch() -> None:
    head = Linear(4, 2)
    x = torch.randn(3, 4, requires_grad=True)
    assert torch.equal(head(x), torch.nn.functional.linear(x, head.weight, head.bias))
    head(x).sum().backward()
    assert head.weight.grad is not None
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        head(torch.randn(3, 5))


@needs_core
@torch.no_grad()
def test_a_model_with_its_head_streams_the_bits_of_the_batch() -> None:
    torch.manual_seed(1)
    layer, head = nn.LSTM(6, 24, 2, batch_first=True), Linear(24, 9)
    x = torch.randn(5, 12, 6)
    batch = head(layer(x)[0])
    stream = layer.stream(5)
    assert torch.equal(torch.stack([head(stream.push(x[:, t])) for t in range(12)], 1), batch)
    for row in range(5):
        alone = layer.stream(None)
        assert torch.equal(torch.stack([head(alone.push(x_t)) for x_t in x[row]]), batch[row])

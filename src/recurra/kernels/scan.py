"""The linear scan h_t = a_t ⊙ h_{t−1} + b_t over time, plain or with the gates of minGRU inside.

On a CPU it is one pass of the compiled core: steps in turn, all columns side by side. Backward
computes the gates again, so that nothing is saved but the inputs and h. The bits of a row depend on
nothing but the row. Second derivatives, forward-mode ones, torch.func transforms, torch.compile,
other devices and a machine without the core get `_reference`, the definition in plain torch.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurra.errors import ConfigError, ShapeError
from recurra.kernels import core, cpu
from recurra.kernels.layout import NO_ROWS, Choice, address, rows
from recurra.kernels.sequence import check_lengths, check_reset

# ScanKind of csrc/plan.h.
LINEAR, MIN_GRU, MIN_GRU_PLAIN = 0, 1, 2


def linear_scan(
    a: Tensor,
    b: Tensor,
    h_0: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    batch_first: bool = True,
) -> tuple[Tensor, Tensor]:
    """A linear recurrence of each column by itself: h over time, and the final h.

    h_t = a_t ⊙ h_{t−1} + b_t

    Shapes: a, b and the result (B, T, H), or (T, B, H) when batch_first is False; h_0 and the final
    h (B, H). None as h_0 means zeros. lengths (B,) are the real steps of each row: the result past
    them is 0 and the final h is that of the last real step. Where reset (B, T) is True, h is put to
    0 before that step. reverse runs each row from its last real step back to step 0.
    Raises: ShapeError for tensors that do not fit each other, ConfigError for a flag that is none.

    >>> h, h_n = linear_scan(torch.full((1, 4, 1), 0.5), torch.ones(1, 4, 1))
    >>> h.flatten().tolist(), h_n.tolist()
    ([1.0, 1.5, 1.75, 1.875], [[1.875]])

    Source: Martin and Cundy 2018, "Parallelizing linear recurrent neural nets over sequence
    length"; here step after step.
    """
    who, names = "linear_scan", ("a", "b")
    call = _checked(who, names, LINEAR, (a, b, h_0), lengths, reset, reverse, batch_first)
    return _run(call, a, b, h_0)


def min_gru_scan(
    k: Tensor,
    v: Tensor,
    h_0: Tensor | None = None,
    *,
    positive: bool = True,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    batch_first: bool = True,
) -> tuple[Tensor, Tensor]:
    """The recurrence of minGRU, given the pre-activations of gate and candidate.

    z_t = σ(k_t);  h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ g(v_t)

    g(v) = v + 0.5 where v ≥ 0 and σ(v) elsewhere when positive is True; g(v) = v when it is False.
    Shapes: k, v and the result (B, T, H), or (T, B, H) when batch_first is False; h_0 and the final
    h (B, H). None as h_0 means zeros. lengths, reset and reverse are those of `linear_scan`.
    Raises: ShapeError for tensors that do not fit each other, ConfigError for a flag that is none.

    >>> h, h_n = min_gru_scan(torch.zeros(1, 3, 1), torch.ones(1, 3, 1))
    >>> h.flatten().tolist(), h_n.tolist()
    ([0.75, 1.125, 1.3125], [[1.3125]])

    Source: Feng et al. 2024, "Were RNNs all we needed?": the plain candidate is minGRU's, the
    positive one that of its log-space form. h_0 is taken as it is; their log-space form applies g
    to it.
    """
    who, names = "min_gru_scan", ("k", "v")
    _check_flags(who, positive=positive)
    kind = MIN_GRU if positive else MIN_GRU_PLAIN
    call = _checked(who, names, kind, (k, v, h_0), lengths, reset, reverse, batch_first)
    return _run(call, k, v, h_0)


@dataclass(frozen=True, eq=False)
class _Call:
    """What a scan is asked for besides its tensors; of minGRU, a and b are called k and v."""

    kind: int
    batch_first: bool
    reverse: bool
    lengths: Tensor | None
    reset: Tensor | None

    @property
    def time_axis(self) -> int:
        return 1 if self.batch_first else 0

    def over_time(self, per_step: Tensor) -> Tensor:
        """A (B, T) tensor as one that goes with a and b."""
        return (per_step if self.batch_first else per_step.t()).unsqueeze(-1)


def _run(call: _Call, a: Tensor, b: Tensor, h_0: Tensor | None) -> tuple[Tensor, Tensor]:
    if a.dtype in cpu.WIDENED:
        start = None if h_0 is None else h_0.float()
        h, h_n = _run(call, a.float(), b.float(), start)
        return h.to(a.dtype), h_n.to(a.dtype)
    if not _can_run(call, a, b, h_0):
        return _reference(call, a, b, h_0)
    if torch.is_grad_enabled() and any(t.requires_grad for t in core.given(a, b, h_0)):
        h, h_n = _Scan.apply(call, a, b, h_0)  # type: ignore[no-untyped-call]
        return h, h_n
    return _forward(call, a, b, h_0)


def why_not_core(device: torch.device, plain: bool) -> str | None:
    """Why the core cannot run a scan now, so that it is `_reference`; None where it can.

    plain is what core.are_plain says of the tensors; compiled calls are taken to be.
    """
    if torch.compiler.is_compiling():
        return "torch.compile cannot trace the core"
    if core.module is None:
        return "the compiled core was not built; see `recurra doctor`"
    if device.type != "cpu":
        return f"x is on {device.type}"
    if not plain:
        return "a tensor of the call is of a subclass of Tensor, whose memory the core cannot read"
    if core.is_tracing():
        return "torch.jit.trace cannot record the core"
    if core.is_transformed():
        return "the core does not work inside torch.func transforms"
    if forward_ad._current_level >= 0:
        return "the core has no forward-mode derivatives"
    return None


def _can_run(call: _Call, a: Tensor, b: Tensor, h_0: Tensor | None) -> bool:
    """Whether the core can; else it is `_reference`."""
    plain = torch.compiler.is_compiling() or core.are_plain(
        core.given(a, b, h_0, call.lengths, call.reset)
    )
    return why_not_core(a.device, plain) is None


class _Scan(torch.autograd.Function):
    """Arguments: the call, a, b and h_0; results: h over time and the final h."""

    @staticmethod
    def forward(ctx: Any, call: _Call, a: Tensor, b: Tensor, h_0: Tensor | None) -> Any:
        h, h_n = _forward(call, a, b, h_0)
        ctx.call, ctx.shape, ctx.dtype = call, a.shape, a.dtype
        # lengths and reset too, so that a change in place before backward is noticed.
        ctx.save_for_backward(a, b, h_0, h, call.lengths, call.reset)
        ctx.set_materialize_grads(False)
        return h, h_n

    @staticmethod
    def backward(ctx: Any, *d_results: Tensor | None) -> Any:
        a, b, h_0, h, *_ = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        plain = core.are_plain(core.given(a, b, h_0, h, *d_results))
        if torch.is_grad_enabled() or core.is_transformed() or not plain:
            return None, *_differentiable_backward(ctx.call, (a, b, h_0), wanted, d_results)
        # saved_tensors_hooks may have handed back anything.
        for tensor in (a, b, h):
            core.check("scan", "what was saved for backward", tensor, ctx.shape, ctx.dtype)
        if h_0 is not None:
            batch = ctx.shape[1 - ctx.call.time_axis]
            core.check("scan", "h_0 saved for backward", h_0, (batch, ctx.shape[2]), ctx.dtype)
        return None, *_backward(ctx.call, (a, b, h_0), h, wanted, d_results)


def _forward(call: _Call, a: Tensor, b: Tensor, h_0: Tensor | None) -> tuple[Tensor, Tensor]:
    layout = _Layout(call, a, b, h_0)
    h, h_n = a.new_empty(a.shape), a.new_empty(layout.batch, layout.width)
    core.module.scan_forward(_choice(), (*layout.given, *rows(h, call.batch_first), h_n.data_ptr()))
    return h, h_n


def _backward(
    call: _Call,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    h: Tensor,
    wanted: SequenceOf[bool],
    d_results: SequenceOf[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of a, b and h_0, None where not wanted."""
    a = inputs[0]
    layout = _Layout(call, *inputs)
    h = core.dense_rows(h)
    d_h, d_h_n = (None if d is None else core.dense_rows(d) for d in d_results)
    if d_h_n is not None:
        d_h_n = d_h_n.contiguous()
    d_a, d_b = (a.new_empty(a.shape) if want else None for want in wanted[:2])
    d_h_0 = a.new_empty(layout.batch, layout.width) if wanted[2] else None
    results = (
        *rows(h, call.batch_first),
        *rows(d_h, call.batch_first),
        address(d_h_n),
        *rows(d_a, call.batch_first),
        *rows(d_b, call.batch_first),
        address(d_h_0),
    )
    core.module.scan_backward(_choice(), (*layout.given, *results))
    return [d_a, d_b, d_h_0]


class _Layout:
    """A call as the core wants it; it owns the tensors whose addresses it hands out."""

    def __init__(self, call: _Call, a: Tensor, b: Tensor, h_0: Tensor | None) -> None:
        first, second, self.width = a.shape
        self.batch, time = (first, second) if call.batch_first else (second, first)
        self.inputs = core.dense_rows(a), core.dense_rows(b)
        self.h_0 = None if h_0 is None else core.dense_rows(h_0).contiguous()
        self.lengths = None if call.lengths is None else call.lengths.contiguous()
        reset = call.reset
        self.given = (
            call.kind,
            a.dtype == torch.float64,
            call.reverse,
            self.batch,
            time,
            self.width,
            *rows(self.inputs[0], call.batch_first),
            *rows(self.inputs[1], call.batch_first),
            address(self.h_0),
            address(self.lengths),
            *(NO_ROWS if reset is None else (reset.data_ptr(), *reset.stride())),
        )


def _choice() -> Choice:
    chosen = cpu.choice
    return chosen if chosen.threads else chosen._replace(threads=torch.get_num_threads())


def _differentiable_backward(
    call: _Call,
    inputs: SequenceOf[Tensor | None],
    wanted: SequenceOf[bool],
    d_results: SequenceOf[Tensor | None],
) -> list[Tensor | None]:
    """`_backward` by the reference: for gradients of gradients, vmap, and unusual tensors."""

    def run(views: list[Any]) -> SequenceOf[Tensor]:
        a, b, h_0 = views
        return _reference(call, a, b, h_0)

    return core.differentiate(run, inputs, wanted, d_results)


def _reference(call: _Call, a: Tensor, b: Tensor, h_0: Tensor | None) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    axis = call.time_axis
    time, batch = a.shape[axis], a.shape[1 - axis]
    reset, padding = call.reset, None
    if call.lengths is not None:
        real = torch.arange(time, device=a.device) < call.lengths.unsqueeze(1)
        padding = call.over_time(~real)
        reset = None if reset is None else reset & real
        # Before the gates, where NaN in the padding would reach gradients.
        a, b = a.masked_fill(padding, 0), b.masked_fill(padding, 0)
    if call.kind != LINEAR:
        z = a.sigmoid()
        candidate = b if call.kind == MIN_GRU_PLAIN else torch.where(b < 0, b.sigmoid(), b + 0.5)
        a, b = 1 - z, z * candidate
    if padding is not None:
        # A step past the end leaves the state as it is.
        a, b = a.masked_fill(padding, 1), b.masked_fill(padding, 0)
    state = a.new_zeros(batch, a.shape[-1]) if h_0 is None else h_0
    steps = list(zip(a.unbind(axis), b.unbind(axis), strict=True))
    if not steps:
        return a * b, state.clone()
    outputs = []
    for t in reversed(range(time)) if call.reverse else range(time):
        if reset is not None:
            state = state.masked_fill(reset[:, t].unsqueeze(1), 0)
        state = steps[t][0] * state + steps[t][1]
        outputs.append(state)
    if call.reverse:
        outputs.reverse()
    h = torch.stack(outputs, axis)
    return h if padding is None else h.masked_fill(padding, 0), state


def _checked(
    who: str,
    names: tuple[str, str],
    kind: int,
    tensors: tuple[Tensor, Tensor, Tensor | None],
    lengths: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    batch_first: bool,
) -> _Call:
    """The call, with everything that a user passes checked."""
    _check_flags(who, reverse=reverse, batch_first=batch_first)
    (a, b, h_0), (first, second) = tensors, names
    axes = "(batch, time, feature)" if batch_first else "(time, batch, feature)"
    for name, tensor in zip(names, (a, b), strict=True):
        _check_values(who, name, tensor, axes)
    if a.dim() != 3:
        example = f"{first}.unsqueeze({0 if batch_first else 1})"
        raise ShapeError(
            f"{who}: {first} has {a.dim()} axes, shape {tuple(a.shape)}, but must have 3, {axes}. "
            f"For one sequence use {example}."
        )
    if b.shape != a.shape:
        raise ShapeError(
            f"{who}: {second} has shape {tuple(b.shape)}, but {first} has {tuple(a.shape)}; both "
            f"must be {axes}. Use torch.broadcast_tensors({first}, {second})."
        )
    _check_alike(who, second, b, first, a)
    rows, time = a.shape[:2] if batch_first else (a.shape[1], a.shape[0])
    if h_0 is not None:
        _check_values(who, "h_0", h_0, "(batch, feature)")
        if tuple(h_0.shape) != (rows, a.shape[2]):
            raise ShapeError(
                f"{who}: h_0 has shape {tuple(h_0.shape)}, but {first} with shape "
                f"{tuple(a.shape)} needs (batch, feature) = ({rows}, {a.shape[2]}). Pass one state "
                "for each row, or None for zeros."
            )
        _check_alike(who, "h_0", h_0, first, a)
    values = None
    if lengths is not None:
        checked = check_lengths(lengths, rows, time, a.device, who)
        values = checked.values if checked.shortest < time else None
    if reset is not None:
        reset = check_reset(reset, rows, time, a.device, who)
    return _Call(kind, batch_first, reverse, values, reset)


def _check_flags(who: str, **flags: Any) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigError(
                f"{who}: {name} is {value!r}, but must be True or False. Pass {name}=True or "
                f"{name}=False."
            )


def _check_values(who: str, name: str, tensor: Any, axes: str) -> None:
    if not isinstance(tensor, Tensor):
        raise ShapeError(
            f"{who}: {name} is a {type(tensor).__name__}, but must be a tensor {axes}. Use "
            f"torch.as_tensor({name})."
        )
    if tensor.layout != torch.strided:
        raise ShapeError(
            f"{who}: {name} has layout {tensor.layout}, but must be a dense tensor {axes}. Use "
            f"{name}.to_dense()."
        )
    if tensor.dtype not in (*cpu.DTYPES, *cpu.WIDENED):
        raise ShapeError(
            f"{who}: {name} has dtype {tensor.dtype}, but must be float32, float64, bfloat16 or "
            f"float16. Use {name}.float()."
        )


def _check_alike(who: str, name: str, tensor: Tensor, first: str, a: Tensor) -> None:
    if tensor.device != a.device:
        raise ShapeError(
            f"{who}: {name} is on {tensor.device}, but {first} is on {a.device}. Use "
            f"{name}.to({first}.device)."
        )
    if tensor.dtype != a.dtype:
        raise ShapeError(
            f"{who}: {name} has dtype {tensor.dtype}, but {first} has {a.dtype}. Use "
            f"{name}.to({first}.dtype); nothing is converted silently."
        )

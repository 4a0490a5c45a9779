"""The recurrent transducer's loss: −log p of labels, summed over every way to align them.

At step t and after u labels the network says either the next label, and stays at t, or the blank,
which goes on to t + 1. With b and e the log-probabilities of the two at (t, u),

    α(t, u) = log(exp(α(t−1, u) + b(t−1, u)) + exp(α(t, u−1) + e(t, u−1))),      α(0, 0) = 0
    β(t, u) = log(exp(b(t, u) + β(t+1, u)) + exp(e(t, u) + β(t, u+1))),          β(T, U) = 0
    loss    = −α(T, U)

Both go by anti-diagonals t + u = n, whose cells do not depend on each other: T + U vector steps.
The gradient of a logit is p · γ − (the way's own share), where γ(t, u) = exp(α + β − α(T, U)).

Source: Graves 2012, "Sequence transduction with recurrent neural networks", eq. 16-21; the
diagonals are those of Bagby, Rao and Sim 2018, "Efficient implementation of recurrent neural
network transducer in TensorFlow".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recurra.errors import ShapeError

_NEVER = -torch.inf


def transducer_loss(
    logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, blank_id: int = 0
) -> Tensor:
    """−log p (B,) of labels, in nats.

    Shapes: logits (B, T, U + 1, V), of every label after every number of labels; lengths (B,) in
    steps, at least 1; labels (B, U); label_lengths (B,). What lies beyond a row's lengths changes
    neither its loss nor any gradient. Beside the logits one tensor of their size is kept.

    Raises: ShapeError for sizes that do not belong together, and a row without a step.

    >>> logits = torch.zeros(1, 2, 2, 3)  # two steps, one label of two: two ways of three labels
    >>> nats = transducer_loss(logits, torch.tensor([2]), torch.tensor([[1]]), torch.tensor([1]))
    >>> round(float(torch.exp(-nats)), 5), round(2 * 3.0**-3, 5)
    (0.07407, 0.07407)
    """
    _check(logits, lengths, labels, label_lengths)
    nats: Tensor = _Loss.apply(logits, lengths, labels, label_lengths, blank_id)  # type: ignore[no-untyped-call]
    return nats


def _check(logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor) -> None:
    batch, time, places = logits.shape[:3] if logits.ndim == 4 else (0, 0, 0)
    shapes = tuple(labels.shape), tuple(lengths.shape), tuple(label_lengths.shape)
    if logits.ndim != 4 or shapes != ((batch, places - 1), (batch,), (batch,)):
        raise ShapeError(
            f"transducer_loss: logits {tuple(logits.shape)}, labels {shapes[0]}, lengths "
            f"{shapes[1]} and label_lengths {shapes[2]}; expected (B, T, U + 1, V), (B, U), (B,) "
            "and (B,)."
        )
    if any(not 1 <= length <= time for length in lengths.tolist()):
        raise ShapeError(f"transducer_loss: lengths {lengths.tolist()}; expected 1 to {time}.")
    if any(not 0 <= count < places for count in label_lengths.tolist()):
        raise ShapeError(
            f"transducer_loss: label_lengths {label_lengths.tolist()}; expected 0 to {places - 1}."
        )


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        lengths: Tensor,
        labels: Tensor,
        label_lengths: Tensor,
        blank_id: int,
    ) -> Tensor:
        log_probs = logits.log_softmax(-1)
        places = logits.shape[2]
        time = torch.arange(logits.shape[1], device=logits.device)[None, None, :]
        place = torch.arange(places, device=logits.device)[None, :, None]
        is_real = time < lengths[:, None, None]  # (B, 1, T)
        # (B, U + 1, T) in double precision: sums over hundreds of steps, of few numbers.
        blank = log_probs[..., blank_id].transpose(1, 2).double()
        blank = blank.masked_fill(~is_real, _NEVER)
        padded = torch.cat([labels, labels.new_zeros(len(labels), 1)], 1)
        chosen = padded[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
        said = log_probs.gather(-1, chosen)[..., 0].transpose(1, 2).double()
        said = said.masked_fill(~(is_real & (place < label_lengths[:, None, None])), _NEVER)

        blank, said = _slant(blank), _slant(said)
        ends = (lengths + label_lengths)[:, None, None]
        alpha = _forward(blank, said)
        total = alpha.gather(2, ends.expand(-1, places, -1)).gather(
            1, label_lengths[:, None, None]
        )  # (B, 1, 1)
        is_end = (torch.arange(alpha.shape[2], device=logits.device) == ends) & (
            place == label_lengths[:, None, None]
        )
        beta = _backward(blank, said, is_end)
        if ctx.needs_input_grad[0]:
            by_blank = (alpha[..., :-1] + blank + beta[..., 1:] - total).exp()
            above = torch.full_like(beta, _NEVER)
            above[:, :-1] = beta[:, 1:]
            by_label = (alpha[..., :-1] + said + above[..., 1:] - total).exp()
            by_blank, by_label = (
                _straighten(one, logits.shape[1]).transpose(1, 2).to(logits.dtype)
                for one in (by_blank, by_label)
            )
            gradient = log_probs.exp_().mul_((by_blank + by_label)[..., None])
            gradient[..., blank_id] -= by_blank
            gradient.scatter_add_(-1, chosen, -by_label[..., None])
            ctx.save_for_backward(gradient)
        return -total[:, 0, 0].to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_nats: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * d_nats[:, None, None, None], None, None, None, None


def _forward(blank: Tensor, said: Tensor) -> Tensor:
    """α (B, U + 1, N + 1) by diagonals."""
    before = torch.full_like(blank[..., 0], _NEVER)
    before[:, 0] = 0
    columns = [before]
    for n in range(blank.shape[2]):
        after = before + blank[..., n]
        after[:, 1:] = torch.logaddexp(after[:, 1:], (before + said[..., n])[:, :-1])
        columns.append(after)
        before = after
    return torch.stack(columns, 2)


def _backward(blank: Tensor, said: Tensor, is_end: Tensor) -> Tensor:
    """β (B, U + 1, N + 1) by diagonals; is_end (the same) marks (T, U) of each row."""
    nothing = torch.full_like(blank[..., 0], _NEVER)
    after = nothing.masked_fill(is_end[..., -1], 0)
    columns = [after]
    for n in range(blank.shape[2] - 1, -1, -1):
        before = blank[..., n] + after
        before[:, :-1] = torch.logaddexp(before[:, :-1], said[:, :-1, n] + after[:, 1:])
        after = before.masked_fill(is_end[..., n], 0)
        columns.append(after)
    return torch.stack(columns[::-1], 2)


def _slant(x: Tensor) -> Tensor:
    """x (B, U + 1, T) with row u moved u to the right, (B, U + 1, T + U): columns are diagonals."""
    batch, places, time = x.shape
    wide = torch.nn.functional.pad(x, (0, places), value=_NEVER).flatten(1)
    return wide[:, : places * (time + places - 1)].reshape(batch, places, time + places - 1)


def _straighten(x: Tensor, time: int) -> Tensor:
    """The inverse of `_slant`."""
    batch, places, _ = x.shape
    wide = torch.nn.functional.pad(x.flatten(1), (0, places))
    return wide.reshape(batch, places, time + places)[..., :time]

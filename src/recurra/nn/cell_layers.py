"""RNNCell, LSTMCell and GRUCell: one time step as a module, for loops written in Python.

Each call is a sequence of one step and goes through `kernels.dispatch`, so a cell has the backends
that the layers have. A loop over a cell costs a call in Python for each step: where all inputs are
known beforehand, the layer of the same name is faster by far.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from recurra.cells.cell import Cell, Params, State
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.lstm import LSTM
from recurra.errors import ShapeError
from recurra.kernels import dispatch
from recurra.kernels.sequence import Sequence
from recurra.nn.arguments import check_flags, check_x
from recurra.nn.initialise import Init

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class CellLayer(nn.Module):
    """A cell as a module that runs one step; see RNNCell, LSTMCell and GRUCell."""

    def __init__(
        self,
        cell: Cell,
        *,
        bias: bool,
        backend: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        dispatch.check_name(backend)
        self.input_size = cell.input_size
        self.hidden_size = cell.hidden_size
        self.bias = bias
        self.backend = backend
        self.cell = cell
        shapes = cell.parameter_shapes()
        for name in NAMES:
            shape = shapes.get(name)
            empty = None if shape is None else torch.empty(shape, device=device, dtype=dtype)
            self.register_parameter(name, None if empty is None else nn.Parameter(empty))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters afresh, uniform on ±1/√hidden_size, from torch's global generator."""
        with torch.no_grad():
            Init().fill(self.cell, self._params())

    def extra_repr(self) -> str:
        shown = [str(self.input_size), str(self.hidden_size)]
        usual = {"bias": True, "nonlinearity": "tanh", "backend": dispatch.AUTO}
        for name, value in usual.items():
            actual = getattr(self, name, value)
            if actual != value:
                shown.append(f"{name}={actual!r}")
        return ", ".join(shown)

    def _params(self) -> Params:
        # A parameter's own entry is found several times faster than by nn.Module's getattr, which
        # is what parametrized, normed and pruned weights need.
        own = self._parameters
        names = NAMES if self.bias else NAMES[:2]
        params: dict[str, Tensor] = {}
        for name in names:
            value = own.get(name)
            params[name] = getattr(self, name) if value is None else value
        return params

    def _run(self, x: Tensor, hx: tuple[Any, ...] | None) -> State:
        """The state after one step from hx, the parts of a state; without batch axis if x is."""
        params = self._params()
        weight = params["weight_ih"]
        # What is right is seen quickly; only what is wrong is looked at closely.
        if (
            not isinstance(x, Tensor)
            or x.dim() not in (1, 2)
            or x.shape[-1] != self.input_size
            or x.device != weight.device
            or x.dtype != weight.dtype
        ):
            self._check_x(x, weight)
        state = None
        if x.dim() == 2:
            if hx is not None:
                state = self.cell.make_state(*hx)
                self._check_state(state, (x.shape[0],), x)
            call = Sequence(self.cell, x.unsqueeze(0), params, state, False)
            return dispatch.run(call, self.backend)[1]
        if hx is not None:
            self._check_state(hx, (), x)
            state = self.cell.make_state(*(part.unsqueeze(0) for part in hx))
        call = Sequence(self.cell, x.view(1, 1, -1), params, state, False)
        final = dispatch.run(call, self.backend)[1]
        return tuple(part.squeeze(0) for part in final)

    def _check_x(self, x: Any, weight: Tensor) -> None:
        """Raise ShapeError unless one step can be run over x."""
        who, size = type(self).__name__, self.input_size
        if not isinstance(x, Tensor):
            raise ShapeError(
                f"{who}: input is a {type(x).__name__}, but must be a tensor (batch, {size}). Use "
                "torch.as_tensor(input)."
            )
        if x.dim() not in (1, 2):
            hint = f" For a whole sequence use recurra.nn.{who.removesuffix('Cell')}."
            raise ShapeError(
                f"{who}: input has {x.dim()} axes, shape {tuple(x.shape)}, but must have 2, "
                f"(batch, {size}), or 1, ({size},): one time step.{hint if x.dim() == 3 else ''}"
            )
        if x.shape[-1] != size:
            seen = x.shape[-1]
            raise ShapeError(
                f"{who}: input has {seen} features on its last axis, but this cell was made with "
                f"input_size={size}. Pass (batch, {size}), or make {who}({seen}, ...)."
            )
        check_x(who, x.view(1, -1, size), size, weight, False)

    def _check_state(self, parts: tuple[Any, ...], batch: tuple[int, ...], x: Tensor) -> None:
        """Raise ShapeError unless each part of a state fits x."""
        shape = (*batch, self.hidden_size)
        for index, part in enumerate(parts):
            if (
                isinstance(part, Tensor)
                and part.shape == shape
                and part.device == x.device
                and (
                    part.dtype == x.dtype
                    or (part.is_floating_point() and dispatch.autocasts(x.device))
                )
            ):
                continue
            who = type(self).__name__
            name = f"hx[{index}]" if len(parts) > 1 else "hx"
            if not isinstance(part, Tensor):
                raise ShapeError(
                    f"{who}: {name} is a {type(part).__name__}, but must be a tensor of shape "
                    f"{shape}. Pass what an earlier call returned, or None."
                )
            if part.shape != shape:
                raise ShapeError(
                    f"{who}: {name} has shape {tuple(part.shape)}, but this input and cell need "
                    f"{shape}. Pass what a call on the same batch returned, or None."
                )
            if part.device != x.device:
                raise ShapeError(
                    f"{who}: {name} is on {part.device}, but input is on {x.device}. Use "
                    f"{name}.to({str(x.device)!r})."
                )
            raise ShapeError(
                f"{who}: {name} has dtype {part.dtype}, but input has {x.dtype}. Use "
                f"{name}.to({x.dtype})."
            )


class RNNCell(CellLayer):
    """One step of an Elman network: torch.nn.RNNCell on recurra's backends.

    h' = φ(W x + b + U h + c),  φ = tanh or relu (nonlinearity); see `recurra.cells.Elman`.

    Arguments, weights and results are those of torch.nn.RNNCell; `backend` chooses who computes, as
    in `recurra.nn.RNN`.

    Shapes: input (B, input_size), hx and the result (B, hidden_size); or no B in all of them.
    hx None means zeros.
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> cell = RNNCell(3, 5)
    >>> h = cell(torch.zeros(2, 3))
    >>> cell(torch.ones(2, 3), h).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        check_flags("RNNCell", bias=bias)
        cell = Elman(input_size, hidden_size, activation=nonlinearity, bias=bias)
        super().__init__(cell, bias=bias, backend=backend, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """h'; hx None means zeros."""
        return self._run(input, None if hx is None else (hx,))[0]


class LSTMCell(CellLayer):
    """One step of long short-term memory: torch.nn.LSTMCell on recurra's backends.

    The equations and the gate order i f g o are those of `recurra.cells.LSTM`.

    Arguments, weights and results are those of torch.nn.LSTMCell; `backend` chooses who computes,
    as in `recurra.nn.LSTM`.

    Shapes: input (B, input_size); hx and the result (h, c), each (B, hidden_size); or no B in all
    of them. hx None means zeros.
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> cell = LSTMCell(3, 5)
    >>> h, c = cell(torch.zeros(2, 3))
    >>> h, c = cell(torch.ones(2, 3), (h, c))
    >>> h.shape, c.shape
    (torch.Size([2, 5]), torch.Size([2, 5]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        check_flags("LSTMCell", bias=bias)
        cell = LSTM(input_size, hidden_size, bias=bias)
        super().__init__(cell, bias=bias, backend=backend, device=device, dtype=dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(h', c'); hx None means zeros."""
        if hx is not None and (not isinstance(hx, tuple | list) or len(hx) != 2):
            seen = type(hx).__name__
            if isinstance(hx, tuple | list):
                seen += f" of {len(hx)}"
            raise ShapeError(
                f"LSTMCell: hx is a {seen}, but must be (h, c), two tensors of hidden_size="
                f"{self.hidden_size} features. Pass what an earlier call returned, or None."
            )
        h, c = self._run(input, hx)
        return h, c


class GRUCell(CellLayer):
    """One step of a gated recurrent unit: torch.nn.GRUCell on recurra's backends.

    The equations and the gate order r z n are those of `recurra.cells.GRU`, reset_after=True.

    Arguments, weights and results are those of torch.nn.GRUCell; `backend` chooses who computes, as
    in `recurra.nn.GRU`.

    Shapes: input (B, input_size), hx and the result (B, hidden_size); or no B in all of them.
    hx None means zeros.
    Raises: ShapeError for tensors, ConfigError for settings, BackendError when a backend asked for
    by name cannot run the call.

    >>> cell = GRUCell(3, 5)
    >>> h = cell(torch.zeros(3))
    >>> cell(torch.ones(3), h).shape
    torch.Size([5])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        check_flags("GRUCell", bias=bias)
        cell = GRU(input_size, hidden_size, bias=bias)
        super().__init__(cell, bias=bias, backend=backend, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """h'; hx None means zeros."""
        return self._run(input, None if hx is None else (hx,))[0]

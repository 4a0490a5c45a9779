"""Turn the torch.nn recurrent modules of an existing model into recurra's, in place.

A module keeps its identity and changes its class, as torch itself does for parametrizations and
lazy modules. Parameters, buffers, hooks, names, modes and everything that refers to the module,
such as optimizers, ties and wrappers, are therefore the same objects as before; what is replaced is
`forward`, and the settings that recurra's classes keep beside torch's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from recurra.errors import ConfigError, RecurraError
from recurra.kernels import dispatch
from recurra.kernels.sequence import Features
from recurra.nn.cell_layers import CellLayer, GRUCell, LSTMCell, RNNCell
from recurra.nn.gru import GRU
from recurra.nn.lstm import LSTM
from recurra.nn.recurrent import Recurrent
from recurra.nn.rnn import RNN

# Any: their constructors differ, and each is called with what it takes.
OURS: dict[type[nn.Module], Any] = {
    nn.RNN: RNN,
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNNCell: RNNCell,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
}
RECURRENT: tuple[type[nn.Module], ...] = (*OURS, Recurrent, CellLayer)
# What torch keeps a second time; recurra's properties make it anew from the parameters each time.
CACHES = ("_flat_weights", "_flat_weight_refs", "_flat_weights_names", "_all_weights")
PLAIN = (Tensor, nn.Parameter, nn.Buffer)
# Backends that gain nothing over torch.nn, and why.
NO_FASTER = {
    "cudnn": "it runs torch's own operators",
    "reference": "it is the definition, run step by step in Python",
}


@dataclass(frozen=True)
class Line:
    """What became of one module: the backend that runs it, or why it was left."""

    name: str
    layer: str
    outcome: Literal["swapped", "already", "left"]
    backend: str | None = None
    reason: str | None = None
    same_as: str | None = None

    @property
    def ending(self) -> str:
        """What stands behind the arrow."""
        if self.same_as is not None:
            return f"the same module as {_label(self.same_as)}"
        if self.outcome == "left":
            return f"left: {self.reason}"
        done = "swapped" if self.outcome == "swapped" else "already recurra's"
        return f"{done}, runs on {self.backend}"


@dataclass(frozen=True)
class Report:
    """What `accelerate` did: one line for each name of a recurrent module, in the model's order.

    `swapped` maps names to the backends that run those modules now, `already` those that were
    recurra's before, and `left` names to the reasons. The model itself has the name "".
    """

    model: str
    lines: tuple[Line, ...]

    @property
    def swapped(self) -> dict[str, str]:
        return {line.name: str(line.backend) for line in self.lines if line.outcome == "swapped"}

    @property
    def already(self) -> dict[str, str]:
        return {line.name: str(line.backend) for line in self.lines if line.outcome == "already"}

    @property
    def left(self) -> dict[str, str]:
        return {line.name: str(line.reason) for line in self.lines if line.outcome == "left"}

    def __str__(self) -> str:
        if not self.lines:
            return f"{self.model}: it has no torch.nn.RNN, LSTM or GRU, and no cell of theirs"
        labels = [_label(line.name) + ":" for line in self.lines]
        wide = max(map(len, labels)), max(len(line.layer) for line in self.lines)
        rows = [
            f"{label:<{wide[0]}} {line.layer:<{wide[1]}} → {line.ending}"
            for label, line in zip(labels, self.lines, strict=True)
        ]
        once = [line.outcome for line in self.lines if line.same_as is None]
        count = f"{once.count('swapped')} swapped, {once.count('left')} left"
        if "already" in once:
            count += f", {once.count('already')} already recurra's"
        return "\n".join([*rows, count])


def accelerate(model: nn.Module, *, backend: str = "auto") -> Report:
    """Swap every torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell and GRUCell in `model`, in place.

    The modules become recurra's by changing their class, so the model, its modules and parameters
    stay the same objects: optimizers made before keep working, what was tied stays tied, hooks,
    parametrizations, norms and pruning stay in force, and `state_dict` has the same keys. The model
    may itself be one of the six. Modules that are recurra's already stay untouched.

    backend: "auto" leaves a module where, on its present device and in its present dtype, only
    backends could run it that are no faster than torch's own code: the reference, and cudnn, which
    torch itself uses. A backend's name swaps what that backend can run, and the module then insists
    on it; see `recurra.nn.RNN`.

    Left too, each with its reason in the report: subclasses of torch's classes, replaced `forward`
    methods, quantized and TorchScript modules, parameters on the meta device or not yet
    initialised, and tensors of other kinds than torch's own. A module is swapped whole or not at
    all.
    Raises: ConfigError when `model` is no module, or for an unknown backend.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.GRU(8, 5, batch_first=True))
    >>> print(accelerate(model, backend="reference"))
    1: GRU(8, 5, batch_first=True) → swapped, runs on reference
    1 swapped, 0 left
    >>> output, h_n = model(torch.zeros(2, 7, 3))
    >>> output.shape
    torch.Size([2, 7, 5])
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"accelerate: model is a {type(model).__name__}, but must be a torch.nn.Module. Pass "
            "the model that holds the recurrent layers."
        )
    dispatch.check_name(backend)
    seen: dict[int, Line] = {}
    lines: list[Line] = []
    for name, module in list(_recurrent(model)):
        first = seen.get(id(module))
        if first is None:
            lines.append(_swap(name, module, backend))
            seen[id(module)] = lines[-1]
        else:
            lines.append(replace(first, name=name, same_as=first.name))
    return Report(type(model).__name__, tuple(lines))


def _label(name: str) -> str:
    return name or "(model)"


def _recurrent(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules to report, under every name that they have."""
    inside: str | None = None
    for name, module in model.named_modules(remove_duplicate=False):
        if inside is not None and name.startswith(inside):
            continue
        if _made_over(module) is not None:
            inside = f"{name}." if name else ""
            yield name, module
        elif isinstance(module, RECURRENT):
            yield name, module


def _swap(name: str, module: nn.Module, backend: str) -> Line:
    """Swap one module, or leave it entirely as it is."""
    layer = f"{type(module).__name__}({module.extra_repr()})"
    if isinstance(module, Recurrent | CellLayer):
        chosen, _ = _run_by(module, next(module.parameters(), torch.empty(0)))
        return Line(name, layer, "already", ", ".join(chosen) or "no backend")
    reason = _made_over(module) or _altered(module)
    if reason is None:
        try:
            fresh = _fresh(module, backend)
        except RecurraError as error:
            reason = str(error)
        else:
            reason = _misfit(module, fresh) or _no_gain(module, fresh)
    if reason is not None:
        return Line(name, layer, "left", reason=reason)
    _become(module, fresh)
    chosen, _ = _run_by(fresh, next(module.parameters()))
    return Line(name, layer, "swapped", ", ".join(chosen))


def _made_over(module: nn.Module) -> str | None:
    """Why a module that torch made out of one of the six, but no subclass of it, is left."""
    names = {theirs.__name__ for theirs in OURS}
    cls = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        if getattr(module, "original_name", None) in names:
            return "it is compiled by TorchScript; accelerate the model before torch.jit"
    elif cls.__name__ in names and cls.__module__.startswith("torch.ao."):
        return f"it is quantized, a {cls.__module__}.{cls.__name__}; accelerate the float model"
    return None


def _theirs(module: nn.Module) -> type[nn.Module]:
    return next(cls for cls in OURS if isinstance(module, cls))


def _altered(module: nn.Module) -> str | None:
    """Why the module may compute something else than torch's class does, or None."""
    cls, theirs = type(module), _theirs(module)
    # torch gives a parametrized module a class of its own, with a property for each such weight.
    added = [name for name in vars(cls) if not name.startswith("__")]
    parametrized = cls.__bases__ == (theirs,) and all(is_parametrized(module, n) for n in added)
    if cls is not theirs and not (parametrized and is_parametrized(module)):
        return (
            f"{cls.__name__} is a subclass of torch.nn.{theirs.__name__} and may compute something "
            f"else; if it does not, derive it from recurra.nn.{theirs.__name__}"
        )
    if "forward" in vars(module):
        return "its forward was replaced on this instance, and may compute something else"
    return None


def _fresh(module: Any, backend: str) -> Recurrent | CellLayer:
    """recurra's module with the same settings and no numbers; raises what its constructor does."""
    theirs = _theirs(module)
    settings: dict[str, Any] = {"bias": bool(module.bias), "backend": backend, "device": "meta"}
    if isinstance(module, nn.RNNBase):
        settings["num_layers"] = module.num_layers
        # torch takes 1 for True.
        settings["batch_first"] = bool(module.batch_first)
        settings["bidirectional"] = bool(module.bidirectional)
    if theirs is nn.RNN:
        settings["nonlinearity"] = module.mode.removeprefix("RNN_").lower()
    elif theirs is nn.RNNCell:
        settings["nonlinearity"] = module.nonlinearity
    elif theirs is nn.LSTM:
        settings["proj_size"] = module.proj_size
    fresh: Recurrent | CellLayer
    fresh = OURS[theirs](module.input_size, module.hidden_size, **settings)
    if isinstance(fresh, Recurrent):
        # The constructor would warn a second time where there is nothing between layers to drop.
        fresh.dropout = float(module.dropout)
    return fresh


def _misfit(module: Any, fresh: Recurrent | CellLayer) -> str | None:
    """Why recurra's class cannot go on with what the module holds, or None."""
    parameters = list(module.parameters())
    if any(is_lazy(value) for value in parameters):
        return "its parameters are not initialised yet; run the model once, then accelerate it"
    if any(value.is_meta for value in parameters):
        return "its parameters are on the meta device; give them numbers, then accelerate it"
    kinds = set()
    for name, wanted in fresh.named_parameters():
        value = _read(module, name)
        if type(value) not in PLAIN:
            return f"its {name} is a {type(value).__name__}, which recurra cannot read"
        if value.shape != wanted.shape:
            seen, said = tuple(value.shape), tuple(wanted.shape)
            return f"its {name} has shape {seen}, but its settings say {said}"
        kinds.add(f"{value.dtype} on {value.device}")
    if len(kinds) > 1:
        return f"its parameters are of different kinds: {', '.join(sorted(kinds))}"
    plain = _stock(_theirs(module))
    for name in (*vars(module), *module._modules, *module._buffers):
        ours = name in vars(fresh) or hasattr(type(fresh), name)
        if ours and not hasattr(plain, name):
            return f"it has an attribute {name!r}, which recurra's class uses for itself"
    return None


def _read(module: Any, name: str) -> Any:
    """The parameter as `forward` will see it; None where there is none.

    In evaluation, because some parametrizations, such as spectral norm, change their state when
    they are read in training.
    """
    if not is_parametrized(module, name):
        return getattr(module, name, None)
    parts = list(module.parametrizations[name].modules())
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        with torch.no_grad():
            return module.parametrizations[name]()
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def _no_gain(module: nn.Module, fresh: Recurrent | CellLayer) -> str | None:
    """Why recurra would not run the module, or not faster than torch, or None."""
    chosen, why = _run_by(fresh, next(module.parameters()))
    if not chosen:
        return f"backend {fresh.backend!r} cannot run it: {why[fresh.backend]}"
    if fresh.backend == dispatch.AUTO and not set(chosen).isdisjoint(NO_FASTER):
        listed = "; ".join(f"{name}: {reason}" for name, reason in {**NO_FASTER, **why}.items())
        return f"no backend here is faster than torch's own code ({listed})"
    return None


def _run_by(module: Recurrent | CellLayer, weight: Tensor) -> tuple[list[str], dict[str, str]]:
    """The backends that run the module where weight is, and why the others do not.

    Mostly one; none when the module asks for one that cannot.
    """
    cells = module.cells if isinstance(module, Recurrent) else (module.cell,)
    both = isinstance(module, Recurrent) and module.bidirectional
    chosen: list[str] = []
    why: dict[str, str] = {}
    for cell in cells:
        for reverse in (False, True) if both else (False,):
            features = Features(batch=1, time=1, reverse=reverse)
            reasons = dispatch.reasons(cell, features, weight.dtype, weight.device)
            why |= {name: reason for name, reason in reasons.items() if reason is not None}
            wanted = list(reasons) if module.backend == dispatch.AUTO else [module.backend]
            able = [name for name in wanted if reasons[name] is None]
            if not able:
                return [], why
            if able[0] not in chosen:
                chosen.append(able[0])
    return chosen, why


def _become(module: nn.Module, fresh: Recurrent | CellLayer) -> None:
    """Change the module's class, and lay recurra's settings over torch's."""
    cls: Any = type(fresh)
    if is_parametrized(module):
        # What torch would have made if it had parametrized recurra's class.
        own = vars(type(module))
        copied = {name: own[name] for name in own if name not in ("__dict__", "__weakref__")}
        cls = type(f"Parametrized{cls.__name__}", (cls,), copied)
    module.__class__ = cls
    state, every_module = vars(module), vars(nn.Module())
    for name in CACHES:
        state.pop(name, None)
    state.update({name: value for name, value in vars(fresh).items() if name not in every_module})


def _stock(theirs: Any) -> Any:
    """The plainest module of a torch class, to see what all of them have."""
    return theirs(1, 1, device="meta")

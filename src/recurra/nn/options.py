"""What every recurrent layer takes by keyword, beyond torch.nn's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict, get_args, get_type_hints

from recurra.errors import ArgumentError, unknown


class Options(TypedDict, total=False):
    """Keywords of all recurrent layers; the defaults leave a layer as torch.nn has it.

    backend             "auto", or the name of the backend that is to run: see `recurra.explain`
    zoneout             chance that a unit of the state stays as it was at a step, one number or
                        one for each part of the state; evaluation takes its expectation
    recurrent_dropout   one mask on h for a whole sequence, before the recurrent product
    variational_dropout one mask on each layer's input, the same at every step

    weight_drop         DropConnect: entries of the recurrent weights are 0 for a whole sequence
    residual            a layer's input is added to its output where the sizes are equal
    learn_initial_state the state that a sequence starts in is a parameter, `h_0_l0` and so on,
                        zeros at first
    clip_state_grad     the gradient that each step hands back to the state before it is cut off,
                        entry by entry, at plus and minus this number, inside BPTT
    recompute           "gates", or a number of segments: less memory in training, for hardly any
                        more time and for about half more; see `recurra.kernels.recompute`

    Zoneout and the dropouts act in training only; see `recurra.nn.dropouts`.
    """

    backend: str
    zoneout: float | Sequence[float]
    recurrent_dropout: float
    variational_dropout: float
    weight_drop: float
    residual: bool
    learn_initial_state: bool
    clip_state_grad: float | None
    recompute: Literal["gates"] | int | None


class GatedOptions(Options, total=False):
    """And how RNN, LSTM and GRU draw their weights: see `recurra.nn.initialise`.

    init            "torch", "orthogonal", or "chrono" with
    chrono_length   the longest memory in time steps
    forget_bias     the forget gate's bias
    """

    init: str
    forget_bias: float | None
    chrono_length: int | None


def refuse_keywords(layer: type, base: type, names: Iterable[str]) -> None:
    """Raise ArgumentError for keywords that the constructor of `layer`, a kind of `base`, lacks.

    >>> from recurra import nn
    >>> nn.GRU(3, 5, zonout=0.1)
    Traceback (most recent call last):
    recurra.errors.ArgumentError: GRU: unknown keyword 'zonout'; did you mean 'zoneout'? Valid: ...
    """
    for name in names:
        # All of them: the message is the only list that there is in one place.
        text = unknown("keyword", name, _keywords(layer, base), listed=None)
        raise ArgumentError(f"{layer.__name__}: {text}")


def _keywords(layer: type, base: type) -> set[str]:
    """Arguments of the constructors between `layer` and `base`, with those that **options names."""
    found: set[str] = set()
    for kind in layer.__mro__[: layer.__mro__.index(base)]:
        if "__init__" not in vars(kind):
            continue
        make = vars(kind)["__init__"]
        parameters = inspect.signature(make).parameters.values()
        found |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        for hint in get_args(get_type_hints(make).get("options")):
            found |= set(get_type_hints(hint))
    return found - {"self"}

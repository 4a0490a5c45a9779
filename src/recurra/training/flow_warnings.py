"""What is wrong with a gradient's way back, in words, with the number and the remedy to try."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from recurra.training.flow_values import GradientFlow, LayerFlow

# The gradient of the first step, beside the largest of all steps: less is lost among the others.
VANISHED = 1e-4
# The largest gradient beside that of the last step. A loss at every step may add up to one for each
# step, so more is allowed where there are more steps.
EXPLODED = 1e3
# The share of values near 0 or 1, over all gates of a layer together: an open forget gate beside a
# shut input gate is a long memory, and the output gate moves.
SATURATED = 0.8

Kind = Literal["vanishing", "exploding", "saturated"]


class FlowWarning(NamedTuple):
    """One finding: its kind, the layer's title, the number that was judged, and all in words."""

    kind: Kind
    layer: str
    number: float
    text: str


def flow_warnings(flow: GradientFlow) -> list[FlowWarning]:
    """Every layer whose gradient vanishes or explodes on its way back, or whose gates are stuck.

    vanishing   the norm at the first step is less than 1e-4 of the largest, parts of the state
                together. A loss of every step feeds all steps, so that nothing is seen to vanish
    exploding   the largest norm is more than 1000 times that of the last step that has a gradient
                (more than T times, with T > 1000 steps), or not finite
    saturated   more than 80 % of all gate values are below 0.05 or above 0.95

    First and last are meant in the order in which the layer reads time.

    >>> from recurra.training.flow_values import LayerFlow
    >>> norms = {"h": (1e-9, 1e-6, 1e-3, 1.0)}
    >>> layer = LayerFlow("rnn", 0, False, "Elman", (0, 1, 2, 3), norms, {"h": 1}, {}, {}, (-6.9,))
    >>> for found in flow_warnings(GradientFlow(1.0, (layer,))):
    ...     print(found.text)
    vanishing gradient in rnn, layer 0: from step 3 back to step 0 its norm falls to 1e-09 of its
    largest, and halves in 1 step. Try init='orthogonal', or an LSTM or GRU instead.
    """
    if not math.isfinite(flow.loss):
        return [_not_finite(layer, flow.loss) for layer in flow.layers]
    checks = (_vanishing, _exploding, _saturated)
    found = (check(layer) for check in checks for layer in flow.layers)
    return [warning for warning in found if warning is not None]


def _not_finite(layer: LayerFlow, loss: float) -> FlowWarning:
    text = (
        f"exploding in {layer.title}: the loss is {loss}, so there is no gradient to look at. Look "
        "for missing values in the data; if there are none, the state or the head has overflowed: "
        "try a lower learning_rate, clip='norm' with a smaller clip_limit, or smaller weights."
    )
    return FlowWarning("exploding", layer.title, loss, text)


def _vanishing(layer: LayerFlow) -> FlowWarning | None:
    pairs = _norms(layer)
    peak = max((norm for _, norm in pairs), default=0.0)
    if not 0 < peak < math.inf:
        return None
    ratio = pairs[0][1] / peak
    if ratio >= VANISHED:
        return None
    first, last = pairs[0][0], pairs[-1][0]
    halves = [(steps, part) for part, steps in layer.memory_length.items() if steps is not None]
    half = ""
    if halves:
        steps, part = max(halves)
        half = f", and halves in {layer.memory(part)} step" + ("" if steps == 1 else "s")
    remedy = "an LSTM with init='chrono', or a GRU"
    if layer.cell == "Elman":
        remedy = "init='orthogonal', or an LSTM or GRU instead"
    elif layer.gates:
        length = abs(last - first) + 1
        remedy = f"init='chrono' with chrono_length={length}, or a forget_bias of 1 or more"
    text = (
        f"vanishing gradient in {layer.title}: from step {last} back to step {first} its norm "
        f"falls to {ratio:.2g} of its largest{half}. Try {remedy}."
    )
    return FlowWarning("vanishing", layer.title, ratio, text)


def _exploding(layer: LayerFlow) -> FlowWarning | None:
    pairs = _norms(layer)
    last = next(((t, norm) for t, norm in reversed(pairs) if norm > 0), None)
    if last is None:
        return None
    step, peak = max(pairs, key=lambda pair: pair[1])
    ratio = peak / last[1] if math.isfinite(peak) else math.inf
    if ratio <= max(EXPLODED, abs(last[0] - pairs[0][0])):
        return None
    radius = max(layer.spectral_radius.values(), default=math.nan)
    scaled = f"; spectral radius {radius:.3g}" if math.isfinite(radius) else ""
    text = (
        f"exploding gradient in {layer.title}: from step {last[0]} back to step {step} its norm "
        f"grows {ratio:.2g} times{scaled}. Try clip_state_grad=1.0 on the layer, clip='norm' with "
        "a smaller clip_limit, a lower learning_rate, or init='orthogonal'."
    )
    return FlowWarning("exploding", layer.title, ratio, text)


def _saturated(layer: LayerFlow) -> FlowWarning | None:
    if not layer.gates:
        return None
    share = sum(gate.saturation for gate in layer.gates.values()) / len(layer.gates)
    if not share > SATURATED:
        return None
    each = ", ".join(
        f"{name} {gate.closed:.0%} shut and {gate.open:.0%} open"
        for name, gate in layer.gates.items()
    )
    text = (
        f"saturated gates in {layer.title}: {share:.0%} of all values are below 0.05 or above 0.95 "
        f"({each}), where gates hardly learn. Try inputs scaled to about 1, a lower learning_rate, "
        "a larger weight_decay, or smaller initial weights, as of init='orthogonal'."
    )
    return FlowWarning("saturated", layer.title, share, text)


def _norms(layer: LayerFlow) -> list[tuple[int, float]]:
    """(step, norm of the state, its parts together) as the layer reads time, gaps left out."""
    over_time = zip(layer.steps, zip(*layer.norms.values(), strict=True), strict=True)
    pairs = [(step, math.hypot(*norms)) for step, norms in over_time]
    real = [pair for pair in pairs if not math.isnan(pair[1])]
    return real[::-1] if layer.reverse else real

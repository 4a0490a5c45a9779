"""A stack of layers as an ONNX graph, built node by node: no exporter stands in between.

ONNX stacks the gates in other orders, i o f g for LSTM and z r n for GRU, and joins both biases.
Its GRU with linear_before_reset=1 is torch's.
Source: ONNX operators LSTM-14, GRU-14 and RNN-14.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurra.bench.cases import Case
from recurra.bench.inputs import Arrays

ORDERS = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
OPSET = 17
IR_VERSION = 9


def state_names(case: Case) -> list[str]:
    """Inputs of the graph that hold the state, layer by layer; outputs are named next_NAME."""
    kinds = ("h", "c") if case.cell == "lstm" else ("h",)
    return [f"{kind}{layer}" for layer in range(case.shape[-1]) for kind in kinds]


def make_graph(case: Case, arrays: Arrays, *, time: int, with_state: bool) -> bytes:
    """The serialised model: x (time, B, I) to output (time, B, H).

    With `with_state` the states (1, B, H) are inputs and outputs too; without, they begin at 0.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    batch, _, inputs, hidden, layers = case.shape
    kinds = ("h", "c") if case.cell == "lstm" else ("h",)
    nodes, weights = [], [numpy_helper.from_array(np.array([1]), "direction")]
    source = "x"
    for layer in range(layers):
        for name, array in _layer_weights(case, arrays, layer).items():
            weights.append(numpy_helper.from_array(array, f"{name}{layer}"))
        starts = [f"{kind}{layer}" for kind in kinds] if with_state else []
        ends = [f"next_{kind}{layer}" for kind in kinds] if with_state else []
        output = "output" if layer == layers - 1 else f"y{layer}"
        nodes += [
            helper.make_node(
                case.cell.upper(),
                [source, f"W{layer}", f"R{layer}", f"B{layer}", "", *starts],
                [f"directions{layer}", *ends],
                hidden_size=hidden,
                **({"linear_before_reset": 1} if case.cell == "gru" else {}),
            ),
            helper.make_node("Squeeze", [f"directions{layer}", "direction"], [output]),
        ]
        source = output

    def value(name: str, *shape: int) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    states = state_names(case) if with_state else []
    graph = helper.make_graph(
        nodes,
        case.cell,
        [value("x", time, batch, inputs), *(value(name, 1, batch, hidden) for name in states)],
        [
            value("output", time, batch, hidden),
            *(value(f"next_{name}", 1, batch, hidden) for name in states),
        ],
        weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _layer_weights(case: Case, arrays: Arrays, layer: int) -> Arrays:
    """W, R (1, G·H, ·) and B (1, 2·G·H) of one layer, gates in ONNX's order."""
    order = ORDERS[case.cell]

    def reordered(name: str) -> NDArray[Any]:
        gates = np.split(arrays[f"{name}_l{layer}"], len(order))
        return np.concatenate([gates[k] for k in order])

    biases = np.concatenate([reordered("bias_ih"), reordered("bias_hh")])
    return {"W": reordered("weight_ih")[None], "R": reordered("weight_hh")[None], "B": biases[None]}

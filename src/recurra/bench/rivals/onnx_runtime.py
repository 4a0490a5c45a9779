"""ONNX Runtime on its CPU provider."""

from __future__ import annotations

import numpy as np

from recurra.bench.cases import Case
from recurra.bench.inputs import Arrays
from recurra.bench.job import Job
from recurra.bench.rivals.onnx_graph import make_graph, state_names


def make(case: Case, arrays: Arrays, participant: str) -> Job:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.inter_op_num_threads = 1
    steps = case.mode == "step"
    graph = make_graph(case, arrays, time=1 if steps else case.shape[1], with_state=steps)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    x = arrays["x"]
    if not steps:
        return Job(
            {"run": lambda: session.run(None, {"x": x})},
            lambda: {"output": session.run(["output"], {"x": x})[0]},
        )
    names = state_names(case)
    zeros = np.zeros((1, 1, case.shape[3]), np.float32)
    feed = {"x": x[:1], **dict.fromkeys(names, zeros)}

    def call() -> None:
        feed.update(zip(names, session.run(None, feed)[1:], strict=True))

    def results() -> Arrays:
        outputs, states = [], dict.fromkeys(names, zeros)
        for k in range(len(x)):
            output, *ends = session.run(None, {"x": x[k : k + 1], **states})
            states = dict(zip(names, ends, strict=True))
            outputs.append(output)
        return {"output": np.concatenate(outputs)}

    return Job({"run": call}, results)

"""OpenVINO on its CPU device, held to float32."""

from __future__ import annotations

import numpy as np

from recurra.bench.cases import Case
from recurra.bench.inputs import Arrays
from recurra.bench.job import Job
from recurra.bench.rivals.onnx_graph import make_graph


def make(case: Case, arrays: Arrays, participant: str) -> Job:
    import openvino

    core = openvino.Core()
    graph = make_graph(case, arrays, time=case.shape[1], with_state=False)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": case.threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
    x = arrays["x"]

    def results() -> Arrays:
        return {"output": np.array(request.infer({"x": x})["output"])}

    return Job({"run": lambda: request.infer({"x": x})}, results)

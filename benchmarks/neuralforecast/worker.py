"""One model of neuralforecast, trained and asked for forecasts; run by compare.py, in its own env.

python worker.py JOB.json: reads the job and a table (unique_id, ds, y), writes forecasts and times.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from neuralforecast import NeuralForecast  # noqa: E402
from neuralforecast.models import GRU, LSTM, DeepAR  # noqa: E402

MODELS = {"LSTM": LSTM, "GRU": GRU, "DeepAR": DeepAR}
CALLS = 5


def made(job: dict) -> object:
    """The model with the package's defaults, but for horizon, look-back, windows, progress bars."""
    return MODELS[job["model"]](
        h=job["horizon"],
        input_size=job["context"],
        max_steps=job["steps"],
        windows_batch_size=job["windows"],
        random_seed=job["seed"],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
    )


def point(frame: pd.DataFrame, model: str) -> pd.DataFrame:
    """The median where there is one, else the model's only column."""
    name = f"{model}-median" if f"{model}-median" in frame.columns else model
    return frame[["unique_id", "ds", name]].rename(columns={name: "value"})


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    table = pd.read_parquet(job["table"])
    train = table[table["row"] < job["train_rows"]] if job["train_rows"] else table
    train = train[["unique_id", "ds", "y"]]
    forecaster = NeuralForecast(models=[made(job)], freq=1)
    started = time.process_time()
    forecaster.fit(train)
    fit_s = time.process_time() - started
    parts, took = [], []
    for origin in job["origins"]:
        history = train
        if origin is not None:
            recent = (table["row"] < origin) & (table["row"] >= origin - 3 * job["context"])
            history = table[recent][["unique_id", "ds", "y"]]
        started = time.process_time()
        found = forecaster.predict(df=history)
        took.append(time.process_time() - started)
        parts.append(point(found.reset_index(), job["model"]).assign(origin=origin or 0))
    pd.concat(parts).to_parquet(job["out"])
    one = train[train["unique_id"] == train["unique_id"].iloc[0]]
    latency = []
    for _ in range(CALLS + 1):
        started = time.process_time()
        forecaster.predict(df=one)
        latency.append(time.process_time() - started)
    Path(job["told"]).write_text(
        json.dumps(
            {
                "fit_s": fit_s,
                "predict_s": statistics.median(took),
                "predict_one_ms": 1e3 * statistics.median(latency[1:]),
                "parameters": sum(p.numel() for p in forecaster.models[0].parameters()),
            }
        )
    )


if __name__ == "__main__":
    main()

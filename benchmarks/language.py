"""Language models beside the same ones written with torch.nn: python benchmarks/language.py

Training: one update (forward, backward, clip, AdamW) of a window of random tokens, the state
carried. Generation: one stream, one token at a time, drawn from the probabilities. Both networks
have the same weights; rounds alternate, and each number is a median. Writes
docs/results/language-speed.json and, from it, docs/results/language-speed.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.decoding.sampling import Sampler
from recurra.nn.language import LanguageNetwork
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json

# name: cell, vocabulary, embedding, hidden, layers, tied, cut-offs, batch, steps of a window
SHAPES: dict[str, tuple[str, int, int, int, int, bool, tuple[int, ...], int, int]] = {
    "characters, GRU 512": ("gru", 66, 64, 512, 1, False, (), 32, 64),
    "characters, LSTM 2 x 256": ("lstm", 66, 64, 256, 2, False, (), 32, 64),
    "words, LSTM 2 x 256, tied": ("lstm", 10_000, 256, 256, 2, True, (), 32, 35),
    "words, the same with a soft-max in bands": (
        "lstm",
        10_000,
        256,
        256,
        2,
        True,
        (2000,),
        32,
        35,
    ),
}
ROUNDS, UPDATES, TOKENS = 5, 2, 200
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


class Plain(torch.nn.Module):
    """Embedding, layers and output as one writes them with torch.nn."""

    def __init__(self, network: LanguageNetwork, cell: str) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding.from_pretrained(
            network.embedding.weight.detach().clone(), freeze=False
        )
        first = network.layers[0]
        kind = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
        self.layer = kind(
            first.input_size, first.hidden_size, len(network.layers), batch_first=True
        )
        for k, layer in enumerate(network.layers):
            named = {name.replace("_l0", f"_l{k}"): p for name, p in layer.state_dict().items()}
            self.layer.load_state_dict(named, strict=False)
        self.bias = torch.nn.Parameter(network.softmax.bias.detach().clone())
        self.output = None
        if network.output_weight is not None:
            self.output = torch.nn.Parameter(network.output_weight.detach().clone())
        self.scale = network._scale

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.layer(self.embedding(tokens) * self.scale, state)
        weight = self.embedding.weight if self.output is None else self.output
        return F.linear(y, weight, self.bias), state


def detached(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach()
    return type(state)(map(detached, state))


def trainer(model: torch.nn.Module, loss: Callable[..., Any], vocab: int, batch: int, steps: int):
    """A function that does one update."""
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(vocab, (batch, steps + 1), generator=torch.Generator().manual_seed(0))
    # Frequencies as words have them, so that bands are used as in a text.
    tokens = (tokens.double() / vocab).pow(4).mul(vocab).long()
    state = None

    def update() -> None:
        nonlocal state
        optimiser.zero_grad()
        value, state = loss(tokens[:, :-1], tokens[:, 1:], state)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        state = detached(state)

    return update


def measure(name: str) -> dict[str, Any]:
    cell, vocab, embedded, hidden, layers, tied, cutoffs, batch, steps = SHAPES[name]
    torch.manual_seed(0)
    ours = LanguageNetwork(
        vocab,
        cell=cell,
        hidden_size=hidden,
        num_layers=layers,
        embedding_size=embedded,
        tied=tied,
        cutoffs=cutoffs,
    )
    plain = Plain(ours, cell)
    if not cutoffs:
        x = torch.randint(vocab, (2, 5))
        with torch.no_grad():
            expected = plain(x)[0].log_softmax(2).flatten(0, 1)
            found = ours.log_probs(ours(x)[0].flatten(0, 1))
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)

    def our_loss(x: Tensor, y: Tensor, state: Any) -> tuple[Tensor, Any]:
        features, state = ours(x, state)
        return ours.nll(features, y).mean(), state

    def plain_loss(x: Tensor, y: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = plain(x, state)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten()), state

    training = alternate(
        {
            "recurra": trainer(ours, our_loss, vocab, batch, steps),
            "torch.nn": trainer(plain, plain_loss, vocab, batch, steps),
        },
        UPDATES,
        batch * steps,
    )
    writing = alternate(
        {"recurra": our_writer(ours.eval()), "torch.nn": plain_writer(plain.eval())}, TOKENS, 1
    )
    return {"name": name, "training": training, "generation": writing}


def our_writer(network: LanguageNetwork) -> Callable[[], None]:
    stream, sampler = network.stream(), Sampler()
    token = 1

    def write() -> None:
        nonlocal token
        token = sampler.draw(stream.push(token))

    return write


def plain_writer(model: Plain) -> Callable[[], None]:
    sampler, state, token = Sampler(), None, 1

    @torch.no_grad()
    def write() -> None:
        nonlocal state, token
        logits, state = model(torch.tensor([[token]]), state)
        token = sampler.draw(logits[0, 0].log_softmax(0))

    return write


def alternate(tasks: dict[str, Callable[[], None]], times: int, tokens: int) -> dict[str, float]:
    """Tokens a second of each: the median over rounds in turn, after one that is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(ROUNDS + 1):
        for name, task in list(tasks.items())[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            for _ in range(times):
                task()
            speeds[name].append(times * tokens / (time.perf_counter() - started))
    return {name: statistics.median(values[1:]) for name, values in speeds.items()}


def page(result: dict[str, Any]) -> str:
    lines = [
        "# language-speed",
        "",
        "Tokens a second of a language model, beside the same network written with torch.nn, in",
        f"float32: medians of {ROUNDS} rounds in turn. torch.nn has the whole soft-max in each.",
        "",
        "| network | | recurra | torch.nn | ratio |",
        "|---|---|---:|---:|---:|",
    ]
    for row in result["rows"]:
        for what in ("training", "generation"):
            ours, theirs = row[what]["recurra"], row[what]["torch.nn"]
            lines.append(
                f"| {row['name']} | {what} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} |"
            )
    return "\n".join(
        [
            *lines,
            "",
            "Training windows: "
            + "; ".join(f"{name}: {shape[7]} x {shape[8]}" for name, shape in SHAPES.items())
            + ".",
            "",
            f"- threads: {result['threads']}",
            f"- machine: {result['machine']}",
            f"- commit: {result['commit']}",
            "",
            "Run it again:",
            "",
            "```",
            "python benchmarks/language.py",
            "```",
            "",
        ]
    )


def main() -> None:
    result = {
        "rows": [measure(name) for name in SHAPES],
        "threads": torch.get_num_threads(),
        "machine": describe_machine(),
        "commit": describe_commit(),
    }
    write_json(RESULTS / "language-speed.json", result)
    write_bytes(RESULTS / "language-speed.md", page(result).encode())
    print(page(result))


if __name__ == "__main__":
    main()

"""How fast a saved translator translates, beside the same network written with torch.nn.

    python benchmarks/translation.py RUN SENTENCES [--beam 5] [--rounds 3] [--threads N]

The rival has the run's weights in torch.nn.GRU and torch.nn.Linear, the same attention by batched
products, and the same searches written plainly: padded batches that are decoded until their last
sentence ends, beams by torch.topk over all continuations. Rounds are interleaved; the best of each
is kept. Reading tokens from text and writing text count on both sides. Writes
docs/results/translation-speed.json and, from it, docs/results/translation-speed.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recurra import Translator
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json
from recurra.tasks.translation.batches import pad
from recurra.tasks.translation.pairs import read_sentences, tidy

PER_BATCH = 160
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


class TorchTranslator(nn.Module):
    """The default network (GRU, multiplicative attention, two decoder layers) by torch.nn."""

    def __init__(self, model: Translator) -> None:
        super().__init__()
        ours, settings = model.fitted.network, model.settings
        usual = (settings.cell, settings.attention, settings.decoder_layers, settings.input_feeding)
        if usual != ("gru", "multiplicative", 2, False) or not settings.joint:
            raise SystemExit("the rival knows the default network only")
        self.tokens = model.fitted.tokens
        self.embedding, self.bias = ours.embedding, ours.bias
        self.encoder = nn.ModuleList(_torch_gru(layer) for layer in ours.encoder)
        self.decoder = nn.ModuleList(_torch_gru(layer) for layer in ours.decoder)
        self.memory, self.start, self.output = ours.memory, ours.start, ours.output
        self.attentions = ours.attentions
        self.scale = settings.embedding_size**0.5

    def read(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.embedding(source) * self.scale
        for layer in self.encoder:
            packed = nn.utils.rnn.pack_padded_sequence(
                x, lengths, batch_first=True, enforce_sorted=False
            )
            x, _ = nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True)
        mask = torch.arange(source.shape[1]) < lengths[:, None]
        values = self.memory(x).masked_fill(~mask[..., None], 0)
        return values, mask, self.start(values.sum(1) / lengths[:, None])

    def step(
        self, e: Tensor, values: Tensor, mask: Tensor, states: list[Tensor | None]
    ) -> tuple[Tensor, list[Tensor | None]]:
        x, after = e[:, None], []
        for k, layer in enumerate(self.decoder):
            x, state = layer(x, states[k])
            after.append(state)
            query = self.attentions[k].query
            scores = torch.bmm(query(x), values.transpose(1, 2)) / query.out_features**0.5
            weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
            context = torch.bmm(weights, values)
            x = torch.cat([x, context], -1) if k == 0 else x
        o = torch.tanh(self.output(torch.cat([x, context, e[:, None]], -1)))[:, 0]
        return torch.log_softmax(o @ self.embedding.weight.T + self.bias, 1), after

    @torch.no_grad()
    def translate(self, texts: list[str], beam: int) -> list[str]:
        said = [""] * len(texts)
        order = sorted(range(len(texts)), key=lambda k: len(texts[k]))
        per_batch = max(1, PER_BATCH // beam)
        for begin in range(0, len(order), per_batch):
            rows = order[begin : begin + per_batch]
            source, lengths = pad([self.tokens.read(tidy(texts[k])) for k in rows])
            for k, ids in zip(rows, self._search(source, lengths, beam), strict=True):
                said[k] = tidy(self.tokens.target.decode(ids))
        return said

    def _search(self, source: Tensor, lengths: Tensor, beam: int) -> list[list[int]]:
        end_id, count = self.tokens.target.end_id, len(source)
        values, mask, start = (
            part.repeat_interleave(beam, 0) for part in self.read(source, lengths)
        )
        states: list[Tensor | None] = [None] * len(self.decoder)
        last = torch.full((count * beam,), end_id)
        scores = torch.full((count, beam), -torch.inf)
        scores[:, 0] = 0
        over = torch.zeros(count, beam, dtype=torch.bool)
        sizes = torch.ones(count, beam)
        written = torch.empty(count, beam, 0, dtype=torch.long)
        for time_step in range(2 * int(lengths.max()) + 10):
            e = self.embedding(last) * self.scale
            log_probs, states = self.step(e + start if time_step == 0 else e, values, mask, states)
            log_probs = log_probs.view(count, beam, -1)
            if time_step == 0:
                log_probs[..., end_id] = -torch.inf
            log_probs[over] = -torch.inf
            log_probs[..., end_id] = torch.where(over, 0.0, log_probs[..., end_id])
            total = (scores[..., None] + log_probs).flatten(1)
            scores, at = total.topk(beam)
            before, ids = at // log_probs.shape[-1], at % log_probs.shape[-1]
            rows = (torch.arange(count)[:, None] * beam + before).flatten()
            states = [None if state is None else state[:, rows] for state in states]
            written = torch.cat(
                [written.gather(1, before[..., None].expand_as(written)), ids[..., None]], -1
            )
            sizes = sizes.gather(1, before) + (~over.gather(1, before))
            over = ids == end_id
            last = ids.flatten()
            if bool(over.all()):
                break
        best = (scores / ((5 + sizes) / 6)).argmax(1)
        chosen = written[torch.arange(count), best].tolist()
        return [ids[: ids.index(end_id)] if end_id in ids else ids for ids in chosen]


def _torch_gru(layer: Any) -> nn.GRU:
    made = nn.GRU(
        layer.input_size, layer.hidden_size, batch_first=True, bidirectional=layer.bidirectional
    )
    made.load_state_dict(layer.state_dict())
    return made


def seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def page(result: dict[str, Any]) -> str:
    lines = [
        "# translation speed",
        "",
        f"{result['sentences']:,} sentences by a saved run, text to text, on {result['threads']}",
        "threads, beside the same weights and searches written with torch.nn; the best of",
        "interleaved rounds.",
        "",
        "| model | beam | sentences a second | the same text as the other |",
        "|---|---:|---:|---:|",
    ]
    for row in result["sentences_per_second"]:
        beam = row["beam_size"]
        same = result["same_translations"][str(beam)]
        lines.append(f"| {row['model']} | {beam} | {row['value']:.0f} | {same} |")
    about = [f"- {word}: {result[word]}" for word in ("machine", "commit")]
    command = "python benchmarks/translation.py RUN SENTENCES"
    return "\n".join([*lines, "", *about, "", "Run it again:", "", "```", command, "```", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    model = Translator.load(chosen.run)
    rival = TorchTranslator(model).eval()
    texts = read_sentences(chosen.sentences)
    runs: dict[tuple[str, int], Callable[[], list[str]]] = {}
    for beam in sorted({1, chosen.beam}):
        runs["recurra", beam] = lambda beam=beam: model.translate(texts, beam_size=beam)
        runs["torch.nn", beam] = lambda beam=beam: rival.translate(texts, beam)
    best = {key: min(seconds(run) for _ in range(1)) for key, run in runs.items()}  # warm
    for _ in range(chosen.rounds):
        best = {key: min(best[key], seconds(run)) for key, run in runs.items()}
    said = {beam: (runs["recurra", beam](), runs["torch.nn", beam]()) for beam in (1, chosen.beam)}
    same = {beam: sum(a == b for a, b in zip(*pair, strict=True)) for beam, pair in said.items()}
    result = {
        "sentences": len(texts),
        "threads": torch.get_num_threads(),
        "sentences_per_second": [
            {"model": name, "beam_size": beam, "value": round(len(texts) / taken, 1)}
            for (name, beam), taken in best.items()
        ],
        "same_translations": {str(beam): count for beam, count in same.items()},
        "machine": describe_machine(),
        "commit": describe_commit(),
    }
    write_json(RESULTS / "translation-speed.json", result)
    write_bytes(RESULTS / "translation-speed.md", page(result).encode())
    print(page(result))


if __name__ == "__main__":
    main()

"""Decoding many sequences side by side: greedy, sampled, and by beams, without a loop over them.

A model is a step over N rows: the K beams of one sentence are neighbours, N = B · K. All
bookkeeping is tensors over sentences and beams; sentences that are done leave the batch. What is
chosen for a sentence depends on its own rows alone, so where a row's bits do not depend on its
neighbours, neither do the tokens: any batch size and order give the same.

    score = log p / ((5 + n) / 6)^α + β Σ_s log min(1, Σ_t weight_ts)

over n tokens, the end included, and the places s of the source that were attended to. Every
sequence ends: at its greatest length only `end_id` is left, and probabilities that are no numbers
are an error. A sentence is done when as many as are
wanted have ended and no open beam can come before them any more, or when `beam_size` have ended.

Source: Wu et al. 2016, "Google's neural machine translation system", eq. 14.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from recurra.errors import ConfigError, DivergenceError

_BLOCK = 32  # tokens among which the best ones are looked for first


class Stepper(Protocol):
    """A model in the middle of some sentences."""

    def step(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """Read last (N,): log p (N, V) of the next token, attention (N, S) to the source."""
        ...

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        """Go on with these rows, in this order; and, unless None, with these sentences only."""
        ...


@dataclass(frozen=True)
class Found:
    """A sequence: its tokens without the end, log p in nats with it, the score above.

    attention   (T + 1, S): what each token looked at, and the end
    complete    whether it ended by itself, and not at the greatest length
    """

    tokens: tuple[int, ...]
    log_prob: float
    score: float
    attention: Tensor
    complete: bool


class Rules(NamedTuple):
    """What decoding keeps to.

    end_id           the token that ends a sequence; it is never the first
    lengths (B,)     most tokens of each sequence without the end, at least 1
    real (B, S)      true for the places of the source that are no padding
    forced (B, P)    tokens that each sequence begins with, −1 where it is free; None: all are free
    banned           ids that no sequence has
    length_penalty   α above
    coverage         β above
    """

    end_id: int
    lengths: Tensor
    real: Tensor
    forced: Tensor | None = None
    banned: Sequence[int] = ()
    length_penalty: float = 1.0
    coverage: float = 0.0


Choose = Callable[[Tensor, Tensor], Tensor]
"""(log p (B, V), numbers (B,) of the sentences) → the next token of each (B,)."""


def likeliest(log_probs: Tensor, numbers: Tensor) -> Tensor:
    """The likeliest token of each row."""
    return best_of_rows(log_probs, 1)[1][:, 0]


@torch.no_grad()
def decode(
    stepper: Stepper, start_id: int, rules: Rules, choose: Choose = likeliest
) -> list[Found]:
    """One sequence for each sentence, each token chosen once: greedy unless told otherwise.

    Raises: ConfigError for lengths below 1 and an end that is banned, DivergenceError for
    probabilities that are NaN.
    """
    _check(rules)
    paths = _Paths()
    numbers = torch.arange(len(rules.lengths))
    last = torch.full_like(numbers, start_id)
    rows = numbers
    total = torch.zeros(len(numbers), dtype=torch.float64)
    covered: Tensor | None = None
    while len(numbers):
        log_probs, attention = stepper.step(last)
        paths.add(last, rows, attention)
        log_probs = _restrict(log_probs, rules, numbers, paths.time, 1)
        last = choose(log_probs, numbers)
        last = torch.where(rules.lengths[numbers] <= paths.time, rules.end_id, last)
        total = total + log_probs.gather(1, last[:, None])[:, 0].double()
        covered = attention if covered is None else covered + attention
        over = last == rules.end_id
        if bool(over.any()):
            done = over.nonzero()[:, 0]
            score = _score(total[done], paths.time + 1, rules)
            score = score + _covered(covered[done], numbers[done], rules)
            paths.end(numbers[done], done, total[done], score)
            rows = (~over).nonzero()[:, 0]
            numbers, last, total, covered = numbers[rows], last[rows], total[rows], covered[rows]
            if len(rows):
                stepper.select(rows, rows)
        else:
            rows = torch.arange(len(numbers))
    return [found[0] for found in paths.collect(rules)]


@torch.no_grad()
def beam_decode(
    stepper: Stepper, start_id: int, rules: Rules, beam_size: int, count: int = 1
) -> list[list[Found]]:
    """The best `count` sequences that beams of `beam_size` find for each sentence, best first.

    The stepper begins with `beam_size` equal rows for each sentence. Fewer than `count` are found
    only where fewer are possible.
    Raises: ConfigError for sizes below 1, a count above the size, lengths below 1 and a banned end,
    DivergenceError for probabilities that are NaN.
    """
    _check(rules)
    if beam_size < 1 or not 1 <= count <= beam_size:
        raise ConfigError(
            f"beam_size={beam_size}, count={count}: expected a count from 1 to beam_size."
        )
    return _Beams(stepper, start_id, rules, beam_size, count).run()


class _Beams:
    """One call of `beam_decode`: B sentences are left, with K beams each.

    Shapes: scores (B, K) log p of the open beams, −inf for one that is not there; ended (B, K)
    scores of what has ended, best first, with log p (B, K) and the step and row (B, K, 2) of each.
    """

    def __init__(
        self, stepper: Stepper, start_id: int, rules: Rules, beam_size: int, count: int
    ) -> None:
        sentences = len(rules.lengths)
        self.stepper, self.rules, self.size, self.count = stepper, rules, beam_size, count
        self.paths = _Paths()
        self.numbers = torch.arange(sentences)
        self.rows = torch.arange(sentences * beam_size)
        self.last = torch.full_like(self.rows, start_id)
        lowest = torch.full((sentences, beam_size), -torch.inf, dtype=torch.float64)
        self.scores = lowest.clone()
        self.scores[:, 0] = 0.0
        self.covered: Tensor | None = None
        self.ended, self.ended_log_probs = lowest.clone(), lowest.clone()
        self.ended_at = torch.zeros(sentences, beam_size, 2, dtype=torch.long)

    def run(self) -> list[list[Found]]:
        while len(self.numbers):
            self._step()
        return self.paths.collect(self.rules)

    def _step(self) -> None:
        size, sentences = self.size, len(self.numbers)
        log_probs, attention = self.stepper.step(self.last)
        self.paths.add(self.last, self.rows, attention)
        self.covered = attention if self.covered is None else self.covered + attention
        log_probs = _restrict(log_probs, self.rules, self.numbers, self.paths.time, size)
        values, tokens = best_of_rows(log_probs, min(2 * size, log_probs.shape[1]))
        total = (self.scores.view(-1, 1) + values.double()).view(sentences, -1)
        ranked, at = total.topk(min(2 * size, total.shape[1]))
        tokens = tokens.view(sentences, -1).gather(1, at)
        rows = at.div(values.shape[1], rounding_mode="floor")
        rows = rows + torch.arange(sentences)[:, None] * size
        over = tokens == self.rules.end_id
        self._end(ranked[:, :size], rows[:, :size], over[:, :size])
        self._go_on(ranked, rows, tokens, over)

    def _end(self, ranked: Tensor, rows: Tensor, over: Tensor) -> None:
        """Put what has ended among the K best to what ended before."""
        assert self.covered is not None
        if not bool(over.any()):
            return
        log_probs = ranked.masked_fill(~over, -torch.inf)
        scores = _score(log_probs, self.paths.time + 1, self.rules)
        if self.rules.coverage:
            numbers = self.numbers.repeat_interleave(self.size)
            scores = scores + _covered(self.covered, numbers, self.rules)[rows]
        at = torch.stack([torch.full_like(rows, self.paths.time), rows], -1)
        self.ended, order = torch.cat([self.ended, scores], 1).topk(self.size)
        log_probs = torch.cat([self.ended_log_probs, log_probs], 1)
        self.ended_log_probs = log_probs.gather(1, order)
        at = torch.cat([self.ended_at, at], 1)
        self.ended_at = at.gather(1, order[..., None].expand(-1, -1, 2))

    def _go_on(self, ranked: Tensor, rows: Tensor, tokens: Tensor, over: Tensor) -> None:
        """The K best open beams of the sentences that are not done."""
        width = ranked.shape[1]  # at least K: there are K rows of at least one token each
        # The open ones first, in their order.
        key = over.long() * width + torch.arange(width)
        chosen = key.topk(self.size, largest=False).indices
        scores = ranked.gather(1, chosen).masked_fill(over.gather(1, chosen), -torch.inf)
        best = scores.amax(1)
        # log p only falls from here on, and is divided by no more than at the greatest length.
        longest = self.rules.lengths[self.numbers] + 1
        reachable = _score(best, longest, self.rules)
        done = (self.ended[:, self.count - 1] >= reachable) & (self.ended[:, 0] > -torch.inf)
        done |= (self.ended[:, -1] > -torch.inf) | (best == -torch.inf)
        kept = (~done).nonzero()[:, 0]
        if len(kept) < len(self.numbers):
            self._leave(done.nonzero()[:, 0])
        self.numbers = self.numbers[kept]
        self.ended, self.ended_at = self.ended[kept], self.ended_at[kept]
        self.ended_log_probs = self.ended_log_probs[kept]
        self.scores = scores[kept]
        self.rows = rows.gather(1, chosen)[kept].flatten()
        self.last = tokens.gather(1, chosen)[kept].flatten()
        assert self.covered is not None
        self.covered = self.covered[self.rows]
        if len(kept):
            self.stepper.select(self.rows, kept if len(kept) < len(done) else None)

    def _leave(self, done: Tensor) -> None:
        """Note the results of sentences that are done, in the order of their ranks."""
        for rank in range(self.count):
            there = done[self.ended[done, rank] > -torch.inf]
            at = self.ended_at[there, rank]
            log_probs = self.ended_log_probs[there, rank]
            self.paths.end(
                self.numbers[there], at[:, 1], log_probs, self.ended[there, rank], at[:, 0]
            )


class _Paths:
    """Where every row came from, so that a sequence can be read back from its last row."""

    def __init__(self) -> None:
        # Of each step: the token that each row read, its row in the step before, its attention.
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []
        self._ends: list[tuple[Tensor, ...]] = []

    @property
    def time(self) -> int:
        """Tokens that the rows of the last step have, the start not counted."""
        return len(self._steps) - 1

    def add(self, last: Tensor, rows: Tensor, attention: Tensor) -> None:
        self._steps.append((last, rows, attention))

    def end(
        self,
        numbers: Tensor,
        rows: Tensor,
        log_probs: Tensor,
        scores: Tensor,
        times: Tensor | None = None,
    ) -> None:
        """Sentences `numbers` end after `rows` of the step `times`, None: of the last one."""
        times = torch.full_like(rows, self.time) if times is None else times
        self._ends.append((numbers, rows, log_probs, scores, times))

    def collect(self, rules: Rules) -> list[list[Found]]:
        """All sequences by sentence, in the order in which they were noted."""
        found: list[list[Found]] = [[] for _ in range(len(rules.lengths))]
        if not self._ends:
            return found
        numbers, rows, log_probs, scores, times = (
            torch.cat(parts) for parts in zip(*self._ends, strict=True)
        )
        count, places = len(rows), self._steps[0][2].shape[1]
        tokens = torch.zeros(count, len(self._steps), dtype=torch.long)
        attention = torch.zeros(count, len(self._steps), places)
        for time in range(len(self._steps) - 1, -1, -1):
            here = (times >= time).nonzero()[:, 0]
            last, before, weights = self._steps[time]
            at = rows[here]
            tokens[here, time], attention[here, time] = last[at], weights[at]
            rows[here] = before[at]
        listed = (numbers.tolist(), times.tolist(), tokens.tolist())
        ends = (log_probs.tolist(), scores.tolist(), rules.lengths[numbers].tolist())
        places_of = rules.real.sum(1)[numbers].tolist()
        for k, (number, time, row) in enumerate(zip(*listed, strict=True)):
            seen = attention[k, : time + 1, : places_of[k]].clone()
            is_whole = time < ends[2][k]
            own = tuple(row[1 : time + 1])  # the first token read is the start
            found[number].append(Found(own, ends[0][k], ends[1][k], seen, is_whole))
        return found


def best_of_rows(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(values, indices), each (N, count), of the largest numbers of each row of x (N, V).

    Only blocks whose largest number is among the `count` largest of all blocks are looked into.

    >>> best_of_rows(torch.tensor([[1.0, 5.0, 3.0]]), 2)[1]
    tensor([[1, 2]])
    """
    rows, width = x.shape
    blocks = width // _BLOCK
    if blocks <= 2 * count:
        return tuple(x.topk(count))  # type: ignore[return-value]
    whole = blocks * _BLOCK
    body = x[:, :whole].reshape(rows, blocks, _BLOCK)
    chosen = body.amax(-1).topk(count).indices
    inside = body.gather(1, chosen[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    ids = (chosen[..., None] * _BLOCK + torch.arange(_BLOCK, device=x.device)).flatten(1)
    tail = torch.arange(whole, width, device=x.device).expand(rows, -1)
    inside, ids = torch.cat([inside, x[:, whole:]], 1), torch.cat([ids, tail], 1)
    values, at = inside.topk(count)
    return values, ids.gather(1, at)


def _restrict(log_probs: Tensor, rules: Rules, numbers: Tensor, time: int, size: int) -> Tensor:
    """log p (N, V) with −inf for what may not come after `time` tokens.

    Raises: DivergenceError for log p that are NaN.
    """
    if bool(log_probs.isnan().any()):
        raise DivergenceError(
            f"the probabilities of token {time + 1} are NaN; expected numbers. The weights are too "
            "large or damaged: restore them from a copy, or train again with a lower learning rate."
        )
    must = torch.where(rules.lengths[numbers] <= time, rules.end_id, -1)
    if rules.forced is not None and time < rules.forced.shape[1]:
        must = torch.where(must < 0, rules.forced[numbers, time], must)
    rows = (must >= 0).nonzero()[:, 0]
    if time and not rules.banned and not len(rows):
        return log_probs
    log_probs = log_probs.clone()
    if rules.banned:
        log_probs[:, list(rules.banned)] = -torch.inf
    if time == 0:
        log_probs[:, rules.end_id] = -torch.inf
    if len(rows):
        ids = must[rows].repeat_interleave(size)
        rows = (rows[:, None] * size + torch.arange(size)).flatten()
        kept = log_probs[rows, ids]
        log_probs[rows] = -torch.inf
        log_probs[rows, ids] = kept
    return log_probs


def _score(log_probs: Tensor, lengths: int | Tensor, rules: Rules) -> Tensor:
    """log p by its length, whose power is taken number by number: it has one value in any batch."""
    sizes = [lengths] if isinstance(lengths, int) else lengths.tolist()
    powers = [((5 + size) / 6) ** rules.length_penalty for size in sizes]
    return log_probs / torch.tensor(powers, dtype=torch.float64)


def _covered(covered: Tensor, numbers: Tensor, rules: Rules) -> Tensor:
    """β Σ log min(1, attention) (N,), in whole numbers, so that padding moves no bit."""
    if not rules.coverage:
        return torch.zeros(len(covered), dtype=torch.float64)
    logs = covered.double().clamp(1e-6, 1.0).log() * rules.real[numbers]
    return rules.coverage * (torch.round(logs * 2.0**32).sum(1) / 2.0**32)


def _check(rules: Rules) -> None:
    if len(rules.lengths) and int(rules.lengths.min()) < 1:
        raise ConfigError(f"a greatest length of {int(rules.lengths.min())}; expected 1 or more.")
    if rules.end_id in rules.banned:
        raise ConfigError(f"banned holds the end, {rules.end_id}, without which nothing would end.")

"""Translation with additive attention, before and after recurra.accelerate.

A two-way GRU reads the packed source sentences; at each step a GRUCell decoder weighs the encoder's
outputs by how well they match its state. The task here is to write a sequence backwards.

Bahdanau, Cho and Bengio 2015, "Neural machine translation by jointly learning to align and
translate", appendix A; with a linear output layer in place of the maxout one.

    python examples/seq2seq_attention.py
    python examples/seq2seq_attention.py --small
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from compare import Comparison, Evaluate, compare, read_options
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

PAD_ID, BOS_ID, EOS_ID, FIRST_WORD = 0, 1, 2, 3


class Encoder(nn.Module):
    """Token ids (B, T) to outputs (B, T, 2 * hidden_size) and the decoder's first state."""

    def __init__(self, vocab_size: int, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_size, padding_idx=PAD_ID)
        self.rnn = nn.GRU(embedding_size, hidden_size, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(hidden_size, hidden_size)

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(
            self.embedding(ids), lengths, batch_first=True, enforce_sorted=False
        )
        outputs, h_n = self.rnn(packed)
        padded, _ = pad_packed_sequence(outputs, batch_first=True)
        # The backward direction ends at the first word, which the decoder begins with.
        return padded, torch.tanh(self.bridge(h_n[1]))


class Attention(nn.Module):
    """score = v · tanh(W state + U encoder_output), softmax over the real positions."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, h: Tensor, keys: Tensor, encoder_output: Tensor, mask: Tensor) -> Tensor:
        scores = self.score(torch.tanh(self.query(h).unsqueeze(1) + keys)).squeeze(2)
        weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=1)
        return torch.bmm(weights.unsqueeze(1), encoder_output).squeeze(1)


class Translator(nn.Module):
    """Source ids (B, T), lengths (B,) and the words before each to logits (B, T', vocab_size)."""

    def __init__(self, vocab_size: int, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.encoder = Encoder(vocab_size, embedding_size, hidden_size)
        self.attention = Attention(hidden_size)
        self.embedding = nn.Embedding(vocab_size, embedding_size, padding_idx=PAD_ID)
        self.cell = nn.GRUCell(embedding_size + 2 * hidden_size, hidden_size)
        self.head = nn.Linear(3 * hidden_size + embedding_size, vocab_size)

    def forward(self, source: Tensor, lengths: Tensor, previous: Tensor) -> Tensor:
        encoder_output, h = self.encoder(source, lengths)
        keys = self.attention.key(encoder_output)
        mask = torch.arange(source.shape[1]) < lengths.unsqueeze(1)
        logits = []
        for word in self.embedding(previous).unbind(1):
            context = self.attention(h, keys, encoder_output, mask)
            h = self.cell(torch.cat([word, context], dim=1), h)
            logits.append(self.head(torch.cat([h, context, word], dim=1)))
        return torch.stack(logits, dim=1)


def build(small: bool) -> tuple[nn.Module, Evaluate]:
    """The model, and its loss on random sentences that are to be written backwards."""
    torch.manual_seed(0)
    vocab_size, batch, longest = (20, 4, 8) if small else (1000, 32, 30)
    model = Translator(vocab_size, 16, 24) if small else Translator(vocab_size, 128, 256)
    lengths = torch.linspace(longest // 2, longest, batch).long()
    sentences = [torch.randint(FIRST_WORD, vocab_size, (int(n),)) for n in lengths]
    ends = torch.tensor([BOS_ID]), torch.tensor([EOS_ID])
    source = pad_sequence(sentences, batch_first=True, padding_value=PAD_ID)
    backwards = [torch.cat([ends[0], words.flip(0), ends[1]]) for words in sentences]
    target = pad_sequence(backwards, batch_first=True, padding_value=PAD_ID)

    def evaluate(model: nn.Module) -> tuple[Tensor, Tensor]:
        logits = model(source, lengths, target[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD_ID)
        return logits, loss

    return model, evaluate


def main(arguments: list[str] | None = None) -> Comparison:
    options = read_options(__doc__, arguments)
    comparison = compare(*build(options.small), options)
    print(comparison)
    return comparison


if __name__ == "__main__":
    main()

"""Speech recognition in the style of Deep Speech 2, before and after recurra.accelerate.

Two convolutions over the spectrogram, a stack of two-way recurrent layers with batch normalisation
between them, and the CTC loss. Recordings differ in length and are packed, as is usual with torch.

Amodei et al. 2016, "Deep Speech 2: end-to-end speech recognition in English and Mandarin", section
3; with GRUs of 2 directions summed, and without the row convolution of the streaming model.

    python examples/speech_ctc.py
    python examples/speech_ctc.py --small
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from compare import Comparison, Evaluate, compare, read_options
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

BLANK_ID = 0
VOCAB_SIZE = 29  # blank, space, apostrophe and 26 letters
FREQUENCIES = 81


class FrontEnd(nn.Module):
    """Two convolutions over frequency and time: (B, FREQUENCIES, T) to (B, T / 2, features)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, (41, 11), stride=(2, 2), padding=(20, 5), bias=False),
            nn.BatchNorm2d(channels),
            nn.Hardtanh(0, 20),
            nn.Conv2d(channels, channels, (21, 11), stride=(2, 1), padding=(10, 5), bias=False),
            nn.BatchNorm2d(channels),
            nn.Hardtanh(0, 20),
        )
        self.output_size = channels * ((FREQUENCIES + 3) // 4)

    def forward(self, spectrogram: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layers(spectrogram.unsqueeze(1))
        return y.flatten(1, 2).transpose(1, 2), (lengths - 1) // 2 + 1


class NormedRecurrence(nn.Module):
    """Batch normalisation over all real steps, then a two-way GRU with its directions summed."""

    def __init__(self, input_size: int, hidden_size: int, normed: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(input_size) if normed else nn.Identity()
        self.rnn = nn.GRU(input_size, hidden_size, bidirectional=True, bias=True)

    def forward(self, x: PackedSequence) -> PackedSequence:
        y, _ = self.rnn(x._replace(data=self.norm(x.data)))
        return y._replace(data=y.data.unflatten(1, (2, -1)).sum(1))


class DeepSpeech(nn.Module):
    """Spectrograms (B, FREQUENCIES, T) to log_probs (T / 2, B, VOCAB_SIZE) and their lengths."""

    def __init__(self, channels: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.front = FrontEnd(channels)
        sizes = [self.front.output_size] + [hidden_size] * num_layers
        self.recurrent = nn.ModuleList(
            NormedRecurrence(size, hidden_size, normed=layer > 0)
            for layer, size in enumerate(sizes[:-1])
        )
        self.head = nn.Linear(hidden_size, VOCAB_SIZE)

    def forward(self, spectrogram: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y, lengths = self.front(spectrogram, lengths)
        packed = pack_padded_sequence(y, lengths, batch_first=True, enforce_sorted=False)
        for layer in self.recurrent:
            packed = layer(packed)
        padded, lengths = pad_packed_sequence(packed)
        return F.log_softmax(self.head(padded), dim=-1), lengths


def build(small: bool) -> tuple[nn.Module, Evaluate]:
    """The model, and its loss on recordings of noise with random transcripts."""
    torch.manual_seed(0)
    model = DeepSpeech(4, 32, 2) if small else DeepSpeech(16, 256, 3)
    batch, time = (3, 60) if small else (8, 400)
    spectrogram = torch.randn(batch, FREQUENCIES, time)
    lengths = torch.linspace(time // 2, time, batch).long()
    target_lengths = lengths // 10
    targets = torch.randint(BLANK_ID + 1, VOCAB_SIZE, (batch, int(target_lengths.max())))

    def evaluate(model: nn.Module) -> tuple[Tensor, Tensor]:
        log_probs, steps = model(spectrogram, lengths)
        return log_probs, F.ctc_loss(log_probs, targets, steps, target_lengths, BLANK_ID)

    return model, evaluate


def main(arguments: list[str] | None = None) -> Comparison:
    options = read_options(__doc__, arguments)
    comparison = compare(*build(options.small), options)
    print(comparison)
    return comparison


if __name__ == "__main__":
    main()

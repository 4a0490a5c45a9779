from __future__ import annotations

from typing import Any

import pytest
import torch

from recurra.nn.language import LanguageNetwork
from recurra.tasks.language.fitted import make_network
from recurra.tasks.language.fitting import LanguageTask
from recurra.tasks.language.learning import gradient_scale
from recurra.tasks.language.settings import Design, LanguageSettings, decide
from recurra.training.bptt import StreamBatches

SIZES: dict[str, Any] = {
    "cell": "gru",
    "hidden_size": 8,
    "num_layers": 2,
    "embedding_size": 8,
    "batch_size": 3,
    "k1": 5,
}
IDS = torch.arange(200) % 7


def make(**more: Any) -> tuple[LanguageTask, LanguageNetwork, Design]:
    design = Design(**{**SIZES, **more})
    torch.manual_seed(0)
    network = make_network(7, design)
    batches = StreamBatches(IDS, batch_size=3, k1=design.k1, k2=design.k2)
    return LanguageTask(network, batches, IDS[:60], design), network, design


def loss_of(task: LanguageTask) -> float:
    torch.manual_seed(1)
    return float(task.loss(task.batch(0, torch.Generator()), None)[0].detach())


def test_the_loss_is_the_mean_nats_of_the_counted_tokens() -> None:
    task, network, _ = make(k2=9)
    first, second = task.batch(0, torch.Generator()), task.batch(1, torch.Generator())
    _, state = task.loss(first, None)
    loss, _ = task.loss(second, state)
    # Fresh from the start of the streams, the same tokens give the same nats.
    rows = IDS[: 66 * 3].view(3, 66)
    features, _ = network(rows[:, :10])
    expected = network.nll(features[:, 5:], rows[:, 6:11]).mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", ["activation_penalty", "change_penalty"])
def test_each_penalty_adds_its_mean_square(name: str) -> None:
    plain, network, _ = make()
    task, _, _ = make(**{name: 0.5})
    features, _ = network(plain.batch(0, torch.Generator()).inputs)
    values = features if name == "activation_penalty" else features.diff(dim=1)
    expected = loss_of(plain) + 0.5 * float(values.detach().square().mean())
    assert loss_of(task) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "more",
    [
        {"embedding_dropout": 0.5},
        {"input_dropout": 0.5},
        {"hidden_dropout": 0.5},
        {"output_dropout": 0.5},
        {"weight_drop": 0.5},
        {"recurrent_dropout": 0.5},
        {"zoneout": 0.5},
    ],
)
def test_each_dropout_of_a_design_changes_the_loss_in_training_only(more: dict[str, Any]) -> None:
    (plain, quiet, _), (task, network, _) = make(), make(**more)
    quiet.eval(), network.eval()
    if "zoneout" not in more:  # it takes its expectation there
        assert loss_of(task) == loss_of(plain)
    quiet.train(), network.train()
    assert loss_of(task) != loss_of(plain)


def test_validation_is_the_mean_over_all_the_kept_text() -> None:
    task, network, _ = make()
    network.eval()
    with torch.no_grad():
        found = task.validate()
        features, _ = network(IDS[None, :59])
        expected = network.nll(features[0], IDS[1:60]).mean()
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_the_size_of_gradients_is_a_root_mean_square() -> None:
    _, network, design = make(k1=66)
    batches = StreamBatches(IDS, batch_size=3, k1=design.k1)
    assert batches.updates == 1
    scale = gradient_scale(network, batches)
    rows = IDS[: 66 * 3].view(3, 66)
    features, _ = network(rows[:1, :66])
    nll = network.nll(features, IDS[1:67][None]).mean()
    for (name, _), gradient in zip(
        network.named_parameters(),
        torch.autograd.grad(nll, list(network.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(scale[name], gradient.abs())


def test_what_is_asked_for_comes_before_the_preset_and_that_before_the_tokens() -> None:
    plain = decide(LanguageSettings(tokens="char"))
    assert (plain.cell, plain.tied, plain.cutoffs) == ("gru", False, ())
    preset = decide(LanguageSettings(tokens="char", preset="awd-lstm"))
    assert (preset.cell, preset.hidden_size, preset.tied) == ("lstm", 1150, True)
    asked = decide(LanguageSettings(tokens="char", preset="awd-lstm", cell="gru", k1=9))
    assert (asked.cell, asked.hidden_size, asked.k1) == ("gru", 1150, 9)
    tied = decide(LanguageSettings(tokens="word", hidden_size=100))
    assert tied.embedding_size == 100


@pytest.mark.parametrize(
    ("tokens", "size", "cutoffs"),
    [
        ("word", 3999, ()),
        ("word", 10_000, (2000,)),
        ("word", 50_000, (2000, 20_000)),
        ("subword", 8000, ()),
        ("char", 6000, (2000,)),
    ],
)
def test_large_vocabularies_in_order_of_frequency_get_bands(
    tokens: Any, size: int, cutoffs: tuple[int, ...]
) -> None:
    assert decide(LanguageSettings(tokens=tokens), size).cutoffs == cutoffs
    assert decide(LanguageSettings(tokens=tokens, cutoffs=()), size).cutoffs == ()

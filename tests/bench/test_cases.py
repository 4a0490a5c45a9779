"""What is timed: shapes, operations, and the cases made of modes, cells, shapes and threads."""

from __future__ import annotations

import pytest

from recurra.bench.cases import (
    MODES,
    OTHER,
    RAGGED,
    TUNED,
    Case,
    flops,
    make_cases,
    parse_shapes,
)
from recurra.errors import ConfigError

# GFLOP of lstm, gru, rnn: forward and training, counted by hand for each of the tuned shapes.
COUNTED = {
    (32, 96, 8, 32, 1): ((0.031, 0.088), (0.024, 0.066), (0.008, 0.022)),
    (64, 96, 32, 64, 1): ((0.302, 0.805), (0.226, 0.604), (0.075, 0.201)),
    (64, 168, 64, 128, 2): ((4.933, 14.093), (3.699, 10.570), (1.233, 3.523)),
    (20, 35, 650, 650, 2): ((9.464, 26.026), (7.098, 19.520), (2.366, 6.506)),
    (16, 400, 80, 256, 1): ((4.404, 12.163), (3.303, 9.123), (1.101, 3.041)),
    (256, 48, 4, 64, 1): ((0.428, 1.258), (0.321, 0.944), (0.107, 0.315)),
}


@pytest.mark.parametrize("shape", TUNED)
def test_operations_of_the_tuned_shapes(shape: tuple[int, int, int, int, int]) -> None:
    for cell, counted in zip(("lstm", "gru", "rnn"), COUNTED[shape], strict=True):
        found = tuple(flops(cell, shape, train=train) / 1e9 for train in (False, True))
        assert found == pytest.approx(counted, abs=6e-4)


def test_training_leaves_out_the_gradient_of_x_of_the_first_layer_only() -> None:
    one_row = 2 * 5 * 7 * 3 * 11  # 2 · B · T · gates · H
    assert flops("gru", (5, 7, 2, 11, 2), train=False) == one_row * (2 + 11 + 11 + 11)
    assert flops("gru", (5, 7, 2, 11, 2), train=True) == one_row * (3 * (2 + 11 + 11 + 11) - 2)


def test_a_step_counts_one_time_step() -> None:
    assert Case("step", "rnn", (1, 20, 32, 32, 1), 1).gflop == 2 * 32 * 64 / 1e9


def test_held_out_shapes_are_none_of_the_tuned_and_cover_the_extremes() -> None:
    assert not set(OTHER) & set(TUNED)
    assert {batch for batch, *_ in OTHER} >= {1, 2, 8}
    assert max(time for _, time, *_ in OTHER) == 2000
    assert max(hidden for *_, hidden, _ in OTHER) == 1000


def test_cases_of_one_number_of_threads_stand_together() -> None:
    cases = make_cases(["train", "ragged"], ["gru"], [(1, 2, 3, 4, 1)], [1, 2])
    assert [case.threads for case in cases] == [1] * 5 + [2] * 5
    assert [case.mode for case in cases[:5]] == [
        "train",
        *["ragged-train"] * 2,
        *["ragged-infer"] * 2,
    ]
    assert [case.shape for case in cases[1:3]] == list(RAGGED)


def test_memory_is_measured_once_at_the_largest_number_of_threads() -> None:
    assert {case.threads for case in make_cases(["memory"], ["gru"], None, [1, 2])} == {2}


def test_quick_takes_one_shape_of_each_mode() -> None:
    cases = make_cases(MODES, ["gru"], None, [1], quick=True)
    assert [case.mode for case in cases] == [
        "train",
        "infer",
        "step",
        "ragged-train",
        "ragged-infer",
        "memory",
    ]


def test_shapes_are_named_or_given() -> None:
    assert parse_shapes(["tuned", "8,50,100,1000,1"]) == [*TUNED, (8, 50, 100, 1000, 1)]
    assert parse_shapes(["other", "tuned"]) == [*OTHER, *TUNED]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("tunned", "'tunned' is no shape; expected 'tuned', 'other' or five numbers"),
        ("1,2,3", "'1,2,3' is no shape"),
        ("1,2,3,0,1", "'1,2,3,0,1': expected five numbers of at least 1"),
    ],
)
def test_a_wrong_shape_is_said(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_shapes([word])


def test_unknown_modes_and_cells_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown mode 'trian'; did you mean 'train'"):
        make_cases(["trian"], ["gru"], None, [1])
    with pytest.raises(ConfigError, match="unknown cell 'grru'; did you mean 'gru'"):
        make_cases(["train"], ["grru"], None, [1])

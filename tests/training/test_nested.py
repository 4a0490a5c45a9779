from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from recurra.errors import ConfigError
from recurra.training.nested import describe, list_tensors, map_tensors, move, replace_tensors


class Pair(NamedTuple):
    h: Tensor
    rest: object


def nesting() -> object:
    one, two, three = (torch.full((2,), float(i)) for i in range(3))
    return [Pair(one, {"a": two, "none": None}), (three,)]


def test_mapping_keeps_types_names_and_order():
    doubled = map_tensors(nesting(), lambda tensor: tensor * 2)
    assert isinstance(doubled[0], Pair)
    assert doubled[0].rest["none"] is None
    assert [t[0].item() for t in list_tensors(doubled)] == [0.0, 2.0, 4.0]


def test_replacing_puts_tensors_back_where_they_were_listed():
    fresh = [torch.ones(1) * i for i in range(3)]
    assert list_tensors(replace_tensors(nesting(), fresh)) == fresh


def test_form_names_the_nesting():
    assert describe(nesting()) == "[Pair(h=tensor, rest={'a': tensor, 'none': None}), (tensor)]"


def test_state_with_something_else_inside_is_refused_by_value():
    with pytest.raises(ConfigError, match=r"holds 3, a int; expected tensors and None"):
        describe((torch.zeros(1), 3))


def test_moving_a_packed_sequence_keeps_it_usable():
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    moved = move({"x": packed}, torch.device("cpu"))["x"]
    assert torch.equal(moved.data, packed.data)
    assert torch.equal(moved.batch_sizes, packed.batch_sizes)

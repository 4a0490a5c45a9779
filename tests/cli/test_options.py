"""Options become settings: the file, over it the options, over these --set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recurra.cli.options import merge_settings, read_config, split_names
from recurra.errors import ConfigError, RunError


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ()),
        ("units", ("units",)),
        ("units,price", ("units", "price")),
        (" a b , c ", ("a b", "c")),
    ],
)
def test_names_are_split_at_commas(text: str | None, names: tuple[str, ...]) -> None:
    assert split_names(text) == names


@pytest.mark.parametrize("text", ["", ",", "a,", "a,,b", " "])
def test_an_empty_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="has an empty name; expected column names with commas"):
        split_names(text)


def test_without_anything_there_are_no_settings() -> None:
    assert merge_settings(None, {"seed": None}, []) == {}


def test_set_goes_over_options_and_options_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", '{"a": 1, "b": 1, "c": 1, "training": {"x": 1, "y": 1}}')
    explicit = {"b": 2, "c": 2, "a": None}
    merged = merge_settings(path, explicit, ["c=3", "training.y=3", "d=4"])
    assert merged == {"a": 1, "b": 2, "c": 3, "d": 4, "training": {"x": 1, "y": 3}}


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml = write(tmp_path, "a.TOML", 'cell = "lstm"\nlevels = [0.5]\n[training]\nsteps = 3\n')
    json_ = write(tmp_path, "a.json", '{"cell": "lstm", "levels": [0.5], "training": {"steps": 3}}')
    assert read_config(toml) == read_config(json_)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("x=3", 3),
        ("x=1e-3", 1e-3),
        ("x=true", True),
        ("x=null", None),
        ("x=[1, 2]", [1, 2]),
        ("x=lstm", "lstm"),
        ('x="3"', "3"),
        (" x = a=b ", "a=b"),
        ("x=", ""),
        ("x=" + "9" * 5000, "9" * 5000),
        ("x=" + "[" * 100_000, "[" * 100_000),
    ],
)
def test_values_of_set_are_json_or_text(assignment: str, value: Any) -> None:
    assert merge_settings(None, {}, [assignment]) == {"x": value}


def test_the_last_of_two_assignments_counts() -> None:
    assert merge_settings(None, {}, ["x=1", "x=2"]) == {"x": 2}


def test_training_as_a_whole_goes_over_what_was_there_before(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", '{"training": {"x": 1, "y": 1}}')
    words = ['training={"y": 2, "z": 2}', "training.z=3"]
    assert merge_settings(path, {}, words) == {"training": {"x": 1, "y": 2, "z": 3}}


@pytest.mark.parametrize("assignment", ["x", "", "=3", " =3", "x:3"])
def test_what_is_no_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match=r"expected key=value, as in --set dropout=0\.2") as e:
        merge_settings(None, {}, [assignment])
    assert repr(assignment) in str(e.value)


@pytest.mark.parametrize("value", [3, "text", [1], None])
def test_training_that_is_no_table_is_refused(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path, "a.json", json.dumps({"training": value}))
    with pytest.raises(ConfigError, match="expected a table of settings"):
        merge_settings(path, {}, [])
    with pytest.raises(ConfigError, match="expected a table of settings"):
        merge_settings(None, {}, ["training.x=1", f"training={json.dumps(value)}"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "{"),
        ("a.json", b"\xff\xfe\xff"),
        ("a.json", "[" * 100_000),
        ("a.json", "9" * 5000),
        ("a.json", ""),
        ("a.toml", "a = "),
        ("a.toml", "a = 1\na = 2"),
        ("a.toml", b"\xff"),
        ("a.toml", "a = " + "[" * 100_000),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"--config {path} cannot be read: ")


@pytest.mark.parametrize(("content", "kind"), [("[1]", "list"), ("3", "int"), ("null", "NoneType")])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, content: str, kind: str) -> None:
    path = write(tmp_path, "a.json", content)
    with pytest.raises(ConfigError, match=rf"a\.json holds a {kind}; expected a table"):
        read_config(path)


def test_another_ending_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "seed: 3")
    with pytest.raises(ConfigError, match=r"a\.yaml: expected a file ending in \.toml or \.json"):
        read_config(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot read .*gone\.toml: No such file") as caught:
        read_config(tmp_path / "gone.toml")
    assert "--out" not in str(caught.value)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(RunError, match=r"cannot read .*folder\.json: Is a directory"):
        read_config(tmp_path / "folder.json")

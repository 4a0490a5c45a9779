"""A run folder that was damaged, edited or mixed up is refused, and the file is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.forecasting.tables import QUICK, ramp, several

from recurra import Forecaster
from recurra.errors import RunError
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.forecasting.fitted import TASK, Fitted

FILES = ("config.json", "model.safetensors", "state.safetensors")
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in their seed alone, and one of another table."""
    folder = tmp_path_factory.mktemp("runs")
    columns = {"target": ("target", "other"), "past": ("price", "sky"), "static": "size"}
    for seed in (0, 1):
        forecaster = Forecaster(horizon=3, seed=seed, **QUICK)
        forecaster.fit(several((40, 30)), **columns).save(folder / f"seed{seed}")
    Forecaster(horizon=3, **QUICK).fit(ramp(40)).save(folder / "ramp")
    return folder


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> RunFolder:
    """A run of its own for one test."""
    return RunFolder(shutil.copytree(kept / "seed0", tmp_path / "run"))


def refusal(run: RunFolder, name: str) -> str:
    """The message of the RunError that loading must raise; it names the file and what to do."""
    with pytest.raises(RunError) as caught:
        Forecaster.load(run.path)
    message = str(caught.value)
    assert str(run.path / name) in message
    assert re.search("[Rr]estore|train again|--resume|made by `recurra", message)
    return message


def change_config(run: RunFolder, change: Change, *, sealed: bool) -> None:
    """Edit what config.json holds; `sealed` writes it as a run of these settings would be."""
    whole = json.loads(run.config_path.read_bytes())
    change(whole["config"])
    if sealed:
        run.write_config(TASK, whole["config"], (run.model_path, run.state_path))
    else:
        run.config_path.write_text(json.dumps(whole, indent=2))


def change_tensors(
    run: RunFolder, path: Path, change: Callable[[dict[str, torch.Tensor]], Any]
) -> None:
    """Edit the tensors of a file, and seal the run as if it had been saved like that."""
    tensors, metadata = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors, metadata)
    change_config(run, lambda config: None, sealed=True)


def test_what_is_saved_is_what_is_loaded(run: RunFolder) -> None:
    first, arguments = Fitted.load(run)
    shutil.rmtree(run.checkpoints)
    run.config_path.unlink()
    first.save(run, arguments)
    second, again = Fitted.load(run)
    assert (second.schema, second.settings, second.notes) == (
        first.schema,
        first.settings,
        first.notes,
    )
    assert (dict(second.training), again) == (dict(first.training), arguments)
    assert list(second.states) == list(first.states) == ["s0", "s1"]
    weights = second.network.state_dict()
    assert all(torch.equal(weights[name], w) for name, w in first.network.state_dict().items())
    for name, state in first.states.items():
        for field in ("index", "rows", "tail", "past", "now", "static", "sums", "first"):
            np.testing.assert_array_equal(
                getattr(second.states[name], field), getattr(state, field)
            )
        for part, other in zip(second.states[name].recurrent, state.recurrent, strict=True):
            assert torch.equal(part, other)


def test_the_config_is_written_last(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed while it is saved has no seal, and so never loads half old, half new."""
    fitted, arguments = Fitted.load(run)
    written: list[str] = []
    monkeypatch.setattr("os.replace", lambda source, target: written.append(Path(target).name))
    fitted.save(run, arguments)
    assert written == ["model.safetensors", "state.safetensors", "config.json"]


# One file missing, cut or of another run


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(run: RunFolder, name: str) -> None:
    (run.path / name).unlink()
    assert "is missing" in refusal(run, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_a_file_that_was_cut_is_named(run: RunFolder, name: str, share: float) -> None:
    path = run.path / name
    content = path.read_bytes()
    # The last bytes are a brace and a newline, and the end of the file.
    path.write_bytes(content[: min(int(share * len(content)), len(content) - 2)])
    assert "is damaged" in refusal(run, name)


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
@pytest.mark.parametrize("other", ["seed1", "ramp"])
def test_a_file_of_another_run_is_named(run: RunFolder, kept: Path, name: str, other: str) -> None:
    shutil.copy(kept / other / name, run.path / name)
    assert "damaged or belongs to another run" in refusal(run, name)


def test_the_config_of_another_run_fits_no_weights(run: RunFolder, kept: Path) -> None:
    shutil.copy(kept / "seed1" / "config.json", run.config_path)
    assert "belongs to another run" in refusal(run, "model.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file_is_named(run: RunFolder, name: str) -> None:
    (run.path / name).unlink()
    (run.path / name).mkdir()
    assert "is missing" in refusal(run, name)


# Settings that were changed


EDITS: dict[str, Change] = {
    "unknown key": lambda c: c.update(colour="red"),
    "unknown model key": lambda c: c["model"].update(colour="red"),
    "missing key": lambda c: c.pop("table"),
    "missing column": lambda c: c["table"].pop("time"),
    "text for a number": lambda c: c["model"].update(horizon="three"),
    "list for a number": lambda c: c["model"].update(hidden_size=[8]),
    "null for a number": lambda c: c["model"].update(horizon=None),
    "number for a table": lambda c: c.update(table=3),
    "zero": lambda c: c["model"].update(hidden_size=0),
    "unknown cell": lambda c: c["model"].update(cell="grru"),
    "levels without a median": lambda c: c["model"].update(quantile_levels=[0.1, 0.9]),
    "unknown baseline": lambda c: c["table"].update(baseline="best"),
    "frequency": lambda c: c["table"].update(frequency={"kind": "never"}),
    "frequency of nothing": lambda c: c["table"].update(frequency={}),
    "no logarithm": lambda c: c["table"].update(logarithm=[]),
    "too many signs": lambda c: c["table"].update(non_negative=[True, True, True]),
    "more layers than anyone has": lambda c: c["model"].update(num_layers=65),
    "season of ages": lambda c: c["model"].update(season=10**12),
}
"""What no version of recurra writes: refused whether the checksum is right or not."""

ARGUMENTS: dict[str, Change] = {
    "unknown argument": lambda c: c["forecaster"].update(colour="red"),
    "wrong argument": lambda c: c["forecaster"].update(horizon=-1),
    "training argument": lambda c: c["forecaster"].update(training={"rate": 1}),
    "no arguments": lambda c: c["forecaster"].clear(),
}


def set_targets(table: dict[str, Any], names: list[str]) -> None:
    """Other targets, and all that is kept for each of them made to fit."""
    for key, value in table.items():
        if isinstance(value, list) and key not in ("target", "past", "future", "static"):
            table[key] = [value[0]] * len(names)
    table["target"] = names


OTHER_SHAPES: dict[str, Change] = {
    "hidden_size": lambda c: c["model"].update(hidden_size=9),
    "horizon": lambda c: c["model"].update(horizon=4),
    "context": lambda c: c["model"].update(context=c["model"]["context"] + 1),
    "num_layers": lambda c: c["model"].update(num_layers=2),
    "cell": lambda c: c["model"].update(cell="lstm"),
    "levels": lambda c: c["model"].update(quantile_levels=[0.1, 0.5, 0.9]),
    "one more target": lambda c: set_targets(c["table"], ["target", "other", "third"]),
    "one target fewer": lambda c: set_targets(c["table"], ["target"]),
    "no past": lambda c: c["table"].update(past=[], past_scale={"mean": [], "deviation": []}),
}
"""Valid settings, but not those of the weights."""

HUGE: dict[str, Change] = {
    "hidden_size": lambda c: c["model"].update(hidden_size=10**12),
    "horizon": lambda c: c["model"].update(horizon=10**30),
    "num_layers": lambda c: c["model"].update(num_layers=10**9),
    "stride": lambda c: c["model"].update(stride=10**18),
    "infinite": lambda c: c["table"]["past_scale"].update(mean=[float("inf"), 0.0, 0.0]),
}


@pytest.mark.parametrize(
    "edit", [*EDITS.values(), *ARGUMENTS.values(), *OTHER_SHAPES.values(), *HUGE.values()]
)
def test_an_edited_config_is_named(run: RunFolder, edit: Change) -> None:
    change_config(run, edit, sealed=False)
    assert "is damaged or was edited" in refusal(run, "config.json")


def test_an_edit_that_only_moves_the_forecast_is_named_too(run: RunFolder) -> None:
    """Other scales or column names would fit the weights, and give another forecast in silence."""
    change_config(run, lambda c: c["table"].update(target=["other", "target"]), sealed=False)
    assert "is damaged or was edited" in refusal(run, "config.json")
    huge = {"deviation": [1e308, 1.0, 1.0]}
    change_config(run, lambda c: c["table"]["past_scale"].update(huge), sealed=False)
    assert "is damaged or was edited" in refusal(run, "config.json")


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_settings_that_nothing_writes_are_named_also_under_a_seal(
    run: RunFolder, edit: Change
) -> None:
    change_config(run, edit, sealed=True)
    assert "is damaged or was edited: " in refusal(run, "config.json")


@pytest.mark.parametrize("edit", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_that_nothing_writes_are_named_also_under_a_seal(
    run: RunFolder, edit: Change
) -> None:
    change_config(run, edit, sealed=True)
    with pytest.raises(RunError, match=r"config\.json is damaged or was edited: "):
        Forecaster.load(run.path)


PROBABILITIES: dict[str, Change] = {
    "no correlation": lambda config: config["dependence"].update(targets=[[1.0, 2.0], [2.0, 1.0]]),
    "too few targets": lambda config: config["dependence"].update(targets=[[1.0]]),
    "ragged targets": lambda config: config["dependence"].update(targets=[[1.0, 0.0], [0.0]]),
    "shifts of one target": lambda config: config.update(
        calibration={"shifts": [[[0.0] * 9]], "windows": 5, "coverage": []}
    ),
    "no groups": lambda config: config.update(
        calibration={"shifts": [[], []], "windows": 5, "coverage": []}
    ),
}


@pytest.mark.parametrize("edit", PROBABILITIES.values(), ids=PROBABILITIES)
def test_dependence_and_calibration_of_another_model_are_named(
    run: RunFolder, edit: Change
) -> None:
    change_config(run, edit, sealed=True)
    with pytest.raises(RunError, match=r"config\.json is damaged .*(dependence|calibration)\."):
        Forecaster.load(run.path)


@pytest.mark.parametrize("edit", OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_settings_that_the_weights_do_not_fit_are_named_also_under_a_seal(
    run: RunFolder, edit: Change
) -> None:
    change_config(run, edit, sealed=True)
    with pytest.raises(RunError, match=r"safetensors does not fit .*config\.json: "):
        Forecaster.load(run.path)


@pytest.mark.parametrize("edit", HUGE.values(), ids=HUGE)
def test_huge_numbers_take_no_memory_and_are_named_also_under_a_seal(
    run: RunFolder, edit: Change
) -> None:
    change_config(run, edit, sealed=True)
    with pytest.raises(RunError, match=r"config\.json"):
        Forecaster.load(run.path)


def test_a_run_of_another_task_is_not_loaded(run: RunFolder) -> None:
    run.write_config("juggling", run.read_config()["config"], (run.model_path, run.state_path))
    with pytest.raises(RunError, match=r"holds a juggling run; expected a forecasting run"):
        Forecaster.load(run.path)


# Weights and states that were saved wrong


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["embed.weight", "spread"])
def test_weights_that_are_no_numbers_are_named(run: RunFolder, name: str, value: float) -> None:
    change_tensors(run, run.model_path, lambda w: w[name].view(-1)[-1:].fill_(value))
    message = refusal(run, "model.safetensors")
    assert re.search(rf"1 of \d+ numbers of '{name}' are NaN or infinite", message)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: [w.pop(name) for name in list(w) if name != "spread"],
        lambda w: w.pop("spread"),
        lambda w: w.update(more=torch.zeros(1)),
        lambda w: w.update(spread=torch.zeros(2)),
        lambda w: w.update(spread=torch.zeros(3, 1)),
    ],
)
def test_weights_of_another_shape_are_named_also_under_a_seal(
    run: RunFolder, change: Callable[[dict[str, torch.Tensor]], Any]
) -> None:
    change_tensors(run, run.model_path, change)
    assert "does not fit" in refusal(run, "model.safetensors")


@pytest.mark.parametrize(
    "name", ["index", "rows", "recent", "tail", "past", "now", "static", "sums", "first"]
)
@pytest.mark.parametrize("how", ["missing", "empty", "flat", "short"])
def test_states_of_another_form_are_named_also_under_a_seal(
    run: RunFolder, name: str, how: str
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        if how == "missing":
            del tensors[name]
        elif how == "empty":
            tensors[name] = torch.zeros(0)
        elif how == "flat":
            tensors[name] = tensors[name].reshape(-1)[:1].reshape(())
        else:
            tensors[name] = tensors[name][..., :-1]

    change_tensors(run, run.state_path, change)
    refusal(run, "state.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("recurrent0"),
        lambda s: s.update(recurrent0=s["recurrent0"][:1]),
        lambda s: s.update(recurrent0=s["recurrent0"][..., :-1]),
        lambda s: s.update(recurrent1=s["recurrent0"]),
        lambda s: s["recurrent0"].fill_(float("nan")),
        lambda s: s["rows"].fill_(1),
        lambda s: s["recent"].add_(torch.tensor([1, -1])),
    ],
)
def test_states_that_contradict_themselves_are_named_also_under_a_seal(
    run: RunFolder, change: Callable[[dict[str, torch.Tensor]], Any]
) -> None:
    change_tensors(run, run.state_path, change)
    refusal(run, "state.safetensors")


@pytest.mark.parametrize("names", ["", "[", "3", "[]", '["s0"]', '["s0", "s0"]', "[1, 2]", "{}"])
def test_states_under_other_names_are_named_also_under_a_seal(run: RunFolder, names: str) -> None:
    tensors, _ = read_tensors(run.state_path)
    write_tensors(run.state_path, tensors, {"names": names})
    change_config(run, lambda config: None, sealed=True)
    refusal(run, "state.safetensors")


# Anything at all


@settings(max_examples=150)
@given(
    name=st.sampled_from(FILES),
    how=st.sampled_from(["flip", "cut", "insert", "delete", "swap"]),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(1, 255),
)
def test_any_damage_is_refused_or_changes_nothing(
    kept: Path, name: str, how: str, place: float, value: int
) -> None:
    whole = kept / "seed0"
    folder = kept / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for other in FILES:
        content = bytearray((whole / other).read_bytes())
        if other == name:
            at = int(place * len(content))
            if how == "flip":
                content[at] ^= value
            elif how == "cut":
                del content[at:]
            elif how == "insert":
                content.insert(at, value)
            elif how == "delete":
                del content[at]
            else:
                at = min(at, len(content) - 2)
                content[at], content[at + 1] = content[at + 1], content[at]
        (folder / other).write_bytes(content)
    try:
        loaded = Forecaster.load(folder)
    except RunError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert str(folder / name) in message
        return
    # Only space between the parts of a JSON text may change without changing what it says.
    assert name == "config.json" or content == (whole / name).read_bytes()
    assert loaded.predict().equals(Forecaster.load(whole).predict())

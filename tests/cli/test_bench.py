"""`recurra bench`: its options, its output, and the page; nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.bench.fakes import outcome
from tests.cli.conftest import Recurra

from recurra.bench import run as bench
from recurra.bench.participants import choose
from recurra.cli.bench import _threads


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command hands to the benchmark, which answers with a fixed outcome."""
    calls: list[dict[str, Any]] = []

    def run(cases: Any, participants: Any, absent: Any, settings: Any, **more: Any) -> Any:
        more["say"]("working")
        named = {"cases": cases, "participants": participants, "settings": settings}
        calls.append({**named, **more})
        return outcome()

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr("recurra.report.results.allowed_cpus", lambda: 2)
    return calls


def test_options_become_cases_participants_and_rounds(
    recurra: Recurra, asked: list[dict[str, Any]]
) -> None:
    words = "--modes train,infer --cells gru --shapes 1,2,3,4,1 --threads 2 --rounds 7"
    done = recurra("bench", *words.split(), "--rivals", "torch-tuned,recurra-tuned")
    assert done.status == 0
    (call,) = asked
    assert [str(case) for case in call["cases"]] == [
        "train gru 1,2,3,4,1, 2 threads",
        "infer gru 1,2,3,4,1, 2 threads",
    ]
    names = [one.name for one in call["participants"]]
    assert names == ["recurra", "recurra-tuned", "torch", "torch-tuned", "torch-cell"]
    assert call["settings"].rounds == 7
    assert "--threads 2" in call["command"]
    assert "--shapes 1,2,3,4,1" in call["command"]


def test_by_default_everything_at_one_and_two_threads(
    recurra: Recurra, asked: list[dict[str, Any]]
) -> None:
    assert recurra("bench").status == 0
    cases = asked[0]["cases"]
    assert {case.threads for case in cases} == {1, 2}
    assert {case.cell for case in cases} == {"lstm", "gru", "rnn"}
    assert {case.mode for case in cases} == {
        *("train", "infer", "step", "ragged-train", "ragged-infer", "memory")
    }
    assert asked[0]["participants"] == choose(None)[0]
    assert (asked[0]["settings"].rounds, asked[0]["settings"].visit_s) == (5, 0.1)


def test_the_table_goes_to_stdout_and_progress_to_stderr(
    recurra: Recurra, asked: list[dict[str, Any]]
) -> None:
    done = recurra("bench", "--quick")
    assert "Training: forward and backward, 2 threads\n\ncell  B,T,I,H,L" in done.out
    assert "3 of 12 rounds discarded" in done.out
    assert "working" in done.err
    assert "working" not in done.out


def test_json_is_one_object_and_out_the_same_in_a_file(
    recurra: Recurra, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    done = recurra("bench", "--quick", "--json", "--out", tmp_path / "performance.json")
    assert json.loads(done.out) == outcome()
    assert json.loads((tmp_path / "performance.json").read_text()) == outcome()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--modes", "trian"], "unknown mode 'trian'; did you mean 'train'?"),
        (["--modes", "train,"], "--modes 'train,' has an empty name"),
        (["--cells", "grru"], "unknown cell 'grru'"),
        (["--shapes", "1,2"], "--shapes '1,2' is no shape"),
        (["--threads", "two"], "--threads 'two'; expected numbers"),
        (["--threads", "1,3"], "--threads has 3, but this process may use 2 CPUs"),
        (["--threads", "0"], "--threads has 0"),
        (["--rivals", "torhc"], "unknown rival 'torhc'; did you mean 'torch'?"),
        (["--rounds", "0"], "'--rounds'"),
    ],
)
def test_wrong_usage_is_found_before_anything_is_timed(
    recurra: Recurra, asked: list[dict[str, Any]], words: list[str], said: str
) -> None:
    done = recurra("bench", *words)
    assert (done.status, done.out, asked) == (2, "", [])
    assert said in done.err


def test_an_absent_rival_is_said_and_is_no_error(
    recurra: Recurra, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "recurra.bench.participants.version", lambda name: None if name == "jax" else "1"
    )
    done = recurra("bench", "--quick")
    assert done.status == 0
    assert "jax is not installed and left out: pip install jax" in done.err
    assert "jax" not in [one.name for one in asked[0]["participants"]]


def test_the_page_alone_times_nothing(
    recurra: Recurra, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "performance.json"
    path.write_text(json.dumps(outcome()))
    done = recurra("bench", "--page", path)
    assert (done.status, done.out, asked) == (0, f"{tmp_path / 'performance.md'}\n", [])
    done = recurra("bench", "--page", path, "--json")
    assert json.loads(done.out) == {"page": str(tmp_path / "performance.md")}
    assert recurra("bench", "--page", tmp_path / "absent.json").status == 1


def test_one_thread_where_only_one_cpu_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recurra.report.results.allowed_cpus", lambda: 1)
    assert _threads(None, quick=False) == [1]

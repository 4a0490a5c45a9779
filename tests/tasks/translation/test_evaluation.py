from __future__ import annotations

import builtins
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from tests.tasks.translation.phrases import phrases

from recurra import Translator
from recurra.errors import ConfigError, MissingExtraError
from recurra.runs import RunFolder, write_json
from recurra.tasks.translation.evaluation import score
from recurra.tasks.translation.report import run_report

SOURCES, TARGETS = phrases(180)


def test_scores_are_those_of_sacrebleu(model: Translator) -> None:
    sources, targets = SOURCES[140:170], [*TARGETS[140:168], "ganz etwas anderes hier", "kurz"]
    evaluation = model.evaluate(sources, targets, beam_size=2)
    said = model.translate(sources, beam_size=2)
    assert evaluation.bleu == sacrebleu.corpus_bleu(said, [targets]).score
    assert evaluation.chrf == sacrebleu.corpus_chrf(said, [targets]).score
    naive = evaluation.results()[1]
    assert naive["model"] == "source copied"
    assert naive["metrics"]["bleu"] == sacrebleu.corpus_bleu(sources, [targets]).score
    assert any("BLEU nrefs:1|case:mixed|eff:no|tok:13a" in note for note in evaluation.notes)
    worst = evaluation.ranked()[0]
    assert (worst.line, worst.reference) == (29, "ganz etwas anderes hier")
    # Three words and fewer are not ranked, the last pair is one.
    assert len(evaluation.ranked()) == 29


def test_a_translator_that_has_not_learned_is_told_from_one_that_has(model: Translator) -> None:
    sources = SOURCES[140:150]
    assert not any(
        "has not learned" in note for note in model.evaluate(sources, TARGETS[140:150]).notes
    )
    others = ["nichts davon kommt hier je vor"] * 10
    notes = model.evaluate(sources, others).notes
    assert any("BLEU 0.00" in note and "Train longer (--minutes" in note for note in notes)


def test_sentences_are_named_by_the_lines_they_stood_in(model: Translator) -> None:
    long = " ".join(SOURCES[:30])
    evaluation = model.evaluate(["", SOURCES[0], long], ["nichts", TARGETS[0], TARGETS[1]])
    assert [row.line for row in evaluation.rows] == [2, 3]
    assert any(note.startswith("line 3 has ") for note in evaluation.notes)


def test_the_tokenizer_is_chosen_and_checked(model: Translator) -> None:
    said, reference = ["a b c d!"], ["a b c d?"]
    assert score(said, reference, "none").bleu < score(said, reference).bleu
    with pytest.raises(ConfigError, match="unknown sacrebleu tokenizer '13b'; did you mean '13a'"):
        model.evaluate(SOURCES[:2], TARGETS[:2], tokenize="13b")


def test_the_report_shows_sentences_and_attention(model: Translator, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert "has not been evaluated" in run_report(run).html()
    evaluation = model.evaluate([*SOURCES[:4], "<b> cat . ."], [*TARGETS[:4], "<b> eins zwei drei"])
    outcome = {"data": "test", "results": evaluation.results(), "notes": evaluation.notes}
    write_json(run.metrics_path, {**outcome, "details": evaluation.details()})
    html = run_report(run).html()
    assert "&lt;b&gt; eins zwei drei" in html
    assert html.count('<table class="grid">') == 4
    # The first piece of the best sentence looks at the first word most.
    assert re.search(r'<th scope="row">\w+</th><td class="a[345]"></td>', html)
    write_json(run.metrics_path, {"results": 3})
    with pytest.raises(Exception, match="has no results of ours"):
        run_report(run)


def test_without_sacrebleu_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"recurra\[translation\]"):
        score(["a"], ["a"])


def test_details_are_json(model: Translator) -> None:
    details = model.evaluate(SOURCES[:6], TARGETS[:6]).details()
    assert json.loads(json.dumps(details))["attention"][0]["target"][-1] == "⏎"

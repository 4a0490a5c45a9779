"""Running a recipe of this task: one case for each cell, way of clipping and seed."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recurra.data.recipe import Recipe
from recurra.errors import ConfigError, DataError, unknown
from recurra.report.results import make_outcome, make_result
from recurra.tasks.longlag.digits import digits
from recurra.tasks.longlag.learning import Learned, learn
from recurra.tasks.longlag.model import VARIANTS, find_variant, make_network
from recurra.tasks.longlag.problems import Problem, adding, copy, parity
from recurra.tasks.longlag.table import format_page
from recurra.training.settings import TrainingSettings

# The problems whose length can be chosen; digits have that of an image.
OF_LENGTH: dict[str, Callable[[int], Problem]] = {"adding": adding, "copy": copy, "parity": parity}
OF_IMAGES = {"digits": False, "digits-permuted": True}  # whether permuted
CLIPS: dict[str, Literal["norm"] | None] = {"none": None, "norm": "norm"}


class LongLagSection(BaseModel):
    """The [longlag] table of a recipe.

    length        steps of a sequence unless another is asked for; None for images
    steps         optimiser steps after which a problem counts as not solved
    clip_limit    the norm that gradients are clipped to, in the half of the cases that clip
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: str
    length: int | None = None
    steps: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_layers: int = Field(1, ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    clip_limit: float = Field(1.0, gt=0)
    validate_every: int = Field(100, ge=1)


@dataclass(frozen=True)
class Case:
    """One training: cell is a name of `VARIANTS`, clip "none" or "norm"; length None for images."""

    cell: str
    length: int | None
    clip: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its file, unique in a recipe.

        >>> Case("lstm", 200, "norm", 0).name
        'length-200-lstm-norm-seed-0'
        """
        length = "" if self.length is None else f"length-{self.length}-"
        return f"{length}{self.cell}-{self.clip}-seed-{self.seed}"


def plan(recipe: Recipe, seeds: tuple[int, ...], choice: Mapping[str, Any]) -> list[Case]:
    """The cases that are asked for, all checked.

    choice   "cell" and "clip", lists of names (all when absent), and "length" (the recipe's own)
    Raises: ConfigError for a name or length that cannot be; MissingExtraError when the data need
    a package; DataError for a wrong recipe.
    """
    section = read_section(recipe)
    cells = list(dict.fromkeys(choice.get("cell") or VARIANTS))
    clips = list(dict.fromkeys(choice.get("clip") or CLIPS))
    for cell in cells:
        find_variant(cell)
    for clip in clips:
        if clip not in CLIPS:
            raise ConfigError(unknown("way of clipping", clip, CLIPS))
    asked = choice.get("length")
    if asked is not None and section.length is None:
        raise ConfigError(
            f"--length {asked} is asked for, but the sequences of {recipe.name} are images of one "
            "size. Leave it out."
        )
    length = section.length if asked is None else asked
    make_problem(section.problem, length)
    return [Case(cell, length, clip, seed) for seed in seeds for cell in cells for clip in clips]


def run(recipe: Recipe, case: Case, *, progress: bool = True) -> dict[str, Any]:
    """Train and test one case; its outcome, with the case and the course of training beside it."""
    section = read_section(recipe)
    problem = make_problem(section.problem, case.length)
    variant = find_variant(case.cell)
    network = make_network(
        variant,
        input_size=problem.input_size,
        hidden_size=section.hidden_size,
        num_layers=section.num_layers,
        output_size=problem.output_size,
        length=problem.length,
        seed=case.seed,
    )
    settings = training_settings(section, problem, case)
    started, cpu_started = clock.monotonic(), clock.process_time()
    learned = learn(
        problem, network, batch_size=section.batch_size, settings=settings, progress=progress
    )
    seconds, cpu_seconds = clock.monotonic() - started, clock.process_time() - cpu_started
    row = make_result(variant.label, metrics_of(problem, learned))
    where = "" if case.length is None else f", T = {case.length}"
    outcome = make_outcome("longlag", f"{problem.name}{where}", [row], seconds)
    return outcome | {
        "case": asdict(case),
        "problem": {
            "measure": problem.measure,
            "baseline": problem.baseline,
            "solved_below": problem.solved_below,
        },
        "training": {
            **section.model_dump(exclude={"problem", "length"}),
            "parameters": sum(p.numel() for p in network.parameters()),
            "steps_done": learned.steps,
            "stopped": learned.stopped,
            "clipped": learned.clipped,
            "cpu_seconds": round(cpu_seconds, 3),
        },
    }


def page(recipe: Recipe, outcomes: Sequence[Mapping[str, Any]]) -> str:
    """The table of all outcomes there are, in Markdown."""
    return format_page(recipe.name, recipe.description, outcomes)


def metrics_of(problem: Problem, learned: Learned) -> dict[str, float | None]:
    """Steps until the problem was solved (None: it was not), and the measure on the test."""
    steps = learned.steps if learned.stopped == "target" else None
    solved = {} if problem.solved_below is None else {"steps_to_solve": steps}
    if problem.measure == "error":
        return {**solved, "accuracy": 1.0 - learned.measure}
    return {**solved, problem.measure: learned.measure}


def make_problem(name: str, length: int | None) -> Problem:
    """The problem of that name.

    Raises: ConfigError for an unknown name, a length that cannot be, or none where one is needed.
    """
    if name in OF_IMAGES:
        return digits(OF_IMAGES[name])
    if name not in OF_LENGTH:
        raise ConfigError(unknown("problem", name, [*OF_LENGTH, *OF_IMAGES]))
    if length is None:
        raise ConfigError(f"the problem {name!r} needs a length in steps, and the recipe has none.")
    return OF_LENGTH[name](length)


def training_settings(section: LongLagSection, problem: Problem, case: Case) -> TrainingSettings:
    """Adam at a constant rate, without decay or averaging: nothing that helps one cell more."""
    clip = CLIPS[case.clip]
    values: dict[str, Any] = {
        "steps": section.steps,
        "learning_rate": section.learning_rate,
        "betas": (0.9, 0.999),
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "cooldown_share": 0.0,
        "ema_decay": None,
        "clip": clip,
        "clip_limit": None if clip is None else section.clip_limit,
        "seed": case.seed,
        "validate_every": section.validate_every,
        "log_every": section.validate_every,
        "target_loss": problem.solved_below,
    }
    return TrainingSettings(**values)


def read_section(recipe: Recipe) -> LongLagSection:
    """The recipe's [longlag] table.

    Raises: DataError naming each key that is wrong.
    """
    try:
        return LongLagSection(**recipe.section)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        )
        raise DataError(f"recipe {recipe.name!r}, [longlag]: {faults}.") from error

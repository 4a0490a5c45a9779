"""How long a run lasts: a number of steps, or minutes on the clock that become one once."""

from __future__ import annotations

from time import monotonic

from recurra.training.schedule import total_for_cooldown
from recurra.training.settings import TrainingSettings

# A run of M minutes ends within 110 % of M; the rest is left for what follows the last step.
_LATEST = 1.08


class Budget:
    """The clock of a run, and its total number of steps as soon as that is known.

    With `minutes`, steps run at a constant rate until (1 - cooldown_share) of the time is used. The
    step count at that moment fixes the total, once: the smallest total whose cooldown begins there.
    The total is stored with the run, so a run of `steps=total` repeats it exactly.

    `elapsed_s` is the time used before a resume.
    """

    def __init__(
        self, settings: TrainingSettings, *, elapsed_s: float = 0.0, total: int | None = None
    ) -> None:
        self.total = settings.steps if settings.steps is not None else total
        self._share = settings.cooldown_share
        self._limit_s = None if settings.minutes is None else 60.0 * settings.minutes
        self._began = monotonic() - elapsed_s

    def elapsed_s(self) -> float:
        """Seconds used so far, those before a resume included."""
        return monotonic() - self._began

    def fix_total(self, steps_done: int) -> bool:
        """Fix the total when the clock says that the cooldown begins now; True when it just did."""
        if self.total is not None or self._limit_s is None or steps_done == 0:
            return False
        if self.elapsed_s() < (1.0 - self._share) * self._limit_s:
            return False
        self.total = total_for_cooldown(steps_done, self._share)
        return True

    def is_spent(self, reserve_s: float) -> bool:
        """Whether another step, needing `reserve_s` with all that follows it, could end too late.

        The cooldown's length rests on the speed before it. When its steps turn out much slower, the
        run stops here, before its total, rather than keep the user waiting.
        """
        if self._limit_s is None:
            return False
        return self.elapsed_s() + reserve_s > _LATEST * self._limit_s

    def share_done(self, steps_done: int) -> float:
        """Estimate of the finished part of the run, 0 to 1, for the progress bar."""
        if self.total is not None:
            return min(1.0, steps_done / self.total)
        assert self._limit_s is not None
        return min(1.0, self.elapsed_s() / self._limit_s)

    def left_s(self, steps_done: int, steps_per_s: float) -> float | None:
        """Estimate of the seconds left, None while there is no speed to judge by."""
        if self.total is None:
            assert self._limit_s is not None
            return max(0.0, self._limit_s - self.elapsed_s())
        return (self.total - steps_done) / steps_per_s if steps_per_s > 0 else None

"""The laws of a watch: causal, one row at a time or many, beside others or alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.tasks.anomaly.heads import make_watch as make_watch_of
from recurra.tasks.anomaly.lanes import Answer, State
from recurra.tasks.anomaly.leaky import SCALE
from recurra.tasks.anomaly.segment import scale_of
from recurra.tasks.anomaly.settings import AnomalySettings
from recurra.tasks.anomaly.thresholds import raise_alarms
from recurra.tasks.anomaly.watch import STATUS, Rows, Watch, watch_series

PARTS = ("surprise", "alarm", "expected", "lower", "upper", "share", "status")


def make_watch(channels: int = 1, **given: object) -> Watch:
    chosen = AnomalySettings(**given)  # type: ignore[arg-type]
    return make_watch_of(chosen, channels)


def run(watch: Watch, *values: np.ndarray) -> tuple[list[Rows], State]:
    clocks = [
        np.stack([np.sin(np.arange(len(v)) / 9), np.cos(np.arange(len(v)) / 9)], 1) for v in values
    ]
    return watch_series(watch, watch.initial_state(len(values)), values, clocks)


def same(a: Rows, b: Rows, rows: slice = slice(None)) -> None:
    for part in PARTS:
        x, y = getattr(a, part)[rows], getattr(b, part)[rows]
        assert np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), part


def noise(rows: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, channels))


HEADS = ["alarm", "segment"]


@pytest.mark.parametrize("head", HEADS)
def test_the_future_moves_no_answer(head: str) -> None:
    watch = make_watch(2, head=head)
    past = noise(220, 2)
    one, other = past.copy(), past.copy()
    other[160:] = 1e6
    (a,), _ = run(watch, one)
    (b,), _ = run(watch, other)
    same(a, b, slice(0, 160))
    assert not np.array_equal(a.surprise[160:], b.surprise[160:])


@pytest.mark.parametrize("head", HEADS)
def test_many_series_together_equal_each_alone(head: str) -> None:
    watch = make_watch(2, head=head)
    every = [noise(90 + 37 * n, 2, n) for n in range(5)]
    every[1][30:70, 0] = np.nan
    every[3][40:60] = np.nan
    together, state = run(watch, *every)
    for n, values in enumerate(every):
        (alone,), own = run(watch, values)
        same(together[n], alone)
        for name, array in own.items():
            assert np.array_equal(array[0], state[name][n]), name


@pytest.mark.parametrize("head", HEADS)
def test_rows_one_at_a_time_equal_all_at_once(head: str) -> None:
    """A stream's step and a table's pieces: the same answers and the same state."""
    watch = make_watch(2, head=head)
    values = noise(260, 2)
    values[180:200] += 3000.0
    values[50:70, 0] = values[90:95] = np.nan
    (whole,), after = run(watch, values)
    state = watch.initial_state(1)
    clock = np.stack([np.sin(np.arange(260) / 9), np.cos(np.arange(260) / 9)], 1)
    for t in range(260):
        rows = watch.step(state, values[t : t + 1], clock[t : t + 1])
        for part in PARTS:
            x, y = getattr(whole, part)[t], getattr(rows, part)[0]
            assert np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), (part, t)
    assert whole.alarm.any()
    for name, array in after.items():
        assert np.array_equal(array, state[name]), name


class Echo:
    """A head that is as surprised as the value is large."""

    threshold, holds = 1.0, False

    def initial_state(self, lanes: int) -> State:
        return {"rows": np.zeros(lanes, np.int64)}

    def run(self, state: State, x: np.ndarray, clock: np.ndarray) -> Answer:
        state["rows"] += len(x)
        return Answer(x, x, x, x, x, np.zeros(x.shape, bool))

    def together(
        self, lanes: State, surprise: np.ndarray, detail: np.ndarray, known: np.ndarray
    ) -> np.ndarray:
        return surprise

    def join(self, surprise: np.ndarray) -> np.ndarray:
        return surprise.max(axis=-1)


def test_alarms_rest_unless_something_is_far_stranger() -> None:
    values = np.zeros((300, 1))
    values[[100, 149, 151, 152, 210], 0] = [1.0, 2.0, 1.0, 3.0, 3.0]
    values[120:130] = np.nan  # rows without a value do not count
    watch = Watch(Echo(), 1, AnomalySettings(refractory=40, jump=1.5))
    (rows,), _ = run(watch, values)
    assert np.flatnonzero(rows.alarm).tolist() == [100, 151, 152, 210]
    expected = raise_alarms(rows.surprise, 1.0, 40, 1.5)
    assert np.array_equal(rows.alarm, expected)


def test_no_alarm_below_the_threshold() -> None:
    values = np.zeros((300, 1))
    values[[100, 200], 0] = [0.999, 1.0]
    (rows,), _ = run(Watch(Echo(), 1, AnomalySettings()), values)
    assert np.flatnonzero(rows.alarm).tolist() == [200]


def test_status_says_what_is_the_matter() -> None:
    values = noise(400)
    values[200] = 50.0
    values[300:310] = np.nan
    (rows,), _ = run(make_watch(), values)
    words = np.array(STATUS)[rows.status]
    assert set(words[:50]) == {"warming"}
    assert words[200] == "alarm"
    assert set(words[300:310]) == {"missing"}
    assert np.isnan(rows.surprise[300:310]).all()
    assert words[250] == "normal"


def test_what_training_had_is_each_series_own() -> None:
    """Rows to learn and scale are known from before; series do not touch, and learning ends."""
    watch = make_watch(3, head="segment")
    every = [noise(150 + 20 * n, 3, n) * 10.0**n for n in range(3)]
    for values in every:
        values[120:, 1] += 20 * values[:100, 1].std()
    every[1][50:60, 2] = np.nan

    def know(state: State, place: int, n: int) -> None:
        first = every[n][:100]
        watch.know(state, place, np.isfinite(first).sum(axis=0), scale_of(first))

    state = watch.initial_state(3)
    for n in range(3):
        know(state, n, n)
    scales = {name: state[name].copy() for name in SCALE}
    clocks = [np.zeros((len(v), 2)) for v in every]
    together, after = watch_series(watch, state, every, clocks)
    for n, values in enumerate(every):
        own = watch.initial_state(1)
        know(own, 0, n)
        (alone,), last = watch_series(watch, own, [values], clocks[n : n + 1])
        same(together[n], alone)
        for name, array in last.items():
            assert np.array_equal(array[0], after[name][n]), name
        assert all(np.array_equal(after[name][n], scales[name][n]) for name in SCALE)
        assert alone.surprise[130:].mean() > 3 * alone.surprise[80:120].mean()
        assert (alone.share[130:].argmax(axis=1) == 1).all()


def test_missing_rows_leave_the_state_as_it_was() -> None:
    values = noise(200)
    gapped = np.insert(values, 120, np.full((15, 1), np.nan), axis=0)
    watch = make_watch()
    zero = [np.zeros((len(v), 2)) for v in (values, gapped)]
    (a,), _ = watch_series(watch, watch.initial_state(1), [values], zero[:1])
    (b,), _ = watch_series(watch, watch.initial_state(1), [gapped], zero[1:])
    kept = np.delete(np.arange(215), np.arange(120, 135))
    assert np.array_equal(a.surprise, b.surprise[kept])
    assert np.array_equal(a.alarm, b.alarm[kept])


def test_the_channel_that_is_strange_has_the_largest_share() -> None:
    values = noise(500, 3)
    values[400, 1] = 40.0
    (rows,), _ = run(make_watch(3), values)
    assert rows.alarm[400]
    assert rows.share[400].argmax() == 1
    assert rows.share[400].sum() == pytest.approx(1.0)


def test_a_lasting_shift_is_called_drift_and_learned_afresh() -> None:
    values = noise(1200)
    values[600:] += 40.0
    values[1150] = 20.0  # between the levels: strange only for what knows the new one alone
    (rows,), _ = run(make_watch(), values)
    assert (rows.status[740:800] == STATUS.index("drifted")).mean() > 0.9
    (again,), _ = run(make_watch(relearn=150), values)
    begun = 601 + np.flatnonzero(again.status[601:] == STATUS.index("warming"))
    assert 750 <= begun[0] < 900
    assert (again.status[1000:] == STATUS.index("drifted")).sum() == 0
    assert again.surprise[1150] > 2


def test_the_interval_holds_about_as_much_as_it_says() -> None:
    values = noise(2500).cumsum(0) * 0.1 + noise(2500, 1, 1)
    (rows,), _ = run(make_watch(), values)
    inside = ((values >= rows.lower) & (values <= rows.upper))[500:].mean()
    assert 0.97 < inside < 0.99


VALUES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e308, -1e308, 5e-324, 7.0]),
)


@settings(max_examples=12)
@given(st.lists(VALUES, min_size=1, max_size=160), st.sampled_from(HEADS))
def test_no_values_break_the_state(values: list[float], head: str) -> None:
    watch = make_watch(head=head)
    column = np.array([*values, *([1.0, 2.0] * 40)])[:, None]
    (rows,), state = run(watch, column)
    for name, array in state.items():
        assert not np.isnan(array).any(), name
    present = np.isfinite(column[:, 0])
    assert np.isfinite(rows.surprise[present]).all()
    assert (rows.surprise[present] >= 0).all()
    assert np.isfinite(rows.expected[present]).all()
    assert ((rows.score[present] >= 0) & (rows.score[present] <= 1)).all()

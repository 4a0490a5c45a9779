"""How every picture looks and is written: without a display, the same to the byte each time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from recurra.errors import ConfigError, MissingExtraError, unknown
from recurra.runs import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, without yellow: distinct with every common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
INK = "#1b1f24"
QUIET = "#6e7781"
_FORMATS = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": "#e3e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "recurra",
    "text.parse_math": False,  # a dollar sign in a column's name is a dollar sign
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}


@contextmanager
def style() -> Iterator[None]:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "forecasting", "Drawing charts") from error
    with matplotlib.rc_context():
        # The user's own matplotlibrc must not change a report.
        matplotlib.rcdefaults()
        parameters: Any = matplotlib.rcParams  # its type lists every name there is
        parameters.update(_RC)
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure that no window system and no pyplot knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def to_svg(figure: Figure) -> str:
    """The figure as SVG text."""
    return _render(figure, ".svg").decode()


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as .png, .svg or .pdf, by the path's ending.

    Raises: ConfigError for another ending, RunError when the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise ConfigError(unknown("picture format", suffix, _FORMATS) + f" In the path {path}.")
    write_bytes(Path(path), _render(figure, suffix))


def _render(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=suffix[1:], dpi=150, metadata=_FORMATS[suffix])
    return buffer.getvalue()


def tint(strength: float) -> tuple[float, ...]:
    """The first colour on white, opaque, so that nested bands look as in the legend."""
    from matplotlib.colors import to_rgb

    return tuple(1 - strength * (1 - part) for part in to_rgb(COLOURS[0]))


def time_axis(axes: Axes, times: npt.NDArray[Any]) -> None:
    if times.dtype.kind != "M":
        whole_numbers(axes)
        axes.set_xlabel("time")
        return
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))

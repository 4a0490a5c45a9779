"""A report: one HTML file that needs nothing else, runs nothing and prints well."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from html import escape
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

from recurra.runs import write_bytes

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #57606a; --paper: #ffffff;
  --line: #d0d7de; --stripe: #f6f8fa; --warn: #9a3b00; --warn-paper: #fff4e8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9aa4ae; --paper: #14181d;
  --line: #3a424b; --stripe: #1c2229; --warn: #ffb074; --warn-paper: #33210f; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2rem 0 .6rem; }
p { margin: .6rem 0; white-space: pre-line; }
.warning { border-left: .3rem solid var(--warn); background: var(--warn-paper);
  padding: .6rem 1rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption, figcaption { text-align: left; color: var(--quiet); font-size: .92rem; padding: .3rem 0; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left; }
th { border-bottom-width: 2px; }
tbody tr:nth-child(even) { background: var(--stripe); }
.number { text-align: right; }
.grid tbody tr { background: none; }
.grid th, .grid td { padding: .1rem .4rem; border: none; font-weight: normal; }
.grid tbody th { text-align: right; }
.tokens { white-space: pre-wrap; overflow-wrap: anywhere;
  font: .95rem/1.7 ui-monospace, monospace; }
.s1 { background: #d5590026; } .s2 { background: #d559004d; } .s3 { background: #d5590080; }
.s4 { background: #d55900b3; } .s5 { background: #d55900; color: #ffffff; }
.a1 { background: #0072b226; } .a2 { background: #0072b24d; } .a3 { background: #0072b280; }
.a4 { background: #0072b2b3; } .a5 { background: #0072b2; color: #ffffff; }
figure { margin: 1.2rem 0; break-inside: avoid; }
img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: .3rem; }
@media print { :root { --ink: #000000; --quiet: #444444; --paper: #ffffff; --line: #bbbbbb;
  --stripe: #ffffff; --warn: #000000; --warn-paper: #ffffff; }
  body { margin: 0; max-width: none; font-size: 10.5pt; } .scroll { overflow: visible; }
  table, .warning { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


class Page:
    """A report built from top to bottom; every method returns the page.

    Nothing in the file points outside it, no script runs (the content policy forbids both), and
    all text is escaped. Charts are embedded as images, so nothing inside one can reach the page.

    >>> page = Page("Sales").heading("Scores").table(["model", "mase"], [["naive", 1.0]])
    >>> "<td>naive</td>" in page.html()
    True
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str, level: int = 2) -> Self:
        """A heading of level 2 or 3."""
        level = min(max(level, 2), 3)
        self._parts.append(f"<h{level}>{escape(text)}</h{level}>")
        return self

    def text(self, text: str) -> Self:
        """A paragraph; line ends stay."""
        self._parts.append(f"<p>{escape(text)}</p>")
        return self

    def warning(self, text: str) -> Self:
        """A paragraph that stands out."""
        self._parts.append(f'<p class="warning" role="note">{escape(text)}</p>')
        return self

    def table(
        self, headers: Sequence[str], rows: Iterable[Sequence[Any]], caption: str | None = None
    ) -> Self:
        """A table; numbers are aligned right with four significant digits, NaN and None a dash.

        Raises: ValueError when a row has not as many cells as there are headers.
        """
        cells = [list(row) for row in rows]
        for number, row in enumerate(cells, 1):
            if len(row) != len(headers):
                raise ValueError(
                    f"Page.table: row {number} has {len(row)} cells, but there are {len(headers)} "
                    "headers. Give one cell for each header."
                )
        numeric = [
            any(_is_number(row[at]) for row in cells)
            and all(_is_number(row[at]) or row[at] is None for row in cells)
            for at in range(len(headers))
        ]
        kinds = [' class="number"' if number else "" for number in numeric]
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        head = "".join(
            f'<th scope="col"{kind}>{escape(str(name))}</th>'
            for name, kind in zip(headers, kinds, strict=True)
        )
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{kind}>{escape(format_cell(cell))}</td>"
                for cell, kind in zip(row, kinds, strict=True)
            )
            + "</tr>"
            for row in cells
        )
        self._parts.append(
            f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
        return self

    def surprise(self, pieces: Sequence[str], nats: Sequence[float], caption: str) -> Self:
        """A text by its tokens, the darker the more nats a token has: six steps of 1.5 nats.

        Raises: ValueError when there are not as many numbers as tokens.
        """
        spans = []
        for piece, value in zip(pieces, nats, strict=True):
            level = min(5, max(0, int(value / 1.5))) if math.isfinite(value) else 5
            # A line end keeps its place, and is seen where it was not expected.
            text = escape(piece.replace("\n", "⏎\n") if level else piece)
            spans.append(f'<span class="s{level}">{text}</span>' if level else text)
        self._parts.append(f'<p>{escape(caption)}</p><div class="tokens">{"".join(spans)}</div>')
        return self

    def attribution(self, pieces: Sequence[str], values: Sequence[float], caption: str) -> Self:
        """A text by its pieces: orange what has a positive value, blue a negative one.

        The largest value is the darkest of five steps.
        Raises: ValueError when there are not as many values as pieces.

        >>> page = Page("Why").attribution(["good", " film"], [2.0, -1.0], "pos")
        >>> '<span class="s5">good</span><span class="a3"> film</span>' in page.html()
        True
        """
        most = max((abs(value) for value in values), default=0.0) or 1.0
        spans = []
        for piece, value in zip(pieces, values, strict=True):
            level = math.ceil(5 * abs(value) / most - 0.25)
            kind = f"{'s' if value > 0 else 'a'}{level}"
            text = escape(piece)
            spans.append(f'<span class="{kind}">{text}</span>' if level > 0 else text)
        self._parts.append(f'<p>{escape(caption)}</p><div class="tokens">{"".join(spans)}</div>')
        return self

    def attention(
        self,
        source: Sequence[str],
        target: Sequence[str],
        weights: Sequence[Sequence[float]],
        caption: str,
    ) -> Self:
        """What each piece of a target looked at: a row for each, a column for each of the source.

        Weights (T, S) are from 0 to 1, in five steps. As text and not as a chart, because the
        reader's browser has the letters of every script.
        Raises: ValueError when the weights do not fit the pieces.

        >>> page = Page("Why").attention(["a", "cat"], ["eine"], [[0.9, 0.1]], "eine")
        >>> '<th scope="row">eine</th><td class="a5"></td><td class="a1"></td>' in page.html()
        True
        """
        head = "".join(f'<th scope="col">{escape(piece.strip())}</th>' for piece in source)
        body = []
        for piece, row in zip(target, weights, strict=True):
            levels = [math.ceil(5 * weight - 0.4) for _, weight in zip(source, row, strict=True)]
            cells = "".join(f'<td class="a{n}"></td>' if n > 0 else "<td></td>" for n in levels)
            body.append(f'<tr><th scope="row">{escape(piece.strip())}</th>{cells}</tr>')
        self._parts.append(
            f'<div class="scroll"><table class="grid"><caption>{escape(caption)}</caption><thead>'
            f"<tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        )
        return self

    def figure(self, svg: str, caption: str) -> Self:
        """A chart given as SVG text (`drawing.to_svg`), with what it shows."""
        encoded = base64.b64encode(svg.encode()).decode()
        self._parts.append(
            f'<figure><img src="data:image/svg+xml;base64,{encoded}" alt="{escape(caption)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
        return self

    def html(self) -> str:
        """The whole file."""
        # The policy admits this one style sheet by its hash, embedded images, and nothing else.
        digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
        policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
            "form-action 'none'"
        )
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{_STYLE}</style></head>\n<body><main>\n"
            + "\n".join(self._parts)
            + "\n</main></body></html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the file in one step.

        Raises: RunError when it cannot be written; a file that was there stays.
        """
        write_bytes(Path(path), self.html().encode("utf-8", "replace"))


def format_cell(value: Any) -> str:
    """A table cell as text: 0.8731, 12340, 3; a dash for NaN, infinity and None."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not _is_number(value):
        return str(value)
    if isinstance(value, Integral):
        return str(int(value))
    number = float(value)
    if not math.isfinite(number):
        return "–"
    if number == 0 or 1e-4 <= abs(number) < 1e7:
        decimals = 3 if number == 0 else max(0, 3 - math.floor(math.log10(abs(number))))
        return f"{number:.{decimals}f}"
    return f"{number:.3e}"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)

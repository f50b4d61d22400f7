"""A report as data: everything that is told, formatted and in order. Renderers only render."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

NOT_MEASURED = "not measured"
"""What stands where a run has no number: never zero."""

Role = Literal["baseline", "compressed", "guide", "second", "third", "fourth", "faint"]
"""What a series stands for, which decides its colour."""

Status = Literal["certified", "missed", "inconclusive", "incomplete"]


Tone = Literal["", "good", "wary", "bad"]
"""What a cell says of its number, which decides its colour."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title, the unit of its numbers, and whether it holds numbers (and is aligned as such)."""

    title: str
    unit: str = ""
    numeric: bool = True

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True, slots=True)
class Table:
    """Formatted cells, ``rows`` [rows][columns]; ``footer`` is one row of totals or empty.

    ``tones``, of the rows' shape or empty, make it a heat map.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    footer: tuple[str, ...] = ()
    tones: tuple[tuple[Tone, ...], ...] = ()
    kind: Literal["table"] = "table"


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind in a panel.

    Args:
        label: name in the legend, empty for none.
        x: positions in the axis' unit.
        y: values in the axis' unit, as many as ``x``.
        mark: how the points are drawn.
        role: what they stand for, which decides their colour.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    mark: Literal["line", "steps", "points", "bars"]
    role: Role


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes; ``categories`` names the positions 0, 1, … of the x axis where it has names."""

    x_label: str
    y_label: str
    series: tuple[Series, ...]
    title: str = ""
    categories: tuple[str, ...] = ()
    log_y: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels side by side or on top of each other; ``description`` says in words what can be seen."""

    key: str
    title: str
    description: str
    panels: tuple[Panel, ...]
    stacked: bool = False
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report; without charts and tables its text says why."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    parts: tuple[Chart | Table, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """A number to see first."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that must not be overlooked."""

    kind: Literal["proxy", "licence", "warning"]
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class NextStep:
    """What to do next, and the command or code for it where there is one."""

    title: str
    text: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole report."""

    title: str
    subtitle: str
    status: Status
    headline: str
    notices: tuple[Notice, ...]
    key_figures: tuple[KeyFigure, ...]
    sections: tuple[Section, ...]
    next_steps: tuple[NextStep, ...]
    schema: int = 1

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table, in order."""
        return tuple(part for section in self.sections for part in section.parts if part.kind == "table")

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Every chart, in order."""
        return tuple(part for section in self.sections for part in section.parts if part.kind == "chart")

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers."""
        return asdict(self)

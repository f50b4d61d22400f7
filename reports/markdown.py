"""The report as Markdown, for places that show no HTML."""

import re
from collections.abc import Iterable, Sequence

from reports.document import Column, NextStep, Section, Summary, Table
from reports.formatting import printable

SPECIAL = re.compile(r"([\\`*_\[\]|#~$])")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def render_markdown(summary: Summary) -> str:
    """The report's text and tables; charts are described in words."""
    figures = Table(
        "Key figures",
        (Column("Figure", numeric=False), Column("Value"), Column("Detail", numeric=False)),
        tuple((figure.label, figure.value, figure.detail) for figure in summary.key_figures),
    )
    blocks = [f"# {escape(summary.title)}", escape(summary.subtitle), f"**{escape(summary.headline)}**"]
    blocks += [f"> **{escape(notice.title)}.** {escape(notice.text)}" for notice in summary.notices]
    blocks.append(_table(figures))
    for section in summary.sections:
        blocks += _section(section)
    blocks.append("## What to do next")
    for number, step in enumerate(summary.next_steps, start=1):
        blocks += _step(number, step)
    return printable("\n\n".join(block for block in blocks if block) + "\n")


def escape(text: str) -> str:
    """``text`` as plain words in Markdown: no markup, no HTML, no line breaks."""
    one_line = " ".join(text.split())
    escaped = SPECIAL.sub(r"\\\1", one_line)
    return "".join(ENTITIES.get(character, character) for character in escaped)


def _section(section: Section) -> Iterable[str]:
    yield f"## {escape(section.title)}"
    yield from (escape(text) for text in section.text)
    for part in section.parts:
        if part.kind == "chart":
            yield f"*{escape(part.title)}:* {escape(part.description)}"
        else:
            yield f"**{escape(part.caption)}**"
            yield _table(part)


def _step(number: int, step: NextStep) -> Iterable[str]:
    yield f"{number}. **{escape(step.title)}.** {escape(step.text)}"
    if step.code:
        fence = "`" * max(3, 1 + max((len(ticks) for ticks in re.findall("`+", step.code)), default=0))
        lines = (fence, *step.code.splitlines(), fence)
        yield "\n".join(f"   {line}".rstrip() for line in lines)


def _table(table: Table) -> str:
    rule = ("---:" if column.numeric else "---" for column in table.columns)
    rows = [tuple(column.heading for column in table.columns), *table.rows]
    if table.footer:
        rows.append(table.footer)
    lines = [_row([escape(cell) for cell in row]) for row in rows]
    lines.insert(1, _row(list(rule)))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

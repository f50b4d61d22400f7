import re
from collections.abc import Callable
from pathlib import Path

import pytest

from reports import build_summary
from reports.markdown import escape, render_markdown
from tests.reports.run_folder import Files

FolderOf = Callable[[Files], Path]
CELL = re.compile(r"(?<!\\)\|")


def tables(markdown: str) -> list[list[str]]:
    blocks = (block.splitlines() for block in markdown.split("\n\n"))
    return [block for block in blocks if block[0].startswith("|")]


@pytest.mark.parametrize("name", ["layer1.0.conv1", "a|b", "a\nb | c", "\\|", "`|`"])
def test_tables_are_well_formed(files: Files, folder_of: FolderOf, name: str) -> None:
    files["plan"]["units"][2]["name"] = name
    summary = build_summary(folder_of(files))
    found = tables(render_markdown(summary))
    assert len(found) == len(summary.tables) + 1
    for lines in found:
        assert re.fullmatch(r"\|( -{3}:? \|)+", lines[1])
        assert len({len(CELL.findall(line)) for line in lines}) == 1


def test_every_table_and_chart_has_its_title(files: Files, folder_of: FolderOf) -> None:
    summary = build_summary(folder_of(files))
    markdown = render_markdown(summary)
    assert all(f"**{escape(table.caption)}**" in markdown for table in summary.tables)
    assert all(f"*{escape(chart.title)}:*" in markdown for chart in summary.charts)
    assert summary.headline in markdown


def test_no_markup_comes_from_a_file(files: Files, folder_of: FolderOf) -> None:
    files["plan"]["units"][2]["name"] = "<script>*a*</script> [x](y) $z$\x1b"
    markdown = render_markdown(build_summary(folder_of(files)))
    assert "<script>" not in markdown
    assert r"&lt;script&gt;\*a\*&lt;/script&gt; \[x\](y) \$z\$" in markdown
    assert "\x1b" not in markdown


def test_code_stays_inside_its_fence(files: Files, folder_of: FolderOf) -> None:
    files["run"]["command"] = ["pipeline", "run", "--out", "a", "--model", "```\n# heading"]
    lines = render_markdown(build_summary(folder_of(files))).splitlines()
    assert "   ````" in lines
    assert "# heading" not in lines

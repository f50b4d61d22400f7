"""Writing report.html, report.md and report.json."""

import json
import os
import tempfile
from pathlib import Path

from reports.document import Summary
from reports.errors import USAGE, ReportError
from reports.html import render_html
from reports.markdown import render_markdown
from reports.summary import build_summary


def write_reports(run_folder: Path, out: Path) -> Summary:
    """Write the three reports of ``run_folder`` into the folder ``out``; the same files give the same reports.

    Raises:
        ReportError: a file of the run cannot be used, or ``out`` cannot be written.
    """
    summary = build_summary(run_folder)
    rendered = {
        "report.html": render_html(summary),
        "report.md": render_markdown(summary),
        "report.json": json.dumps(summary.to_json(), indent=1, ensure_ascii=False) + "\n",
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in rendered.items():
            _replace(out / name, text)
    except OSError as error:
        raise ReportError(f"The report cannot be written to {out}: {error.strerror or error}.", USAGE) from error
    return summary


def _replace(path: Path, text: str) -> None:
    """Write under another name, then rename: a killed run leaves no half report."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

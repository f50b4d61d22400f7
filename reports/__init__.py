"""What we tell people: a report made from the files of a run folder alone."""

from reports.document import Summary
from reports.errors import ReportError
from reports.summary import build_summary
from reports.write import write_reports

__all__ = ["ReportError", "Summary", "build_summary", "write_reports"]

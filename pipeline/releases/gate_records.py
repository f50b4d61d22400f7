"""A gate's verdict for machines and job pages: JUnit XML, and a Markdown summary."""

from pathlib import Path
from xml.etree import ElementTree

from pipeline.files import write_where_asked
from pipeline.releases.checks import Check
from pipeline.releases.gate import Verdict
from reports.formatting import printable
from reports.markdown import escape
from targets.errors import ConfigError

MARKS = {"passed": "✅", "failed": "❌", "skipped": "⏭️"}


def write_junit(verdict: Verdict, path: Path) -> None:
    """Write one test case a check, as dashboards of CI systems read them.

    Raises:
        ConfigError: the file cannot be written.
    """
    counts = {status: str(sum(c.status == status for c in verdict.checks)) for status in MARKS}
    numbers = {
        "tests": str(len(verdict.checks)),
        "failures": counts["failed"],
        "errors": "0",
        "skipped": counts["skipped"],
    }
    suites = ElementTree.Element("testsuites", {"name": "pipeline gate", **numbers})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": printable(str(verdict.bundle)), **numbers})
    for check in verdict.checks:
        _case(suite, check)
    ElementTree.indent(suites)
    write_where_asked(path, ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n")


def _case(suite: ElementTree.Element, check: Check) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname="pipeline.gate", name=check.name, time="0")
    asked, found = printable(f"asked: {check.asked}"), printable(f"found: {check.found}")
    if check.status == "failed":
        failure = ElementTree.SubElement(case, "failure", type=f"exit code {check.exit_code}", message=found)
        failure.text = f"{asked}\n{found}"
    elif check.status == "skipped":
        ElementTree.SubElement(case, "skipped", message=found)
    else:
        ElementTree.SubElement(case, "system-out").text = f"{asked}\n{found}"


def summary(verdict: Verdict) -> str:
    """The verdict as Markdown, for a job's page."""
    lines = [f"### {MARKS[verdict.status]} Gate {verdict.status}: {escape(str(verdict.bundle))}", ""]
    lines += ["| check | asked | found | |", "|---|---|---|---|"]
    for check in verdict.checks:
        cells = [escape(printable(text)) for text in (check.name, check.asked, check.found)]
        lines.append(f"| {' | '.join(cells)} | {MARKS[check.status]} {check.status} |")
    if verdict.release:
        certificate = verdict.release.certificate
        target = certificate.target
        measured = f"{certificate.host.model}, {target.runtime}, {target.threads} threads, batch {target.batch_size}"
        proxy = " **Proxy: not a CPU of the target's vendor.**" if certificate.proxy else ""
        lines += ["", f"Measured on {escape(measured)}.{proxy}", "", f"Licence: {escape(certificate.licence_note)}."]
    return "\n".join(lines) + "\n\n"


def append_summary(verdict: Verdict, path: Path) -> None:
    """Append the summary to the file that a job's page is made from.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(summary(verdict))
    except OSError as error:
        raise ConfigError(f"Cannot write the job's summary {path}: {error.strerror or error}.") from None

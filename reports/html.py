"""One HTML file that opens offline."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports.charts import render_chart
from reports.document import Chart, Summary
from reports.formatting import printable


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = _svg
    return environment


def _svg(chart: Chart) -> Markup:
    return Markup(render_chart(chart))


def render_html(summary: Summary) -> str:
    """The report as one HTML page with its style sheet and charts inside."""
    return printable(_environment().get_template("report.html").render(summary=summary))

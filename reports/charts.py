"""Charts as inline SVG whose colours follow the page's style sheet, light or dark."""

import io
import re
import warnings
from typing import TYPE_CHECKING, Any, get_args
from xml.etree import ElementTree

from reports.document import Chart, Panel, Role, Series
from reports.formatting import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 9.2
PANEL_HEIGHT_IN = 3.1
STACKED_HEIGHT_IN = 1.9
TICK_ROOM_IN = 1.1
LABEL_LENGTH = 24
LABELS_SHOWN = 60

# Matplotlib needs colours; the style sheet decides them. Each role is drawn in a colour of its own, which is
# replaced by a variable of the style sheet in the finished SVG.
COLORS = {role: f"#0000{number:02x}" for number, role in enumerate(("ink", "grid", *get_args(Role)), start=1)}
VARIABLES = {color: f"var(--chart-{role})" for role, color in COLORS.items()}
COLOR = re.compile("|".join(VARIABLES))

SVG = "http://www.w3.org/2000/svg"
HREF = "{http://www.w3.org/1999/xlink}href"

STYLE: Any = {
    "axes.edgecolor": COLORS["grid"],
    "axes.labelcolor": COLORS["ink"],
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": COLORS["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "font.size": 9,
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.labelcolor": COLORS["ink"],
    "svg.fonttype": "none",
    "svg.hashsalt": "reports",
    "text.color": COLORS["ink"],
    "text.parse_math": False,
    "xtick.color": COLORS["grid"],
    "xtick.labelcolor": COLORS["ink"],
    "ytick.color": COLORS["grid"],
    "ytick.labelcolor": COLORS["ink"],
}


def render_chart(chart: Chart) -> str:
    """``chart`` as an SVG element with title and description, the same for the same data."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Names of layers may hold glyphs that only the reader's fonts have; the text is kept as text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(WIDTH_IN, _height_in(chart)), layout="constrained")
        _draw(figure, chart)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), chart)


def _height_in(chart: Chart) -> float:
    if not chart.stacked:
        return PANEL_HEIGHT_IN
    return STACKED_HEIGHT_IN * len(chart.panels) + TICK_ROOM_IN


def _draw(figure: "Figure", chart: Chart) -> None:
    count = len(chart.panels)
    rows, columns = (count, 1) if chart.stacked else (1, count)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, chart.panels, strict=True):
        _draw_panel(axes, panel)
    if chart.stacked:
        for axes in list(grid.flat)[:-1]:
            axes.set_xticklabels([])


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    for depth, series in enumerate(panel.series):
        _draw_series(axes, series, depth)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.set_title(panel.title)
    axes.grid(visible=True, axis="y" if panel.categories else "both")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    if panel.log_y:
        axes.set_yscale("log")
    if panel.x_range:
        axes.set_xlim(*panel.x_range)
    if panel.y_range:
        axes.set_ylim(*panel.y_range)
    if panel.categories:
        _name_ticks(axes, panel.categories)
    labels = sum(bool(series.label) for series in panel.series)
    if labels:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=min(labels, 5), frameon=False, handlelength=1.2, borderpad=0
        )


def _draw_series(axes: "Axes", series: Series, depth: int) -> None:
    color, label = COLORS[series.role], series.label or None
    x, y = list(series.x), list(series.y)
    match series.mark:
        case "bars":
            # A later series stands in front of an earlier one, narrower, so that both can be seen.
            axes.bar(x, y, width=0.8 / (1 + 0.6 * depth), color=color, label=label)
        case "points":
            axes.plot(x, y, "o", markersize=5, color=color, markeredgewidth=0, alpha=0.8, label=label)
        case "steps":
            axes.plot(x, y, drawstyle="steps-post", color=color, linewidth=_line_width(series), label=label)
        case "line":
            axes.plot(x, y, color=color, linewidth=_line_width(series), label=label)


def _line_width(series: Series) -> float:
    return 0.8 if series.role in ("faint", "guide") else 1.8


def _name_ticks(axes: "Axes", names: tuple[str, ...]) -> None:
    step = -(-len(names) // LABELS_SHOWN)
    positions = range(0, len(names), step)
    axes.set_xticks(list(positions), [_short(names[i]) for i in positions], rotation=90, fontsize=8)
    axes.set_xlim(-0.7, len(names) - 0.3)


def _short(name: str) -> str:
    """The end of a long name, where layers differ."""
    text = " ".join(printable(name).split())
    return text if len(text) <= LABEL_LENGTH else f"…{text[1 - LABEL_LENGTH :]}"


def _inline(svg: bytes, chart: Chart) -> str:
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", HREF[1:].partition("}")[0])
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    _own_names(root, chart.key)
    for element in root.iter():
        if style := element.get("style"):
            element.set("style", COLOR.sub(lambda match: VARIABLES[match[0]], style))
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    _describe(root, chart)
    return ElementTree.tostring(root, encoding="unicode")


def _own_names(root: ElementTree.Element, key: str) -> None:
    """Give every id that is referred to a prefix and drop the others: charts share one page."""
    referred = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in referred:
            element.set("id", f"{key}-{name}")
        for attribute, value in element.attrib.items():
            if attribute == HREF:
                element.set(attribute, f"#{key}-{value[1:]}")
            elif "url(#" in value:
                element.set(attribute, value.replace("url(#", f"url(#{key}-"))


def _describe(root: ElementTree.Element, chart: Chart) -> None:
    root.set("role", "img")
    root.set("aria-labelledby", f"{chart.key}-title {chart.key}-description")
    for place, (tag, text) in enumerate((("title", chart.title), ("desc", chart.description))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}")
        element.set("id", f"{chart.key}-{'title' if tag == 'title' else 'description'}")
        element.text = printable(text)
        root.insert(place, element)

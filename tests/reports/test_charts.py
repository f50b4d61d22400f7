import re
from xml.etree import ElementTree

import pytest

from reports.charts import render_chart
from reports.document import Chart, Panel, Series
from tests.reports.page import read_page


def chart(**changes: object) -> Chart:
    bars = Series("dense", (0.0, 1.0), (1.0, 2.0), "bars", "baseline")
    line = Series("planned", (0.0, 1.0), (2.0, 1.0), "line", "compressed")
    dots = Series("tried", (0.0, 1.0), (2.0, 1.0), "points", "second")
    values: dict[str, object] = {
        "key": "plan",
        "title": "Title",
        "description": "What can be seen.",
        "panels": (Panel("x", "y", (bars, line, dots)),),
    }
    return Chart(**(values | changes))  # type: ignore[arg-type]


def names(title: str) -> Chart:
    bars = Series("", (0.0,), (1.0,), "bars", "compressed")
    return chart(panels=(Panel("", "y", (bars,), categories=(title,)),))


def test_colours_are_left_to_the_style_sheet() -> None:
    svg = render_chart(chart())
    assert {"baseline", "compressed", "second", "ink", "grid"} == set(re.findall(r"var\(--chart-([a-z]+)\)", svg))
    assert not re.findall(r"#[0-9a-f]{6}\b", svg)


def test_a_chart_says_in_words_what_it_shows() -> None:
    root = ElementTree.fromstring(render_chart(chart(title="A & B", description="<b>")))
    named = {element.get("id"): element.text for element in root}
    title, description = (root.get("aria-labelledby") or "").split()
    assert root.get("role") == "img"
    assert (named[title], named[description]) == ("A & B", "<b>")


def test_charts_share_a_page_without_sharing_ids() -> None:
    first, second = render_chart(chart(key="one")), render_chart(chart(key="two"))
    ids = [set(read_page(svg).attributes("id")) for svg in (first, second)]
    assert not ids[0] & ids[1]
    for svg, own in zip((first, second), ids, strict=True):
        referred = set(re.findall(r"url\(#([^)]+)\)", svg)) | {
            link.removeprefix("#") for link in read_page(svg).attributes("xlink:href", "href")
        }
        assert referred
        assert referred <= own


def test_the_same_data_gives_the_same_picture() -> None:
    assert render_chart(chart()) == render_chart(chart())


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "$x_{$", "a\nb", "\x00\x1b", "層", "]]>&amp;", "-->"])
def test_names_of_layers_stay_text(name: str) -> None:
    root = ElementTree.fromstring(render_chart(names(name)))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    shown = {"a\nb": "a b", "\x00\x1b": "\N{REPLACEMENT CHARACTER}"}.get(name, name)
    assert texts[0].endswith(shown[-20:])
    assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_long_names_keep_the_end_that_tells_them_apart() -> None:
    assert re.search(r"…[a-z0.]*\.attention\.self\.query<", render_chart(names("encoder.layer.0.attention.self.query")))


def test_networks_of_many_layers_name_only_some() -> None:
    count = 500
    bars = Series("", tuple(float(i) for i in range(count)), (1.0,) * count, "bars", "compressed")
    panel = Panel("", "y", (bars,), categories=tuple(f"layer{i}" for i in range(count)))
    svg = render_chart(chart(panels=(panel, panel), stacked=True))
    assert 40 < len(re.findall("layer[0-9]+", svg)) < 130
    assert len(svg) < 400_000

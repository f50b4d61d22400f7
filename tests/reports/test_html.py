import re
from collections.abc import Callable
from pathlib import Path

import pytest

from reports import build_summary
from reports.html import render_html
from tests.reports.page import Page, read_page
from tests.reports.run_folder import Files, realistic_files, write_run_folder

FolderOf = Callable[[Files], Path]
NASTY = "<script>alert('x')</script>\"&{{ 7*7 }}</svg>"


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_run_folder(tmp_path_factory.mktemp("run"), realistic_files())
    return render_html(build_summary(folder))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return read_page(html)


def test_every_tag_is_closed(page: Page) -> None:
    assert not page.mismatched


def test_the_page_opens_offline(html: str, page: Page) -> None:
    links = page.attributes("src", "href", "xlink:href", "action", "data", "poster", "srcset")
    assert links
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"@import|url\((?!#)|<script|<iframe|<link", html)


def test_the_page_stays_small(html: str) -> None:
    assert len(html.encode()) < 2_000_000


def test_links_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in page.attributes("href", "xlink:href")} <= set(ids)


def test_the_page_tells_what_a_release_manager_asks(page: Page) -> None:
    dash = "\N{EN DASH}"
    for said in (
        f"certified: 3.02x faster (95% interval 3.00{dash}3.05) than dense fp32 on deepsparse",
        "Speedup over best dense 1.07x 7.30 ms, int8 on openvino",
        "evaluation in development and test, not production",
        "layer2.1.conv2",
        "uniform",
        "Intel Xeon Platinum 8488C",
        "What to do next",
    ):
        assert said in page.text


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) == page.count("figure") == 7
    assert all(attributes["role"] == "img" and attributes["aria-labelledby"] for attributes in charts)
    assert page.count("caption") == page.count("table")
    assert all(attributes.get("scope") == "col" for tag, attributes in page.tags if tag == "th")
    assert page.count("h1") == 1
    assert ("html", {"lang": "en"}) in page.tags


def test_every_variable_has_a_light_and_a_dark_value(html: str) -> None:
    used = set(re.findall(r"var\(--([a-z-]+)\)", html))
    light, dark = re.findall(r":root \{(.*?)\}", html, flags=re.DOTALL)
    for theme in (light, dark):
        assert used <= set(re.findall(r"--([a-z-]+):", theme))


def test_rows_have_as_many_cells_as_columns(html: str) -> None:
    for table in re.findall(r"<table>.*?</table>", html, flags=re.DOTALL):
        columns = table.count("<th ")
        rows = re.findall(r"<tr>(?:(?!<th ).)*?</tr>", table, flags=re.DOTALL)
        assert rows
        assert {row.count("<td") for row in rows} == {columns}


def test_nothing_from_a_file_becomes_markup(files: Files, folder_of: FolderOf) -> None:
    files["plan"]["units"][3]["name"] = NASTY
    files["plan"]["allocator"] = files["plan"]["search"]["trace"][0][3] = NASTY
    files["certificate"]["licence_note"] = files["certificate"]["accuracy"]["metric"] = NASTY
    files["certificate"]["baseline"]["runtime"] = NASTY
    files["certificate"]["host"][NASTY] = NASTY
    files["comparison"]["rows"][0]["allocator"] = NASTY
    files["latency_table"]["measurements"][0]["label"] = NASTY
    files["run"] |= {"command": NASTY, "config": {NASTY: NASTY, "model": NASTY}, "stage_seconds": {NASTY: 1.0}}
    page = read_page(render_html(build_summary(folder_of(files))))
    assert not page.mismatched
    assert not page.count("script")
    assert page.text.count(NASTY) > 10


def test_characters_that_html_cannot_hold_are_replaced(files: Files, folder_of: FolderOf) -> None:
    files["plan"]["units"][0]["name"] = "conv\x00\x1b1"
    html = render_html(build_summary(folder_of(files)))
    assert "conv\N{REPLACEMENT CHARACTER}1" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", html)


def test_a_proxy_has_a_banner(files: Files, folder_of: FolderOf) -> None:
    files["certificate"]["proxy"] = True
    page = read_page(render_html(build_summary(folder_of(files))))
    assert ("p", {"class": "notice proxy", "role": "note"}) in page.tags
    assert "PROXY" in page.text


def test_a_page_of_what_there_is(files: Files, folder_of: FolderOf) -> None:
    page = read_page(render_html(build_summary(folder_of({"run": files["run"]}))))
    assert not page.mismatched
    assert not page.count("svg")
    assert page.text.count("not measured") > 10

import dataclasses

import pytest

from calibration.errors import DataError
from pipeline.comparison.grid import Combination, GridRow, combinations, compare_combinations
from pipeline.comparison.grid_page import grid_page
from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.run_folder import RunFolder, read_json
from pipeline.setup import prepare
from reports.html import render_html
from reports.markdown import render_markdown
from targets.errors import ArtifactError, ConfigError, RuntimeMissingError, SpeedupError


def test_every_combination_once_with_shared_work_side_by_side():
    found = combinations([2.0, 3.0, 2.0], ["spdy", "dp"], ["obs", "magnitude"], ["auto"])
    assert len(found) == len(set(found)) == 8
    assert [(c.speedup, c.criterion) for c in found[::2]] == [
        (2.0, "obs"),
        (2.0, "magnitude"),
        (3.0, "obs"),
        (3.0, "magnitude"),
    ]
    assert found[0].name == "2x-spdy-obs-auto"


def rows() -> list[GridRow]:
    reached = [
        GridRow(Combination(speedup, allocator, "obs", "auto"), speedup, speedup + 0.06, 0.01, accuracy, 0.8, 200)
        for speedup, allocator, accuracy in ((2.0, "spdy", 0.97), (2.0, "uniform", 0.95), (3.0, "spdy", 0.93))
    ]
    nothing = Combination(3.0, "uniform", "obs", "auto")
    unreachable = GridRow(nothing, why_not="3x is unreachable here", ended="unreachable")
    return [*reached, unreachable]


def test_page_tells_every_row_the_best_ones_and_why_one_is_missing():
    page = grid_page(rows(), "top-1 accuracy")
    assert [(figure.label, figure.value) for figure in page.key_figures] == [
        ("Best at 2x", "97.00%"),
        ("Best at 3x", "93.00%"),
    ]
    (table,) = page.tables
    assert len(table.rows) == 4
    assert "unreachable" in table.rows[3]
    (chart,) = page.charts
    assert [(series.label, series.x) for series in chart.panels[0].series] == [
        ("spdy, obs, auto", (2.06, 3.06)),
        ("uniform, obs, auto", (2.06,)),
    ]
    html, markdown = render_html(page), render_markdown(page)
    for text in ("3x is unreachable here", "97.00%", "spdy"):
        assert text in html
        assert text in markdown


def test_a_network_that_is_slower_than_asked_is_never_the_best():
    slow = GridRow(Combination(3.0, "uniform", "obs", "auto"), 3.0, 2.9, 0.001, 0.99, 0.5, 10)
    page = grid_page([*rows()[:3], slow], "top-1 accuracy")
    assert [figure.value for figure in page.key_figures] == ["97.00%", "93.00%"]
    assert "3x-uniform-obs-auto is slower than asked, 2.90x" in render_markdown(page)
    assert page.headline == "3 of 4 combinations reach their speedup"


def test_a_page_without_any_network_still_says_why():
    nothing = [dataclasses.replace(rows()[3])]
    page = grid_page(nothing, "top-1 accuracy")
    assert not page.charts
    assert "3x is unreachable here" in render_html(page)


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (SpeedupError("too fast"), "unreachable"),
        (RuntimeMissingError("the engine failed"), "failed"),
        (ArtifactError("not finite"), "failed"),
        (DataError("not a number"), "failed"),
        (ConfigError("for single weights alone"), "failed"),
    ],
)
def test_a_combination_that_fails_leaves_the_others(tmp_path, monkeypatch, error, ended):
    def fail(run, last):
        raise error

    monkeypatch.setattr("pipeline.comparison.grid.execute", fail)
    config = RunConfig(speedup=2, runtime="onnxruntime", families="channel")
    chosen = combinations([2.0], ["spdy", "dp"], ["obs"], ["auto"])
    monkeypatch.setattr("pipeline.context.Run.check_inputs", lambda _: None)
    found = compare_combinations(
        config, tmp_path, chosen, lambda own, folder: prepare(own, folder, Reporter(quiet=True))
    )
    assert [(row.ended, row.why_not, row.exit_code) for row in found] == [(ended, str(error), error.exit_code)] * 2


def test_a_folder_takes_over_what_another_one_did(tmp_path):
    earlier, own = RunFolder(tmp_path / "earlier"), RunFolder(tmp_path / "own")
    for folder in (earlier, own):
        folder.open({}, {})

    def work(folder: RunFolder, text: str) -> None:
        folder.file("database").mkdir(exist_ok=True)
        folder.file("database/unit").write_text(text)

    earlier.stage("database", "key", ["database"], lambda: work(earlier, "first"))
    own.take_over(earlier, "database", ["database"])
    own.take_over(earlier, "profile", ["latency_table.json"])
    assert own.file("database/unit").read_text() == "first"
    assert read_json(own.record)["stages"] == {"database": "key"}
    assert not own.stage("database", "key", ["database"], lambda: pytest.fail("it was taken over"))
    own.file("database/unit").unlink()
    assert own.stage("database", "another key", ["database"], lambda: work(own, "second"))
    assert earlier.file("database/unit").read_text() == "first"

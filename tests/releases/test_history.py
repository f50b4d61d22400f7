"""Releases in order, what changed between them, and a page that shows it."""

import json
from pathlib import Path

from pipeline.releases.history import history_of
from pipeline.releases.release import read_release
from tests.command import pipeline
from tests.small_bundles import lost, small_bundle, speedup

MARCH, APRIL, MAY = (f"2026-0{month}-01T12:00:00+00:00" for month in (3, 4, 5))


def names(*paths: Path) -> list[str]:
    return [Path(release.name).name for release in history_of([read_release(path) for path in paths]).releases]


def test_certificates_give_the_order_where_all_of_them_say_their_time(tmp_path: Path) -> None:
    may, march = small_bundle(tmp_path / "may", created=MAY), small_bundle(tmp_path / "march", created=MARCH)
    april = small_bundle(tmp_path / "april", created="2026-04-01T23:00:00+12:00")
    silent = small_bundle(tmp_path / "silent", created=None)
    assert names(may, march, april) == ["march", "april", "may"]
    assert names(may, silent, march) == ["may", "silent", "march"]


def test_only_intervals_that_part_are_regressions(tmp_path: Path) -> None:
    releases = [
        small_bundle(tmp_path / "1.0", created=MARCH),
        small_bundle(tmp_path / "1.1", created=APRIL, **speedup(2.97, 2.99, 3.01), amounts={"conv1": 0.5}),
        small_bundle(tmp_path / "1.2", created=MAY, **speedup(2.5, 2.6, 2.7), accuracy=lost(2, 3, 4)),
    ]
    history = history_of([read_release(path) for path in releases])
    assert [[figure.name for figure in change.regressions] for change in history.changes] == [
        [],
        ["speedup", "accuracy"],
    ]
    assert len(history.regressions) == 2
    assert "1.1" in history.regressions[0]


def test_the_command_flags_draws_and_leaves_out_unfinished_runs(tmp_path: Path) -> None:
    small_bundle(tmp_path / "b" / "bundle", created=APRIL, **speedup(2.5, 2.6, 2.7), amounts={"<i>conv": 0.5})
    small_bundle(tmp_path / "a" / "bundle", created=MARCH)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json").write_text("{}")
    result = pipeline("history", "b", "a", "new", "--html", "page.html", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert [release["name"] for release in answer["releases"]] == ["a", "b"]
    assert [change["regressions"] for change in answer["changes"]] == [["speedup"]]
    assert "new has no certificate yet" in result.stderr
    assert "regression: speedup" in result.stderr
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 1
    assert "1 regression shown" in page
    assert "<strong>Regression.</strong> speedup 3.02x (3.00–3.04) → 2.60x (2.50–2.70), from a to b" in page  # noqa: RUF001
    assert "&lt;i&gt;conv" in page
    assert "not measured" not in page  # of units that only one of the releases has
    assert "<i>" not in page


def test_the_command_says_what_it_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    result = pipeline("history", tmp_path, cwd=tmp_path)
    assert result.returncode == 2
    assert "pipeline certify" in result.stderr
    small_bundle(tmp_path / "bundle")
    result = pipeline("history", tmp_path, "--html", tmp_path / "run.json" / "page.html", cwd=tmp_path)
    assert result.returncode == 2
    assert "page.html" in result.stderr

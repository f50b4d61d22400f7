import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reports import ReportError, write_reports
from tests.reports.run_folder import Files

FolderOf = Callable[[Files], Path]
NAMES = ["report.html", "report.json", "report.md"]


def test_three_reports_and_nothing_else(files: Files, folder_of: FolderOf, tmp_path: Path) -> None:
    summary = write_reports(folder_of(files), tmp_path / "new" / "out")
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == NAMES
    assert json.loads((tmp_path / "new/out/report.json").read_text()) == json.loads(json.dumps(summary.to_json()))
    assert summary.to_json()["schema"] == 1


def test_a_report_can_be_made_again(files: Files, folder_of: FolderOf) -> None:
    folder = folder_of(files)
    write_reports(folder, folder)
    first = {name: (folder / name).read_bytes() for name in NAMES}
    write_reports(folder, folder)
    assert {name: (folder / name).read_bytes() for name in NAMES} == first


def test_a_broken_run_leaves_an_older_report_alone(files: Files, folder_of: FolderOf) -> None:
    folder = folder_of(files)
    (folder / "report.html").write_text("older")
    (folder / "plan.json").write_text("{")
    with pytest.raises(ReportError):
        write_reports(folder, folder)
    assert (folder / "report.html").read_text() == "older"
    assert not (folder / "report.md").exists()


def test_a_file_in_the_place_of_the_folder_is_named(files: Files, folder_of: FolderOf, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ReportError, match="out") as raised:
        write_reports(folder_of(files), tmp_path / "out")
    assert raised.value.exit_code == 2
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.EEXIST


def test_a_report_that_cannot_be_replaced_leaves_no_remains(files: Files, folder_of: FolderOf, tmp_path: Path) -> None:
    (tmp_path / "out" / "report.md").mkdir(parents=True)
    with pytest.raises(ReportError, match="cannot be written"):
        write_reports(folder_of(files), tmp_path / "out")
    assert not list((tmp_path / "out").glob(".report*"))

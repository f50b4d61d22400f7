import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reports import ReportError, build_summary
from reports.records import FILES, read_run
from tests.reports.run_folder import Files

FolderOf = Callable[[Files], Path]


def test_a_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="nowhere") as raised:
        build_summary(tmp_path / "nowhere")
    assert raised.value.exit_code == 2


def test_a_folder_that_is_no_run_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ReportError, match="no file of a run") as raised:
        build_summary(tmp_path)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_off_is_named(files: Files, folder_of: FolderOf, name: str) -> None:
    path = folder_of(files) / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ReportError, match=name) as raised:
        build_summary(path.parent)
    assert raised.value.exit_code == 5
    assert "cut off" in str(raised.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_newer_version_is_named(files: Files, folder_of: FolderOf, name: str) -> None:
    files[name.removesuffix(".json")]["schema"] = 2
    with pytest.raises(ReportError, match=rf"{name} has schema 2.* newer") as raised:
        build_summary(folder_of(files))
    assert raised.value.exit_code == 5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b"null",
        b'{"status": "certified"}',
        b'{"schema": "1"}',
        b"[" * 100_000,
        b'{"schema": 1e400}',
    ],
)
def test_what_is_no_certificate_is_refused(files: Files, folder_of: FolderOf, content: bytes) -> None:
    path = folder_of(files) / "certificate.json"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=r"certificate\.json") as raised:
        build_summary(path.parent)
    assert raised.value.exit_code == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "excellent"),
        ("measured_speedup", "3x"),
        ("measured_speedup", True),
        ("measured_speedup", 1e300),
        ("samples", [1]),
        ("proxy", "no"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(files: Files, folder_of: FolderOf, field: str, value: object) -> None:
    files["certificate"][field] = value
    with pytest.raises(ReportError, match=field):
        build_summary(folder_of(files))


def test_a_folder_in_the_place_of_a_file_is_refused(files: Files, folder_of: FolderOf) -> None:
    folder = folder_of(files)
    (folder / "plan.json").unlink()
    (folder / "plan.json").mkdir()
    with pytest.raises(ReportError, match=r"plan\.json cannot be read"):
        build_summary(folder)


def test_null_nan_and_infinity_are_absent(files: Files, folder_of: FolderOf) -> None:
    certificate = files["certificate"]
    certificate |= {"measured_speedup": float("nan"), "ci_low": float("-inf"), "best_dense": None, "noise_floor": None}
    run = read_run(folder_of(files))
    assert run.certificate.measured_speedup is None
    assert run.certificate.ci_low is None
    assert run.certificate.best_dense.latency_s is None
    assert run.certificate.noise_floor is None


def test_unknown_fields_of_the_same_version_do_no_harm(files: Files, folder_of: FolderOf) -> None:
    for content in files.values():
        content["new"] = {"deep": [1]}
    assert build_summary(folder_of(files)).status == "certified"


def test_files_are_read_as_written(files: Files, folder_of: FolderOf) -> None:
    run = read_run(folder_of(files))
    assert run.certificate.measured_speedup == files["certificate"]["measured_speedup"]
    assert [unit.name for unit in run.plan.units] == [unit["name"] for unit in files["plan"]["units"]]
    assert run.absent == frozenset()
    assert json.loads(json.dumps(run.latency_table.seconds)) == files["latency_table"]["seconds"]

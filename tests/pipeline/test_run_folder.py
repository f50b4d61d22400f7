"""Nothing is lost, nothing is done twice, nobody else works on the same folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.run_folder import Log, RunFolder, digest, read_json, write_json
from targets.errors import ArtifactError, ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.open({"speedup": 3.0}, {"command": ["pipeline", "run"]})
    return folder


def test_a_stage_is_done_once_for_the_same_inputs(folder: RunFolder) -> None:
    done: list[int] = []

    def work() -> None:
        done.append(1)
        folder.file("a.json").write_text("{}")

    assert folder.stage("a", "key", ["a.json"], work)
    assert not folder.stage("a", "key", ["a.json"], work)
    assert len(done) == 1


@pytest.mark.parametrize("change", ["key", "output"])
def test_other_inputs_or_a_missing_output_have_it_done_again(folder: RunFolder, change: str) -> None:
    path = folder.file("a.json")
    folder.stage("a", "key", ["a.json"], lambda: write_json(path, 1))
    if change == "output":
        path.unlink()
    assert folder.stage("a", "other" if change == "key" else "key", ["a.json"], lambda: write_json(path, 2))
    assert read_json(path) == 2


def test_a_stage_that_fails_is_not_recorded(folder: RunFolder) -> None:
    def fail() -> None:
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        folder.stage("a", "key", [], fail)
    assert folder.stage("a", "key", [], lambda: None)


def test_opening_again_keeps_the_record(folder: RunFolder) -> None:
    folder.stage("a", "key", [], lambda: None)
    folder.open({"speedup": 9.0}, {})
    assert folder.stored_config() == {"speedup": 3.0}
    assert not folder.stage("a", "key", [], lambda: None)


def test_a_broken_record_is_named(folder: RunFolder) -> None:
    folder.record.write_text("{")
    with pytest.raises(ArtifactError, match=r"run\.json"):
        folder.stored_config()


def test_a_record_of_another_version_is_refused(folder: RunFolder) -> None:
    write_json(folder.record, read_json(folder.record) | {"schema": 99})
    with pytest.raises(ArtifactError, match="another version"):
        folder.stored_config()


def test_a_run_folder_below_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out"):
        RunFolder(tmp_path / "file" / "run").open({}, {})


def test_two_runs_cannot_share_a_folder(folder: RunFolder) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pipeline.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock():\n    print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match=str(other.pid)), folder.lock():
            pass
    finally:
        other.kill()
        other.wait()
    with folder.lock():  # a killed process holds nothing
        pass


def test_a_log_gives_back_what_was_added(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl", "key")
    log.add("1,2", [0.5, True])
    again = Log(tmp_path / "log.jsonl", "key")
    assert "1,2" in again
    assert again["1,2"] == [0.5, True]
    assert len(again) == 1


def test_a_log_of_another_key_starts_afresh(tmp_path: Path) -> None:
    Log(tmp_path / "log.jsonl", "key").add("a", 1)
    assert "a" not in Log(tmp_path / "log.jsonl", "other")


def test_a_line_that_was_cut_off_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path, "key")
    log.add("a", 1)
    log.add("b", 2)
    path.write_text(path.read_text()[:-4])
    again = Log(path, "key")
    assert "a" in again
    assert "b" not in again
    again.add("c", 3)
    third = Log(path, "key")
    assert "c" in third


def test_kill_9_while_a_log_is_written_loses_at_most_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    code = (
        "import sys; from pathlib import Path; from pipeline.run_folder import Log\n"
        "log = Log(Path(sys.argv[1]), 'key')\n"
        "for i in range(10**9):\n    log.add(str(i), 'x' * 200)\n    print(i, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = -1
    deadline = time.monotonic() + 60
    while last < 50 and time.monotonic() < deadline:
        last = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    log = Log(path, "key")
    assert all(str(i) in log for i in range(last + 1))


def test_a_digest_depends_on_every_part() -> None:
    assert digest("a", 1) == digest("a", 1)
    assert len({digest("a", 1), digest("a", 2), digest("b", 1), digest("a", 1, None)}) == 4


def test_write_json_leaves_no_part_behind(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}

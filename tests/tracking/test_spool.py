"""The spool keeps every event once, and knows which ones each destination has."""

import json
from pathlib import Path

import pytest

from pipeline.tracking.events import Fact
from pipeline.tracking.spool import EVENTS, Spool
from targets.errors import ArtifactError

LOSS = Fact("metric", "correction/loss", 0.25, 3)
STAGE = Fact("tag", "stage", "search")


def test_what_is_told_again_is_kept_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.add(LOSS)
    assert not spool.add(LOSS)
    assert spool.add(LOSS._replace(step=4))
    assert len(spool.unsent("a")) == 2


def test_a_tag_that_changes_and_changes_back_is_kept_each_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert [spool.add(STAGE._replace(value=value)) for value in ("search", "prune", "search")] == [True] * 3


def test_another_process_finds_all_of_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.add(LOSS)
    spool.add(STAGE)
    spool.mark_sent("a", 1)
    again = Spool(tmp_path)
    assert again.id == spool.id
    assert not again.add(LOSS)
    assert again.last_destination == "a"
    assert [event.fact for event in again.unsent("a")] == [STAGE]
    assert [event.fact for event in again.unsent("b")] == [LOSS, STAGE]


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_line_that_a_killed_run_left_unfinished_is_told_again_and_spoils_nothing(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path)
    spool.add(STAGE)
    whole = (tmp_path / EVENTS).read_text()
    spool.add(LOSS)
    line = (tmp_path / EVENTS).read_text().removeprefix(whole)
    (tmp_path / EVENTS).write_text(whole + line[:-cut])
    resumed = Spool(tmp_path)
    assert resumed.add(LOSS) == (cut > 1)  # without its newline alone, a line is whole
    resumed.add(STAGE._replace(value="prune"))
    assert [event.fact.value for event in Spool(tmp_path).unsent("a")] == ["search", 0.25, "prune"]


@pytest.mark.parametrize("header", ["", "nonsense", json.dumps([99, "id"]), "{}"])
def test_a_spool_of_another_version_is_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / EVENTS).write_text(header + "\n")
    with pytest.raises(ArtifactError, match=EVENTS):
        Spool(tmp_path)

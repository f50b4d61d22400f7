import json
import os
import re
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.statistics import LayerStatistics
from pipeline.compression.database import INDEX, Database
from pipeline.compression.hessians import reconstruction_error, relative_error
from pipeline.compression.solvers import obs_levels
from targets.errors import ArtifactError, ConfigError, UserError
from targets.levels import DENSE, Level


def test_holds_what_the_solver_made_with_its_true_errors(job, database, levels):
    assert database.units == ("unit 0", "unit 2", "unit 5")
    assert database.levels == levels
    plain, relative = database.errors(relative=False), database.errors()
    for row, (unit, (_, statistics)) in enumerate(zip(job.units, job.statistics, strict=True)):
        dense = job.model.get_submodule(unit.members[0]).weight.detach()
        rows = dense.flatten(1).double().numpy()
        made = obs_levels(statistics.hessian, rows, [level.amount for level in levels[1:]])
        expected = [rows, *(weight for weight, _ in made)]
        for column, level in enumerate(levels):
            weight, error = database.get(unit.name, level)
            assert weight.shape == unit.shape
            np.testing.assert_allclose(weight.reshape(rows.shape), expected[column], rtol=1e-6, atol=1e-30)
            assert np.count_nonzero(weight) == round(level.density * weight.size)
            again = weight.reshape(rows.shape).astype(np.float64)
            assert error == relative[row, column] == relative_error(statistics.hessian, rows, again)
            assert plain[row, column] == reconstruction_error(statistics.hessian, rows, again)
        np.testing.assert_array_equal(database.get(unit.name, DENSE)[0], dense)
    assert (relative[:, 0] == 0).all()


def test_opens_again_and_takes_little_room(job, database):
    again = Database(database.folder)
    np.testing.assert_array_equal(again.errors(), database.errors())
    dense_copies = 4 * sum(int(np.prod(unit.shape)) for unit in job.units) * len(database.levels)
    tensors = sum(
        weight.nonzero()[0].size * 4 + (weight.size + 7) // 8
        for weight in (database.get(unit, level)[0] for unit in database.units for level in database.levels)
    )
    assert tensors < dense_copies / 2
    assert tensors < again.bytes_on_disk < tensors + 30_000


def test_unchanged_units_are_left_alone_and_changed_ones_rebuilt(job, tmp_path):
    folder = tmp_path / "database"
    job.build(folder)
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    seen = []
    with torch.no_grad():
        job.model[2].weight[0, 0, 0, 0] += 1
    job.build(folder, progress=lambda done, total, unit: seen.append((done, total, unit)))
    assert seen == [(1, 3, "unit 0"), (2, 3, "unit 2"), (3, 3, "unit 5")]
    changed = {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != stamps[path.name]}
    assert changed == {"unit%202.safetensors", INDEX}


@pytest.mark.parametrize(
    "changes",
    [{"criterion": "magnitude"}, {"solver": "blocked"}, {"levels": (DENSE, Level("unstructured", 0.5))}],
    ids=str,
)
def test_other_settings_rebuild_everything(job, tmp_path, changes):
    first = job.build(tmp_path / "database")
    before = first.errors()[:, -1]
    assert (job.build(tmp_path / "database", **changes).errors()[:, -1] != before).all()


def test_a_file_that_was_altered_is_rebuilt(job, tmp_path):
    folder = tmp_path / "database"
    expected = job.build(folder).errors()
    path = folder / "unit%200.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    np.testing.assert_array_equal(job.build(folder).errors(), expected)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tests.compression.conftest as fixtures
def progress(done, total, unit):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
fixtures.Job().build(Path(sys.argv[1]), progress=progress)
"""


def _python(code: str, *arguments: str, before=None) -> "subprocess.CompletedProcess[str]":
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        preexec_fn=before,
        check=False,
    )


def test_kill_loses_at_most_the_unit_being_worked_on(job, tmp_path):
    folder = tmp_path / "database"
    assert _python(KILLED, str(folder)).returncode == -signal.SIGKILL
    with pytest.raises(ArtifactError, match="no finished database"):
        Database(folder)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set(kept) == {"unit%200.safetensors", "unit%202.safetensors"}
    database = job.build(folder)
    assert all((folder / name).stat().st_mtime_ns == stamp for name, stamp in kept.items())
    assert len(database.units) == 3


FULL = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tests.compression.conftest as fixtures
from targets.errors import UserError
try:
    fixtures.Job().build(Path(sys.argv[1]))
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_full_disk_says_what_is_needed_and_keeps_finished_units(job, tmp_path):
    folder = tmp_path / "database"
    room = 8000  # enough for the files of units 0 and 2, not for that of unit 5
    ended = _python(FULL, str(folder), before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)))
    assert ended.returncode == UserError.exit_code, ended.stderr
    assert re.search(r"the missing units \(1\) need another 0\.0[1-9] MB", ended.stdout)
    assert {path.name for path in folder.iterdir()} == {"unit%200.safetensors", "unit%202.safetensors"}
    assert len(job.build(folder).units) == 3


def test_folder_that_cannot_be_written(job, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        job.build(tmp_path / "file" / "database")


def _flip(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 0x40]) + content[-4:]


@pytest.mark.parametrize(
    "corrupt",
    [
        _flip,
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content.replace(b"relative_errors", b"relative_ERRORS", 1),
        lambda content: content.replace(rb"unit 0\"", rb"unit 9\"", 1),
    ],
    ids=["flipped", "truncated", "empty", "header", "renamed"],
)
def test_altered_unit_is_refused_by_name(database, corrupt):
    path = database.folder / "unit%200.safetensors"
    content = path.read_bytes()
    assert corrupt(content) != content
    path.unlink()  # it is mapped into memory: a new file takes its place
    path.write_bytes(corrupt(content))
    with pytest.raises(ArtifactError, match=r"unit%200\.safetensors"):
        Database(database.folder)


def test_missing_unit_and_missing_index(database):
    (database.folder / "unit%202.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"unit%202\.safetensors"):
        Database(database.folder)
    (database.folder / INDEX).unlink()
    with pytest.raises(ArtifactError, match="no finished database"):
        Database(database.folder)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"levels": ["dense", "nonsense"]},
        {"units": ["unit 0"]},
        {"units": {"unit 0": {"file": "unit%200.safetensors", "sha256": "0", "relative_errors": []}}},
    ],
    ids=str,
)
def test_altered_index_is_refused(database, change):
    path = database.folder / INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=r"database\.json"):
        Database(database.folder)


def test_truncated_index_is_refused(database):
    path = database.folder / INDEX
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ArtifactError, match=r"database\.json is broken"):
        Database(database.folder)


def test_files_of_another_build_do_not_mix(job, tmp_path):
    first, second = job.build(tmp_path / "first"), job.build(tmp_path / "second", criterion="magnitude")
    path = first.folder / "unit%200.safetensors"
    path.unlink()
    path.write_bytes((second.folder / path.name).read_bytes())
    with pytest.raises(ArtifactError, match="disagree"):
        Database(first.folder)


def test_unknown_unit_and_level(database):
    with pytest.raises(ArtifactError, match="no unit nowhere"):
        database.get("nowhere", DENSE)
    with pytest.raises(ArtifactError, match=r"no level unstructured-0\.1234"):
        database.get("unit 0", Level("unstructured", 0.1234))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_weights_name_the_layer_before_any_work(job, tmp_path, bad):
    with torch.no_grad():
        job.model[5].weight[3, 3] = bad
    with pytest.raises(ArtifactError, match="layer 5 hold NaN or infinity"):
        job.build(tmp_path / "database")
    assert not (tmp_path / "database").exists()


def test_weights_of_another_network(job, tmp_path):
    with pytest.raises(ArtifactError, match=r"no 0\.weight"):
        job.build(tmp_path, weights={})
    other = [replace(job.units[0], shape=(8, 3, 5, 5))]
    with pytest.raises(ArtifactError, match="shape"):
        job.build(tmp_path, units=other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"criterion": "taste"}, "no criterion 'taste'. Choose from magnitude, obs"),
        ({"solver": "luck"}, "no solver 'luck'. Choose from auto"),
        ({"levels": (Level("unstructured", 0.5),)}, "must have dense"),
        ({"levels": (DENSE, Level("channel", 0.5))}, "channel-0.5000 cannot be built"),
        ({"levels": (DENSE, Level("unstructured", 0.5, "int8"))}, "int8 cannot be built"),
    ],
)
def test_settings_that_there_are_not(job, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        job.build(tmp_path, **changes)


def test_every_unit_needs_statistics(job, tmp_path):
    unasked = ("elsewhere", LayerStatistics(np.eye(2), 1))
    with pytest.raises(ValueError, match=r"no statistics for \['5'\]"):
        job.build(tmp_path, statistics=[unasked, *job.statistics[:2]])


def test_denormals_are_flushed(job, tmp_path):
    statistics = [(name, layer) for name, layer in job.statistics if name == "5"]
    with torch.no_grad():
        job.model[5].weight *= 1e-38
    database = job.build(tmp_path, units=job.units[2:], statistics=statistics)
    weight, _ = database.get("unit 5", database.levels[1])
    assert (np.abs(weight[weight != 0]) >= np.finfo(np.float32).tiny).all()
    np.testing.assert_array_equal(database.get("unit 5", DENSE)[0], job.model[5].weight.detach())

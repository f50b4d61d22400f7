"""The database: reconstructed weights of every unit at every level, with their measured reconstruction error."""

import errno
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from calibration.statistics import LayerStatistics
from pipeline.backends.workers import Compute, compute_here
from pipeline.compression.criteria import CRITERIA
from pipeline.compression.hessians import Matrix, reconstruction_error, relative
from pipeline.compression.solvers import SOLVERS
from pipeline.compression.unit_file import (
    SCHEMA,
    Tensors,
    UnitFile,
    UnitHeader,
    Weight,
    encode_level,
    file_name,
    level_bytes,
    storable,
    write_unit,
)
from pipeline.models.base import Unit
from targets.errors import ArtifactError, ConfigError, UserError
from targets.files import write_atomically
from targets.levels import DENSE, Level

INDEX = "database.json"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or a file is full."""

Progress = Callable[[int, int, str], None]
"""Told the units that are done, the units in all, and the name of the one that was just finished."""


Compress = Callable[[LayerStatistics, Matrix], Iterator[Matrix]]
"""From statistics and dense weights [rows, d] to the weights of every level but dense, in the levels' order."""


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """What a unit's file is to hold: its levels, dense among them, and how their weights are made.

    Args:
        made_by: names of the methods: a file made by others is made anew.
    """

    levels: Sequence[Level]
    compress: Compress
    made_by: Sequence[str]


class Database:
    """A finished database on disk; every file is checked against its hash when the database is opened.

    Args:
        folder: that `build_database` wrote.

    Raises:
        ArtifactError: the database is unfinished, or a file is missing, broken or altered.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        index = _read_index(folder)
        self._files = {name: UnitFile(folder / file_name(name)) for name in index["units"]}
        for name, file in self._files.items():
            if index["units"][name] != _index_entry(file):
                raise ArtifactError(f"{file.path} and {folder / INDEX} disagree. Run `pipeline database` again")
        self.units: tuple[str, ...] = tuple(self._files)
        self.levels: tuple[Level, ...] = tuple(Level.parse(key) for key in index["levels"])

    def get(self, unit: str, level: Level) -> tuple[Weight, float]:
        """A unit's weight at a level, in the unit's shape, and its relative error.

        Raises:
            ArtifactError: the database has no such unit or level.
        """
        if unit not in self._files:
            raise ArtifactError(f"The database in {self.folder} has no unit {unit}. It has {', '.join(self.units)}")
        file = self._files[unit]
        weight = file.weight(level)
        return weight, file.header.relative_errors[file.header.levels.index(level.key)]

    def module(self, unit: str) -> str:
        """Name of the module whose weight a unit is."""
        return self._files[unit].header.module

    def errors(self, relative: bool = True) -> NDArray[np.float64]:
        """The error table [units, levels], in the order of `units` and `levels`; infinite where there is no level.

        Args:
            relative: to the error of no weights at all, so that units compare; else the plain squared error.
        """
        table = np.full((len(self._files), len(self.levels)), np.inf)
        column = {level.key: position for position, level in enumerate(self.levels)}
        for row, header in zip(table, (file.header for file in self._files.values()), strict=True):
            row[[column[key] for key in header.levels]] = header.relative_errors if relative else header.errors
        return table

    @property
    def bytes_on_disk(self) -> int:
        """Size of all its files."""
        return sum(path.stat().st_size for path in [self.folder / INDEX, *(file.path for file in self._files.values())])


def build_database(
    units: Sequence[Unit],
    weights: Mapping[str, Tensor],
    statistics: Iterable[tuple[str, LayerStatistics]],
    levels: Sequence[Level],
    folder: Path,
    criterion: str = "obs",
    solver: str = "auto",
    progress: Progress | None = None,
    plans: Mapping[str, UnitPlan] | None = None,
    compute: Compute = compute_here,
) -> Database:
    """Compress every unit at every level, and write one file a unit.

    A unit whose file was made from the same weights, statistics, levels, criterion and solver is left alone, so that
    a build that was interrupted goes on where it stopped.

    Args:
        units: to compress; their leading members' weights are.
        weights: the dense network's state dict.
        statistics: of every unit's leading member, in any order; read once.
        levels: dense and unstructured ones.
        folder: made if it is missing; files of other units in it are left alone.
        criterion: of `CRITERIA`.
        solver: of `SOLVERS`.
        progress: called after every unit.
        plans: unit → its own levels and how to compress it; by default every level, by the solver.
        compute: has units compressed, here or by workers elsewhere; files are written here.

    Raises:
        ConfigError: a criterion, solver or level that there is not.
        ArtifactError: a unit's weight is missing, of another shape, or holds NaN or infinity.
        UserError: the disk is full or cannot be written; finished units stay.
        ValueError: ``statistics`` ended before every unit had its own.
    """
    _check_settings(levels, criterion, solver, plans)
    waiting = {unit.members[0]: (unit, _matrix(unit, weights)) for unit in units}
    plans = plans or {
        unit.name: UnitPlan(levels, _solved(levels, criterion, solver), (criterion, solver)) for unit in units
    }
    missing = list(units)
    with _writing(folder, missing, levels):
        folder.mkdir(parents=True, exist_ok=True)

    def finish(unit: Unit) -> None:
        missing.remove(unit)
        if progress:
            progress(len(units) - len(missing), len(units), unit.name)

    def tasks() -> Iterator[tuple[str, tuple[Any, ...]]]:
        for name, layer in statistics:
            if name in waiting:
                unit, dense = waiting.pop(name)
                key = _key(unit, dense, layer.hessian, plans[unit.name])
                if _is_built(folder / file_name(unit.name), key):
                    finish(unit)
                else:
                    yield unit.name, (unit, key, dense, layer, plans[unit.name])

    by_name = {unit.name: unit for unit in units}
    for name, (header, tensors) in compute(compress_unit, tasks()):
        with _writing(folder, missing, levels):
            write_unit(folder, header, tensors)
        finish(by_name[name])
    if waiting:
        raise ValueError(f"no statistics for {sorted(waiting)}")
    with _writing(folder, missing, levels):
        _write_index(folder, units, levels)
    return Database(folder)


def _solved(levels: Sequence[Level], criterion: str, solver: str) -> Compress:
    return partial(_solve, _sparsities(levels), criterion, solver)  # unlike a lambda, workers can be sent it


def _solve(
    sparsities: Sequence[float], criterion: str, solver: str, statistics: LayerStatistics, dense: Matrix
) -> Iterator[Matrix]:
    return SOLVERS[solver](statistics.hessian, dense, sparsities, CRITERIA[criterion])


def compress_unit(
    unit: Unit, key: str, dense: Matrix, statistics: LayerStatistics, plan: UnitPlan
) -> tuple[UnitHeader, Tensors]:
    """A unit at every level of its plan, as its file keeps it; depends on nothing but the arguments."""
    return encode_unit(unit, key, dense, statistics.hessian, plan.levels, plan.compress(statistics, dense))


def _check_settings(levels: Sequence[Level], criterion: str, solver: str, plans: Mapping[str, UnitPlan] | None) -> None:
    for chosen, known, kind in ((criterion, CRITERIA, "criterion"), (solver, SOLVERS, "solver")):
        if plans is None and chosen not in known:
            raise ConfigError(f"There is no {kind} {chosen!r}. Choose from {', '.join(known)}")
    if DENSE not in levels:
        raise ConfigError("The levels of a database must have dense among them")
    for level in () if plans else levels:
        if level.precision != "fp32" or level.family not in ("dense", "unstructured"):
            raise ConfigError(f"Level {level.key} cannot be built: the database holds dense and unstructured fp32 ones")


def _matrix(unit: Unit, weights: Mapping[str, Tensor]) -> Matrix:
    """The dense weight of a unit as a matrix [rows, d]."""
    name = f"{unit.members[0]}.weight"
    if name not in weights:
        raise ArtifactError(f"The weights have no {name}, which unit {unit.name} needs. Give this network's weights")
    weight = weights[name].detach().double().cpu().numpy()
    if weight.shape != tuple(unit.shape):
        raise ArtifactError(f"{name} has shape {weight.shape} where unit {unit.name} has {tuple(unit.shape)}")
    if not np.isfinite(weight).all():
        raise ArtifactError(
            f"The weights of layer {unit.members[0]} hold NaN or infinity. Train or download them again"
        )
    return weight.reshape(len(weight), -1)


def _sparsities(levels: Sequence[Level]) -> list[float]:
    return [level.amount for level in levels if level != DENSE]


def encode_unit(
    unit: Unit, key: str, dense: Matrix, hessian: Matrix, levels: Sequence[Level], compressed: Iterator[Matrix]
) -> tuple[UnitHeader, Tensors]:
    """Header and tensors of a unit's file; errors are those of the weights as the file keeps them."""
    tensors: Tensors = {}
    errors = []
    for level in levels:
        stored = dense.astype(np.float32) if level == DENSE else storable(next(compressed))
        tensors |= encode_level(stored, level)
        errors.append(reconstruction_error(hessian, dense, stored.astype(np.float64)))
    everything = reconstruction_error(hessian, dense, np.zeros_like(dense))
    relative_errors = tuple(relative(error, everything) for error in errors)
    keys = tuple(level.key for level in levels)
    return UnitHeader(unit.name, unit.members[0], key, unit.shape, keys, tuple(errors), relative_errors), tensors


def _key(unit: Unit, dense: Matrix, hessian: Matrix, plan: UnitPlan) -> str:
    settings = [SCHEMA, unit.name, unit.shape, hessian.shape, [level.key for level in plan.levels], *plan.made_by]
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(np.ascontiguousarray(dense).tobytes())
    digest.update(np.ascontiguousarray(hessian).tobytes())
    return digest.hexdigest()


def _is_built(path: Path, key: str) -> bool:
    try:
        return path.exists() and UnitFile(path).header.key == key
    except ArtifactError:
        return False


def _index_entry(file: UnitFile) -> dict[str, Any]:
    return {"file": file.path.name, "sha256": file.sha256, "relative_errors": list(file.header.relative_errors)}


def _write_index(folder: Path, units: Sequence[Unit], levels: Sequence[Level]) -> None:
    """The list of units that makes a database finished."""
    entries = {unit.name: _index_entry(UnitFile(folder / file_name(unit.name))) for unit in units}
    index = {"schema": SCHEMA, "levels": [level.key for level in levels], "units": entries}
    write_atomically(folder / INDEX, json.dumps(index, indent=1).encode())


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.exists():
        raise ArtifactError(
            f"There is no finished database in {folder}. Run `pipeline database`, which goes on with it"
        )
    try:
        index: dict[str, Any] = json.loads(path.read_text())
        if index["schema"] != SCHEMA:
            raise ValueError("it was written by another version")
        dict(index["units"])
        for key in index["levels"]:
            Level.parse(key)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is broken ({error}). Run `pipeline database` again") from error
    return index


@contextmanager
def _writing(folder: Path, missing: Sequence[Unit], levels: Sequence[Level]) -> Iterator[None]:
    """Turn what the system says about writing into something that a user can act on."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise UserError(f"The database cannot be written to {folder}: {error.strerror}") from error
        needed = sum(level_bytes(int(np.prod(unit.shape)), level) for unit in missing for level in levels)
        raise UserError(
            f"There is no room for the database in {folder}: the missing units ({len(missing)}) need another "
            f"{needed / 1e6:.2f} MB. Make room and run the command again: finished units are kept"
        ) from error

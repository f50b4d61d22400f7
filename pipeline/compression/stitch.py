"""Stitching: a dense network takes on a plan's weights, in place."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.compression.database import Database
from pipeline.families.int8 import PRECISION, InputQuantisers, Ranges
from pipeline.families.registry import layer_levels
from pipeline.models.base import Unit
from targets.errors import ArtifactError
from targets.levels import DENSE, Level


class Stitcher:
    """Writes weights of the database into a network, and takes them out again.

    The network's other tensors, biases and batch norm among them, are never touched. Between calls nobody else may
    change the units' weights.

    Args:
        model: the dense network that the database was built from; changed in place.
        database: with the dense level among its levels.
        cache_bytes: decoded weights to keep at most.
        units: those that plans name, where they are not the database's own but made of several of them.
        ranges: of the layers' inputs, where plans have levels in int8.

    Raises:
        ArtifactError: the database was built from another network's weights.
    """

    def __init__(
        self,
        model: nn.Module,
        database: Database,
        cache_bytes: int = 2**30,
        units: Sequence[Unit] = (),
        ranges: Ranges | None = None,
    ):
        self._database, self._units = database, tuple(units)
        self._quantisers = InputQuantisers(model, ranges) if ranges else None
        self._cache: OrderedDict[tuple[str, Level], Tensor] = OrderedDict()
        self._free_bytes = cache_bytes
        self._weights = {unit: _parameter(model, database.module(unit)) for unit in database.units}
        self._applied = dict.fromkeys(database.units, DENSE)
        for unit, weight in self._weights.items():
            if not torch.equal(weight.detach().float().cpu(), self._decoded(unit, DENSE)):
                raise ArtifactError(
                    f"The database in {database.folder} was built from other weights: {unit} differs. "
                    "Run `pipeline database` for this network"
                )

    def apply(self, plan: Mapping[str, Level]) -> None:
        """Give every unit its level's weight; units that the plan does not name become dense.

        Only units whose level has changed since the last call are written. If one of them cannot be read, none is.

        Args:
            plan: a unit that the database does not have must be dense.

        Raises:
            ArtifactError: the database has no such unit or level.
        """
        plan = layer_levels(self._units, plan) if self._units else plan
        for unit, level in plan.items():
            if unit not in self._weights and level != DENSE:
                self._database.get(unit, level)
        wanted = {unit: plan.get(unit, DENSE) for unit in self._weights}
        changed = {unit: level for unit, level in wanted.items() if level != self._applied[unit]}
        decoded = {unit: self._decoded(unit, level) for unit, level in changed.items()}
        for unit, weight in decoded.items():
            with torch.no_grad():
                self._weights[unit].copy_(weight)
            self._applied[unit] = changed[unit]
        if self._quantisers:
            self._quantisers.enable([unit for unit, level in wanted.items() if level.precision == PRECISION])

    def _decoded(self, unit: str, level: Level) -> Tensor:
        """A weight from the cache or the database; the cache forgets what was used longest ago."""
        key = (unit, level)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        weight = torch.from_numpy(self._database.get(unit, level)[0])
        self._cache[key] = weight
        self._free_bytes -= weight.nbytes
        while self._free_bytes < 0:
            _, forgotten = self._cache.popitem(last=False)
            self._free_bytes += forgotten.nbytes
        return weight


def _parameter(model: nn.Module, module: str) -> nn.Parameter:
    try:
        return model.get_submodule(module).get_parameter("weight")
    except AttributeError as error:
        raise ArtifactError(
            f"The database has unit {module}, which the network has not. Give its own network"
        ) from error

"""The families that there are, and what a choice of them makes of a network's units and levels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

from calibration.statistics import LayerStatistics
from pipeline.compression.database import UnitPlan
from pipeline.compression.hessians import Matrix
from pipeline.exporting.graph import ExportedGraph
from pipeline.families.base import Family, Methods
from pipeline.families.channel import Channel
from pipeline.families.int8 import PRECISION, Ranges, quantise, rounded
from pipeline.families.unstructured import Unstructured
from pipeline.models.base import Block, Unit
from targets.levels import DENSE, Level

FAMILIES: dict[str, Family] = {family.name: family for family in (Unstructured(), Channel())}


def units_of(layers: Sequence[Unit], blocks: Sequence[Block], families: Sequence[str]) -> list[Unit]:
    """What is compressed on its own: the layers, those of a block as one unit where widths may shrink.

    A block with a layer that stays dense is left alone. Layers that keep all their weights may still be in int8.

    Args:
        layers: in execution order.
        blocks: of the same network.
        families: that may be used.
    """
    by_name = {layer.name: layer for layer in layers}
    leading: dict[str, Unit] = {}
    for block in blocks if "channel" in families else ():
        parts = sorted((by_name[name] for name in block.layers), key=layers.index)
        if all(part.prunable for part in parts):
            leading |= dict.fromkeys((part.name for part in parts), _block_unit(block, tuple(parts)))
    units = dict.fromkeys(leading.get(layer.name, layer) for layer in layers)
    return [replace(unit, prunable=unit.prunable or PRECISION in families) for unit in units]


def _block_unit(block: Block, parts: tuple[Unit, ...]) -> Unit:
    group = " + ".join(part.latency_group for part in parts)
    macs = sum(part.macs for part in parts)
    names = tuple(part.name for part in parts)
    return Unit(block.name, "block", names, parts[0].shape, group, True, macs, block.cuts, parts)


def levels_of(unit: Unit, families: Sequence[str], count: int) -> tuple[Level, ...]:
    """Every level of one unit, dense first; each precision right after the same level in fp32."""
    levels = (DENSE, *(level for name in families if name in FAMILIES for level in FAMILIES[name].levels(unit, count)))
    precisions = ("fp32", PRECISION) if PRECISION in families else ("fp32",)
    return tuple(replace(level, precision=precision) for level in levels for precision in precisions)


def has_family(unit: Unit, family: str) -> bool:
    """Whether a family knows what to do with a unit."""
    return family in FAMILIES and bool(FAMILIES[family].levels(unit, 2))


def all_levels(units: Sequence[Unit], families: Sequence[str], count: int) -> tuple[Level, ...]:
    """The levels of all units together, dense first, then by the share of the work that they leave."""
    found = {level for unit in units for level in levels_of(unit, families, count)}
    return tuple(sorted(found, key=lambda level: (level.amount, level.key)))


def layer_levels(units: Sequence[Unit], plan: Mapping[str, Level]) -> dict[str, Level]:
    """Layer → level of a plan of units; units that the plan does not name are dense."""
    asked = [(unit, layer.name, plan.get(unit.name, DENSE)) for unit in units for layer in unit.layers]
    return {layer: _layer_level(unit, layer, level) for unit, layer, level in asked}


def _layer_level(unit: Unit, layer: str, level: Level) -> Level:
    return level if level.family == "dense" else FAMILIES[level.family].layer_level(unit, layer, level)


def int8_layers(units: Sequence[Unit], plan: Mapping[str, Level]) -> list[str]:
    """Layers that a plan of units computes in int8."""
    return [layer for layer, level in layer_levels(units, plan).items() if level.precision == PRECISION]


def structured_layers(units: Sequence[Unit], plan: Mapping[str, Level]) -> list[str]:
    """Layers that a plan of units takes whole columns from."""
    levels = layer_levels(units, plan).items()
    return [layer for layer, level in levels if level.amount > 0 and FAMILIES[level.family].is_structured]


def layer_plans(
    units: Sequence[Unit],
    levels: Mapping[str, Sequence[Level]],
    methods: Methods,
) -> dict[str, UnitPlan]:
    """What the database is to hold for every layer.

    Args:
        units: to compress.
        levels: unit → its levels, dense first.
        methods: that make them.
    """
    plans = {}
    for unit in units:
        for layer in unit.layers:
            own = tuple(dict.fromkeys(_layer_level(unit, layer.name, level) for level in levels[unit.name]))
            plans[layer.name] = UnitPlan(own, partial(_compress, unit, layer, own, methods), methods.names)
    return plans


def _compress(
    unit: Unit,
    layer: Unit,
    levels: Sequence[Level],
    methods: Methods,
    statistics: LayerStatistics,
    dense: Matrix,
) -> Iterator[Matrix]:
    """A layer's weights [rows, d] at every level but dense in fp32, family by family, in the order of the levels."""
    for name, group in groupby(levels, key=lambda level: level.family):
        wanted = list(group)
        plain = list(dict.fromkeys(replace(level, precision="fp32") for level in wanted))
        found = (
            FAMILIES[name].compress(unit, layer, statistics, dense, plain, methods)
            if name != "dense"
            else iter([dense])
        )
        for level, weight in zip(plain, found, strict=True):
            for own in wanted:
                if own.amount == level.amount and own != DENSE:
                    yield weight if own.precision == "fp32" else rounded(weight, methods.largest_weight)


def finish(
    graph: ExportedGraph, units: Sequence[Unit], plan: Mapping[str, Level], ranges: Ranges | None = None
) -> None:
    """Make a plan's levels real in an exported graph whose weights have the plan's zeros, in place.

    Args:
        ranges: of the layers that the plan computes in int8.
    """
    for unit in units:
        level = plan.get(unit.name, DENSE)
        if level.family != "dense":
            FAMILIES[level.family].finish(graph, unit, level)
    layers = int8_layers(units, plan)
    if layers:
        if ranges is None:
            raise ValueError(f"int8 needs the ranges of {', '.join(layers)}")
        quantise(graph, layers, ranges)

"""Many models against one reference: several take turns with it, and what was disturbed is measured once more."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from profilers.measure import Bench, Candidate, Effort, Measurement
from profilers.statistics import undisturbed_rounds

MOST_TOGETHER = 4
TOGETHER_BYTES = 2**30
"""Models that take turns with one compilation of the reference, and what their files may have together."""
RETRIES = 1


def measure_together(
    bench: Bench,
    reference: Candidate,
    candidates: Mapping[str, Candidate],
    keep: Callable[[str, Measurement], None],
    *,
    seed: int,
    effort: Effort,
) -> None:
    """Measure models by name in turns with the reference, in one worker process or, with retries, two.

    Those that were disturbed are measured once more. So are, alone, those that failed together: one of them may have
    been the reason.

    Args:
        keep: told of every measurement as it comes, and again when a better one takes its place.

    Raises:
        RuntimeMissingError: the reference itself cannot be measured.
        UnreachableError: the device went away.
    """
    found: dict[str, Measurement] = {}
    left = list(candidates)
    most = max(1, min(MOST_TOGETHER, TOGETHER_BYTES // reference.path.stat().st_size))
    for attempt in range(1 + RETRIES):
        groups = [left[start : start + most] for start in range(0, len(left), most)]
        unheard = iter(groups)

        def hear(measured: list[Measurement], unheard: Iterator[list[str]] = unheard) -> None:
            for name, result in zip(next(unheard), measured, strict=True):
                if name not in found or _is_better(bench, result, found[name]):
                    found[name] = result
                    if not result.error or len(measured) == 1:  # the others may have failed through one of them
                        keep(name, result)

        files = [[candidates[name] for name in names] for names in groups]
        longer = replace(effort, timeout_s=effort.timeout_s * (1 + most) / 2)  # it is meant for two models
        bench.measure(reference, files, seed=seed + 1000 * attempt, effort=longer, on_group=hear)
        failed = [name for names in groups if len(names) > 1 for name in names if found[name].error]
        disturbed = [name for name in left if _is_disturbed(bench, found[name])] if bench.nearest.is_rule else []
        most = 1 if failed else most
        left = failed + disturbed
        if not left:
            break


def _is_better(bench: Bench, measured: Measurement, earlier: Measurement) -> bool:
    return earlier.error is not None or _quiet_rounds(bench, measured) > _quiet_rounds(bench, earlier)


def _is_disturbed(bench: Bench, measured: Measurement) -> bool:
    return 2 * _quiet_rounds(bench, measured) < len(measured.samples_s)  # never a failed one


def _quiet_rounds(bench: Bench, measured: Measurement) -> int:
    (keep,) = undisturbed_rounds([measured], bench.nearest.seconds)
    return int(keep.sum())

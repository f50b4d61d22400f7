"""What the runtimes of a run gain: known from an earlier run on the same host, or probed now."""

from pipeline.context import Run
from pipeline.planning.promises import promised
from pipeline.probe_store import ProbeStore
from profilers.probe import Capability, probe
from targets.homes import cache_home
from targets.registry import RuntimeInfo


def probe_runtimes(run: Run) -> Capability:
    """What every candidate gains; those that are not known are probed, and kept for later runs."""
    store = _store(run)
    known = {info.name: kept for info in run.candidates if (kept := store.find(info))}
    unknown = [info for info in run.candidates if info.name not in known]
    if known:
        oldest_h = max(age_s for _, age_s in known.values()) / 3600
        when = f"{oldest_h:.0f} h ago" if oldest_h >= 1 else f"{60 * oldest_h:.0f} min ago"
        run.reporter.say(f"{', '.join(known)} probed here {when}; `pipeline probe --again` does it anew")
    capabilities = {name: found for name, (found, _) in known.items()}
    with run.reporter.task("probing", len(unknown)) as task:
        for number, info in enumerate(unknown):
            task.update(number, info.name)
            (found,) = probe([info], run.target, run.host.id, seed=run.config.seed).runtimes
            store.keep(info, found)
            capabilities[info.name] = found
    return Capability(run.host.id, run.target.to_json(), tuple(capabilities[info.name] for info in run.candidates))


def other_runtimes(run: Run) -> list[str]:
    """The other installed runtimes with what they gain, as far as it is known, else their families."""
    store = _store(run)

    def gains(info: RuntimeInfo) -> str:
        kept = store.find(info)
        return f"{promised(kept[0])} in the probe" if kept else ", ".join(info.families)

    installed = run.target.device.runtimes()
    return [f"{info.name} ({gains(info)})" for info in installed if info != run.runtime and info.families]


def forget_probes(run: Run) -> None:
    """Have the candidates of a run probed again."""
    for info in run.candidates:
        _store(run).forget(info)


def _store(run: Run) -> ProbeStore:
    return ProbeStore(cache_home() / "probes", run.host.id, run.target)

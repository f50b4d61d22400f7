"""The pipeline's arrows, one function each, in the order in which data flows through them.

Every stage reads what earlier ones wrote into the run folder and writes its own file there; pipeline/execution.py runs
them.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from calibration.calibration_set import labels_digest
from calibration.statistics import collect_statistics
from pipeline.backends.workers import compute_here
from pipeline.certification.baseline import set_goal
from pipeline.certification.certifying import certify_network
from pipeline.certification.hidden_costs import slow_kernels
from pipeline.comparison.comparing import compare_with_baselines
from pipeline.comparison.nncf_int8 import nncf_version
from pipeline.compression.adaprune import NAME as ADAPRUNE
from pipeline.compression.adaprune import adaprune_plans
from pipeline.compression.database import Database, build_database
from pipeline.context import Run
from pipeline.exporting.export import assert_zeros_survive, export_onnx, export_openvino_ir, finish_file
from pipeline.exporting.parity import ROUNDING, ROUNDING_TO_INT8, check_exports, write_golden
from pipeline.families.channel import COLUMNS_A_BATCH
from pipeline.families.registry import int8_layers, layer_plans
from pipeline.planning.carrying import take_table
from pipeline.planning.closed_loop import unreachable
from pipeline.planning.find_plan import CORRECTED_TABLE, PLAN, find_plan
from pipeline.planning.first_look import first_look
from pipeline.planning.floors import is_too_low
from pipeline.planning.gains import require_fitting_methods, require_gain, require_levels, require_sense
from pipeline.planning.measuring import PlanBench
from pipeline.planning.plan import load_plan
from pipeline.probing import other_runtimes, probe_runtimes
from pipeline.provenance.model_card import write_model_card
from pipeline.provenance.record import provenance
from pipeline.provenance.sbom import write_sbom
from pipeline.provenance.signing import fingerprint, load_private_key, read_signature, sign_bundle
from pipeline.provenance.variables import SIGNING_KEY_VARIABLE
from pipeline.releases.bundle import check_bundle, write_bundle
from pipeline.run_folder import digest, file_digest, read_json, write_json
from pipeline.search.budget_dp import solve_budget
from pipeline.search.error_models import quadratic
from pipeline.serving.describe import describe_serving
from pipeline.serving.record import CLASSIFICATIONS
from pipeline.serving.record import NAME as SERVING
from pipeline.training.corrections import Corrections
from pipeline.training.recovery import CHECKPOINT, CORRECTED, CORRECTION, TRAINING, finish_network, in_int8
from pipeline.verifying.sample import SAMPLE, write_sample
from profilers.latency_table import Choice, LatencyTable
from profilers.machine import peak_rss_bytes
from profilers.probe import Capability
from profilers.profile import PlanCounts, enough_plans, fastest_known, profile
from reports.records import EnvelopeFile
from reports.write import write_reports
from targets.errors import ArtifactError
from targets.files import write_atomically

LOOK_S = 20.0
"""Seconds on the target's runtime that a first score of the dense network may take; torch takes some times as long."""
FEW_HELD_OUT = 100


def probe_stage(run: Run) -> None:
    """Runtimes → capability.json, and the runtime that the run will use."""
    path = run.folder.file("capability.json")
    key = digest("probe", run.host.id, run.target.to_json(), [(i.name, i.version) for i in run.candidates])
    run.folder.stage("probe", key, [path.name], lambda: probe_runtimes(run).save(path))
    run.choose_runtime(Capability.load(path))


def profile_stage(run: Run) -> None:
    """Measured plans → latency_table.json.

    Raises:
        SpeedupError: the request is out of reach, or the runtime gains nothing from zeros.
    """
    path = run.folder.file("latency_table.json")
    require_fitting_methods(run)
    set_goal(run)
    if run.config.latency_table:
        take_table(run, run.config.latency_table, path)
        return
    require_gain(run)
    require_levels(run)
    counts = PlanCounts.of(run.config.plans or enough_plans(run.table_units))

    def work() -> None:
        warn_of_slow_kernels(run)
        if run.only_unstructured and (known := first_look(run)) is not None:  # narrower layers gain nearly everywhere
            known.save(path)
            raise unreachable(known, run.goal, other_runtimes(run))
        bench = PlanBench(run)
        with run.reporter.task("measuring plans", counts.total) as task:
            table = profile(
                run.table_units,
                run.levels,
                bench.dense_s(),
                bench.plans(task.update),
                propose,
                speedup=run.goal,
                seed=run.config.seed,
                host_id=run.host.id,
                target=run.bench.target.to_json(),
                counts=counts,
            )
        require_sense(table, run.goal)
        table.save(path)

    key = digest("profile", run.host_key, run.model_key, run.units_key, run.goal, run.config.seed, counts.total)
    run.folder.stage("profile", key, [path.name], work)
    table = LatencyTable.load(path)
    run.reporter.say(
        f"dense {table.dense_s * 1e3:.2f} ms, of which {table.fixed_s * 1e3:.2f} ms fixed; table fits unseen plans "
        f"within {table.fit_error.median:.1%} (median of {table.fit_error.n})"
    )
    if fastest_known(table) < run.goal:
        raise unreachable(table, run.goal, other_runtimes(run))


def warn_of_slow_kernels(run: Run) -> None:
    """Say which operations of the network the runtime has no fast kernels for, where there are more than a few."""
    if said := slow_kernels(run.bench.runtime.name, *run.bench.kernel_support(run.dense_candidate)):
        run.reporter.warn(said)


def propose(table: LatencyTable, budget_s: float, rng: np.random.Generator) -> Choice:
    """What a search with random sensitivities would ask for."""
    rows = [costs if unit.prunable else costs[:1] for costs, unit in zip(table.costs(), table.units, strict=True)]
    errors = [rng.uniform() * row for row in quadratic(rows)]
    return tuple(int(level) for level in solve_budget(errors, rows, budget_s - table.fixed_s).choice)


def calibrate_stage(run: Run) -> None:
    """Data → calibration.json."""
    path = run.folder.file("calibration.json")

    def work() -> None:
        _look_at_dense(run)
        write_json(path, run.calibration.to_json())

    key = digest("calibrate", run.calibration.sha256, run.held_out_key)
    run.folder.stage("calibrate", key, [path.name], work)
    run.reporter.say(f"{len(run.calibration.indices)} calibration samples of {len(run.splits.train)}")


def _look_at_dense(run: Run) -> None:
    """The dense network's score, unless it takes long: data or classes that do not fit show before the work is done."""
    table, count = run.folder.file("latency_table.json"), len(run.splits.test)
    if not table.exists() or LatencyTable.load(table).dense_s * count / run.target.batch_size > LOOK_S:
        return
    run.reporter.say(f"dense network: {run.adapter.metric} {run.dense_accuracy:.2%} on {count} held-out samples")
    if count < FEW_HELD_OUT:
        run.reporter.warn(
            f"{count} held-out samples tell an accuracy to about ±{98 / count**0.5:.0f} points: give more"
        )


def database_stage(run: Run) -> None:
    """Statistics and levels → database/."""
    folder, config = run.folder.file("database"), run.config
    layers = [layer for unit in run.units if unit.prunable for layer in unit.layers]

    def work() -> None:
        inputs = run.calibration_samples.batches(run.adapter.recipe.statistics_batch)
        model, plans = run.copy_of_dense(), None
        if config.solver == ADAPRUNE:
            plans = adaprune_plans(layers, run.levels, model, inputs)
        elif not run.only_unstructured:
            plans = layer_plans(run.units, {unit.name: run.levels_of(unit) for unit in run.units}, run.methods)
        with run.reporter.task("reconstructing", len(layers)) as task:
            build_database(
                layers,
                model.state_dict(),
                collect_statistics(
                    model,
                    [layer.name for layer in layers],
                    inputs,
                    columns_a_batch=COLUMNS_A_BATCH.get(config.channel_criterion, 0),
                ),
                run.levels,
                folder,
                criterion=config.criterion,
                solver=config.solver,
                progress=lambda done, total, name: task.update(done, name, total),
                plans=plans,
                compute=compute_here if config.solver == ADAPRUNE else run.workers.compute,  # it runs the network
            )

    if folder.exists() and not _is_whole(folder):
        run.reporter.warn(f"{folder} was altered or is incomplete: what is broken is made again")
        run.folder.forget("database")
    run.folder.stage("database", run.database_key, [folder.name], work)
    kept = sum(path.stat().st_size for path in folder.iterdir())
    memory = f"at most {peak_rss_bytes() / 1e9:.2f} GB of memory"
    run.reporter.say(f"{len(layers)} layers, {kept / 1e6:.1f} MB on disk; {memory}")


def _is_whole(folder: Path) -> bool:
    try:
        Database(folder)
    except ArtifactError:
        return False
    return True


def search_stage(run: Run) -> None:
    """Tables, database and the requested speedup → plan.json, in the closed loop of solving, measuring, correcting."""
    config = run.config
    aim = run.aims.current
    key = digest("search", run.database_key, run.table_key(), aim, config.allocator, config.evaluations, config.seed)
    run.folder.stage("search", key, [PLAN, CORRECTED_TABLE], lambda: find_plan(run, aim))
    _, record = load_plan(run.folder.file(PLAN), run.units)
    search = record["search"]
    run.reporter.say(
        f"plan by {record['allocator']} predicted {record['predicted_speedup']:.2f}x, measured "
        f"{record['measured_speedup']:.2f}x in {len(record['rounds'])} rounds, {search['evaluations']} evaluations, "
        f"{search['effort']['plans_a_second']:.1f} a second"
    )


def prune_stage(run: Run) -> None:
    """Plan and data → corrected.safetensors, and as checkpoint.safetensors that or, if better, the trained network."""
    config, folder = run.config, run.folder
    plan, record = load_plan(folder.file("plan.json"), run.units)
    corrections, choice = Corrections(run), tuple(record["choice"])
    corrected = corrections.key(choice)
    folder.stage("correct", corrected, [CORRECTED, CORRECTION], lambda: corrections.take(choice))
    done = "corrected" if config.correction_passes else "stitched, batch norm re-estimated"
    run.reporter.say(f"{done}: {run.adapter.metric} {corrections.record(choice)['accuracy']:.2%}")
    trained = [TRAINING] if config.epochs else []
    data = labels_digest(run.splits.train) if config.epochs else ""
    key = digest("prune", corrected, config.epochs, config.seed, data)
    folder.stage("prune", key, [CHECKPOINT, *trained], lambda: finish_network(run, plan))


def export_stage(run: Run) -> None:
    """Checkpoint → model.onnx, OpenVINO IR, golden.safetensors, parity.json."""
    model_path, ir_path = run.folder.file("model.onnx"), run.folder.file("openvino/model.xml")
    checkpoint = run.folder.file(CHECKPOINT)

    def work() -> None:
        model = run.network(checkpoint)
        plan, _ = load_plan(run.folder.file("plan.json"), run.units)
        record = export_onnx(run.adapter.deployed(model), run.example, model_path)
        zeros = assert_zeros_survive(model_path, [layer for unit in run.units for layer in unit.layers], model)
        record = finish_file(model_path, record, run.units, plan, run.ranges)
        in_int8(run, model, plan)
        export_openvino_ir(model_path, ir_path)
        tolerance = ROUNDING_TO_INT8 if int8_layers(run.units, plan) else ROUNDING
        parities = check_exports(run, model, model_path, ir_path, tolerance)
        write_golden(run, model_path, run.folder.file("golden.safetensors"))
        data = {"export": asdict(record), "zeros": zeros, "parity": [asdict(parity) for parity in parities]}
        write_json(run.folder.file("parity.json"), {"schema": 1, **data})

    outputs = ["model.onnx", "openvino/model.xml", "openvino/model.bin", "golden.safetensors", "parity.json"]
    run.folder.stage("export", digest("export", file_digest(checkpoint), run.host_key), outputs, work)
    for parity in read_json(run.folder.file("parity.json"))["parity"]:
        same = f", same classes {parity['top1_agreement']:.2%}" if run.adapter.task in CLASSIFICATIONS else ""
        run.reporter.say(f"{parity['runtime']}: within {parity['max_rel']:.1e} of torch{same}")


def certify_stage(run: Run) -> bool:
    """Exported files → certificate.json; whether it is a new one."""
    path = run.folder.file("certificate.json")
    files = [file_digest(network) for network in (run.folder.file("model.onnx"), run.dense_onnx)]
    ahead = [] if run.target.precedence is None else [f"precedence {run.target.precedence}"]
    how = (run.config.certify_budget, run.config.certify_spread, *ahead)
    key = digest("certify", run.host_key, run.held_out_key, files, run.goal, *how)
    return run.folder.stage("certify", key, [path.name], lambda: certify_network(run, key).save(path))


def compare_stage(run: Run) -> None:
    """Plan → comparison.json: what plain plans at the same measured latency would give."""
    if not run.config.compare:
        return
    path = run.folder.file("comparison.json")
    corrected = file_digest(run.folder.file(CORRECTED))
    passes = (run.config.correction_passes, run.config.correction_budget)  # of the plain plans
    key = digest("compare", run.host_key, run.held_out_key, corrected, run.table_key(), passes, nncf_version())
    run.folder.stage("compare", key, [path.name], lambda: write_json(path, compare_with_baselines(run)))


def report_stage(run: Run) -> None:
    """Everything → report.html, report.md, report.json, and the bundle, signed where a key is configured."""
    folder, bundle = run.folder, run.folder.file("bundle")
    if bundle.exists():
        check_bundle(bundle)
    certificate = read_json(folder.file("certificate.json"))
    names = ["model.onnx", "dense.onnx", "openvino/model.xml", "openvino/model.bin", "plan.json", "certificate.json"]
    names += ["golden.safetensors", "parity.json", "report.html", "report.md", "report.json", SERVING]
    names += [*run.splits.bundled, *([SAMPLE] if run.config.ship_sample else [])]
    serving = describe_serving(run).to_json()

    def work() -> None:
        write_json(folder.file(SERVING), serving)
        for name, content in run.splits.bundled.items():
            write_atomically(folder.file(name), content.encode())
        if run.config.ship_sample:
            _write_sample(run, folder.file(SAMPLE))
        for name in ENVELOPE:  # of the bundle that is about to be replaced
            if folder.file(name).exists():
                folder.file(name).replace(folder.file(f"earlier-{name}"))
        write_reports(folder.path, folder.path)
        origin = provenance(run)
        write_sbom(folder.file("sbom.cdx.json"), folder.file("model.onnx"), certificate, origin)
        write_model_card(folder.file("model_card.md"), certificate, origin)
        details = {key: certificate[key] for key in ("status", "proxy", "versions", "licence_note")}
        files = {name: folder.file(name) for name in (*names, "sbom.cdx.json")}
        write_bundle(bundle, files | {"README.md": folder.file("model_card.md")}, details | {"provenance": origin})

    inputs = [*names[:8], "comparison.json", "correction.json", "training.json", "latency_table_corrected.json"]
    key = digest(
        "report",
        serving,
        dict(run.splits.bundled),
        run.config.ship_sample,
        [file_digest(folder.file(name)) for name in inputs if folder.file(name).exists()],
    )
    folder.stage("report", key, ["report.html", "bundle/manifest.json", "bundle/sbom.cdx.json"], work)
    accuracy = certificate["accuracy"]
    if not is_too_low(run.config, accuracy["compressed"], accuracy["dense"]):  # a signature says: this may ship
        _sign(run, bundle)


def _write_sample(run: Run, path: Path) -> None:
    """Held-out samples and what is right of them."""
    test = run.splits.test
    rows = test.draw(run.config.ship_sample, np.random.default_rng(run.config.seed))
    write_sample(path, run.adapter.feeds(test.inputs(rows)), test.truth(rows))


def _sign(run: Run, bundle: Path) -> None:
    """Sign with the key that the environment names, unless that key has signed already."""
    name = os.environ.get(SIGNING_KEY_VARIABLE)
    if not name:
        return
    key, found = load_private_key(Path(name)), read_signature(bundle)
    if found is None or found.fingerprint != fingerprint(key.public_key()):
        run.reporter.say(f"signed by {sign_bundle(bundle, key).fingerprint}")


ENVELOPE = (EnvelopeFile.FILE, str(Path(EnvelopeFile.FILE).with_suffix(".html")))
"""Where `pipeline envelope` puts what it measured of a run's bundle."""

STAGES: dict[str, Callable[[Run], bool | None]] = {
    "probe": probe_stage,
    "profile": profile_stage,
    "calibrate": calibrate_stage,
    "database": database_stage,
    "search": search_stage,
    "prune": prune_stage,
    "export": export_stage,
    "certify": certify_stage,
    "compare": compare_stage,
    "report": report_stage,
}

"""What the networks cost where they are deployed alone, and what made them slower than they could be."""

from reports.document import NOT_MEASURED, Column, Section, Table
from reports.formatting import count, file_size, milliseconds, milliseconds_digits, significant
from reports.records import Certificate, DeploymentFacts, Run
from reports.sections.tables import absent, table

MODELS = (("Baseline (dense)", "dense"), ("Compressed", "compressed"))


def deployment_section(run: Run) -> Section:
    """Percentiles, loading, memory and energy of both networks, disturbances and hidden costs."""
    certificate = run.certificate
    found = [(label, facts) for label, key in MODELS if (facts := certificate.deployment.get(key))]
    text, parts = [], []
    if found:
        text.append(
            "Each network in fresh processes of its own, as it will be deployed. Ratios of these figures say less than "
            "the speedup, which comes from runs taken in turns."
        )
        parts.append(_table(found))
        if all(facts.energy_j is None for _, facts in found):
            text.append(f"Energy: {NOT_MEASURED} (this machine has no counter of it that may be read).")
    else:
        text.append(absent("What each network costs by itself", certificate.FILE, run.absent))
    text += _said_of_costs(run)
    costs = _costs(certificate)
    return Section("deployment", "Deployment", tuple(text), (*parts, *((costs,) if costs.rows else ())))


def _table(found: list[tuple[str, DeploymentFacts]]) -> Table:
    digits = milliseconds_digits([facts.p50_s for _, facts in found])
    return table(
        "In a process of its own",
        found,
        (
            (Column("Model", numeric=False), lambda row: row[0]),
            (Column("p50", "ms"), lambda row: milliseconds(row[1].p50_s, digits)),
            (Column("p90", "ms"), lambda row: milliseconds(row[1].p90_s, digits)),
            (Column("p99", "ms"), lambda row: milliseconds(row[1].p99_s, digits)),
            (Column("First run", "ms"), lambda row: milliseconds(row[1].first_inference_s)),
            (Column("Loading", "ms"), lambda row: milliseconds(row[1].compile_s)),
            (Column("Peak memory"), lambda row: file_size(row[1].peak_rss_bytes)),
            (Column("Energy a run", "mJ"), lambda row: _millijoules(row[1].energy_j)),
            (Column("Runs"), lambda row: count(row[1].samples)),
        ),
    )


def _millijoules(energy_j: float | None) -> str:
    return NOT_MEASURED if energy_j is None else significant(1000 * energy_j)


def _said_of_costs(run: Run) -> list[str]:
    """That nothing was found, or that nobody looked."""
    certificate, said = run.certificate, []
    if certificate.disturbances is None:
        said.append(absent("Disturbances of the machine", certificate.FILE, run.absent))
    elif not certificate.disturbances:
        said.append("Nothing is known to have disturbed the machine.")
    if certificate.hidden_costs is None:
        said.append(absent("Hidden costs", certificate.FILE, run.absent))
    elif not certificate.hidden_costs:
        said.append("No hidden costs were found in the compressed network.")
    return said


def _costs(certificate: Certificate) -> Table:
    rows = [("Disturbance", text) for text in certificate.disturbances or ()]
    rows += [(f"Hidden cost: {name}", text) for name, text in (certificate.hidden_costs or {}).items()]
    return Table(
        "What makes it slower", (Column("Kind", numeric=False), Column("What was found", numeric=False)), tuple(rows)
    )

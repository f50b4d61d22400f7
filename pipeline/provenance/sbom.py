"""The bill of materials: a CycloneDX file with the model, what it was made from, and the packages that made it."""

from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.provenance.facts import certificate_facts
from pipeline.run_folder import file_digest
from targets.files import write_atomically

PROJECT = "spdy-edge"


def write_sbom(path: Path, model: Path, certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Write the bill of materials of a model.

    Args:
        path: JSON of CycloneDX 1.6.
        model: the file that ships.
        origin: what `pipeline.provenance.record.provenance` found.
    """
    compressed, data = _model(file_digest(model), certificate, origin), _data(origin["data"])
    packages = list(_packages(certificate["versions"]))
    own = next(package for package in packages if package.name == PROJECT)
    bom = Bom(metadata=BomMetaData(component=compressed), components=[data, *packages])
    bom.register_dependency(compressed, [data, own])
    bom.register_dependency(own, [package for package in packages if package is not own])
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    write_atomically(path, text.encode())


def _model(sha256: str, certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> Component:
    given = origin["weights"]["given"]  # of which a name on a hub has no hash
    dense = Component(
        name=f"{origin['model']} (dense)",
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model-dense",
        hashes=[_sha256(given["sha256"])] if given and given["sha256"] else [],
        properties=[Property(name=f"{PROJECT}:weights_sha256", value=origin["weights"]["dense_sha256"])],
    )
    facts = certificate_facts(certificate) | {
        "configuration_sha256": origin["configuration"]["sha256"],
        "code_sha256": origin["code"]["sha256"],
    }
    return Component(
        name=origin["model"],
        version=sha256[:12],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        description=f"{origin['task']}, pruned until it was measured to be faster on a CPU",
        hashes=[_sha256(sha256)],
        pedigree=Pedigree(ancestors=[dense], notes="pruned by spdy-edge; see plan.json and certificate.json"),
        properties=[Property(name=f"{PROJECT}:{name}", value=value) for name, value in facts.items()],
    )


def _data(data: Mapping[str, Any]) -> Component:
    return Component(
        name=data["name"],
        type=ComponentType.DATA,
        bom_ref="data",
        description=f"{data['calibration_samples']} training samples that calibrate; the hash is over their contents",
        hashes=[_sha256(data["calibration_sha256"])],
    )


def _packages(versions: Mapping[str, str]) -> Iterator[Component]:
    """What is installed and needed by the project, Python, and runtimes that have an environment of their own."""
    here = dict(_needed(PROJECT, "compress"))  # the extra that makes bundles
    for name, version in {**versions, **{name: found.version for name, found in here.items()}}.items():
        is_python = name == "python"
        licence = _licence(here[name]) if name in here else None
        yield Component(
            name=name,
            version=version,
            type=ComponentType.PLATFORM if is_python else ComponentType.LIBRARY,
            bom_ref=f"{name}@{version}",
            purl=PackageURL("generic" if is_python else "pypi", name=name, version=version),
            licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
        )


def _needed(project: str, extra: str) -> Iterator[tuple[str, metadata.Distribution]]:
    """The project with an extra and every distribution that it needs, near or far, as far as they are installed."""
    waiting: list[tuple[str, frozenset[str]]] = [(project, frozenset({extra}))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        yield name, found
        for requirement in map(Requirement, found.requires or []):
            if not requirement.marker or any(requirement.marker.evaluate({"extra": e}) for e in {"", *extras}):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))


def _licence(found: metadata.Distribution) -> str | None:
    """As the package states it in SPDX; older forms are free text."""
    return next(iter(found.metadata.get_all("License-Expression") or []), None)


def _sha256(content: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=content)

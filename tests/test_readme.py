"""What the README and the documents tell a user to type, open or expect is there."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from calibration.errors import DataError
from pipeline.certification.certificate import EXIT_CODES, Certificate
from pipeline.cli import INTERRUPTED, STAGES, cli
from pipeline.config import resolve
from pipeline.models.registry import get_adapter
from pipeline.releases.bundle import MANIFEST
from profilers.latency_table import LatencyTable
from reports.records import FILES
from targets.errors import ConfigError, UserError
from targets.target import load_target

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = sorted([README, ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
MADE_LATER = {ROOT / "docs" / "report.png"}
CODE = re.compile(r"^```\w*\n([\s\S]*?)^```|((?:^ {4,}\S.*\n)+)", re.MULTILINE)
"""Code between fences, or indented."""
INLINE = re.compile(r"`(pipeline\s[^`]+)`")


def commands() -> Iterator[tuple[str, str]]:
    """Every `pipeline …` command of the documents with where it stands: in code blocks and in running text."""
    for path in DOCUMENTS:
        text = path.read_text()
        blocks = "".join(match.group(1) or match.group(2) for match in CODE.finditer(text)).replace("\\\n", " ")
        lines = [line.strip() for line in blocks.splitlines() if line.strip().startswith("pipeline ")]
        for command in [*lines, *INLINE.findall(CODE.sub("", text))]:
            yield path.relative_to(ROOT).as_posix(), " ".join(command.split())


def parse(command: str) -> click.Context:
    """The context that click makes of a command: names, options and the types of values are checked, nothing runs.

    Placeholders in capitals may stand for arguments; what a shell would do with output is left out.
    """
    words = shlex.split(command.partition(" > ")[0])[1:]
    found: click.Command = cli
    names = []
    while isinstance(found, click.Group):
        name = words.pop(0)
        names.append(name)
        inner = found.get_command(click.Context(found), name)
        assert inner, f"no command {' '.join(names)}"
        if not words and isinstance(inner, click.Group):
            raise AssertionError(f"{' '.join(names)} needs a command behind it")
        found = inner
    if words == ["--help"]:
        words = []
    return found.make_context(names[-1], words)


@pytest.mark.parametrize(("where", "command"), sorted(set(commands())))
def test_every_command_can_be_typed(where: str, command: str) -> None:
    context = parse(command)
    if (given := context.params.get("target")) and not given.endswith(".toml"):
        load_target(given)
    if (given := context.params.get("model")) and not given.startswith("digits_net:"):  # that is test_your_model's
        get_adapter(given)
    if (speedup := context.params.get("speedup")) is not None:
        resolve({"speedup": speedup}, None, None)


def test_the_commands_are_found_and_wrong_ones_are_refused() -> None:
    found = {command for _, command in commands()}
    assert "pipeline run --target intel --speedup 3" in found
    assert any("--weights" in command and "--out" in command for command in found), "continued lines are joined"
    with pytest.raises(click.NoSuchOption):
        parse("pipeline run --sped 3")
    with pytest.raises(click.BadParameter):
        parse("pipeline run --speedup fast")
    with pytest.raises(AssertionError, match="no command fly"):
        parse("pipeline fly")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        file, _, anchor = link.partition("#")
        if "://" in file:
            continue
        target = (path.parent / file).resolve() if file else path
        assert target.exists() or target in MADE_LATER, f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


def anchors(path: Path) -> set[str]:
    """The headings of a document as links name them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [README]
    while waiting:
        path = waiting.pop()
        path = path / "README.md" if path.is_dir() else path
        if path not in DOCUMENTS or path in reached:
            continue
        reached.add(path)
        links = re.findall(r"\]\(([^)\s#]+)", path.read_text())
        waiting += [(path.parent / link).resolve() for link in links if "://" not in link]
    assert reached == set(DOCUMENTS)


def test_make_has_every_target_that_is_named_and_offers_help_for_it() -> None:
    named = {name for path in DOCUMENTS for name in re.findall(r"(?:^ {4}|`)make ([a-z-]+)", path.read_text(), re.M)}
    assert {"demo", "test", "setup"} <= named
    rules = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named <= set(rules)
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert set(phony.group(1).split()) == set(rules)


def test_the_exit_codes_are_those_of_the_errors() -> None:
    table = re.findall(r"^\| (\d+) \| .+ \|$", README.read_text(), re.MULTILINE)
    codes = {kind.exit_code for kind in [UserError, DataError, *UserError.__subclasses__()]}
    assert {int(code) for code in table} == {0, INTERRUPTED, *codes, *EXIT_CODES.values()}
    sections = re.findall(r"^## (\d+):", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert [code for code in table if code != "0"] == sections


def toml_blocks() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        for block in re.findall(r"^```toml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
            yield path.name, block


@pytest.mark.parametrize(("where", "block"), list(toml_blocks()))
def test_every_toml_example_is_accepted(where: str, block: str, tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_text(re.sub(r"^host = .*\n", "", block, flags=re.MULTILINE))  # there is no such box
    if block.startswith("# target:"):
        keys = set(tomllib.loads(block))
        assert load_target(path, threads=1).batch_size == tomllib.loads(block)["batch_size"]
        path.write_text(path.read_text().replace("batch_size", "batchsize"))
        with pytest.raises(ConfigError, match="batch_size"):
            load_target(path, threads=1)
        documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "targets.md").read_text(), re.MULTILINE)
        assert keys <= set(documented)
    else:
        config = resolve({}, path, None)
        assert load_target(config.target)
        assert config.model
        assert get_adapter(config.model)


def test_the_run_folder_document_has_every_file_and_field() -> None:
    text = (ROOT / "docs" / "run-folder.md").read_text()
    for name in (*FILES, MANIFEST, *STAGES):
        assert name in text, name
    certificate, table = section(text, "certificate.json"), section(text, "latency_table.json, latency_")
    assert {f.name for f in fields(Certificate)} <= set(re.findall(r"`(\w+)`", certificate))
    assert {f.name for f in fields(LatencyTable)} <= set(re.findall(r"`(\w+)`", table))


def section(text: str, heading: str) -> str:
    """What stands below a heading that begins so."""
    return text.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]

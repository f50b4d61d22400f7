"""The gate passes what was asked for, stops the rest with the exit code of the worst, and writes it down."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.releases.gate import Limits, pass_gate
from pipeline.releases.gate_records import summary, write_junit
from pipeline.releases.verified import Verified
from pipeline.run_folder import file_digest
from pipeline.verifying.verify import STATUS
from targets.errors import ConfigError
from tests.command import pipeline
from tests.small_bundles import lost, small_bundle, speedup


def failed(path: Path) -> dict[str, str]:
    """Message of every failed test case of a JUnit file."""
    cases = ElementTree.parse(path).getroot().iter("testcase")
    return {case.attrib["name"]: case[0].attrib["message"] for case in cases if case[0].tag == "failure"}


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({}, 0),
        ({"min_speedup": 3.0, "max_drop": 1.0, "max_latency_ms": 0.61, "max_size_mb": 2.79}, 0),
        ({"min_speedup": 3.01}, 3),  # the measured 3.02 is more, the interval's lower end is not
        ({"max_latency_ms": 0.6}, 3),
        ({"max_drop": 0.99}, 4),
        ({"max_size_mb": 2.78}, 5),
        ({"max_size_mb": 2.78, "max_latency_ms": 0.6}, 3),
        ({"max_size_mb": 2.78, "max_latency_ms": 0.6, "max_drop": 0.99}, 4),
    ],
)
def test_limits_and_which_failure_decides(tmp_path: Path, limits: dict[str, float], code: int) -> None:
    assert pass_gate(small_bundle(tmp_path / "bundle"), Limits(**limits)).exit_code == code


@pytest.mark.parametrize(
    ("status", "limits", "code"),
    [
        ("missed", {}, 3),
        ("inconclusive", {}, 6),
        ("inconclusive", {"min_speedup": 9.0}, 6),
        ("missed", {"max_drop": 0}, 4),
    ],
)
def test_what_is_not_certified_does_not_pass(tmp_path: Path, status: str, limits: dict[str, float], code: int) -> None:
    verdict = pass_gate(small_bundle(tmp_path / "bundle", status=status), Limits(**limits))
    assert verdict.exit_code == code


def alter(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"another")


def remove_certificate(bundle: Path) -> None:
    (bundle / "certificate.json").unlink()


@pytest.mark.parametrize(("damage", "word"), [(alter, "model.onnx was changed"), (remove_certificate, "missing")])
def test_an_altered_bundle_fails_before_anything_is_believed(tmp_path: Path, damage: Any, word: str) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    damage(bundle)
    verdict = pass_gate(bundle, Limits(max_drop=0))
    assert [(check.name, check.status) for check in verdict.checks] == [("unaltered", "failed")]
    assert verdict.exit_code == 5
    write_junit(verdict, tmp_path / "gate.xml")
    assert word in failed(tmp_path / "gate.xml")["unaltered"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"schema": 2}, "newer version"),
        ({"schema": 2, "status": "splendid"}, "newer version"),
        ({"status": "splendid"}, "status"),
        ({"ci_low": float("nan")}, "ci_low"),
        ({"accuracy": {"compressed": None}}, "accuracy.compressed"),
    ],
)
def test_a_certificate_of_a_newer_version_or_another_kind(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    verdict = pass_gate(small_bundle(tmp_path / "bundle", **change), Limits())
    assert verdict.exit_code == 5
    assert word in verdict.checks[0].found


def test_a_bundle_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        pass_gate(tmp_path / "nowhere", Limits())
    with pytest.raises(ConfigError, match="nowhere"):
        pass_gate(small_bundle(tmp_path / "bundle"), Limits(), tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        (speedup(2.95, 2.98, 3.001), 0),  # the interval of the other reaches down to 3.0
        (speedup(2.95, 2.97, 2.999), 3),
        (speedup(3.1, 3.2, 3.3), 0),
        ({"accuracy": lost(1.3, 1.8, 2.3)}, 0),  # the other may have lost up to 1.4
        ({"accuracy": lost(1.5, 2.0, 2.5)}, 4),
        ({"accuracy": lost(1.5, 2.0, 2.5), **speedup(2, 2, 2)}, 4),
    ],
)
def test_against_another_only_intervals_that_part_fail(tmp_path: Path, change: dict[str, Any], code: int) -> None:
    other = small_bundle(tmp_path / "other")
    bundle = small_bundle(tmp_path / "bundle", **change)
    assert pass_gate(bundle, Limits(), other).exit_code == code


def test_against_a_release_of_another_host_the_speedup_is_skipped_and_said_so(tmp_path: Path) -> None:
    other = small_bundle(tmp_path / "other", host={"id": "0123", "model": "Intel Xeon"}, **speedup(8, 9, 10))
    verdict = pass_gate(small_bundle(tmp_path / "bundle"), Limits(), other)
    (check,) = (check for check in verdict.checks if check.name == "speedup against")
    assert (check.status, verdict.exit_code) == ("skipped", 0)
    assert "Intel Xeon" in check.found


def test_against_an_altered_release_nothing_passes(tmp_path: Path) -> None:
    other = small_bundle(tmp_path / "other")
    alter(other)
    verdict = pass_gate(small_bundle(tmp_path / "bundle"), Limits(), other)
    assert verdict.exit_code == 5
    assert "other" in verdict.checks[0].found


def record_of(bundle: Path, exit_code: int = 0, **changes: Any) -> dict[str, Any]:
    """What `pipeline verify` writes, as far as the gate reads it."""
    fields = {
        "schema": 1,
        "status": STATUS[exit_code],
        "exit_code": exit_code,
        "manifest_sha256": file_digest(bundle / "manifest.json"),
        "host": {"id": "0123", "model": "AMD EPYC", "vendor": "amd"},
        "speedup": {"requested_speedup": 3.0},
    }
    return fields | changes


def test_a_proxy_passes_once_it_was_verified_on_the_device(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle", proxy=True, target={"vendor": "amd"})
    alone = pass_gate(bundle, Limits())
    assert alone.exit_code == 6
    assert "--verified" in next(check.asked for check in alone.checks if check.name == "proxy")
    verified = pass_gate(bundle, Limits(), verified=Verified(**record_of(bundle)))
    assert verified.exit_code == 0
    assert "verified on AMD EPYC" in next(check.found for check in verified.checks if check.name == "proxy")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"manifest_sha256": "0" * 64}, "another bundle"),
        ({"exit_code": 3, "status": "missed"}, "missed"),
        ({"speedup": None}, "does not claim 3x"),
        ({"speedup": {"requested_speedup": 1.01}}, "does not claim 3x"),
        ({"host": {"id": "0123", "model": "Intel Xeon", "vendor": "intel"}}, "Intel Xeon"),
        ({"host": {"id": "4567", "model": "Another EPYC", "vendor": "amd"}}, "the latency table is of"),
    ],
)
def test_a_record_that_does_not_speak_for_a_proxy(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    bundle = small_bundle(tmp_path / "bundle", proxy=True, target={"vendor": "amd"}, table_host_id="0123")
    verdict = pass_gate(bundle, Limits(), verified=Verified(**record_of(bundle, **changes)))
    assert verdict.exit_code == 6
    assert word in next(check.found for check in verdict.checks if check.name == "proxy")


def test_the_command_reads_the_record_and_its_signature(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle", proxy=True, target={"vendor": "amd"})
    assert pipeline("keygen", "device.key", cwd=tmp_path).returncode == 0
    (tmp_path / "record.json").write_text(json.dumps(record_of(bundle)))
    passed = pipeline("gate", bundle, "--verified", "record.json", cwd=tmp_path)
    assert passed.returncode == 0, passed.stderr
    unsigned = pipeline("gate", bundle, "--verified", "record.json", "--public-key", "device.key.pub", cwd=tmp_path)
    assert unsigned.returncode == 5
    assert "is not signed by device.key.pub" in unsigned.stderr
    missing = pipeline("gate", bundle, "--verified", "nowhere.json", cwd=tmp_path)
    assert missing.returncode == 2
    assert "There is no record" in missing.stderr


def test_a_key_without_a_record_must_have_signed_the_bundle(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    for name in ("release.key", "other.key"):
        assert pipeline("keygen", name, cwd=tmp_path).returncode == 0
    unsigned = pipeline("gate", bundle, "--public-key", "release.key.pub", "--junit", "gate.xml", cwd=tmp_path)
    assert unsigned.returncode == 5
    assert "is not signed" in unsigned.stderr
    assert "failure" in (tmp_path / "gate.xml").read_text()
    assert pipeline("sign", bundle, "--key", "release.key", cwd=tmp_path).returncode == 0
    assert pipeline("gate", bundle, "--public-key", "release.key.pub", cwd=tmp_path).returncode == 0
    assert pipeline("gate", bundle, "--public-key", "other.key.pub", cwd=tmp_path).returncode == 5


def test_the_records_hold_every_check_whatever_the_names_are(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "a|<b>\x07&", proxy=True, host={"id": "0", "model": "A | <b> `c`"})
    other = small_bundle(tmp_path / "other")
    verdict = pass_gate(bundle, Limits(min_speedup=4), other)
    write_junit(verdict, tmp_path / "sub" / "gate.xml")
    suite = ElementTree.parse(tmp_path / "sub" / "gate.xml").getroot()[0]
    assert {key: suite.attrib[key] for key in ("tests", "failures", "skipped")} == {
        "tests": str(len(verdict.checks)),
        "failures": "2",
        "skipped": "1",
    }
    assert list(failed(tmp_path / "sub" / "gate.xml")) == ["proxy", "speedup"]
    text = summary(verdict)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(verdict.checks)
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)
    assert "Proxy" in text
    assert "<b>" not in text


def test_the_command_prints_one_object_and_appends_to_the_jobs_page(tmp_path: Path) -> None:
    small_bundle(tmp_path / "bundle")
    page = tmp_path / "summary.md"
    page.write_text("# Before\n")
    result = pipeline(
        *("gate", "bundle", "--min-speedup", 3.01, "--junit", "gate.xml", "--json"),
        cwd=tmp_path,
        environment={"GITHUB_STEP_SUMMARY": str(page)},
    )
    assert result.returncode == 3, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["exit_code"]) == ("failed", 3)
    assert answer["certificate"]["measured_speedup"] == 3.02
    assert list(failed(tmp_path / "gate.xml")) == ["speedup"]
    assert page.read_text().startswith("# Before\n")
    assert "Gate failed" in page.read_text()


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "much"])
def test_a_limit_that_is_none(tmp_path: Path, value: str) -> None:
    result = pipeline("gate", tmp_path, "--min-speedup", value, cwd=tmp_path)
    assert result.returncode == 2
    assert "--min-speedup" in result.stderr

"""What changed between releases, and that chance alone is not called a change."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from pipeline.certification.accuracy import Score, accuracy_record
from pipeline.releases.release import Accuracy, read_release
from pipeline.releases.release_changes import Changes, accuracy_interval, compare, judge
from targets.errors import ConfigError
from tests.command import pipeline
from tests.small_bundles import certificate, lost, small_bundle, speedup


def changes(folder: Path, before: dict[str, Any], after: dict[str, Any]) -> Changes:
    paths = (small_bundle(folder / "before", **before), small_bundle(folder / "after", **after))
    return compare(*map(read_release, paths))


def scored(rights: NDArray[np.bool_]) -> Accuracy:
    score = Score("top-1 accuracy", float(rights.mean()), rights.astype(float))
    return Accuracy(**accuracy_record(score, score))


def test_an_accuracy_for_itself_has_a_binomial_interval() -> None:
    interval = accuracy_interval(scored(np.arange(400) < 360), paired=False)
    expected = scipy.stats.binomtest(360, 400).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=0.006)
    for value in (0.0, 1.0):
        interval = accuracy_interval(scored(np.full(50, value) > 0), paired=False)
        assert 0 <= interval.low <= value <= interval.high <= 1
        assert interval.high - interval.low > 0.05


def test_the_change_of_a_speedup_has_an_interval(tmp_path: Path) -> None:
    """Independent errors of 3% and 4% in logarithms make one of 5%."""
    before = speedup(3 * math.exp(-0.03), 3.0, 3 * math.exp(0.03))
    after = speedup(3.3 * math.exp(-0.04), 3.3, 3.3 * math.exp(0.04))
    figure = changes(tmp_path, before, after).figure("speedup")
    assert figure.change_interval == pytest.approx((1.1 * math.exp(-0.05) - 1, 1.1 * math.exp(0.05) - 1))
    assert figure.texts[2] == "+10.0% (+4.6 to +15.6)"
    lost_points = changes(tmp_path / "accuracy", {"accuracy": lost(0.7, 1.0, 1.3)}, {"accuracy": lost(1.1, 1.5, 1.9)})
    assert lost_points.figure("accuracy").change_interval == pytest.approx((-0.01, 0.0))


def test_latencies_have_intervals_and_are_not_judged(tmp_path: Path) -> None:
    """Independent errors of 3% and 4% in logarithms make one of 5%."""
    before, after = (
        {"compressed": {"latency_s": s, "latency_low_s": s * math.exp(-e), "latency_high_s": s * math.exp(e)}}
        for s, e in ((0.001, 0.03), (0.0011, 0.04))
    )
    figure = changes(tmp_path, before, after).figure("latency")
    assert figure.texts == (
        "1.00 ms (0.970\N{EN DASH}1.03)",
        "1.10 ms (1.06\N{EN DASH}1.14)",
        "+10.0% (+4.6 to +15.6)",
    )
    assert figure.verdict == "not judged"
    assert changes(tmp_path / "older", before, {}).figure("latency").change_interval is None


def test_what_deployment_costs_is_compared_where_both_were_measured(tmp_path: Path) -> None:
    slow = {"deployment": {"compressed": {"p99_s": 0.002, "peak_rss_bytes": 2 * 10**8}}}
    fast = {"deployment": {"compressed": {"p99_s": 0.001, "peak_rss_bytes": 10**8}}}
    figures = {figure.name: figure for figure in changes(tmp_path, slow, fast).figures}
    assert figures["peak memory"].texts == ("200 MB", "100 MB", "\N{MINUS SIGN}50.0%")
    assert figures["latency of the slowest in 100"].after == 0.001


def test_equally_good_releases_are_hardly_ever_told_apart() -> None:
    rights = np.random.default_rng(0).random((100, 2, 450)) < 0.95
    verdicts = [judge(*(accuracy_interval(scored(one), paired=False) for one in pair)) for pair in rights]
    assert 1 - verdicts.count("not told apart") / len(verdicts) < 0.025


def test_the_same_dense_network_makes_small_losses_visible_and_another_one_does_not(tmp_path: Path) -> None:
    after = {"accuracy": lost(1.5, 2.0, 2.5)}
    paired = changes(tmp_path / "same", {}, after).figure("accuracy")
    assert paired.verdict == "worse"
    assert paired.after_interval == pytest.approx((0.935, 0.945))
    unpaired = changes(tmp_path / "other", {}, {**after, "dense": b"another"}).figure("accuracy")
    assert unpaired.verdict == "not told apart"


def test_a_certificate_that_does_not_tell_its_accuracys_own_interval_decides_nothing(tmp_path: Path) -> None:
    paths = [small_bundle(tmp_path / name, dense=name.encode(), accuracy=lost(0, 0, 0)) for name in ("one", "two")]
    releases = [read_release(path) for path in paths]
    silent = releases[0].certificate.accuracy.model_dump(exclude={"compressed_low", "compressed_high"})
    interval = accuracy_interval(Accuracy(**silent), paired=False)
    assert (interval.low, interval.high) == (0, 1)
    assert judge(interval, accuracy_interval(releases[1].certificate.accuracy, paired=False)) == "not told apart"


def test_no_sample_that_differs_is_no_certainty(tmp_path: Path) -> None:
    none, few = {"accuracy": lost(0, 0, 0)}, {"accuracy": lost(0.05, 0.2, 0.35)}
    figure = changes(tmp_path, none, few).figure("accuracy")
    assert figure.verdict == "not told apart"
    assert figure.before_interval == pytest.approx((0.96 - 3 / 2000, 0.96 + 3 / 2000), abs=1e-5)


@pytest.mark.parametrize(
    ("after", "word"),
    [
        ({"host": {"id": "0123", "model": "Intel Xeon"}}, "Intel Xeon"),
        ({"target": {"batch_size": 16}}, "batch size 64 → 16"),
        ({"target": {"runtime": "openvino"}}, "openvino"),
        ({"target": {"threads": 4}}, "threads"),
        ({"target": {"precedence": True}}, "precedence"),
        ({"is_disturbed": True}, "disturbed"),
    ],
)
def test_a_speedup_under_other_conditions_is_not_judged(tmp_path: Path, after: dict[str, Any], word: str) -> None:
    figure = changes(tmp_path, {}, {**speedup(1.1, 1.2, 1.3), **after}).figure("speedup")
    assert figure.verdict == "not judged"
    assert word in figure.why


def test_accuracies_on_other_test_data_are_not_judged(tmp_path: Path) -> None:
    figure = changes(tmp_path, {}, {"accuracy": {**lost(9, 10, 11), "n": 1000}}).figure("accuracy")
    assert figure.verdict == "not judged"
    assert "1000 samples" in figure.why


def test_the_units_whose_level_changed_and_by_how_much(tmp_path: Path) -> None:
    before = {"amounts": {"a": 0.5, "b": 0.6, "c": 0.0, "gone": 0.9}}
    found = changes(tmp_path, before, {"amounts": {"a": 0.5, "b": 0.75, "c": 0.4, "new": 0.0}}).units
    assert found
    assert {unit.name: unit.by for unit in found} == {
        "b": pytest.approx(0.15),
        "c": pytest.approx(0.4),
        "gone": None,
        "new": None,
    }
    assert [unit.text for unit in found] == [
        "b 60.0% → 75.0%",
        "c dense → 40.0%",
        "gone 90.0% → none",
        "new none → dense",
    ]


def test_versions_and_the_dense_network_are_facts(tmp_path: Path) -> None:
    versions = {"versions": {"deepsparse": "1.8.1", "torch": "2.13.0"}, "dense": b"another"}
    facts = {fact.name: (fact.before, fact.after) for fact in changes(tmp_path, {}, versions).facts}
    assert facts["deepsparse"] == ("1.8.0", "1.8.1")
    assert facts["torch"] == ("not known", "2.13.0")
    assert facts.keys() == {"deepsparse", "torch", "dense network"}


def test_diff_of_bundle_and_certificate_as_json_and_in_words(tmp_path: Path) -> None:
    small_bundle(tmp_path / "one")
    (tmp_path / "two.json").write_text(json.dumps(certificate(**speedup(2.0, 2.1, 2.2))))
    result = pipeline("diff", "one", "two.json", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["regressions"] == ["speedup"]
    assert answer["units"] is None
    figure = next(figure for figure in answer["figures"] if figure["name"] == "speedup")
    assert (figure["before"], figure["after_interval"]) == (3.02, [2.0, 2.2])
    assert "worse" in result.stderr


def test_what_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no bundle"):
        read_release(tmp_path)
    (tmp_path / "notes.json").write_text("[]")
    result = pipeline("diff", "notes.json", "notes.json", cwd=tmp_path)
    assert result.returncode == 5
    assert "notes.json" in result.stderr

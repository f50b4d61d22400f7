import copy
import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports import ReportError, Summary, build_summary
from reports.document import Section, Table
from reports.markdown import render_markdown
from tests.reports.run_folder import Files, realistic_files, write_run_folder

DASH = "\N{EN DASH}"
FolderOf = Callable[[Files], Path]


def section(summary: Summary, key: str) -> Section:
    return next(section for section in summary.sections if section.key == key)


def table(summary: Summary, caption: str) -> Table:
    return next(table for table in summary.tables if table.caption.startswith(caption))


def column(of: Table, title: str) -> list[str]:
    index = [column.title for column in of.columns].index(title)
    return [row[index] for row in of.rows]


def steps(summary: Summary) -> str:
    return "\n".join(f"{step.title}: {step.text} {step.code}" for step in summary.next_steps)


def test_headline_of_a_certified_run(files: Files, folder_of: FolderOf) -> None:
    files["certificate"]["accuracy"]["metric"] = "accuracy"
    headline = build_summary(folder_of(files)).headline
    interval = f"95% interval 3.00{DASH}3.05"
    assert (
        headline == f"certified: 3.02x faster ({interval}) than dense fp32 on deepsparse; accuracy 86.1% against 88.0%"
    )


def test_metrics_beside_the_main_one_are_shown(files: Files, folder_of: FolderOf) -> None:
    files["certificate"]["accuracy"]["others"] = {"exact match": {"dense": 0.8112, "compressed": 0.8034}}
    rows = dict(table(build_summary(folder_of(files)), "Top-1 accuracy on held-out").rows)
    assert rows["exact match: dense → compressed"].split(" → ")[1].startswith("80.3")


def test_headline_of_a_missed_run(files: Files, folder_of: FolderOf) -> None:
    files["certificate"] |= {"status": "missed", "measured_speedup": 2.713, "ci_low": 2.68, "ci_high": 2.74}
    headline = build_summary(folder_of(files)).headline
    assert headline.startswith(f"missed: 2.71x faster (95% interval 2.68{DASH}2.74) than dense")
    assert "on deepsparse, 3x was requested; top-1 accuracy" in headline


def test_headline_of_an_inconclusive_run(files: Files, folder_of: FolderOf) -> None:
    files["certificate"] |= {"status": "inconclusive", "noise_floor": 0.081}
    headline = build_summary(folder_of(files)).headline
    assert headline.startswith("inconclusive: 3.02x faster")
    assert "noise floor 8.1%" in headline


def test_a_slower_model_is_not_called_faster(files: Files, folder_of: FolderOf) -> None:
    files["certificate"] |= {"status": "missed", "measured_speedup": 0.91}
    headline = build_summary(folder_of(files)).headline
    assert "faster" not in headline
    assert "0.91x the speed" in headline


def test_a_run_that_stopped_early_tells_what_there_is(files: Files, folder_of: FolderOf) -> None:
    del files["certificate"], files["comparison"]
    summary = build_summary(folder_of(files))
    assert summary.status == "incomplete"
    assert "predicts 3.06x, speedup not measured" in summary.headline
    assert section(summary, "plan").parts
    assert section(summary, "latency").text == ("Raw latencies: not measured (the run has no certificate.json).",)
    assert (
        "The plan against plain ones: not measured (the run has no comparison.json)."
        in section(summary, "accuracy").text
    )
    assert "pipeline run --target intel" in steps(summary)


@pytest.mark.parametrize("kept", sorted(realistic_files()))
def test_any_single_file_makes_a_report(files: Files, folder_of: FolderOf, kept: str) -> None:
    summary = build_summary(folder_of({kept: files[kept]}))
    assert summary.next_steps
    assert all(part.text or part.parts for part in summary.sections)


@pytest.mark.parametrize("name", sorted(realistic_files()))
def test_absent_values_are_said_and_never_zero(files: Files, folder_of: FolderOf, name: str) -> None:
    summary = build_summary(folder_of({name: {"schema": 1}}))
    assert all("not measured" in " ".join(part.text) for part in summary.sections)
    assert not summary.charts
    assert {figure.value for figure in summary.key_figures} == {"not measured"}
    assert "not measured" in summary.headline


def test_percentiles_are_those_of_the_raw_samples(files: Files, folder_of: FolderOf) -> None:
    processes = files["certificate"]["samples"]["processes"]
    rows = table(build_summary(folder_of(files)), "Latencies").rows
    for row, key in zip(rows, ("baseline_s", "null_s", "compressed_s"), strict=True):
        samples_ms = 1000 * np.concatenate([process[key] for process in processes])
        expected = [f"{np.quantile(samples_ms, share):.2f}" for share in (0.5, 0.9, 0.99)]
        assert list(row[2:5]) == expected
        assert row[1] == str(samples_ms.size)


def test_the_plan_lists_every_unit_in_order_with_the_time_saved(files: Files, folder_of: FolderOf) -> None:
    plan = table(build_summary(folder_of(files)), "Levels")
    units = files["plan"]["units"]
    assert column(plan, "Layer") == [unit["name"] for unit in units]
    saved_ms = [1000 * (unit["dense_s"] - unit["seconds"]) for unit in units if unit["prunable"]]
    assert column(plan, "Saved") == ["fixed", *(f"{saved:.3f}" for saved in saved_ms), "fixed"]
    assert f"{math.fsum(saved_ms):.3f}" in plan.footer
    assert "5.04 ms" in plan.caption


def test_columns_that_nobody_measured_are_left_out(files: Files, folder_of: FolderOf) -> None:
    for unit in files["plan"]["units"]:
        del unit["dense_s"], unit["error"]
    plan = table(build_summary(folder_of(files)), "Levels")
    assert [column.title for column in plan.columns] == ["Layer", "Shape", "Weights", "Level", "Removed", "Planned"]


def test_the_envelope_is_part_of_the_report_once_it_was_measured(files: Files, folder_of: FolderOf) -> None:
    (alone,) = section(build_summary(folder_of(files)), "envelope").parts
    assert isinstance(alone, Table)
    assert alone.rows == (("1", "not possible", ""), ("2", "", f"3.10x (3.00{DASH}3.20)"))
    assert alone.tones == (("", "", ""), ("", "", "good"))
    folder = folder_of(files)
    (folder / "bundle.envelope.json").unlink()
    assert "pipeline envelope" in section(build_summary(folder), "envelope").text[0]


def test_the_plan_stands_beside_uniform(files: Files, folder_of: FolderOf) -> None:
    rows = table(build_summary(folder_of(files)), "Allocators").rows
    assert rows[0][:3] == ("spdy (this plan)", "3.02x", "86.12%")
    assert rows[1][:3] == ("uniform", "3.03x", "84.21%")


def test_both_baselines_with_milliseconds_and_bytes(files: Files, folder_of: FolderOf) -> None:
    summary = build_summary(folder_of(files))
    latencies = table(summary, "Latency of the models")
    assert column(latencies, "Latency") == ["20.55", "7.30", "6.80"]
    assert column(latencies, "Speedup over baseline") == ["1.00x", "2.81x", "3.02x"]
    assert column(table(summary, "Size"), "Bytes") == ["1,092,000", "1,092,000", "268,000"]
    assert "1.07x" in [figure.value for figure in summary.key_figures]


def test_median_error_of_the_shown_predictions(files: Files, folder_of: FolderOf) -> None:
    files["latency_table"]["measurements"] = [
        {"label": "a", "predicted_s": 0.0101, "measured_s": 0.01},
        {"label": "b", "predicted_s": 0.0098, "measured_s": 0.01},
        {"label": "c", "predicted_s": 0.0112, "measured_s": 0.01},
        {"label": "failed", "predicted_s": 0.01, "measured_s": None},
    ]
    rows = dict(table(build_summary(folder_of(files)), "Errors of the latency table").rows)
    assert rows["Median error of the points shown"] == "2.0%"
    assert rows["Points shown"] == "3"


def test_a_search_says_how_fast_it_was_where_its_time_went_and_what_it_spared(
    files: Files, folder_of: FolderOf
) -> None:
    rows = dict(table(build_summary(folder_of(files)), "Search").rows)
    assert rows["Plans evaluated a second"] == "7.50"
    assert rows["Where the search's time went"].startswith("running the network 76.0%, budget programs 20.0%")
    assert rows["Batches run, of all batches of all plans"] == "50.0%"
    assert rows["Blocks' outputs taken from the plan before"] == "20.0%"
    files["plan"]["search"]["effort"] = {"seconds": 0, "network_s": 0, "batches_whole": 0, "blocks_reused": None}
    assert not [name for name in dict(table(build_summary(folder_of(files)), "Search").rows) if "Where" in name]


def test_a_search_stopped_evaluations_early_still_draws(files: Files, folder_of: FolderOf) -> None:
    trace = files["plan"]["search"]["trace"]
    trace[5][1] = float("inf")
    trace.append([321])
    chart = next(chart for chart in build_summary(folder_of(files)).charts if chart.key == "search")
    assert chart.description.startswith("319 evaluations")


def test_a_long_trace_keeps_every_improvement_and_stays_small(files: Files, folder_of: FolderOf) -> None:
    rows = [[i, 2.0, 1 / (1 + i // 1000), "start"] for i in range(20_000)]
    files["plan"]["search"]["trace"] = rows
    chart = next(chart for chart in build_summary(folder_of(files)).charts if chart.key == "search")
    tried, best = chart.panels[0].series
    assert len(tried.x) <= 600
    assert sorted(set(best.y)) == sorted({row[2] for row in rows})


def test_a_proxy_is_shouted_and_sent_to_the_real_device(files: Files, folder_of: FolderOf) -> None:
    files["certificate"]["proxy"] = True
    summary = build_summary(folder_of(files))
    assert summary.notices[0].title == "PROXY"
    assert summary.headline.startswith("certified (proxy): ")
    assert summary.next_steps[0].code == "pipeline verify run/bundle"


def test_a_network_below_the_floor_is_not_to_be_deployed(files: Files, folder_of: FolderOf) -> None:
    files["run"]["config"] |= {"max_drop": 0.01}
    first = build_summary(folder_of(files)).next_steps[0]
    assert first.title.startswith("Do not deploy")
    assert "a loss of 0.01 points at most" in first.text
    assert "--epochs" in first.code
    files["run"]["config"] |= {"max_drop": 50.0, "min_accuracy": 1.0}
    assert build_summary(folder_of(files)).next_steps[0].title == "Deploy"


def test_the_licence_note_is_shown(files: Files, folder_of: FolderOf) -> None:
    notes = [notice.text for notice in build_summary(folder_of(files)).notices if notice.kind == "licence"]
    assert notes == ["DeepSparse Community: evaluation in development and test, not production."]


def test_a_faster_dense_model_is_a_warning(files: Files, folder_of: FolderOf) -> None:
    files["certificate"]["speedup_over_best_dense"] = 0.963
    summary = build_summary(folder_of(files))
    assert [notice.title for notice in summary.notices if notice.kind == "warning"] == ["A dense model is faster"]
    assert "openvino int8" in steps(summary)


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"hidden_costs": {"fallback": "deepsparse has fast kernels for only 12% of it"}}, "Slow kernels"),
        ({"disturbances": ["the CPU slowed down for heat 3 times"]}, "Disturbed"),
        ({"is_disturbed": True}, "Disturbed all the time"),
        ({"ci_low": 2.99}, "The certificate contradicts itself"),
    ],
)
def test_doubtful_certificates_are_warned_of(files: Files, folder_of: FolderOf, change: Any, title: str) -> None:
    files["certificate"] |= change
    assert title in [notice.title for notice in build_summary(folder_of(files)).notices]


def test_what_each_network_costs_where_it_is_deployed(files: Files, folder_of: FolderOf) -> None:
    summary = build_summary(folder_of(files))
    costs = table(summary, "In a process of its own")
    assert column(costs, "p99") == ["24.84", "8.28"]
    assert column(costs, "Peak memory") == ["151 MB", "118 MB"]
    assert "Energy a run" not in [of.title for of in costs.columns]  # nobody could read it
    said = " ".join(section(summary, "deployment").text)
    assert "Energy: not measured" in said
    assert "Nothing is known to have disturbed" in said
    assert table(summary, "What makes it slower").rows[0][0] == "Hidden cost: reorders"
    files["certificate"]["deployment"]["compressed"]["energy_j"] = 0.0123
    costs = table(build_summary(folder_of(files)), "In a process of its own")
    assert column(costs, "Energy a run") == ["not measured", "12.3"]


def test_what_was_not_looked_for_is_said_to_be_so(files: Files, folder_of: FolderOf) -> None:
    for name in ("deployment", "disturbances", "hidden_costs"):
        del files["certificate"][name]
    deployment = section(build_summary(folder_of(files)), "deployment")
    assert not deployment.parts
    assert [text.partition(":")[0] for text in deployment.text] == [
        "What each network costs by itself",
        "Disturbances of the machine",
        "Hidden costs",
    ]
    assert all("not measured" in text for text in deployment.text)


def test_a_plan_of_a_carried_table_is_to_be_verified_there(files: Files, folder_of: FolderOf) -> None:
    files["certificate"]["proxy"] = True
    files["run"]["config"]["latency_table"] = "box.json"
    summary = build_summary(folder_of(files))
    (proxy,) = (notice for notice in summary.notices if notice.kind == "proxy")
    assert "host of the latency table" in proxy.text
    assert summary.next_steps[0].title == "Verify on the host of the latency table"
    assert "pipeline verify" in summary.next_steps[0].code


def test_next_steps_of_a_certified_run_deploy_it(files: Files, folder_of: FolderOf) -> None:
    text = steps(build_summary(folder_of(files)))
    assert 'Engine("model.onnx", batch_size=64, num_cores=2)' in text
    assert "manifest.json" in text
    assert "Mind the licence" in text


@pytest.mark.parametrize("runtime", ["deepsparse", "openvino", "onnxruntime"])
def test_deployment_code_is_python(files: Files, folder_of: FolderOf, runtime: str) -> None:
    files["certificate"]["target"]["runtime"] = runtime
    deploy = build_summary(folder_of(files)).next_steps[0]
    compile(deploy.code, "deploy", "exec")
    assert f"import {runtime}" in deploy.code or f"from {runtime}" in deploy.code


def test_next_steps_of_a_missed_run_say_what_binds_and_what_would_hold(files: Files, folder_of: FolderOf) -> None:
    files["certificate"] |= {"status": "missed", "measured_speedup": 2.713, "ci_low": 2.68}
    text = steps(build_summary(folder_of(files)))
    assert "a fixed 5.04 ms, 74% of the compressed latency, the units kept dense (conv1, linear) included" in text
    floor_s = 0.00504 + 18 * 0.00003
    assert f"predicts {math.floor(100 * 0.02055 / floor_s) / 100:.2f}x" in text
    assert "pipeline run --target intel --speedup 2.6" in text
    assert "--epochs 6" in text


def test_units_kept_dense_with_a_time_of_their_own_bind_too(files: Files, folder_of: FolderOf) -> None:
    files["certificate"]["status"] = "missed"
    for unit in (files["plan"]["units"][0], files["plan"]["units"][-1]):
        unit |= {"dense_s": 0.001, "seconds": 0.001}
    summary = build_summary(folder_of(files))
    assert "Units kept dense (conv1, linear) take 2.00 ms" in steps(summary)
    floor_s = 0.00504 + 18 * 0.00003 + 0.002
    assert f"predicts {math.floor(100 * 0.02055 / floor_s) / 100:.2f}x" in steps(summary)
    assert column(table(summary, "Levels"), "Saved")[0] == "0.000"


def test_a_request_out_of_reach_says_what_is_within_reach(files: Files, folder_of: FolderOf) -> None:
    files["run"]["config"]["speedup"] = 9.0
    summary = build_summary(folder_of({name: files[name] for name in ("run", "capability", "latency_table")}))
    assert "9x is out of reach, the fastest plan of the latency table gives 3.68x" in summary.headline
    assert "a fixed 5.04 ms" in steps(summary)
    assert "pipeline run --target intel --speedup 3.6" in steps(summary)


def test_what_to_ask_for_is_over_what_the_request_is_over(files: Files, folder_of: FolderOf) -> None:
    files["run"]["config"]["speedup"] = 4.5
    files["baseline"] = {"schema": 1, "speedup": 9.0}  # the best dense network is twice as fast as dense in fp32
    kept = ("run", "capability", "latency_table", "baseline")
    summary = build_summary(folder_of({name: files[name] for name in kept}))
    assert "9x is out of reach, the fastest plan of the latency table gives 3.68x" in summary.headline
    assert "pipeline run --target intel --speedup 1.8" in steps(summary)


def test_without_a_runtime_that_gains_another_one_is_advised(files: Files, folder_of: FolderOf) -> None:
    del files["capability"]["runtimes"][0]
    summary = build_summary(folder_of({name: files[name] for name in ("run", "capability")}))
    assert "pipeline runtimes install deepsparse" in steps(summary)


def test_an_interval_that_holds_the_request_is_not_blamed_on_noise(files: Files, folder_of: FolderOf) -> None:
    files["certificate"] |= {"status": "inconclusive", "ci_low": 2.99, "ci_high": 3.03}
    summary = build_summary(folder_of(files))
    assert "which may be more or less than the requested 3x (noise floor 0.4%)" in summary.headline
    assert "The interval holds the requested 3x" in steps(summary)


def test_the_table_that_the_closed_loop_corrected_is_shown(files: Files, folder_of: FolderOf) -> None:
    files["latency_table_corrected"] = files["latency_table"] | {"fixed_s": 0.00612}
    assert "6.12 ms" in table(build_summary(folder_of(files)), "Levels").caption


def test_int8_alone_is_advised_where_it_is_as_fast_and_as_accurate(files: Files, folder_of: FolderOf) -> None:
    certificate = files["certificate"]
    speedup, accuracy = certificate["measured_speedup"], certificate["accuracy"]["compressed"]
    for faster, better, advised in ((0.1, 0.0, True), (-0.1, 0.01, False), (0.1, -0.01, False)):
        row = {"allocator": "nncf int8", "measured_speedup": speedup + faster, "accuracy": accuracy + better}
        files["comparison"] |= {"rows": [row]}
        found = build_summary(folder_of(files))
        assert ("deploy what nncf makes" in steps(found)) == advised


def test_a_uniform_plan_that_does_not_exist_is_said(files: Files, folder_of: FolderOf) -> None:
    files["comparison"] |= {"rows": files["comparison"]["rows"][:1], "unreachable": {"uniform": "3x is unreachable"}}
    text = section(build_summary(folder_of(files)), "accuracy").text
    assert "No uniform to compare with: 3x is unreachable" in text


def test_training_that_nobody_asked_for_is_not_missing(files: Files, folder_of: FolderOf) -> None:
    del files["training"]
    assert "Gradual pruning: not asked for (--epochs 0)." in section(build_summary(folder_of(files)), "tuning").text


def test_a_run_made_stage_by_stage_is_advised_a_whole_command(files: Files, folder_of: FolderOf) -> None:
    files["run"]["command"] = ["pipeline", "certify", "runs/a", "--again"]
    text = steps(build_summary(folder_of(files)))
    assert "pipeline run --target intel --speedup 3 --model resnet:20 --epochs 6" in text


def test_next_steps_of_an_inconclusive_run_quieten_the_machine(files: Files, folder_of: FolderOf) -> None:
    files["certificate"]["status"] = "inconclusive"
    files["certificate"]["host"]["governor"] = "powersave"
    text = steps(build_summary(folder_of(files)))
    assert "governor to performance (it is powersave)" in text
    assert "pipeline certify run --again" in text


@pytest.mark.parametrize(("dense", "advised"), [(0.8796, True), (0.8711, False)])
def test_more_than_a_point_lost_calls_for_epochs(
    files: Files, folder_of: FolderOf, dense: float, advised: bool
) -> None:
    files["certificate"]["accuracy"]["dense"] = dense
    assert ("--epochs" in steps(build_summary(folder_of(files)))) == advised


def test_a_trained_run_is_told_to_train_longer(files: Files, folder_of: FolderOf) -> None:
    files["run"]["config"]["epochs"] = 6
    files["run"]["command"] = "pipeline run --target=intel --epochs=6 --out 'my runs'"
    assert "pipeline run --target=intel --epochs 12" in steps(build_summary(folder_of(files)))


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [path, *(leaf for key, child in items for leaf in _leaves(child, (*path, key)))][not path :]


FILES = realistic_files()
NUMBERS: list[Any] = [0, -1, 1e-308, 1e14, 1e308, 10**400, float("nan"), float("-inf")]
OTHERS: list[Any] = [None, "", "\x00\x1b<b>|`", True, [], {}, [[None]], {"a": [1]}, [1, "x"]]


@settings(max_examples=150)
@given(st.sampled_from(_leaves(FILES)), st.sampled_from(NUMBERS + OTHERS))
def test_any_odd_value_gives_a_report_or_a_clear_error(path: tuple[Any, ...], value: Any) -> None:
    files = copy.deepcopy(FILES)
    *parents, last = path
    place: Any = files
    for key in parents:
        place = place[key]
    place[last] = value
    with TemporaryDirectory() as folder:
        run_folder = write_run_folder(Path(folder), files)
        try:
            text = render_markdown(build_summary(run_folder))
        except ReportError as error:
            text = str(error)
    assert text.startswith("# Speedup report") or f"{path[0]}.json" in text
    assert not {"nan", "inf", "None"} & set(text.split())


def test_time_and_memory_of_the_stages_are_told(files: Files, folder_of: FolderOf) -> None:
    stages = table(build_summary(folder_of(files)), "Time of the stages")
    assert dict(stages.rows)["database"] == "44.1 s, 3.1 GB"
    assert dict(stages.rows)["probe"] == "21.0 s"


def test_plans_that_met_are_named_with_their_losses(files: Files, folder_of: FolderOf) -> None:
    files["plan"]["contest"] = [{"allocator": "uniform", "loss": 0.1243}, {"allocator": "spdy", "loss": 0.129}]
    (plan,) = [section for section in build_summary(folder_of(files)).sections if section.key == "plan"]
    assert "nearest to the dense network of those as fast; losses: uniform 0.124, spdy 0.129." in plan.text[0]


def test_what_runtimes_gain_from_zeros_and_from_other_families_are_tables_of_their_own(
    files: Files, folder_of: FolderOf
) -> None:
    files["capability"]["runtimes"][1]["rows"].append(
        {"operation": "convolution, channel", "family": "channel", "sparsity": 0.75, "speedup": 3.9}
    )
    summary = build_summary(folder_of(files))
    zeros, others = (table(summary, caption) for caption in ("Zeros: speedup", "Other families: speedup"))
    assert "75%" not in {column.heading for column in zeros.columns}
    assert others.rows == (("openvino", "convolution, channel", "3.90x"),)

"""What a machine did is put into words, and a machine that did nothing is not blamed."""

from profilers.deployment import summarise
from profilers.disturbances import name_disturbances
from profilers.measure import AloneMeasurement


def test_each_disturbance_has_its_sentence() -> None:
    machines = [
        {"throttled_periods": 3, "throttled_s": 0.2, "stolen_s": 0.5, "hot_cpus": 1, "frequency_hz": 3e9},
        {"throttled_periods": 1, "throttled_s": 0.1, "stolen_s": 0.5, "hot_cpus": 0, "frequency_hz": 2e9},
    ]
    quota, heat, stolen, clock, threads = name_disturbances(machines, 5.0, threads=4, cores=2)
    assert "4 times" in quota
    assert "0.30 s" in quota
    assert "heat 1 times" in heat
    assert "5%" in stolen
    assert "3.0 down to 2.0 GHz" in clock
    assert "4 threads share 2 cores" in threads


def test_a_clock_that_is_low_all_the_time_is_told_of() -> None:
    (low,) = name_disturbances([{"frequency_hz": 1.2e9, "highest_hz": 3.6e9}] * 2, 5.0, threads=2, cores=2)
    assert "1.2 of the CPU's 3.6 GHz" in low
    wide = {"frequency_hz": 2.4e9, "highest_hz": 3.9e9}  # a server's cores all at once, with their widest registers
    assert name_disturbances([wide, wide], 5.0, threads=2, cores=2) == ()


def test_a_machine_that_tells_nothing_or_did_nothing_is_not_blamed() -> None:
    assert name_disturbances([], 0.0, threads=2, cores=2) == ()
    idle = {"others_cores": 0.1, "is_ahead": False}
    assert name_disturbances([idle, idle], 5.0, threads=2, cores=2) == ()
    assert name_disturbances([{}, {"stolen_s": 0.0, "throttled_periods": 0}], 5.0, threads=2, cores=2) == ()


def test_other_processes_are_told_of_unless_what_measured_ran_ahead_of_them() -> None:
    (busy,) = name_disturbances([{"others_cores": 0.9, "is_ahead": False}] * 3, 5.0, threads=2, cores=2)
    assert "0.9 of the measured cores busy" in busy
    assert "--precedence" in busy
    beside, ahead = {"others_cores": 0.9, "is_ahead": False}, {"others_cores": 0.02, "is_ahead": True}
    assert name_disturbances([beside, ahead, ahead], 5.0, threads=2, cores=2) == ()
    (no_help,) = name_disturbances([beside, ahead | {"others_cores": 0.8}], 5.0, threads=2, cores=2)
    assert "0.8 of the measured cores busy" in no_help
    assert "although it ran ahead" in no_help


def alone(energy_j: float | None, peak: int = 5) -> AloneMeasurement:
    machine = {} if energy_j is None else {"energy_j": energy_j}
    return AloneMeasurement("model", (0.001, 0.002, 0.003, 0.004), 0.5, 0.01, peak, None, machine)


def test_energy_is_per_run_and_absent_where_it_was_not_read() -> None:
    facts = summarise([alone(4.0), alone(8.0, peak=9)])
    assert facts.energy_j == 1.5
    assert facts.peak_rss_bytes == 9
    assert facts.p50_s == 0.0025
    assert "energy_j" not in summarise([alone(None), alone(4.0)]).to_json()

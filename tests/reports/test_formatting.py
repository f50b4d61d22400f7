import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import formatting as f

speedups = st.floats(0.01, 1000)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.024, "3.02x"), (2.9999, "2.99x"), (3.0, "3.00x"), (3.02 - 4e-16, "3.02x"), (1234.5, "1,234.50x")],
)
def test_a_speedup_is_never_rounded_up(value: float, text: str) -> None:
    assert f.speedup(value) == text


@given(speedups, speedups)
def test_an_interval_as_written_holds_the_true_one(a: float, b: float) -> None:
    low, high = sorted((a, b))
    written_low, written_high = (float(bound.replace(",", "")) for bound in f.interval(low, high).split("\N{EN DASH}"))
    assert written_low <= low + 1e-6
    assert written_high >= high - 1e-6
    assert low - written_low < 0.0101
    assert written_high - high < 0.0101


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0205, "20.5"), (0.00672, "6.72"), (1.002, "1,002"), (0.000043, "0.043"), (-0.0012, "\N{MINUS SIGN}1.20")],
)
def test_milliseconds_have_three_digits_that_matter(seconds: float, text: str) -> None:
    assert f.milliseconds(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.26, "1.3 s"), (59.99, "1 min 00 s"), (96.4, "1 min 36 s"), (7500.0, "2 h 05 min"), (0.0, "0.0 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert f.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(268_000, "268 kB"), (1_092_000, "1.09 MB"), (12, "12 bytes"), (4.3e9, "4.3 GB")]
)
def test_file_sizes(size: float, text: str) -> None:
    assert f.file_size(size) == text


def test_differences_show_their_sign_and_zero_has_none() -> None:
    assert f.points(-0.0184, 2) == "\N{MINUS SIGN}1.84"
    assert f.points(0.004) == "+0.4"
    assert f.points(-0.00001) == "0.0"
    assert f.percent(-0.00001) == "0.0%"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (1.0, "1.00"), (460.0, "460"), (1.234e-7, "1.23e\N{MINUS SIGN}07"), (0.0, "0.00")],
)
def test_three_digits_that_matter(value: float, text: str) -> None:
    assert f.significant(value) == text


def test_small_numbers_in_a_column_do_not_become_zero() -> None:
    assert f.decimal(0.15, 4) == "0.1500"
    assert f.decimal(0.0, 4) == "0.0000"
    assert f.decimal(0.000012, 4) == "1.20e\N{MINUS SIGN}05"


@pytest.mark.parametrize(
    "text",
    [f.speedup, f.requested, f.percent, f.points, f.milliseconds, f.count, f.significant, f.file_size, f.duration],
)
def test_what_was_not_measured_is_said_and_not_zero(text: object) -> None:
    assert callable(text)
    assert text(None) == "not measured"


def test_settings_are_flattened_with_their_units() -> None:
    facts = {
        "memory_bytes": 16_000_000_000,
        "caches": {"L2": 2097152, "L1d": 49152},
        "isa": ["avx2", "fma"],
        "smt": True,
        "none": None,
    }
    assert f.flatten(facts) == [
        ("memory", "16 GB"),
        ("caches.L2", "2 MiB"),
        ("caches.L1d", "48 KiB"),
        ("isa", "avx2, fma"),
        ("smt", "yes"),
        ("none", "none"),
    ]

from pathlib import Path

import pytest

from targets.errors import ConfigError
from targets.host import available_cores
from targets.target import Target, list_presets, load_target


def test_presets_name_their_vendor_and_leave_the_runtime_open() -> None:
    assert {preset.name: preset.vendor for preset in list_presets()} == {"amd": "amd", "auto": "any", "intel": "intel"}
    assert all(preset.description and preset.batch_size == 64 for preset in list_presets())
    for preset in list_presets():
        target = load_target(preset.name)
        assert target == Target(
            name=preset.name, vendor=preset.vendor, runtime=None, threads=available_cores(), batch_size=64
        )


def test_a_file_sets_what_it_says_and_leaves_the_rest_at_its_default(tmp_path: Path) -> None:
    path = tmp_path / "shop-floor.toml"
    path.write_text('vendor = "intel"\nruntime = "openvino"\nthreads = 1\nbatch_size = 4\n')
    target = load_target(path)
    assert target == Target(name="shop-floor", vendor="intel", runtime="openvino", threads=1, batch_size=4)
    path.write_text("")
    assert load_target(str(path)) == Target(
        name="shop-floor", vendor="any", runtime=None, threads=available_cores(), batch_size=64
    )


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text('runtime = "openvino"\nthreads = 9999\nbatch_size = 4\nprecedence = true\n')
    target = load_target(path, runtime="onnxruntime", batch_size=2, threads=1)
    assert (target.runtime, target.batch_size, target.threads) == ("onnxruntime", 2, 1)
    assert target.precedence
    assert not load_target(path, threads=1, precedence=False).precedence


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"thread = 2", ["'thread'", "'threads'"]),
        (b"batchsize = 2", ["'batchsize'", "'batch_size'"]),
        (b"[threads]\nx = 1", ["threads", "whole number"]),
        (b'threads = "2"', ["threads", "whole number"]),
        (b"threads = true", ["threads", "whole number"]),
        (b"threads = 0", ["threads = 0", "at least 1"]),
        (b"threads = -1", ["threads = -1", "at least 1"]),
        (b"precedence = 1", ["precedence", "true or false"]),
        (b"batch_size = 0", ["batch_size = 0", "at least 1"]),
        (b"batch_size = 1.5", ["batch_size", "whole number"]),
        (b"vendor = 3", ["vendor", "string"]),
        (b'vendor = "inter"', ["'inter'", "'intel'"]),
        (b'runtime = "deepspars"', ["'deepspars'", "'deepsparse'"]),
        (b"threads = ", ["not a TOML file"]),
        (b"\xff\xfe\x00", ["not a TOML file"]),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(tmp_path: Path, content: bytes, fragments: list[str]) -> None:
    path = tmp_path / "t.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_target(path)
    assert caught.value.exit_code == 2
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("name", ["missing.toml", "no/such/place", "."])
def test_what_is_not_a_file_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"is not a file.*amd, auto, intel"):
        load_target(name)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'intle'.*Did you mean 'intel'\? There are: amd, auto, intel"):
        load_target("intle")


@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [
        ({"runtime": "onnx-runtime"}, "'onnxruntime'"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"threads": 0}, "threads = 0"),
        ({"threads": -3}, "threads = -3"),
    ],
)
def test_wrong_overrides_are_refused(overrides: dict[str, int], fragment: str) -> None:
    with pytest.raises(ConfigError, match=fragment):
        load_target("auto", **overrides)  # type: ignore[arg-type]


def test_more_threads_than_cores_says_how_many_there_are() -> None:
    with pytest.raises(ConfigError, match=f"may use {available_cores()} physical core"):
        load_target("auto", threads=available_cores() + 1)

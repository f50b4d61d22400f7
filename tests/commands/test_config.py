"""`pipeline config`: a file to fill in, and a schema."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from pipeline.commands.config import json_schema, toml_template
from pipeline.config import RunConfig, resolve
from targets.errors import ConfigError
from tests.command import pipeline

FIELDS = sorted(RunConfig.model_fields)


def test_the_file_is_accepted_as_it_is_and_changes_nothing_but_the_speedup(tmp_path: Path) -> None:
    result = pipeline("config", "--init", "mine.toml", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert resolve({}, tmp_path / "mine.toml", None) == RunConfig(speedup=3.0)
    assert "pipeline run --config mine.toml" in (tmp_path / "mine.toml").read_text()


def test_every_setting_is_there_with_its_meaning_and_its_default() -> None:
    text = toml_template("release.toml")
    for name, field in RunConfig.model_fields.items():
        assert re.search(rf"^(# )?{name} = ", text, re.MULTILINE), name
        assert field.description
        assert field.description.split()[0] in text
    said = tomllib.loads(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    defaults = {name: field.default for name, field in RunConfig.model_fields.items() if field.default is not None}
    assert said.items() >= {name: value for name, value in defaults.items() if name != "speedup"}.items()
    assert "one of best, spdy, spdy-evolution, surrogate, dp, uniform, global-magnitude" in text.replace("\n# ", " ")
    assert "at least 12; at most 1000" in text


def test_the_screen_in_the_place_of_a_file(tmp_path: Path) -> None:
    result = pipeline("config", "--init", "-", cwd=tmp_path)
    assert tomllib.loads(result.stdout) == {"speedup": 3.0}
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "release.toml").write_text("speedup = 2")
    result = pipeline("config", "--init", cwd=tmp_path)
    assert result.returncode == 2
    assert "already" in result.stderr
    assert (tmp_path / "release.toml").read_text() == "speedup = 2"
    assert pipeline("config", "--init", "absent/../release.toml/x.toml", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("flags", [(), ("--init", "--schema")])
def test_one_of_both_must_be_asked_for(tmp_path: Path, flags: tuple[str, ...]) -> None:
    result = pipeline("config", *flags, cwd=tmp_path)
    assert result.returncode == 2
    assert "--init" in result.stderr


def test_the_schema_says_what_is_accepted(tmp_path: Path) -> None:
    schema = json.loads(pipeline("config", "--schema", cwd=tmp_path).stdout)
    assert schema == json_schema()
    assert sorted(schema["properties"]) == FIELDS
    assert schema["required"] == ["speedup"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["speedup"]["exclusiveMinimum"] == 1
    assert schema["properties"]["levels"]["maximum"] == 200
    assert schema["properties"]["allocator"]["enum"] == [
        *("best", "spdy", "spdy-evolution", "surrogate", "dp", "uniform", "global-magnitude")
    ]


@pytest.mark.parametrize("name", FIELDS)
def test_a_letter_too_few_names_the_setting_that_was_meant(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    for position in range(len(name)):
        path.write_text(f"{name[:position]}{name[position + 1 :]} = 1\n")
        with pytest.raises(ConfigError, match=f"did you mean '{name}'"):
            resolve({"speedup": 2.0}, path, None)

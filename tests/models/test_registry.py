"""Models are found by name."""

import pytest

from pipeline.models.registry import get_adapter, list_models
from targets.errors import ConfigError


def test_every_listed_model_has_an_adapter():
    models = list_models()
    assert [model.name for model in models][:2] == ["resnet:digits", "resnet:20"]
    for model in models:
        assert get_adapter(model.name).name == model.name
        assert model.description
        assert model.data_format


@pytest.mark.parametrize(
    ("asked", "nearest"), [("resnet20", "resnet:20"), ("resnet:51", "resnet:50"), ("digits", "digits")]
)
def test_an_unknown_model_is_answered_with_the_nearest(asked, nearest):
    with pytest.raises(ConfigError, match=f"did you mean .*{nearest}") as caught:
        get_adapter(asked)
    assert caught.value.exit_code == 2

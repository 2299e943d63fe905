"""Option values that several steps share, as a strict model reads them."""

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.values import Size


class Model(BaseModel):
    model_config = ConfigDict(strict=True)
    size: Size


@pytest.mark.parametrize(("value", "size"), [("10 GiB", 10 << 30), (512, 512), ("4G", 4 << 30)])
def test_a_strict_model_and_its_schema_accept_the_same_sizes(value, size):
    assert Model(size=value).size == size
    Draft202012Validator(Model.model_json_schema()).validate({"size": value})


@pytest.mark.parametrize("value", ["ten", True, 1.5, None, "4X"])
def test_a_strict_model_and_its_schema_refuse_the_same_values(value):
    with pytest.raises(ValidationError):
        Model(size=value)
    assert not Draft202012Validator(Model.model_json_schema()).is_valid({"size": value})

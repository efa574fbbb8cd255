"""What is asked of a product carries that product's parameters."""

import pytest
from parameters import bare

from cadiff.task import Task


def test_a_products_own_settings_are_never_left_out() -> None:
    params = bare(products={"cube": {"train": {"steps": 7}}, "ball": {}})
    assert Task(params.for_product("cube"), "cube").params.train.steps == 7
    assert Task(params, "ball").params.train.steps == params.train.steps
    with pytest.raises(ValueError, match=r"cube: expected its own parameters, found its train apart"):
        Task(params, "cube")

from pathlib import Path

import pytest
from shipping_plates import Product, draw_plates, train

from cadiff.records import SampleRow
from cadiff.shipping import ship_detector


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CADIFF_QUIET", "1")


@pytest.fixture(scope="session")
def plates(tmp_path_factory: pytest.TempPathFactory) -> list[SampleRow]:
    return draw_plates(tmp_path_factory.mktemp("plates"))


@pytest.fixture(scope="session")
def product(plates: list[SampleRow], tmp_path_factory: pytest.TempPathFactory) -> Product:
    return train(plates, tmp_path_factory.mktemp("product"))


@pytest.fixture(scope="session")
def shipped(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped") / "plate"
    ship_detector("plate", product.samples, 1, product.detector, product.evaluated, folder)
    return folder

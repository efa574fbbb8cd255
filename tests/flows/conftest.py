"""A real DVC project of shell stages: DVC's graph, locks and subprocesses, without any model."""

from pathlib import Path

import pytest

PARAMS = """
dataset: {root: data/raw, table: .}
draw: {products: []}
products: {a: {}, b: {}, b-2: {}}
methods: {generators: [cadiff], synthesizers: [exemplars], unions: [], detectors: []}
external: {images: [], maps: []}
ship: {methods: []}
"""
DVC_YAML = """
stages:
  make:
    matrix: {product: "${products}"}
    cmd: mkdir -p made; sh work-${item.product}.sh && echo done > made/${item.product}
    deps: ["work-${item.product}.sh"]
    outs: ["made/${item.product}"]
  detect:
    matrix: {product: "${products}"}
    cmd: echo start >> log; sleep 0.3; echo end >> log; cp made/${item.product} found-${item.product}
    deps: ["made/${item.product}"]
    outs: ["found-${item.product}"]
    meta: {accelerator: true}
  report:
    cmd: cat found-a found-b found-b-2 > report
    deps: [found-a, found-b, found-b-2]
    outs: [report]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PREFECT_API_URL", "PREFECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".site"))
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").write_text(DVC_YAML)
    for product in ("a", "b", "b-2"):
        (root / f"work-{product}.sh").write_text("true\n")
    return root

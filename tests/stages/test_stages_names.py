"""One rule for names: what `cadiff inspect` accepts, DVC, the parameters and the flow carry alike, beside any other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from parameters import file_text, values_of
from stages.conftest import draw_plates

from cadiff.errors import UsageError
from cadiff.names import check_product, check_products, composed
from cadiff.params import METHODS, as_written, load_params, settings_path
from flows.pipeline import product_of

ROOT = Path(__file__).resolve().parents[2]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())
OWN = yaml.safe_load((ROOT / "presets/own-data.yaml").read_text())
# What YAML 1.1, YAML 1.2, dotted keys, stage names and shells read otherwise than as a name.
TRICKY = [
    "08", "007", "017", "0o17", "0x1F", "0b11", "1e3", "1E5", "12e03", "1_000", "4711", "1-2", "2024-01-01", "null", "Null", "true", "on",
    "No", "y", "nan", "inf", "a-b", "a", "a-", "b-cadiff", "b", "x+y", "Größe", "ねじ", "हिंदी", "٣", "²", "item", "product", "_",
    "v1.0", "M8x1.25",
]  # fmt: skip
SIGNS = st.one_of(st.characters(categories=["L", "N", "M"]), st.sampled_from("0123456789abeExo_+-. :#@'\"${}[]\\/\n"))
NAMES = st.one_of(st.sampled_from(TRICKY), st.text(SIGNS, min_size=1, max_size=12))


def accepted(names: list[str]) -> list[str]:
    """Those of which `cadiff inspect` says nothing, together."""
    taken: list[str] = []
    for name in names:
        try:
            check_product(name)
            check_products([*taken, name], METHODS)
        except ValueError:
            continue
        taken += [name] if name not in taken else []
    return taken


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout of DVC's with nothing in it, which is the working directory."""
    root, before = tmp_path_factory.mktemp("names"), Path.cwd()
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    os.chdir(root)
    yield root
    os.chdir(before)


@settings(max_examples=12, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=5))
@example(TRICKY)
def test_what_inspect_accepts_is_one_name_to_all_that_read_it(where: Path, names: list[str]) -> None:
    from dvc.dependency.param import read_param_file
    from dvc.fs import localfs
    from dvc.parsing import DataResolver
    from dvc.repo import Repo

    taken = accepted(names)
    assume(taken)
    path = where / "params.yaml"
    path.write_text("\n".join(as_written({**OWN, "products": {name: {"train": {"steps": 5}} for name in taken}})) + "\n", encoding="utf-8")
    assert list(load_params(path).products) == taken
    with Repo(str(where)) as repo:
        stages = DataResolver(repo, str(where), GRAPH).resolve()["stages"]
    for name in taken:
        assert f"samples@{name}" in stages
        assert f"train@{name}-cadiff" in stages
        assert settings_path("train", name).as_posix() in stages[f"train@{name}-cadiff"]["deps"]
        assert read_param_file(localfs, str(path), [f"products.{name}"], flatten=True) == {f"products.{name}": {"train": {"steps": 5}}}
        mine = {address for address in stages if product_of(address, taken) == name}
        assert {address.partition("@")[0] for address in mine} == {address.partition("@")[0] for address in stages if "@" in address}
    assert {address for address in stages if "@" in address} == {address for address in stages if product_of(address, taken) in taken}


@settings(max_examples=40, deadline=None)
@given(st.builds("{}{}{}".format, NAMES, st.sampled_from(list(" ./:@#{}$*,'\"\\")), NAMES))
def test_a_name_that_is_refused_is_refused_at_load_too(where: Path, name: str) -> None:
    """Whether it is written with quotes or without."""
    assert not accepted([name])
    path = where / "refused.yaml"
    path.write_text(yaml.safe_dump({**OWN, "products": {name: {}}}, allow_unicode=True, sort_keys=False), encoding="utf-8")
    with pytest.raises(UsageError):
        load_params(path)


@pytest.mark.parametrize("name", ["08", "007", "0o17", "1e3", "1E5", "4711", "on", "null", "2024-01-01", "1_000"])
def test_a_name_that_lacks_its_quotes_is_refused_with_the_remedy(where: Path, name: str) -> None:
    path = where / "unquoted.yaml"
    text = (ROOT / "presets/own-data.yaml").read_text().replace("  tile: {}", f"  {name}: {{}}")
    path.write_text(text)
    with pytest.raises(UsageError, match="put it in quotes"):
        load_params(path)
    path.write_text(text.replace(f"  {name}:", f'  "{name}":'))  # as it says
    assert list(load_params(path).products) == [name]
    (line,) = [line for line in as_written({"products": {name: {}}}) if "{}" in line]
    assert line.strip() in (f"'{name}': {{}}", f'"{name}": {{}}'), "what inspect prints to paste"


def test_products_whose_stages_have_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="nut-cadiff cannot be told from the method cadiff of the product nut; rename one of the two"):
        check_products(["nut", "nut-cadiff"], METHODS)
    check_products(["nut", "nut-2"], METHODS)


def test_compatible_letters_keep_their_own_form() -> None:
    """NFC only joins what was one letter; the names of folders are never changed further."""
    assert [composed(name) for name in ("Größe", "²", "ﬁx")] == ["Größe", "²", "ﬁx"]


PAIRS = st.lists(NAMES, min_size=6, max_size=6).map(accepted).filter(lambda names: len(names) >= 2).map(lambda names: names[:2])


@pytest.mark.slow
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(PAIRS)
@example(["08", "Größe"])
@example(["1e3", "ねじ+-_"])
def test_what_inspect_accepts_goes_through_the_whole_smoke_pipeline(repository: Path, names: list[str]) -> None:
    """On plates that are drawn for each name, from the lines that `cadiff inspect` prints to the report."""
    raw, base = repository.parent / f"raw-{'-'.join(names)}", load_params().base.path
    for seed, name in enumerate(names):
        draw_plates(raw, name, seed)

    def call(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    said = yaml.safe_load(call("cadiff.cli", "inspect", str(raw)).split("In params.yaml:\n")[1])
    values = values_of("smoke")
    values["dataset"] |= {**said["dataset"], "size": 64}
    values["draw"]["products"] = []
    values["base"] |= {"path": base, "size": 32}
    values["control"]["start"] = "copy"  # this base brings none
    (repository / "params.yaml").write_text(file_text({**values, "products": said["products"]}), encoding="utf-8")
    call("flows.pipeline", "--jobs", "1")
    assert not call("dvc", "status").strip().startswith("samples")
    made = {path.stem for path in (repository / "data/made/samples").glob("*.parquet")}
    assert set(names) <= made
    for name in names:
        assert list((repository / "data/made/evaluated/cadiff" / name).glob("metrics.parquet")), name

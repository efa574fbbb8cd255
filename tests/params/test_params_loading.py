"""Files over files over the schema's defaults: how values come together, what is refused, and where each value is said to come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from parameters import ROOT, file_text, over, values_of

from cadiff.cli import main
from cadiff.errors import UsageError
from cadiff.params import SECTIONS, Params, changed, file_form, load_params, resolved, use_preset, write_settings
from cadiff.params.keys import ALL, GONE, lifted
from cadiff.params.loading import GRAPH

PRESETS = sorted((ROOT / "presets").glob("*.yaml"))
STAGES = ("synthesize", "generate", "showcase", "scenes", "ship")  # that read generate.per_type


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def by_hand(path: Path) -> dict:
    """A file's values over those that it extends, key by key, without the package's own merging."""
    own = yaml.safe_load(path.read_text())
    below = by_hand(path.with_name(f"{own.pop('extends')}.yaml")) if "extends" in own else {}
    recipe = own.pop("recipe", {})
    for section, values in own.items():
        whole = section in ("products", "variants") or not isinstance(values, dict)
        below[section] = values if whole else {**below.get(section, {}), **values}
    for section, values in recipe.items():
        below[section] = {**below.get(section, {}), **values}
    return below


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_what_it_states_over_what_it_extends_and_the_rest_is_the_schemas(preset: Path) -> None:
    params, stated, defaults = load_params(preset), by_hand(preset), Params(products={"a": {}})
    for section in ("dataset", "draw", *SECTIONS):
        values = getattr(defaults, section).model_dump(mode="json") | stated.get(section, {})
        assert getattr(params, section).model_dump(mode="json") == values, section
    assert list(params.products) == list(stated["products"])


def test_own_data_is_the_defaults() -> None:
    assert [key for key, _ in changed(load_params(ROOT / "presets" / "own-data.yaml"))] == ["products"]


def test_the_nearest_file_wins_key_by_key_and_products_are_its_own(tmp_path: Path) -> None:
    write(tmp_path, "presets/far.yaml", "products: {a: {}, b: {}}\ntrain: {steps: 7, batch: 2}\nrecipe: {train: {clip: null, crop: 0.2}}\n")
    write(tmp_path, "presets/near.yaml", "extends: far\nproducts: {c: {recipe: {train: {crop: 0.4}}}}\ntrain: {steps: 8}\n")
    path = write(tmp_path, "mine.yaml", "extends: near\nrecipe: {train: {crop: 0.3}}\n")
    params = load_params(path)
    assert list(params.products) == ["c"]
    train = params.train
    assert (train.steps, train.batch, train.clip, train.crop) == (8, 2, None, 0.3)
    assert params.for_product("c").train.crop == 0.4
    beside = write(tmp_path, "other.yaml", "extends: ./mine.yaml\nseed: 5\n")
    assert (load_params(beside).seed, load_params(beside).train.crop) == (5, 0.3)
    origins = {shown.key: Path(shown.origin).name for shown in resolved(path, "c")}
    assert origins["recipe.train.crop"] == "product c"
    assert (origins["train.steps"], origins["train.batch"], origins["train.epochs"]) == ("near.yaml", "far.yaml", "default")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: mine\nproducts: {a: {}}\n", r"mine.yaml: extends: mine extends it in turn"),
        ("extends: nothing\n", r"mine.yaml: extends: nothing: no such file; presets are base"),
        ("extends: [base]\n", r"mine.yaml: extends: expected a preset's name or a path, found \['base'\]"),
        ("extends: base\ntrain: {step: 3}\n", r"mine.yaml: train.step: unknown key; remove it or correct its spelling"),
        ("extends: base\npaint: {}\n", r"mine.yaml: paint: unknown key"),
        ("extends: base\ntrain: {clip: 2}\n", r"mine.yaml: train.clip: stands elsewhere; write recipe.train.clip"),
        ("extends: base\nrecipe: {train: {steps: 2}}\n", r"mine.yaml: recipe.train.steps: stands elsewhere; write train.steps"),
        ("extends: base\nrecipe: {dataset: {size: 2}}\n", r"mine.yaml: recipe.dataset: not a section of the recipe; one of window"),
        ("extends: base\nrecipe: {train: {clip: -1}}\n", r"mine.yaml: recipe.train.clip: Input should be greater than 0, found -1"),
        ("extends: base\nproducts: {a: {train: {clip: 1}}}\n", r"mine.yaml: products.a.train.clip: .* write products.a.recipe.train.clip"),
        ("extends: base\nproducts: {a: {recipe: {train: {clip: -1}}}}\n", r"products.a.recipe.train: clip: Input should be greater"),
        ("extends: wrong\n", r"wrong.yaml: train.steps: Input should be greater than or equal to 1, found 0"),
    ],
)
def test_what_is_refused_names_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, "presets/base.yaml", "products: {a: {}}\n")
    write(tmp_path, "presets/wrong.yaml", "products: {a: {}}\ntrain: {steps: 0}\n")
    path = write(tmp_path, "mine.yaml", text)
    with pytest.raises(UsageError, match=said):
        load_params(path)


def test_a_key_that_has_gone_names_what_holds_in_its_place(tmp_path: Path) -> None:
    for key, said in GONE.items():
        section, *names = key.split(".")
        value: object = 1
        for name in reversed(names):
            value = {name: value}
        path = write(tmp_path, "old.yaml", yaml.safe_dump({"products": {"a": {}}, section: value}))
        with pytest.raises(UsageError) as error:
            load_params(path)
        assert str(error.value) == f"{path}: {key}: {said}"
        assert names[0] not in ALL[section].model_fields or len(names) == 2, f"{key} is there again"


def test_a_chain_that_closes_behind_the_first_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "presets/one.yaml", "extends: two\n")
    write(tmp_path, "presets/two.yaml", "extends: one\n")
    with pytest.raises(UsageError, match=r"two.yaml: extends: one extends it in turn"):
        load_params(write(tmp_path, "mine.yaml", "extends: one\nproducts: {a: {}}\n"))


def test_the_graphs_file_holds_what_the_graph_is_made_of(tmp_path: Path) -> None:
    write(tmp_path, "presets/base.yaml", file_text(values_of("demo")))
    path = write(tmp_path, "params.yaml", "extends: base\nproducts: {nut: {}}\n")
    assert load_params(path).draw.products == ["fabric", "nut"], "without a graph beside it, it may be anything"
    write(tmp_path, "dvc.yaml", "stages: {}\n")
    with pytest.raises(UsageError, match=r"it lacks draw.products: \[fabric, nut\], dataset.root: data/made/demo, dataset.table: \., meth"):
        load_params(path)
    whole = file_form(load_params(tmp_path / "presets" / "base.yaml"))
    stated = {section: whole[section] for section in {key.split(".")[0] for key in GRAPH}}
    load_params(write(tmp_path, "params.yaml", yaml.safe_dump({"extends": "base", **stated})))
    write(tmp_path, "elsewhere.yaml", file_text(values_of("demo")))
    with pytest.raises(UsageError, match=r"extends: \./elsewhere.yaml: DVC watches .*presets alone; move the file there"):
        load_params(write(tmp_path, "params.yaml", yaml.safe_dump({"extends": "./elsewhere.yaml", **stated})))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_what_is_shown_is_a_file_of_the_same_parameters(preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["params", "--explain", "--params", str(preset)])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    again = load_params(write(tmp_path, "again.yaml", shown))
    assert again == load_params(preset)
    values = [line for line in shown.splitlines() if not line.lstrip().startswith("#") and not line.endswith(":")]
    assert all(" # " in line for line in values), "each value says where it comes from"
    assert "  # largest norm of all gradients together" in shown


def test_a_preset_is_written_over_presets_alone_unless_it_is_forced(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path, f"presets/{name}.yaml", f"products: {{{name}: {{}}}}\n")
    assert use_preset(tmp_path, "first") == "params.yaml is now presets/first.yaml"
    assert use_preset(tmp_path, "second") == "params.yaml is now presets/second.yaml"
    mine = write(tmp_path, "params.yaml", "products: {mine: {}}\n")
    with pytest.raises(UsageError, match="differs from every file of presets/, so the preset first would lose it"):
        use_preset(tmp_path, "first")
    assert list(load_params(mine).products) == ["mine"]
    use_preset(tmp_path, "first", force=True)
    assert list(load_params(mine).products) == ["first"]


def test_settings_change_where_a_stage_reads_what_changed_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def settings(**changes: dict) -> dict[str, bytes]:
        write_settings(load_params(write(tmp_path, "mine.yaml", file_text(over(values_of("demo"), changes)))))
        return {path.relative_to("data/made/settings").as_posix(): path.read_bytes() for path in Path("data/made/settings").rglob("*.yaml")}

    before = settings()

    def changes(**sections: dict) -> set[str]:
        return {name for name, content in settings(**sections).items() if content != before[name]}

    assert changes(products={"fabric": {}, "nut": {"detector": {"epochs": 9}}}) == {
        "report.yaml", "nut/detect.yaml", "nut/peer.yaml", "nut/maps.yaml", "nut/ship.yaml",
    }  # fmt: skip
    assert changes(draw={"normals": 7}) == {"report.yaml", "fabric/draw.yaml", "nut/draw.yaml"}
    both = {f"{product}/{stage}.yaml" for product in ("fabric", "nut") for stage in STAGES}
    assert changes(generate={"per_type": 41}) == {"report.yaml", *both}
    assert changes(cluster="local:2") == set()
    assert changes(train={"clip": 1.0}) == set(), "a value that is stated and not another"


def test_lifting_leaves_products_and_variants_with_their_names() -> None:
    assert lifted({"products": {"recipe": {"recipe": {"train": {"clip": 1}}}}}) == {"products": {"recipe": {"train": {"clip": 1}}}}


def test_at_most_sixty_keys_stand_outside_of_the_recipe() -> None:
    plain = sum(len(model.model_fields.keys() - model.RECIPE) for model in ALL.values())
    assert plain + len({"extends", "seed", "cluster", "products", "variants"}) <= 60


def test_every_key_says_what_it_is() -> None:
    lacking = [f"{name}.{key}" for name, model in ALL.items() for key, field in model.model_fields.items() if not field.description]
    assert lacking == []
    assert all(model.model_fields.keys() >= model.RECIPE for model in ALL.values())

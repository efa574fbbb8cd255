"""What can be known is asked before anything is computed: where the parameters are loaded, and in the first stage of a product."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from parameters import file_text, over, values_of
from stages.conftest import draw_plates

from cadiff.backbone import load_backbone
from cadiff.data import inspect_root
from cadiff.errors import UsageError
from cadiff.params import load_params
from cadiff.prompt import LearnedTokens
from cadiff.stages import run_stage
from cadiff.storage import write_image


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with plates of two products and parameters that read them."""
    monkeypatch.chdir(tmp_path)
    for seed, product in enumerate(("plate", "tray")):
        draw_plates(Path("raw"), product, seed)
    write({})
    return tmp_path


def write(changes: dict, preset: str = "own-data") -> None:
    values = over(values_of(preset), changes)
    values["dataset"] |= {"layout": "mvtec", "root": "raw", **changes.get("dataset", {})}
    values["products"] = {"plate": {}, "tray": {}, **changes.get("products", {})}
    Path("params.yaml").write_text(file_text(values))


def samples(product: str = "plate") -> None:
    run_stage("samples", load_params(), product)


def test_a_product_of_normals_alone_is_refused_first_with_its_name_and_can_be_left_out(own: Path) -> None:
    for part in ("test/spot", "ground_truth"):
        shutil.rmtree(own / "raw/plate" / part)
    (problem,) = inspect_root("raw").problems
    assert problem.startswith("raw/plate: no anomaly of any type, so that nothing can be generated or scored; put images of one with their")
    with pytest.raises(UsageError, match=r"^raw/plate: no anomaly of any type, .* or leave plate out of products in params.yaml"):
        samples()
    values = yaml.safe_load(Path("params.yaml").read_text())
    del values["products"]["plate"]
    Path("params.yaml").write_text(yaml.safe_dump(values))
    samples("tray")
    assert Path("data/made/samples/tray.parquet").is_file()


def test_a_product_of_which_nothing_is_scored_is_refused_first(own: Path) -> None:
    shutil.rmtree(own / "raw/plate/test/good")
    for path in sorted((own / "raw/plate").glob("*/spot/*.png"))[1:]:
        if not path.name.startswith("009"):
            path.unlink()
    with pytest.raises(UsageError, match="raw/plate: nothing to score on, as the one image of a type is learned from; add more of spot"):
        samples()


@pytest.mark.parametrize("background", ["generated", "real"])
@pytest.mark.parametrize("generator", ["pasted", "perturbed"])
@pytest.mark.parametrize("where", ["all", "one"])
def test_generators_that_start_from_real_pictures_need_them(own: Path, generator: str, background: str, where: str) -> None:
    generate = {"background": background, "start": "noise", "redraw": False}
    methods = {"generators": ["cadiff", generator]}
    changes = {"methods": methods, "window": {"cut": "whole"}, "masks": {"placement": "auto"}}
    if where == "all":
        write({**changes, "generate": generate})
    else:
        write({**changes, "products": {"tray": {"generate": generate}}})
    if background == "real":
        samples()
        return
    said = rf"recipe.generate.background: expected real with the generator {generator}, .*; or leave {generator} out of methods.generators"
    with pytest.raises(UsageError, match=said):
        load_params()
    write({**changes, "methods": {"generators": ["cadiff"]}, "generate": generate})  # as it says
    samples()


@pytest.mark.parametrize("changes", [{"masks": {"source": "folder"}}, {"products": {"tray": {"masks": {"source": "folder"}}}}])
def test_pasted_needs_exemplars_pixels(own: Path, changes: dict) -> None:
    write({"methods": {"generators": ["cadiff", "pasted"]}, **changes})
    with pytest.raises(UsageError, match=r"masks.source: expected exemplars with the generator pasted, .*, found folder; or leave pasted"):
        load_params()


def test_masks_of_a_folder_are_looked_at_first(own: Path) -> None:
    write({"masks": {"source": "folder", "placement": "auto"}})
    with pytest.raises(UsageError, match="data/masks/plate/spot: expected at least one mask here"):
        samples()
    mask = np.zeros((64, 64), np.uint8)
    write_image("data/masks/plate/spot/a.png", mask)
    with pytest.raises(UsageError, match=r"data/masks/plate/spot/a.png: empty mask"):
        samples()
    mask[4:9, 4:9] = 255
    write_image("data/masks/plate/spot/a.png", mask)
    write_image("data/masks/plate/Spott/a.png", mask)
    with pytest.raises(UsageError, match="data/masks/plate/Spott: no anomaly type of plate, which has spot; rename the folder"):
        samples()
    Path("data/masks/plate/Spott/a.png").rename("data/masks/plate/spot/b.png")
    Path("data/masks/plate/Spott").rmdir()
    samples()
    shutil.move("data/masks/plate", "away")
    Path("data/masks/plate").symlink_to(own / "away")
    with pytest.raises(UsageError, match="data/masks/plate: a link to a folder out of data/masks, behind which DVC sees no change"):
        samples()


def test_prompts_that_the_base_does_not_read_whole_are_refused_first(own: Path) -> None:
    """The embedded base reads 32 tokens: its two marks, nine words and two types beside the product."""
    for kind in ("dent", "crack"):
        for part in ("test", "ground_truth"):
            shutil.copytree(own / f"raw/plate/{part}/spot", own / f"raw/plate/{part}/{kind}")
    write({"prompt": {"vectors": 8}})
    with pytest.raises(UsageError, match=r"prompt.vectors: 8 embeddings a token make .*; this base reads 32: set it to \d or") as told:
        samples()
    fits = int(str(told.value).split("set it to ")[1][0])
    write({"prompt": {"vectors": fits + 1}})
    with pytest.raises(UsageError, match=r"prompt\.vectors"):
        samples()
    write({"prompt": {"vectors": fits}})
    samples()
    params = load_params().for_product("plate")
    backbone = load_backbone(params.base)
    for vectors, whole in ((fits, True), (fits + 1, False)):
        tokens = LearnedTokens(backbone, "plate", ["crack", "dent", "spot"], "anomaly", per_token=vectors)
        prompts = [tokens.prompt(backbone, ["crack", "dent"], k) for k in range(5)] if whole else []
        if whole:
            tokens.encode(backbone, prompts)
        else:
            with pytest.raises(UsageError, match="prompt: expected at most 30 tokens"):
                [tokens.prompt(backbone, ["crack", "dent"], k) for k in range(5)]
        backbone = load_backbone(params.base)


def test_tensorboard_is_asked_for_first(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CADIFF_TENSORBOARD", "boards")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="CADIFF_TENSORBOARD"):
        samples()


def test_pictures_smaller_than_what_the_base_draws_are_refused_first(own: Path) -> None:
    write({"dataset": {"size": "native"}, "products": {"plate": {"base": {"size": 128}}}})
    with pytest.raises(UsageError, match=r"64x64, smaller than base.size \(128\), which is what the base draws, .* 14 more: remove"):
        samples()
    samples("tray")
    write({"dataset": {"size": 128}, "products": {"plate": {"base": {"size": 128}}}})  # as it says
    samples()


def test_a_detectors_weights_are_asked_for_first(own: Path) -> None:
    write({"methods": {"detectors": ["cfa"]}})
    with pytest.raises(UsageError, match=r"peers.weights: RD4AD and CFA start from a backbone's ImageNet weights; expected hub"):
        samples()
    write({"metrics": {"inception": "nowhere.pth"}})
    with pytest.raises(UsageError, match=r"nowhere.pth"):
        samples()


def test_an_optimizers_package_is_asked_for_first(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    write({"train": {"optimizer": "adamw-8bit"}})
    with pytest.raises(UsageError, match=r"train.optimizer: adamw-8bit needs bitsandbytes, .* or set train.optimizer: adamw"):
        samples()
    write({"train": {"optimizer": "adamw-8bit"}, "methods": {"generators": ["pasted"], "unions": []}, "ship": {"methods": ["pasted"]}})
    samples()  # which trains nothing
    write({"train": {"optimizer": "adamw"}})  # as it says
    samples()


def test_a_detectors_encoder_is_asked_for_first(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="the extra smp is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(own / "hub"))
    write({"detector": {"network": "smp:resnet18"}})
    with pytest.raises(UsageError, match=r"smp:resnet18: its weights are not here .* or start from none with smp:resnet18:scratch"):
        samples()
    write({"detector": {"network": "smp:resnet18:scratch"}})  # as it says
    samples()


def test_visas_table_is_named_where_dvc_watches_it() -> None:
    assert values_of("visa-sd15")["dataset"]["table"] == "../split_csv/1cls.csv"


@pytest.mark.parametrize(("layout", "table"), [("visa", "."), ("mvtec", "../split_csv/1cls.csv")])
def test_a_table_that_is_not_the_layouts_is_refused(own: Path, layout: str, table: str) -> None:
    write({"dataset": {"layout": layout, "table": table}})
    with pytest.raises(UsageError, match=r"dataset.table: expected .* with layout: .*; DVC watches it beside each .*, so set table"):
        load_params()
    write({"dataset": {"layout": layout, "table": "." if layout == "mvtec" else "../split_csv/1cls.csv"}})
    assert load_params().dataset.layout == layout

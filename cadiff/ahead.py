"""What a product's stages would be refused for after hours, asked before anything is computed: by the stage ``samples``, by the
pipeline where that is up to date."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

from cadiff.errors import UsageError
from cadiff.masks.folder import FOLDER, drawn_mask, mask_files
from cadiff.names import composed
from cadiff.params import METHODS, SMP, Params, those_that_learn, those_that_need
from cadiff.records import SampleRow
from cadiff.task import Task
from cadiff.visible import visible


def check_ahead(task: Task) -> None:
    """That what the product's later stages ask for is there.

    Raises:
        UsageError: names what is missing: a picture that is smaller than what the base draws, a type's masks in ``data/masks``, a
            detector's or an optimizer's package, or a file of weights.
    """
    params, product, samples = task.params, task.product, task.samples
    _check_size(params, samples)
    if any(METHODS[method].typed for method in params.taking("scenes")) and params.masks.source == "folder":
        _check_masks(params, product, sorted({row.anomaly_type for row in samples if row.anomaly_type}))
    _check_prompts(params, product, sorted({str(row.anomaly_type) for row in samples if row.role == "exemplar"}))
    _check_optimizer(params)
    _check_tensorboard(params)
    _check_network(params)
    _check_peers(params)
    if params.metrics.inception or params.metrics.lpips or params.classifier.weights:
        from cadiff.metrics.networks import find_networks  # imports torch, which reading pictures does not need

        find_networks(params)


def _check_size(params: Params, samples: Sequence[SampleRow]) -> None:
    side = params.base.size
    if params.dataset.size != "native" or not params.taking("generate"):
        return
    if small := [row for row in samples if min(row.width, row.height) < side]:
        row = small[0]
        raise UsageError(
            f"{row.image_path}: {row.width}x{row.height}, smaller than base.size ({side}), which is what the base draws, and so are "
            f"{len(small) - 1} more: remove them, or set dataset.size to {side} or more, so that they are enlarged"
        )


def _check_masks(params: Params, product: str, types: Sequence[str]) -> None:
    folder = FOLDER / product
    for kind in types:
        for path in mask_files(product, kind):
            drawn_mask(path, (params.base.size, params.base.size))
    if unknown := [path for path in visible(folder) if path.is_dir() and composed(path.name) not in types]:
        raise UsageError(f"{unknown[0]}: no anomaly type of {product}, which has {', '.join(types)}; rename the folder, or remove it")


def _check_prompts(params: Params, product: str, types: Sequence[str]) -> None:
    """That the base reads the longest prompts whole: of two types, as the report composes them, or where the loss compares them of all.
    With one embedding a token every base reads two."""
    together = len(types) if params.prompt.contrastive_of == "all" else min(2, len(types))
    if not those_that_learn("tokens", params.methods) or (params.prompt.vectors == 1 and together <= 2):
        return
    from cadiff.backbone import load_words  # imports torch, as does the next
    from cadiff.prompt import longest_prompt

    if (words := load_words(params.base)) is None:
        return
    tokenizer, most = words

    def needed(vectors: int) -> int:
        own = params.prompt.model_copy(update={"vectors": vectors})
        return longest_prompt(tokenizer, product, list(types[:together]), own)[0]

    if (found := needed(params.prompt.vectors)) > most:
        fits = next((vectors for vectors in range(params.prompt.vectors - 1, 0, -1) if needed(vectors) <= most), None)
        advice = f"set it to {fits} or less" if fits else "set prompt.contrastive_of: shown" if together > 2 else "choose another base"
        raise UsageError(
            f"prompt.vectors: {params.prompt.vectors} embeddings a token make a prompt of {found} tokens where {product} has "
            f"{together} anomaly types in it; this base reads {most}: {advice}"
        )


def _check_tensorboard(params: Params) -> None:
    if those_that_learn("control", params.methods) and os.environ.get("CADIFF_TENSORBOARD"):
        from cadiff.generator.board import check_installed

        check_installed()


def _check_optimizer(params: Params) -> None:
    if params.train.optimizer == "adamw-8bit" and those_that_learn("control", params.methods):
        from cadiff.generator.steps import adamw_8bit

        adamw_8bit()


def _check_network(params: Params) -> None:
    """An encoder that comes from elsewhere is built once: nothing less says that it is known, has its weights and fits."""
    if params.taking("detect") and params.detector.network.startswith(SMP):
        from cadiff.detection.networks import network_of

        network_of(params.detector.network).build(params.detector, True)


def _check_peers(params: Params) -> None:
    chosen = those_that_need("anomalib", params.methods)
    if chosen and importlib.util.find_spec("anomalib") is None:
        raise UsageError(f'methods.detectors: {chosen[0]} needs anomalib, which is not installed. pip install -e ".[anomalib]"')
    if those_that_need("backbone", params.methods):
        from cadiff.metrics.networks import find_weights

        if find_weights(params.peers.backbone, params.peers.weights, "peers.weights") is None:
            raise UsageError(
                "peers.weights: RD4AD and CFA start from a backbone's ImageNet weights; expected hub (torch's cache) or a file, found null"
            )

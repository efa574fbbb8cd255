"""Look at data, run stages, export and verify what was made. Exit codes: 0 done, 1 failed, 2 wrong call.

With any command, ``--quiet`` hides progress and ``--debug`` shows tracebacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cadiff.errors import CADiffError, UsageError, exit_code
from cadiff.labels.names import FormatName
from cadiff.params import OURS, ExportFormat, Layout, as_lines, load_params, resolved, use_preset
from cadiff.progress import be_quiet

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
ParamsPath = Annotated[Path, typer.Option("--params", help="the parameters' file")]
Products = Annotated[list[str] | None, typer.Option("--product", help="may be given several times")]
Product = Annotated[str, typer.Option(help="one product of the parameters")]
Method = Annotated[str, typer.Option(help="one method of the parameters")]


@app.command()
def inspect(
    root: Path, layout: Annotated[Layout | None, typer.Option(help="recognised if not given")] = None,
    size: Annotated[str, typer.Option(help="dataset.size: px of the shorter side that pictures are brought to, or native")] = "256",
    base: Annotated[int, typer.Option(help="base.size: side of the squares that the base draws", min=16)] = 64,
) -> None:  # fmt: skip
    """Read a data set; print products, types, counts, how large defects will be, and every problem, each with its file."""
    from cadiff.data.inspect import inspect_root

    if size != "native" and not (size.isdecimal() and int(size) >= 16):
        raise UsageError(f"--size {size}: expected native or a number of px from 16 on")
    found = inspect_root(root, layout, "native" if size == "native" else int(size), base)
    typer.echo(found.text())
    if found.problems:
        raise CADiffError(f"{root}: {len(found.problems)} problems, named above. Mend or remove those files.")


@app.command()
def cut(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="the data set, in any layout; nothing is written there")],
    out: Annotated[Path, typer.Option(help="a new folder for the data set, in MVTec AD's layout")],
    layout: Annotated[Layout | None, typer.Option(help="recognised if not given")] = None,
    background: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="what transparent pictures are laid on; default: what borders the opaque normals")
    ] = None,
) -> None:
    """Make a data set of one with files of several pages, scans longer than 8 to 1 or transparent pictures, whole or not at all.

    A page becomes a picture, a scan overlapping pieces, what is transparent lies on a background; masks with them. All other pictures stay
    byte for byte."""
    from cadiff.cutting import cut_root
    from cadiff.cutting.backgrounds import parse_colour
    from cadiff.data.inspect import inspect_root

    for line in cut_root(root, out, layout, parse_colour(background) if background else None).lines():
        typer.echo(line)
    typer.echo(f"{out}: written\n")
    found = inspect_root(out, "mvtec")
    typer.echo(found.text())
    if found.problems:
        raise CADiffError(f"{out}: written, with {len(found.problems)} problems, named above. Mend those files.")


@app.command("import")
def import_(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="a label file, or a folder of such; see --format for the tools")],
    images: Annotated[Path, typer.Option(help="the folder of pictures, and of all below it, that the labels speak of")],
    out: Annotated[Path, typer.Option(help="a new folder for the data set, in MVTec AD's layout")],
    classes: Annotated[
        Path | None, typer.Option(help="a CSV: class,product,anomaly_type; is it not there, it is proposed there, and nothing imported")
    ] = None,
    product: Annotated[str | None, typer.Option(help="what to call the product; default: as the folder of pictures, or --classes")] = None,
    normals: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="pictures in which nothing is marked and that are normal, as 'ok/*' or '*'")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="hard links to the pictures in place of copies")] = False,
    format: Annotated[FormatName | None, typer.Option(help="recognised if not given")] = None,
) -> None:
    """Make a data set of labelled pictures, whole or not at all: masks from polygons, runs and boxes, pictures byte for byte."""
    from cadiff.data.inspect import inspect_root
    from cadiff.importing import import_labels
    from cadiff.importing.order import Order

    order = Order(labels, images, out, classes, product, tuple(normals or ()), link, format)
    proposing = classes is not None and not classes.exists()
    for line in import_labels(order).lines(order):
        typer.echo(line)
    if proposing:
        typer.echo(f"{classes}: the classes as proposed; nothing is imported yet. Look through it, and run this again")
        return
    typer.echo(f"{out}: written\n")
    found = inspect_root(out, "mvtec")
    typer.echo(found.text())
    if found.problems:
        raise CADiffError(f"{out}: written, with {len(found.problems)} problems, named above. Mend those files.")


@app.command()
def params(
    product: Annotated[str | None, typer.Argument(metavar="PRODUCT", help="with its own settings; default: those of all products")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="and what each means")] = False,
    path: ParamsPath = Path("params.yaml"),
) -> None:
    """Show all parameters as they are, and where each comes from: a file, a product's own settings, or the defaults."""
    for line in as_lines(resolved(path, product), explain):
        typer.echo(line)


@app.command()
def preset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a file of presets/, without .yaml")],
    force: Annotated[bool, typer.Option("--force", help="write over a params.yaml that is none of the presets")] = False,
) -> None:
    """Make a preset the parameters: write presets/NAME.yaml to params.yaml."""
    typer.echo(use_preset(Path(), name, force))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="a stage of dvc.yaml, without its @...")],
    product: Product = "",
    method: Method = "",
    params: ParamsPath = Path("params.yaml"),
) -> None:
    """Run one stage here and now, up to date or not (DVC calls stages this way)."""
    from cadiff.stages import run_stage

    run_stage(name, load_params(params), product, method)


@app.command()
def draw(out: Path, products: Products = None, params: ParamsPath = Path("params.yaml")) -> None:
    """Draw the demo's products into OUT/<product>, in MVTec AD layout."""
    from cadiff.data.demo import draw_product

    values = load_params(params)
    chosen = products or values.draw.products
    if taken := [out / product for product in chosen if (out / product).is_dir() and any((out / product).iterdir())]:
        raise UsageError(f"{taken[0]}: is there already, and nothing is drawn over images; name another folder, or remove it")
    for product in chosen:
        draw_product(values.draw, product, values.seed, out / product)
        typer.echo(out / product)


@app.command()
def export(
    out: Path,
    products: Products = None,
    method: Method = OURS,
    layout: Annotated[ExportFormat, typer.Option("--format", help="MVTec AD's folders, or what other tools train on")] = "mvtec",
    params: ParamsPath = Path("params.yaml"),
) -> None:
    """Write the generated images for any other tool: pictures and masks into OUT/<product>."""
    from cadiff.export import export_product

    values = load_params(params)
    if out.resolve().is_relative_to(Path(values.dataset.root).resolve()):
        raise UsageError(f"{out}: lies in the data set (dataset.root), which generated images must not be mixed with; name another folder")
    if method not in values.methods:
        raise UsageError(f"--method {method}: not among the parameters' methods; they have {', '.join(values.methods)}")
    for product in products or values.products:
        values.for_product(product)  # names it if it is unknown
        count = export_product(Path("data/made/generated") / method / product, out / product, layout)
        typer.echo(f"{out / product}: {count} images")


@app.command()
def generate(
    product: str,
    types: Annotated[list[str], typer.Option("--type", help="an anomaly type; given several times: all in one image")],
    out: Annotated[Path, typer.Option(help="folder for NNNN.png, NNNN_mask.png and rows.parquet")],
    count: Annotated[int, typer.Option(min=1, help="how many images")] = 1,
    intensity: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="range of w, within -2 to 2; default: params")
    ] = None,
    weights: Annotated[list[str] | None, typer.Option("--w", metavar="TYPE=W", help="a type's own w, before --intensity")] = None,
    masks: Annotated[list[Path] | None, typer.Option("--mask", exists=True, dir_okay=False, help="one for each --type")] = None,
    on: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="the image to draw on, or to heal (w <= 0); default: normals")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="default: params")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="denoising steps; default: params")] = None,
    params: ParamsPath = Path("params.yaml"),
) -> None:
    """Draw anomalous images on demand from the trained artefacts."""
    from cadiff.on_demand import Order, generate_on_demand

    order = Order(tuple(types), count, intensity, tuple(masks or ()), on, seed, steps, tuple(weights or ()))
    rows = generate_on_demand(load_params(params), product, order, out)
    typer.echo(f"{out}: {len(rows)} images with masks, rows.parquet")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="PRODUCT/<type>/ with <stem>_mask.png, or MVTec AD layout")],
    against: Annotated[Path, typer.Option(help="root of the real data set")],
    layout: Annotated[Layout | None, typer.Option(help="of the real data set; recognised if not given")] = None,
    products: Products = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", "--seeds", help="may be given several times; default: params")] = None,
    maps: Annotated[bool, typer.Option("--maps", help="DIR holds anomaly maps: PRODUCT/test/<type>/<name>.npy, .tiff, .png")] = False,
    out: Annotated[Path | None, typer.Option(help="a Parquet file for all figures")] = None,
    params: ParamsPath = Path("params.yaml"),
) -> None:
    """Score any generator's folder of images and masks with the pipeline's own detector and metrics, or any detector's
    folder of anomaly maps with the same metrics."""
    from rich.console import Console

    from cadiff.evaluate import evaluate_folder, evaluate_maps, lack_good, metrics_tables
    from cadiff.records import METRIC_SCHEMA, WITHOUT_GOOD, to_table
    from cadiff.storage import write_table

    values = load_params(params)
    if out and out.is_dir():
        raise UsageError(f"--out {out}: expected a file's name, found a folder")
    if seeds and len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds: expected each once, as their spread is measured, found {seeds}")
    if maps and seeds:
        raise UsageError("--seeds: anomaly maps are scored as they are; leave it out")
    if maps:
        rows = evaluate_maps(values, folder, against, layout, products or ())
    else:
        rows = evaluate_folder(values, folder, against, layout, products or (), seeds or ())
    for table in metrics_tables(rows):
        Console().print(table)
    if not maps and (without := lack_good(folder, products or ())):
        typer.echo(f"Caution: {', '.join(without)} {WITHOUT_GOOD}.")
    if out:
        write_table(out, to_table(rows, METRIC_SCHEMA))


@app.command()
def predict(
    product: str,
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURES...", help="files, folders (with all below), patterns such as '*.png'")],
    out: Annotated[Path, typer.Option(help="a new folder for predictions.parquet, predictions.csv, heat/ and mask/")],
    method: Annotated[str | None, typer.Option(help="whose detector; default: the first of ship.methods")] = None,
    seed: Annotated[int | None, typer.Option(help="of the detector; default: the first of detector.seeds")] = None,
    lines: Annotated[bool, typer.Option("--json", help="a line of JSON for each picture, on standard output")] = False,
    fail_on_defect: Annotated[bool, typer.Option("--fail-on-defect", help="exit with 4 if a picture is defective")] = False,
    params: ParamsPath = Path("params.yaml"),
) -> None:
    """Look at pictures with the product's trained detector: verdict, score, type and place of each.

    Exit codes: 0 done; 1 failed; 2 wrong call; 4 a defect was found and --fail-on-defect given; else 3 if pictures could not be
    read (they are listed, and are rows of the table)."""
    from cadiff.predict import check_verdicts, json_line, predict_pictures, summary_lines, told

    clear = "\r\x1b[K" if sys.stdout.isatty() and sys.stderr.isatty() else ""  # the progress bar's line
    summary = predict_pictures(
        load_params(params), product, pictures, out, method, seed, fail_on_defect,
        tell=lambda row: typer.echo(json_line(row) if lines else clear + told(row)),
    )  # fmt: skip
    for line in summary_lines(summary, out):
        typer.echo(line, err=lines)
    check_verdicts(summary, fail_on_defect)


@app.command()
def ship(
    product: str,
    out: Annotated[Path, typer.Option(help="a new folder for detector.onnx, detector.json, run.py and README.md")],
    method: Annotated[str | None, typer.Option(help="whose detector; default: the first of ship.methods")] = None,
    seed: Annotated[int | None, typer.Option(help="of the detector; default: the first of detector.seeds")] = None,
    again: Annotated[
        bool, typer.Option("--refit", help="train it once more on all labelled pictures first; the figures stay the evaluated one's")
    ] = False,
    params: ParamsPath = Path("params.yaml"),
) -> None:
    """Make the product's trained detector ready to be taken away: a folder that runs on numpy, pillow and onnxruntime alone."""
    from cadiff.ship import ship_product
    from cadiff.threshold_words import INSTALL

    said = ship_product(load_params(params), product, out, method, seed, again)
    megabytes = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    limit = "no threshold (see its README.md)" if said["image"] is None else f"threshold {said['image']['value']:.4g}"
    typer.echo(f"{out}: {said['product']}, {said['method']}, seed {said['seed']}, {megabytes:.1f} MB, {limit}")
    typer.echo(f"python {out / 'run.py'} PICTURE...  ({INSTALL})")


@app.command()
def verify() -> None:
    """Check every artefact against dvc.lock: nothing missing, changed or half-written."""
    from cadiff.verify import find_problems

    count, problems = find_problems(Path())
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise CADiffError(
            f"dvc.lock: {len(problems)} of {count} artefacts do not verify. `dvc checkout` brings back "
            "those that are in the cache, `dvc repro` makes the others again."
        )
    typer.echo(f"{count} artefacts verify")


@app.command()
def doctor(
    card: Annotated[
        float | None, typer.Option(metavar="GB", min=1, help="say what fits a card of so much memory, which need not be here")
    ] = None,
    params: ParamsPath = Path("params.yaml"),
) -> None:
    """Devices, precisions, versions, which weights are real and which are stand-ins, and what the parameters need: memory, hours, disk."""
    from cadiff.doctor import facts

    for name, value in facts(load_params(params), card):
        typer.echo(f"{name:<22} {value}")


@app.command()
def times() -> None:
    """Wall time and peak memory of each stage's last run on this machine."""
    from cadiff.stages import read_times

    rows = read_times()
    typer.echo(f"{'stage':<12}{'product':<14}{'method':<12}{'seconds':>9}{'peak MiB':>10}{'device MiB':>12}")
    for row in rows:
        device = "-" if row["device_peak_mib"] is None else row["device_peak_mib"]
        typer.echo(
            f"{row['stage']:<12}{row['product']:<14}{row['method']:<12}"
            f"{row['seconds']:>9.1f}{row['peak_mib']:>10}{device:>12}"
        )


def main(arguments: list[str] | None = None) -> None:
    """The command's entry; ``--debug`` anywhere shows tracebacks, ``--quiet`` anywhere hides progress."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    if "--quiet" in given:
        be_quiet()
    call = [word for word in given if word not in ("--debug", "--quiet")]
    sys.exit(exit_code(lambda: run_app(call), debug))


def run_app(call: list[str]) -> None:
    """Runs the app with our own errors let through, and a wrong call turned into one of them."""
    # typer names only this subclass of its usage error
    wrong_call: type[Any] = typer.BadParameter.__bases__[0]
    try:
        code = app(args=call, prog_name="cadiff", standalone_mode=False)
    except wrong_call as error:
        raise UsageError(f"{error.format_message()} See `cadiff --help`.") from None
    except typer.Abort:  # one of the two things that typer makes of Ctrl-C
        raise KeyboardInterrupt from None
    if code == 130:  # the other one
        raise KeyboardInterrupt


if __name__ == "__main__":
    main()

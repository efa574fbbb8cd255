"""Says of pictures whether they show a defect. Needs numpy, pillow>=10.1, onnxruntime; README.md says what for. Exit status: 0 done; 4 a
defect, with --fail-on-defect; 2 a wrong call, or a file of this folder is not as shipped; 3 else, if a picture could not be read."""
import argparse, contextlib, hashlib, io, itertools, json, math, pathlib, sys, numpy as np, onnxruntime, PIL.Image as Image  # noqa: E401, I001
def read(path, said):
    with Image.open(io.BytesIO(data := path.read_bytes()), formats=said["formats"]) as img, Image.open(io.BytesIO(data)) as lo:
        tags, deep, png, many = img.getexif(), said["range"], img.format == "PNG", img.format != "MPO" and getattr(img, "n_frames", 1) > 1
        bits = 16 if img.mode[0] in "IF" else data[24] if png else np.max(tags.get(258, 8)) if img.format == "TIFF" else 8
        values = np.asarray(img if bits > 8 else img.convert("RGB"))
        clear = img.has_transparency_data and (img.mode[0] in "IF" or np.asarray(img.convert("RGBA"))[..., 3].min() < 255)
        odd = not np.isfinite(values).all() or img.mode in ("CMYK", "LAB") or tags.get(274, 1) > 1 or (bits > 8 and tags.get(262) == 0)
        if (bits > 8) != bool(deep) or many or clear or odd or not said["smallest"] <= min(img.size) >= max(img.size) / said["longest"]:
            raise ValueError(f"expected {said['pictures']}; found {img.size[0]}x{img.size[1]} px, {img.format} {img.mode} of {bits} bits")
        if deep and img.mode[0] not in "IF":  # Pillow gives the upper bytes of 16-bit colours, and the lower ones in the other byte order
            lo.tile = [t._replace(args=(r[:-1] + "LB"[r[-1] in "LN"], *a)) for t in lo.tile for r, *a in [[t.args] if png else t.args]]
            values = (values * np.uint16(256) + np.asarray(lo))[..., :3]
    values = np.rint(np.clip((values.astype(np.float32) - deep[0]) * (255 / (deep[1] - deep[0])), 0, 255)) if deep else values
    return (values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)).astype(np.uint8)
def fitted(pixels, size):  # to so many px of the shorter side
    scale = 1 if size == "native" else size / min(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize(tuple(round(n * scale) for n in pixels.shape[1::-1]), Image.Resampling.LANCZOS))
def anomaly_map(seen, network, said):  # from square tiles, each of which counts less towards its border
    side, lap, sums = min(said["tile"], *seen.shape[:2]) // said["stride"] * said["stride"], said["overlap"], np.zeros((2, *seen.shape[:2]))
    along = [np.linspace(0, n - side, 1 + math.ceil((n - side) / (side * (1 - lap)))).round().astype(int) for n in seen.shape[:2]]
    ramp = (1 - np.cos(np.pi * np.minimum(np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5) / (lap * side), 1))) / 2
    for place in (np.s_[top : top + side, left : left + side] for top, left in itertools.product(*along)):
        sums[(..., *place)] += np.outer(ramp, ramp) * [network.run(None, {"image": seen[place][None]})[0][0], np.ones((side, side))]
    return (sums[0] / sums[1]).astype(np.float32)
def verdict(path, said, networks, heat=None):
    canvas = fitted(image := read(path, said), said["canvas"])
    found = anomaly_map(fitted(canvas, said["size"]), networks["detector.onnx"], said)
    heat and heat.parent.mkdir(parents=True, exist_ok=True)
    heat and Image.fromarray(np.round(found * 255).astype(np.uint8)).resize(image.shape[1::-1], Image.Resampling.BILINEAR).save(heat)
    sums = np.pad(found, ((w := 2 * int(said["pooling"] * min(found.shape) / said["pooling_at"] / 2) + 1) // 2 + 1, w // 2))  # w x w means
    score = float(((sums := sums.cumsum(0, float).cumsum(1))[w:, w:] - sums[:-w, w:] - sums[w:, :-w] + sums[:-w, :-w]).max() / w**2)
    called, kind = None if (top := said["image"] and said["image"]["value"]) is None else "defect" if score > top else "good", None
    if called == "defect" and said["classifier"]:
        square = np.asarray(Image.fromarray(canvas).resize((said["classifier"]["side"],) * 2, Image.Resampling.LANCZOS))
        kind = said["classes"][int(networks["classifier.onnx"].run(None, {"image": square[None]})[0].argmax())]
    like = said["colour"] != (image == image[..., :1]).all() and (np.clip(image.shape[:2], *said["shapes"]) == image.shape[:2]).all()
    return {"path": str(path), "verdict": called, "score": score, "threshold": top, "anomaly_type": kind, "unlike": not like, "error": None}
if __name__ == "__main__":
    parser, here = argparse.ArgumentParser(description=__doc__), pathlib.Path(__file__).resolve().parent
    [parser.add_argument(name, nargs=nargs, type=pathlib.Path) for name, nargs in (("pictures", "+"), ("--heat", None))]
    [parser.add_argument(flag, action="store_true") for flag in ("--json", "--fail-on-defect")]
    given, changed = parser.parse_args(), [own := "detector.json"]
    with contextlib.suppress(Exception):  # where it is absent, cut or something else, it counts as changed
        seal, text = (said := json.loads((here / own).read_bytes())).pop("self"), json.dumps(said, sort_keys=True)
        data = {path.name: path.read_bytes() for path in here.iterdir() if path.name in said["sha256"]} | {own: text.encode()}
        changed = [n for n, digest in {own: seal, **said["sha256"]}.items() if hashlib.sha256(data.get(n, b"")).hexdigest() != digest]
    changed and parser.exit(2, f"error: {here}: expected {', '.join(changed)} as shipped, found otherwise; copy it anew, or ship again\n")
    given.fail_on_defect and not said["image"] and parser.error("there is no threshold")
    networks, verdicts = {name: onnxruntime.InferenceSession(data[name]) for name in data if name.endswith(".onnx")}, set()
    for number, path in enumerate(given.pictures):
        try:
            row = verdict(path, said, networks, given.heat and given.heat / f"{number:05}-{path.stem}.png")
        except Exception as error:  # a broken file makes a decoder raise anything
            row = {"path": str(path), "verdict": "unreadable", "error": str(error)}
        verdicts.add(row["verdict"])
        print((json.dumps(row) if given.json else "\t".join(map(str, row.values()))).encode(errors="backslashreplace").decode(), flush=True)
    sys.exit(4 if given.fail_on_defect and "defect" in verdicts else 3 if "unreadable" in verdicts else 0)

"""Says of pictures whether they show a defect. Needs numpy, pillow and onnxruntime; README.md says what for. Exit status: 0 done; 4 a
defect, with --fail-on-defect; 2 a wrong call, or a file of this folder was changed; 3 else, if a picture could not be read."""
import argparse, hashlib, io, itertools, json, math, pathlib, sys, numpy as np, onnxruntime  # noqa: E401, I001
from PIL import Image
def read(path, said):
    with Image.open(io.BytesIO(data := path.read_bytes())) as img:
        bits = data[24] if img.format == "PNG" else np.max(img.getexif().get(258, 8)) if img.format == "TIFF" else 8
        clear = img.has_transparency_data and np.asarray(img.convert("RGBA"))[..., 3].min() < 255
        many, turned = img.format == "TIFF" and getattr(img, "n_frames", 1) > 1, img.getexif().get(274, 1) > 1
        if bits > 8 or img.mode[0] in "IF" or clear or many or turned:
            raise ValueError("expected one opaque, upright picture with 8 bits a channel")
        if min(img.size) < said["smallest"] or max(img.size) > said["longest"] * min(img.size):
            raise ValueError(f"expected at least {said['smallest']} px of the shorter side, and sides of {said['longest']} to 1 at most")
        return np.asarray(img.convert("RGB"))
def fitted(pixels, size):  # to so many px of the shorter side
    scale = 1 if size == "native" else size / min(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize(tuple(round(n * scale) for n in pixels.shape[1::-1]), Image.Resampling.LANCZOS))
def anomaly_map(seen, network, said):  # from square tiles, each of which counts less towards its border
    side, share = min(said["tile"], *seen.shape[:2]) // said["stride"] * said["stride"], said["overlap"]
    along = [np.linspace(0, n - side, 1 + math.ceil((n - side) / (side * (1 - share)))).round().astype(int) for n in seen.shape[:2]]
    ramp = (1 - np.cos(np.pi * np.minimum(np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5) / (share * side), 1))) / 2
    total, weights = np.zeros((2, *seen.shape[:2]))
    for place in (np.s_[top : top + side, left : left + side] for top, left in itertools.product(*along)):
        total[place] += np.outer(ramp, ramp) * network.run(None, {"image": seen[place][None]})[0][0]
        weights[place] += np.outer(ramp, ramp)
    return (total / weights).astype(np.float32)
def verdict(path, said, networks, heat=None):
    canvas = fitted(picture := read(path, said), said["canvas"])
    found = anomaly_map(fitted(canvas, said["size"]), networks["detector.onnx"], said)
    if heat:
        heat.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(found * 255).astype(np.uint8)).resize(picture.shape[1::-1], Image.Resampling.BILINEAR).save(heat)
    w = 2 * int(said["pooling"] * min(found.shape) / said["pooling_at"] / 2) + 1  # the score: the largest mean over w x w px
    sums = np.pad(found.astype(np.float64), (w // 2 + 1, w // 2)).cumsum(0).cumsum(1)  # with zeros beyond the border
    score = float((sums[w:, w:] - sums[:-w, w:] - sums[w:, :-w] + sums[:-w, :-w]).max() / w**2)
    limit, kind = said["image"] and said["image"]["value"], None
    called = None if limit is None else "defect" if score > limit else "good"
    if called == "defect" and said["classifier"]:
        square = np.asarray(Image.fromarray(canvas).resize((said["classifier"]["side"],) * 2, Image.Resampling.LANCZOS))
        kind = said["classes"][int(networks["classifier.onnx"].run(None, {"image": square[None]})[0].argmax())]
    return {"path": str(path), "verdict": called, "score": score, "threshold": limit, "anomaly_type": kind, "error": None}
if __name__ == "__main__":
    parser, here = argparse.ArgumentParser(description=__doc__), pathlib.Path(__file__).resolve().parent
    parser.add_argument("pictures", nargs="+", type=pathlib.Path)
    parser.add_argument("--heat", type=pathlib.Path)
    [parser.add_argument(flag, action="store_true") for flag in ("--json", "--fail-on-defect")]
    given, said = parser.parse_args(), json.loads((here / "detector.json").read_bytes())
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in here.iterdir() if path.name in said["sha256"]}
    if (changed := dict(said["sha256"].items() - digests.items())) or (given.fail_on_defect and not said["image"]):
        parser.error(f"{', '.join(sorted(changed))}: not as shipped; copy the folder anew" if changed else "there is no threshold")
    networks, verdicts = {name: onnxruntime.InferenceSession(here / name) for name in digests if name.endswith(".onnx")}, set()
    for number, path in enumerate(given.pictures):
        try:
            row = verdict(path, said, networks, given.heat and given.heat / f"{number:05}-{path.stem}.png")
        except Exception as error:  # a broken file makes a decoder raise anything
            row = {"path": str(path), "verdict": "unreadable", "error": str(error)}
        verdicts.add(row["verdict"])
        line = json.dumps(row) if given.json else "\t".join(map(str, row.values()))  # a name may be no UTF-8
        print(line.encode(errors="backslashreplace").decode(), flush=True)
    sys.exit(4 if given.fail_on_defect and "defect" in verdicts else 3 if "unreadable" in verdicts else 0)

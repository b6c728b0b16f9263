"""MODEL_CARD.md: bundle.json for people. Every number stands beside the protocol that it was measured under."""

from collections.abc import Mapping, Sequence
from typing import Any

from roadseg.deploy.latency import PARTS

SHARES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_dice": "mean Dice",
}


def render(content: Mapping[str, Any]) -> str:
    """The card's markdown, from bundle.json's content."""
    sections = (_head, _accuracy, _latency, _use, _provenance)
    return "\n\n".join(section(content) for section in sections) + "\n"


def _head(content: Mapping[str, Any]) -> str:
    recipe, size, space = content["recipe"], content["input"], content["space"]
    return f"""# {content["model"]}

Real-time segmentation of driving scenes: a {size["width"]}×{size["height"]} RGB image in, one of the
{len(space["classes"])} classes of {space["name"]} for each pixel out. Network {recipe["network"]}, loss
{recipe["loss"]}, learning rate {recipe["learning_rate"]:.2g}, crops of {recipe["crop"]:g} of the scene's sides.

![What it makes of one scene](sample.png)

Why this one: {content["decision"] or "no reason was recorded"}"""


def _accuracy(content: Mapping[str, Any]) -> str:
    metrics = content["metrics"]
    protocol = metrics["protocol"]
    splits = [split for split in ("val", "official", "test") if metrics[split]]  # a source may keep its test labels
    present = " and ".join(f"{metrics[split]['classes_present']} in {split}" for split in splits)
    sizes = ", ".join(f"{count} {split}" for split, count in protocol["splits"].items())
    overall = [[split, *(_percent(metrics[split][name]) for name in SHARES)] for split in splits]
    classes = [
        [name, *(_percent(metrics[split]["iou"][name]) for split in splits)] for name in content["space"]["classes"]
    ]
    return f"""## Accuracy

In per cent, of the deployed form. The model was chosen on the validation split ({protocol["val"]}); the others
are only reported.
Protocol: one confusion matrix over a split's labelled pixels, {protocol["resolution"]}; means are over the classes that
the split's labels show ({present}). Scenes: {sizes}. Pre-training: {protocol["pretraining"]}.

{_table(["split", *SHARES.values()], overall)}

{_table(["class", *(f"{split} IoU" for split in splits)], classes)}{_elsewhere(metrics["elsewhere"])}"""


def _elsewhere(found: Mapping[str, Any]) -> str:
    """The scores on sources that it was never trained on; empty where there are none."""
    rows = [[name, _percent(one["miou"]), str(one["classes_present"])] for name, one in found.items() if one]
    return f"\n\nOut of domain, never trained on:\n\n{_table(['source', 'mIoU', 'classes'], rows)}" if rows else ""


def _latency(content: Mapping[str, Any]) -> str:
    deployed = content["forms"][content["form"]]["certificate"]
    machine = deployed["fingerprint"]
    gpu = [str(machine["gpu"])] if "gpu" in machine else []
    hardware = ", ".join([machine["cpu"], f"{machine['cores']} cores", machine["os"], *gpu])
    versions = ", ".join(f"{name} {version}" for name, version in deployed["versions"].items())
    columns = [
        "form",
        "p50",
        "p95",
        "95 % interval",
        "p99",
        *(f"{part} p95" for part in PARTS),
        "calls",
        "val mIoU",
        "",
    ]
    rows = [_form(form, deployed=place == content["form"]) for place, form in enumerate(content["forms"])]
    text = f"""## Latency

Milliseconds of one image of {deployed["image"][1]}×{deployed["image"][0]} (batch 1), after warm-up. The budget is
{content["budget_ms"]:g} ms of p95 in all. Normalisation and arg max are part of inference; reading the file and
colouring are in none.

{_table(columns, rows)}

Measured on {deployed["device_id"]} ({hardware}) with
{versions}.
It holds for this device and these versions only; `run.py` says whether it holds where it runs."""
    if deployed["stable"]:
        return text
    return f"""{text}

**Unstable**: the interval of the p95 stayed wide, and `target.accept_unstable` let it pass. Take this latency as an
indication, and time it again on a quiet machine."""


def _form(form: Mapping[str, Any], *, deployed: bool) -> list[str]:
    timed = form["certificate"]
    ends = [f"{timed[key]:.2f}" for key in ("p95_low_ms", "p95_high_ms")]
    parts = [f"{timed['parts'][part]['p95_ms']:.2f}" for part in PARTS]
    return [
        f"{form['engine']} {form['precision']}, {form['threads']} thr.",
        f"{timed['p50_ms']:.2f}",
        f"{timed['p95_ms']:.2f}",
        "–".join(ends),
        f"{timed['p99_ms']:.2f}",
        *parts,
        str(timed["n"]),
        _percent(form["val_miou"]),
        "**deployed**" if deployed else form["why"],
    ]


def _use(content: Mapping[str, Any]) -> str:
    size = f"{content['input']['height']}, {content['input']['width']}"
    return f"""## Use

    pip install onnxruntime numpy pillow
    python run.py IMAGE_OR_FOLDER --out DIR

`model.onnx` takes `image`, uint8 [1, {size}, 3], RGB 0-255, not normalised, and gives `ids`, uint8 [1, {size}].
Images of another size are resized to it, and their ids back. It knows scenes like those that it was trained on; other
cameras, countries and weather are untested, and it is no safety component."""


def _provenance(content: Mapping[str, Any]) -> str:
    data, code = content["data"], content["code"]
    licences = "\n".join(f"- {name}: {source['licence']}" for name, source in data["sources"].items())
    revision = f"{code['revision'] or 'unknown'}{' with changes' if code['dirty'] else ''}"
    return f"""## Where it comes from

Trained on {len(data["training_scenes"])} scenes, each with its SHA-256 in bundle.json. Terms of the data, which bind
the use of this model too:

{licences}

roadseg {code["roadseg"]}, git revision {revision}. SHA-256 of model.onnx: {content["onnx_sha256"]}."""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, ["---"] * len(columns), *rows])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f}"

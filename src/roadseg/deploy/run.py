"""Segments images with the bundle that this file lies in. Needs onnxruntime (1.18 or newer), numpy and pillow; openvino
is optional.

    python run.py IMAGE_OR_FOLDER --out DIR

For each image NAME.* it writes NAME.png (uint8 class ids, at the image's own size) and NAME_overlay.png (their colours
over the image). bundle.json lists the classes, their colours, and the form (engine, precision, threads, device) that
the model was certified in; that form is used where this machine has it, and one line says whether the certificate holds
here. The same file is what roadseg judges and times models with, so it imports nothing from roadseg.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
OVERLAY = 0.55  # share of the class colour in an overlay
ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "asimd", "bf16")
PACKAGES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",)}

Infer = Callable[[np.ndarray], np.ndarray]


class Problem(Exception):
    """What the person who runs this can fix, in one line."""


@dataclass(frozen=True)
class Form:
    """How a model is deployed. Latency and ids are only ever known for one form."""

    engine: str
    precision: str
    threads: int
    device: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}, {self.threads} thread{'s'[: self.threads > 1]}, {self.device}"


class Session:
    """A model opened in one form. Not for use by two threads at once.

    Attributes:
        size: (height, width) of the model's input, pixels.
    """

    def __init__(self, model: Path, form: Form) -> None:
        if form.engine not in OPENERS:
            raise Problem(f"engine {form.engine!r} is not known: use one of {', '.join(OPENERS)}")
        self.form = form
        self.infer: Infer
        try:
            self.infer, self.size = OPENERS[form.engine](model, form)
        except Problem:
            raise
        except Exception as error:  # an engine that does not load, or is older than the model, fails in its own way
            why = " ".join(str(error).split())
            raise Problem(f"{form.engine} {version(form.engine)} cannot open {model.name}: {why}") from error

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """uint8 HWC RGB 0-255 of any size -> uint8 [1, H, W, 3] at the input's size (bilinear where it differs)."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise Problem(f"an image must be uint8 of shape height x width x 3; this is {image.dtype} {image.shape}")
        height, width = self.size
        if image.shape[:2] != self.size:
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        return np.ascontiguousarray(image)[None]

    @staticmethod
    def postprocess(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """uint8 [1, H, W] -> uint8 HW at `size` = (height, width), by nearest neighbour where it differs."""
        if ids.shape[1:] == size:
            return ids[0]
        return np.asarray(Image.fromarray(ids[0]).resize((size[1], size[0]), Image.Resampling.NEAREST))

    def run(self, image: np.ndarray) -> np.ndarray:
        """uint8 HWC RGB 0-255 -> uint8 HW class ids, at the image's own size."""
        return self.postprocess(self.infer(self.preprocess(image)), (image.shape[0], image.shape[1]))


def _onnxruntime(model: Path, form: Form) -> tuple[Infer, tuple[int, int]]:
    try:
        import onnxruntime
    except ImportError:
        raise Problem("onnxruntime is not installed: pip install onnxruntime") from None

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = form.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    provider: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    if form.device == "cuda":
        provider = ("CUDAExecutionProvider", {"use_tf32": "1" if form.precision == "tf32" else "0"})
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if (form.device, form.precision) not in {("cpu", "float32"), ("cuda", "float32"), ("cuda", "tf32")}:
        raise Problem(f"onnxruntime has no {form.precision} on {form.device}")
    if provider[0] not in onnxruntime.get_available_providers():
        raise Problem(f"this onnxruntime has no {provider[0]}, so no {form.device}: install one that has")
    # Pad_Fusion folds zero padding into a max pooling, which pads with minus infinity: other ids, or a refusal to load.
    session = onnxruntime.InferenceSession(
        str(model), options, providers=[provider], disabled_optimizers=["Pad_Fusion"]
    )
    if session.get_providers()[0] != provider[0]:
        raise Problem(f"onnxruntime fell back from {provider[0]} to {session.get_providers()[0]}")
    _, height, width, _ = session.get_inputs()[0].shape
    # run() returns arrays in this process's memory, so it is over only when the device is.
    return lambda batch: session.run(["ids"], {"image": batch})[0], (height, width)


def _openvino(model: Path, form: Form) -> tuple[Infer, tuple[int, int]]:
    # Each import of OpenVINO would report to its makers, where it finds this package; it has no switch.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise Problem("openvino is not installed") from None

    precisions = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}
    if form.device != "cpu" or form.precision not in precisions:
        raise Problem(f"openvino has no {form.precision} on {form.device}")
    wanted = precisions[form.precision]
    settings = {
        "INFERENCE_PRECISION_HINT": wanted,
        "INFERENCE_NUM_THREADS": form.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(str(model), "CPU", settings)
    # OpenVINO takes a precision that the CPU lacks without a word and computes in float32.
    got = compiled.get_property("INFERENCE_PRECISION_HINT")
    if got != wanted or list(compiled.get_property("EXECUTION_DEVICES")) != ["CPU"]:
        raise Problem(f"openvino fell back from {form.precision} on the CPU to {got}")
    request = compiled.create_infer_request()

    def infer(batch: np.ndarray) -> np.ndarray:
        return request.infer({"image": batch}, share_inputs=True)["ids"]

    _, height, width, _ = compiled.input("image").shape
    return infer, (height, width)


OPENERS = {"onnxruntime": _onnxruntime, "openvino": _openvino}


# ---- the machine -----------------------------------------------------------------------------------------------------


def fingerprint(device: str = "cpu") -> dict[str, Any]:
    """What a latency depends on here: CPU model, usable cores, instruction sets, system; for cuda, the GPU too."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    generation = [f"{key} {fields[key]}" for key in ("cpu family", "model", "stepping") if key in fields]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine: dict[str, Any] = {
        "cpu": ", ".join([fields.get("model name") or platform.processor() or platform.machine(), *generation]),
        "cores": cores,
        "isa": [flag for flag in ISA if flag in flags],
        "os": f"{platform.system()} {platform.machine()}",
    }
    return machine | {"gpu": _gpu()} if device == "cuda" else machine


def _gpu() -> str | None:
    question = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(question, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def device_id(device: str = "cpu") -> str:
    """A short name of this machine as a place to run on: the same fingerprint, the same id."""
    machine = fingerprint(device)
    name = machine["gpu"] or "no gpu" if device == "cuda" else machine["cpu"].split(",")[0]
    slug = re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")[:32].strip("-")
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:8]
    return f"{device}-{machine['cores']}x-{slug}-{digest}"


def version(engine: str) -> str | None:
    """The engine's installed version; None where it is not installed."""
    for package in PACKAGES[engine]:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


# ---- the bundle ------------------------------------------------------------------------------------------------------


def verify(folder: Path) -> None:
    """Holds a bundle against its SHA256SUMS. Raises Problem naming the first file that is missing or changed."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise Problem(f"{folder} is not a bundle: SHA256SUMS is missing")
    lines = [line.split("  ", 1) for line in sums.read_text("utf-8", "replace").splitlines() if "  " in line]
    listed = {name: digest for digest, name in lines}
    for name in ["model.onnx", "bundle.json", *listed]:
        if name not in listed:
            raise Problem(f"{sums} does not list {name}: get the bundle again")
        path = folder / name
        if not path.is_file():
            raise Problem(f"{path} is missing: get the bundle again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != listed[name]:
            raise Problem(f"{path} is not the file that SHA256SUMS lists: get the bundle again")


def certified_form(bundle: Mapping[str, Any]) -> tuple[Form, dict[str, Any]]:
    """The form that the bundle was promoted in, and its certificate."""
    chosen = bundle["forms"][bundle["form"]]
    return Form(**{key: chosen[key] for key in ("engine", "precision", "threads", "device")}), chosen["certificate"]


def open_bundle(folder: Path) -> tuple[Session, dict[str, Any], str]:
    """Verifies a bundle and opens its model in the certified form, else in onnxruntime float32 on the CPU.

    Returns:
        The session, bundle.json's content, and one line that says whether the certificate holds here.
    """
    verify(folder)
    bundle = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    form, certificate = certified_form(bundle)
    fallback = Form("onnxruntime", "float32", form.threads, "cpu")
    try:
        session = Session(folder / "model.onnx", form)
    except Problem as reason:
        if form == fallback:
            raise
        return Session(folder / "model.onnx", fallback), bundle, f"uncertified: runs on {fallback}, because {reason}"
    here, there = device_id(form.device), certificate["device_id"]
    if here != there:
        return session, bundle, f"uncertified: {form} was certified on {there}, this is {here}"
    installed, timed = version(form.engine), certificate["versions"].get(form.engine)
    if installed != timed:
        return session, bundle, f"uncertified: {form} was certified with version {timed}, this is {installed}"
    doubt = "" if certificate["stable"] else ", which was not stable while it was measured,"
    return session, bundle, f"certified: {form}, p95 {certificate['p95_ms']:.1f} ms{doubt} on {here}"


def images(source: Path) -> list[Path]:
    """The image, or a folder's images in order of name. Raises Problem where there is none."""
    if source.is_dir():
        found = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
        if not found:
            raise Problem(f"{source} holds no image ({', '.join(SUFFIXES)})")
        written: dict[str, Path] = {}
        for path in found:
            for name in _outputs(path):
                if other := written.get(name):
                    raise Problem(f"{other} and {path} would both be written to {name}: rename one")
                written[name] = path
        return found
    if not source.is_file():
        raise Problem(f"{source} does not exist: give an image or a folder of images")
    return [source]


def read_image(path: Path) -> np.ndarray:
    """uint8 HWC RGB 0-255. Raises Problem naming the file where it is not an image."""
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # Pillow would cut it off at 255
                raise ValueError(f"its pixels are {image.mode}, more than 8 bits deep: scale them to 8")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))  # a phone says in EXIF which side is up
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Problem(f"{path} cannot be read as an image: {error}") from None


def overlay(image: np.ndarray, ids: np.ndarray, colours: Sequence[Sequence[int]]) -> np.ndarray:
    """uint8 HWC: the ids' colours over the image."""
    table = np.zeros((256, 3), dtype=np.float32)
    table[: len(colours)] = colours
    return (image * (1 - OVERLAY) + table[ids] * OVERLAY).round().astype(np.uint8)


def segment(session: Session, bundle: Mapping[str, Any], path: Path, out: Path) -> None:
    """One image: writes OUT/NAME.png (ids) and OUT/NAME_overlay.png."""
    if out.resolve() == path.parent.resolve():
        raise Problem(f"{out} holds the images themselves, which the id masks would overwrite: give another --out")
    image = read_image(path)
    ids = session.run(image)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, pixels in zip(_outputs(path), (ids, overlay(image, ids, bundle["space"]["colours"])), strict=True):
            Image.fromarray(pixels).save(out / name)
    except OSError as error:
        raise Problem(f"--out {out} cannot be written to ({error.strerror or error}): give another folder") from None


def _outputs(path: Path) -> tuple[str, str]:
    """Names of an image's id mask and overlay."""
    return f"{path.stem}.png", f"{path.stem}_overlay.png"


def main() -> None:
    parser = argparse.ArgumentParser(description="Segments an image or a folder of images with this bundle.")
    parser.add_argument("source", type=Path, help="an image or a folder of images")
    parser.add_argument("--out", type=Path, required=True, help="folder for id masks and overlays")
    arguments = parser.parse_args()
    try:
        session, bundle, note = open_bundle(Path(__file__).resolve().parent)
        print(note, file=sys.stderr)
        found = images(arguments.source)
        for number, path in enumerate(found, start=1):
            segment(session, bundle, path, arguments.out)
            print(f"{number}/{len(found)} {path}", file=sys.stderr)
    except Problem as problem:
        print(f"run.py: {problem}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from roadseg import config, labels, paths
from roadseg.deploy import bundle, device, run
from roadseg.errors import UserError
from tests import brightest

PROJECT = paths.Path(__file__).resolve().parents[1]
SPACE = labels.load("cityscapes19")


def certificate(engine="onnxruntime", device_id=None, **changes):
    times = {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0}
    return {
        "engine": engine,
        "device_id": device_id or device.device_id(),
        "fingerprint": device.fingerprint(),
        "versions": device.versions(),
        "input": [24, 32],
        "image": [24, 32],
        "warm_up": 5,
        "n": 100,
        **times,
        "p95_low_ms": 1.9,
        "p95_high_ms": 2.1,
        "stable": True,
        "parts": dict.fromkeys(("preprocess", "inference", "postprocess"), times),
        "load": 0.1,
    } | changes


def form(engine="onnxruntime", precision="float32", **changes):
    timed = certificate(engine, **changes)
    base = {"engine": engine, "precision": precision, "threads": 1, "device": "cpu"}
    return base | {"certificate": timed, "val_miou": 0.5, "valid": True, "why": ""}


def scored(miou):
    shares = dict.fromkeys(("pixel_accuracy", "mean_accuracy", "mean_dice"), 0.625)
    iou = dict.fromkeys(SPACE.classes, 0.25) | {"train": None}
    return {"miou": miou, **shares, "iou": iou, "classes_present": 18}


def candidate(model, forms=None, chosen=0):
    return {
        "name": "enet-focal",
        "network": "enet",
        "loss": "focal",
        "crop": 0.75,
        "learning_rate": 0.01,
        "training": "0123456789ab",
        "onnx": str(model),
        "onnx_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "input": {"height": 24, "width": 32},
        "forms": forms or [form()],
        "form": chosen,
        "val": scored(0.5123),
        "test": scored(0.4321),
        "official": None,
        "elsewhere": {},
        "protocol": {
            "space": SPACE.name,
            "sources": ["streets"],
            "val": "official splits",
            "splits": {"train": 2, "val": 1, "test": 1},
            "resolution": "at the labels' own resolution, which is the input's",
            "pretraining": "none",
        },
    }


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project with a profile, a sample image and the model that NumPy can follow."""
    monkeypatch.chdir(tmp_path)
    paths.PROFILE.mkdir(parents=True)
    rows = [("train", "a.png", "ia", "la"), ("train", "b.png", "ib", "lb"), ("val", "c.png", "ic", "lc")]
    columns = ["split", "image", "image_sha256", "label_sha256"]
    pd.DataFrame(rows, columns=columns).to_csv(paths.PROFILE / "scenes.csv", index=False)
    brightest.save(tmp_path / "scene.png", brightest.picture(5))
    brightest.write(tmp_path / "model.onnx")
    return tmp_path


def made(project, forms=None, chosen=0):
    settings = config.read(PROJECT / "params.yaml")
    one = candidate(project / "model.onnx", forms, chosen)
    decision = {"reason": "best val mIoU within the budget"}
    bundle.assemble(one, settings, project / "bundle", decision=decision, sample=project / "scene.png")
    return project / "bundle"


def test_bundle_is_complete_and_says_where_it_comes_from(project):
    folder = made(project)
    assert {path.name for path in folder.iterdir()} == {*bundle.FILES, "SHA256SUMS"}
    assert (folder / "model.onnx").read_bytes() == (project / "model.onnx").read_bytes()
    content = json.loads((folder / "bundle.json").read_text())
    assert content["data"]["training_scenes"] == {
        "a.png": {"image_sha256": "ia", "label_sha256": "la"},
        "b.png": {"image_sha256": "ib", "label_sha256": "lb"},
    }
    assert content["space"]["colours"][0] == list(SPACE.colours[0])
    assert content["model"] == config.read(PROJECT / "params.yaml").target.registered_name("cityscapes19")
    assert content["metrics"]["protocol"]["pretraining"] == "none"


def test_sums_are_what_sha256sum_checks(project):
    folder = made(project)
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    others = {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    assert set(done.stdout.splitlines()) == {f"{name}: OK" for name in others}


def test_sample_is_this_models_own_overlay(project):
    folder = made(project)
    image = brightest.picture(5)
    colours = np.array(SPACE.colours)[brightest.answer(image)]
    expected = image * 0.45 + colours * 0.55
    assert np.abs(np.asarray(Image.open(folder / "sample.png")) - expected).max() <= 0.5 + 1e-3


def test_card_tells_numbers_with_their_protocol_terms_and_device(project):
    unstable = form(stable=False)
    other = form("openvino", "bfloat16") | {"valid": False, "why": "val mIoU 40% is more than 0.1 point from float32's"}
    card = (made(project, [unstable, other]) / "MODEL_CARD.md").read_text()
    for told in (
        "| val | 51.2 | 62.5 | 62.5 | 62.5 |",
        "| test | 43.2 | 62.5 | 62.5 | 62.5 |",
        "| train | – | – |",
        "at the labels' own resolution",
        "2 train, 1 val, 1 test",
        "Pre-training: none",
        "best val mIoU within the budget",
        "- streets: drawn by roadseg: no terms",
        device.device_id(),
        "**Unstable**",
        "more than 0.1 point from float32's",
    ):
        assert told in card, told
    assert "**Unstable**" not in (made(project, [form()]) / "MODEL_CARD.md").read_text()


def test_card_without_a_labelled_test_split(project):
    settings = config.read(PROJECT / "params.yaml")
    one = candidate(project / "model.onnx") | {"test": None}
    bundle.assemble(one, settings, project / "bundle", decision={}, sample=project / "scene.png")
    card = (project / "bundle" / "MODEL_CARD.md").read_text()
    assert "| class | val IoU |\n| --- | --- |" in card
    assert "no reason was recorded" in card


def test_only_what_was_judged_is_bundled(project):
    one = candidate(project / "model.onnx")
    settings = config.read(PROJECT / "params.yaml")
    brightest.write(project / "model.onnx", 48, 64)
    with pytest.raises(UserError, match=r"model.onnx is not the file that evaluate judged: run evaluate again"):
        bundle.assemble(one, settings, project / "bundle", decision={}, sample=project / "scene.png")
    with pytest.raises(UserError, match="enet-focal has no valid form"):
        bundle.assemble(one | {"form": None}, settings, project / "bundle", decision={}, sample=project / "scene.png")


@pytest.mark.parametrize("name", bundle.FILES)
def test_verify_names_what_is_missing_or_changed(project, name):
    folder = made(project)
    bundle.verify(folder)
    kept = (folder / name).read_bytes()
    (folder / name).write_bytes(kept + b" ")
    with pytest.raises(UserError, match=f"{name} is not the file that SHA256SUMS lists"):
        bundle.verify(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing: get the bundle again"):
        bundle.verify(folder)


def test_verify_wants_sums_that_list_the_model(project):
    folder = made(project)
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "model.onnx" not in line))
    with pytest.raises(UserError, match=r"does not list model.onnx"):
        bundle.verify(folder)
    sums.unlink()
    with pytest.raises(UserError, match="is not a bundle: SHA256SUMS is missing"):
        bundle.verify(folder)


# ---- which form runs


def opened(project, *forms):
    session, _, note = run.open_bundle(made(project, list(forms)))
    return str(session.form), note


def test_certified_form_on_its_own_device(project):
    assert opened(project, form()) == (
        "onnxruntime float32, 1 thread, cpu",
        f"certified: onnxruntime float32, 1 thread, cpu, p95 2.0 ms on {device.device_id()}",
    )
    assert opened(project, form("openvino"))[0] == "openvino float32, 1 thread, cpu"


def test_another_devices_or_versions_certificate_does_not_hold(project):
    _, note = opened(project, form(device_id="cpu-96x-other"))
    assert note.startswith("uncertified: onnxruntime float32, 1 thread, cpu was certified on cpu-96x-other, this is")
    _, note = opened(project, form(versions={"onnxruntime": "0.1"}))
    assert "was certified with version 0.1, this is" in note


def test_missing_engine_falls_back_and_says_so(project, monkeypatch):
    folder = made(project, [form("openvino")])  # where openvino is
    monkeypatch.setitem(sys.modules, "openvino", None)
    session, _, note = run.open_bundle(folder)
    assert session.form.engine == "onnxruntime"
    assert note == "uncertified: runs on onnxruntime float32, 1 thread, cpu, because openvino is not installed"


def test_an_engine_that_does_not_load_falls_back_too(project, monkeypatch):
    def broken(model, form):
        raise OSError("libopenvino.so.2600:\n cannot open shared object file")

    folder = made(project, [form("openvino")])
    monkeypatch.setitem(run.OPENERS, "openvino", broken)
    _, _, note = run.open_bundle(folder)
    installed = run.version("openvino")
    assert note.endswith(
        f"because openvino {installed} cannot open model.onnx: libopenvino.so.2600: cannot open shared object file"
    )


def test_a_latency_that_was_not_stable_is_said_to_be(project):
    unstable = form()
    unstable["certificate"]["stable"] = False
    assert "p95 2.0 ms, which was not stable while it was measured, on" in opened(project, unstable)[1]


def test_device_id_follows_the_fingerprint(monkeypatch):
    assert device.device_id() == device.device_id()
    before = device.device_id()
    fingerprint = run.fingerprint()
    monkeypatch.setattr(run, "fingerprint", lambda device: fingerprint | {"isa": ["amx_bf16"]})
    assert device.device_id() != before


def test_run_py_needs_three_packages_only(project):
    """Alone in another folder, with everything but the standard library, onnxruntime, numpy and pillow forbidden."""
    folder = made(project)
    guard = project / "guard"
    guard.mkdir()
    # An import of anything else that is installed here fails as it would where only the three are.
    (guard / "sitecustomize.py").write_text(
        "import sys\n"
        "absent = {'torch', 'onnx', 'openvino', 'roadseg', 'rich', 'pandas', 'yaml', 'cv2', 'scipy'}\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in absent:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Guard())\n"
    )
    image = brightest.picture(6, 48, 64)
    brightest.save(project / "photos" / "one.png", image)
    environment = {**os.environ, "PYTHONPATH": str(guard)}
    words = [sys.executable, str(folder / "run.py"), "photos", "--out", "ids"]
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "1/1 photos/one.png"
    small = np.asarray(Image.fromarray(image).resize((32, 24), Image.Resampling.BILINEAR))
    ids = np.asarray(Image.open(project / "ids" / "one.png"))
    assert ids.shape == (48, 64)
    assert np.array_equal(ids[::2, ::2], brightest.answer(small))

    (folder / "model.onnx").write_bytes(b"")
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr == f"run.py: {folder / 'model.onnx'} is not the file that SHA256SUMS lists: get the bundle again\n"
    )

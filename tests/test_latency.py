import ast
import time
from functools import partial

import numpy as np
import pytest

from roadseg import closure
from roadseg.deploy import engines, latency, timings
from roadseg.deploy.engines import Form
from roadseg.errors import UserError
from tests import brightest


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(latency, "WARM_UP_S", 0.0)
    monkeypatch.setattr(latency, "ROUND_S", 0.0)
    monkeypatch.setattr(latency, "certify", partial(latency.certify, max_seconds=0.02))


class Fake:
    """A session whose clock is ours: inference takes the next of `times`, milliseconds."""

    form, size = Form("onnxruntime", "float32", 1, "cpu"), (24, 32)

    def __init__(self, times, monkeypatch):
        self.now, self.times, self.calls = 0, times, 0
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now / 1e9)

    def _pass(self, milliseconds):
        self.now += int(milliseconds * 1e6)

    def preprocess(self, image):
        self._pass(1)
        return image[None]

    def infer(self, batch):
        self._pass(self.times(self.calls))
        self.calls += 1
        return batch[..., 0]

    def postprocess(self, ids, size):
        self._pass(2)
        return ids[0]


def test_percentiles_parts_and_total_by_hand(monkeypatch):
    session = Fake(lambda call: 10, monkeypatch)
    certificate = latency.certify(session, brightest.picture(0))
    assert (certificate.p50_ms, certificate.p95_ms, certificate.p99_ms) == (13, 13, 13)
    assert {name: part["p95_ms"] for name, part in certificate.parts.items()} == {
        "preprocess": 1,
        "inference": 10,
        "postprocess": 2,
    }
    assert certificate.stable
    assert certificate.n == latency.MIN_ROUNDS * 20  # rounds of 0.25 s / 13 ms, rounded up


def test_warm_up_does_not_count(monkeypatch):
    session = Fake(lambda call: 500 if call < 3 else 10, monkeypatch)
    certificate = latency.certify(session, brightest.picture(0))
    assert certificate.p99_ms == 13
    assert certificate.warm_up >= latency.WARM_UP_CALLS
    assert certificate.n + certificate.warm_up == session.calls


def test_a_slow_network_on_a_quiet_machine_is_stable(monkeypatch):
    certificate = latency.certify(Fake(lambda call: 1500, monkeypatch), brightest.picture(0))
    assert certificate.stable
    assert certificate.n == latency.MIN_ROUNDS * latency.ROUND_CALLS


def test_restless_machine_is_unstable_and_stops_in_time(monkeypatch):
    noise = np.random.default_rng(0).exponential(40, 10_000)
    session = Fake(lambda call: 10 + noise[call], monkeypatch)
    certificate = latency.certify(session, brightest.picture(0), max_seconds=3)
    assert not certificate.stable
    assert certificate.p95_low_ms < certificate.p95_ms < certificate.p95_high_ms
    assert session.now < 5e9


def test_slow_spells_widen_the_interval_more_than_the_same_times_shuffled():
    """Neighbouring calls are not independent: the same times in whole slow rounds tell less than spread out."""
    spells = np.full((20, 30), 10.0)
    spells[:2] = 20
    shuffled = np.random.default_rng(0).permutation(spells.ravel()).reshape(spells.shape)
    low, high, stable = latency.interval(spells, 0.05)
    assert (low, high, stable) == (10, 20, False)
    assert latency.interval(shuffled, 0.05)[2]


def test_too_few_rounds_are_never_stable():
    assert not latency.interval(np.full((latency.MIN_ROUNDS - 1, 30), 10.0), 0.05)[2]
    assert latency.interval(np.full((latency.MIN_ROUNDS, 30), 10.0), 0.05)[2]


def test_certificate_of_a_real_session_says_where_and_what(tmp_path, quick):
    model = brightest.write(tmp_path / "model.onnx", 24, 32)
    session = engines.open_session(model, "onnxruntime", "float32", 1)
    certificate = latency.certify(session, brightest.picture(0, 48, 64)).as_dict()
    assert (certificate["input"], certificate["image"]) == ((24, 32), (48, 64))
    assert 0 < certificate["p50_ms"] <= certificate["p95_ms"] <= certificate["p99_ms"]
    assert certificate["fingerprint"]["cores"] >= 1
    assert certificate["device_id"].startswith("cpu-")
    assert {"onnxruntime", "numpy", "python"} <= certificate["versions"].keys()


# ---- the table


@pytest.fixture
def counted(tmp_path, monkeypatch, quick):
    """`timings.table` in an empty project with stand-ins for exporting; the list of networks that were exported."""
    exported = []

    def random(network, classes, height, width, path):
        exported.append(network)
        brightest.write(path, height, width)

    monkeypatch.setenv("ROADSEG_HOME", str(tmp_path))
    monkeypatch.setattr(timings, "random_model", random)
    return exported


FORMS = [Form("onnxruntime", "float32", 1, "cpu"), Form("openvino", "float32", 1, "cpu")]


def test_table_times_each_network_and_form_once(counted):
    rows = timings.table(["enet", "fastscnn"], 5, 24, 32, FORMS)
    assert [(row["network"], row["engine"]) for row in rows] == [
        ("enet", "onnxruntime"),
        ("enet", "openvino"),
        ("fastscnn", "onnxruntime"),
        ("fastscnn", "openvino"),
    ]
    assert all(row["p95_ms"] > 0 and row["height"] == 24 and row["precision"] == "float32" for row in rows)
    assert counted == ["enet", "fastscnn"]
    assert timings.table(["enet", "fastscnn"], 5, 24, 32, FORMS) == rows
    assert counted == ["enet", "fastscnn"]


@pytest.mark.parametrize("change", ["classes", "size", "code", "device", "versions"])
def test_table_times_again_what_could_have_changed(counted, monkeypatch, change):
    timings.table(["enet"], 5, 24, 32, FORMS[:1])
    classes, height = 5, 24
    if change == "classes":
        classes = 6
    if change == "size":
        height = 48
    if change == "code":
        monkeypatch.setattr(timings.closure, "digest", lambda modules, imports: "another")
    if change == "device":
        monkeypatch.setattr(timings.device, "fingerprint", lambda device: {"cpu": "another"})
    if change == "versions":
        monkeypatch.setattr(timings.device, "versions", lambda: {"onnxruntime": "another"})
    timings.table(["enet"], classes, height, 32, FORMS[:1])
    assert counted == ["enet", "enet"]


@pytest.mark.parametrize(
    ("module", "stale"),
    [("nets.enet", True), ("nets.blocks", True), ("deploy.run", True), ("nets.fastscnn", False), ("nets", False)],
)
def test_a_timing_is_stale_by_its_own_code_and_not_by_a_sisters(monkeypatch, module, stale):
    before = timings._key("enet", 5, 24, 32, FORMS[0])
    parsed = closure._parsed

    def edited(name):
        tree = parsed(name)
        return ast.parse(ast.unparse(tree) + "\nEDITED = 1") if name == f"roadseg.{module}" else tree

    monkeypatch.setattr(closure, "_parsed", edited)
    assert (timings._key("enet", 5, 24, 32, FORMS[0]) != before) is stale


def test_unknown_network_names_what_there_is(counted):
    with pytest.raises(UserError, match="there is no network 'resnet': choose one of enet"):
        timings.table(["resnet"], 5, 24, 32, FORMS)


def test_an_unstable_row_over_the_budget_is_timed_again_and_the_best_is_kept(counted, monkeypatch):
    rows = iter([(9.0, False), (7.0, False), (8.0, False), (4.0, True), (1.0, True)])

    def timed(model, form, image):
        p95, stable = next(rows)
        return dict.fromkeys(timings.COLUMNS, 0) | {"p95_ms": p95, "stable": stable}

    monkeypatch.setattr(timings, "_timed", timed)

    def once():
        (row,) = timings.table(["enet"], 5, 24, 32, FORMS[:1], budget_ms=5.0)
        return row["p95_ms"], row["stable"]

    assert once() == (7.0, False), "three times, then the best of them"
    assert once() == (4.0, True), "asked anew, it is tried again"
    assert once() == (4.0, True), "what fits is not"
    assert next(rows) == (1.0, True)


def test_a_row_far_over_the_budget_is_timed_once_a_call(counted, monkeypatch):
    rows = iter([20.0, 19.0, 18.0])

    def timed(model, form, image):
        return dict.fromkeys(timings.COLUMNS, 0) | {"p50_ms": 10.0, "p95_ms": next(rows), "stable": False}

    monkeypatch.setattr(timings, "_timed", timed)
    for p95 in (20.0, 19.0):
        (row,) = timings.table(["enet"], 5, 24, 32, FORMS[:1], budget_ms=5.0)
        assert row["p95_ms"] == p95


def test_an_image_of_another_size_is_resized_on_the_clock(counted, monkeypatch):
    seen = []

    def certify(session, image):
        seen.append((session.size, image.shape))
        return real(session, image)

    real = latency.certify
    monkeypatch.setattr(latency, "certify", certify)
    for image in (None, (48, 64), (48, 64)):
        timings.table(["enet"], 5, 24, 32, FORMS[:1], image=image)
    assert seen == [((24, 32), (24, 32, 3)), ((24, 32), (48, 64, 3))]

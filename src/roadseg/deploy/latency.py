"""How long one image takes: the certificate of a deployed form.

What is timed is the session that a deployer runs (run.py), on one camera image in memory (uint8 HWC):

    preprocess    resize to the input's size where it differs, make it a batch of one
    inference     the engine's synchronous call, from bytes to class ids: normalisation, network and arg max are inside
    postprocess   ids back to the image's size where it differs
    total         all three; the budget is held against its p95

Reading, decoding, colouring and writing files are a program's own business and are not in it.
"""

import math
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from roadseg.deploy import device
from roadseg.deploy.engines import Session

PARTS = ("preprocess", "inference", "postprocess")
WARM_UP_CALLS, WARM_UP_S = 5, 0.3
ROUND_CALLS, ROUND_S = 2, 0.25  # a round is at least both: long enough to feel what else the machine does
MIN_ROUNDS = 10  # however slow a call is: fewer say nothing about their spread
DRAWS = 300  # of the bootstrap


@dataclass(frozen=True)
class Certificate:
    """A measured latency: one form of one model, on one machine. Times are milliseconds of one image (batch 1)."""

    engine: str
    precision: str
    threads: int
    device: str
    device_id: str
    fingerprint: dict[str, Any]
    versions: dict[str, str]
    input: tuple[int, int]
    """Height, width of the model's input, pixels."""
    image: tuple[int, int]
    """Height, width of the image that was given, pixels."""
    warm_up: int
    """Calls before the first that counts."""
    n: int
    """Calls that count."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p95_low_ms: float
    p95_high_ms: float
    """95 % interval of the p95, by a bootstrap over rounds of calls."""
    stable: bool
    """The interval is within `width` of the p95 on both sides, on average."""
    parts: dict[str, dict[str, float]]
    """p50_ms, p95_ms, p99_ms of preprocess, inference and postprocess apart (percentiles do not add up)."""
    load: float
    """The machine's load average of the minute before: where it is near the number of cores, others were timed too."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def certify(session: Session, image: np.ndarray, *, max_seconds: float = 6.0, width: float = 0.05) -> Certificate:
    """Times `session` on `image` (uint8 HWC RGB 0-255) until the p95 is known to ±`width` or, once there are MIN_ROUNDS
    rounds, `max_seconds` are over.

    Calls come in rounds of about a quarter second, and the interval of the p95 comes from resampling whole rounds:
    neighbouring calls share what else the machine is doing, so resampling single calls would promise too much. When
    time is over first, `stable` is False.
    """
    load = os.getloadavg()[0]
    warm_up, typical = _warm_up(session, image)
    calls = max(ROUND_CALLS, math.ceil(ROUND_S / typical))
    rounds: list[np.ndarray] = []
    deadline = time.perf_counter() + max_seconds
    stable = False
    while not stable and (len(rounds) < MIN_ROUNDS or time.perf_counter() < deadline):
        rounds.append(np.array([_call(session, image) for _ in range(calls)]))
        low, high, stable = interval(np.stack(rounds)[:, :, -1], width)
    times = np.concatenate(rounds)
    total, *apart = (_percentiles(times[:, column]) for column in (-1, 0, 1, 2))
    p50, p95, p99 = total.values()
    form = session.form
    return Certificate(
        **asdict(form),
        device_id=device.device_id(form.device),
        fingerprint=device.fingerprint(form.device),
        versions=device.versions(),
        input=session.size,
        image=(image.shape[0], image.shape[1]),
        warm_up=warm_up,
        n=len(times),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        p95_low_ms=round(low, 4),
        p95_high_ms=round(high, 4),
        stable=stable,
        parts=dict(zip(PARTS, apart, strict=True)),
        load=round(load, 2),
    )


def interval(rounds: np.ndarray, width: float, seed: int = 0) -> tuple[float, float, bool]:
    """Bootstrap 95 % interval (low, high) of the p95 of `rounds` (float [rounds, calls]), and whether it is narrow.

    Narrow: at least MIN_ROUNDS rounds, and half the interval at most `width` times the p95.
    """
    picks = np.random.default_rng(seed).integers(0, len(rounds), (DRAWS, len(rounds)))
    p95s = np.percentile(rounds[picks].reshape(DRAWS, -1), 95, axis=1)
    low, high = (float(value) for value in np.percentile(p95s, [2.5, 97.5]))
    narrow = (high - low) / 2 <= width * float(np.percentile(rounds, 95))
    return low, high, narrow and len(rounds) >= MIN_ROUNDS


def _warm_up(session: Session, image: np.ndarray) -> tuple[int, float]:
    """Calls until allocators, caches and clocks have settled: how many, and the last ones' median in seconds."""
    times: list[float] = []
    end = time.perf_counter() + WARM_UP_S
    while len(times) < WARM_UP_CALLS or time.perf_counter() < end:
        times.append(_call(session, image)[-1] / 1e3)
    return len(times), float(np.median(times[len(times) // 2 :]))


def _call(session: Session, image: np.ndarray) -> tuple[float, float, float, float]:
    """Milliseconds of preprocess, inference, postprocess and all of it, for one image."""
    clock = time.perf_counter_ns
    start = clock()
    batch = session.preprocess(image)
    ready = clock()
    ids = session.infer(batch)  # returns when the ids are in this process's memory
    inferred = clock()
    session.postprocess(ids, (image.shape[0], image.shape[1]))
    end = clock()
    return (ready - start) / 1e6, (inferred - ready) / 1e6, (end - inferred) / 1e6, (end - start) / 1e6


def _percentiles(times: np.ndarray) -> dict[str, float]:
    values = np.percentile(times, [50, 95, 99])
    return {f"{name}_ms": round(float(value), 4) for name, value in zip(("p50", "p95", "p99"), values, strict=True)}

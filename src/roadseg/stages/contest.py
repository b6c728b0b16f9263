"""Who reigns: the decision rule, as a pure function of the contenders. `promote` feeds it and acts on it.

The rule: the best mIoU on today's validation scenes whose measured p95 latency, in the form that will be deployed, is
within the budget on the named device, and no class of which is below its floor. Test scores are shown, never compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from roadseg.config import Target
from roadseg.metrics import bootstrap_interval, paired_bootstrap, scores


@dataclass(frozen=True)
class Contender:
    """A model in the form that it would be deployed in."""

    name: str
    sha256: str
    """Of its ONNX file."""
    form: Mapping[str, Any] | None
    """Entry of candidates.json's `forms`: engine, precision, threads, device, certificate. None where none is valid."""
    matrices: np.ndarray | None
    """Per-scene confusion on today's validation scenes, int64 [S, C, C]; None where it cannot be judged."""
    test_miou: float | None
    version: int | None = None
    """Of the registered model; None for a candidate."""
    unfit: str = ""
    """Why it cannot be deployed at all, where it cannot."""

    @property
    def miou(self) -> float:
        """-1 where it cannot be judged: last in every order."""
        return -1.0 if self.matrices is None else scores(self.matrices).miou

    @property
    def p95_ms(self) -> float:
        return float(self.form["certificate"]["p95_ms"]) if self.form else float("inf")

    def iou(self, classes: Sequence[str]) -> dict[str, float | None]:
        """Of each class; None where the split's labels lack it."""
        if self.matrices is None:
            return dict.fromkeys(classes)
        return dict(zip(classes, scores(self.matrices).iou, strict=True))

    def faults(self, target: Target, classes: Sequence[str]) -> list[str]:
        """Why the rule shuts it out, whatever its mIoU; empty where it does not."""
        if self.unfit or self.form is None:
            return [self.unfit or "no form of it is valid"]
        certificate = self.form["certificate"]
        found = []
        if self.p95_ms > target.budget_ms:
            found.append(f"p95 {self.p95_ms:.1f} ms is over the budget of {target.budget_ms:g} ms")
        if not certificate["stable"] and not target.accept_unstable:
            found.append(f"its p95 of {self.p95_ms:.1f} ms is unstable, and target.accept_unstable is off")
        iou = self.iou(classes)
        for name, floor in target.floors.items():
            value = iou[name]
            if value is not None and value < floor:
                found.append(f"{name} at {value:.1%} is below its floor of {floor:.1%}")
        return found


def deployment(form: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a certificate is of: the form, the machine, the engine's version. In another a model is deployed anew."""
    certificate = form["certificate"]
    parts = (form[part] for part in ("engine", "precision", "threads", "device"))
    return *parts, certificate["device_id"], certificate["versions"].get(form["engine"])


@dataclass(frozen=True)
class Decision:
    """What the rule says."""

    outcome: Literal["promoted", "unchanged", "kept", "none"]
    """promoted: the winner is a candidate and not the champion yet, or not in this form, on this machine, with this
    version of the engine. unchanged: the champion is the best candidate.
    kept: the champion, of an earlier run, is better than every candidate. none: nobody may be deployed."""
    reason: str
    """One line."""
    winner: Contender | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    """A row a contender, the winner first: name, version, miou with its interval low and high, gap_low and gap_high
    (interval of its mIoU minus the winner's), p95_ms, stable, form, lowest (class), lowest_iou, test_miou, verdict,
    iou (by class). Shares are 0..1; what is not known is None."""


def nobody_fit(candidates: Sequence[Contender], target: Target, classes: Sequence[str]) -> str:
    """Why no candidate may be deployed, by the nearest one's faults; empty where one may."""
    faults = {one.name: one.faults(target, classes) for one in candidates}
    if not all(faults.values()):
        return ""
    nearest = min(candidates, key=lambda one: one.p95_ms)
    return f"no candidate may be deployed; the nearest is {nearest.name}: {'; '.join(faults[nearest.name])}"


def decide(
    candidates: Sequence[Contender], champion: Contender | None, target: Target, classes: Sequence[str], seed: int
) -> Decision:
    """Apply the rule. A champion that is also a candidate is given as both, and is judged as the candidate; its own
    `form` is the one that it is deployed in."""
    entrants = [*candidates]
    if champion and champion.sha256 not in {one.sha256 for one in candidates}:
        entrants.append(champion)
    faults = {one.name: one.faults(target, classes) for one in entrants}
    fit = [one for one in entrants if not faults[one.name]]
    # At the same mIoU the reigning model stays; then the faster one.
    reigning = champion.sha256 if champion else ""
    ranked = sorted(fit, key=lambda one: (-one.miou, one.sha256 != reigning, one.p95_ms, one.name))
    if not ranked:
        return Decision("none", nobody_fit(candidates, target, classes), None)
    winner = ranked[0]
    outcome: Literal["promoted", "unchanged", "kept"] = "promoted"
    if winner is champion:
        outcome = "kept"
    elif champion and winner.sha256 == reigning and _deployment(winner) == _deployment(champion):
        outcome = "unchanged"
    reason = _reason(outcome, winner, champion)
    rows = [_row(winner, winner, classes, seed, reason)]
    for one in sorted((one for one in entrants if one is not winner), key=lambda one: -one.miou):
        verdict = "; ".join(faults[one.name]) or _behind(one, winner, seed)
        rows.append(_row(one, winner, classes, seed, verdict))
    return Decision(outcome, reason, winner, rows)


def _deployment(one: Contender) -> tuple[Any, ...] | None:
    return deployment(one.form) if one.form else None


def _reason(outcome: str, winner: Contender, champion: Contender | None) -> str:
    what = f"{winner.name}: mIoU {winner.miou:.1%}, p95 {winner.p95_ms:.1f} ms"
    if outcome == "unchanged":
        return f"{what}: the best candidate is the champion already"
    if outcome == "kept":
        return f"{what}: the champion is better than every candidate"
    if champion is None:
        return f"{what}: the best candidate, and there was no champion"
    if champion.sha256 == winner.sha256:
        return f"{what}: the champion's model, deployed anew: as {_words(winner)}, which was {_words(champion)}"
    if champion.matrices is None:
        return f"{what}: the best candidate; the champion, {champion.name}, is out: {champion.unfit}"
    return f"{what}: the best; the champion was {champion.name} with mIoU {champion.miou:.1%}"


def _words(one: Contender) -> str:
    """Form, engine's version and machine."""
    if one.form is None:
        return "in no form"
    engine, precision, threads, device, device_id, version = deployment(one.form)
    return f"{engine} {version} {precision}, {threads} threads, {device}, on {device_id}"


def _behind(one: Contender, winner: Contender, seed: int) -> str:
    assert one.matrices is not None and winner.matrices is not None, "a contender without scores is unfit"
    if one.miou == winner.miou:
        return "the same mIoU; the winner reigns already or is faster"
    gap = paired_bootstrap(winner.matrices, one.matrices, seed)
    doubt = "" if gap["low"] > 0 else "; on other scenes it could be the other way round"
    return f"mIoU {(winner.miou - one.miou) * 100:.1f} points lower{doubt}"


def _row(one: Contender, winner: Contender, classes: Sequence[str], seed: int, verdict: str) -> dict[str, Any]:
    iou = one.iou(classes)
    shown = {name: value for name, value in iou.items() if value is not None}
    lowest = min(shown, key=lambda name: shown[name], default=None)
    interval, gap = {}, {}
    if one.matrices is not None and winner.matrices is not None:
        interval = bootstrap_interval(one.matrices, seed)
        gap = paired_bootstrap(one.matrices, winner.matrices, seed)
    return {
        "name": one.name,
        "version": one.version,
        "miou": None if one.matrices is None else one.miou,
        "low": interval.get("low"),
        "high": interval.get("high"),
        "gap_low": gap.get("low"),
        "gap_high": gap.get("high"),
        "p95_ms": one.p95_ms if one.form else None,
        "stable": bool(one.form["certificate"]["stable"]) if one.form else None,
        "form": "{engine} {precision}, {threads} threads, {device}".format(**one.form) if one.form else None,
        "lowest": lowest,
        "lowest_iou": shown[lowest] if lowest else None,
        "test_miou": one.test_miou,
        "verdict": verdict,
        "iou": iou,
    }

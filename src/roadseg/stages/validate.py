"""validate: stops the line where the data is not fit to be trained on.

Reads data/profile/scenes.csv and classes.csv; writes data/validation/: report.json (what later stages depend on: no
timestamp, no absolute path), summary.md (the same for people) and docs/ (Great Expectations' HTML pages). All three are
written where a check fails as well; the stage then ends with one line that names the files.

A check of severity `critical` fails the stage, a `warning` is only reported. A class that the *training* split lacks is
critical, as it cannot be learned; one that val or test lacks is a warning, since a mean IoU is over the classes present
and says how many. A sequence in several splits is critical unless the source's official splits are known for it.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core import ExpectationValidationResult
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.row_conditions import Column, Condition

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.scenes import sources
from roadseg.stages import audit
from roadseg.stages.stage import stage

NAMED = 20  # offenders that a report lists by name; the rest are counted
SEVERITY = {"fail": FailureSeverity.CRITICAL, "warn": FailureSeverity.WARNING}
NEAR = 4  # bits of 64
RAGGED = 0.15  # between 0.07, the most that was seen in a drawn mask, and 0.30, the least in an interpolated one
ODD = 3  # Tukey's far fence
DRIFT = 0.25  # of the pixels


@dataclass(frozen=True)
class Finding:
    """The outcome of one check, as report.json has it."""

    check: str
    says: str
    severity: str
    passed: bool
    offenders: tuple[str, ...]
    """At most `NAMED` of them."""
    offenders_in_all: int
    advice: str
    waived: tuple[str, ...] = ()
    """What is not so and may be, each with its reason: no offenders."""


def run(config: Config) -> None:
    """Writes data/validation/. UserError naming the scenes or classes where a critical check fails."""
    space = sources.space_of(config)
    for name in config.validate_.classes_absent:
        if name not in space.classes:
            known = ", ".join(space.classes)
            raise UserError(
                f"params.yaml: validate.classes_absent: {space.name} has no class {name!r}; it has: {known}"
            )
    with stage("validate") as running:
        scenes = audit.scene_table()
        folder = running.folder(paths.VALIDATION)
        findings = check(suites(config, scenes), docs=folder / "docs", waive=config.validate_.waive)
        _write(folder, findings, scenes)
        for finding in findings:
            if not finding.passed and finding.severity == "warning":
                print(f"validation warns: {sentence(finding)}")
            if finding.waived:
                print(f"validation waives {finding.check}: {'; '.join(finding.waived[:3])}")
        failing = [finding for finding in findings if not finding.passed and finding.severity == "critical"]
        if failing:
            shutil.rmtree(paths.VALIDATION, ignore_errors=True)  # the stage fails, and its report still takes its place
            folder.replace(paths.VALIDATION)
            more = f" (also failing: {', '.join(finding.check for finding in failing[1:])})" if failing[1:] else ""
            raise UserError(f"validation: {sentence(failing[0])}{more}; see {paths.VALIDATION / 'summary.md'}")


def _says(
    check: str, says: str, advice: str, rows: Condition | None = None, severity: str = "critical"
) -> dict[str, Any]:
    """What every check has: its name, what it expects, what to do where that is not so, and which rows it is about."""
    meta = {"check": check, "advice": advice}
    return {"description": says, "severity": severity, "meta": meta, "row_condition": rows}


def split_checks() -> list[Expectation]:
    """What must hold of the splits."""
    advice = "training and selection need labelled scenes: look at the source's lists"
    says = _says("labelled splits", "train and val have labelled scenes", advice, rows=Column("where") != "test")
    shares = _says(
        "class shares",
        f"a split's class shares differ from training's by at most {DRIFT:.0%} of its pixels",
        "scores there say less of training's roads: look at data/profile/classes.csv",
        severity="warning",
    )
    return [
        gxe.ExpectColumnValuesToBeBetween(column="labelled", min_value=1, **says),
        gxe.ExpectColumnValuesToBeBetween(column="drift", max_value=DRIFT, **shares),
    ]


def scene_checks(void_share: float) -> list[Expectation]:
    """What must hold of scenes.csv."""
    pair = "restore the pair, or fetch and remap the source again"
    copies = "remove the copies"
    void = "mend these masks, or raise validate.void_share in params.yaml"
    limit = f"at most {void_share:.0%} of a scene's pixels are void (validate.void_share)"
    return [
        gxe.ExpectColumnValuesToNotBeNull(
            column="label",
            **_says("pairing", "every train and val image has its mask", pair, rows=Column("split") != "test"),
        ),
        gxe.ExpectColumnValuesToBeUnique(
            column="label", **_says("own mask", "a mask belongs to one image", pair, rows=Column("label").is_not_null())
        ),
        *(
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A=side,
                column_B=f"image_{side}",
                **_says(f"equal {side}", f"image and mask have the same {side}", pair),
            )
            for side in ("height", "width")
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="image_splits",
            max_value=1,
            **_says("copies across splits", "no image (by its SHA-256) is in two splits", copies),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="copies",
            max_value=1,
            **_says("copies in a split", "no image (by its SHA-256) is twice in a split", copies, severity="warning"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="void_share",
            max_value=void_share,
            **_says("void share", limit, void, rows=Column("label").is_not_null()),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="ragged",
            max_value=RAGGED,
            **_says(
                "ragged masks",
                f"at most {RAGGED:.0%} of a mask's border pixels are a class of their own, as interpolated ids are",
                "bring back the original mask, resized by nearest neighbour if at all",
                rows=Column("label").is_not_null(),
            ),
        ),
        *_warnings(),
    ]


def _warnings() -> list[Expectation]:
    """What makes a scene worth a look."""
    labelled, look = Column("label").is_not_null(), "look at these scenes"
    near = f"no image looks like one of another split (perceptual hashes differ in more than {NEAR} of 64 bits)"
    odd = f"lies within {ODD} quartile ranges of its source's quartiles"
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="n_classes",
            min_value=2,
            **_says("nearly empty masks", "a mask shows two classes", look, rows=labelled, severity="warning"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="nearest",
            min_value=NEAR + 1,
            **_says("near copies across splits", near, "keep what is alike in one split", severity="warning"),
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(
                column=f"{name}_odd",
                max_value=ODD,
                **_says(f"odd {name}", f"an image's {name} {odd}", look, severity="warning"),
            )
            for name in ("brightness", "blur")
        ),
    ]


def sequence_checks() -> list[Expectation]:
    """What must hold of the sequences."""
    unknown, known = "keep all scenes of a sequence in one split", "scores on these splits are kinder than on new roads"
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="splits",
            max_value=1,
            **_says("sequence", "a sequence is in one split only", unknown, rows=Column("known") == ""),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="splits",
            max_value=1,
            **_says(
                "official sequence",
                "the source's official splits share no sequence",
                known,
                rows=Column("known") != "",
                severity="warning",
            ),
        ),
    ]


def class_checks() -> list[Expectation]:
    """What must hold of classes.csv."""
    advice = "add scenes that show the class, or waive it by name in params.yaml, validate.classes_absent"
    train = _says("class in train", "every class is in the training split", advice, rows=Column("split") == "train")
    other = _says(
        "class in val and test",
        "every class is in val and test",
        advice,
        rows=Column("split") != "train",
        severity="warning",
    )
    return [gxe.ExpectColumnValuesToBeBetween(column="scenes", min_value=1, **says) for says in (train, other)]


def suites(config: Config, scenes: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, list[Expectation]]]:
    """The tables and what must hold of each. A column `where` says which file, sequence or class a row is about."""
    tables = {
        "splits": (audit.split_table(scenes), split_checks()),
        "scenes": (scenes, scene_checks(config.validate_.void_share)),
        "sequences": (audit.sequence_table(config, scenes), sequence_checks()),
        "classes": (audit.class_table(config), class_checks()),
    }
    known = [one.meta["check"] for _, expectations in tables.values() for one in expectations]
    for key in ("severity", "waive"):
        if stray := sorted(set(getattr(config.validate_, key)) - set(known)):
            raise UserError(
                f"params.yaml: validate.{key}: there is no check {stray[0]!r}; there are: {', '.join(known)}"
            )
    wanted = config.validate_.severity
    return {name: (table, _as_wanted(expectations, wanted)) for name, (table, expectations) in tables.items()}


def _as_wanted(expectations: list[Expectation], severity: Mapping[str, str]) -> list[Expectation]:
    """The expectations of a table, as params.yaml would have them."""
    kept = []
    for one in expectations:
        wanted = severity.get(one.meta["check"])
        if wanted == "off":
            continue
        kept.append(one.copy(update={"severity": SEVERITY[wanted]}) if wanted else one)
    return kept


def check(
    tables: dict[str, tuple[pd.DataFrame, list[Expectation]]],
    docs: Path | None,
    waive: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Finding]:
    """Runs each table's expectations, and writes Great Expectations' pages to `docs` unless that is None.

    waive: check -> part of an offender's name -> reason.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    data = context.data_sources.add_pandas("profile")
    findings: list[Finding] = []
    for name, (table, expectations) in tables.items():
        batch = data.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        validation = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        checkpoint = gx.Checkpoint(
            name=name,
            validation_definitions=[validation],
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["where"]},
        )
        outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table})
        for result in outcome.run_results.values():
            found = {row.expectation_config.meta["check"]: _finding(row, waive or {}) for row in result.results}
            findings += [found[expectation.meta["check"]] for expectation in expectations]  # in the checks' own order
    if docs:
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
        index = {"class_name": "DefaultSiteIndexBuilder"}
        site = {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store}
        context.add_data_docs_site(site_name="roadseg", site_config=site)
        context.build_data_docs(site_names=["roadseg"])
    return findings


def _finding(result: ExpectationValidationResult, waive: Mapping[str, Mapping[str, str]]) -> Finding:
    expectation = result.expectation_config
    if result.exception_info.get("raised_exception"):
        raise RuntimeError(f"Great Expectations could not check {expectation}: {result.exception_info}")
    offenders: list[str] = []
    waived: list[str] = []
    for offender in (_offender(row) for row in result.result.get("unexpected_index_list") or []):
        reasons = [why for part, why in waive.get(expectation.meta["check"], {}).items() if part in offender]
        (waived if reasons else offenders).append(f"{offender}: {reasons[0]}" if reasons else offender)
    return Finding(
        check=expectation.meta["check"],
        says=expectation.description,
        severity=str(expectation.severity.value),
        passed=bool(result.success) or bool(waived and not offenders),
        offenders=tuple(offenders[:NAMED]),
        offenders_in_all=len(offenders),
        advice=expectation.meta["advice"],
        waived=tuple(waived[:NAMED]),
    )


def _offender(row: dict[str, Any]) -> str:
    """The row's file, sequence or class, and the numbers that the check looked at."""
    values = [f"{name} {value:g}" for name, value in row.items() if isinstance(value, Real) and value == value]
    return f"{row['where']} ({', '.join(values)})" if values else str(row["where"])


def sentence(finding: Finding) -> str:
    """A failed check for people: what was expected, the first three that are not so, and what to do."""
    named = ", ".join(finding.offenders[:3])
    more = f" and {finding.offenders_in_all - 3} more" if finding.offenders_in_all > 3 else ""
    return f"expected that {finding.says}; not so: {named}{more}; {finding.advice}"


def _write(folder: Path, findings: list[Finding], scenes: pd.DataFrame) -> None:
    """report.json and summary.md."""
    passed = all(finding.passed for finding in findings if finding.severity == "critical")
    counts = Counter(scenes["split"])
    report = {
        "passed": passed,
        "scenes": {split: counts[split] for split in sources.SPLITS},
        "checks": [asdict(finding) for finding in findings],
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    rows = [
        f"| {'ok' if finding.passed else finding.severity} | {finding.says} | {finding.offenders_in_all or ''} | "
        f"{', '.join(f'`{name}`' for name in finding.offenders)} | {'' if finding.passed else finding.advice} |"
        for finding in findings
    ]
    head = [f"# Validation: {'passed' if passed else 'failed'}", "", "| | expected | offenders | first of them | do |"]
    (folder / "summary.md").write_text("\n".join([*head, "|---|---|---|---|---|", *rows, ""]), encoding="utf-8")

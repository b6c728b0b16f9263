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
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core import ExpectationValidationResult
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column, Condition

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.scenes import sources
from roadseg.stages.stage import stage

NAMED = 20  # offenders that a report lists by name; the rest are counted


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
        scenes = scene_table()
        folder = running.folder(paths.VALIDATION)
        findings = check(suites(config, scenes), docs=folder / "docs")
        _write(folder, findings, scenes)
        for finding in findings:
            if not finding.passed and finding.severity == "warning":
                print(f"validation warns: {sentence(finding)}")
        failing = [finding for finding in findings if not finding.passed and finding.severity == "critical"]
        if failing:
            shutil.rmtree(paths.VALIDATION, ignore_errors=True)  # the stage fails, and its report still takes its place
            folder.replace(paths.VALIDATION)
            more = f" (also failing: {', '.join(finding.check for finding in failing[1:])})" if failing[1:] else ""
            raise UserError(f"validation: {sentence(failing[0])}{more}; see {paths.VALIDATION / 'summary.md'}")


def _read(name: str) -> pd.DataFrame:
    path = paths.PROFILE / name
    if not path.is_file():
        raise UserError(f"{path} is missing: run the profile stage first")
    return pd.read_csv(path, dtype={"source": "str", "sequence": "str"})  # a drive may be called 0006


def scene_table() -> pd.DataFrame:
    """scenes.csv and, of each image, the splits that it is in and its copies in the same one."""
    table = _read("scenes.csv")
    table["where"] = table["image"]
    table["image_splits"] = table.groupby("image_sha256")["split"].transform("nunique")
    table["copies"] = table.groupby(["image_sha256", "split"])["image"].transform("size")
    return table


def split_table(scenes: pd.DataFrame) -> pd.DataFrame:
    """A row a split: its labelled scenes."""
    labelled = scenes[scenes["label"].notna()]["split"].value_counts()
    return pd.DataFrame({"where": [*sources.SPLITS], "labelled": [int(labelled.get(s, 0)) for s in sources.SPLITS]})


def sequence_table(config: Config, scenes: pd.DataFrame) -> pd.DataFrame:
    """A row a sequence: the splits that it is in, and why where the source's official splits are known for it."""
    rows = []
    for (source, sequence), group in scenes.groupby(["source", "sequence"]):
        known = sources.get(config, str(source)).straddling.get(str(sequence), "")
        first = group.groupby("split", sort=False)["image"].first()
        where = f"{sequence} of {source}: {' and '.join(first)}" + (f": {known}" if known else "")
        rows.append((where, len(first), known))
    return pd.DataFrame(rows, columns=["where", "splits", "known"])


def class_table(config: Config) -> pd.DataFrame:
    """classes.csv without what may be missing: classes waived by name, and those that no source's table leads to."""
    table = _read("classes.csv")
    space = sources.space_of(config)
    tables = (space.table(sources.get(config, name).labels(paths.RAW / name)) for name in config.data.sources)
    never = set.intersection(*(set(table.absent) for table in tables))
    table = table[~table["class_name"].isin(never | set(config.validate_.classes_absent))].copy()
    table["where"] = table["class_name"] + " in " + table["split"]
    return table


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
    return [gxe.ExpectColumnValuesToBeBetween(column="labelled", min_value=1, **says)]


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
    return {
        "splits": (split_table(scenes), split_checks()),
        "scenes": (scenes, scene_checks(config.validate_.void_share)),
        "sequences": (sequence_table(config, scenes), sequence_checks()),
        "classes": (class_table(config), class_checks()),
    }


def check(tables: dict[str, tuple[pd.DataFrame, list[Expectation]]], docs: Path | None) -> list[Finding]:
    """Runs each table's expectations, and writes Great Expectations' pages to `docs` unless that is None."""
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
            found = {row.expectation_config.meta["check"]: _finding(row) for row in result.results}
            findings += [found[expectation.meta["check"]] for expectation in expectations]  # in the checks' own order
    if docs:
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
        index = {"class_name": "DefaultSiteIndexBuilder"}
        site = {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store}
        context.add_data_docs_site(site_name="roadseg", site_config=site)
        context.build_data_docs(site_names=["roadseg"])
    return findings


def _finding(result: ExpectationValidationResult) -> Finding:
    expectation = result.expectation_config
    if result.exception_info.get("raised_exception"):
        raise RuntimeError(f"Great Expectations could not check {expectation}: {result.exception_info}")
    offenders = [_offender(row) for row in result.result.get("unexpected_index_list") or []]
    return Finding(
        check=expectation.meta["check"],
        says=expectation.description,
        severity=str(expectation.severity.value),
        passed=bool(result.success),
        offenders=tuple(offenders[:NAMED]),
        offenders_in_all=len(offenders),
        advice=expectation.meta["advice"],
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

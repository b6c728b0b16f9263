"""validate: stops the line where the data is not fit to be trained on.

Reads data/profile/scenes.csv and classes.csv; writes data/validation/: report.json (what later stages depend on: no
timestamp, no absolute path), summary.md (the same for people) and docs/ (Great Expectations' HTML pages, and
offenders.html with pictures). All three are written where a check fails as well; the stage then ends with one line that
names the files. Where it passes, the class shares of the training split are kept in .state/ for the next run.

A check of severity `critical` fails the stage, a `warning` is only reported. A class that the *training* split lacks is
critical, as it cannot be learned; one that val or test lacks is a warning, since a mean IoU is over the classes present
and says how many. A sequence in several splits is critical; the source's own reason for it waives it by name.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationValidationResult

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.labels import LabelSpace
from roadseg.scenes import sources
from roadseg.stages import accepted, audit, checks, findings, offenders
from roadseg.stages.findings import Finding, Offender
from roadseg.stages.stage import experiment, stage

DOCS = paths.VALIDATION / "docs"


def run(config: Config) -> None:
    """Writes data/validation/. UserError naming the scenes or classes where a critical check fails."""
    space = sources.space_of(config)
    _known(config, space)
    with stage("validate") as running:
        scenes, shares = audit.scene_table(), accepted.shares(config)
        folder = running.folder(paths.VALIDATION)
        found = check(checks.suites(config, scenes, shares), folder / "docs", config.validate_.waive)
        _write(folder, found, scenes, space)
        findings.show(found, DOCS / offenders.PAGE)
        for check_, part in _idle(found, config.validate_.waive):
            print(f"validation: nothing of {check_!r} is called like {part!r} (params.yaml, validate.waive): remove it")
        if failing := [finding for finding in found if finding.result == "FAILS"]:
            shutil.rmtree(paths.VALIDATION, ignore_errors=True)  # the stage fails, and its report still takes its place
            folder.replace(paths.VALIDATION)
            more = f" (also failing: {', '.join(finding.check for finding in failing[1:])})" if failing[1:] else ""
            said = findings.sentence(failing[0])
            raise UserError(f"validation: {said}{more}; see {paths.VALIDATION / 'summary.md'}")
        # Takes its place after all else, and only where the stage ends well.
        if not experiment():
            shares.to_csv(running.aside(accepted.path_of(config)), index_label="class_name")


def _idle(found: Sequence[Finding], waive: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """The waivers that let nothing pass."""
    for one in found:
        for part in waive.get(one.check, {}):
            if not any(part in offender.where for offender in one.waived):
                yield one.check, part


def _known(config: Config, space: LabelSpace) -> None:
    for name in config.validate_.classes_absent:
        if name not in space.classes:
            known = ", ".join(space.classes)
            raise UserError(
                f"params.yaml: validate.classes_absent: {space.name} has no class {name!r}; it has: {known}"
            )


def check(
    tables: checks.Tables, docs: Path | None = None, waive: Mapping[str, Mapping[str, str]] | None = None
) -> list[Finding]:
    """Runs each table's expectations, and writes Great Expectations' pages to `docs` unless that is None.

    waive: check -> part of an offender's name -> reason.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    data = context.data_sources.add_pandas("profile")
    found: list[Finding] = []
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
        rows = table.drop_duplicates("where").set_index("where", drop=False)
        for result in outcome.run_results.values():
            of = {row.expectation_config.meta["check"]: _finding(row, rows, waive or {}) for row in result.results}
            found += [of[expectation.meta["check"]] for expectation in expectations]  # in the checks' own order
    if docs:
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
        index = {"class_name": "DefaultSiteIndexBuilder"}
        site = {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store}
        context.add_data_docs_site(site_name="roadseg", site_config=site)
        context.build_data_docs(site_names=["roadseg"])
    return found


def _finding(
    result: ExpectationValidationResult, rows: pd.DataFrame, waive: Mapping[str, Mapping[str, str]]
) -> Finding:
    """`rows` is the check's table by `where`."""
    expectation = result.expectation_config
    if result.exception_info.get("raised_exception"):
        raise RuntimeError(f"Great Expectations could not check {expectation}: {result.exception_info}")
    meta = expectation.meta
    reasons = waive.get(meta["check"], {})
    found = [
        _offender(row, rows.loc[row["where"]], meta, reasons)
        for row in result.result.get("unexpected_index_list") or []
    ]
    blamed = tuple(one for one in found if not one.reason)
    waived = tuple(one for one in found if one.reason)
    return Finding(
        check=meta["check"],
        says=expectation.description,
        severity=str(expectation.severity.value),
        passed=bool(result.success) or bool(waived and not blamed),
        advice=meta["advice"],
        offenders=blamed,
        waived=waived,
    )


def _offender(
    unexpected: Mapping[str, Any], row: pd.Series, meta: Mapping[str, Any], reasons: Mapping[str, str]
) -> Offender:
    """The numbers that the check looked at, and what the table's row says besides. A person's reason comes first."""
    where = str(row["where"])
    numbers = [f"{name} {value:g}" for name, value in unexpected.items() if isinstance(value, Real) and value == value]
    beside = row[meta["beside"]] if "beside" in meta else ""
    image = (where, *filter(None, [beside])) if "image" in row else ()
    return Offender(
        where=where,
        numbers="" if meta.get("silent") else ", ".join(numbers),
        beside=beside,
        reason=next((why for part, why in reasons.items() if part in where), "") or row.get("reason", ""),
        shows=row.get("shows", image),
    )


def _write(folder: Path, found: list[Finding], scenes: pd.DataFrame, space: LabelSpace) -> None:
    """report.json, summary.md and the offenders' page."""
    counts = Counter(scenes["split"])
    report = findings.report(found, {split: counts[split] for split in sources.SPLITS})
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(findings.markdown(found, f"docs/{offenders.PAGE}"), encoding="utf-8")
    offenders.write(folder / "docs", found, scenes, space)

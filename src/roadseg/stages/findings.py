"""What validate found, and the three short ways in which it says so: report.json, summary.md and a screen's table.

A finding is the outcome of one check. What is not as expected is an offender: a scene, a sequence, a split, a class.
An offender that a person (params.yaml, validate.waive) or its source gives a reason for is waived: it fails nothing and
is reported all the same.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

NAMED = 20  # offenders that a report lists by name; the rest are counted
PIPED = 140  # columns of the table where no terminal says how many it has
CHECK = 28  # columns of a check's name: the longest takes two lines
STYLES = {"ok": "green", "waived": "cyan", "warns": "yellow", "FAILS": "bold red"}


@dataclass(frozen=True)
class Offender:
    where: str
    """The image's path, or what the split, the sequence or the class is called."""
    numbers: str = ""
    """What the check looked at, such as `void_share 0.4`."""
    beside: str = ""
    """The image that it is too much like."""
    reason: str = ""
    """Why it may be so, where it is waived."""
    shows: tuple[str, ...] = ()
    """Images to look at: the scene itself, with `beside`, or the first of each split."""

    def __str__(self) -> str:
        numbers = f" ({self.numbers})" if self.numbers else ""
        beside = f" like {self.beside}" if self.beside else ""
        return f"{self.where}{numbers}{beside}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Finding:
    check: str
    says: str
    severity: str
    """critical or warning."""
    passed: bool
    advice: str
    offenders: tuple[Offender, ...]
    waived: tuple[Offender, ...] = ()

    @property
    def result(self) -> str:
        if self.passed:
            return "waived" if self.waived else "ok"
        return "FAILS" if self.severity == "critical" else "warns"


def sentence(finding: Finding) -> str:
    """A failed check for people: what was expected, the first three that are not so, and what to do."""
    named = ", ".join(map(str, finding.offenders[:3]))
    more = f" and {len(finding.offenders) - 3} more" if len(finding.offenders) > 3 else ""
    return f"expected that {finding.says}; not so: {named}{more}; {finding.advice}"


def holds(findings: Sequence[Finding]) -> bool:
    return not any(finding.result == "FAILS" for finding in findings)


def report(findings: Sequence[Finding], scenes: Mapping[str, int]) -> dict[str, Any]:
    """report.json: no time and no absolute path, since later stages depend on it. `scenes` counts those of a split."""
    checks = [
        {
            "check": finding.check,
            "says": finding.says,
            "severity": finding.severity,
            "passed": finding.passed,
            "offenders": [str(one) for one in finding.offenders[:NAMED]],
            "offenders_in_all": len(finding.offenders),
            "advice": finding.advice,
            "waived": [str(one) for one in finding.waived[:NAMED]],
            "waived_in_all": len(finding.waived),
        }
        for finding in findings
    ]
    return {"passed": holds(findings), "scenes": dict(scenes), "checks": checks}


def markdown(findings: Sequence[Finding], page: str) -> str:
    """summary.md, with a link to the offenders' `page`."""
    rows = [
        f"| {finding.result} | {finding.says} | {len(finding.offenders) or ''} | {_quoted(finding.offenders)} | "
        f"{'' if finding.passed else finding.advice} |"
        for finding in findings
    ]
    waived = [f"- {finding.check}: {_plain(str(one))}" for finding in findings for one in finding.waived[:NAMED]]
    lines = [
        f"# Validation: {'passed' if holds(findings) else 'failed'}",
        "",
        f"[The offenders, with pictures]({page})",
        "",
        "| | expected | offenders | first of them | do |",
        "|---|---|---|---|---|",
        *rows,
        *(["", "Waived, with the reason:", "", *waived] if waived else []),
    ]
    return "\n".join([*lines, ""])


def _quoted(offenders: Sequence[Offender]) -> str:
    return ", ".join(f"`{_plain(str(one))}`" for one in offenders[:NAMED])


def _plain(name: str) -> str:
    """A name that ends no cell of a table."""
    return name.replace("|", "\\|")


def show(findings: Sequence[Finding], page: Path) -> None:
    """Prints a row a check, the reasons of what is waived, and one last line: a screen, whatever was found.

    Paths are cut to the file's name in the table. What is below it is never wrapped, so that it can be copied.
    """
    console = Console()
    if not console.is_terminal:
        console.width = PIPED
    table = Table(box=None, pad_edge=False)
    for name, width in (("check", CHECK), ("result", 6), ("", 4)):  # fixed: a narrow screen takes from the last alone
        table.add_column(name, width=width, justify="left" if name else "right")
    table.add_column("first of them")
    for finding in findings:
        found = finding.offenders or finding.waived
        first = Text(_short(found[0]) if found else "", no_wrap=True, overflow="ellipsis")
        table.add_row(Text(finding.check), Text(finding.result, STYLES[finding.result]), str(len(found) or ""), first)
    console.print(table)
    for finding in findings:
        if finding.waived:
            more = f"; and {len(finding.waived) - 3} more" if len(finding.waived) > 3 else ""
            _line(console, f"validation waives {finding.check}: {'; '.join(map(str, finding.waived[:3]))}{more}")
    counts = Counter(finding.result for finding in findings)
    said = ", ".join(f"{counts[result]} {result}" for result in STYLES if counts[result])
    _line(console, f"validation {'passed' if holds(findings) else 'failed'}: {said}; look at {page}")


def _short(offender: Offender) -> str:
    """An offender whose files are called by their names alone."""
    shows = {path: path.rpartition("/")[2] for path in offender.shows}
    text = str(offender)
    for path, name in shows.items():
        text = text.replace(path, name)
    return text


def _line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)

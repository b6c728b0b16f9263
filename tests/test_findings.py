"""What validate says on a screen."""

import re
from pathlib import Path

import pytest

from roadseg.stages import accepted, audit, checks, findings
from roadseg.stages.findings import Finding, Offender
from tests import segnet

LONG = "data/raw/" + "a_rather_long_folder/" * 12 + "[red]frame 1.png"


def finding(check: str, severity: str = "critical", offenders: int = 0, waived: int = 0) -> Finding:
    blamed = tuple(Offender(LONG, f"n {number}", shows=(LONG,)) for number in range(offenders))
    named = tuple(Offender(f"0001TP{number}", reason="it is known") for number in range(waived))
    return Finding(check, "all is well", severity, not offenders, "look", blamed, named)


FOUND = [
    finding("good"),
    finding("known", waived=4),
    finding("odd", "warning", offenders=2),
    finding("bad", offenders=1, waived=1),
]


def test_each_check_is_a_row_with_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    findings.show(FOUND, Path("docs/page.html"))
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["check", "result", "first", "of", "them"]
    assert [line.split() for line in lines[:4]] == [
        ["good", "ok"],
        ["known", "waived", "4", "0001TP0:", "it", "is", "known"],
        ["odd", "warns", "2", "[red]frame", "1.png", "(n", "0)"],
        ["bad", "FAILS", "1", "[red]frame", "1.png", "(n", "0)"],
    ]
    assert lines[4] == (
        "validation waives known: 0001TP0: it is known; 0001TP1: it is known; 0001TP2: it is known; and 1 more"
    )
    assert lines[5] == "validation waives bad: 0001TP0: it is known"
    assert lines[6:] == ["validation failed: 1 ok, 1 waived, 1 warns, 1 FAILS; look at docs/page.html"]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_screen_of_any_width_says_what_fails_on_one_line_a_check(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    page = Path("p" * 100, "page.html")
    findings.show(FOUND, page)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert len(lines) == 8
    assert max(map(len, lines[:5])) <= columns
    assert "FAILS" in lines[4] and "frame" in lines[4]
    assert lines[-1].endswith(str(page)), "a path is never wrapped"


def test_the_checks_fit_a_screen(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = segnet.profiled()
    tables = checks.suites(settings, audit.scene_table(), accepted.shares(settings))
    names = [one.meta["check"] for _, expectations in tables.values() for one in expectations]
    assert len(names) == len(set(names)) <= 24
    assert max(map(len, names)) <= 2 * findings.CHECK


def test_offenders_are_named_to_twenty_and_counted_beyond() -> None:
    many = finding("void", offenders=25, waived=21)
    written = findings.report([many], {"train": 3})["checks"][0]
    assert [len(written["offenders"]), written["offenders_in_all"]] == [20, 25]
    assert [len(written["waived"]), written["waived_in_all"]] == [20, 21]
    assert findings.sentence(many).count(LONG) == 3 and " and 22 more; look" in findings.sentence(many)


def test_only_a_critical_failure_fails() -> None:
    assert findings.holds(FOUND[:3]) and not findings.holds(FOUND)


def test_a_name_ends_no_cell_of_the_summary() -> None:
    odd = Finding("c", "says", "warning", False, "look", (Offender("a|b.png"),))
    row = findings.markdown([odd], "page.html").splitlines()[6]
    assert row == r"| warns | says | 1 | `a\|b.png` | look |"

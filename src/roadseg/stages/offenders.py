"""The page of the offenders: docs/offenders.html, its pictures in docs/offenders/, a link in Great Expectations' index.

A section a check that found something: what was expected, how grave it is, what to do, the scenes that are not so, and
what was waived with its reason. Great Expectations' own pages show no picture and want the internet; this one is plain
HTML that works from a disk. It is for people alone: no later stage reads it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from roadseg import figures
from roadseg.errors import UserError
from roadseg.labels import LabelSpace
from roadseg.scenes import png
from roadseg.stages.findings import NAMED, Finding, Offender, holds
from roadseg.stages.show import fitted, pair

PAGE = "offenders.html"
PICTURES = "offenders"  # the folder beside the page
PICTURED = 8  # offenders of a check that are shown; `NAMED` are listed, the rest are counted
QUALITY = 85  # of JPEG
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22303c; max-width: 1000px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em 1em .2em 0; text-align: left; vertical-align: top }
h2 { margin-top: 2em; border-top: 1px solid #d9dee3; padding-top: 1em }
figure { margin: 1em 0 } img { max-width: 100%; display: block } li, figcaption { overflow-wrap: anywhere }
.ok { color: #2e7d32 } .waived { color: #00695c } .warns { color: #b26a00 } .FAILS { color: #c0392b; font-weight: bold }
.class { white-space: nowrap }
.swatch { display: inline-block; width: .9em; height: .9em; margin: 0 .3em 0 1em; border: 1px solid #d9dee3 }
"""


def write(docs: Path, findings: Sequence[Finding], scenes: pd.DataFrame, space: LabelSpace) -> None:
    """Writes the page and its pictures under `docs`. Takes scenes.csv, by which an image finds its mask."""
    docs.mkdir(parents=True, exist_ok=True)
    (docs / PICTURES).mkdir(exist_ok=True)
    labelled = scenes[scenes["label"].notna()]
    labels = dict(zip(labelled["image"], labelled["label"], strict=True))
    sections = [line for finding in findings for line in _section(finding, docs, labels, space)]
    verdict = "passed" if holds(findings) else "failed"
    rows = [
        f'<tr><td><a href="#{slug(one.check)}">{escape(one.check)}</a></td><td class="{one.result}">{one.result}</td>'
        f"<td>{len(one.offenders) or ''}</td><td>{len(one.waived) or ''}</td></tr>"
        if one.offenders or one.waived
        else f'<tr><td>{escape(one.check)}</td><td class="{one.result}">{one.result}</td><td></td><td></td></tr>'
        for one in findings
    ]
    lines = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        f"<title>Validation {verdict}: the offenders</title><style>{STYLE}</style></head><body>",
        f'<h1>Validation <span class="{"ok" if verdict == "passed" else "FAILS"}">{verdict}</span></h1>',
        '<p>Every check with its numbers: <a href="index.html">Great Expectations\' report</a>. '
        "What is waived counts as failed there.</p>",
        "<table><tr><th>check</th><th>result</th><th>offenders</th><th>waived</th></tr>",
        *rows,
        f"</table><p>Classes in the pictures:{''.join(_swatches(space))}</p>",
        *sections,
        "</body></html>",
    ]
    (docs / PAGE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    _link(docs / "index.html")


def slug(check: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", check.lower()).strip("-")


def _swatches(space: LabelSpace) -> Iterator[str]:
    for name, rgb in zip(space.classes, space.colours, strict=True):
        swatch = f'<span class="swatch" style="background: rgb{tuple(map(int, rgb))}"></span>'
        yield f'<span class="class">{swatch}{escape(name)}</span> '


def _section(finding: Finding, docs: Path, labels: Mapping[str, str], space: LabelSpace) -> list[str]:
    """The lines of a check's section; none where everything is as expected."""
    if not finding.offenders and not finding.waived:
        return []
    advice = f" To do: {escape(finding.advice)}." if finding.offenders else ""
    lines = [
        f'<h2 id="{slug(finding.check)}">{escape(finding.check)}: <span class="{finding.result}">{finding.result}'
        f"</span></h2><p>Expected: {escape(finding.says)}. Severity: {escape(finding.severity)}.{advice}</p>"
    ]
    for title, found in (("Offenders", finding.offenders), ("Waived, with the reason", finding.waived)):
        if found:
            name = f"{slug(finding.check)}{'-waived' if title != 'Offenders' else ''}"
            lines += [f"<h3>{title}: {len(found)}</h3>", *_shown(found, docs, name, labels, space)]
    return lines


def _shown(
    found: Sequence[Offender], docs: Path, name: str, labels: Mapping[str, str], space: LabelSpace
) -> Iterator[str]:
    """The first with their pictures, more by name, the rest by number. Two images that are alike are shown once."""
    listed: list[str] = []
    seen: set[frozenset[str]] = set()
    for number, one in enumerate(found[:NAMED], start=1):
        images = frozenset(one.shows)
        if not images or images in seen or len(seen) == PICTURED:
            listed.append(f"<li>{escape(str(one))}</li>")
            continue
        seen.add(images)
        src = f"{PICTURES}/{name}-{number:02}.jpg"
        missing = _draw(one.shows, docs / src, labels, space)
        picture = f" (no picture: {escape(missing)})" if missing else f'<img src="{src}" alt="" loading="lazy">'
        unnamed = [image for image in one.shows if image not in str(one)]
        caption = escape(": ".join([str(one), *([", ".join(unnamed)] if unnamed else [])]))
        yield f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
    if listed:
        yield f"<ul>{''.join(listed)}</ul>"
    if len(found) > NAMED:
        yield f"<p>and {len(found) - NAMED} more</p>"


def _draw(images: Sequence[str], path: Path, labels: Mapping[str, str], space: LabelSpace) -> str:
    """Writes one picture: a scene beside itself with its labels over it, or several images side by side.

    Returns why there is none where a file cannot be read: what is broken is what this page is about.
    """
    try:
        views = _views(images, labels, space)
    except UserError as error:
        return str(error)
    Image.fromarray(figures.sheet(views, columns=len(views))).save(path, quality=QUALITY)
    return ""


def _views(images: Sequence[str], labels: Mapping[str, str], space: LabelSpace) -> list[np.ndarray]:
    if len(images) == 1 and (label := labels.get(images[0])):
        image, ids = pair(Path(images[0]), Path(label))
        return [image, figures.overlay(image, ids, space)]
    return [fitted(png.read_rgb(Path(image)), cv2.INTER_AREA, 255) for image in images]


def _link(index: Path) -> None:
    """Leads from Great Expectations' first page to ours."""
    if not index.is_file():
        return
    link = f'<p style="margin: 1em"><a href="{PAGE}">The offenders, with pictures</a></p>'
    text = index.read_text(encoding="utf-8")
    index.write_text(re.sub(r"<body[^>]*>", lambda found: found[0] + link, text, count=1), encoding="utf-8")

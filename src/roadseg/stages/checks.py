"""What must hold of the data, as Great Expectations' expectations: a name, what is expected, what to do, how grave.

The tables are audit's and accepted's, a column `where` says which scene, split, sequence or class a row is about. A
check's `meta` has its name and its advice; `beside`, the column of the image that a scene is too much like; `silent`,
where the row's name says the numbers already.
"""

from collections.abc import Mapping
from typing import Any

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.row_conditions import Column, Condition

from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.stages import accepted, audit

SEVERITY = {"fail": FailureSeverity.CRITICAL, "warn": FailureSeverity.WARNING}
NEAR = 4  # bits of 64
RAGGED = 0.15  # between 0.07, the most that was seen in a drawn mask, and 0.30, the least in an interpolated one
ODD = 3  # Tukey's far fence
DRIFT = 0.25  # of the pixels, between splits: other roads
SINCE = 0.1  # of the pixels, since the last accepted profile: the same roads and some more

Tables = dict[str, tuple[pd.DataFrame, list[Expectation]]]


def _says(
    check: str, says: str, advice: str, rows: Condition | None = None, severity: str = "critical", **meta: object
) -> dict[str, Any]:
    """What every check has: its name, what it expects, what to do where that is not so, and which rows it is about."""
    meta = {"check": check, "advice": advice, **meta}
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


def drawn_checks() -> list[Expectation]:
    """What must hold of the masks of a source in a split, if people drew them."""
    drawn = _says(
        "void in a split",
        "some pixel of a source's labelled split is void, as people leave some and predictions none",
        "look whether these masks were drawn by a person",
        severity="warning",
    )
    return [gxe.ExpectColumnValuesToBeBetween(column="void", min_value=0, strict_min=True, **drawn)]


def accepted_checks() -> list[Expectation]:
    """What must hold of this profile beside the last that was accepted."""
    says = _says(
        "class shares since the last accepted profile",
        f"training's class shares differ from the last accepted profile's by at most {SINCE:.0%} of the pixels",
        "look at what came or went; if it is meant, waive it in params.yaml, validate.waive",
        severity="warning",
    )
    return [gxe.ExpectColumnValuesToBeBetween(column="drift", max_value=SINCE, **says)]


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
            **_says("copies across splits", "no image (by its SHA-256) is in two splits", copies, beside="twin"),
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
            **_says(
                "near copies across splits", near, "keep what is alike in one split", severity="warning", beside="alike"
            ),
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
    """What must hold of the sequences. Those that a source shares between splits by its own rule come with a reason."""
    says = _says(
        "sequence", "a sequence is in one split only", "keep all scenes of a sequence in one split", silent=True
    )
    return [gxe.ExpectColumnValuesToBeBetween(column="splits", max_value=1, **says)]


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


def suites(config: Config, scenes: pd.DataFrame, shares: pd.DataFrame) -> Tables:
    """The tables and what must hold of each. Takes audit.scene_table() and accepted.shares(config)."""
    tables = {
        "splits": (audit.split_table(scenes), split_checks()),
        "drawn": (audit.drawn_table(scenes), drawn_checks()),
        "accepted": (accepted.table(shares), accepted_checks()),
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

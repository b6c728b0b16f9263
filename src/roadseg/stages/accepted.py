"""The class shares of the last training split that validate accepted, for the next one to be compared with.

.state/accepted/KEY.csv has a row a class: class_name, share, and before, the share that this one was itself compared
with. KEY is the sources that are trained on and the label space. It is no DVC output: a scheduled retrain has a
worktree of its own, and shares .state with the project that it came from.

report.json must be the same for the same data, else all later stages would run again. So a profile that is validated
once more is compared with what it was compared with before, not with itself.
"""

from pathlib import Path

import pandas as pd

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.scenes import sources
from roadseg.stages import audit

MOVED = 3  # classes that are named


def path_of(config: Config) -> Path:
    """Where the shares of these sources in this label space are kept; the sources' order does not matter."""
    return paths.state("accepted", f"{'+'.join(sorted(config.data.trained))}-{sources.space_of(config).name}.csv")


def shares(config: Config) -> pd.DataFrame:
    """What path_of(config) is to hold once this profile is accepted. `before` is empty where there was none."""
    classes = audit.read("classes.csv")
    now = classes[classes["split"] == "train"].set_index("class_name")["share"]
    last = _last(path_of(config))
    if last is None:
        return pd.DataFrame({"share": now, "before": None})
    names = now.index.union(last.index, sort=False)  # a class may have come or gone
    now, kept = now.reindex(names, fill_value=0.0), last["share"].reindex(names, fill_value=0.0)
    if now.equals(kept):
        return pd.DataFrame({"share": now, "before": last["before"].reindex(names)})
    return pd.DataFrame({"share": now, "before": kept})


def _last(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path).set_index("class_name")
        return table[["share", "before"]].astype(float)
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): remove it") from None


def table(shares: pd.DataFrame) -> pd.DataFrame:
    """One row: half the sum of the differences since then (0 equal, 1 nothing in common), the classes that moved most.

    A first profile has nothing to differ from.
    """
    change = shares["share"] - shares["before"].astype(float)
    most = change.abs().sort_values(ascending=False, kind="stable").head(MOVED).index
    named = [
        f"{name} {now:.1%}, it was {before:.1%}"
        for name, now, before in shares.loc[most].itertuples()
        if now != before and not pd.isna(before)
    ]
    row = {"where": "; ".join(named) or "train", "drift": round(float(change.abs().sum() / 2), 4)}
    return pd.DataFrame([row])

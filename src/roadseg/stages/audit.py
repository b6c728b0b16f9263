"""The tables that validate holds its expectations against, from data/profile/.

A column `where` says which file, split, sequence or class a row is about; what a check looks at is a column beside it.
"""

import numpy as np
import pandas as pd

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.scenes import sources
from roadseg.scenes.index import ELSEWHERE


def read(name: str) -> pd.DataFrame:
    path = paths.PROFILE / name
    if not path.is_file():
        raise UserError(f"{path} is missing: run the profile stage first")
    # A drive may be called 0006, or NA.
    return pd.read_csv(path, dtype={"source": "str", "sequence": "str"}, keep_default_na=False, na_values=[""])


def scene_table() -> pd.DataFrame:
    """scenes.csv and, of each image, the splits that it is in, its copies in the same one, and what is most like it.

    `twin` is an image of another split with the same bytes, `alike` the one with the nearest perceptual hash; missing
    where there is none.
    """
    table = read("scenes.csv")
    table["where"] = table["image"]
    table["image_splits"] = table.groupby("image_sha256")["split"].transform("nunique")
    table["copies"] = table.groupby(["image_sha256", "split"])["image"].transform("size")
    table["twin"] = twins(table)
    table["nearest"], partners = nearest_across_splits(table)
    table["alike"] = table["image"].to_numpy(object)[partners]
    table.loc[partners < 0, "alike"] = None
    table["reason"] = np.where(table["split"] == ELSEWHERE, "out of domain: scored, never trained on", "")
    for name in ("brightness", "blur"):
        table[f"{name}_odd"] = table.groupby("source")[name].transform(oddness)
    return table


def twins(scenes: pd.DataFrame) -> list[str | None]:
    """For each image the first one of another split that has the same bytes."""
    firsts: dict[str, dict[str, str]] = {}
    for sha256, split, image in scenes[["image_sha256", "split", "image"]].itertuples(index=False):
        firsts.setdefault(sha256, {}).setdefault(split, image)
    return [
        next((image for other, image in firsts[sha256].items() if other != split), None)
        for sha256, split in scenes[["image_sha256", "split"]].itertuples(index=False)
    ]


def nearest_across_splits(scenes: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The most alike image of another split, by perceptual hash, for each of the scenes.

    Returns int64 [scenes] differing bits (0 to 64), and int64 [scenes] the row of that image, the first of several; 64
    and -1 where there is no other split.
    """
    hashes = np.array([int(value, 16) for value in scenes["phash"]], np.uint64)
    splits = pd.factorize(scenes["split"])[0]
    nearest, partners = np.full(len(hashes), 64), np.full(len(hashes), -1)
    for i in range(len(hashes)):  # a row at a time: memory does not grow with the square
        others = np.flatnonzero(splits != splits[i])
        if len(others):
            bits = np.bitwise_count(hashes[others] ^ hashes[i])
            nearest[i], partners[i] = bits.min(), others[bits.argmin()]
    return nearest, partners


def oddness(values: pd.Series) -> pd.Series:
    """How many quartile ranges a value lies outside of the quartiles (Tukey's fences are at 1.5); 0 inside."""
    low, high = float(values.quantile(0.25)), float(values.quantile(0.75))
    outside = np.maximum(np.maximum(low - values, values - high), 0.0)
    return pd.Series(np.round(outside / (high - low if high > low else 1.0), 3), values.index)


def split_table(scenes: pd.DataFrame) -> pd.DataFrame:
    """A row a split: its labelled scenes, and how its class shares drift from training's."""
    labelled = scenes[scenes["label"].notna()]["split"].value_counts()
    shares = read("classes.csv").pivot_table(index="class_id", columns="split", values="share")

    def drift(split: str) -> float:
        """Half the sum of the differences between class shares in train and here: 0 equal, 1 nothing in common."""
        there = split in shares and "train" in shares and shares[split].sum() > 0
        return round(float((shares[split] - shares["train"]).abs().sum() / 2), 4) if there else 0.0

    rows = [(split, int(labelled.get(split, 0)), drift(split)) for split in sources.SPLITS]
    return pd.DataFrame(rows, columns=["where", "labelled", "drift"])


def drawn_table(scenes: pd.DataFrame) -> pd.DataFrame:
    """A row a source and labelled split, those out of domain as well: the largest share of void of any mask."""
    labelled = scenes[scenes["label"].notna()]
    table = labelled.groupby(["split", "source"], sort=False)["void_share"].max().rename("void").reset_index()
    return table.assign(where=table["split"] + " of " + table["source"])


def sequence_table(config: Config, scenes: pd.DataFrame) -> pd.DataFrame:
    """A row a sequence: how many splits it is in, why that may be so, and the first image of each."""
    rows = []
    ours = scenes[scenes["source"].isin(config.data.trained)]  # where nothing is trained on, nothing leaks
    for (source, sequence), group in ours.groupby(["source", "sequence"]):
        counts = group["split"].value_counts()
        splits = [
            *(split for split in sources.SPLITS if split in counts),
            *sorted(set(counts.index) - {*sources.SPLITS}),
        ]
        where = f"{sequence} of {source}: {', '.join(f'{counts[split]} in {split}' for split in splits)}"
        firsts = group.groupby("split")["image"].first()
        shows = tuple(str(firsts[split]) for split in splits)
        rows.append((where, len(splits), straddles(config, str(source), str(sequence)), shows))
    return pd.DataFrame(rows, columns=["where", "splits", "reason", "shows"])


def straddles(config: Config, source: str, sequence: str) -> str:
    """Why a sequence may be in several splits, where its source has a reason; else empty, and that is a leak."""
    what = sources.get(config, source)
    reasons = [what.straddling[sequence]] if sequence in what.straddling else []
    if what.blocks:
        reasons.append(f"blocks: val is its tail, and {what.blocks.gap} frames lie between splits")
    return "; ".join(reasons)


def class_table(config: Config) -> pd.DataFrame:
    """classes.csv without what may be missing: classes waived by name, and those that no table of a source that
    is trained on leads to."""
    table = read("classes.csv")
    space = sources.space_of(config)
    tables = (space.table(sources.get(config, name).labels(paths.RAW / name)) for name in config.data.trained)
    never = set.intersection(*(set(table.absent) for table in tables))
    table = table[~table["class_name"].isin(never | set(config.validate_.classes_absent))].copy()
    table["where"] = table["class_name"] + " in " + table["split"]
    return table

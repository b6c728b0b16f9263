"""docs/zoo.md is what docs.zoo writes, and what that keeps of earlier measurements when some are new."""

from pathlib import Path

import pandas as pd

from docs import zoo

PAGE = Path(zoo.__file__).parent / "zoo.md"


def test_the_page_is_what_was_kept() -> None:
    kept = [pd.read_csv(PAGE.parent / "measured" / name) for name in ("zoo.csv", "engines.csv", "overfit.csv")]
    assert PAGE.read_text(encoding="utf-8") == zoo.page(*kept), "write it anew: python -m docs.zoo"


def table(path: Path, **columns: list[object]) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_new_rows_take_the_place_of_their_own_kind_and_leave_the_others(tmp_path: Path) -> None:
    kept = table(tmp_path / "kept.csv", network=["enet", "enet", "stdc1"], size=["a", "b", "a"], steps=[1, 2, 3])
    new = table(tmp_path / "new.csv", network=["enet", "unet"], size=["b", "a"], steps=[20, 40])
    found = zoo.measured(new, kept, by=("network", "size"))
    assert sorted(found.itertuples(index=False, name=None)) == [
        *[("enet", "a", 1), ("enet", "b", 20), ("stdc1", "a", 3), ("unet", "a", 40)]
    ]
    assert pd.read_csv(kept).equals(found.reset_index(drop=True)), "the next page is written from it"


def test_without_a_key_the_new_table_is_the_whole(tmp_path: Path) -> None:
    kept = table(tmp_path / "kept.csv", network=["enet", "stdc1"], p95_ms=[1.0, 2.0])
    assert zoo.measured(tmp_path / "none.csv", kept)["network"].tolist() == ["enet", "stdc1"]
    new = table(tmp_path / "new.csv", network=["stdc1"], p95_ms=[5.0])
    assert zoo.measured(new, kept)["p95_ms"].tolist() == [5.0]
    assert pd.read_csv(kept)["network"].tolist() == ["stdc1"]

"""Pictures: pixels against hand-made ones, figures by what they show, and no global state left behind."""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from roadseg import figures
from roadseg.labels import LabelSpace

SPACE = LabelSpace("toy", ("road", "sky", "car"), ((128, 64, 128), (70, 130, 180), (0, 0, 142)))
IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
IDS = np.array([[0, 1, 2], [255, 0, 1]], np.uint8)

CURVE = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "val_miou": [0.1, 0.2], "learning_rate": [0.01, 0.001]})
TRIALS = pd.DataFrame(
    {
        "number": [0, 1, 2, 3],
        "state": ["complete", "pruned", "complete", "fail"],
        "val_miou": [0.2, 0.1, 0.4, np.nan],
        "network": ["enet", "enet", "fastscnn", "fastscnn"],
        "loss": ["dice", "ohem", "dice", "focal"],
        "learning_rate": [0.001, 0.004, 0.01, 0.02],
        "crop": [0.5, 1.0, 0.75, 1.0],
    }
)


def saved(figure: Figure, tmp_path: Path) -> None:
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_colour_is_the_table_and_ignore_is_black() -> None:
    expected = [[SPACE.colours[i] if i != 255 else (0, 0, 0) for i in row] for row in IDS]
    assert (figures.colour(IDS, SPACE) == np.array(expected)).all()
    assert figures.colour(IDS, SPACE).dtype == np.uint8


def test_overlay_pixel_by_pixel() -> None:
    result = figures.overlay(IMAGE, IDS, SPACE, alpha=0.25)
    for (row, column), value in np.ndenumerate(IDS):
        pixel = IMAGE[row, column]
        expected = pixel if value == 255 else [round(0.75 * p + 0.25 * c) for p, c in zip(pixel, SPACE.colours[value])]
        assert list(result[row, column]) == list(expected)
    assert result.dtype == np.uint8


def test_overlay_of_another_size_says_both() -> None:
    with pytest.raises(ValueError, match=r"sizes differ: \(2, 3\) and \(2, 2\)"):
        figures.overlay(IMAGE, IDS[:, :2], SPACE)


def test_triptych_hides_predictions_where_nothing_is_judged() -> None:
    prediction = np.full_like(IDS, 2)
    result = figures.triptych(IMAGE, IDS, prediction, SPACE)
    assert result.shape == (2, 3 * 3 + 2 * figures.GAP, 3)
    assert (result[:, :3] == IMAGE).all()
    assert (result[:, 3 : 3 + figures.GAP] == 255).all()
    assert list(result[1, -3]) == [0, 0, 0]
    assert list(result[0, -1]) == list(SPACE.colours[2])


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (3, 2, 2), (4, 2, 2), (5, 4, 2)])
def test_sheet_places_row_by_row(count: int, columns: int, rows: int) -> None:
    images = [np.full((2, 3, 3), number, np.uint8) for number in range(count)]
    page = figures.sheet(images, columns)
    step = figures.GAP
    assert page.shape == (rows * (2 + step) - step, columns * (3 + step) - step, 3)
    for number in range(count):
        row, column = divmod(number, columns)
        assert (page[row * (2 + step) :][:2, column * (3 + step) :][:, :3] == number).all()


def test_staircase_against_every_pair() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"p95_ms": random.integers(1, 30, 60), "val_miou": random.integers(1, 30, 60) / 30})
    kept = list(figures.staircase(frame).index)
    for index, row in frame.iterrows():
        faster = frame[frame["p95_ms"] <= row["p95_ms"]]
        beaten = (
            (faster["val_miou"] > row["val_miou"])
            | ((faster["val_miou"] == row["val_miou"]) & (faster["p95_ms"] < row["p95_ms"]))
        ).any()
        twin = frame.loc[kept].eq(row).all(axis=1).any()
        assert twin == (not beaten), (index, row)


def test_frontier_shows_points_budget_and_steps(tmp_path: Path) -> None:
    frame = TRIALS.assign(p95_ms=[20.0, 20.0, 70.0, 70.0])
    figure = figures.frontier(frame, budget_ms=60)
    axes = figure.axes[0]
    assert sum(len(points.get_offsets()) for points in axes.collections) == 3
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["enet", "fastscnn", "frontier", "budget, 60 ms"]
    assert axes.get_ylabel() == "validation mIoU"
    saved(figure, tmp_path)


def test_frontier_of_nothing_still_draws(tmp_path: Path) -> None:
    empty = pd.DataFrame(
        {"p95_ms": pd.Series(dtype=float), "test_miou": pd.Series(dtype=float), "name": pd.Series(dtype=str)}
    )
    figure = figures.frontier(empty, 60, score="test_miou", by="name")
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "budget, 60 ms"
    saved(figure, tmp_path)


def test_curves_one_line_a_finalist(tmp_path: Path) -> None:
    both = pd.concat([CURVE.assign(finalist="a"), CURVE.assign(finalist="b")])
    figure = figures.curves(both)
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2]
    saved(figure, tmp_path)
    alone = figures.curves(CURVE)
    assert [len(axes.lines) for axes in alone.axes] == [1, 1, 1]
    assert not alone.legends


def test_confusion_writes_shares_of_the_row(tmp_path: Path) -> None:
    matrix = np.array([[90, 10, 0], [0, 0, 0], [1, 500, 499]])
    figure = figures.confusion(matrix, SPACE.classes)
    texts = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in figure.axes[0].texts}
    assert texts == {(0, 0): "90", (0, 1): "10", (2, 1): "50", (2, 2): "50"}
    saved(figure, tmp_path)


def test_search_draws_every_scored_trial_in_each_panel(tmp_path: Path) -> None:
    figure = figures.search(TRIALS)
    for axes in figure.axes[:4]:
        assert sum(len(points.get_offsets()) for points in axes.collections) == 3
    best = figure.axes[0].lines[0]
    assert list(best.get_xdata()) == [0, 2]
    assert list(best.get_ydata()) == [0.2, 0.4]
    saved(figure, tmp_path)


def test_search_of_one_trial(tmp_path: Path) -> None:
    figure = figures.search(TRIALS.head(1).assign(learning_rate=0.0033))
    assert [sum(len(points.get_offsets()) for points in axes.collections) for axes in figure.axes[:4]] == [1] * 4
    saved(figure, tmp_path)


def test_a_study_shows_each_seed_and_the_mean(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"variant": ["a", "a", "b"], "seed": [1, 2, 1], "val_miou": [0.2, 0.4, 0.1], "test_miou": [0.1, 0.3, 0.2]}
    )
    figure = figures.study(frame, ["b", "a"])
    dots = [collection.get_offsets().tolist() for collection in figure.axes[0].collections]
    assert dots == [[[0.1, 0]], [[0.1, 0]], [[0.2, 1], [0.4, 1]], [[pytest.approx(0.3), 1]]]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a"]
    figure.savefig(tmp_path / "study.png")


def test_a_studys_scores_are_written_where_they_stand() -> None:
    figure = figures.study(pd.DataFrame({"variant": "a", "val_miou": [0.3, 0.48], "test_miou": [0.3, 0.31]}), ["a"])
    figure.canvas.draw()
    for axes in figure.axes:
        labels = axes.get_xticklabels()
        assert [float(label.get_text()[:-1]) for label in labels] == pytest.approx([100 * x for x in axes.get_xticks()])


def test_legend_names_every_class() -> None:
    assert [text.get_text() for text in figures.legend(SPACE).axes[0].texts] == ["road", "sky", "car", "ignored"]


def test_no_global_state() -> None:
    before = dict(mpl.rcParams)
    figures.curves(CURVE)
    figures.confusion(np.eye(3, dtype=int), SPACE.classes)
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()

"""Metrics against matrices counted by hand, absent classes, and what an interval must do."""

import numpy as np
import pytest

from roadseg import metrics

LABEL = np.array([[0, 0, 0, 255], [1, 1, 3, 3]], dtype=np.uint8)
PREDICTION = np.array([[0, 0, 2, 0], [1, 0, 3, 3]], dtype=np.uint8)
# Class 2 is predicted once and in no label; class 4 is in neither. By hand: rows = label, columns = prediction.
MATRIX = np.array([[2, 0, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 2, 0], [0, 0, 0, 0, 0]])


def split(seed: int, scenes: int = 40, classes: int = 4, right: float = 0.8) -> np.ndarray:
    """Per-scene matrices of a model that is right with that probability; the labels depend on the scene only."""
    random = np.random.default_rng(seed)
    stack = []
    for scene in range(scenes):
        label = np.random.default_rng(1000 + scene).integers(classes, size=(12, 12))
        guess = np.where(random.random((12, 12)) < right, label, random.integers(classes, size=(12, 12)))
        stack.append(metrics.confusion(guess, label, classes))
    return np.stack(stack)


def test_confusion_is_what_was_counted_by_hand() -> None:
    matrix = metrics.confusion(PREDICTION, LABEL, 5)
    np.testing.assert_array_equal(matrix, MATRIX)
    assert matrix.dtype == np.int64


def test_confusion_is_what_a_loop_counts() -> None:
    random = np.random.default_rng(0)
    label, prediction = random.choice([0, 1, 2, 255], size=(9, 11)), random.integers(3, size=(9, 11), dtype=np.uint8)
    expected = np.zeros((3, 3), dtype=np.int64)
    for y, x in np.ndindex(9, 11):
        if label[y, x] != 255:
            expected[label[y, x], prediction[y, x]] += 1
    np.testing.assert_array_equal(metrics.confusion(prediction, label, 3), expected)


def test_a_prediction_under_an_ignored_label_may_be_anything() -> None:
    assert not metrics.confusion(np.full((2, 2), 255), np.full((2, 2), 255), 3).any()


def test_255_classes_do_not_overflow() -> None:
    ids = np.full((2, 2), 254, dtype=np.uint8)
    assert metrics.confusion(ids, ids, 255)[254, 254] == 4


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"`prediction` is \(2, 3\), `label` is \(3, 2\)"),
        (np.array([7]), np.array([0]), r"`prediction` holds ids 7\.\.7: they must be 0\.\.4"),
        (np.array([0, 0]), np.array([2, 33]), r"`label` holds ids 2\.\.33: they must be 0\.\.4"),
        (np.array([0]), np.array([-1]), r"`label` holds ids -1\.\.-1"),
    ],
)
def test_confusion_refuses_what_it_cannot_count(prediction: np.ndarray, label: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.confusion(prediction, label, 5)


def test_scores_are_what_was_reckoned_by_hand() -> None:
    scores = metrics.scores(MATRIX)
    # IoU: class 0 2/(3+3-2), class 1 1/(2+1-1), class 3 2/2. Classes 2 and 4 are in no label and not in the means.
    assert scores.iou == (0.5, 0.5, None, 1.0, None)
    assert scores.classes_present == 3
    assert scores.miou == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert scores.pixel_accuracy == pytest.approx(5 / 7)
    assert scores.mean_accuracy == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores.mean_dice == pytest.approx((4 / 6 + 2 / 3 + 4 / 4) / 3)


def test_a_present_class_that_is_never_predicted_scores_zero() -> None:
    scores = metrics.scores(np.array([[4, 0], [4, 0]]))
    assert scores.iou == (0.5, 0.0)
    assert scores.miou == 0.25


def test_present_restricts_the_means_and_adds_no_absent_class() -> None:
    scores = metrics.scores(MATRIX, [True, False, True, True, True])
    assert scores.iou == (0.5, None, None, 1.0, None)
    assert scores.miou == 0.75
    assert scores.pixel_accuracy == pytest.approx(5 / 7)


def test_a_split_is_scored_as_one_matrix_not_as_a_mean_over_scenes() -> None:
    stack = np.stack([MATRIX, 3 * MATRIX.T])
    assert metrics.scores(stack) == metrics.scores(stack.sum(axis=0))


def test_scores_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no labelled pixel of a class that counts"):
        metrics.scores(np.zeros((3, 3), int))


def test_intervals_hold_the_value_and_are_the_same_for_a_seed() -> None:
    stack = split(0)
    interval = metrics.bootstrap_interval(stack, seed=5)
    assert interval == metrics.bootstrap_interval(stack, seed=5)
    assert interval["low"] < interval["median"] < interval["high"]
    assert interval["low"] < metrics.scores(stack).miou < interval["high"]


def test_the_interval_is_what_drawing_scene_by_scene_gives() -> None:
    stack, random = split(0, scenes=12), np.random.default_rng(2)
    mious = [metrics.scores(stack[random.integers(12, size=12)]).miou for _ in range(2000)]
    expected = np.percentile(mious, [2.5, 50, 97.5])
    interval = metrics.bootstrap_interval(stack, draws=2000)
    np.testing.assert_allclose([interval["low"], interval["median"], interval["high"]], expected, atol=0.004)


def test_more_scenes_narrow_it() -> None:
    few, many = (metrics.bootstrap_interval(split(0, scenes)) for scenes in (10, 160))
    assert few["high"] - few["low"] > 2 * (many["high"] - many["low"])


def test_a_paired_difference_has_a_sign_and_sees_no_difference_in_itself() -> None:
    better, worse = split(1, right=0.85), split(2, right=0.75)
    assert metrics.paired_bootstrap(better, worse, seed=0)["low"] > 0
    assert metrics.paired_bootstrap(worse, better, seed=0)["high"] < 0
    assert metrics.paired_bootstrap(better, better, seed=0) == {"low": 0.0, "median": 0.0, "high": 0.0}


def test_pairing_narrows_it() -> None:
    a = split(1)
    b = a.copy()
    b[:, 0, 0] -= 1  # the same errors and one more a scene: scenes' difficulty cancels
    b[:, 0, 1] += 1
    paired, alone = metrics.paired_bootstrap(a, b, seed=0), metrics.bootstrap_interval(a)
    assert 0 < paired["low"] < paired["high"]
    assert paired["high"] - paired["low"] < (alone["high"] - alone["low"]) / 5


def test_a_class_that_a_draw_lacks_is_left_out_of_that_draw() -> None:
    rare = np.zeros((2, 2, 2), dtype=np.int64)
    rare[0, 0, 0] = rare[1, 1, 1] = 10
    assert metrics.bootstrap_interval(rare) == {"low": 1.0, "median": 1.0, "high": 1.0}


def test_pairs_must_be_of_the_same_scenes() -> None:
    with pytest.raises(ValueError, match="must be matrices of the same scenes: their labels differ"):
        metrics.paired_bootstrap(split(0), split(0)[::-1], seed=0)

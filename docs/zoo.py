"""Writes docs/zoo.md: a row a network, its counts here beside the published ones, and what it costs on this machine.

roadseg zoo --height 360 --width 480   # writes models/zoo/: zoo.csv and zoo.png
python -m bench.zoo                    # writes .state/bench/zoo.csv
python -m bench.overfit MIRROR         # writes .state/bench/overfit.csv
python -m docs.zoo

What was measured is kept in docs/measured/, so that the page can be written where none of it was measured again.
"""

import shutil
from functools import cache
from pathlib import Path

import pandas as pd

from bench.overfit import GOAL, RATE, TRANSFORMER_RATE
from roadseg import nets
from roadseg.nets import counts
from roadseg.nets.published import PUBLISHED, A, Published
from roadseg.stages.overfit import STEPS

OUT = Path("docs/zoo.md")
TIMED, TIMED_KEPT = Path("models/zoo/zoo.csv"), Path("docs/measured/zoo.csv")
AGREED, AGREED_KEPT = Path(".state/bench/zoo.csv"), Path("docs/measured/engines.csv")
LEARNT, LEARNT_KEPT = Path(".state/bench/overfit.csv"), Path("docs/measured/overfit.csv")
PICTURE, SHOWN = Path("models/zoo/zoo.png"), Path("docs/images/zoo.png")
CLASSES = 19
COLUMNS = ["size", "steps", "schedule", "miou", "seconds", "device"]
NEAR = {"parameters": 0.03, "multiply_adds": 0.05}
"""How far a count may be from the published one without a reason."""
HEAD = """# The zoo

Every network that `search.networks` can name. Written by `python -m docs.zoo`.

Parameters are in millions, without training heads, batch norms unfolded, at {classes} classes. Multiply-adds are in
billions, of one image of the size that the source counts at (512x1024 where there is none), by torch's own counter:
convolutions and matrix products, but for those of weights alone. Papers and tables call them FLOPs; where a source
counts operations, its number is halved here. Sources: A, PaddleSeg's model zoo overview; B, RDRNet's README; C, the
README of realtime-semantic-segmentation-pytorch; D, Ultralytics' documentation.
"""

CHOSEN = """## LMFFNet and RegSeg

One of the two was to be taken, the better one from scratch here. After 4 epochs of CamVid at 240x180, three seeds each,
LMFFNet has 41.3 +- 4.3 % on the validation split and 35.2 +- 1.3 on the test split, RegSeg 35.2 +- 2.6 and 32.1 +- 1.5
([the study](studies/small.md)): LMFFNet learns more in an epoch, and takes 1.2 to 1.4 times as long, by
the hour. Equal minutes and long trainings were not compared; with 2.5 times the parameters RegSeg has fewer
multiply-adds. Both are in the zoo."""


CEILING = """What can be drawn at all sets a limit: logits at an eighth of 240x180, trained as free numbers in a
network's place, reach 85.4 % on these scenes (the poles are thinner than they are), at an eighth of 480x360 91.8 %, at
a quarter of 240x180 93.5 % (`python -m bench.overfit MIRROR --ceiling`). DeepLabV3 and PSPNet, whose logits are at an
eighth and which cost more than 40 billion multiply-adds, can therefore not pass on them at 240x180. Theirs are four
other scenes: of the training scenes that show nine of the eleven classes or more, the four that an eighth draws best,
with a limit of 91.9 % (it takes the whole of CamVid to find them)."""


@cache
def counted(name: str) -> tuple[float, float]:
    """Parameters in millions, multiply-adds in billions."""
    parameters, multiply_adds = counts.of(name, CLASSES, *(PUBLISHED[name].size or A))
    return parameters / 1e6, multiply_adds / 1e9


def row(name: str) -> str:
    """Of the table, without what depends on this machine."""
    known = PUBLISHED[name]
    parameters, multiply_adds = counted(name)
    height, width = known.size or A
    return " | ".join(
        [
            f"| `{name}`",
            known.paper,
            f"{parameters:.2f}",
            _published(known.parameters),
            f"{multiply_adds:.2f} at {height}x{width}",
            _published(known.multiply_adds),
            known.source,
        ]
    )


def _published(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def differences(known: Published, parameters: float, multiply_adds: float) -> list[str]:
    """Which counts are further from the published ones than `NEAR` allows."""
    pairs = {"parameters": (parameters, known.parameters), "multiply_adds": (multiply_adds, known.multiply_adds)}
    return [name for name, (ours, theirs) in pairs.items() if theirs and abs(ours / theirs - 1) > NEAR[name]]


def latencies(timed: pd.DataFrame, name: str = "") -> list[str]:
    """Of a network, its p95 in each form, ms, empty where it was not timed; without a name, what the columns say."""
    texts = timed["p95_ms"].map("{:.1f}".format).where(timed["stable"], timed["p95_ms"].map("{:.1f} unstable".format))
    forms = timed.assign(text=texts).pivot_table(
        "text", "network", ["engine", "precision"], aggfunc="first", sort=False
    )
    if not name:
        size = f"{timed['width'].iloc[0]}x{timed['height'].iloc[0]}"
        return [f"{engine} {precision} p95, ms at {size}" for engine, precision in forms.columns]
    return list(forms.loc[name]) if name in forms.index else [""] * forms.shape[1]


def costs(frame: pd.DataFrame) -> str:
    """The table of latencies: a row a network and form."""
    first = frame.iloc[0]
    lines = [
        f"## Latency and memory at {first['width']}x{first['height']}",
        "",
        f"On {first['device_id']}, {first['threads']} threads, batch 1, random weights; p95 with its 95 % interval, in",
        "ms. The peak is the host's memory, of a process that runs the model: Python, NumPy, Pillow and the engine are",
        "in it, a GPU's memory is not. Unstable: after ten rounds of calls and six seconds the interval was still",
        "wider than 5 % of the p95 to either side.",
        "",
        "| network | form | p50 | p95 | calls | host peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for one in frame.to_dict("records"):
        spread = f"{one['p95_ms']:.1f} ({one['p95_low_ms']:.1f} to {one['p95_high_ms']:.1f})"
        spread += "" if one["stable"] else ", unstable"
        form = f"{one['engine']} {one['precision']}"
        lines.append(
            f"| `{one['network']}` | {form} | {one['p50_ms']:.1f} | {spread} | {one['n']} | {one['peak_mb']:.0f} |"
        )
    return "\n".join(lines)


def agreed(frame: pd.DataFrame) -> str:
    """The table of what the engines say, a row a network."""
    said = [name for name in frame.columns if name not in ("network", "size")]
    sizes = " and ".join(frame["size"].unique())
    lines = [
        "## The same in every engine",
        "",
        "The share of pixels whose arg max is torch's (`python -m bench.zoo`): float32, one structured image, random",
        "weights, running statistics moved away from where they start, each class's logits centred over the image; the",
        f"worse of {sizes}. The largest class is the share of torch's commonest answer: many classes are told apart.",
        "",
        f"| network | {' | '.join(said)} |",
        "|---" * (len(said) + 1) + "|",
    ]
    worst = frame.groupby("network")[said].min()
    worst["largest class"] = frame.groupby("network")["largest class"].max()
    lines += [
        f"| `{name}` | {' | '.join(f'{share:.3%}' for share in worst.loc[name])} |"
        for name in nets.NETS
        if name in worst.index
    ]
    return "\n".join([*lines, "", _missing(worst.index)])


def _missing(names: pd.Index) -> str:
    missing = [f"`{name}`" for name in nets.NETS if name not in names]
    return f"Not run yet: {', '.join(missing)}." if missing else "All of them."


def learnt(frame: pd.DataFrame) -> str:
    """The table of networks that learned four scenes by heart."""
    lines = [
        "## Learning four scenes by heart",
        "",
        "Four scenes of CamVid's training split, without augmentation, until the mIoU of the classes that they show is",
        f"{GOAL:.0%} (`python -m bench.overfit`, whose text says how): random start, AdamW at {RATE} (MiT and Swin at",
        f"{TRANSFORMER_RATE}), poly over {STEPS:,} steps, Dice plus weighted cross-entropy. All are of code",
        "before `kernels/`, rows of another schedule of older code yet. Seconds are of one core that other work shared",
        "now and then, for orientation and not to be compared; none where the process was paused.",
        "",
        "| network | size | steps | mIoU | seconds | device |",
        "|---|---|---|---|---|---|",
    ]
    frame = frame.set_index("network")
    for name in nets.NETS:
        if name in frame.index:
            size, steps, schedule, miou, seconds, device = frame.loc[name, COLUMNS]
            took = "" if seconds != seconds else f"{seconds:.0f}"
            below = "" if miou >= GOAL else ", not reached"
            lines.append(f"| `{name}` | {size} | {steps} of {schedule} | {miou:.1%}{below} | {took} | {device} |")
    return "\n".join([*lines, "", _missing(frame.index), "", CEILING])


def measured(new: Path, kept: Path, by: tuple[str, ...] = ()) -> pd.DataFrame:
    """What is in `kept` after what is `new` here has taken its place: the whole table's, or that of the rows that have
    the same in the columns `by`."""
    if new.is_file():
        frame = pd.read_csv(new)
        if by:
            older = [pd.read_csv(kept)] if kept.is_file() else []
            frame = pd.concat([*older, frame]).drop_duplicates([*by], keep="last")
        kept.parent.mkdir(exist_ok=True)
        frame.to_csv(kept, index=False)
    return pd.read_csv(kept)


def page(timed: pd.DataFrame, same: pd.DataFrame, learned: pd.DataFrame) -> str:
    """The whole, of what roadseg zoo, bench.zoo and bench.overfit measured."""
    titles = ["network", "paper", "parameters", "published", "multiply-adds", "published", "source", *latencies(timed)]
    columns = f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|"
    rows = [" | ".join([row(name), *latencies(timed, name)]) + " |" for name in nets.NETS]
    said = {name: PUBLISHED[name].differs or PUBLISHED[name].note for name in nets.NETS}
    reasons = [f"- `{name}`: {text}" for name, text in said.items() if text]
    parts = [
        HEAD.format(classes=CLASSES),
        "\n".join([columns, *rows]),
        "\n## What must be known of the counts\n\n" + "\n".join(reasons) + "\n",
        CHOSEN,
        "\n" + costs(timed) + "\n\n![Latency against multiply-adds](images/zoo.png)",
        "\n" + agreed(same),
        "\n" + learnt(learned),
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    timed = pd.read_csv(TIMED_KEPT)
    if TIMED.is_file() and not set(nets.NETS) - set(pd.read_csv(TIMED)["network"]):  # a few would not compare
        timed = measured(TIMED, TIMED_KEPT)
        shutil.copyfile(PICTURE, SHOWN)
    same = measured(AGREED, AGREED_KEPT, by=("network", "size"))
    learned = measured(LEARNT, LEARNT_KEPT, by=("network",))
    OUT.write_text(page(timed, same, learned), encoding="utf-8")


if __name__ == "__main__":
    main()

"""The command line: one verb a stage, then what people do by hand. Each verb imports its own room, so help is quick."""

import os
from pathlib import Path
from typing import Annotated

import typer

from roadseg import __version__
from roadseg.config import read
from roadseg.errors import reported

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Source = Annotated[str, typer.Argument(help="A source from data.sources in params.yaml.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"roadseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """From driving-scene datasets to a registered, deployable, real-time segmentation model."""
    if debug:
        os.environ["ROADSEG_DEBUG"] = "1"


@app.command()
def fetch(source: Source) -> None:
    """Get a source's files: from an archive, a mirror or its official address."""
    from roadseg.stages import fetch

    fetch.run(read(), source)


@app.command()
def remap(source: Source) -> None:
    """Turn a source's labels into train ids of the label space."""
    from roadseg.stages import remap

    remap.run(read(), source)


@app.command()
def profile() -> None:
    """Scene and class statistics; class weights."""
    from roadseg.stages import profile

    profile.run(read())


@app.command()
def validate() -> None:
    """Check scenes and classes against the expectations; write the data docs."""
    from roadseg.stages import validate

    validate.run(read())


@app.command()
def export() -> None:
    """Export the finalists to ONNX and compare each with its network."""
    from roadseg.stages import export

    export.run(read())


@app.command()
def evaluate() -> None:
    """Score and time the exported finalists in every form they could be deployed in."""
    from roadseg.stages import evaluate

    evaluate.run(read())


@app.command()
def promote() -> None:
    """Register the best candidate under the latency budget, if it beats the champion."""
    from roadseg.stages import promote

    promote.run(read())


@app.command()
def pull(
    version: Annotated[str, typer.Argument(help="An alias or a version number.")] = "champion",
    to: Annotated[Path, typer.Option(help="Folder to make; must not exist yet.")] = Path("bundle"),
    name: Annotated[str | None, typer.Option(help="Registered model; by default the one of params.yaml.")] = None,
) -> None:
    """Copy a registered model's bundle into a folder, checksums verified."""
    from roadseg.stages import pull

    pull.run(version, to, name=name)


@app.command()
def predict(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An image or a folder of images.")],
    out: Annotated[Path, typer.Option(help="Folder for id masks and overlays.")],
    bundle: Annotated[Path, typer.Option(help="A bundle, as `pull` or promote leaves it.")] = Path(
        "models/promote/bundle"
    ),
) -> None:
    """Segment an image or a folder with a bundle: id masks and overlays."""
    from roadseg.deploy import predict

    predict.predict(source, out, bundle)


@app.command()
def frontier() -> None:
    """The best model for each latency budget, as a table and a picture."""
    from roadseg.stages import frontier

    frontier.run(read())


@app.command()
def zoo(
    networks: Annotated[list[str] | None, typer.Argument(help="Networks by name; all of them by default.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Marks what fits, such as 20ms; by default target.budget_ms.")
    ] = None,
    height: Annotated[int | None, typer.Option(min=32, help="Of the input, pixels; by default the line's.")] = None,
    width: Annotated[int | None, typer.Option(min=32, help="Of the input, pixels; by default the line's.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the table and the picture.")] = Path("models/zoo"),
) -> None:
    """What the networks cost here: parameters, multiply-adds, latency of each deployed form, memory."""
    from roadseg.errors import UserError
    from roadseg.stages import zoo

    if (height is None) != (width is None):
        raise UserError("--height and --width go together: give both, or neither")
    size = (height, width) if height and width else None
    zoo.run(read(), networks or (), size, zoo.milliseconds(budget) if budget else None, out)


@app.command()
def score(
    finalist: Annotated[str | None, typer.Argument(help="Of models/train/finalists/; the only one by default.")] = None,
    scales: Annotated[str, typer.Option(help="Sizes at which a scene is seen, such as 0.75,1,1.25.")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="See the mirrored scene as well.")] = False,
    window: Annotated[
        str | None, typer.Option(help="Slide a window of HEIGHTxWIDTH pixels over the scene at its own size.")
    ] = None,
    split: Annotated[str, typer.Option(help="val, or test.")] = "val",
) -> None:
    """What a trained network scores when it may look more than once: several scales, mirrored, through windows."""
    from roadseg.stages import score

    score.run(read(), finalist, score.views(scales, flip, window), split)


@app.command()
def schedule(
    names: Annotated[
        list[str] | None, typer.Argument(help='Such as "cosine(restarts=2)"; train.schedule and all others by default.')
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("models/schedule.png"),
) -> None:
    """Draw learning-rate schedules over a training, its phases' factors included."""
    from roadseg.stages import rates

    rates.draw(read(), names or (), out)


@app.command()
def rate(
    network: Annotated[str | None, typer.Argument(help="The first of search.networks by default.")] = None,
    steps: Annotated[int, typer.Option(min=10, help="Optimiser steps.")] = 100,
    low: Annotated[float, typer.Option(min=1e-9, help="Learning rate of the first step.")] = 1e-5,
    high: Annotated[float, typer.Option(min=1e-9, help="Learning rate of the last step.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Folder for the table and the picture.")] = Path("models/rate"),
) -> None:
    """Learning-rate range test: train with a rising rate, and see where the loss falls fastest and where it bursts."""
    from roadseg.stages import rates

    rates.run(read(), network, steps=steps, low=low, high=high, out=out)


@app.command()
def overfit(
    networks: Annotated[list[str] | None, typer.Argument(help="Networks; those of search.networks by default.")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="Training scenes to learn by heart.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the schedule, which ends early at the goal.")] = 1200,
    goal: Annotated[float, typer.Option(min=0.0, max=1.0, help="mIoU that must be reached.")] = 0.9,
) -> None:
    """Before a long training: can the networks learn a few scenes by heart? If not, something is wrong."""
    from roadseg.stages import overfit

    overfit.run(read(), networks or (), scenes=scenes, steps=steps, goal=goal)


@app.command()
def data() -> None:
    """What data is there: scenes of each split, labelled or not, sizes, licence terms."""
    from roadseg.stages import inventory

    inventory.run(read())


@app.command()
def show(
    source: Source,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures; show/SOURCE by default.")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="Scenes on the sheet.")] = 8,
) -> None:
    """Contact sheets of a source: image, labels, both; and of each class the scenes with least and most of it."""
    from roadseg.stages import show

    show.run(read(), source, out or Path("show") / source, scenes)


@app.command()
def doctor() -> None:
    """What this machine has: devices, engines, precisions, servers, data."""
    from roadseg.stages import doctor

    doctor.run(read())


def main() -> None:
    with reported("roadseg"):
        app()

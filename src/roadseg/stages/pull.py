"""A registered model's bundle, copied to a folder, every checksum right. Needs no project: only the MLflow server."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from roadseg import paths, tracking
from roadseg.config import read
from roadseg.deploy import bundle
from roadseg.errors import UserError
from roadseg.scenes import sources

if TYPE_CHECKING:
    from roadseg.tracking.registry import Registry, Version


def run(which: str, to: Path, name: str | None = None) -> None:
    """Copy the bundle of an alias or version number to `to`, which must not exist or be empty.

    name: of the registered model; without it, params.yaml's here, else the only one there is. Raises UserError, and
    leaves `to` as it was, if there is no such version or not every file of it came whole.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to} is there already: give a folder that is not, or is empty")
    with tracking.open_registry(create=False) as registry:
        version = _find(registry, name or _only(registry), which)
        paths.folder(to.absolute().parent, "--to")
        with tempfile.TemporaryDirectory(dir=to.absolute().parent, prefix=f".{to.name}.") as aside:
            folder = Path(aside, "bundle")
            with Console(stderr=True).status(f"Copying {version.uri}"):
                registry.download(version, folder)
            bundle.verify(folder)
            if not to.exists():
                folder.rename(to)
            else:  # its files one by one: it may be the folder that a shell is in
                for path in folder.iterdir():
                    path.rename(to / path.name)
    Console().print(f"{version.name} version {version.number} is in {to}: read {to}/MODEL_CARD.md", markup=False)


def _only(registry: "Registry") -> str:
    """The model's name where none was given."""
    if Path("params.yaml").exists():
        config = read()
        return config.target.registered_name(sources.space_of(config).name)
    names = registry.names()
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        raise UserError(f"which model? {registry.uri} has {listed}: say --name NAME")
    return names[0]


def _find(registry: "Registry", name: str, which: str) -> "Version":
    if version := registry.find(name, which):
        return version
    if not (versions := registry.versions(name)):
        listed = ", ".join(registry.names()) or "none"
        raise UserError(f"no model {name!r} is registered at {registry.uri}; there are: {listed}")
    have = ", ".join(str(one.number) for one in versions)
    aliases = ", ".join(alias for one in versions for alias in one.aliases) or "none"
    raise UserError(f"{name} has no version or alias {which!r}; versions: {have}; aliases: {aliases}")

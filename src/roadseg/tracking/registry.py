"""The registered models: one a target, a version a promoted bundle, the alias `champion` on the one that reigns.

A version is a pyfunc model that holds the bundle. All that is known of it is written before the alias moves: the alias
is the commit point, and what a killed promotion leaves behind is taken up by the next. Each reign is a tag of the
registered model, `reign.NNNN`, written once.
"""

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import mlflow.artifacts
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from roadseg.errors import UserError

CHAMPION = "champion"
BUNDLE = "bundle"
TRAINING = "training"
"""Beside the bundle: what a later training starts from. Deployers do not get it."""
DIGEST, WEIGHTS = "roadseg.bundle_sha256", "roadseg.weights_sha256"
NEEDS = ("mlflow", "numpy", "onnxruntime", "pillow")
DESCRIPTION_LENGTH = 5000
"""What MLflow's database keeps of a description, characters."""
LONGEST_NUMBER = 9
"""Digits of a version's number; see roadseg.paths.NUMBER."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model, as it was when it was read."""

    name: str
    number: int
    tags: Mapping[str, str]
    description: str
    aliases: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of its bundle: the SHA-256 of SHA256SUMS, which names every other file."""
        return self.tags[DIGEST]

    @property
    def weights(self) -> str:
        """SHA-256 of its weights.safetensors; empty where it was registered without."""
        return self.tags.get(WEIGHTS, "")

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.number}"


class Registry:
    """The registry of the MLflow server at `uri`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def names(self) -> list[str]:
        """Every registered model's name, sorted."""
        return sorted(model.name for model in self._client.search_registered_models(max_results=1000))

    def versions(self, name: str) -> list[Version]:
        """Every version of the model, oldest first; none where the model is not registered."""
        if name not in self.names():  # and a search by a name with a quote in it would fail
            return []
        aliases: dict[str, tuple[str, ...]] = {}
        for alias, number in self._client.get_registered_model(name).aliases.items():  # a search leaves them out
            aliases[str(number)] = (*aliases.get(str(number), ()), alias)
        found = self._client.search_model_versions(f"name = '{name}'", max_results=1000)
        return sorted((_version(one, aliases) for one in found), key=lambda version: version.number)

    def find(self, name: str, which: str = CHAMPION) -> Version | None:
        """The version of this alias or number, if there is one."""
        is_number = which.isascii() and which.isdigit()
        if is_number and len(which) > LONGEST_NUMBER:
            return None
        try:
            if is_number:
                found = self._client.get_model_version(name, which)
            else:
                found = self._client.get_model_version_by_alias(name, which)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return _version(found, {str(found.version): tuple(found.aliases)})

    def download(self, version: Version, folder: Path, part: str = BUNDLE) -> None:
        """Copy the version's bundle, or its training part, to `folder`, which must not exist. What came is not looked
        at: verify it."""
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            try:
                # Not models:/NAME/NUMBER: MLflow would look that up in its default registry, a database in this folder.
                place = self._client.get_model_version_download_uri(version.name, str(version.number))
                inside = f"artifacts/{part}" if part == BUNDLE else part  # pyfunc's own layout
                got = mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{place}/{inside}", dst_path=aside, tracking_uri=self.uri
                )
            except (MlflowException, OSError) as error:
                raise UserError(f"{version.uri}: its files could not be copied from {self.uri}: {error}") from None
            if not Path(got).is_dir() or not any(Path(got).iterdir()):
                raise UserError(f"{version.uri}: {self.uri} holds no file of it: its artifacts were moved or removed")
            shutil.move(got, folder)

    def register(
        self, name: str, bundle: Path, trained: Path, *, tags: Mapping[str, str], description: str, run_id: str | None
    ) -> Version:
        """Make a version of the bundle, with all its records. The same bundle with the same weights is not registered
        twice: what a version's tags say of its files, it holds.

        trained: folder of the weights.safetensors and recipe.json that the bundle came from. description:
        markdown; the first 5000 characters are kept. run_id: of the run that the version's page links to.
        """
        digest = hashlib.sha256((bundle / "SHA256SUMS").read_bytes()).hexdigest()
        weights = hashlib.sha256((trained / "weights.safetensors").read_bytes()).hexdigest()
        everything = {**tags, DIGEST: digest, WEIGHTS: weights}
        description = description[:DESCRIPTION_LENGTH]
        for version in self.versions(name):
            if version.tags.get(DIGEST) == digest and version.weights == weights:
                for key, value in everything.items():
                    self._client.set_model_version_tag(name, str(version.number), key, value)
                self._client.update_model_version(name, str(version.number), description)
                return version
        if name not in self.names():
            self._client.create_registered_model(name)
        model_id = self._upload(name, bundle, trained, run_id)
        made = self._client.create_model_version(
            name,
            f"models:/{model_id}",
            run_id,
            tags=everything,
            description=description,
            await_creation_for=0,
            model_id=model_id,
        )
        return _version(made, {})

    def crown(self, version: Version, record: Mapping[str, Any], description: str) -> None:
        """Make the version the champion: its reign is written down first, then the alias moves.

        record: what the reign's tag says beside version and time. description: of the registered model, markdown.
        """
        tags = self._client.get_registered_model(version.name).tags
        reigns = sorted(key for key in tags if key.startswith("reign."))
        if not reigns or json.loads(tags[reigns[-1]])["version"] != version.number:  # else: left by a killed promotion
            reign = {"version": version.number, "since": datetime.now(UTC).isoformat(timespec="seconds"), **record}
            self._client.set_registered_model_tag(version.name, f"reign.{len(reigns) + 1:04}", json.dumps(reign))
        self._client.update_registered_model(version.name, description)
        self._client.set_registered_model_alias(version.name, CHAMPION, str(version.number))

    def reigns(self, name: str) -> list[dict[str, Any]]:
        """Who reigned since when, first to last."""
        tags = self._client.get_registered_model(name).tags
        return [json.loads(tags[key]) for key in sorted(tags) if key.startswith("reign.")]

    def _upload(self, name: str, bundle: Path, trained: Path, run_id: str | None) -> str:
        """Log the bundle as a pyfunc model, what it was trained to beside it, and return the logged model's id."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's, about type hints of its own agents and of an array
            import mlflow.pyfunc
            from mlflow.models import Model, ModelSignature
            from mlflow.types import Schema, TensorSpec

        signature = ModelSignature(  # without names, an array reaches the model as it is and not in a dict
            Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))]),
            Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1))]),
        )
        experiment = self._client.get_run(run_id).info.experiment_id if run_id else "0"
        logged = self._client.create_logged_model(experiment, name, run_id, model_type="segmentation")
        with tempfile.TemporaryDirectory() as aside:
            folder, named = Path(aside, "model"), Path(aside, BUNDLE)  # MLflow keeps a folder under its own name
            shutil.copytree(bundle, named)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mlflow.pyfunc.save_model(
                    folder,
                    python_model=str(Path(__file__).with_name("model.py")),
                    artifacts={BUNDLE: str(named)},
                    signature=signature,
                    pip_requirements=[f"{package}=={installed(package)}" for package in NEEDS],
                    mlflow_model=Model(run_id=run_id, model_id=logged.model_id),
                )
            (folder / TRAINING).mkdir()
            for file in ("weights.safetensors", "recipe.json"):
                shutil.copy(trained / file, folder / TRAINING / file)
            self._client.log_model_artifacts(logged.model_id, str(folder))
        self._client.finalize_logged_model(logged.model_id, "READY")
        return str(logged.model_id)


def _version(found: ModelVersion, aliases: Mapping[str, tuple[str, ...]]) -> Version:
    number = str(found.version)
    return Version(found.name, int(number), dict(found.tags), found.description or "", aliases.get(number, ()))

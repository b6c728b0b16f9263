"""What `make up` keeps running beside the two servers: the `retrain` deployment, its schedule and its runs.

In: params.yaml's `retrain`. Out: a deployment on the Prefect server of PREFECT_API_URL, for as long as this runs.
"""

from prefect import serve
from prefect.deployments.runner import EntrypointType
from prefect.schedules import Cron, Schedule

from pipelines import runs
from pipelines.retrain import retrain
from roadseg import config
from roadseg.errors import UserError, reported


def schedule(settings: config.Retrain) -> Schedule:
    """When `retrain` runs. Raises UserError on a cron line or a time zone that is none."""
    try:
        return Cron(settings.cron, timezone=settings.timezone)
    except ValueError as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"params.yaml: retrain: {settings.cron!r}, {settings.timezone!r} is no schedule: {why}"
        ) from None


def main() -> None:
    settings = config.read().retrain
    deployment = retrain.to_deployment(
        name="retrain",
        schedule=schedule(settings),
        parameters={"revision": settings.revision, "overrides": {}},
        tags=[runs.PROJECT],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    serve(deployment, limit=1, print_starting_message=False)


if __name__ == "__main__":
    with reported("retrain"):
        main()

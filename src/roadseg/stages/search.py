"""Which recipe next: an Optuna study over network, loss, learning rate and crop, inside the latency budget.

Reads data/profile/ and data/validation/report.json; writes models/search/: latency.csv, trials.csv, finalists.json,
metrics.json and figures/. The study itself lives in .state/study/ and goes on where it was.

`pipelines/search.py` decides when each piece runs; this file says what a piece is.
"""

import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from roadseg import closure, figures, paths
from roadseg.config import Config
from roadseg.deploy import engines, timings
from roadseg.engine import Diverged
from roadseg.errors import StageFailure, UserError
from roadseg.nets import initial
from roadseg.stages import sizes, trainable, training
from roadseg.stages.progress import live
from roadseg.stages.stage import Stage
from roadseg.stages.training import Course, Recipe
from roadseg.tracking import Parent, Run

REPORTS = 3  # validation scores of a trial, at equal shares of its steps: what the pruner compares
PRUNERS = {
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=1),
    "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    "none": lambda: optuna.pruners.NopPruner(),
}


class WithinNetwork(optuna.pruners.BasePruner):
    """A pruner that holds a trial against those of its own network alone: networks that learn faster need not end
    higher, so a slow one keeps its finalist, and its better recipes.

    Nor does it see trials that failed. So a network's first trial is pruned by none, and a search that was killed
    prunes as one that was not.
    """

    def __init__(self, pruner: optuna.pruners.BasePruner) -> None:
        self.pruner = pruner

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether to stop a trial that has reported."""
        return self.pruner.prune(cast(optuna.Study, _OfNetwork(study, trial.params["network"])), trial)


class _OfNetwork:
    """A study that shows one network's trials, as far as pruners look at it."""

    def __init__(self, study: optuna.Study, network: str) -> None:
        self._study, self._network = study, network

    def get_trials(self, *args: Any, **options: Any) -> list[optuna.trial.FrozenTrial]:
        return [
            trial
            for trial in self._study.get_trials(*args, **options)
            if trial.params.get("network") == self._network and trial.state != TrialState.FAIL
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


def latency_table(config: Config, course: Course) -> pd.DataFrame:
    """One row a network and deployed form: latency does not depend on how a network was trained, so it comes first."""
    target, (image, (height, width)) = config.target, sizes.deployed(config)
    return pd.DataFrame(
        timings.table(
            config.search.networks,
            classes=len(course.space.classes),
            height=height,
            width=width,
            forms=engines.forms(target.engines, target.device, target.threads),
            budget_ms=target.budget_ms,
            image=image,
        )
    )


def admitted(config: Config, table: pd.DataFrame) -> list[str]:
    """The networks whose fastest form is within the budget, in the order of params.yaml.

    Raises:
        UserError: none is.
    """
    fastest = table.groupby("network")["p95_ms"].min()
    within = [name for name in config.search.networks if fastest[name] <= config.target.budget_ms]
    if not within:
        raise UserError(
            f"params.yaml: target.budget_ms: no network runs within {config.target.budget_ms:g} ms here; the fastest "
            f"is {fastest.idxmin()} with {fastest.min():.1f} ms: raise the budget, or make the input smaller"
        )
    return within


def _whole(path: Path) -> Path:
    """Raises UserError where the studies' file is there and damaged."""
    if path.exists():
        try:
            with closing(sqlite3.connect(path)) as database:
                said = database.execute("PRAGMA quick_check(1)").fetchone()[0].splitlines()[-1]
        except sqlite3.OperationalError:
            raise  # locked, say
        except sqlite3.DatabaseError as error:
            said = str(error)
        if said != "ok":
            raise UserError(f"{path} is damaged ({said}): delete it, and the search starts anew")
    return path


class Search:
    """One study, opened: asks for the next recipe, trains it, remembers what came of it.

    The study's name is a hash of its space, scenes, settings and code: a changed space is a new study, and more
    trials continue the old one.
    """

    def __init__(self, config: Config, course: Course, table: pd.DataFrame, parent: Parent) -> None:
        self.config, self.course, self.table, self.parent = config, course, table, parent
        self.networks = admitted(config, table)
        self.key = key(course, self.networks)
        self.study = optuna.create_study(
            study_name=self.key,
            storage=f"sqlite:///{_whole(paths.state('study', 'optuna.db'))}",
            direction="maximize",
            pruner=WithinNetwork(PRUNERS[config.search.pruner]()),
            load_if_exists=True,
        )
        self._recover()
        self._say_what_starts_at_random()
        if untried := self.networks[max(self.done, config.search.trials) :]:
            print(f"not tried: {', '.join(untried)}: search.trials (params.yaml) is {config.search.trials}: raise it")
        course.record(parent)
        parent.params(_space_of(config, self.networks))

    @property
    def done(self) -> int:
        """Trials that came to an end of their own."""
        return sum(trial.state.is_finished() for trial in self._counted())

    @property
    def remaining(self) -> int:
        """Trials that are still to be run; 0 where the study has as many or more."""
        return max(0, self.config.search.trials - self.done)

    def run(self) -> str:
        """Runs the next trial to its end and returns one line about it."""
        if self.done < len(self.networks) and not self.study.get_trials(states=(TrialState.WAITING,)):
            self._enqueue(self.networks[self.done])
        # a sampler seeded by how many trials there were draws the same, however often the search was interrupted
        self.study.sampler = optuna.samplers.TPESampler(
            seed=self.config.seed + self.done, n_startup_trials=2 * len(self.networks), multivariate=True
        )
        trial = self.study.ask(self._space())
        recipe = Recipe(**trial.params)
        name = f"trial-{trial.number}-{recipe.name}"
        tags = {"roadseg.network": recipe.network, "roadseg.trial": str(trial.number)}
        params = training.settings(self.config, recipe, epochs=self.config.search.epochs)
        with self.parent.child(f"{self.key}-{trial.number}", name, params, tags) as run:
            run.metrics(training.latencies(self.table, recipe))
            try:
                value, state = self._train(trial, recipe, run)
            except StageFailure as error:
                self.study.tell(trial, state=TrialState.FAIL)
                run.tags({"roadseg.state": "diverged" if isinstance(error, Diverged) else "failed"})
                return f"{name}: {error}"
            self.study.tell(trial, None if state == TrialState.PRUNED else value, state=state)
            run.tags({"roadseg.state": state.name.lower()})
        return f"{name}: mIoU {value:.1%}, {state.name.lower()}"

    def _train(self, trial: optuna.Trial, recipe: Recipe, run: Run) -> tuple[float, TrialState]:
        course, epochs = self.course, self.config.search.epochs
        course.record(run)
        learner = course.begin(recipe, epochs=epochs, seed=self.config.seed)
        title = f"trial {self.config.search.trials - self.remaining + 1}/{self.config.search.trials} {recipe.name}"
        with live(title, epochs, len(course.train), self.config.train.parts) as show:
            looks = course.validated(learner, recipe, epochs=epochs, times=REPORTS, show=show)
            for step, look in enumerate(looks):
                result, rate = look.scores, look.report.learning_rate
                run.metrics({"loss": look.loss, "learning_rate": rate, "val_miou": result.miou}, step=step)
                trial.report(result.miou, step)
                if step < REPORTS - 1 and trial.should_prune():
                    return result.miou, TrialState.PRUNED
        run.metrics(
            {f"iou_{name}": iou for name, iou in zip(course.space.classes, result.iou, strict=True) if iou is not None}
        )
        return result.miou, TrialState.COMPLETE

    def finalists(self) -> list[Recipe]:
        """The best complete trials, the best of each network before any network's second; no two of one name.

        A short trial ranks the settings of one network better than it ranks networks with each other, and a frontier
        needs more than one network.
        """
        frame = self.trials()
        complete = frame[frame["state"] == "complete"].sort_values(["val_miou", "number"], ascending=[False, True])
        if complete.empty:
            raise StageFailure(f"search: none of {len(frame)} trials came to its end; see models/search/trials.csv")
        complete["rank"] = complete.groupby("network").cumcount()
        best = complete.sort_values(["rank", "val_miou"], ascending=[True, False])
        trials = self.study.trials
        named: dict[str, Recipe] = {}
        for number in best["number"]:
            recipe = Recipe(**trials[number].params)
            named.setdefault(recipe.name, recipe)
        return list(named.values())[: self.config.search.finalists]

    def trials(self) -> pd.DataFrame:
        """One row a finished trial: number, state, val_miou (the last report's), reports and the recipe."""
        rows = [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "val_miou": trial.intermediate_values.get(max(trial.intermediate_values, default=0)),
                "reports": len(trial.intermediate_values),
                **trial.params,
            }
            for trial in self._counted()
            if trial.state.is_finished()
        ]
        return pd.DataFrame(rows)

    def write(self, running: Stage) -> None:
        """Places models/search/. No file holds a run id or a time: a later stage depends on them."""
        trials, chosen = self.trials(), self.finalists()
        complete = trials[trials["state"] == "complete"]
        best = complete.nlargest(1, "val_miou").iloc[0]
        if lost := sorted(set(trials["network"]) - set(complete["network"])):
            print(f"{', '.join(lost)}: no trial came to its end, so none is a finalist; see models/search/trials.csv")
        self.table.to_csv(running.aside(paths.SEARCH / "latency.csv"), index=False)
        trials.to_csv(running.aside(paths.SEARCH / "trials.csv"), index=False)
        finalists = {"study": self.key, "finalists": [asdict(recipe) for recipe in chosen]}
        running.json(paths.SEARCH / "finalists.json", finalists)
        summary = {
            "best_val_miou": float(best["val_miou"]),
            "best_network": best["network"],
            "complete": len(complete),
            "pruned": int((trials["state"] == "pruned").sum()),
        }
        running.json(paths.SEARCH / "metrics.json", summary)
        folder = running.folder(paths.SEARCH / "figures")
        for name, figure in self.figures(trials).items():
            figure.savefig(folder / f"{name}.png")
            self.parent.figure(f"{name}.png", figure)
        self.parent.table("latency.csv", self.table)
        self.parent.table("trials.csv", trials)
        self.parent.metrics({"best_val_miou": summary["best_val_miou"]})

    def figures(self, trials: pd.DataFrame) -> dict[str, Any]:
        fastest = self.table.loc[self.table.groupby("network")["p95_ms"].idxmin()]
        merged = trials.merge(fastest[["network", "p95_ms"]], on="network")
        return {
            "search": figures.search(trials),
            "frontier": figures.frontier(merged, self.config.target.budget_ms),
        }

    def _space(self) -> dict[str, BaseDistribution]:
        search = self.config.search
        return {
            "network": CategoricalDistribution(self.networks),
            "loss": CategoricalDistribution(search.losses),
            "learning_rate": FloatDistribution(search.learning_rate.low, search.learning_rate.high, log=True),
            "crop": CategoricalDistribution(search.crops),
        }

    def _enqueue(self, network: str) -> None:
        """Every network starts from the same middle of the space, so that none is judged by an unlucky draw alone."""
        search = self.config.search
        self.study.enqueue_trial(
            {
                "network": network,
                "loss": search.losses[0],
                "learning_rate": search.learning_rate.middle,
                "crop": search.crops[len(search.crops) // 2],
            }
        )

    def _say_what_starts_at_random(self) -> None:
        start, left = (
            self.config.train.initial,
            {name: trainable.not_loaded(self.config, name) for name in self.networks},
        )
        for name, lines in left.items():
            if lines:
                print(f"{name} starts from {start}, but for (not_loaded.csv of the search's run has all of them):")
                print(initial.described(lines, most=5))
        if any(left.values()):
            rows = [{"network": name, "weight": line} for name, lines in left.items() for line in lines]
            self.parent.table("not_loaded.csv", pd.DataFrame(rows))

    def _recover(self) -> None:
        """Trials that a killed search left running do not count, so that the next one is what each of them was: this
        search holds the lock, so nobody trains them."""
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            self.study.set_user_attr(f"killed-{trial.number}", True)
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _counted(self) -> list[optuna.trial.FrozenTrial]:
        """Every trial but those that died with their process; a diverged one counts, or it would be tried for ever."""
        return [trial for trial in self.study.trials if f"killed-{trial.number}" not in self.study.user_attrs]


def key(course: Course, networks: list[str]) -> str:
    """The study's name; see `training.key`. The number of trials and finalists is not part of it."""
    code = closure.digest([__name__], imports=False)
    return training.key(course, networks, search=_space_of(course.config, networks), code=code)


def _space_of(config: Config, networks: list[str]) -> dict[str, Any]:
    return config.search.model_dump(exclude={"trials", "finalists"}) | {"networks": networks}

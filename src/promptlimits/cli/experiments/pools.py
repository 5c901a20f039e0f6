"""Where cells are computed: options that `reproduce` and `sweep` share."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand

from promptlimits.base.errors import UserError

if TYPE_CHECKING:
    from promptlimits.experiments.execute import Pool

_HERE: Final = "local"
_ALONE: Final = ("--ray", "--slurm")


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which machines."""

    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes, one thread each; as many as cores."),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            help="On Ray: a cluster's address, auto, or one started here.",
        ),
    ] = None
    slurm: Annotated[
        str | None,
        typer.Option("--slurm", metavar="[local]", help="As Slurm jobs, --workers at once."),
    ] = None

    def pool(self, out: Path) -> Pool:
        """The pool; files of Slurm's jobs lie in the output folder."""
        count = self.workers or len(os.sched_getaffinity(0))
        if self.ray is not None and self.slurm is not None:
            raise UserError("the pool", "be one", got="--ray and --slurm", remedy="drop one")
        if self.ray is not None:
            from promptlimits.experiments.clusters import RayWorkers

            return RayWorkers(self.ray, count)
        if self.slurm is not None:
            from promptlimits.experiments.clusters import SlurmWorkers

            return SlurmWorkers(out / "slurm", cluster=self.slurm, count=count)
        from promptlimits.experiments.workers import LocalWorkers

        return LocalWorkers(count)


class PoolCommand(TyperCommand):
    """A command whose `--ray` and `--slurm` may stand alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words, with an address behind an option that has none."""
        given: list[str] = []
        for word, after in itertools.pairwise([*args, "-"]):
            given.append(word)
            if word in _ALONE and after.startswith("-"):
                given.append(_HERE if word == "--ray" else "slurm")
        return super().parse_args(ctx, given)

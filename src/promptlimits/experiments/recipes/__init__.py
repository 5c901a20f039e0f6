"""The recipes, each a module of its own, entered here once."""

from __future__ import annotations

from typing import Any, Final

from promptlimits.base.errors import UserError
from promptlimits.experiments.recipe import Recipe
from promptlimits.experiments.recipes import accessible_share, scaling

RECIPES: Final[dict[str, Recipe[Any, Any]]] = {
    module.RECIPE.name: module.RECIPE for module in (scaling, accessible_share)
}


def recipe(name: str) -> Recipe[Any, Any]:
    """The recipe of a name.

    Raises:
        UserError: There is none.
    """
    if name not in RECIPES:
        raise UserError(
            "the experiment",
            f"be one of {', '.join(RECIPES)}, or all",
            got=name,
            remedy="list them with `promptlimits reproduce`",
        )
    return RECIPES[name]

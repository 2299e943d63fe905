"""The recipe language: YAML in, a frozen Recipe out, or every problem at once on the user's own lines."""

from pipelines.recipe.model import Output, Recipe, StepItem
from pipelines.recipe.problems import Problem, RecipeError, render

__all__ = ["Output", "Problem", "Recipe", "RecipeError", "StepItem", "render"]

"""The recipe language: YAML in, a frozen Recipe out, or every problem at once on the user's own lines.

grammar     its words and names
source      the text, read with limits; where problems are collected
compose     text to nodes that know their place; scalars, syntax: what YAML leaves open, and its errors
variables   declarations of `vars`, and their insertion into parsed values
items       the items of `steps`; options, shape, words: a step's options against its model
expand      shorthands, replaced by the steps they stand for
flow        what each step takes from which
load        all of it
"""

from pipelines.recipe.load import load
from pipelines.recipe.model import Output, Recipe, StepItem, Value
from pipelines.recipe.problems import Problem, RecipeError, render

__all__ = ["Output", "Problem", "Recipe", "RecipeError", "StepItem", "Value", "load", "render"]

"""The rows that a recipe names, read and checked without torch, so that a mistake in them is reported at once."""

from collections.abc import Mapping
from dataclasses import dataclass

from sbert_mini.errors import InputError
from sbert_mini.evaluation.sets import KNOWN, find_set
from sbert_mini.recipes.recipe import Recipe, TaskPart
from sbert_mini.training.checks import check_scores
from sbert_mini.training.examples import Examples, read_examples


@dataclass(frozen=True)
class RecipeData:
    """What the files of a recipe hold.

    Attributes:
        tables: task -> its training and dev rows, None where the recipe names no file.
        evaluation: STS set -> its pairs; empty where the recipe names no folder of them.
    """

    tables: Mapping[str, tuple[Examples | None, Examples | None]]
    evaluation: Mapping[str, list[tuple[str, str]]]


def read_data(recipe: Recipe) -> RecipeData:
    """Return the rows of a recipe's files, up to the recipe's limits.

    Raises:
        UsageError: a path of the recipe names an environment variable that is not set.
        InputError: a file is missing or cannot be read, or a row of it is invalid.
    """
    evaluation = _evaluation_sets(recipe)
    return RecipeData({part.name: _tables(recipe, part) for part in recipe.tasks}, evaluation)


def _evaluation_sets(recipe: Recipe) -> dict[str, list[tuple[str, str]]]:
    """Return the pairs of the STS sets in the folder that the recipe names: set -> pairs."""
    if recipe.data.evaluation is None:
        return {}
    folder = recipe.resolve(recipe.data.evaluation, in_data=False)
    sets = {name: find_set(folder, name) for name in KNOWN}
    if not any(sets.values()):
        raise InputError(f"data.evaluation: {folder} holds none of {', '.join(KNOWN)}")
    return {name: list(zip(s.first, s.second, strict=True)) for name, s in sets.items() if s is not None}


def _tables(recipe: Recipe, part: TaskPart) -> tuple[Examples | None, Examples | None]:
    config = part.config
    label = part.label or ("label" if config.needs_label else None)

    def read(which: str, limit: int | None) -> Examples | None:
        paths = [recipe.resolve(name) for name in part.files(which)]
        if not paths:
            return None
        examples = read_examples(paths, part.text_columns(), label, graded=config.graded)
        if limit is None:
            return examples
        return examples.kept([i < limit for i in range(len(examples))], "over the limit")

    train, dev = read("train", part.limit), read("dev", part.dev_limit)
    drops = part.drop_overlap or recipe.data.drop_evaluation
    if config.graded and train is not None and not drops:
        check_scores(part.name, train, dev, config.low, config.high)  # rows that are dropped may have any score
    return train, dev

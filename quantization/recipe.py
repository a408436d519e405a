"""Precision recipes: which sites are quantized, at which width, and how their ranges are found. TOML files."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from torch import nn

from quantization.observers import OBSERVERS
from quantization.params import RANGES
from quantization.sites import named_sites, named_weights

RECIPES = Path(__file__).parent / "recipes"
_WIDTHS = ("float", *RANGES)
_WEIGHT_WIDTHS = ("float", "int8")
_SCHEMES = ("affine", "symmetric")


class RecipeError(ValueError):
    """A recipe cannot be read, or does not fit the model."""


def _check_widths(table: str, values: Mapping[str, str], allowed: tuple[str, ...]) -> None:
    for key, value in values.items():
        if value not in allowed:
            raise RecipeError(f'[{table}] {key} = "{value}": the width must be one of {", ".join(allowed)}.')


@dataclass(frozen=True)
class Recipe:
    """One precision recipe, checked when it is made."""

    name: str
    description: str = ""
    #: Role of an activation site -> int8, int16 or float. A role that is not named stays float.
    sites: Mapping[str, str] = field(default_factory=dict)
    #: Role of a convolution -> int8 or float, for its weight. A role that is not named stays float.
    weights: Mapping[str, str] = field(default_factory=dict)
    #: Name pattern of sites and convolutions (``stages.0.*``) -> width; wins over the role. The last match counts.
    #: A convolution that matches gets its weight in int8 or float too; int16 leaves the weight as its role has it.
    overrides: Mapping[str, str] = field(default_factory=dict)
    #: Role -> observer; ``default`` for the rest.
    observers: Mapping[str, str] = field(default_factory=lambda: {"default": "min_max"})
    #: Role of an activation site -> affine, or symmetric for a zero point of 0. A role that is not named is affine.
    schemes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_widths("sites", self.sites, _WIDTHS)
        _check_widths("weights", self.weights, _WEIGHT_WIDTHS)
        _check_widths("overrides", self.overrides, _WIDTHS)
        for role, observer in self.observers.items():
            if observer not in OBSERVERS:
                raise RecipeError(f'[observers] {role} = "{observer}": choose one of {", ".join(OBSERVERS)}.')
        for role, scheme in self.schemes.items():
            if scheme not in _SCHEMES:
                raise RecipeError(f'[schemes] {role} = "{scheme}": choose one of {", ".join(_SCHEMES)}.')
        if "default" not in self.observers:
            raise RecipeError('[observers] needs a default, e.g. default = "min_max".')

    def width(self, name: str, role: str) -> str:
        """Width of the site called ``name``."""
        return self._overridden(name, self.sites.get(role, "float"), _WIDTHS)

    def weight_width(self, name: str, role: str) -> str:
        """Width of the weight of the convolution called ``name``."""
        return self._overridden(name, self.weights.get(role, "float"), _WEIGHT_WIDTHS)

    def _overridden(self, name: str, width: str, allowed: tuple[str, ...]) -> str:
        for pattern, value in self.overrides.items():
            if value in allowed and fnmatch.fnmatchcase(name, pattern):
                width = value
        return width

    def observer(self, role: str) -> str:
        """Name of the observer for sites of ``role``."""
        return self.observers.get(role, self.observers["default"])

    def symmetric(self, role: str) -> bool:
        """Whether the zero point of sites of ``role`` is 0."""
        return self.schemes.get(role) == "symmetric"


def recipe_names() -> list[str]:
    """Names of the bundled recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name_or_file: str | Path) -> Recipe:
    """Read a bundled recipe by name or a TOML file by path. Raises RecipeError naming the file and the entry."""
    path = Path(name_or_file)
    if path.suffix != ".toml":
        if str(name_or_file) not in recipe_names():
            near = get_close_matches(str(name_or_file), recipe_names(), 1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            raise RecipeError(
                f"Unknown recipe '{name_or_file}'.{guess} Bundled recipes: {', '.join(recipe_names())}; "
                "or give the path of a .toml file."
            )
        path = RECIPES / f"{name_or_file}.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"Cannot read the recipe '{path}': {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"The recipe '{path}' is not valid TOML: {error}.") from error
    known = set(Recipe.__dataclass_fields__)
    for key, value in content.items():
        if key not in known:
            near = get_close_matches(key, known, 1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            raise RecipeError(f"The recipe '{path}' has an unknown entry '{key}'.{guess}")
        is_table = key not in ("name", "description")
        if isinstance(value, dict) != is_table or not (is_table or isinstance(value, str)):
            raise RecipeError(f"In the recipe '{path}', '{key}' must be a {'table' if is_table else 'string'}.")
        if is_table and not all(isinstance(entry, str) for entry in value.values()):
            raise RecipeError(f"In the recipe '{path}', every entry of [{key}] must be a string.")
    content.setdefault("name", path.stem)
    try:
        return Recipe(**content)
    except RecipeError as error:
        raise RecipeError(f"In the recipe '{path}': {error}") from None


def apply_recipe(model: nn.Module, recipe: Recipe) -> None:
    """Give every site and weight of ``model`` its width; raises RecipeError for a role the model does not have."""
    sites, weights = dict(named_sites(model)), dict(named_weights(model))
    site_roles = {site.role for site in sites.values()}
    weight_roles = {conv.role for conv in weights.values()}
    for table, given, roles in (
        ("sites", recipe.sites, site_roles),
        ("weights", recipe.weights, weight_roles),
        ("observers", {k: v for k, v in recipe.observers.items() if k != "default"}, site_roles),
        ("schemes", recipe.schemes, site_roles),
    ):
        for role in given:
            if role not in roles:
                near = get_close_matches(role, roles, 1)
                guess = f" Did you mean '{near[0]}'?" if near else f" Known roles: {', '.join(sorted(roles))}."
                raise RecipeError(
                    f"Recipe '{recipe.name}' [{table}] names the role '{role}', which no site has.{guess}"
                )
    for pattern in recipe.overrides:
        if not fnmatch.filter([*sites, *weights], pattern):
            raise RecipeError(f"Recipe '{recipe.name}' [overrides] '{pattern}' matches no site.")
    for name, site in sites.items():
        site.dtype = recipe.width(name, site.role)
        site.params = None
        site.observer = None
    for name, conv in weights.items():
        conv.weight_dtype = recipe.weight_width(name, conv.role)
        conv.set_scales(None)

"""Precision recipes: widths, overrides, and errors that name the file and the entry."""

from __future__ import annotations

import re

import pytest

from quantization.recipe import RECIPES, Recipe, RecipeError, apply_recipe, load_recipe, recipe_names


@pytest.fixture
def written(tmp_path):
    """Writes a recipe file and gives its path."""

    def write(text: str, name: str = "mine.toml"):
        path = tmp_path / name
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return path

    return write


def test_bundled_recipes_load_and_explain_themselves():
    assert "mixed" in recipe_names()
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.description


def test_bundled_recipes_fit_the_deployed_network(edge):
    for name in recipe_names():
        apply_recipe(edge, load_recipe(name))
        width = "float" if name == "float" else "int8"
        assert edge.image.dtype == edge.stages[0].blocks[0].ffn.fc1.weight_dtype == width


def test_file_is_read_by_its_path_and_named_after_it(written):
    recipe = load_recipe(written('[sites]\nfirst = "int16"\n[observers]\ndefault = "mse"\nfirst = "percentile"\n'))
    assert recipe.name == "mine"
    assert (recipe.width("a.first", "first"), recipe.width("b", "second")) == ("int16", "float")
    assert (recipe.observer("first"), recipe.observer("image")) == ("percentile", "mse")


def test_override_wins_over_the_role_and_the_last_match_counts():
    recipe = Recipe("r", sites={"fc1": "int8"}, overrides={"stages.0.*": "int16", "*.1.fc1": "float"})
    assert recipe.width("stages.3.0.fc1", "fc1") == "int8"
    assert recipe.width("stages.0.0.fc1", "fc1") == "int16"
    assert recipe.width("stages.0.1.fc1", "fc1") == "float"
    assert recipe.width("stages.0.x", "unnamed") == "int16"


def test_applied_recipe_sets_widths_and_clears_old_parameters(calibrated):
    recipe = Recipe("r", sites={"image": "int8"}, weights={"first": "int8"}, overrides={"second.*": "int16"})
    apply_recipe(calibrated, recipe)
    assert calibrated.image.dtype == "int8" and calibrated.image.params is None
    assert calibrated.second.output.dtype == "int16"
    assert not calibrated.residual.active
    assert calibrated.first.active and calibrated.first.scales is None
    assert not calibrated.second.active and calibrated.second.scales is None


@pytest.mark.parametrize(("width", "weight"), [("float", "float"), ("int16", "int8"), ("int8", "int8")])
def test_override_of_a_convolution_holds_for_its_weight_as_far_as_weights_have_that_width(net, width, weight):
    recipe = Recipe("r", sites={"second": "int8"}, weights={"second": "int8"}, overrides={"second*": width})
    apply_recipe(net, recipe)
    assert (net.second.weight_dtype, net.second.output.dtype) == (weight, width)


@pytest.mark.parametrize("name", ["mixt", "mixde", "Mixed"])
def test_unknown_name_suggests_the_nearest(name):
    with pytest.raises(RecipeError, match=rf"'{name}'.*Did you mean 'mixed'\?"):
        load_recipe(name)


def test_unknown_name_without_a_near_one_lists_all():
    with pytest.raises(RecipeError, match=r"'zzz'.*Bundled recipes: .*mixed.*\.toml") as caught:
        load_recipe("zzz")
    assert "Did you mean" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=rf"{tmp_path}.*No such file"):
        load_recipe(tmp_path / "absent.toml")


def test_folder_is_not_a_recipe(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match=r"folder\.toml"):
        load_recipe(tmp_path / "folder.toml")


BAD = {
    "not TOML": ("[sites\nfc1 = 1", "not valid TOML"),
    "not UTF-8": ('name = "\udcff"', "not valid TOML"),
    "too deep": ("a = " + "[" * 100_000, "not valid TOML"),
    "unknown table": ('[site]\nfc1 = "int8"', r"unknown entry 'site'.*Did you mean 'sites'"),
    "unknown entry": ("speed = 3", "unknown entry 'speed'"),
    "table expected": ('sites = "int8"', "'sites' must be a table"),
    "string expected": ("[name]\nx = 1", "'name' must be a string"),
    "number as width": ("[sites]\nfc1 = 8", r"every entry of \[sites\]"),
    "wrong width": ('[sites]\nfc1 = "int4"', r'\[sites\] fc1 = "int4".*float, int8, int16'),
    "weights in int16": ('[weights]\nfc1 = "int16"', r'\[weights\] fc1 = "int16".*float, int8'),
    "wrong override": ('[overrides]\n"a.*" = "bf16"', r'\[overrides\] a\.\* = "bf16"'),
    "wrong observer": ('[observers]\ndefault = "median"', r'\[observers\] default = "median".*min_max.*mse'),
    "wrong scheme": ('[schemes]\nkey = "signed"', r'\[schemes\] key = "signed".*affine, symmetric'),
    "no default observer": ('[observers]\nfc1 = "mse"', r"\[observers\] needs a default"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_naming_file_and_entry(written, case):
    text, entry = BAD[case]
    with pytest.raises(RecipeError, match=entry) as caught:
        load_recipe(written(text))
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize("table", ["sites", "weights", "observers", "schemes"])
def test_role_the_model_does_not_have_is_refused_with_the_nearest(net, table):
    values = {"frist": {"observers": "mse", "schemes": "symmetric"}.get(table, "int8")}
    recipe = Recipe("mine", **{table: {"default": "mse", **values} if table == "observers" else values})
    with pytest.raises(RecipeError, match=rf"'mine' \[{table}\].*'frist'.*Did you mean 'first'"):
        apply_recipe(net, recipe)


def test_override_that_matches_nothing_is_refused(net):
    with pytest.raises(RecipeError, match=re.escape("'mine' [overrides] 'stages.*' matches no site")):
        apply_recipe(net, Recipe("mine", overrides={"stages.*": "float"}))


def test_bundled_files_are_where_the_package_looks():
    assert sorted(path.stem for path in RECIPES.iterdir() if path.suffix == ".toml") == recipe_names()

"""Training recipes: what is bundled, the schedule, and what is refused."""

import pytest

from segformer_edge.errors import UsageError
from segformer_edge.training.recipe import Recipe, bundled_recipes, load_recipe


def test_bundled_recipes_hold():
    assert bundled_recipes() == ["demo", "paper", "qat"]
    for name in bundled_recipes():
        assert load_recipe(name).name == name


def test_paper_values():
    recipe = load_recipe("paper")
    assert (recipe.steps, recipe.batch, recipe.learning_rate, recipe.head_factor) == (160_000, 16, 6e-5, 10.0)
    assert (recipe.weight_decay, recipe.resize, recipe.poly_power) == (0.01, (0.5, 2.0), 1.0)
    assert recipe.phase_at(0).crop == recipe.phase_at(159_999).crop == 512
    assert recipe.phase_at(0).resize == (0.5, 2.0)


def test_schedule_warms_up_and_falls_to_zero():
    recipe = Recipe(name="x", steps=100, warmup_steps=10, phases=[{"until": 1.0, "crop": 64}])
    shares = [recipe.learning_rate_share(step) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == shares[10] == 1.0
    assert shares[55] == pytest.approx(0.5)
    assert shares[100] == 0.0
    assert shares[10:] == sorted(shares[10:], reverse=True)


def test_phases_change_at_their_share():
    phases = [{"until": 0.5, "crop": 96, "resize": [0.5, 1]}, {"until": 1.0, "crop": 192}]
    recipe = Recipe(name="x", steps=10, phases=phases)
    assert [recipe.phase_at(step).crop for step in (0, 4, 5, 9, 10)] == [96, 96, 192, 192, 192]
    assert recipe.phase_at(0).resize == (0.5, 1.0)
    assert recipe.phase_at(9).resize == (0.5, 2.0)


def test_overrides_and_files(tmp_path):
    assert load_recipe("demo", steps=7).steps == 7
    assert load_recipe("demo", steps=None).steps == load_recipe("demo").steps
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nphases = [{ until = 1.0, crop = 64 }]\n', encoding="utf-8")
    assert load_recipe(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name =", "not TOML"),
        ('name = "x"', "phases: Field required"),
        ('name = "x"\nphases = []', "phases"),
        ('name = "x"\nphases = [{ until = 0.9, crop = 64 }]', "end at 1.0"),
        ('name = "x"\nphases = [{ until = 1.0, crop = 65 }]', "phases.0.crop"),
        ('name = "x"\nlerning_rate = 1.0\nphases = [{ until = 1.0, crop = 64 }]', "lerning_rate"),
        ('name = "x"\nlearning_rate = -1.0\nphases = [{ until = 1.0, crop = 64 }]', "learning_rate"),
        ('name = "x"\nsteps = 0\nphases = [{ until = 1.0, crop = 64 }]', "steps"),
        ('name = "x"\nprecision = "int3"\nphases = [{ until = 1.0, crop = 64 }]', "precision"),
        ('name = "x"\nresize = [2.0, 0.5]\nphases = [{ until = 1.0, crop = 64 }]', "small to large"),
    ],
)
def test_bad_recipes_say_which_key(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(str(path))
    assert "bad.toml" in str(caught.value)


@pytest.mark.parametrize("content", [b'name = "\xe4"', b"x = " + b"[" * 100_000])
def test_what_is_no_text_or_too_deep_is_no_toml(tmp_path, content):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(UsageError, match="not TOML"):
        load_recipe(str(tmp_path / "bad.toml"))


def test_unknown_recipes(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'demo'"):
        load_recipe("dmo")
    with pytest.raises(UsageError, match="no recipe file"):
        load_recipe(str(tmp_path / "none.toml"))


def test_recipes_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        load_recipe("demo").steps = 3

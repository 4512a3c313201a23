"""The page of recipes: what tests/vm runs is what is on it."""

from vm.recipes import recipes


def test_each_recipe_has_ten_lines_at_most() -> None:
    found = recipes()
    assert len(found) >= 9
    for recipe in found:
        assert 1 <= len(recipe.text.splitlines()) <= 10, recipe.title
        assert "lxcfleet create" in recipe.text, recipe.title

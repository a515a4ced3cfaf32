"""A few models are held; the one used longest ago goes."""

from engine.infer.shelf import Shelf


def test_a_model_is_loaded_once_and_the_one_used_longest_ago_makes_room() -> None:
    loaded: list[str] = []

    def ask(name: str) -> str:
        return shelf.get(name, lambda: loaded.append(name) or name)

    shelf: Shelf[str] = Shelf(2)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert ask(name) == name

    assert loaded == ["a", "b", "c", "b"]

"""Where something stands in a line of a chat file, as an issue names it: `messages[1].content[0].image_url`."""

#: Kinds of parts, and the columns that they become.
COLUMNS = {"text": "text", "image_url": "image", "input_audio": "audio", "video_url": "video"}


def part_path(message: int, part: int, kind: str | None = None) -> str:
    path = f"messages[{message}].content[{part}]"
    return f"{path}.{kind}" if kind else path


def column_at(place: str | None) -> str | None:
    """The column whose cell it is: `"messages[1].content[0].image_url"` -> `"image"`; a column is itself."""
    if place is None or not place.startswith("messages["):
        return place
    return COLUMNS.get(place.rpartition(".")[2], place)

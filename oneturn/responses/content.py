"""The content of a message or of a tool's output: its texts, images and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy

from oneturn.errors import RequestError

Item = Mapping[str, Any]


@dataclass
class Content:
    """The parts of a content, by kind."""

    texts: list[str] = field(default_factory=list)
    images: list[dspy.Image] = field(default_factory=list)
    files: list[dspy.File] = field(default_factory=list)


def read_content(item: Item) -> Content:
    """Return the content of a message. A refusal is text.

    Raises:
        RequestError: an image or a file part is invalid.
    """
    parts = item.get("content")
    if isinstance(parts, str):
        return Content([parts])
    content = Content()
    for part in parts or []:
        if (text := text_in(part)) is not None:
            content.texts.append(text)
        elif part["type"] == "input_image":
            content.images.append(image_in(part))
        elif part["type"] == "input_file":
            content.files.append(file_in(part))
    return content


def text_in(part: Item) -> str | None:
    """Return the text of a part, or of its refusal; ``None`` if it is neither."""
    if "text" in part:
        return str(part["text"])
    return str(part["refusal"]) if part["type"] == "refusal" else None


def image_in(part: Item) -> dspy.Image:
    """Return the image of an ``input_image`` part.

    Raises:
        RequestError: it has no URL that is allowed.
    """
    url = part.get("image_url")
    if not isinstance(url, str) or not url.startswith(("data:", "https://", "http://")):
        raise RequestError("An input_image needs an image_url: an http(s) URL or a data: URI.")
    return dspy.Image(url)


def file_in(part: Item) -> dspy.File:
    """Return the file of an ``input_file`` part.

    Raises:
        RequestError: it has neither data nor an id.
    """
    # Not the filename: the requests of DSPy's engines have no place for one, and refuse a file that has it.
    fields = {name: part[name] for name in ("file_data", "file_id") if part.get(name)}
    data = fields.get("file_data")
    if not (data or fields.get("file_id")):
        raise RequestError("An input_file needs file_data (a data: URI) or a file_id issued by the LM's provider.")
    if data and not str(data).startswith("data:"):
        raise RequestError("The file_data of an input_file must be a data: URI, such as data:application/pdf;base64,….")
    return dspy.File(**fields)

"""Web pages of reports for tests: entries to show, and what a page holds, read back from its HTML."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from scripts.page.entry import Entry, Layer
from scripts.table import ResultRow

ROW = ResultRow("float", "digits", "6", 90.0, 2_000, 1_000, 80_000, "full precision", "test", "models_save/a.pth")
CURVE = tuple({"epoch": n, "train_loss": 1 / n, "train_accuracy": 60.0 + n, "test_accuracy": 80.0 + n} for n in (1, 2))


def entry(name: str = "a", accuracy: float | None = 90.0, bits: int = 80_000, **more: Any) -> Entry:
    """One network; `more` are fields of its row or of the entry."""
    own = {key: more.pop(key) for key in list(more) if key in Entry.__dataclass_fields__}
    row = replace(ROW, **{"accuracy": accuracy, "size_bits": bits, "file": f"models_save/{name}.pth", **more})
    plain = Entry(
        name=name,
        row=row,
        method="float",
        network="nin",
        layers=(Layer("block1.conv", 8, 8, 32, 32, 100), Layer("block2.conv", 6, 8, 4, 8, 200)),
        curve=CURVE,
        no_curve="",
        provenance="python -m prune.train --seed 1",
    )
    return replace(plain, **own)


class Page(HTMLParser):
    """A page as a browser shows it.

    Attributes:
        tags: the attributes of its elements, by their tag.
        text: what can be read without JavaScript.
        models: Bokeh's objects, by their type.
    """

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: dict[str, list[dict[str, str | None]]] = {}
        self.scripts: list[str] = []
        self.text, self._inside = "", ""
        self.feed(content)
        self.models: dict[str, list[dict[str, Any]]] = {}
        (kept,) = re.findall(r"const docs_json = '(.*?)';\n", "".join(self.scripts))
        self._collect(json.loads(html.unescape(kept.replace("\\\\", "\\"))))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.setdefault(tag, []).append(dict(attrs))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data

    def _collect(self, value: Any) -> None:
        if isinstance(value, dict):
            if value.get("type") == "object" and "name" in value:
                self.models.setdefault(value["name"], []).append(value.get("attributes", {}))
            value = list(value.values())
        if isinstance(value, list):
            for part in value:
                self._collect(part)

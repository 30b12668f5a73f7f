"""Draw docs/data-way.svg: the way of an update, and who sees what.

    python docs/tools/data_way.py

Plain text in, plain text out: no drawing library, no clock, no font metrics, so the same source gives the same bytes. The
picture brings its own background and two palettes, and shows the dark one where the reader's system asks for it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final
from xml.sax.saxutils import escape

FILE = Path(__file__).parent.parent / "data-way.svg"
WIDTH, HEIGHT = 960, 640
# A letter of a sans-serif font is at most so wide on average, in units of its size; texts must fit by this measure.
LETTER = 0.56
TEXT, SMALL = 14, 12

LIGHT = {
    "page": "#ffffff",
    "panel": "#f1f4f8",
    "box": "#ffffff",
    "line": "#5b6b7f",
    "text": "#1b2430",
    "quiet": "#46525f",
    "sees": "#fbe3c0",
    "part": "#fdf3d9",
    "hidden": "#dcefe2",
}
DARK = {
    "page": "#14181d",
    "panel": "#1f262e",
    "box": "#14181d",
    "line": "#8c9bad",
    "text": "#eef2f6",
    "quiet": "#b9c4d0",
    "sees": "#5e4113",
    "part": "#4a3d18",
    "hidden": "#1d4230",
}

CLIENT_STEPS = (
    "private examples",
    "train LoRA rows, as many as its rank",
    "clip the update to L2 norm C",
    "cut into rank bands, round to integers",
    "mask or encrypt every band",
)
SERVER_STEPS = (
    "global adapter",
    "add it to the adapter",
    "divide each row by its holders (RBLA)",
    "sum of a band; masks cancel",
    "bands of all clients that upload",
)

COLUMNS = (
    ("the client", "itself"),
    ("every other", "client"),
    ("server,", "plain"),
    ("server,", "masking"),
    ("server,", "homomorphic"),
    ("decryptor,", "homomorphic"),
)
# What there is to see, and by column how much of it is seen: "yes" all, "no" nothing, other words what instead.
SEEN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a client's examples", ("yes", "no", "no", "no", "no", "no")),
    ("a client's update", ("yes", "no", "yes", "no", "no", "no")),
    ("what it uploads", ("yes", "no", "the update", "looks random", "ciphertext", "no")),
    ("sums over 3 clients or more", ("in adapter", "in adapter", "yes", "yes", "yes", "yes")),
    ("global adapter", ("yes", "yes", "yes", "yes", "yes", "not sent")),
    ("ranks, and who took part", ("yes", "yes", "yes", "yes", "yes", "yes")),
)
HIDING = frozenset({"no", "not sent", "looks random", "ciphertext"})
COLOURS = {"yes": "sees", "the update": "sees", "in adapter": "part", **dict.fromkeys(HIDING, "hidden")}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle with one line of text in its middle.

    Args:
        x, y, width, height: In units of the picture, which is 960 wide.
        words: The text.
        fill: Name of a colour of the palettes.
        size: Of the letters.
    """

    x: float
    y: float
    width: float
    height: float
    words: str
    fill: str = "box"
    size: int = TEXT

    def draw(self) -> Iterator[str]:
        """The rectangle, then its text."""
        yield (
            f'<rect class="{self.fill} edge" x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" '
            f'height="{self.height:g}" rx="5"/>'
        )
        middle, base = self.x + self.width / 2, self.y + self.height / 2 + self.size * 0.35
        yield text(self.words, x=middle, y=base, size=self.size, anchor="middle")


def text(
    words: str, *, x: float, y: float, size: int = TEXT, anchor: str = "start", kind: str = "text"
) -> str:
    """One line of text; `y` is where its letters stand."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}">{escape(words)}</text>'


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A line with a head at its end."""
    return f'<path class="way" d="M{x:g} {y:g}L{to_x:g} {to_y:g}" marker-end="url(#head)"/>'


def stack(steps: tuple[str, ...], x: float) -> list[Box]:
    """Boxes from top to bottom, one a step."""
    return [
        Box(x=x, y=78 + 46 * number, width=330, height=32, words=words) for number, words in enumerate(steps)
    ]


def flow() -> Iterator[str]:
    """The upper half: down one client's device, across to the server, up there, and back."""
    client, server = stack(CLIENT_STEPS, 45), stack(SERVER_STEPS, 585)
    for x, title in ((30, "on each client's device"), (570, "at the server")):
        yield f'<rect class="panel" x="{x}" y="40" width="360" height="280" rx="8"/>'
        yield text(title, x=x + 15, y=64, kind="text strong")
    for box in (*client, *server):
        yield from box.draw()
    for upper, lower in itertools.pairwise(client):
        yield arrow(210, upper.y + upper.height, 210, lower.y - 3)
    for upper, lower in itertools.pairwise(server):
        yield arrow(750, lower.y, 750, upper.y + upper.height + 3)
    up, down = client[-1].y + 16, client[1].y + 16
    yield arrow(375, up, 582, up)
    yield text("upload", x=480, y=up - 8, size=SMALL, anchor="middle", kind="quiet")
    yield f'<path class="way" d="M585 {server[0].y + 16:g}L480 {server[0].y + 16:g}L480 {down:g}L378 {down:g}" marker-end="url(#head)"/>'
    yield text("next round", x=480, y=server[0].y + 8, size=SMALL, anchor="middle", kind="quiet")


def matrix() -> Iterator[str]:
    """The lower half: a row for each thing to see, a column for each who might."""
    left, top, wide, tall = 250.0, 396.0, 113.0, 30.0
    yield text("who sees what", x=30, y=top - 28, kind="text strong")
    for column, (first, second) in enumerate(COLUMNS):
        middle = left + wide * column + wide / 2
        yield text(first, x=middle, y=top - 26, size=SMALL, anchor="middle", kind="quiet")
        yield text(second, x=middle, y=top - 10, size=SMALL, anchor="middle", kind="quiet")
    for row, (what, cells) in enumerate(SEEN):
        y = top + (tall + 6) * row
        yield text(what, x=30, y=y + 19, size=SMALL + 1)
        for column, words in enumerate(cells):
            x = left + wide * column
            yield from Box(
                x=x, y=y, width=wide - 6, height=tall, words=words, fill=COLOURS[words], size=SMALL
            ).draw()


def style() -> str:
    """Colours by class, and those of the dark palette where the reader's system is dark."""

    def rules(palette: dict[str, str]) -> str:
        fills = "".join(
            f".{name}{{fill:{palette[name]}}}"
            for name in ("page", "panel", "box", "sees", "part", "hidden", "text", "quiet")
        )
        line = palette["line"]
        return f"{fills}.edge{{stroke:{line}}}.way{{stroke:{line}}}.head{{fill:{line}}}"

    return (
        "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}"
        f".strong{{font-weight:600}}.way{{fill:none;stroke-width:1.6}}{rules(LIGHT)}"
        f"@media (prefers-color-scheme:dark){{{rules(DARK)}}}"
    )


def picture() -> str:
    """The whole file."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">',
        '<title id="title">The way of an update from a client to the global adapter, and who sees what</title>',
        f"<style>{style()}</style>",
        (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
        ),
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="10"/>',
    )
    last = text(
        "A run without noise and without screening. From a sum, a server can subtract what clients that collude with it have sent.",
        x=30,
        y=HEIGHT - 14,
        size=SMALL,
        kind="quiet",
    )
    return "\n".join([*head, *flow(), *matrix(), last, "</svg>", ""])


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8")

"""Names from outside as they may be shown: what a screen would obey, or not show at all, is spelled out."""

from __future__ import annotations

import re

# Left alone: the flags of England, Scotland and Wales, whose letters are tags; and joiners where scripts and emoji use
# them, between two characters that are not ASCII.
_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]{2,6}\U000e007f"
_HIDDEN = re.compile(
    f"(?P<flag>{_FLAG})"
    "|[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: what drives a terminal
    "\u2028\u2029"  # line and paragraph separator
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # the direction of text
    "\xad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # nothing to be seen
    "\ufffe\uffff\ud800-\udfff]"  # no characters: XML and UTF-8 have no place for them
    "|(?<![^\x00-\x7f])[\u200c\u200d]"
    "|[\u200c\u200d](?![^\x00-\x7f])"
)


def visible(text: str) -> str:
    r"""The text on one line, without anything that steers a terminal, reorders what stands beside it, or is unseen.

    Control characters, line ends, overrides of direction, characters without width and lone surrogates become
    backslash escapes as in Python's ``repr``: ``\x1b``, ``\n``, ``\u202e``. Letters of every script, right-to-left ones
    too, spaces and emoji stay, and so does a backslash. Markup (HTML, rich, DOT) is for the caller to escape.
    """
    return text if text.isascii() and text.isprintable() else _HIDDEN.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    return match[0] if match["flag"] else match[0].encode("unicode_escape", "surrogatepass").decode("ascii")

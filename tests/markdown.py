"""READMEs as tests see them: sections with their fenced blocks, commands of a shell block, links."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

FENCE = "```"
HEADING = re.compile(r"#+ (.*)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")
PARAGRAPH = re.compile(r"\n\s*\n|\n(?=[|-])")  # or an item of a list, or a row


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str  # "" where none is said
    text: str
    line: int  # of its first line of text, from 1


@dataclass(frozen=True)
class Section:
    """What stands below one heading, up to the next one."""

    title: str
    blocks: tuple[Block, ...]


def read_sections(text: str) -> list[Section]:
    """The sections of a Markdown file in order."""
    found: list[tuple[str, list[Block]]] = [("", [])]
    fence: int | None = None
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if line.startswith(FENCE):
            if fence is None:
                fence = number
            else:
                inside = "\n".join(lines[fence : number - 1])
                found[-1][1].append(Block(lines[fence - 1].removeprefix(FENCE).strip(), inside, fence + 1))
                fence = None
        elif fence is None and (heading := HEADING.fullmatch(line)):
            found.append((heading[1], []))
    assert fence is None, f"the block that begins in line {fence} does not end"
    return [Section(title, tuple(blocks)) for title, blocks in found if title or blocks]


def shell_commands(text: str) -> list[str]:
    """Commands of a shell block: continued lines joined, comments and empty lines left out."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.strip() for line in joined.splitlines() if shlex.split(line, comments=True)]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """Targets of links and images."""
    return LINK.findall(prose(text))


def inline_code(text: str) -> list[str]:
    """Spans of code outside of blocks, with the bars of tables as they are meant."""
    spans = [span for paragraph in PARAGRAPH.split(prose(text)) for span in CODE.findall(paragraph)]
    return [re.sub(r"\s+", " ", span).replace("\\|", "|") for span in spans]


def anchors(path: Path) -> set[str]:
    """Targets of links to headings, as GitHub makes them."""
    titles = [section.title for section in read_sections(path.read_text())]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

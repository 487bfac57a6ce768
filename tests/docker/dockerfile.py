"""Reads a Dockerfile into its instructions: enough of the language for ours."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word, and the rest with continued lines joined."""

    word: str
    rest: str


def read(path: Path) -> list[Instruction]:
    """The instructions of a Dockerfile in order, without comments."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        found.append(Instruction(word.upper(), rest.strip()))
    return found


def stages(instructions: list[Instruction]) -> dict[str, str]:
    """Stage -> what it is built from."""
    found = [re.fullmatch(r"(\S+) AS (\S+)", i.rest) for i in instructions if i.word == "FROM"]
    return {match[2]: match[1] for match in found if match}


def stage(instructions: list[Instruction], name: str) -> list[Instruction]:
    """All that makes a stage: the instructions of the stages it is built from, then its own."""
    parts: dict[str, list[Instruction]] = {"": []}
    current = ""
    for instruction in instructions:
        if instruction.word == "FROM":
            current = instruction.rest.split()[-1]
            parts[current] = []
        else:
            parts[current].append(instruction)
    base = stages(instructions)[name]
    return (stage(instructions, base) if base in parts else []) + parts[name]


def ignored(path: Path) -> list[str]:
    """The file patterns that a .dockerignore leaves out of folders it lets in."""
    return [line.removeprefix("**/") for line in path.read_text(encoding="utf-8").splitlines() if line[:3] == "**/"]

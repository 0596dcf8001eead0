"""Counts the lines of code in src/: Rust without tests, comments and blank lines.

A test is what `#[cfg(test)]` or `#[cfg(all(test, …))]` stands before: an item, or a module with its files.
A line counts when anything but a comment is on it. `--against` counts those of a commit, too.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
SOURCES = "src"

# What may hide a bracket, or look like a comment and be none. Any other quotation mark is a lifetime's.
TOKEN = re.compile(
    r"""
      (?P<comment>//[^\n]*|/\*)
    | (?P<raw>\b(?:b|c)?r(?P<hashes>\#*)"(?:.|\n)*?"(?P=hashes))
    | (?P<text>\b[bc]?"(?:\\(?:.|\n)|[^"\\])*"|"(?:\\(?:.|\n)|[^"\\])*")
    | (?P<char>b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'\n])')
    """,
    re.VERBOSE,
)
TEST = re.compile(r"#\[cfg\(\s*(?:test\s*\)|all\(\s*test\b[^\]]*\))\s*\]")
MODULE_FILE = re.compile(r"\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;")
ATTRIBUTE = re.compile(r"\s*#\[")


def without_comments(source: str) -> str:
    """Comments as blanks, and each character of a literal as a letter. Lines stay where they are."""
    out: list[str] = []
    at = 0
    while found := TOKEN.search(source, at):
        out.append(source[at : found.start()])
        at = found.end()
        if found["comment"]:
            if found["comment"] == "/*":
                at = _end_of_comment(source, at)
            out.append(_like(source[found.start() : at], " "))
        else:
            out.append(_like(found[0], "x"))
    return "".join([*out, source[at:]])


def _end_of_comment(source: str, at: int) -> int:
    """After the end of a block comment, which may have others in it, from behind its beginning."""
    depth = 1
    for edge in re.compile(r"/\*|\*/").finditer(source, at):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(source)


def _like(text: str, letter: str) -> str:
    return re.sub(r"[^\n]", letter, text)


def lines_of_code(code: str) -> int:
    """Of a source without comments."""
    return sum(1 for line in code.splitlines() if line.strip())


def without_tests(code: str) -> tuple[str, list[str]]:
    """A source without comments with its tests as blanks, and the modules of tests that have own files."""
    modules: list[str] = []
    while found := TEST.search(code):
        end = found.end()
        while ATTRIBUTE.match(code, end):  # further ones of the same item
            end = _closed(code, code.index("[", end))
        if module := MODULE_FILE.match(code, end):
            modules.append(module[1])
        begin, end = found.start(), _item_end(code, end)
        code = code[:begin] + _like(code[begin:end], " ") + code[end:]
    return code, modules


def _item_end(code: str, at: int) -> int:
    """After the item that begins here: its semicolon, its closing brace, or the comma of a field."""
    while at < len(code):
        if code[at] in "([{":
            brace = code[at] == "{"
            at = _closed(code, at)
            if brace:  # `use a::{b, c};` goes on
                return at + 1 if code[at : at + 1] == ";" else at
        elif code[at] in ";,":
            return at + 1
        elif code[at] in ")]}":
            return at
        else:
            at += 1
    return at


def _closed(code: str, at: int) -> int:
    """After the bracket that closes the one that is here."""
    depth = 0
    for bracket in re.compile(r"[(\[{}\])]").finditer(code, at):
        depth += 1 if bracket[0] in "([{" else -1
        if depth == 0:
            return bracket.end()
    return len(code)


def count(sources: Mapping[str, str]) -> Counter[str]:
    """Lines of code by path, of sources by path."""
    counts: Counter[str] = Counter()
    tests: set[PurePosixPath] = set()
    for name, source in sources.items():
        path = PurePosixPath(name)
        code, modules = without_tests(without_comments(source))
        counts[name] = lines_of_code(code)
        folder = path.parent if path.stem in ("lib", "main", "mod") else path.with_suffix("")
        tests |= {folder / module for module in modules}
    for name in sources:
        path = PurePosixPath(name)
        if {path.with_suffix(""), *path.parents} & tests:
            del counts[name]
    return counts


def sources_of(commit: str | None) -> dict[str, str]:
    """Of the working copy, or of a commit."""
    if commit is None:
        files = sorted((ROOT / SOURCES).rglob("*.rs"))
        return {str(file.relative_to(ROOT)): file.read_text() for file in files}
    archive = subprocess.run(["git", "archive", commit, SOURCES], cwd=ROOT, capture_output=True)
    if archive.returncode:
        sys.exit(f"error: {archive.stderr.decode().strip()}; in a shallow clone: git fetch --unshallow")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.name.endswith(".rs")}
        return {name: file.read().decode() for name, file in files.items() if file}


def by_room(counts: Mapping[str, int]) -> Counter[str]:
    """The sums of what is beside each other in src/."""
    rooms: Counter[str] = Counter()
    for name, lines in counts.items():
        rooms[PurePosixPath(name).parts[1].removesuffix(".rs")] += lines
    return rooms


def table(rooms: Iterable[Counter[str]], heads: list[str]) -> str:
    columns = list(rooms)
    names = sorted(set().union(*columns))
    rows = [("", *heads), *((name, *(column[name] for column in columns)) for name in names)]
    rows.append(("together", *(column.total() for column in columns)))
    return "\n".join(f"{name:16}" + "".join(f"{cell:>14}" for cell in cells) for name, *cells in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="count those of this commit, too")
    commits = [None, *([against] if (against := parser.parse_args().against) else [])]
    rooms = [by_room(count(sources_of(commit))) for commit in commits]
    print(table(rooms, ["lines", *(commit for commit in commits if commit)]))
    if against:
        now, then = (column.total() for column in rooms)
        print(f"{now - then:+} lines, {100 * (now / then - 1):+.1f} %")


if __name__ == "__main__":
    main()

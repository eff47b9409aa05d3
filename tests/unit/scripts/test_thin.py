"""The commands stay thin: what they do is in the rooms that they call."""

from __future__ import annotations

import ast
import io
import tokenize

from core.paths import ROOT

MAX_LINES = 2_500
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """The number of lines with code: no comments, docstrings or empty lines."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(ast.Constant(str())) as docstring, *_]:
                    lines -= set(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return len(lines)


def test_lines_of_code_are_those_with_more_than_prose() -> None:
    source = (
        '"""One.\n\nTwo."""\n\n# Three\ndef f():  # four\n    """Five."""\n    return """\n6"""\n'
    )
    assert code_lines(source) == 3


def test_scripts_have_few_lines_of_code() -> None:
    lines = {
        path.name: code_lines(path.read_text(encoding="utf-8"))
        for path in (ROOT / "scripts").glob("*.py")
    }
    most = sorted(lines, key=lambda name: -lines[name])[:3]
    assert sum(lines.values()) <= MAX_LINES, f"move code of {', '.join(most)} into a room"

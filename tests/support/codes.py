"""The codes that a user can meet, gathered from the sources: whoever adds one must say what to do about it."""

import ast
from collections.abc import Iterator
from pathlib import Path

from domain.manifest import Code
from support.stack import ROOT

#: Where an error may come from; `client` has codes of its own for what never reaches a server.
_FOLDERS = ("api", "bus", "db", "domain", "egress", "engine", "ops", "worker", "client/plait")
#: Errors whose first argument is the code.
_CODE_FIRST = ("EngineError", "Unreadable", "Undecodable", "Problem")
#: Readers of the query: what they refuse has the code `invalid_<name>`.
_QUERY = ("number", "one_of")


def issue_codes() -> set[str]:
    return {str(code) for code in Code}


def codes() -> set[str]:
    """Every code that stands in the sources as a word."""
    found = set(issue_codes())
    for folder in _FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(_in(path))
    return found


def _in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        for value in _values(node):
            yield from _words(value)
        if path.parent.name == "api" and isinstance(node, ast.Call) and _name(node) in _QUERY and node.args:
            yield from (f"invalid_{word}" for word in _words(node.args[0]))


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _values(node: ast.AST) -> Iterator[ast.expr | None]:
    """The expressions that this node uses as a code."""
    if isinstance(node, ast.Call):
        yield from (k.value for k in node.keywords if k.arg == "code")
        if _name(node) in _CODE_FIRST and node.args:
            yield node.args[0]
    elif isinstance(node, ast.ClassDef) and node.name == "Code":
        yield from (line.value for line in node.body if isinstance(line, ast.Assign))
    elif isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        yield from (v for k, v in pairs if isinstance(k, ast.Constant) and k.value == "code")
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = {ast.unparse(target) for target in targets}
        if names & {"code"}:
            yield node.value
        if names & {"_CODES"} and isinstance(node.value, ast.Dict):
            yield from node.value.values


def _words(value: ast.expr | None) -> Iterator[str]:
    """The words that an expression may be: a constant, or either side of `a if b else c` and of `a or b`."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from (*_words(value.body), *_words(value.orelse))
    elif isinstance(value, ast.BoolOp):
        for inner in value.values:
            yield from _words(inner)

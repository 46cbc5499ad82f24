"""Checks that ASSUMPTIONS.md lists the modules' assumptions in their own words."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def one_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def test_every_assumption_is_listed():
    listed = one_line(re.sub(r"\n- `[a-z0-9-]+`: ", "\n", (ROOT / "ASSUMPTIONS.md").read_text()))
    found = 0
    for module in (ROOT / "awsemulator").glob("*.py"):
        for paragraph in (ast.get_docstring(ast.parse(module.read_text())) or "").split("\n\n"):
            _, introduced, assumptions = paragraph.partition("Assumed: ")
            for assumption in filter(None, one_line(assumptions).rstrip(".").split("; ")):
                assert assumption in listed, f"{module.name}: {assumption}"
                found += 1
            assert introduced or "assumed" not in paragraph.lower() or module.name == "__init__.py", module.name
    assert found > 20

"""The tree of the product in `docs/design.md`, made from the folders themselves.

    python tests/house_tree.py    # writes it anew

A folder's line is the first one of its `__init__.py`, so the page says what the code says.
"""

import ast
import textwrap
from pathlib import Path

HOUSE = Path(__file__).parents[1]
PAGE = HOUSE / "docs" / "design.md"
FIRST, LAST = "<!-- tree: python tests/house_tree.py -->\n```\n", "```\n<!-- end of tree -->\n"
_WIDTH, _INDENT = 118, 27


def tree() -> str:
    """A line for each folder of the product, and below it the names of its files."""
    lines = []
    for package in ("streamfeat", "train", "streamfeat_cli"):
        for init in sorted(HOUSE.joinpath(package).rglob("__init__.py"), key=lambda path: path.parent.parts):
            folder = init.parent
            depth = len(folder.relative_to(HOUSE).parts) - 1
            name = "  " * depth + (folder.name if depth else str(folder.relative_to(HOUSE))) + "/"
            docstring = ast.get_docstring(ast.parse(init.read_text("utf-8"))) or ""
            lines.append(f"{name:<{_INDENT}}{docstring.partition(chr(10))[0]}")
            names = sorted(path.stem for path in folder.glob("*.py") if path != init)
            lines += textwrap.wrap(
                ", ".join(names), _WIDTH, initial_indent=" " * _INDENT, subsequent_indent=" " * _INDENT
            )
    return "\n".join(line.rstrip() for line in lines) + "\n"


def main() -> None:
    before, _, rest = PAGE.read_text("utf-8").partition(FIRST)
    PAGE.write_text(before + FIRST + tree() + LAST + rest.partition(LAST)[2], "utf-8")


if __name__ == "__main__":
    main()

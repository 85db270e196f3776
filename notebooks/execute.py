"""Executes notebooks from top to bottom, and fails where a cell does or where outputs are stored in the file.

Usage: execute.py NOTEBOOK...

What a notebook shows is not kept: a stored output would be somebody's data, and would change with every execution.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

SECONDS_PER_CELL = 300


def execute(path: Path) -> str | None:
    """Executes one notebook in its own folder; tells what is wrong with it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if any(cell.outputs or cell.execution_count for cell in cells):
        return "holds outputs: clear them before you commit"
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        return str(error)
    for cell in cells:
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stdout":
                print(output.text, end="")
    return None


def main(names: list[str]) -> int:
    if not names:
        print(__doc__, file=sys.stderr)
        return 64
    failed = 0
    # Settings of whoever runs this must not decide whether it passes.
    with tempfile.TemporaryDirectory() as settings:
        for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            os.environ[variable] = settings
        for name in names:
            problem = execute(Path(name))
            print(f"{name}: {problem or 'executed'}")
            failed += problem is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

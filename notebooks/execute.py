"""Executes the notebooks of this folder, in order, and fails where something is wrong with one.

Usage: execute.py [NOTEBOOK...]

With no notebook named, all are executed: at first in an empty folder and without the command line, where each must end by
saying what is missing; then from top to bottom, below the folder that BELLWETHER_FOLDER names, or one that goes afterwards. The
first writes what the others read. What a notebook shows is not kept: a stored output would be somebody's data, and would change
with every execution.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

SECONDS_PER_CELL = 600
SHARED_CELL = "setup"
SETTINGS = [f"BELLWETHER_{name}" for name in ("COMPARE", "DATA", "EPISODE", "FULL", "RUN", "SPEC_SHA256")]


def code_of(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def client_of(path: Path, notebook) -> NotebookClient:
    resources = {"metadata": {"path": str(path.resolve().parent)}}
    return NotebookClient(
        notebook, timeout=SECONDS_PER_CELL, startup_timeout=SECONDS_PER_CELL, kernel_name="python3", resources=resources
    )


def at_rest(path: Path, shared: dict[str, str]) -> str | None:
    """What is wrong with the file as it lies there; `shared` has the cell that notebooks have in common, once one was read."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    if any(cell.outputs or cell.execution_count for cell in code_of(notebook)):
        return "holds outputs: clear them before you commit"
    setup = [cell.source for cell in notebook.cells if cell.id == SHARED_CELL]
    if len(setup) != 1:
        return f"has {len(setup)} cells with the id `{SHARED_CELL}`, and must have one"
    if shared.setdefault(SHARED_CELL, setup[0]) != setup[0]:
        return f"its cell `{SHARED_CELL}` is not that of the notebooks before it: copy the one that is meant into all"
    return None


def without_anything(path: Path) -> str | None:
    """What is wrong with how the notebook ends where nothing that it reads is there."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as empty:
        bare = os.environ | {"BELLWETHER": f"{empty}/absent", "BELLWETHER_FOLDER": empty}
        try:
            client_of(path, notebook).execute(env=bare)
        except CellExecutionError as error:
            if error.ename != "Missing" or "`" not in error.evalue:
                return f"without its inputs it does not say how to make them: {error.ename}: {error.evalue}"
            return None
        except CellTimeoutError as error:
            return f"without its inputs: {error}"
    return "without its inputs it runs to the end"


def from_top_to_bottom(path: Path) -> str | None:
    """What is wrong with the notebook where its inputs are there; what it prints is printed."""
    notebook = nbformat.read(path, as_version=4)
    problem = None
    try:
        client_of(path, notebook).execute(env=os.environ.copy())
    except (CellExecutionError, CellTimeoutError) as error:
        problem = str(error)
    for cell in code_of(notebook):
        for output in cell.outputs:
            if output.output_type == "stream":
                print(output.text, end="", flush=True)
                if output.name == "stderr":
                    problem = problem or "writes to standard error, where warnings go"
    return problem


def main(names: list[str]) -> int:
    paths = [Path(name) for name in names] or sorted(Path(__file__).parent.glob("*.ipynb"))
    checks = [without_anything, from_top_to_bottom] if not names else [from_top_to_bottom]
    shared: dict[str, str] = {}
    failed = 0

    def tell(path: Path, check: str, problem: str | None, started: float) -> None:
        nonlocal failed
        print(f"{path.name}, {check}: {problem or 'in order'} ({time.monotonic() - started:.1f} s)", flush=True)
        failed += problem is not None

    # Settings of whoever runs this must not decide whether it passes.
    for variable in [] if names else SETTINGS:
        os.environ.pop(variable, None)
    with tempfile.TemporaryDirectory() as settings, tempfile.TemporaryDirectory() as folder:
        for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            os.environ[variable] = settings
        os.environ.setdefault("BELLWETHER_FOLDER", folder)
        for path in paths:
            tell(path, "at rest", at_rest(path, shared), time.monotonic())
        for check in checks:
            for path in paths:
                started = time.monotonic()
                tell(path, check.__name__.replace("_", " "), check(path), started)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

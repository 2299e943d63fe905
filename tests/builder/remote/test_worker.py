import ast
import sys
from pathlib import Path

from builder import remote

SOURCE = Path(remote.__file__).with_name("worker.py").read_text()


def test_the_program_for_the_other_machine_is_python_3_6_and_needs_nothing_else():
    tree = ast.parse(SOURCE, feature_version=(3, 6))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {"os", "hashlib"} <= imported <= set(sys.stdlib_module_names) - {"__future__", "dataclasses"}

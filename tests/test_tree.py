"""The tree itself: small files, small functions, documented targets and dependencies, nothing left lying about."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess  # noqa: TID251 - git and make are asked about this checkout, outside emi
import sys
import zipfile
from pathlib import Path

from builder.proc import PACKAGES

ROOT = Path(__file__).parents[1]
OURS = ("builder", "pipelines", "tests", "bench", "tools")
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
LARGEST_FIXTURE = 64 << 10
# A lock or a script that names a registry ties everybody to it; pip's own configuration says where packages come from.
REGISTRIES = re.compile(
    "|".join(("py" + r"pi\.org", "python" + r"hosted\.org", "--index-" + "url", "/opt/" + "wheels"))
)

# Who may import what ruff's banned-api keeps from all others. A new line here is a decision.
DOORS = {
    # the sandbox looks up EC2's and S3's own models of requests, and calls nothing
    "botocore": [
        "builder/cloud/session.py",
        "builder/sandbox/protocols/query.py",
        "builder/sandbox/protocols/rest_xml.py",
        "builder/sandbox/protocols/validate.py",
    ],
    "concurrent": ["builder/pool.py"],
    "guestfs": ["builder/guest/session.py"],
    "paramiko": ["builder/remote/connection.py"],
    "sqlalchemy": ["pipelines/journal.py"],
    "subprocess": ["builder/proc.py", "builder/sandbox/lifecycle.py"],  # the latter for its TimeoutExpired only
    "tenacity": ["builder/retry.py"],
    "threading": ["builder/pool.py"],
}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True).stdout
    found = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in found if path.is_file()]


def sources() -> list[Path]:
    found = [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in OURS]
    assert len(found) > 20
    return found


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_are_short() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_functions_are_short() -> None:
    long = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    long[f"{relative(path)}:{node.lineno} {node.name}"] = length
    assert long == {}


def test_public_names_have_a_docstring() -> None:
    bare = []
    for path in sources():
        if path.relative_to(ROOT).parts[0] not in ("builder", "pipelines"):
            continue
        module = ast.parse(path.read_text())
        public = (ast.FunctionDef, ast.ClassDef)
        nodes = [module, *(node for node in module.body if isinstance(node, public) and node.name[0] != "_")]
        bare += [f"{relative(path)} {getattr(node, 'name', '')}" for node in nodes if not ast.get_docstring(node)]
    assert bare == []


def test_the_doors_to_foreign_powers_are_these() -> None:
    doors: dict[str, set[str]] = {}
    for path in sources():
        if path.relative_to(ROOT).parts[0] in ("builder", "pipelines"):
            for line in path.read_text().splitlines():
                if "noqa" in line and "TID251" in line:
                    power = re.search(r"(?:from|import) ([a-z0-9_]+)", line)[1]
                    doors.setdefault(power, set()).add(relative(path))
    assert doors == {power: set(files) for power, files in DOORS.items()}


def test_every_step_file_has_its_test_file() -> None:
    steps = [path for path in sources() if path.parent == ROOT / "pipelines/steps" and path.name != "__init__.py"]
    assert steps
    missing = [path.stem for path in steps if not (ROOT / f"tests/pipelines/steps/test_{path.stem}.py").exists()]
    assert missing == []


def test_no_tabs_no_trailing_blanks_no_conflict_marks() -> None:
    marred = []
    for path in tracked():
        # (the .txt and .yaml files of tests are inputs, marred on purpose)
        kinds = (".py", ".md", ".toml", ".in", ".sh", *((".txt", ".yaml") if "tests" not in path.parts else ()))
        if path.suffix in kinds:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if "\t" in line or line != line.rstrip() or line.startswith(("<<<<<<< ", ">>>>>>> ")):
                    marred.append(f"{relative(path)}:{number}")
    assert marred == []


def test_nothing_is_left_lying_about() -> None:
    litter = re.compile(r"\.(orig|rej|bak|swp|pyc|raw|qcow2|log|tmp)$|~$|(^|/)(nohup\.out|core)$")
    assert [relative(path) for path in tracked() if litter.search(relative(path))] == []


def test_no_blob_is_large() -> None:
    large = {relative(path): path.stat().st_size for path in tracked() if path.stat().st_size > LARGEST_FIXTURE}
    generated = (".lock", ".md", ".schema.json")  # text that may grow
    assert {name for name in large if not name.endswith(generated)} == set()


def test_no_package_registry_is_named() -> None:
    named = [relative(path) for path in tracked() if REGISTRIES.search(path.read_text(errors="replace"))]
    assert named == []


def test_every_locked_package_has_hashes_and_one_version() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        entries = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
        assert len(entries) > 20
        assert [entry for entry in entries if not re.match(r"[\w.\[\],-]+==\S+[^\n]*\\\n +--hash=sha256:", entry)] == []


def test_what_runs_is_what_was_tested() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[\w.\[\],-]+==\S+", (ROOT / name).read_text(), re.MULTILINE))

    assert pins("requirements.lock") - pins("requirements-dev.lock") == set()


def test_make_targets_are_listed_and_documented() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    assert targets >= {"setup", "demo", "test", "test-all", "lint", "lock", "bench", "clean"}
    assert targets == set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert targets == set(re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)[1].split())
    shown = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, check=True, text=True).stdout
    assert targets == set(re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE))


def test_commands_in_the_prose_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [path for path in tracked() if path.suffix == ".md"]
    told = {word for path in pages for word in re.findall(r"(?:`|^    )make ([a-z-]+)", path.read_text(), re.MULTILINE)}
    assert {"demo", "test"} <= told <= targets


def test_links_in_the_prose_lead_somewhere() -> None:
    dead = []
    for page in (path for path in tracked() if path.suffix == ".md"):
        targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
        dead += [f"{relative(page)} -> {target}" for target in missing]
    assert dead == []


def test_every_dependency_says_what_for() -> None:
    page = (ROOT / "docs/dependencies.md").read_text()
    named = {name.lower() for name in re.findall(r"^\| (\w[\w-]*) \| \S", page, re.MULTILINE)} - {"package"}
    wanted = set()
    for name in ("requirements.in", "requirements-sandbox.in", "requirements-dev.in", "tools/debian-packages.txt"):
        wanted |= {word.lower() for word in re.findall(r"^([A-Za-z][\w-]*)", (ROOT / name).read_text(), re.MULTILINE)}
    assert wanted == named


def test_the_packages_that_errors_name_are_installed_by_setup() -> None:
    listed = re.findall(r"^([a-z][\w.+-]*)\s+# \S", (ROOT / "tools/debian-packages.txt").read_text(), re.MULTILINE)
    assert PACKAGES
    assert set(PACKAGES.values()) - set(listed) == set()


def test_a_wheel_holds_both_packages_and_the_command(tmp_path: Path) -> None:
    copy = tmp_path / "tree"  # setuptools builds beside its sources
    for path in tracked():
        if path.relative_to(ROOT).parts[0] not in ("tests", "fixtures"):
            (copy / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / path.relative_to(ROOT))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, copy], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("emi_pipelines-*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        text = {name.split("/")[-1]: opened.read(name).decode() for name in names if ".dist-info/" in name}
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"pipelines", "builder"}
    expected = {relative(path) for path in sources() if path.relative_to(ROOT).parts[0] in ("builder", "pipelines")}
    expected |= {name for name in map(relative, tracked()) if name.startswith("builder/cloud/models/")}
    assert expected <= set(names)
    assert "emi = pipelines.cli:main" in text["entry_points.txt"]
    assert "Provides-Extra: sandbox" in text["METADATA"]
    assert re.search(r"^Requires-Dist: pydantic", text["METADATA"], re.MULTILINE)
    assert re.search(r"^Requires-Dist: moto.*extra == .sandbox.", text["METADATA"], re.MULTILINE)

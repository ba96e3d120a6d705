"""What is said in several places must be the same in all of them: versions, dependencies, licence, API pages."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# What conda-forge calls a package of another name on PyPI.
CONDA = {"matplotlib-base": "matplotlib", "pytorch": "torch", "pytorch-geometric": "torch-geometric"}
# Imported where it is there, and done without elsewhere.
OPTIONAL = {"fsspec", "triton"}
# Brought along by builds of torch for a certain accelerator, which pin them themselves.
BUILDS = re.compile(r"nvidia-|cuda-|triton|pytorch-triton")
# Code that belongs to one machine, and hosts that packages come from: both are for the user to choose.
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|root|tmp|home|opt|mnt|Users)/\w")
REGISTRY = re.compile(
    r"pypi\.org|python[h]osted|download\.pytorch|anaconda\.org|--(?:extra-)?index[-]url|--find[-]links"
)


def core() -> dict[str, Requirement]:
    return named(PROJECT["dependencies"])


def direct() -> dict[str, Requirement]:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    return {name: item for name, item in named(PROJECT["dependencies"] + extras).items() if name != "physml"}


def named(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(item.name): item for item in map(Requirement, lines)}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {
        canonicalize_name(name): version
        for name, version in (line.split("==") for line in lines if line and not line.startswith("#"))
    }


def conda() -> dict[str, str]:
    """Version range by PyPI name."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    parts = (re.fullmatch(r"([\w.-]+)\s*(.*)", entry) for entry in entries if isinstance(entry, str))
    ranges = {canonicalize_name(part[1]): part[2] for part in parts if part}
    return {CONDA.get(name, name): limits for name, limits in ranges.items()}


def modules() -> list[str]:
    paths = [path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "physml").rglob("*.py"))]
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: which files belong to it is not known.")
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


def test_core_dependencies_are_few() -> None:
    assert len(core()) <= 16


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    pinned = pins()
    wrong = {
        name: pinned.get(name, "no pin")
        for name, item in direct().items()
        if not BUILDS.match(name) and (name not in pinned or not item.specifier.contains(Version(pinned[name])))
    }
    assert not wrong


def test_pins_are_exact_and_name_no_build() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    entries = [line for line in lines if not line.startswith("#")]
    assert [line for line in entries if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)] == []
    assert len(entries) == len(pins())
    assert [name for name in pins() if BUILDS.match(name)] == []


def test_everything_that_the_dependencies_bring_along_is_pinned() -> None:
    pinned, seen = pins(), set()
    waiting = [item for item in direct().values() if item.name != "neuraloperator"]  # installed by `make verify` only
    while waiting:
        item = waiting.pop()
        name = canonicalize_name(item.name)
        for extra in ("", *item.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needs = map(Requirement, metadata.requires(name) or [])
            except metadata.PackageNotFoundError:
                continue  # an extra that is not installed here
            here = {**default_environment(), "extra": extra}
            waiting += [need for need in needs if need.marker is None or need.marker.evaluate(here)]
    names = {name for name, _ in seen}
    assert len(names) > len(core())
    assert {name for name in names if name not in pinned and not BUILDS.match(name)} == set()


def test_conda_environment_has_the_same_direct_dependencies() -> None:
    ranges = {name: sorted(limits.split(",")) for name, limits in conda().items() if name not in {"python", "pip"}}
    assert ranges == {name: sorted(str(item.specifier).split(",")) for name, item in core().items()}


def test_conda_environment_has_a_supported_python() -> None:
    assert f"Programming Language :: Python :: {conda()['python'].removeprefix('=')}" in PROJECT["classifiers"]


def test_dependencies_are_those_that_the_code_imports() -> None:
    imported = set()
    for path in (ROOT / "physml").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.partition(".")[0])
    homes = metadata.packages_distributions()
    assert imported & set(direct()) >= OPTIONAL, "what is optional must come with the tests"
    foreign = imported - set(sys.stdlib_module_names) - {"physml"} - OPTIONAL
    used = {canonicalize_name(name) for module in foreign for name in homes.get(module, [module])}
    assert used - set(core()) == set(), "imported, but not a dependency"
    assert set(core()) - used == set(), "a dependency, but never imported"


def test_version_is_the_same_everywhere() -> None:
    import physml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    changelog = (ROOT / "docs/changelog.md").read_text("utf-8")
    assert citation["version"] == PROJECT["version"] == metadata.version("physml") == physml.__version__
    assert f"## {PROJECT['version']}" in changelog


def test_licence_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert licence.startswith("MIT License")
    assert PROJECT["authors"] == citation["authors"] == [{"name": "physml contributors"}]
    assert "physml contributors" in licence


def test_importing_the_package_is_light() -> None:
    heavy = ["torch", "lightning", "matplotlib", "xarray", "zarr", "numpy"]
    code = f"import sys, physml; print(*[name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_makefile_leaves_the_package_index_to_the_user() -> None:
    assert REGISTRY.search((ROOT / "Makefile").read_text("utf-8")) is None


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in tracked():
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # not text
        found += [
            f"{path.relative_to(ROOT)}:{number}: {match[0]}"
            for number, line in enumerate(lines, 1)
            for pattern in (MACHINE_PATH, REGISTRY)
            if (match := pattern.search(line))
        ]
    assert found == []


def test_patterns_find_what_they_look_for() -> None:
    assert MACHINE_PATH.search('open("' + "/tmp" + '/x")')
    assert MACHINE_PATH.search("see " + "/home" + "/me/data")
    assert not MACHINE_PATH.search("shared/tmp/x and #!/usr/bin/env")
    assert REGISTRY.search("pip install --index" + "-url")
    assert REGISTRY.search("https://pypi" + ".org/simple")


def test_every_module_has_a_place_in_the_api_pages() -> None:
    pages = [path.read_text("utf-8") for path in (ROOT / "docs/api").glob("*.md")]
    described = [name for page in pages for name in re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)]
    existing = {name for name in modules() if "._" not in name} - {"physml"}
    assert sorted(set(described) - existing) == [], "described, but not there"
    assert len(described) == len(set(described))
    missing = {name for name in existing if not any(f"{name}.".startswith(f"{top}.") for top in described)}
    assert missing == set(), "add `::: name` to a page of docs/api"

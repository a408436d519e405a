"""``constraints.txt`` locks what ``make setup`` installs: all of pyproject.toml, in versions that it allows."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def locked() -> dict[str, Version]:
    """Package -> its only version."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line]
    names = [canonicalize_name(name) for name, _ in pairs]
    assert len(set(names)) == len(names)
    return dict(zip(names, (Version(version) for _, version in pairs), strict=True))


def requirements() -> list[Requirement]:
    """Of the project and all its extras, on this kind of machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    found = [Requirement(line) for line in lines]
    return [each for each in found if each.name != project["name"] and (not each.marker or each.marker.evaluate())]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_dependency_is_locked_within_its_range(requirement):
    version = locked().get(canonicalize_name(requirement.name))
    assert version is not None, "run: make constraints"
    assert version in requirement.specifier, f"{version} is locked; run: make constraints"


def test_versions_are_public_ones():
    """A local one (2.13.0+cpu) is a build that other indexes do not have; a constraint without it accepts both."""
    versions = locked()
    assert all(version.local is None for version in versions.values())
    assert {"torch", "setuptools"} <= set(versions) and "pip" not in versions


def test_what_is_locked_is_closed():
    """What the locked packages of this environment need in turn is locked too, in a version that they allow."""
    from importlib.metadata import PackageNotFoundError, requires

    versions = locked()
    for name in versions:
        try:
            lines = requires(name) or ()
        except PackageNotFoundError:
            continue  # of an extra that is not installed here
        for line in lines:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                version = versions.get(canonicalize_name(need.name))
                assert version is not None, f"{name} needs {need}, which is not locked"
                assert need.specifier.contains(version, prereleases=True), f"{name} needs {need}; locked is {version}"


def test_make_installs_what_is_locked():
    recipes = (ROOT / "Makefile").read_text().split("\nconstraints:")[0].splitlines()
    installs = [line for line in recipes if "pip install" in line and "-e '" in line]
    assert installs and all("-c constraints.txt" in line for line in installs)

"""Each target's packages: the versions found against those that pyproject.toml pins, and whether they load.

The pins are read from the installed project's own metadata.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import TYPE_CHECKING

from segformer_edge.doctor.findings import Finding, State
from segformer_edge.export.targets import TARGETS, Target
from segformer_edge.progress import Progress
from segformer_edge.runtime.formats import RUNTIMES
from segformer_edge.verbosity import child_output
from segformer_edge.worker_process import host_environment

if TYPE_CHECKING:
    from packaging.requirements import Requirement

AREA = "targets"
PROJECT = "segformer-edge"
#: Seconds that importing one target's packages may take; torch alone takes some on a slow disk.
TIME_LIMIT = 120.0
#: Each holds torch and one exporter.
_AT_A_TIME = 2


@dataclass(frozen=True)
class Versions:
    """An extra's packages: those found, in words, and the faults: missing ones, and ones of another version.

    ``known`` is off where the installed project has no such extra: it is older than this code.
    """

    known: bool

    found: tuple[str, ...]
    missing: tuple[str, ...]
    others: tuple[str, ...]


def requirements_of(extra: str, project: str = PROJECT) -> Iterator[Requirement]:
    """What ``project[extra]`` installs on this machine, the extras that it names in turn included."""
    from packaging.requirements import Requirement

    for text in requires(project) or ():
        requirement = Requirement(text)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.marker.evaluate({"extra": ""}):
            continue  # of every install, not of this extra
        if requirement.name == project:
            for inner in sorted(requirement.extras):
                yield from requirements_of(inner, project)
        else:
            yield requirement


def versions_of(extra: str) -> Versions:
    """The packages of ``extra`` as they are installed here."""
    found, missing, others = [], [], []
    for requirement in {item.name: item for item in requirements_of(extra)}.values():
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            missing.append(requirement.name)
            continue
        found.append(f"{requirement.name} {installed}")
        if not requirement.specifier.contains(installed, prereleases=True):
            others.append(f"{requirement.name} {installed}, tried with {requirement.specifier}")
    known = extra in (metadata(PROJECT).get_all("Provides-Extra") or ())
    return Versions(known, tuple(found), tuple(missing), tuple(others))


def load_error(modules: Sequence[str], seconds: float = TIME_LIMIT) -> str:
    """Why ``modules`` do not import, in a process of their own; "" where they do."""
    code = f"import importlib; [importlib.import_module(name) for name in {list(modules)!r}]"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=seconds, env=host_environment(threads=1),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"importing it took longer than {seconds:g} s"
    child_output(modules[-1], done.stderr)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"importing it ended with code {done.returncode}"


def target_findings(tell: Progress, seconds: float = TIME_LIMIT) -> list[Finding]:
    """One finding a target. Targets with the same exporter are tried once."""
    needed = {target.name: _modules(target) for target in TARGETS.values()}
    distinct = list(dict.fromkeys(needed.values()))
    advance = tell.bar("load the targets' packages", len(distinct))
    errors: dict[tuple[str, ...], str] = {}
    with ThreadPoolExecutor(max_workers=_AT_A_TIME) as pool:
        for modules, error in zip(distinct, pool.map(lambda each: load_error(each, seconds), distinct), strict=True):
            errors[modules] = error
            advance()
    return [target_finding(target, errors[needed[target.name]]) for target in TARGETS.values()]


def target_finding(target: Target, error: str) -> Finding:
    """What is to say of ``target``, whose modules do not load because of ``error`` ("" where they do)."""
    install = f"pip install '{PROJECT}[{target.extra}]'"
    try:
        versions = versions_of(target.extra)
    except PackageNotFoundError:
        return Finding(AREA, target.name, State.MISSING, f"{PROJECT} itself is not installed", install)
    if error and versions.missing:
        return Finding(AREA, target.name, State.MISSING, f"lacks {', '.join(versions.missing)}", install)
    if error:
        return Finding(AREA, target.name, State.BROKEN, f"does not load: {error}", f"{install} --force-reinstall")
    faults = [*(f"{name} is not there" for name in versions.missing), *versions.others]
    if not versions.known:
        faults.append(f"the installed {PROJECT} does not know the extra '{target.extra}', so it is an older one")
    if faults:
        return Finding(AREA, target.name, State.OTHER_VERSION, "; ".join(faults), install)
    return Finding(AREA, target.name, State.OK, ", ".join(versions.found))


def _modules(target: Target) -> tuple[str, ...]:
    """The packages, the exporter and the runtime of ``target``."""
    return (*target.packages, target.exporter.split(":")[0], RUNTIMES[target.format].module)

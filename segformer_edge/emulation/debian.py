"""Packages of a foreign Debian architecture, unpacked into a folder: no root, nothing on the host changes.

apt-get runs with lists, cache and package status of its own, from the mirror that the host's apt already uses.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segformer_edge.emulation.errors import EmulationError
from segformer_edge.errors import UsageError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: The host's apt keeps its own proxy and certificate settings, but not its hooks, preferences or sources.
_CONFIGURATION = """\
#clear APT::Update;
#clear DPkg;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "{user}";
Acquire::Retries "3";
Acquire::Languages "none";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""


@dataclass(frozen=True)
class Mirror:
    """Where Debian's packages come from: the address, and the release to take."""

    uri: str
    suite: str


def find_mirror(suite: str) -> Mirror:
    """The Debian mirror of the host's own apt sources.

    Raises UsageError where there is no apt, or no source of Debian's main archive.
    """
    _need("apt-get", "apt")
    _need("dpkg-deb", "dpkg")
    listing = _run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)\t$(RELEASE)\t$(CODENAME)\t$(COMPONENT)",
         "Created-By: Packages"],
        "list the host's apt sources",
    )  # fmt: skip
    uri = mirror_in(listing, {suite, _host_release()} - {""})
    if uri is None:
        raise UsageError(
            f"This machine's apt sources name no Debian mirror with '{suite}'; the emulated ARM is built from one.",
            hint=f"Add a line 'deb MIRROR {suite} main' in /etc/apt/sources.list.d/ and run apt-get update.",
        )
    return Mirror(uri, suite)


def mirror_in(listing: str, releases: set[str]) -> str | None:
    """The first address in apt's ``listing`` (address, suite, codename, component, by tabs) with one of ``releases``.

    Only the archive's component main counts; updates and security have suites of their own names.
    """
    for line in listing.splitlines():
        fields = line.split("\t")
        if len(fields) == 4 and fields[3] == "main" and releases & {fields[1], fields[2]}:
            return fields[0]
    return None


def download(
    mirror: Mirror, architecture: str, packages: Sequence[str], folder: Path, alone: bool = False
) -> list[Path]:
    """Download ``packages`` and all that they depend on (or ``alone`` without) into ``folder``: the .deb files.

    Raises EmulationError with apt's own words where that fails.
    """
    folder = folder.absolute()
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    (folder / "sources.list").write_text(f"deb [arch={architecture}{signed}] {mirror.uri} {mirror.suite} main\n")
    configuration = folder / "apt.conf"
    user = "root" if os.geteuid() == 0 else ""
    configuration.write_text(_CONFIGURATION.format(architecture=architecture, folder=folder, user=user))
    apt = ["apt-get", "-qq", f"--config-file={configuration}"]
    _run([*apt, "update"], f"read the package lists of {architecture}")
    archives = folder / "cache/archives"
    if alone:
        _run([*apt, "download", *packages], f"download {', '.join(packages)}", cwd=archives)
    else:
        _run([*apt, "install", "--yes", "--download-only", *packages], f"download {', '.join(packages)}")
    return sorted(archives.glob("*.deb"))


def unpack(deb: Path, folder: Path) -> None:
    """All files of ``deb`` into ``folder``; its install scripts do not run."""
    folder.mkdir(parents=True, exist_ok=True)
    _run(["dpkg-deb", "--extract", str(deb), str(folder)], f"unpack {deb.name}")


def unpack_file(deb: Path, name: str, target: Path) -> None:
    """The one file called ``name`` of ``deb`` as ``target``, executable. Raises EmulationError if it is not there."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as packed:
        try:
            with tarfile.open(fileobj=packed.stdout, mode="r|") as archive:
                for member in archive:
                    if member.isfile() and Path(member.name).name == name:
                        source = archive.extractfile(member)
                        assert source is not None
                        with target.open("xb") as file:
                            shutil.copyfileobj(source, file)
                        target.chmod(0o755)
                        return
        except tarfile.TarError as error:
            raise EmulationError(f"'{deb.name}' cannot be unpacked: {error}.") from error
        finally:
            packed.kill()  # the rest of the package is not needed
    raise EmulationError(f"'{deb.name}' holds no file '{name}'.")


def host_architecture() -> str:
    """Debian's name of the host's architecture."""
    return _run(["dpkg", "--print-architecture"], "ask dpkg for the architecture").strip()


def _host_release() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return release.get("VERSION_CODENAME", "") if release.get("ID") == "debian" else ""


def _need(command: str, package: str) -> None:
    if shutil.which(command) is None:
        raise UsageError(
            f"'{command}' was not found; the emulated ARM is built from Debian packages.",
            hint=f"On Debian or Ubuntu it comes with '{package}'. Elsewhere, use a Debian container.",
        )


def _run(command: Sequence[str], what: str, cwd: Path | None = None) -> str:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, stdin=subprocess.DEVNULL)
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-3:]
        raise EmulationError(
            f"Could not {what}: {' '.join(words) or f'exit code {done.returncode}'}",
            hint="Is the network up, and does 'apt-get update' work on this machine?",
        )
    return done.stdout

"""Servers and tools that tests use as they are, from Debian's packages.

`make test` runs this before the tests: as root it installs what is missing; otherwise, or where there is no
network, it says in one line what to install. It never fails: tests that need what is not there are skipped.
"""

import os
import shutil
import subprocess
from typing import Final

import pytest

PACKAGES: Final = {
    "nginx": "nginx-light",
    "openssl": "openssl",
    "curl": "curl",
    "softhsm2-util": "softhsm2",
    "Orthanc": "orthanc orthanc-dicomweb",
    "rabbitmq-server": "rabbitmq-server",
}
"""Program -> the package that has it, and those that it needs for us."""
_FOLDERS: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_SECONDS_MAX: Final = 300


def path_of(program: str) -> str | None:
    return shutil.which(program, path=_FOLDERS)


def need(program: str) -> str:
    """Where it is. Skips the test that asks, where it is not."""
    found = path_of(program)
    if found is None:
        pytest.skip(f"{program} is not here: apt-get install {PACKAGES[program]}")
    return found


def install() -> None:
    """What is missing, where that is possible."""
    missing = [package for program, package in PACKAGES.items() if path_of(program) is None]
    if not missing:
        return
    if os.geteuid() == 0 and shutil.which("apt-get") is not None:
        # RUNLEVEL: none of them is started as a service.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *" ".join(missing).split()],
        ):
            try:
                subprocess.run(
                    command, env=environment, capture_output=True, check=True, timeout=_SECONDS_MAX
                )
            except (OSError, subprocess.SubprocessError):
                break
    missing = [package for program, package in PACKAGES.items() if path_of(program) is None]
    if missing:
        print(f"tests that need {', '.join(missing)} are skipped: apt-get install {' '.join(missing)}")


if __name__ == "__main__":
    install()

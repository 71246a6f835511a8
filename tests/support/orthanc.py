"""An Orthanc of Debian's for a module of tests: a real picture archive, on this machine's loopback alone, in
a folder of its own, run without its service.

Its version has no setting for the address it listens on, and listens on all of them; a few lines of C that
are loaded before it put every listener on the loopback.
"""

import base64
import io
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.embedded_postgres import free_port
from tests.support.debian import need

START_SECONDS_MAX = 60.0
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USERNAME, PASSWORD = "xinglin", "s3cret"
_ONLY_HERE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef int (*binder)(int, const struct sockaddr *, socklen_t);

int bind(int socket, const struct sockaddr *address, socklen_t length) {
    struct sockaddr_storage here;
    binder next = (binder)dlsym(RTLD_NEXT, "bind");
    if (address == NULL || length > sizeof here) return next(socket, address, length);
    memcpy(&here, address, length);
    if (here.ss_family == AF_INET)
        ((struct sockaddr_in *)&here)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (here.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&here)->sin6_addr = in6addr_loopback;
    return next(socket, (struct sockaddr *)&here, length);
}
"""


class Orthanc:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, program: str, preload: Path) -> subprocess.Popen[bytes]:
        settings = {
            "Name": "ARCHIVE",
            "StorageDirectory": str(self._folder / "db"),
            "IndexDirectory": str(self._folder / "db"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USERNAME: PASSWORD},
            "DicomServerEnabled": False,
            "DefaultEncoding": "Chinese",
            "OverwriteInstances": True,
            "ConcurrentJobs": 1,
            "HttpThreadsCount": 4,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full"},
        }
        (self._folder / "orthanc.json").write_text(json.dumps(settings))
        with (self._folder / "out").open("ab") as out:
            process = subprocess.Popen(
                [program, str(self._folder / "orthanc.json")],
                env={**os.environ, "LD_PRELOAD": str(preload), "HOME": str(self._folder)},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ends = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < ends:
            assert process.poll() is None, self.said()
            try:
                self.call("GET", "/system")
                return process
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        process.kill()
        raise AssertionError(f"Orthanc did not start:\n{self.said()}")

    def said(self) -> str:
        return (self._folder / "out").read_text(errors="replace")[-2000:]

    def store(self, raw: bytes) -> dict[str, Any]:
        """One object, as a machine sends it."""
        told: dict[str, Any] = self.call("POST", "/instances", raw)
        return told

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        pair = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(
            f"{self.address}{path}", body, {"Authorization": f"Basic {pair}"}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")


@contextmanager
def orthanc() -> Iterator[Orthanc]:
    """Skips the test where there is none, or no C compiler."""
    program = need("Orthanc")
    if not PLUGIN.exists():
        pytest.skip("Orthanc's DICOMweb is not here: apt-get install orthanc-dicomweb")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to keep Orthanc on the loopback with: apt-get install gcc libc6-dev")
    folder = Path(tempfile.mkdtemp(prefix="xinglin-orthanc-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        source, preload = folder / "only_here.c", folder / "only_here.so"
        source.write_text(_ONLY_HERE)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(preload), str(source), "-ldl"],
            check=True,
            capture_output=True,
        )
        found = Orthanc(folder)
        process = found.start(program, preload)
        yield found
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def sample(name: str, **said: str) -> bytes:
    """One of pydicom's own pictures, told to be somebody's: keywords and their values, in GB18030."""
    import pydicom
    from pydicom.data import get_testdata_file

    found = get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"pydicom has no {name} here")
    dataset = pydicom.dcmread(found)
    dataset.SpecificCharacterSet = "GB18030"
    for keyword, value in said.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()

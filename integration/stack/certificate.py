"""TLS for the stand-ins of hosted services: a certificate that is its own CA, for the names in envoy/."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

from stack.processes import StackError

NAMES = ["s3.eu-central-1.amazonaws.com", "example.upstash.io"]


def create(directory: Path) -> Path:
    """Writes a key and its certificate into one file. It is valid for a day."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise StackError("openssl is not installed; it comes with ca-certificates")
    path = directory / "stand-in.pem"
    path.touch(mode=0o600)
    names = ",".join(f"DNS:{name}" for name in NAMES)
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-days", "1", "-subj", "/CN=stand-in", "-addext", f"subjectAltName={names}"]
        + ["-keyout", path, "-out", path],
        check=True,
        capture_output=True,
        timeout=20,
    )
    return path


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context

"""Certificates for tests, made on the spot."""

import subprocess
from pathlib import Path


def self_signed(folder: Path, name: str = "dns.test") -> tuple[Path, Path]:
    """`name` and 127.0.0.1; certificate and key. Replaces what stood there: the key first, as most tools do."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = f"-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name}"
    extra = ["-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", "req", *made.split(), *extra], check=True, capture_output=True)
    return cert, key

"""Certificates for tests, made on the spot."""

import asyncio
import ssl
import subprocess
from pathlib import Path


def self_signed(folder: Path, name: str = "dns.test") -> tuple[Path, Path]:
    """`name` and 127.0.0.1; certificate and key. Replaces what stood there: the key first, as most tools do."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = f"-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name}"
    extra = ["-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", "req", *made.split(), *extra], check=True, capture_output=True)
    return cert, key


async def shown_certificate(port: int, host: str) -> bytes:
    """The certificate a client of `host` is shown on localhost, DER."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(10):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return bytes(shown)


def first_der(pem: str) -> bytes:
    """Of the first certificate of a PEM text."""
    end = "-----END CERTIFICATE-----\n"
    return ssl.PEM_cert_to_DER_cert(pem[: pem.index(end) + len(end)])

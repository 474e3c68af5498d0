"""marathon-python 0.13, unchanged, against the service scheduler over HTTP."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from harness.servers import missing
from harness.services import Services
from harness.stub_mesos import StubMesos

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("marathon_program.py")


@pytest.fixture(scope="session")
def python() -> Path:
    """The python of marathon-python's own virtual environment, made when it is not there."""
    made = subprocess.run([ROOT / "scripts" / "compat-venv", "marathon"], capture_output=True, text=True, check=False)
    if made.returncode:
        missing(f"marathon-python cannot be installed: {made.stderr[-500:]}")
    return Path(made.stdout.strip()) / "bin" / "python"


async def test_marathon_python_reads_every_answer(python: Path, tmp_path: Path):
    """Its models raise on any key that Marathon did not have; it creates, scales, updates, rolls back, kills, deletes."""
    async with StubMesos() as mesos:
        services = await Services(mesos, tmp_path).start()
        try:
            url = f"http://127.0.0.1:{services.settings.port}"
            client = await asyncio.create_subprocess_exec(
                python, PROGRAM, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            async with asyncio.timeout(60):
                out, errors = await client.communicate()
        finally:
            await services.stop()
            await services.session.close()

    assert 0 == client.returncode, (out + errors).decode()
    told = json.loads(out)
    assert told.pop("leader").startswith("127.0.0.1:")
    assert told.pop("bad").startswith("422 ")
    assert {"group": ["/py/web"], "info": "marathon", "mem": 16, "queue": ["/py/big"], "versions": 4} == told

"""An operator's shell command: waited for by its own pid, its output in a file, so that what it leaves running (a
HAProxy with -D) holds no pipe of ours.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile

from fairlead_daemon.errors import Refused, Unavailable

OUTPUT_LIMIT_BYTES = 600


async def run(command: str, *, what: str, wait_s: float = 60.0) -> None:
    """Raises Refused with its last words when it fails, Unavailable when it does not end."""
    with tempfile.TemporaryFile() as output:
        child = await asyncio.create_subprocess_shell(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            async with asyncio.timeout(wait_s):
                code = await child.wait()
        except TimeoutError as error:
            raise Unavailable(f"{what}: not ended within {wait_s:g} s, killed: {command}") from error
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                await child.wait()
        if code:
            output.seek(0, os.SEEK_END)
            output.seek(max(0, output.tell() - OUTPUT_LIMIT_BYTES))
            said = " ".join(output.read().decode("utf-8", "replace").split())
            raise Refused(f"{what}: ended with {code}: {said or 'it said nothing'}")

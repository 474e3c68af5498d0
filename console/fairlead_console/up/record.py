"""Who of us runs: `processes.json` in the data directory, and what the process table shows beside it."""

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from fairlead_daemon.files import replace_file
from fairlead_daemon.processes import Identity, command_line, identify, neighbours

FILE = "processes.json"


def write(data_dir: Path, processes: Mapping[str, Identity]) -> None:
    """`{"master": {"pid": 12, "start_ticks": 345}, …}`, replaced whole at every change."""
    data = msgspec.json.format(msgspec.json.encode(dict(sorted(processes.items()))), indent=1)
    replace_file(data_dir / FILE, data + b"\n")


def read(data_dir: Path) -> dict[str, Identity]:
    """What a predecessor wrote; {} when there is none, or it cannot be read (the process table is asked anyway)."""
    try:
        return msgspec.json.decode((data_dir / FILE).read_bytes(), type=dict[str, Identity])
    except (OSError, msgspec.DecodeError):
        return {}


def running(data_dir: Path) -> list[tuple[str, Identity]]:
    """A predecessor's daemons, by name: our own user's processes whose command line ends in
    `--config <data_dir>/etc/<name>.toml`. So one that was started but never recorded is found too, and a pid that
    someone else got after a reboot is not.
    """
    prefix = f"{data_dir}/etc/"
    found = []
    for pid, words in command_lines(data_dir):
        config = next((after for word, after in itertools.pairwise(words) if word == "--config"), "")
        if config.startswith(prefix) and config.endswith(".toml") and own(pid) and (identity := identify(pid)):
            found.append((config.removeprefix(prefix).removesuffix(".toml"), identity))
    return sorted(found, key=lambda one: (one[0], one[1].pid))


def own(pid: int) -> bool:
    """Whether our own user runs it."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid == os.geteuid()
    except OSError:
        return False


def command_lines(at: Path) -> Iterator[tuple[int, list[str]]]:
    """Of all processes but ourselves that find at this path what we find there."""
    for pid in neighbours(at):
        yield pid, command_words(pid)


def command_words(pid: int) -> list[str]:
    return [word.decode("utf-8", "replace") for word in command_line(pid)]

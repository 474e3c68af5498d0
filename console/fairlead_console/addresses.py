"""Where the daemons are: `addresses.json` of a data directory, single ones overridden by the environment."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairlead_daemon.errors import BadSettings

FILE = "addresses.json"
SEARCHED = (".fairlead", "/var/lib/fairlead")


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are the daemons' own. `dns` are `host:port`; an empty `lb` is switched off."""

    data_dir: str = ""
    registry: str = ""
    token_file: str = ""
    master: str = "http://127.0.0.1:5050"
    agents: tuple[str, ...] = ()
    services: str = "http://127.0.0.1:8080"
    dns: tuple[str, ...] = ("127.0.0.1:8053",)
    dns_http: tuple[str, ...] = ("http://127.0.0.1:8123",)
    monitor: str = "http://127.0.0.1:9900"
    console: str = "http://127.0.0.1:8000"
    lb: str = "http://127.0.0.1:9190"
    lb_http: str = "http://127.0.0.1:9080"
    lb_node: str = ""
    messaging: str = "http://127.0.0.1:8300"
    ca: str = "http://127.0.0.1:8450"

    @property
    def token_path(self) -> Path | None:
        return Path(self.token_file) if self.token_file else None


VARIABLES: Mapping[str, str] = {
    "FAIRLEAD_REGISTRY": "registry",
    "FAIRLEAD_TOKEN_FILE": "token_file",
    "FAIRLEAD_MASTER": "master",
    "FAIRLEAD_SERVICES": "services",
    "FAIRLEAD_DNS": "dns",
    "FAIRLEAD_DNS_HTTP": "dns_http",
    "FAIRLEAD_MONITOR": "monitor",
    "FAIRLEAD_CONSOLE": "console",
    "FAIRLEAD_LB": "lb",
    "FAIRLEAD_LB_HTTP": "lb_http",
    "FAIRLEAD_MESSAGING": "messaging",
    "FAIRLEAD_CA": "ca",
}
"""What the environment may override; lists are separated by commas."""
LISTS = frozenset({"dns", "dns_http"})
URLS = frozenset(
    {"master", "services", "monitor", "console", "dns_http", "lb", "lb_http", "lb_node", "messaging", "ca"}
)


def find(data_dir: str = "", environment: Mapping[str, str] = os.environ) -> Addresses:
    """From `data_dir`, else FAIRLEAD_DATA_DIR, else the first of SEARCHED that has them, else the defaults.

    Raises BadSettings when a named data directory has none.
    """
    named = data_dir or environment.get("FAIRLEAD_DATA_DIR", "")
    folders = [Path(named)] if named else [Path(folder) for folder in SEARCHED]
    values = next((found for folder in folders if (found := _read(folder)) is not None), None)
    if values is None and named:
        raise BadSettings(f"{named}/{FILE}: not there; `fairlead up --data-dir {named}` writes it")
    return msgspec.convert({**(values or {}), **overrides(environment)}, Addresses)


def overrides(environment: Mapping[str, str]) -> dict[str, Any]:
    """`FAIRLEAD_MASTER=10.0.0.1:5050` -> {"master": "http://10.0.0.1:5050"}."""
    out: dict[str, Any] = {}
    for variable, key in VARIABLES.items():
        if variable in environment:
            parts = [_url(part) if key in URLS else part for part in environment[variable].split(",")]
            out[key] = parts if key in LISTS else ",".join(parts)
    return out


def _url(text: str) -> str:
    return text.rstrip("/") if "://" in text or not text else f"http://{text.rstrip('/')}"


def _read(folder: Path) -> dict[str, Any] | None:
    """None when there is none. Raises BadSettings when it is no such file."""
    path = folder / FILE
    try:
        values = json.loads(path.read_bytes())
        msgspec.convert(values, Addresses)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise BadSettings(f"{path}: {error}") from error
    assert isinstance(values, dict), "convert takes nothing else"
    return values

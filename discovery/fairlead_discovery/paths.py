"""Every path of the registry's tree is made here and nowhere else.

/mesos/json.info_0000000003                 leading master, Mesos' form (lowest sequence leads)
/fairlead/endpoints/marathon:%2Fshop%2Fweb/member_<task id>_<8 hex>
"""

import hashlib
from functools import lru_cache
from urllib.parse import quote, unquote

ROOT = "/fairlead"
CLUSTER = f"{ROOT}/cluster"
REVISION = f"{ROOT}/revision"
EPOCHS = f"{ROOT}/epochs"
ELECTIONS = f"{ROOT}/elections"
ENDPOINTS = f"{ROOT}/endpoints"
PORTLESS = f"{ROOT}/portless"
LEAVING = f"{ROOT}/leaving"
ROUTES = f"{ROOT}/routes"
POLICIES = f"{ROOT}/policies"
BALANCERS = f"{ROOT}/lb/balancers"
PROGRESS = f"{ROOT}/lb/progress"
ROLLOUT = f"{ROOT}/lb/rollout"
"""Which balancer reloads its HAProxy now, or did last, and how that went."""
WATCHED = f"{ROOT}/lb/watched"
CANARIES = f"{ROOT}/lb/canaries"
"""What balancers count while a canary is under way, and what the leading one thinks of it."""
CERTIFICATES = f"{ROOT}/lb/certificates"
"""Certificates with their keys, each sealed with a key that is not in the registry; one that was removed stays as a word."""
NAME_SERVERS = f"{ROOT}/dns/servers"
NAME_SERIALS = f"{ROOT}/dns/serials"
AGENTS = f"{ROOT}/agents"
MASTER = f"{ROOT}/master"
MASTER_FRAMEWORKS = f"{MASTER}/frameworks"
MASTER_MAINTENANCE = f"{MASTER}/maintenance"
MASTER_AGENTS = f"{MASTER}/agents"
APPS = f"{ROOT}/services/apps"
DEPLOYMENTS = f"{ROOT}/services/deployments"
SERVICES = f"{ROOT}/services"
INSTANCES = f"{ROOT}/services/instances"
SERVICES_FRAMEWORK = f"{ROOT}/services/framework"
TOPOLOGY = f"{ROOT}/messaging/topology"
MONITORING = f"{ROOT}/monitoring"
ALERT_JOURNAL = f"{MONITORING}/journal"
SILENCES = f"{MONITORING}/silences"
ANNOUNCED = f"{ROOT}/announced"
"""Leases of what fairlead does not schedule: one for each announced instance, ended with its announcer's session."""
HOLDERS = f"{ROOT}/coordination/holders"
RELEASED = f"{ROOT}/coordination/released"
GROUPS = f"{ROOT}/coordination/groups"
BARRIERS = f"{ROOT}/coordination/barriers"
RINGS = f"{ROOT}/rings"
TRUST = f"{ROOT}/identity/trust"
"""Whose certificates are to be believed: written by the identity authority, never with a key in it."""
MESOS = "/mesos"

CLOCKED = (ENDPOINTS, PORTLESS, LEAVING, ROUTES, POLICIES)
"""What snapshots contain, and commits change. Folders of folders: ENDPOINTS, PORTLESS."""
NESTED = (ENDPOINTS, PORTLESS)
CONFIRMED = f"{ROOT}/confirmed"
"""A person's word that a held reading is to be believed."""
NODE_LIMIT_BYTES = 512 * 1024
SEGMENT_LIMIT_BYTES = 1024
"""Of a new node's path, as it stands in the tree: names of many nodes are told, and nodes are asked for, at once."""

NAMES_KEPT = 16_384  # services: each change of a route makes and reads the names of all
_SAFE = ":@!$&'()*+,;=~"  # legal in znode names and in file systems; `/` and `%` are not in it


@lru_cache(maxsize=NAMES_KEPT)
def escape(name: str) -> str:
    """Any text as one path segment, reversibly. `marathon:/shop/web` -> `marathon:%2Fshop%2Fweb`."""
    text = quote(name, safe=_SAFE)
    return {".": "%2E", "..": "%2E%2E", "": "%"}.get(text, text)


@lru_cache(maxsize=NAMES_KEPT)
def unescape(segment: str) -> str:
    return "" if segment == "%" else unquote(segment)


def service_key(framework: str, name: str) -> str:
    """`marathon`, `/shop/web` -> `marathon:/shop/web`; escape() makes the path segment of it."""
    return f"{framework.replace('%', '%25').replace(':', '%3A')}:{name}"


def split_service_key(key: str) -> tuple[str, str]:
    framework, _, name = key.partition(":")
    return unquote(framework), name


def digest(data: bytes) -> str:
    """8 hex characters; `data` is canonical JSON (sorted keys, no blanks)."""
    return hashlib.sha256(data).hexdigest()[:8]


def endpoint_folder(service: str) -> str:
    return f"{ENDPOINTS}/{escape(service)}"


def member_name(task_id: str, data: bytes) -> str:
    """A member never changes; its name says its content. `member_shop_web.instance-1_0a1b2c3d`."""
    return f"member_{escape(task_id)}_{digest(data)}"


def portless_name(task_id: str, data: bytes) -> str:
    return f"task_{escape(task_id)}_{digest(data)}"


def task_of(node_name: str) -> str:
    """The task id in a member's or portless node's name."""
    return unescape(node_name.partition("_")[2].rpartition("_")[0])


def member(service: str, name: str) -> str:
    return f"{ENDPOINTS}/{escape(service)}/{name}"


def portless(service: str, name: str) -> str:
    return f"{PORTLESS}/{escape(service)}/{name}"


def leaving(task_id: str) -> str:
    return f"{LEAVING}/{escape(task_id)}"


def route(service: str) -> str:
    return f"{ROUTES}/{escape(service)}"


ANNOUNCED_TASK = "announced~"
"""How the ids of announced instances begin: the leading master publishes none of them, and reconciles none away."""


def announced_task(service: str, instance: str) -> str:
    """`static:db`, `10.0.0.5-5432` -> `announced~static:db~10.0.0.5-5432`: stands where a task's id would."""
    return f"{ANNOUNCED_TASK}{service}~{instance}"


def is_announced(task_id: str) -> bool:
    return task_id.startswith(ANNOUNCED_TASK)


def below(folder: str, name: str) -> str:
    """A document named by any text below a folder of this file."""
    return f"{folder}/{escape(name)}"


def epoch(role: str) -> str:
    return f"{EPOCHS}/{escape(role)}"


def election(role: str) -> str:
    """Candidates' nodes `c_<sequence>`; the master's stand in MESOS instead, as `json.info_<sequence>`."""
    return f"{ELECTIONS}/{escape(role)}/c_"


MASTER_CANDIDACY = f"{MESOS}/json.info_"


def clocked_folder(path: str) -> str:
    """The folder a clocked node stands in, as a Sight names it; "" when the path is no clocked node.

    `/fairlead/endpoints/s/member_1` -> `/fairlead/endpoints/s`; `/fairlead/endpoints/s` -> "".
    """
    folder = path.rpartition("/")[0]
    if folder in CLOCKED:
        return "" if folder in NESTED else folder
    return folder if folder.rpartition("/")[0] in NESTED else ""

"""The `fairlead` command against real servers: what it asks, what it prints, how it ends."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from console.conftest import Daemons
from fairlead_console.main import daemon_asked_for, main
from fairlead_console.verbs.registry import with_registry
from fairlead_discovery import paths
from fairlead_discovery.records import Balancer, Progress, encode
from harness.waiting import wait_until

APP = {"id": "/shop/web", "cmd": "run", "instances": 2, "tasksRunning": 2, "tasksStaged": 0, "version": "v1"}
AGENTS = {"slaves": [
    {"id": "c-S0", "hostname": "agent-1", "pid": "slave(1)@127.0.0.1:5051", "active": True,
     "resources": {"cpus": 4, "mem": 1024}, "used_resources": {"cpus": 1, "mem": 64}},
]}  # fmt: skip


class Result:
    """How a run ended, and what it said."""

    def __init__(self, code: int, captured: Any) -> None:
        self.code, self.out, self.err = code, captured.out, captured.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def fairlead(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAIRLEAD_DATA_DIR", str(data_dir))

    def run(*words: str) -> Result:
        capsys.readouterr()
        return Result(main(words), capsys.readouterr())

    return run


def deployed(daemons: Daemons, *, still_running_for: int = 1) -> None:
    """PUT answers as Marathon, the deployment runs for some looks, then the app is as asked."""
    looks = iter([[{"id": "d1", "currentStep": 1, "totalSteps": 1}]] * still_running_for)
    daemons.answers[("PUT", "/v2/apps/shop/web")] = {"version": "v2", "deploymentId": "d1"}
    daemons.answers[("GET", "/v2/deployments")] = lambda _body: next(looks, [])
    daemons.answers[("GET", "/v2/apps/shop/web")] = {"app": APP}


@pytest.fixture
def app_file(tmp_path: Path) -> str:
    file = tmp_path / "app.json"
    file.write_text('{"id": "/shop/web", "cmd": "run", "instances": 2}')
    return str(file)


# --- apps ------------------------------------------------------------------------------------------------------------


def test_deploy_waits_until_the_deployment_is_done(fairlead, daemons: Daemons, app_file: str):
    """The definition goes as it stands; the end says how many run."""
    deployed(daemons)
    result = fairlead("app", "deploy", app_file)

    assert 0 == result.code, result.err
    assert [{"id": "/shop/web", "cmd": "run", "instances": 2}] == daemons.bodies("PUT")
    assert "/shop/web: 2 of 2 running" in result.out


def test_every_call_carries_the_token(fairlead, daemons: Daemons, app_file: str):
    """It is read from the data directory, nobody types it."""
    deployed(daemons)
    fairlead("app", "deploy", app_file, "--no-wait")

    assert {"Bearer sesame"} == {authorization for *_, authorization in daemons.seen}


def test_force_is_passed_on(fairlead, daemons: Daemons, app_file: str):
    """Marathon's query parameter."""
    deployed(daemons)
    fairlead("app", "deploy", app_file, "--force", "--no-wait")

    assert ("PUT", "/v2/apps/shop/web?force=true") == daemons.seen[0][:2]


def test_a_deployment_that_is_not_done_in_time_says_why(fairlead, daemons: Daemons, app_file: str):
    """Exit 1, with the counts and the last failure."""
    deployed(daemons, still_running_for=1000)
    failed = {**APP, "tasksRunning": 1, "lastTaskFailure": {"state": "TASK_FAILED", "message": "no such file"}}
    daemons.answers[("GET", "/v2/apps/shop/web")] = {"app": failed}
    daemons.answers[("GET", "/fairlead/explain")] = {}
    result = fairlead("app", "deploy", app_file, "--timeout", "0.3")

    assert 1 == result.code
    assert "not done after 0 s: step 1 of 1, 1 of 2 running; last task: TASK_FAILED: no such file" in result.err


def test_a_refused_definition_is_one_line_in_the_servers_words(fairlead, daemons: Daemons, app_file: str):
    """The path of the field comes through."""
    details = [{"path": "/cpus", "errors": ["must be positive"]}]
    daemons.answers[("PUT", "/v2/apps/shop/web")] = (422, {"message": "Object is not valid", "details": details})
    result = fairlead("app", "deploy", app_file)

    assert (1, 1) == (result.code, len(result.err.splitlines()))
    assert "Object is not valid" in result.err
    assert "/cpus" in result.err


def test_an_app_that_is_being_deployed_names_the_way_out(fairlead, daemons: Daemons, app_file: str):
    """Marathon's 409 says nothing that a person at a terminal can use."""
    daemons.answers[("PUT", "/v2/apps/shop/web")] = (409, {"message": "App is locked by one or more deployments."})
    result = fairlead("app", "deploy", app_file)

    assert 1 == result.code
    assert "/shop/web: a deployment of it runs (fairlead explain /shop/web); --force takes over" in result.err


def test_explain_is_sentences_and_a_table_of_agents(fairlead, daemons: Daemons):
    """In the scheduler's words, most important first."""
    refusal = {"agent": "c-S0", "host": "agent-1", "reason": "InsufficientCpus", "detail": "needs 64 cpus, offered 4"}
    daemons.answers[("GET", "/v2/apps/shop/web")] = {"app": {**APP, "tasksRunning": 0}}
    daemons.answers[("GET", "/fairlead/explain")] = {"reasons": ["no agent fits"], "agents": [refusal]}
    lines = fairlead("explain", "/shop/web").out.splitlines()

    assert ["/shop/web: 0 of 2 running, waiting", "  no agent fits"] == lines[:2]
    assert ["c-S0", "agent-1", "InsufficientCpus", "needs", "64", "cpus,", "offered", "4"] == lines[4].split()


@pytest.mark.parametrize(
    ("text", "named"), [("{", "app.json: "), ('{"cmd": "x"}', "id: an app is"), ("7", "id: "), ("[]", "no app in it")]
)
def test_a_file_that_is_no_app_is_exit_2(fairlead, tmp_path: Path, text: str, named: str):
    """Nothing is asked of any server; the file is named."""
    file = tmp_path / "app.json"
    file.write_text(text)
    result = fairlead("app", "deploy", str(file))

    assert 2 == result.code
    assert named in result.err


def test_a_missing_file_is_exit_2(fairlead):
    """With its name."""
    result = fairlead("app", "deploy", "/no/such.json")

    assert (2, "fairlead: /no/such.json: No such file or directory\n") == (result.code, result.err)


def test_scaling_what_does_not_exist_creates_nothing(fairlead, daemons: Daemons):
    """A PUT of `instances` alone would; names alike are offered."""
    daemons.answers[("GET", "/v2/apps")] = {"apps": [APP]}
    result = fairlead("app", "scale", "/shop/wep", "3")

    assert 1 == result.code
    assert "no such app: /shop/wep; did you mean /shop/web?" in result.err
    assert [] == daemons.bodies("PUT")


def test_a_removed_app_is_gone_when_the_verb_returns(fairlead, daemons: Daemons):
    """The scheduler's 404 is the aim here."""
    daemons.answers[("DELETE", "/v2/apps/shop/web")] = {"version": "v2", "deploymentId": "d1"}
    daemons.answers[("GET", "/v2/deployments")] = []
    result = fairlead("app", "remove", "shop/web")

    assert 0 == result.code, result.err


def test_apps_are_listed_plainly_when_piped(fairlead, daemons: Daemons):
    """Columns, no colours, no frames."""
    daemons.answers[("GET", "/v2/apps")] = {"apps": [APP]}
    result = fairlead("app", "list")

    assert ["app", "running", "state", "command"] == result.out.splitlines()[0].split()
    assert ["/shop/web", "2/2", "running", "run"] == result.out.splitlines()[1].split()
    assert "\x1b" not in result.out


def test_a_long_command_is_cut_and_whole_in_json(fairlead, daemons: Daemons):
    """A table is for the eye."""
    daemons.answers[("GET", "/v2/apps")] = {"apps": [{**APP, "cmd": "x" * 200_000}]}

    assert "x" * 59 + "…" == fairlead("app", "list").out.splitlines()[1].split()[-1]
    assert "x" * 200_000 == fairlead("app", "list", "--json").json[0]["cmd"]


def test_no_name_breaks_a_table(fairlead, daemons: Daemons):
    """Line ends, colours and cursor movements are shown, not done."""
    daemons.answers[("GET", "/slaves")] = {"slaves": [{**AGENTS["slaves"][0], "hostname": "a\n\x1b[2J\u202eb"}]}
    daemons.answers[("GET", "/state")] = {"frameworks": []}
    out = fairlead("node", "list").out

    assert 2 == len(out.splitlines())
    assert "a\\n\\x1b[2J\\u202eb" in out


def test_json_is_what_the_server_said(fairlead, daemons: Daemons):
    """Whole, for programs."""
    daemons.answers[("GET", "/v2/apps")] = {"apps": [APP]}

    assert [APP] == fairlead("app", "list", "--json").json


# --- nodes -----------------------------------------------------------------------------------------------------------


def test_draining_asks_the_master_and_waits_for_the_last_task(fairlead, daemons: Daemons):
    """By host name; Mesos' call with the grace period in nanoseconds."""
    counts = iter([2, 1])
    daemons.answers[("GET", "/slaves")] = AGENTS
    daemons.answers[("POST", "/api/v1")] = None
    daemons.answers[("GET", "/state")] = lambda _body: {
        "frameworks": [{"tasks": [{"slave_id": "c-S0", "state": "TASK_RUNNING"}] * next(counts, 0)}]
    }
    result = fairlead("node", "drain", "agent-1", "--grace", "60")

    call = {"agent_id": {"value": "c-S0"}, "max_grace_period": {"nanoseconds": 60_000_000_000}}
    assert [{"type": "DRAIN_AGENT", "drain_agent": call}] == daemons.bodies("POST")
    assert 0 == result.code, result.err
    assert ["2 tasks left", "1 tasks left"] == [line.split(", ")[1] for line in result.out.splitlines()[:2]]


def test_undraining_reactivates(fairlead, daemons: Daemons):
    """By a unique beginning of the id."""
    daemons.answers[("GET", "/slaves")] = AGENTS
    daemons.answers[("POST", "/api/v1")] = None
    result = fairlead("node", "undrain", "c-S")

    assert 0 == result.code, result.err
    assert "REACTIVATE_AGENT" == daemons.bodies("POST")[0]["type"]


def test_nodes_are_listed_with_what_is_taken(fairlead, daemons: Daemons):
    """Of what there is."""
    daemons.answers[("GET", "/slaves")] = AGENTS
    daemons.answers[("GET", "/state")] = {"frameworks": []}
    line = fairlead("node", "list").out.splitlines()[1].split()

    assert ["c-S0", "agent-1", "127.0.0.1:5051", "active", "0", "1/4", "64/1024"] == line


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/shop/web", "web-shop.marathon.mesos"])
def test_lookup_shows_addresses_and_ports(fairlead, name: str):
    """By app id or by name; A and SRV in one answer."""
    rows = fairlead("lookup", name, "--json").json

    assert {("A", "10.0.0.1"), ("A", "10.0.0.2")} == {(r["type"], r["value"]) for r in rows if r["type"] == "A"}
    assert ["0 1 31005 web-shop-x.marathon.mesos."] == [r["value"] for r in rows if r["type"] == "SRV"]


def test_a_name_that_is_not_there_is_said_in_words(fairlead, daemons: Daemons):
    """With the one that was probably meant."""
    records = {"As": {"web-shop.marathon.mesos.": ["10.0.0.1"]}, "SRVs": {}}
    daemons.answers[("GET", "/v1/axfr")] = {"Records": records}
    result = fairlead("lookup", "wep-shop.marathon.mesos")

    expected = "wep-shop.marathon.mesos: there is no such name; did you mean web-shop.marathon.mesos?"
    assert (1, f"fairlead: {expected}\n") == (result.code, result.err)


def test_an_app_can_be_asked_for_its_srv_records(fairlead):
    """The example of the verb's own help: the SRV name is made of the app's."""
    rows = fairlead("lookup", "/shop/web", "SRV", "--json").json

    assert [("SRV", "0 1 31005 web-shop-x.marathon.mesos.")] == [(r["type"], r["value"]) for r in rows]


def test_a_type_that_does_not_exist_is_usage(fairlead):
    """Exit 2."""
    assert 2 == fairlead("lookup", "/shop/web", "NONSENSE").code


# --- all of it -------------------------------------------------------------------------------------------------------


def test_status_shows_what_answers_and_what_does_not(fairlead, daemons: Daemons):
    """A daemon that waits says for what; one that is away is a line, not an error."""
    daemons.answers[("GET", "/ready")] = (503, {"ready": False, "waits": {"registry": "out of sight"}})
    daemons.answers[("GET", "/slaves")] = AGENTS
    shown = fairlead("status", "--json").json

    assert {"not ready"} == {d["state"] for d in shown["daemons"]}
    assert {"registry: out of sight"} == {d["why"] for d in shown["daemons"]}
    assert "1 active; cpus 1 of 4; mem 64 of 1024 MB" == shown["summary"]["agents"]


def test_nobody_there_is_exit_3(fairlead, daemons: Daemons, monkeypatch: pytest.MonkeyPatch):
    """The address is named, in one line."""
    monkeypatch.setenv("FAIRLEAD_SERVICES", "127.0.0.1:1")
    result = fairlead("app", "list")

    assert (3, "fairlead: GET http://127.0.0.1:1/v2/apps: connection refused\n") == (result.code, result.err)


def test_a_zookeeper_that_is_away_is_one_line(data_dir: Path):
    """Not one for each try of its client."""
    words = [sys.executable, "-m", "fairlead_console", "registry", "get", "/x", "--data-dir", str(data_dir)]
    environment = {**os.environ, "FAIRLEAD_REGISTRY": "zk://127.0.0.1:1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=False)

    assert (3, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr


def test_a_registry_that_is_stopped_is_not_ready(fairlead, data_dir: Path, short_dir: Path, monkeypatch):
    """Its socket takes connections all the same: the kernel does."""
    place = short_dir / "r.sock"
    words = [sys.executable, "-m", "fairlead_console", "registry", "--set", f"registry=local:{place}"]
    process = subprocess.Popen([*words, "--set", f"data_dir={short_dir}"])
    monkeypatch.setenv("FAIRLEAD_REGISTRY", f"local:{place}")

    def state() -> str:
        return {d["name"]: d["state"] for d in fairlead("status", "--json").json["daemons"]}["registry"]

    try:
        wait_until("the registry answers", lambda: state() == "ready", within_s=10)
        process.send_signal(signal.SIGSTOP)
        assert "unreachable" == state()
    finally:
        process.kill()
        process.wait()


def test_a_data_directory_without_addresses_is_exit_2(fairlead, tmp_path: Path):
    """When it was named: else the defaults are tried."""
    result = fairlead("app", "list", "--data-dir", str(tmp_path / "none"))

    assert 2 == result.code
    assert "addresses.json: not there" in result.err


def test_a_mistyped_verb_is_exit_2_with_the_right_one(fairlead):
    """Daemons count as verbs."""
    assert (2, "fairlead: no such verb: mastre; did you mean master? (see fairlead --help)\n") == (
        (result := fairlead("mastre")).code,
        result.err,
    )


def test_an_unknown_option_is_one_line(fairlead):
    """Exit 2, with where help is."""
    result = fairlead("app", "list", "--nope")

    assert (2, 1) == (result.code, len(result.err.splitlines()))
    assert "fairlead app list --help" in result.err


@pytest.mark.parametrize(
    ("words", "daemon"),
    [
        (["master", "--check"], "master"),
        (["registry"], "registry"),
        (["registry", "--config", "x"], "registry"),
        (["registry", "tree"], ""),
        (["registry", "--help"], ""),
        (["lb", "--set", "x=1"], "lb"),
        (["lb", "list"], ""),
        (["app", "list"], ""),
        ([], ""),
    ],
)
def test_daemons_and_verbs_are_told_apart(words: list[str], daemon: str):
    """`registry` is both: its verbs are verbs, all else is the process."""
    assert daemon == daemon_asked_for(words)


def test_help_loads_no_server_library():
    """The command starts fast: neither aiohttp nor kazoo nor the daemons are loaded for it."""
    script = (
        "import sys; from fairlead_console.main import main; main(['app', '--help'])\n"
        "print([m for m in ('aiohttp', 'kazoo', 'dnslib', 'jinja2', 'fairlead_core') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert "[]" == out.splitlines()[-1]


def test_output_into_a_closed_pipe_is_no_error(data_dir: Path, daemons: Daemons):
    """`fairlead app list | head -1`."""
    daemons.answers[("GET", "/v2/apps")] = {"apps": [APP] * 3000}
    words = f"{sys.executable} -m fairlead_console app list --data-dir {data_dir} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", words], capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)


# --- balancers -------------------------------------------------------------------------------------------------------

TOLD = "service port 5052 is reserved for others (reserved_ports)"
LB_STATUS = {
    "problems": {"marathon:/shop/web": [TOLD], "/fairlead/routes/x": ["no JSON"]},
    "unreadable": {"/fairlead/routes/x": "no JSON"},
    "services": [{"service": "marathon:/shop/web", "wanted": True}, {"service": "marathon:/gone", "wanted": False}],
}


def test_a_deployed_app_is_told_what_the_balancer_refuses(fairlead, daemons: Daemons, app_file: str):
    """It is healthy, and nobody reaches it: a warning at the end, exit 0 all the same."""
    deployed(daemons)
    daemons.answers[("GET", "/status")] = LB_STATUS
    result = fairlead("app", "deploy", app_file)

    assert (0, f"fairlead: warning: /shop/web: {TOLD}\n") == (result.code, result.err)


def test_the_warning_waits_for_the_reload_that_shows_it(fairlead, daemons: Daemons, app_file: str):
    """Whether a port is free is seen when HAProxy is to bind it."""
    deployed(daemons)
    looks = iter([{"reload_due": ["backend is new"]}])
    daemons.answers[("GET", "/status")] = lambda _body: next(looks, LB_STATUS)

    assert TOLD in fairlead("app", "deploy", app_file).err


def test_explain_names_what_the_balancer_refuses(fairlead, daemons: Daemons):
    """Beside the scheduler's own reasons."""
    daemons.answers[("GET", "/v2/apps/shop/web")] = {"app": APP}
    daemons.answers[("GET", "/fairlead/explain")] = {"reasons": ["as asked"]}
    daemons.answers[("GET", "/status")] = LB_STATUS

    assert ["  as asked", f"  {TOLD}"] == fairlead("explain", "shop/web").out.splitlines()[1:]


def test_status_names_problems_and_counts_wanted_services(fairlead, daemons: Daemons):
    """Refused ports, unreadable records; what a removed app leaves behind is none of today's services."""
    daemons.answers[("GET", "/status")] = LB_STATUS
    shown = fairlead("status", "--json").json

    assert [
        {"what": "/shop/web", "problem": TOLD},
        {"what": "registry", "problem": "1 unreadable records: /fairlead/routes/x"},
    ] == shown["problems"]
    assert "; 1 services;" in shown["summary"]["balancer"]
    assert TOLD in fairlead("status").out


@pytest.fixture
def registered(
    fairlead, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, float | None], None]]:
    """A real local registry; `registered("lb-1", 3.0)` is a balancer that wrote its progress so many seconds ago."""
    url = f"local:{short_dir}/r.sock"
    words = [sys.executable, "-m", "fairlead_console", "registry", "--set", f"registry={url}"]
    process = subprocess.Popen([*words, "--set", f"data_dir={short_dir}"])
    monkeypatch.setenv("FAIRLEAD_REGISTRY", url)

    async def write(name: str, age_s: float | None) -> None:
        async def body(opened: Any) -> None:
            await opened.write(paths.below(paths.BALANCERS, name), encode(Balancer(id=name, admin="http://x")))
            if age_s is not None:
                said = Progress(applied_revision=7, written_s=time.time() - age_s)
                await opened.write(paths.below(paths.PROGRESS, name), encode(said))

        await with_registry(url, body)

    wait_until("the registry is there", lambda: fairlead("registry", "get", "/fairlead/cluster").code == 0)
    yield lambda name, age_s: asyncio.run(write(name, age_s))
    process.kill()
    process.wait()


def test_a_silent_balancer_is_named_and_can_be_forgotten(fairlead, registered):
    """Kills wait for every registered one, also for one whose machine is gone."""
    for name, age_s in (("alive", 2.0), ("dead", 500.0), ("new", None)):
        registered(name, age_s)

    states = {r["id"]: (r["state"], r["applied_revision"]) for r in fairlead("lb", "list", "--json").json}
    assert {"alive": ("ok", 7), "dead": ("silent", 7), "new": ("unknown", None)} == states
    problems = fairlead("status", "--json").json["problems"]
    assert ["balancer dead"] == [p["what"] for p in problems]
    assert "`fairlead lb forget dead` ends that" in problems[0]["problem"]

    assert 0 == fairlead("lb", "forget", "dead", "--yes").code
    assert {"alive", "new"} == {r["id"] for r in fairlead("lb", "list", "--json").json}
    refused = fairlead("lb", "forget", "dead", "--yes")
    assert (1, "fairlead: no such balancer: dead; registered are alive, new\n") == (refused.code, refused.err)


def test_a_balancer_is_forgotten_only_after_a_yes(fairlead, registered, monkeypatch: pytest.MonkeyPatch):
    """Anything else leaves it."""
    registered("lb-1", 500.0)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))

    assert 130 == fairlead("lb", "forget", "lb-1").code
    assert ["lb-1"] == [r["id"] for r in fairlead("lb", "list", "--json").json]

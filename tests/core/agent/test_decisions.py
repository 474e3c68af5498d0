"""Updates, health, users, resolv.conf, fetching, resources: the agent's other decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_core import resources
from fairlead_core.agent.decisions import inventory, resolving, tasks, updates, users
from fairlead_core.agent.decisions.fetching import steps
from fairlead_core.agent.decisions.health import Standing, judge, pause_s
from fairlead_core.agent.decisions.tasks import HealthCheck, TcpCheck, Uri
from fairlead_daemon.errors import Refused

TCP = HealthCheck(
    tcp=TcpCheck(port=1), delay_seconds=0, grace_period_seconds=5, interval_seconds=10, consecutive_failures=3
)


# --- updates -----------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["add", "ack head", "ack last", "ack nonsense"]), max_size=12))
def test_updates_are_told_in_order_whatever_is_acknowledged(moves: list[str]):
    """Only the head leaves the queue; what has left is a prefix of what was made."""
    stream, made, gone = updates.Stream(), [], 0
    for number, move in enumerate(moves):
        if move == "add":
            made.append(str(number))
            stream = updates.add(stream, {"uuid": str(number), "state": "TASK_RUNNING"})
        elif stream.pending:
            target = {"ack head": stream.pending[0], "ack last": stream.pending[-1]}.get(move, {"uuid": "?"})
            before = len(stream.pending)
            stream = updates.acknowledge(stream, target["uuid"])
            gone += before - len(stream.pending)
        assert made[gone:] == [s["uuid"] for s in stream.pending]


def test_an_update_is_sent_again_after_ten_seconds_doubling_to_ten_minutes():
    """Mesos' numbers."""
    assert [10, 20, 40, 80, 160, 320, 600, 600] == [updates.retry_s(n) for n in range(1, 9)]


def test_a_stream_is_settled_when_its_end_is_acknowledged():
    """Not before, and not by another end."""
    stream = updates.add(updates.Stream(), {"uuid": "a", "state": "TASK_FINISHED"})

    assert not updates.settled(stream)
    assert updates.settled(updates.acknowledge(stream, "a"))


# --- health ------------------------------------------------------------------------------------------------------


def test_failures_before_the_first_success_do_not_count_within_the_grace():
    """Afterwards three in a row are the end."""
    standing = Standing()
    for at_s in (1.0, 2.0, 4.9):
        standing = judge(standing, TCP, ok=False, since_start_s=at_s)
    assert Standing() == standing
    for at_s in (5.0, 6.0, 7.0):
        standing = judge(standing, TCP, ok=False, since_start_s=at_s)

    assert False is standing.healthy


def test_a_success_forgives_the_failures_before():
    """Only failures in a row count, also within the grace once it was healthy."""
    standing = judge(Standing(), TCP, ok=True, since_start_s=0.1)
    for ok in (False, False, True, False, False):
        standing = judge(standing, TCP, ok=ok, since_start_s=1.0)
    assert True is standing.healthy

    assert False is judge(standing, TCP, ok=False, since_start_s=1.0).healthy


def test_checks_are_quick_until_the_first_success():
    """At most 200 ms apart while a success would publish the task, then the interval as given."""
    assert pause_s(Standing(), TCP, since_start_s=0.0) <= 0.02
    assert all(pause_s(Standing(), TCP, since_start_s=s) <= 0.2 for s in (0.1, 1.0, 4.9))
    assert 10 == pause_s(Standing(), TCP, since_start_s=5.0)
    assert 10 == pause_s(Standing(healthy=True), TCP, since_start_s=0.1)


@pytest.mark.parametrize(
    ("given_", "kind"),
    [
        ({"type": "HTTP", "http": {"port": 1}}, "HTTP"),
        ({"http": {"port": 1}}, "HTTP"),
        ({"type": "TCP", "tcp": {"port": 1}}, "TCP"),
        ({"type": "COMMAND", "command": {"value": "x"}}, "COMMAND"),
        ({"type": "TCP", "http": {"port": 1}}, ""),
        ({}, ""),
    ],
)
def test_a_check_is_what_its_type_says_and_has(given_: dict[str, object], kind: str):
    """Frameworks of old leave the type out."""
    assert kind == tasks.read(HealthCheck, given_, place="health_check").kind()


# --- users -------------------------------------------------------------------------------------------------------

ROOT_AGENT = users.Agent(own_name="root", is_root=True)
SUDO_AGENT = users.Agent(own_name="root", is_root=True, sudo_user="ann")
OPEN_AGENT = users.Agent(own_name="root", is_root=True, allow_root_tasks=True)
ANNS_AGENT = users.Agent(own_name="ann", is_root=False)


@pytest.mark.parametrize(
    ("agent", "command_user", "framework_user", "expected"),
    [
        (ROOT_AGENT, "", "", "nobody"),
        (ROOT_AGENT, "", "root", "nobody"),
        (ROOT_AGENT, "", "www", "www"),
        (ROOT_AGENT, "www", "ann", "www"),
        (SUDO_AGENT, "", "root", "ann"),
        (users.Agent(own_name="root", is_root=True, sudo_user="root"), "", "", "nobody"),
        (users.Agent(own_name="root", is_root=True, sudo_user="ann", task_user="jobs"), "", "", "jobs"),
        (users.Agent(own_name="root", is_root=True, task_user="root"), "", "", "nobody"),
        (OPEN_AGENT, "root", "", "root"),
        (OPEN_AGENT, "", "root", "root"),
        (OPEN_AGENT, "", "", "nobody"),
        (ANNS_AGENT, "", "root", "ann"),
        (ANNS_AGENT, "ann", "", "ann"),
    ],
)
def test_as_whom_a_task_runs(agent: users.Agent, command_user: str, framework_user: str, expected: str):
    """The task's user, else SUDO_USER, else nobody; never root unless the agent was told so."""
    assert expected == users.choose(agent, command_user=command_user, framework_user=framework_user)


def test_a_commands_own_root_is_refused():
    """It is a demand: the task would fail in ways of its own as somebody else."""
    with pytest.raises(Refused, match=r"'root'.*no task as root.*allow_root_tasks"):
        users.choose(ROOT_AGENT, command_user="root", framework_user="ann")


@pytest.mark.parametrize(
    ("agent", "command_user", "framework_user", "words"),
    [
        (ROOT_AGENT, "", "root", "no task as root (setting allow_root_tasks); the task runs as 'nobody'"),
        (ROOT_AGENT, "bob", "root", ""),
        (ROOT_AGENT, "", "bob", ""),
        (ROOT_AGENT, "", "", ""),
        (OPEN_AGENT, "", "root", ""),
        (ANNS_AGENT, "", "root", "not root; the task runs as 'ann'"),
        (ANNS_AGENT, "", "ann", ""),
    ],
)
def test_a_frameworks_user_that_is_not_taken_is_told(
    agent: users.Agent, command_user: str, framework_user: str, words: str
):
    """Drivers send whoever runs them, so it is a wish; never dropped in silence."""
    told = users.warning(agent, command_user=command_user, framework_user=framework_user)

    assert told.endswith(words)
    assert bool(words) == bool(told)


def test_an_agent_that_is_not_root_refuses_another_user():
    """With both names in the reason."""
    with pytest.raises(Refused, match=r"'bob'.*not root.*'ann' only"):
        users.choose(ANNS_AGENT, command_user="bob", framework_user="")


# --- resolv.conf -------------------------------------------------------------------------------------------------


def test_our_name_server_comes_first_and_the_machines_stay():
    """Search and options too; libc reads three servers, and `rotate` would skip ours."""
    machine = "# x\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch a b\noptions rotate ndots:2\n"
    lines = resolving.own_text(machine, address="127.0.53.53").splitlines()[1:]

    assert [
        "nameserver 127.0.53.53",
        "nameserver 10.0.0.1",
        "nameserver 10.0.0.2",
        "search a b",
        "options ndots:2",
    ] == lines


def test_a_machine_without_name_servers_has_libcs_own():
    """None given means 127.0.0.1."""
    assert resolving.own_text("options rotate\n", address="127.0.53.53").splitlines()[1:] == [
        "nameserver 127.0.53.53",
        "nameserver 127.0.0.1",
    ]


@pytest.mark.parametrize(
    ("nsswitch", "nscd", "word"),
    [
        ("hosts: files dns\n", False, ""),
        ("", False, ""),
        ("hosts: files mdns4_minimal [NOTFOUND=return] dns # resolve\n", False, ""),
        ("hosts: files resolve [!UNAVAIL=return] dns\n", False, "systemd-resolved"),
        ("hosts: files dns resolve\n", False, ""),
        ("hosts: files\n", False, "no dns"),
        ("hosts: files dns\n", True, "nscd"),
    ],
)
def test_what_bypasses_resolv_conf_is_named(nsswitch: str, nscd: bool, word: str):
    """libc would never ask our server: then the file is left alone."""
    why = resolving.bypass(nsswitch, name_cache_runs=nscd)

    assert bool(word) == bool(why)
    assert word in why


def test_any_reply_to_our_query_is_an_answer():
    """REFUSED too; another id, a query, a torn packet are none."""
    query = resolving.query(0x1234)
    reply = query[:2] + b"\x81\x05" + query[4:]

    assert resolving.is_answer(reply, query_id=0x1234)
    assert not any(resolving.is_answer(data, query_id=0x1234) for data in (query, reply[:11], b"\0\0" + reply[2:]))


# --- tasks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (Uri(value="/a/b.txt"), [("cp", "-L", "--", "/a/b.txt", "./b.txt")]),
        (Uri(value="file:///a/b%20c"), [("cp", "-L", "--", "/a/b c", "./b c")]),
        (Uri(value="file://localhost/a/b", output_file="x"), [("cp", "-L", "--", "/a/b", "./x")]),
        (Uri(value="/a/b.sh", executable=True), [("cp", "-L", "--", "/a/b.sh", "./b.sh"), ("chmod", "755", "./b.sh")]),
        (Uri(value="/a/b.tgz"), [("cp", "-L", "--", "/a/b.tgz", "./b.tgz"), ("tar", "-xf", "./b.tgz")]),
        (Uri(value="/a/b.tgz", extract=False), [("cp", "-L", "--", "/a/b.tgz", "./b.tgz")]),
    ],
)
def test_how_a_file_is_fetched(uri: Uri, expected: list[tuple[str, ...]]):
    """Copied, made executable or unpacked, by commands that run as the task's user."""
    assert expected == steps(uri)


@pytest.mark.parametrize(
    "uri",
    [
        Uri(value="http://x/y"),
        Uri(value="relative"),
        Uri(value="file://host/x"),
        Uri(value="/a/"),
        Uri(value="/a/b", output_file="../b"),
        Uri(value="/a/b", output_file=".."),
    ],
)
def test_what_is_not_fetched(uri: Uri):
    """Other machines' files, names that leave the sandbox."""
    with pytest.raises(Refused, match="uri"):
        steps(uri)


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a\\b", "a\nb", "x" * 256])
def test_ids_that_are_no_folder_names_are_refused(bad: str):
    """Mesos' rules."""
    assert tasks.bad_id(bad)
    assert not tasks.bad_id("shop_web.instance-1._app.1")


def test_a_malformed_task_is_refused_with_the_path_of_the_field():
    """As a person would look it up."""
    with pytest.raises(Refused, match=r"task\.command\.uris\[0\]\.value: Expected `str`"):
        tasks.read(tasks.Task, {"task_id": {"value": "t"}, "command": {"uris": [{"value": 1}]}}, place="task")


def test_the_environment_gives_mesos_names_the_last_word():
    """A framework cannot forge its sandbox or id; it can set everything else."""
    variables = tuple(tasks.Variable(name=n, value="x") for n in ("MESOS_SANDBOX", "PATH", "FOO"))
    command = tasks.Command(value="true", environment=tasks.Environment(variables=variables))
    environment = tasks.environment(command, task_id="t", sandbox="/s", home_variables={"LANG": "C"})

    assert ("/s", "t", "x", "x", "C") == tuple(
        environment[k] for k in ("MESOS_SANDBOX", "MESOS_TASK_ID", "PATH", "FOO", "LANG")
    )


# --- resources ---------------------------------------------------------------------------------------------------


def test_resources_that_are_not_named_are_detected():
    """Half of a small machine's memory, all but 1 GiB of a larger one's; Mesos' port range."""
    found = inventory.complete("cpus:2", cpus=8, mem_mb=16384, disk_mb=8000)

    assert (2, 15360, 4000) == (found.total("cpus"), found.total("mem"), found.total("disk"))
    assert resources.parse("ports:[31000-32000]").ports() == found.ports()


def test_attributes_are_numbers_or_text():
    """As Mesos parses them."""
    assert (
        {"name": "level", "type": "SCALAR", "scalar": {"value": 0.5}},
        {"name": "rack", "type": "TEXT", "text": {"value": "r1"}},
    ) == inventory.attributes({"rack": "r1", "level": "0.5"})

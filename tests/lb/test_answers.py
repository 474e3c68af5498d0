"""What HAProxy 2.6.12 says, read; and a balancer's progress from it."""

import pytest

from fairlead_daemon.errors import BadSettings, Unavailable
from fairlead_discovery.records import Leaving, Progress, Reason
from fairlead_lb.adapters.socket_cli import LINE_LIMIT_BYTES, chunks
from fairlead_lb.decisions import answers, limits, pace, picture
from fairlead_lb.decisions.answers import Processes
from fairlead_lb.decisions.progress import Session, progress
from fairlead_lb.decisions.values import Admin, Frame, Picture, Shape, Slot, Structure
from fairlead_lb.settings import LbSettings, frame, service_ports

PROC = """#<PID>          <type>          <reloads>       <uptime>        <version>
10809           master          2 [failed: 1]   0d00h00m49s     2.6.12-1+deb12u4
# workers
11824           worker          0               0d00h00m00s     2.6.12-1+deb12u4
# old workers
11465           worker          1               0d00h00m21s     2.6.12-1+deb12u4
# programs

"""
STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
5 a_1 1 s1 127.0.0.1 2 4 100 100 1 15 3 3 6 0 0 0 - 19201 - 0 0 - - 0
5 a_1 2 s2 127.0.0.1 0 5 100 100 1 1 0 0 14 0 0 0 - 1 - 0 0 - - 0
5 a_1 3 s3 10.0.0.9 2 12 50 100 0 1 0 1 6 0 0 0 - 80 - 0 0 - - 0
"""
CONN = """# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb idle_lim idle_cur idle_per_thr[2]
a_1/s1 5/1 127.0.0.1 19201 - 5000 3 6 6 0 0 -1 1 0 0
a_1/s2 5/2 127.0.0.1 1 - 5000 0 0 0 0 0 -1 0 0 0
"""


def test_show_proc():
    """Master, the serving worker, old ones, failed reloads."""
    assert Processes(master=10809, worker=11824, old=(11465,), reloads=2, failed=1) == answers.processes(PROC)
    with pytest.raises(Unavailable):
        answers.processes("")


def test_who_serves_on_after_a_failed_reload_is_called_old_from_3_1_on():
    """It is the youngest of them; who finishes sessions is older."""
    told = (
        "#<PID>          <type>          <reloads>       <uptime>        <version>\n"
        "3383            master          3 [failed: 1]   0d00h00m01s     3.2.26-1\n# workers\n# old workers\n"
        "3385            worker          3               0d00h00m09s     3.2.26-1\n"
        "3420            worker          1               0d00h00m00s     3.2.26-1\n"
    )

    assert Processes(master=3383, worker=3420, old=(3385,), reloads=3, failed=1) == answers.processes(told)


def test_show_servers_state():
    """A server from a disabled line keeps flag 4 when it is ready; drained, it keeps it too."""
    expected = {
        "s1": Slot(host="127.0.0.1", port=19201, admin=Admin.READY, up=True),
        "s2": Slot(admin=Admin.MAINT),
        "s3": Slot(host="10.0.0.9", port=80, admin=Admin.DRAIN, weight=50, up=True),
    }
    assert {"a_1": expected} == answers.servers_state(STATE)


def test_connections_are_the_larger_count():
    """A TCP service's stand in `show stat` only."""
    stat = "# pxname,svname,qcur,qmax,scur,smax\na_1,s1,0,0,2,6\na_1,s2,0,0,1,1\n"

    assert {("a_1", "s1"): 3, ("a_1", "s2"): 1} == answers.connections([CONN, stat])


def test_slots_without_connections_are_not_among_the_busy():
    """Most of thousands have none."""
    stat = "# pxname,svname,qcur,qmax,scur,smax\na_1,s1,0,0,2,6\na_1,s2,0,0,0,1\n"

    assert {("a_1", "s1"): 3} == answers.busy([stat, CONN])
    assert {} == answers.busy([])


def test_slots_that_are_alike_are_one_object():
    """Of 28,000 slots 18,000 are empty; how long they have been so is nobody's concern."""
    first, later = (answers.servers_state(text)["a_1"] for text in (STATE, STATE.replace(" 100 1 ", " 100 9 ")))

    assert all(slot is later[name] for name, slot in first.items())
    assert answers.servers_state("") == answers.servers_state("1\n") == {}


def test_answers_are_told_apart_by_empty_lines():
    """A silent success counts as one too."""
    assert ["", "No such server.", "a\nb"] == answers.split("\nNo such server.\n\na\nb\n\n")


def test_commands_are_cut_into_lines_haproxy_takes():
    """In order, none lost, none over the limit."""
    commands = [f"set server backend/s{n} state ready" for n in range(2000)]
    found = chunks(commands)

    assert commands == [c for chunk in found for c in chunk]
    assert all(len(";".join(chunk)) <= LINE_LIMIT_BYTES for chunk in found)


def leaving(*tasks: str, service: str = "s") -> dict[str, Leaving]:
    return {t: Leaving(task=t, service=service, member="m", reason=Reason.KILL, deadline_s=0) for t in tasks}


def test_busy_are_leaving_tasks_with_sessions():
    """Over all workers; a task that does not leave is nobody's business."""
    sessions = [Session(service="s", task="a", used=1), Session(service="s", task="b", used=0)]
    more = [Session(service="s", task="c", used=5)]

    assert Progress(applied_revision=7, busy=("a",)) == progress(7, leaving("a", "b"), sessions + more)


def test_sessions_of_an_unknown_task_make_all_leaving_tasks_of_its_service_busy():
    """Rather a kill too late than a request cut."""
    unknown = [Session(service="s", task="", used=1)]

    assert ("a", "b") == progress(7, leaving("a", "b") | leaving("c", service="t"), unknown).busy


def test_of_many_busy_tasks_a_thousand_are_named():
    """The rest is said to be there."""
    found = progress(1, leaving(*map(str, range(1200))), [Session(service="s", task="", used=1)])

    assert (1000, True) == (len(found.busy), found.busy_more)


def test_fewer_connections_where_open_files_are_limited():
    """Listeners and checked slots come first; with next to nothing left the start is refused."""
    structure = Structure(frame=Frame(folder="/x", sockets="/x"), binds=((10100, 10199),), shapes={"b": Shape()})
    made = Picture(structure=structure, slots={"b": {}})

    assert 4096 == limits.connections(made, 4096, hard_limit=20_000)
    assert 349 == limits.connections(made, 4096, hard_limit=1_000)
    with pytest.raises(BadSettings, match="max_connections"):
        limits.connections(made, 4096, hard_limit=400)


def test_ports_become_ranges():
    """Taken ones leave holes."""
    assert ((1, 3), (5, 5), (7, 8)) == picture.ranges({8, 1, 2, 3, 5, 7})


def test_writing_what_is_served_takes_little_of_a_core():
    """Once a second at most for a few services, and never more than one part in a hundred of the time."""
    assert [1.0, 5.0, 10.0] == [pace.save_pause_s(took_s) for took_s in (0.001, 0.05, 3.0)]


@pytest.mark.parametrize(("most", "ended"), [(0, ()), (1, (7, 5)), (2, (7,)), (3, ()), (9, ())])
def test_the_oldest_workers_are_those_that_are_too_many(most: int, ended: tuple[int, ...]):
    """By the reloads they have lived through, in whatever order HAProxy names them."""
    lines = "".join(f"{pid} worker {reloads} 0d00h00m21s 2.6.12\n" for pid, reloads in ((5, 2), (7, 9), (6, 1)))
    found = answers.processes(
        PROC.replace("11465           worker          1               0d00h00m21s     2.6.12-1+deb12u4\n", lines)
    )

    assert (7, 5, 6) == found.old
    assert ended == answers.too_many(found.old, most)


def test_reloads_slow_down_while_old_workers_pile_up():
    """Half a second at first, ten at most."""
    pauses = [pace.reload_pause_s(n) for n in range(12)]

    assert (0.5, 10.0) == (pauses[0], pauses[-1])
    assert pauses == sorted(pauses)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"data_dir": "/srv/with blank"}, "data_dir"),
        ({"data_dir": "/srv/" + "x" * 90}, "data_dir"),
        ({"bind": "localhost"}, "bind"),
        ({"http_port": 0}, "http_port"),
    ],
)
def test_bad_settings_name_their_key(settings: dict[str, object], key: str):
    """And say why."""
    with pytest.raises(BadSettings, match=f"^{key}: "):
        frame(LbSettings(**settings))


@pytest.mark.parametrize("text", ["10999-10100", "10100", "0-5", "1-70000", "a-b"])
def test_a_bad_range_of_service_ports_is_named(text: str):
    """As it is expected."""
    with pytest.raises(BadSettings, match=r"^service_ports: "):
        service_ports(LbSettings(service_ports=text))


@pytest.mark.parametrize(
    ("said", "objection"),
    [
        ("", ""),
        ("[4]: no need to change the addr, port changed from '1' to '2' by 'stats socket command'", ""),
        (
            "[4]: Invalid addr '300.1.1.1' by 'stats socket command'",
            "Invalid addr '300.1.1.1' by 'stats socket command'",
        ),
        ("[3]: No such server.", "No such server."),
        ("[6]: Unknown command, but maybe one of the following", "Unknown command, but maybe one of the following"),
        ("[6]: New version created: 1", ""),
        ("Permission denied", "Permission denied"),
    ],
)
def test_what_haproxy_has_against_a_command_is_told_by_its_severity(said: str, objection: str):
    """As 2.6 and 3.0 say it after `set severity-output number`."""
    assert objection == answers.objection(said)

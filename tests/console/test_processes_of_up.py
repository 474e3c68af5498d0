"""What `up` does to real processes, ports and files, each part by itself."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead_console.addresses import Addresses
from fairlead_console.decisions.ports import Need
from fairlead_console.decisions.wanted import Place, plan
from fairlead_console.up import children, record
from fairlead_console.up.ending import KEEPER, end_everything
from fairlead_console.up.lock import Lock
from fairlead_console.up.preflight import absolute, check_ports, check_reachable
from fairlead_console.up.run import prepare
from fairlead_console.up.screen import Screen
from fairlead_console.up.settings import UpSettings
from fairlead_daemon.errors import BadSettings, Conflict
from fairlead_daemon.processes import Identity, alive, identify
from fairlead_daemon.settings import convert
from harness.house import House
from harness.waiting import wait_until

SLEEPER = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.{}); print('up', flush=True); time.sleep(60)"


def sleeper(*words: str, at_term: str = "SIG_DFL") -> "subprocess.Popen[str]":
    """A process with `words` in its command line, once it runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER.format(at_term), *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Looks like a master that a predecessor started for this data directory."""
    process = sleeper("--config", f"{tmp_path}/etc/master.toml")
    yield process
    process.kill()
    process.wait()


def test_a_predecessors_daemon_is_found_by_its_command_line(tmp_path: Path, daemon: "subprocess.Popen[str]"):
    """Also when the predecessor was killed before it could write the pid down."""
    assert [("master", identify(daemon.pid))] == record.running(tmp_path)


def test_daemons_of_another_data_directory_are_none_of_ours(tmp_path: Path, daemon: "subprocess.Popen[str]"):
    """Several houses stand side by side."""
    assert [] == record.running(tmp_path / "other")


def test_the_record_is_pid_and_start_time_by_name(tmp_path: Path):
    """What people and tests read, replaced whole."""
    record.write(tmp_path, {"master": Identity(12, 345)})

    assert {"master": {"pid": 12, "start_ticks": 345}} == json.loads((tmp_path / "processes.json").read_text())
    assert {"master": Identity(12, 345)} == record.read(tmp_path)


@pytest.mark.parametrize("content", [None, "{", '{"master": 7}'])
def test_a_record_that_cannot_be_read_is_no_record(tmp_path: Path, content: str | None):
    """The process table tells the truth anyway."""
    if content is not None:
        (tmp_path / "processes.json").write_text(content)

    assert {} == record.read(tmp_path)


def test_a_second_up_is_refused_with_the_firsts_pid(tmp_path: Path):
    """And may start once the first has ended."""
    first = Lock(tmp_path)

    with pytest.raises(Conflict, match=rf"another `fairlead up` \(pid {os.getpid()}\) runs on this data directory"):
        Lock(tmp_path)
    first.release()
    Lock(tmp_path).release()


def test_the_lock_of_a_killed_up_is_free(tmp_path: Path):
    """However it died; daemons it started do not hold it."""
    script = (
        "import sys, time, subprocess\nfrom pathlib import Path\nfrom fairlead_console.up.lock import Lock\n"
        "lock = Lock(Path(sys.argv[1]))\nchild = subprocess.Popen(['sleep', '30'])\nprint(child.pid, flush=True)\ntime.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    with pytest.raises(Conflict):
        Lock(tmp_path)

    holder.kill()
    holder.wait()
    try:
        Lock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_daemon_ends_when_asked():
    """In order, without being killed."""
    process = sleeper()

    assert await children.end(identify(process.pid))
    assert -signal.SIGTERM == process.wait()


async def test_a_daemon_that_does_not_end_is_killed():
    """And it is said."""
    process = sleeper(at_term="SIG_IGN")

    assert not await children.end(identify(process.pid), grace_s=0.2)
    assert -signal.SIGKILL == process.wait()


async def test_ending_what_is_gone_is_well(daemon: "subprocess.Popen[str]"):
    """Its pid may be someone else's by now: that one is left alone."""
    stale = Identity(daemon.pid, 1)

    assert await children.end(stale)
    assert alive(identify(daemon.pid))


async def test_the_end_of_someone_elses_child_is_seen(daemon: "subprocess.Popen[str]"):
    """Daemons a killed `up` left behind are nobody's children."""
    waiting = asyncio.create_task(children.gone(identify(daemon.pid)))
    await asyncio.sleep(0)
    assert not waiting.done()

    daemon.kill()
    async with asyncio.timeout(5):
        await waiting


async def test_a_started_daemon_is_in_a_session_of_its_own_and_logs_to_its_file(tmp_path: Path):
    """It outlives us and holds no pipe of ours; here it ends at once, for its settings are missing."""
    child = children.start("master", "master", data_dir=tmp_path)
    code = await child.ended()

    assert 2 == code
    assert "master.toml" in children.last_line(tmp_path, "master")


def test_logs_do_not_grow_for_ever(tmp_path: Path):
    """A big one is put aside at the next start."""
    log = tmp_path / "log" / "x.log"
    log.parent.mkdir()
    with log.open("wb") as stream:
        stream.truncate(children.LOG_LIMIT_BYTES + 1)
    children._rotate(log)

    assert [tmp_path / "log" / "x.log.1"] == list(log.parent.iterdir())


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


OTHER_HOUSE = """
set -e
mount --rbind / "$1"; mount -t tmpfs none "$1$2"; mkdir "$1$2/data"
root=$1; shift 2; exec chroot "$root" "$@"
"""


def house_of_sleepers(data: Path, *before: str) -> "list[subprocess.Popen[str]]":
    """What `up` leaves when it is killed: a daemon, HAProxy, a keeper and a task, by command line and environment."""
    shapes = (
        ("--config", f"{data}/etc/master.toml"),
        ("-f", f"{data}/lb/haproxy.cfg"),
        ("-m", KEEPER, f"{data}/agent-1"),
        ("task",),
    )
    started = []
    for words in shapes:
        name = "haproxy" if words[0] == "-f" else "python"
        environment = {**os.environ, "MESOS_SANDBOX": f"{data}/agent-1/x"} if words[0] == "task" else None
        python = f'exec -a {name} {sys.executable} -c "$0" "$@"'
        command = [*before, "bash", "-c", python, SLEEPER.format("SIG_DFL"), *words]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    for process in started:
        assert process.stdout is not None
        assert "up\n" == process.stdout.readline()
    return started


@pytest.mark.skipif(os.geteuid() != 0, reason="another root directory needs root")
async def test_the_end_of_one_house_leaves_that_of_a_container_alone(short_dir: Path, capsys):
    """The same data directory's path in another mount namespace: its keeper, tasks, daemons and HAProxy run on."""
    data, root = short_dir / "data", short_dir / "root"
    for folder in (data, root):
        folder.mkdir()
    ours = house_of_sleepers(data)
    theirs = house_of_sleepers(data, "unshare", "--mount", "sh", "-c", OTHER_HOUSE, "sh", str(root), str(short_dir))
    try:
        assert ["master"] == [name for name, _ in record.running(data)]
        await end_everything({}, Addresses(data_dir=str(data), lb=""), Screen())

        wait_until("ours have ended", lambda: all(p.poll() is not None for p in ours), within_s=5)
        assert [None] * 4 == [p.poll() for p in theirs]
    finally:
        for process in (*ours, *theirs):
            process.kill()
            process.wait()


def test_a_busy_port_names_its_option(tmp_path: Path, taken: int):
    """So that a person knows which one to move."""
    need = Need(option="master_port", address="127.0.0.1", port=taken)
    with pytest.raises(BadSettings, match=rf"^master_port: cannot listen on 127.0.0.1:{taken}: in use"):
        check_ports([need], data_dir=tmp_path)


def test_a_busy_udp_port_is_seen(tmp_path: Path):
    """DNS needs both."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        need = Need(option="dns_port", address="127.0.0.1", port=port, udp=True)

        with pytest.raises(BadSettings, match=rf"^dns_port: cannot listen on 127.0.0.1:{port}/udp: in use"):
            check_ports([need], data_dir=tmp_path)


SERVER = "import socket, sys, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(60)"


@pytest.mark.parametrize("ours", [True, False])
def test_a_port_that_our_own_predecessor_holds_is_handed_over(tmp_path: Path, ours: bool):
    """HAProxy and daemons name the data directory in their command line; whoever else holds it is named."""
    words = [f"{tmp_path}/lb/haproxy.cfg"] if ours else []
    holder = subprocess.Popen([sys.executable, "-c", SERVER, *words], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    need = Need(option="lb_http_port", address="127.0.0.1", port=int(holder.stdout.readline()))
    try:
        if ours:
            check_ports([need], data_dir=tmp_path)
        else:
            with pytest.raises(BadSettings, match=rf"in use by pid {holder.pid} \(python"):
                check_ports([need], data_dir=tmp_path)
    finally:
        holder.kill()
        holder.wait()


def test_the_same_port_at_another_address_is_none_of_our_business(tmp_path: Path):
    """Port 53 of another house's address: only who holds ours counts."""
    words = [sys.executable, "-c", SERVER.replace("127.0.0.1", "127.9.9.9")]
    other = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    port = int(other.stdout.readline())
    words = [sys.executable, "-c", SERVER.replace("0))", f"{port}))"), f"{tmp_path}/ours"]
    ours = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert ours.stdout is not None
    ours.stdout.readline()
    try:
        check_ports([Need(option="dns_address", address="127.0.0.1", port=port)], data_dir=tmp_path)
    finally:
        for process in (other, ours):
            process.kill()
            process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs tasks as someone else")
def test_a_data_directory_the_tasks_cannot_enter_is_refused(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder in the way is named, with what to do."""
    monkeypatch.delenv("SUDO_USER", raising=False)
    (short_dir / "closed").mkdir(mode=0o700)

    with pytest.raises(BadSettings, match=rf"user nobody.* cannot enter {short_dir}/closed; chmod o\+x"):
        check_reachable(short_dir / "closed" / "data")
    check_reachable(short_dir / "open" / "data")


def test_a_data_directory_is_absolute_and_plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """It stands in many files and command lines."""
    monkeypatch.chdir(tmp_path)

    assert tmp_path / "x" == absolute("x")
    with pytest.raises(BadSettings, match=r"^data_dir: "):
        absolute("with blank")


def up(config: Path) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "fairlead_console", "up", "--config", str(config)]
    return subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)


def test_up_with_a_busy_port_starts_nothing(short_dir: Path, taken: int):
    """Exit 2, one line, no process, no log."""
    house = House(short_dir, services_port=taken)
    done = up(house.config)

    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert f"services_port: cannot listen on 127.0.0.1:{taken}" in done.stderr
    assert not (short_dir / "data" / "log").exists()


def test_up_with_an_unknown_key_starts_nothing(short_dir: Path):
    """Exit 2, the key named."""
    config = short_dir / "up.toml"
    config.write_text(f'data_dir = "{short_dir}/d"\nport = 1\n')
    done = up(config)

    assert (2, f"fairlead: {config}: port: unknown key\n") == (done.returncode, done.stderr)


def test_a_key_that_a_daemon_would_refuse_is_refused_before_the_start(short_dir: Path):
    """Exit 2, the table and the key named."""
    config = short_dir / "up.toml"
    config.write_text(f'data_dir = "{short_dir}/d"\n[settings.master]\nprot = 1\n')
    done = up(config)

    assert (2, "fairlead: settings.master: prot: unknown key\n") == (done.returncode, done.stderr)


def test_a_reader_that_has_enough_does_not_end_up(tmp_path: Path):
    """`fairlead up | head`: the lines go nowhere, the house stands on."""
    script = (
        "import sys; from fairlead_console.up.screen import Screen; screen = Screen()\n"
        "for _ in range(20000): screen.step('master', 'ready')\n"
        "print('on', file=sys.stderr)"
    )
    words = f'{sys.executable} -c "{script}" | head -1'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", words], capture_output=True, text=True, check=False)

    assert (0, "on\n", 1) == (done.returncode, done.stderr, len(done.stdout.splitlines()))


def test_a_second_up_is_refused_before_it_touches_anything(short_dir: Path):
    """Exit 1, naming who runs."""
    (short_dir / "d").mkdir()
    held = Lock(short_dir / "d")
    config = short_dir / "up.toml"
    config.write_text(f'data_dir = "{short_dir}/d"\n')
    done = up(config)
    held.release()

    assert 1 == done.returncode
    assert f"another `fairlead up` (pid {os.getpid()}) runs" in done.stderr
    wait_until("nothing was started", lambda: not record.running(short_dir / "d"), within_s=1)


@pytest.mark.parametrize(("token", "there"), [("on", True), ("off", False)])
def test_the_token_is_made_before_any_daemon_could_make_its_own(short_dir: Path, token: str, there: bool):
    """Readable by its owner alone; the addresses beside it by everyone."""
    settings = convert(UpSettings, {"token": token}, where="up")
    prepare(settings, plan(settings, Place(data_dir=short_dir, hostname="box", root=False, haproxy=True)), short_dir)
    file = short_dir / "token"

    assert there == file.exists()
    assert not there or 0o600 == file.stat().st_mode & 0o777
    assert "http://127.0.0.1:8080" == json.loads((short_dir / "addresses.json").read_text())["services"]

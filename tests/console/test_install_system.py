"""scripts/install-system with a pretended apt: no service starts, and the machine's own policy is as it was."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "install-system"
OWN = "#!/bin/sh\n# the administrator's\nexit 0\n"
APT = """#!/bin/sh
echo "apt-get $*" >>"$LOG"
case "$*" in install*) "$POLICY_RC_D"; echo "policy says $?" >>"$LOG";; esac
case "$*" in install*) [ ! -e "$LOG.fail" ] || { rm "$LOG.fail"; exit 100; };; esac
"""
SYSTEMCTL = '#!/bin/sh\necho "systemctl $*" >>"$LOG"\n'
DPKG = "#!/bin/sh\necho /lib/systemd/system/$2.service\n"


class Machine:
    """Programs that write down what they were asked; `missing` are packages that are not installed."""

    def __init__(self, folder: Path, missing: set[str]) -> None:
        self.policy, self.log = folder / "policy-rc.d", folder / "log"
        self.folder = folder
        present = " ".join(sorted({"python3", "python3-venv", "haproxy"} - missing))
        query = f'for name in {present} none; do [ "$4" != "$name" ] || echo "install ok installed"; done\n'
        programs = {"apt-get": APT, "systemctl": SYSTEMCTL, "dpkg": DPKG, "dpkg-query": "#!/bin/sh\n" + query}
        for name, text in programs.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def install(self) -> int:
        env = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"}
        env |= {"POLICY_RC_D": str(self.policy), "LOG": str(self.log)}
        return subprocess.run([SCRIPT, "run"], env=env, capture_output=True, check=False).returncode

    def done(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="without root it would ask sudo")


def test_nothing_missing_asks_apt_for_nothing(tmp_path: Path):
    """A second run is instant."""
    machine = Machine(tmp_path, set())

    assert 0 == machine.install()
    assert [] == machine.done()


def test_only_what_is_missing_is_installed_and_none_of_it_starts(tmp_path: Path):
    """Neither now (policy-rc.d says 101) nor at the next boot (its unit is disabled)."""
    machine = Machine(tmp_path, {"haproxy"})

    assert 0 == machine.install()
    assert [
        "apt-get install -y -q --no-install-recommends haproxy",
        "policy says 101",
        "systemctl disable -q haproxy.service",
    ] == machine.done()
    assert not machine.policy.exists()


@pytest.mark.parametrize("apt_fails", [False, True])
def test_the_machines_own_policy_is_put_back(tmp_path: Path, apt_fails: bool):
    """Whatever happens meanwhile; a failed installation is tried once more with fresh lists."""
    machine = Machine(tmp_path, {"haproxy"})
    machine.policy.write_text(OWN)
    machine.policy.chmod(0o755)
    if apt_fails:
        Path(f"{machine.log}.fail").touch()

    assert 0 == machine.install()
    assert OWN == machine.policy.read_text()
    assert {"policy says 101"} == {line for line in machine.done() if line.startswith("policy")}
    assert apt_fails == ("apt-get update -q" in machine.done())


def test_what_a_killed_installation_left_is_tidied(tmp_path: Path):
    """Its policy is replaced by the machine's own again."""
    machine = Machine(tmp_path, {"haproxy"})
    machine.policy.write_text("#!/bin/sh\n# written by fairlead's install-system\nexit 101\n")
    Path(f"{machine.policy}.before-fairlead").write_text(OWN)

    assert 0 == machine.install()
    assert OWN == machine.policy.read_text()
    assert not Path(f"{machine.policy}.before-fairlead").exists()

"""Minutes of coverage-guided fuzzing: `make soak`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.names import member, names, opt, option, query, raw_reply

SECONDS = int(os.environ.get("FUZZ_SECONDS", "120"))
MEMORY_MB = 700
SLOWEST_S = 5


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
def test_a_fuzzer_finds_nothing(tmp_path: Path) -> None:
    """No exception, no broken rule, no message that takes seconds, no memory that grows."""
    pytest.importorskip("atheris", reason="`make soak` installs it where there is one for this Python")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    cookie = opt(options=option(10, b"abcdefgh") + option(3) + option(11) + option(12, bytes(4)))
    seeds = [query("web.marathon.mesos", opt=cookie), query("_web._tcp.marathon.mesos", "SRV"), query("x.org", "ANY")]
    seeds += [query("mesos", "SOA", flags=code << 11) for code in (4, 5, 15)]
    seeds.append(raw_reply(names(member()).answers, seeds[0]) or b"")
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(bytes((number * 17,)) + seed)
    limits = [f"-max_total_time={SECONDS}", f"-rss_limit_mb={MEMORY_MB}", f"-timeout={SLOWEST_S}", "-max_len=4096"]
    program = Path(__file__).with_name("fuzz_front.py")
    done = subprocess.run(
        [sys.executable, str(program), *limits, f"-artifact_prefix={tmp_path}/", str(corpus)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr[-3000:]

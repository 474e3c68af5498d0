"""A real ZooKeeper: one server of Debian's package, on a private port, killable and restartable with its data."""

import socket
from pathlib import Path

from harness.ports import free_port
from harness.servers import Server, missing, require

JAR = Path("/usr/share/java/zookeeper.jar")
LOGGING = "/usr/share/java/slf4j-simple.jar"
"""Its manifest names no logger: without one a server that cannot start says nothing."""


class ZooKeeper:
    """`hosts` is "127.0.0.1:<port>", `url` what open_registry takes. Memory is kept small: 128 MB."""

    def __init__(self, folder: Path, port: int | None = None, *, host: str = "127.0.0.1") -> None:
        if not JAR.exists():
            missing("zookeeper is not installed")
        self.folder, self.host = folder, host
        self.port = port or free_port()
        (folder / "data").mkdir(parents=True, exist_ok=True)
        config = folder / "zoo.cfg"
        config.write_text(
            f"tickTime=500\ndataDir={folder}/data\nclientPort={self.port}\nclientPortAddress={self.host}\n"
            "maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n"
            "minSessionTimeout=1000\nmaxSessionTimeout=60000\n"
        )
        (folder / "log4j.properties").write_text(
            "log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.out.layout=org.apache.log4j.PatternLayout\nlog4j.appender.out.layout.ConversionPattern=%d %p %m%n\n"
        )
        self.server = Server(
            [
                require("java"),
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp",
                f"{folder}:{JAR}:{LOGGING}",
                "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                str(config),
            ],
            log=folder / "zookeeper.log",
        )

    @property
    def hosts(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"zk://{self.hosts}"

    def start(self) -> "ZooKeeper":
        self.server.start()
        self.server.wait_ready("ZooKeeper", lambda: self.command("ruok") == "imok", within_s=30)
        return self

    def command(self, word: str) -> str:
        """A four-letter word's answer, "" when it does not answer."""
        with socket.create_connection((self.host, self.port), timeout=2) as link:
            link.sendall(word.encode())
            parts = []
            while part := link.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()

    def pause(self) -> None:
        self.server.pause()

    def resume(self) -> None:
        self.server.resume()

    def kill(self) -> None:
        self.server.kill()

    def stop(self) -> None:
        self.server.stop()

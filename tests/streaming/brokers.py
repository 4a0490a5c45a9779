"""Mosquitto for tests: a broker of one test, on a port of its own."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

# Debian keeps servers where a user's PATH does not look.
PROGRAM = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
needs_broker = pytest.mark.skipif(
    PROGRAM is None, reason="needs mosquitto (Debian package mosquitto)"
)


class Broker:
    """A broker in `folder`, started at once; `lines` are more of its configuration."""

    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.config = folder / "mosquitto.conf"
        # Started by root it would become another user, who may not read what is in `folder`.
        wanted = [f"listener {self.port} 127.0.0.1", f"user {getpass.getuser()}", *lines]
        if not any("allow_anonymous" in line for line in lines):
            wanted.append("allow_anonymous true")
        self.config.write_text("\n".join(wanted) + "\n")
        self.log = (folder / "mosquitto.log").open("wb")
        self.start()

    def start(self) -> None:
        assert PROGRAM is not None
        self.process = subprocess.Popen(
            [PROGRAM, "-c", str(self.config)], stdout=self.log, stderr=self.log
        )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        self.__exit__()
        raise AssertionError(f"mosquitto did not start: {Path(self.log.name).read_text()}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def wait_for(self, words: str) -> None:
        """Until the log, which needs the line `log_type all`, has these words."""
        until = time.monotonic() + 60
        while words not in Path(self.log.name).read_text():
            assert time.monotonic() < until, Path(self.log.name).read_text()
            time.sleep(0.05)

    def url(self, topic: str, more: str = "") -> str:
        return f"mqtt://127.0.0.1:{self.port}/{topic}{more}"

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()
        self.log.close()

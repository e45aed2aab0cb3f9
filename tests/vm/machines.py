"""Virtual machines for the time of a run: started from an image, spoken to by ssh, and gone afterwards.

What a machine writes is in a file that has no name, so the image stays as it is. It has no network but its
sshd, on a port of 127.0.0.1. Where KVM does not start a stock kernel (some hosts have a /dev/kvm that does
not), the machine is emulated, and its clock counts executed instructions: to itself it is no slower than a
small computer, so that the time-outs of the tests and of the product hold in it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

from tests.vm.images import REPO, Image

PROBE: Final = 15.0
"""Seconds in which a kernel under KVM has printed something, also on a busy host."""
ACCELERATED: Final = ("-accel", "kvm", "-cpu", "host")
EMULATED: Final = ("-accel", "tcg", "-cpu", "max", "-icount", "shift=0,sleep=on")
BOOT: Final = 600.0
"""Seconds for a boot; an emulated machine needs a minute of a processor of its own."""
ANSWER: Final = 120.0
"""Seconds for a login; on a busy host an emulated machine needs half a minute for its cryptography."""
MEMORY: Final = "1536"
COMMAND_LINE: Final = "root=LABEL=root rw console=ttyS0 quiet mitigations=off"
"""There is nobody in the machine to be guarded against, and emulated guards are slow."""


class MachineError(RuntimeError):
    """A machine did not start, or does not answer; the text has the end of its console."""


class Machine:
    """One machine; use as a context manager. It ends after *seconds*, also if this process is killed."""

    def __init__(self, image: Image, kernel: str, seconds: float, console: Path) -> None:
        self.image = image
        self.kernel = kernel
        self.console = console
        self._seconds = seconds
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Machine:
        if self._seconds < 1:  # which `timeout` would take for no limit at all
            raise MachineError(f"{self.kernel}: there is no time left to start it")
        how = acceleration(self.image)
        disk = f"file={self.image.disk},format=raw,if=virtio,snapshot=on"
        network = f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:22"
        self._process = subprocess.Popen(
            [
                *("timeout", "--kill-after=5", str(int(self._seconds)), "nice", "-n", "10"),
                *_qemu(self.image, self.kernel, how, MEMORY, self.console),
                *("-drive", disk, "-netdev", network, "-device", "virtio-net-pci,netdev=n"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.console.with_suffix(".qemu").open("wb"),
            start_new_session=True,
        )
        try:
            self.wait(min(BOOT, self._seconds))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off, as by its plug."""
        if self._process is not None:
            self._process.terminate()  # `timeout` hands the signal on
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(10)
            self._process = None

    def run(self, command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run a command of the shell as root; both its outputs together. Status 124 if the time was up."""
        try:
            return subprocess.run(
                [*self._ssh(), command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as late:
            said = (
                late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
            )
            return subprocess.CompletedProcess(command, 124, f"{said}\nno end after {seconds:.0f} s")

    def run_here(self, command: str, seconds: float, terminal: bool = False) -> int:
        """Run a command that prints to this process' own outputs, or has its terminal; its status, or 124."""
        words = [*self._ssh(), *(["-t"] if terminal else []), command]
        try:
            return subprocess.run(
                words, stdin=None if terminal else subprocess.DEVNULL, timeout=seconds
            ).returncode
        except subprocess.TimeoutExpired:
            return 124

    def put(self, folder: Path, names: bytes, there: str, seconds: float) -> None:
        """Copy the files of *folder* whose *names*, ended by NUL, are given to a folder in the machine."""
        packed = ["tar", "-C", str(folder), "--null", "--files-from=-", "--create", "--gzip"]
        archive = subprocess.run(
            packed, input=names, stdout=subprocess.PIPE, check=True, timeout=seconds
        ).stdout
        unpacked = f"mkdir -p {shlex.quote(there)} && tar -C {shlex.quote(there)} --extract --gzip"
        done = subprocess.run([*self._ssh(), unpacked], input=archive, capture_output=True, timeout=seconds)
        if done.returncode != 0:
            raise MachineError(f"nothing can be copied: {done.stderr.decode(errors='replace')}")

    def reboot(self, seconds: float) -> None:
        """Boot again, as `reboot` does, and wait until it answers."""
        booted = self._boot(seconds)
        # Without waiting: the network may be gone before the connection is closed.
        self.run("systemctl --no-block reboot", ANSWER)
        deadline = time.monotonic() + seconds
        while (now := self._boot(min(ANSWER, seconds))) in ("", booted):
            self._gone(deadline, f"it did not come back in {seconds:.0f} s")
        assert now

    def wait(self, seconds: float = BOOT) -> None:
        """Wait until it answers and has started its services."""
        deadline = time.monotonic() + seconds
        while not self._boot(min(ANSWER, seconds)):
            self._gone(deadline, f"no ssh in {seconds:.0f} s")

    def _boot(self, seconds: float) -> str:
        """A name that is another one after each boot, once the services have started; "" before that."""
        asked = "systemctl is-system-running --wait >/dev/null; cat /proc/sys/kernel/random/boot_id"
        done = self.run(asked, seconds)
        return done.stdout.strip()[-36:] if done.returncode == 0 else ""

    def _gone(self, deadline: float, why: str) -> None:
        """Wait a moment; MachineError if the time is up or the machine has ended."""
        ended = self._process is None or self._process.poll() is not None
        if ended or time.monotonic() > deadline:
            console = self.console.read_text(errors="replace") if self.console.exists() else ""
            last = "".join(f"\n    {line}" for line in console.splitlines()[-8:])
            raise MachineError(f"{self.kernel}: {'it has ended' if ended else why}{last}")
        time.sleep(1.0)

    def _ssh(self) -> list[str]:
        return [
            *("ssh", "-q", "-p", str(self._port), "-i", str(self.image.key), "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "ConnectTimeout=60", "-o", "ServerAliveInterval=60", "-o", "ServerAliveCountMax=10"),
            "root@127.0.0.1",
        ]


def copy_tree(machine: Machine, there: str, seconds: float) -> None:
    """Copy this checkout as it is, with what is not committed, but without what git ignores."""
    listed = ["git", "-C", str(REPO), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, stdout=subprocess.PIPE, check=True).stdout
    there_are = [
        name for name in names.split(b"\0") if name and os.path.lexists(os.path.join(REPO, os.fsdecode(name)))
    ]
    machine.put(REPO, b"".join(name + b"\0" for name in there_are), there, seconds)


@functools.cache
def acceleration(image: Image) -> tuple[str, ...]:
    """Options of qemu: KVM if a stock kernel starts with it, else emulation; VM_ACCEL=kvm or tcg decides."""
    chosen = os.environ.get("VM_ACCEL", "")
    if chosen:
        return ACCELERATED if chosen == "kvm" else EMULATED
    return ACCELERATED if os.access("/dev/kvm", os.R_OK | os.W_OK) and _starts_with_kvm(image) else EMULATED


def _starts_with_kvm(image: Image) -> bool:
    with tempfile.TemporaryDirectory() as place:
        console = Path(place) / "console"
        command = _qemu(image, image.kernels[0], ACCELERATED, "512", console)
        probe = subprocess.Popen(
            ["timeout", "--kill-after=1", str(int(2 * PROBE)), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + PROBE
            while time.monotonic() < deadline and probe.poll() is None:
                if console.exists() and "Linux version" in console.read_text(errors="replace"):
                    return True
                time.sleep(0.1)
            return False
        finally:
            probe.terminate()
            probe.wait()


def _qemu(image: Image, kernel: str, how: tuple[str, ...], memory: str, console: Path) -> list[str]:
    return [
        *("qemu-system-x86_64", *how, "-smp", "1", "-m", memory, "-display", "none", "-monitor", "none"),
        *("-serial", f"file:{console}", "-no-user-config", "-nodefaults", "-device", "virtio-rng-pci"),
        *(
            "-kernel",
            str(image.folder / f"vmlinuz-{kernel}"),
            "-initrd",
            str(image.folder / f"initrd.img-{kernel}"),
        ),
        *("-append", COMMAND_LINE),
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise SystemExit, so that `finally` ends the machines."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    earlier = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

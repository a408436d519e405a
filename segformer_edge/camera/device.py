"""What the machine says of itself: memory of this process, and on a Raspberry Pi temperature and throttling."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Bit of the firmware's get_throttled -> what it means now. The same bits shifted by 16: it has happened since boot.
_THROTTLED = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE_BOOT = 16


@dataclass(frozen=True)
class Throttling:
    """What slows the CPU ``now``, and what did since the board started."""

    now: tuple[str, ...]
    since_boot: tuple[str, ...]


class Device:
    """Reads below ``root``, which is / but in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        #: "Raspberry Pi 4 Model B Rev 1.4", or None on anything else.
        self.pi_model = self._pi_model()
        self._vcgencmd = shutil.which("vcgencmd") if self.pi_model and root == Path("/") else None

    def memory_bytes(self) -> int | None:
        """Resident memory of this process."""
        for line in self._read("proc/self/status").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return None

    def temperature(self) -> float | None:
        """Degrees Celsius of a Pi's processor; None elsewhere."""
        if self.pi_model is None:
            return None
        for zone in self._glob("sys/class/thermal/thermal_zone*"):
            if self._read(zone / "type").strip() in ("cpu-thermal", "cpu_thermal", "bcm2835_thermal"):
                text = self._read(zone / "temp").strip()
                return int(text) / 1000 if text.lstrip("-").isdigit() else None
        return None

    def throttling(self) -> Throttling | None:
        """From the kernel's firmware file, else ``vcgencmd``, else the voltage alarm; None where there is none."""
        if self.pi_model is None:
            return None
        for path in self._glob("sys/devices/platform/soc*/*firmware*/get_throttled"):
            bits = _hexadecimal(self._read(path))
            if bits is not None:
                return _meaning(bits)
        bits = self._ask_firmware()
        if bits is not None:
            return _meaning(bits)
        for folder in self._glob("sys/class/hwmon/hwmon*"):
            if self._read(folder / "name").strip() == "rpi_volt":
                low = self._read(folder / "in0_lcrit_alarm").strip() == "1"
                return Throttling(("under-voltage",) if low else (), ())
        return None

    def _ask_firmware(self) -> int | None:
        if self._vcgencmd is None:
            return None
        try:
            done = subprocess.run(
                [self._vcgencmd, "get_throttled"], capture_output=True, text=True, timeout=2, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return _hexadecimal(done.stdout.partition("=")[2])

    def _pi_model(self) -> str | None:
        model = self._read("proc/device-tree/model").strip("\0 \n")
        return model if "Raspberry Pi" in model else None

    def _glob(self, pattern: str) -> Sequence[Path]:
        return sorted(self._root.glob(pattern))

    def _read(self, path: str | Path) -> str:
        try:
            return (self._root / path).read_text(errors="replace")
        except OSError:
            return ""


def _hexadecimal(text: str) -> int | None:
    try:
        return int(text.strip(), 16)
    except ValueError:
        return None


def _meaning(bits: int) -> Throttling:
    now = tuple(name for bit, name in _THROTTLED.items() if bits >> bit & 1)
    return Throttling(now, tuple(name for bit, name in _THROTTLED.items() if bits >> (bit + _SINCE_BOOT) & 1))

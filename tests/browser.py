"""What tests in a real browser share: how it looks like a phone or in the dark, and what it asked the network for."""

from __future__ import annotations

import json
from typing import Any


def theme(browser: Any, name: str) -> None:
    """What the system prefers: "light" or "dark"."""
    feature = {"name": "prefers-color-scheme", "value": name}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def on_phone(browser: Any, width: int = 360, height: int = 740) -> None:
    """A narrow touch screen."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def requests_of(browser: Any) -> list[str]:
    """Addresses that pages asked for since this was last called, but what they carry in themselves (``data:``)."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    # Not those of the browser's own first tab.
    addresses = [each["request"]["url"] for each in sent if not each["documentURL"].startswith("chrome:")]
    return [address for address in addresses if not address.startswith("data:")]

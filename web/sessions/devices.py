"""What a device is called in the list of one's sessions: a few words that we know, never what it says itself.

A User-Agent names people's own things at times, and is anybody's to make up. So only known words of it are
kept.
"""

from typing import Final

# The first that fits: many programs name those that they wish to pass for, too.
_PROGRAMS: Final = (
    ("MicroMessenger", "WeChat"),
    ("AlipayClient", "Alipay"),
    ("Edg", "Edge"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
    ("Python/", "Python"),
)
_SYSTEMS: Final = (
    ("HarmonyOS", "HarmonyOS"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Macintosh", "macOS"),
    ("Linux", "Linux"),
)


def device_of(user_agent: str | None) -> str:
    """Such as "WeChat, Android"; empty where nothing is known."""
    if not user_agent:
        return ""
    found = (
        next((word for sign, word in known if sign in user_agent), "") for known in (_PROGRAMS, _SYSTEMS)
    )
    return ", ".join(filter(None, found))

"""What a shard does for waiting rooms: doors filled after every step, time that passes, and what happened
there for gateways, who keep copies of the rooms that somebody looks at."""

from collections.abc import Callable, Iterator

from actors.host import Rules
from actors.news import News
from actors.room_host import RoomHost
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.journal.codec import EVENT_CODES, pack_event
from engine.journal.group_commit import Work
from engine.journal.journal import Loaded

Submit = Callable[[str, w.Command], None]
"""Has an actor decide something that nobody waits for."""


class Rooms:
    def __init__(self, rules: Rules, submit: Submit) -> None:
        self._rules = rules
        self._submit = submit

    def host(self, stream: str, loaded: Loaded, now: int) -> RoomHost:
        return RoomHost(RoomKey.of_stream(stream), loaded, now, self._rules)

    def follow(self, host: RoomHost, command: object) -> None:
        """Whoever is next goes to a door with room, one after the other."""
        if host.rules.door_cap <= 0 or isinstance(command, w.FillDoors):
            return
        doors = -1
        while doors != host.state.doors:
            doors = host.state.doors
            self._submit(host.key.stream, w.FillDoors())

    def wakes(self, host: RoomHost) -> Iterator[int]:
        """When time will next change something there."""
        at = w.next_wake(host.state, host.rules)
        if at is not None:
            yield at

    def error(self, host: RoomHost) -> int:
        """Tickets that are in no status, or in two."""
        return w.conservation_error(host.state)

    def settled(self, work: Work, news: News) -> None:
        """What is committed now, for those who look on."""
        host = work.actor
        assert isinstance(host, RoomHost)
        if work.entries:
            news.look_again.add(host.key.stream)
            news.rooms.setdefault(host.key.stream, []).extend(
                (entry.version, EVENT_CODES[type(entry.event)], pack_event(entry.event))
                for entry in work.entries
            )

    async def wake(self, host: RoomHost) -> None:
        """Time has brought something."""
        self._submit(host.key.stream, w.PassTime())

"""How new studies come to us: by asking for the last days again and again, or by Orthanc's changes."""

from collections import OrderedDict
from datetime import date, timedelta
from typing import Any, Final

from integrations.connector import Refused
from integrations.pacs.client import STUDIES_MAX, PacsClient
from integrations.pacs.pacs import Feed, News, PacsAt, Study, Unreadable

DAYS_BACK: Final = 2  # pictures that arrive late, from a mobile machine or another campus
PAGES_MAX: Final = 25  # of a round: 5,000 studies
REMEMBERED_MAX: Final = 20_000
CHANGES_MAX: Final = 100  # of one answer


def feed_of(client: PacsClient, at: PacsAt) -> Feed:
    return OrthancFeed(client, at.changes_address) if at.form == "orthanc" else QidoFeed(client)


class QidoFeed:
    """Any DICOMweb archive. It has no order of arrival, so the last days are asked for anew, and what is
    known and has not grown is left out; after a restart it all comes once more, which changes nothing."""

    def __init__(self, client: PacsClient, days_back: int = DAYS_BACK) -> None:
        self._client = client
        self._days_back = days_back
        self._known: OrderedDict[str, Study] = OrderedDict()

    async def news(self, position: str, today: date) -> News:
        found: list[Study] = []
        for page in range(PAGES_MAX):
            studies = await self._client.studies(
                first=today - timedelta(days=self._days_back),
                last=today + timedelta(days=1),
                offset=page * STUDIES_MAX,
            )
            found += [one for one in studies if self._known.get(one.uid) != one]
            if len(studies) < STUDIES_MAX:
                break
        return News(found, position)

    def taken(self, study: Study) -> None:
        """It need not come again, as it is."""
        self._known[study.uid] = study
        self._known.move_to_end(study.uid)
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)


class OrthancFeed:
    """Orthanc numbers its changes: nothing is asked for twice, and nothing is missed."""

    def __init__(self, client: PacsClient, address: str) -> None:
        self._client = client
        self._address = address

    async def news(self, position: str, today: date) -> News:
        query = [("since", position or "0"), ("limit", str(CHANGES_MAX))]
        answer = await self._client.json_of(self._address, "/changes", query)
        changes = answer.get("Changes") if isinstance(answer, dict) else None
        last = answer.get("Last") if isinstance(answer, dict) else None
        if not isinstance(changes, list) or len(changes) > CHANGES_MAX or not isinstance(last, int):
            raise Unreadable("changes")
        uids: dict[str, None] = {}
        for change in changes:
            if not isinstance(change, dict):
                raise Unreadable("changes")
            if change.get("ChangeType") in ("NewStudy", "StableStudy"):
                uid = await self._study_uid(change)
                if uid:
                    uids[uid] = None
        studies = [one for uid in uids for one in await self._client.studies(uid=uid)]
        return News(studies, str(last), is_more=answer.get("Done") is False)

    def taken(self, study: Study) -> None:
        """Its place in the list says so already."""

    async def _study_uid(self, change: dict[str, Any]) -> str:
        if change.get("ResourceType") != "Study":
            return ""  # the study itself becomes stable after its last picture, and says so
        name = change.get("ID")
        if not isinstance(name, str) or not name.replace("-", "").isalnum():
            raise Unreadable("changes")
        try:
            found = await self._client.json_of(self._address, f"/studies/{name}", [])
        except Refused as error:
            if error.code == "not_found":
                return ""  # deleted since
            raise
        tags = found.get("MainDicomTags") if isinstance(found, dict) else None
        uid = tags.get("StudyInstanceUID") if isinstance(tags, dict) else None
        return uid if isinstance(uid, str) else ""

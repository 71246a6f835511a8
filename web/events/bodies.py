"""The contract of feed and webhooks: what requests may say and answers do say."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from engine.domain.limits import NUMBER_MAX
from engine.records.webhooks import Delivery, Webhook
from integrations.webhooks.addresses import ADDRESS_CHARS_MAX
from web.events.cursors import CHARS_MAX
from web.events.feed import PAGE_MAX
from web.events.vocabulary import TYPES

WAIT_SECONDS_MAX: Final = 30
TYPES_MAX: Final = 64
_FAMILIES: Final = frozenset(f"{type_.partition('.')[0]}.*" for type_ in TYPES)


def is_known(word: str) -> bool:
    """Whether it names events: a type, a family such as appointment.*, or *."""
    return word == "*" or word in TYPES or word in _FAMILIES


def _known(word: str) -> str:
    if not is_known(word):
        raise PydanticCustomError("event_type", "no such type of event; see /api/v1/event-types")
    return word


TypeWord = Annotated[
    str,
    AfterValidator(_known),
    Field(
        max_length=64,
        description="事件类型，或 appointment.* 之类，或 * / a type, a family such as appointment.*, or *",
    ),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EventsQuery(_Model):
    after: Annotated[
        str | None,
        Field(
            min_length=1, max_length=CHARS_MAX, description="上一页的 cursor / the cursor of the page before"
        ),
    ] = None
    since: Annotated[
        Literal["now", "beginning"],
        Field(description="没有 after 时从何处开始 / where to begin without `after`"),
    ] = "now"
    types: Annotated[list[TypeWord], Field(min_length=1, max_length=TYPES_MAX)] | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE_MAX
    wait: Annotated[
        int,
        Field(
            ge=0,
            le=WAIT_SECONDS_MAX,
            description="没有新事件时最多等待的秒数 / seconds to wait while there is nothing new",
        ),
    ] = 0


@dataclass(frozen=True, slots=True)
class EventsAnswer:
    events: Annotated[
        list[dict[str, Any]],
        Field(description="CloudEvents 1.0；同一 partitionkey 内有序 / in order within one"),
    ]
    cursor: Annotated[str, Field(description="下次作为 after / hand it back as `after`")]
    has_more: bool


@dataclass(frozen=True, slots=True)
class EventTypeAnswer:
    type: str
    version: int
    summary: str
    schema: Annotated[dict[str, Any], Field(description="data 的 JSON Schema / of its data")]


@dataclass(frozen=True, slots=True)
class EventTypesAnswer:
    types: list[EventTypeAnswer]


class WebhookBody(_Model):
    address: Annotated[
        str, Field(min_length=1, max_length=ADDRESS_CHARS_MAX, description="https://…，不跟随重定向")
    ]
    types: Annotated[list[TypeWord], Field(min_length=1, max_length=TYPES_MAX)]


class WebhookStateBody(_Model):
    enabled: bool


class DeliveriesQuery(_Model):
    before: Annotated[int | None, Field(ge=1, le=NUMBER_MAX)] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class DeliveryPath(_Model):
    id: UUID
    event_id: Annotated[str, Field(pattern=r"^[0-9]{1,9}-[0-9]{1,18}$")]


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    id: str
    address: str
    types: list[str]
    partner_id: Annotated[str | None, Field(description="空：医院自己的 / null: the hospital's own")]
    made_at: datetime
    made_by: str
    state: Literal["enabled", "failing", "disabled"]
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_why: Annotated[str | None, Field(description="asked, failing, gone, too_far_behind, secret")]
    waiting: Annotated[int, Field(description="等待投递 / messages that wait")]
    dead: Annotated[int, Field(description="已放弃，可重新投递 / refused for good; may be redelivered")]


@dataclass(frozen=True, slots=True)
class WebhooksAnswer:
    webhooks: list[WebhookAnswer]


@dataclass(frozen=True, slots=True)
class WebhookSecretAnswer:
    """密钥只显示这一次 / the secret is told this once."""

    id: str
    secret: Annotated[str, Field(description="whsec_…，见 standardwebhooks / see standard-webhooks")]
    before_until: Annotated[
        datetime | None, Field(description="旧密钥同时有效至此 / until then the one before signs as well")
    ]


@dataclass(frozen=True, slots=True)
class PingAnswer:
    delivered: bool
    status: Annotated[int | None, Field(description="对方的 HTTP 状态 / their HTTP status")]
    ms: int
    trouble: Annotated[str | None, Field(description="status, timeout, connection, tls, private, address")]


@dataclass(frozen=True, slots=True)
class DeliveryAnswer:
    id: int
    event_id: str
    type: str
    at: datetime
    attempt: int
    status: int | None
    ms: int
    trouble: str | None


@dataclass(frozen=True, slots=True)
class DeliveriesAnswer:
    deliveries: list[DeliveryAnswer]
    before: Annotated[int | None, Field(description="下一页 / of the next page")]


def webhook_answer(one: Webhook, waiting: int, dead: int) -> WebhookAnswer:
    state: Literal["enabled", "failing", "disabled"] = "enabled"
    if one.disabled_at is not None:
        state = "disabled"
    elif one.failing_since is not None:
        state = "failing"
    return WebhookAnswer(
        str(UUID(bytes=one.id)),
        one.address,
        list(one.types),
        None if one.partner_id is None else str(UUID(bytes=one.partner_id)),
        one.made_at,
        one.made_by,
        state,
        one.failing_since,
        one.disabled_at,
        one.disabled_why or None,
        waiting,
        dead,
    )


def delivery_answer(one: Delivery) -> DeliveryAnswer:
    return DeliveryAnswer(
        one.id, one.event_id, one.type, one.at, one.attempt, one.status, one.ms, one.trouble or None
    )

"""The words of every failure: one table gives each code its status, its title and what to do, in Chinese and
in English. Codes are for ever: clients act on them."""

from enum import StrEnum
from typing import Final, Literal, NamedTuple

from engine.domain.refusal import Reason

Language = Literal["zh", "en"]


class Fault(StrEnum):
    """Codes that the web itself gives; the engine's are in engine.domain.refusal.Reason."""

    MALFORMED_REQUEST = "malformed_request"
    MALFORMED_JSON = "malformed_json"
    DUPLICATE_KEY = "duplicate_key"
    MISSING_IDEMPOTENCY_KEY = "missing_idempotency_key"
    INVALID_IDEMPOTENCY_KEY = "invalid_idempotency_key"
    UNAUTHENTICATED = "unauthenticated"
    TOKEN_EXPIRED = "token_expired"
    SESSION_ENDED = "session_ended"
    REFRESH_REUSED = "refresh_reused"
    CSRF_REFUSED = "csrf_refused"
    NO_SUCH_SIGN_IN = "no_such_sign_in"
    SIGN_IN_REFUSED = "sign_in_refused"
    OTP_NEEDED = "otp_needed"
    SECOND_FACTOR_NEEDED = "second_factor_needed"
    PASSWORD_CHANGE_NEEDED = "password_change_needed"
    SIGN_IN_STEP_OVER = "sign_in_step_over"
    OIDC_STATE_REFUSED = "oidc_state_refused"
    OIDC_NOT_LINKED = "oidc_not_linked"
    OIDC_FACTOR_NEEDED = "oidc_factor_needed"
    PROOF_REFUSED = "proof_refused"
    CODE_WRONG = "code_wrong"
    NO_PENDING_SECOND_FACTOR = "no_pending_second_factor"
    NO_SECOND_FACTOR = "no_second_factor"
    PASSWORD_UNFIT = "password_unfit"
    FORBIDDEN = "forbidden"
    SCOPE_MISSING = "scope_missing"
    INVALID_RESOURCE = "invalid_resource"
    NOT_ACCEPTABLE = "not_acceptable"
    VERSION_STALE = "version_stale"
    PERSONAL_IN_ADDRESS = "personal_in_address"
    OUT_OF_RELATION = "out_of_relation"
    NOT_BY_ONESELF = "not_by_oneself"
    NOT_BY_MAKER = "not_by_maker"
    ONLY_AT_THE_MACHINE = "only_at_the_machine"
    STAFF_REFUSED = "staff_refused"
    NO_SUCH_STAFF = "no_such_staff"
    NO_SUCH_BREAK_GLASS = "no_such_break_glass"
    ALREADY_REVIEWED = "already_reviewed"
    NOT_FOUND = "not_found"
    NOT_HERE = "not_here"
    NO_SUCH_DEPARTMENT = "no_such_department"
    NO_SUCH_PRACTITIONER = "no_such_practitioner"
    NO_SUCH_PATIENT = "no_such_patient"
    NO_SUCH_BILL = "no_such_bill"
    NO_SUCH_REPORT = "no_such_report"
    NO_SUCH_MESSAGE = "no_such_message"
    HELD_AT_INTAKE = "held_at_intake"
    NO_SUCH_STUDY = "no_such_study"
    NO_SUCH_PICTURE = "no_such_picture"
    WINDOW_HALF = "window_half"
    PICTURES_AWAY = "pictures_away"
    PICTURES_UNFIT = "pictures_unfit"
    FHIR_UNREADABLE = "fhir_unreadable"
    NO_SUCH_ALARM = "no_such_alarm"
    COUPON_UNKNOWN = "coupon_unknown"
    COUPON_UNFIT = "coupon_unfit"
    COUPON_USED = "coupon_used"
    PRICE_CHANGED = "price_changed"
    NO_SUCH_PENALTY = "no_such_penalty"
    NO_SUCH_DIFFERENCE = "no_such_difference"
    DIFFERENCE_CLOSED = "difference_closed"
    DAY_NOT_OVER = "day_not_over"
    DAY_CLOSED = "day_closed"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    IDENTITY_MISMATCH = "identity_mismatch"
    TOO_MANY_PATIENTS = "too_many_patients"
    DELEGATION_REVOKED = "delegation_revoked"
    CHILD_IS_GROWN_UP = "child_is_grown_up"
    ID_DIGITS_MISMATCH = "id_digits_mismatch"
    REAL_NAME_MISMATCH = "real_name_mismatch"
    TOO_MANY_MISMATCHES = "too_many_mismatches"
    GUARDIAN_NEEDED = "guardian_needed"
    PERSON_MUST_CONSENT = "person_must_consent"
    NO_SUCH_DELEGATION = "no_such_delegation"
    DELEGATION_DECIDED = "delegation_decided"
    PAYING_NOT_DELEGATED = "paying_not_delegated"
    PHONE_CODE_REFUSED = "phone_code_refused"
    PHONE_UNAVAILABLE = "phone_unavailable"
    HOSPITAL_BILLING_OFF = "hospital_billing_off"
    HOSPITAL_BILLING_AWAY = "hospital_billing_away"
    BILLING_CALL_REFUSED = "billing_call_refused"
    BILLING_CALL_UNFIT = "billing_call_unfit"
    PENALTY_OVER = "penalty_over"
    ALREADY_APPEALED = "already_appealed"
    NO_OPEN_APPEAL = "no_open_appeal"
    WAY_UNKNOWN = "way_unknown"
    NO_SUCH_CONSENT = "no_such_consent"
    CONSENT_OUTDATED = "consent_outdated"
    CONSENT_OF_WHOM = "consent_of_whom"
    ERASURE_BLOCKED = "erasure_blocked"
    ERASURE_REFUSED = "erasure_refused"
    EXPORT_BUSY = "export_busy"
    CORRECTION_REFUSED = "correction_refused"
    WISH_IMPOSSIBLE = "wish_impossible"
    WISH_TOO_WIDE = "wish_too_wide"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    EXPECTATION_FAILED = "expectation_failed"
    INVALID_BODY = "invalid_body"
    INVALID_QUERY = "invalid_query"
    INVALID_NAME = "invalid_name"
    INVALID_ID_NUMBER = "invalid_id_number"
    INVALID_BIRTH_DATE = "invalid_birth_date"
    INVALID_SEX = "invalid_sex"
    INVALID_PHONE = "invalid_phone"
    UNSUPPORTED_GRANT = "unsupported_grant"
    UNSUPPORTED_PROVIDER = "unsupported_provider"
    PROVIDER_AWAY = "provider_away"
    PAYMENT_OVER = "payment_over"
    COUPON_TOO_LATE = "coupon_too_late"
    CALLBACK_UNSIGNED = "callback_unsigned"
    CALLBACK_REFUSED = "callback_refused"
    CALLBACK_LATER = "callback_later"
    NO_SUCH_TOPIC = "no_such_topic"
    TOO_MANY_TOPICS = "too_many_topics"
    TOPIC_TOO_WIDE = "topic_too_wide"
    FOREIGN_ORIGIN = "foreign_origin"
    TOO_MANY_REQUESTS = "too_many_requests"
    REQUEST_TIMEOUT = "request_timeout"
    HEAD_TOO_LARGE = "head_too_large"
    UPGRADE_REQUIRED = "upgrade_required"
    STREAM_FULL = "stream_full"
    NO_SUCH_ROOM = "no_such_room"
    NO_SUCH_NUMBER_CLASS = "no_such_number_class"
    NO_SUCH_REQUEST = "no_such_request"
    REQUEST_DECIDED = "request_decided"
    ROOM_TAKEN = "room_taken"
    PRACTITIONER_BUSY = "practitioner_busy"
    SUBSTITUTE_UNFIT = "substitute_unfit"
    INVALID_TIMES = "invalid_times"
    INVALID_WEEK = "invalid_week"
    NOTHING_TO_CHANGE = "nothing_to_change"
    NOT_TODAY = "not_today"
    NOT_ON_DUTY = "not_on_duty"
    REQUEST_REFUSED = "request_refused"
    WHAT_IF_BUSY = "what_if_busy"
    QR_INVALID = "qr_invalid"
    QR_EXPIRED = "qr_expired"
    SEVERAL_NUMBERS = "several_numbers"
    NO_NUMBER_TODAY = "no_number_today"
    NO_WALK_INS = "no_walk_ins"
    SAY_WHO = "say_who"
    CURSOR_BROKEN = "cursor_broken"
    CURSOR_AHEAD = "cursor_ahead"
    EVENTS_BUSY = "events_busy"
    NO_SUCH_EVENT = "no_such_event"
    WEBHOOKS_OFF = "webhooks_off"
    NO_SUCH_WEBHOOK = "no_such_webhook"
    WEBHOOK_ADDRESS_REFUSED = "webhook_address_refused"
    TOO_MANY_WEBHOOKS = "too_many_webhooks"
    INTERNAL = "internal"
    SIGN_IN_UNAVAILABLE = "sign_in_unavailable"
    DATABASE_DOWN = "database_down"
    OUTCOME_UNKNOWN = "outcome_unknown"


class Text(NamedTuple):
    zh: str
    en: str

    def in_(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en


class Row(NamedTuple):
    status: int
    title: Text
    detail: Text
    """May name members of the problem in braces."""
    retry_after: int | None = None  # seconds


TABLE: Final[dict[str, Row]] = {
    Reason.NO_SUCH_SCHEDULE: Row(
        404,
        Text("没有该排班", "No such schedule"),
        Text(
            "没有找到该医生当天的排班，可能尚未放号。",
            "This practitioner has no published schedule on that day.",
        ),
    ),
    Reason.NO_SUCH_SLOT: Row(
        404,
        Text("没有该时段", "No such slot"),
        Text("没有找到该就诊时段，请重新选择。", "There is no such slot; please choose again."),
    ),
    Reason.NO_SUCH_APPOINTMENT: Row(
        404,
        Text("没有该预约", "No such appointment"),
        Text("没有找到该预约，或它不属于当前账号。", "No such appointment belongs to this account."),
    ),
    Reason.SLOT_PAST: Row(
        409,
        Text("时段已开始", "The slot has begun"),
        Text("该就诊时段已经开始或结束，不能再操作。", "This slot has begun, so it cannot be changed."),
    ),
    Reason.SLOT_FULL: Row(
        409,
        Text("号源已满", "The slot is full"),
        Text(
            "该时段的号已约满，请查看其他可选时段。",
            "No seat is left in this slot; alternatives are listed where there are any.",
        ),
    ),
    Reason.KEY_REUSED: Row(
        422,
        Text("幂等键已被使用", "Idempotency-Key reused"),
        Text(
            "同一个 Idempotency-Key 已用于另一个内容不同的请求，请换一个新的键。",
            "This Idempotency-Key was used for a different request; use a new key.",
        ),
    ),
    Reason.ALREADY_BOOKED: Row(
        409,
        Text("已有预约", "Already booked"),
        Text(
            "该就诊人当天在此科室已有预约，每人每天每科室限一个号。",
            "The patient already has a number in this department on that day.",
        ),
    ),
    Reason.TIME_CONFLICT: Row(
        409,
        Text("时间冲突", "Time conflict"),
        Text("该就诊人在同一时段已有其他预约。", "The patient has another appointment at this very time."),
    ),
    Reason.HOLD_EXPIRED: Row(
        409,
        Text("支付超时", "The hold has expired"),
        Text(
            "未在规定时间内支付，号源已释放，请重新预约。",
            "It was not paid in time, so the seat went back; please book again.",
        ),
    ),
    Reason.ALREADY_CANCELLED: Row(
        409,
        Text("预约已取消", "Already cancelled"),
        Text("该预约已经取消。", "This appointment has been cancelled."),
    ),
    Reason.CONSENT_NEEDED: Row(
        403,
        Text("需要先同意", "Consent needed"),
        Text(
            "请先阅读并同意本院的告知书（见 consents），也可以到窗口办理。",
            "Please read and agree to the texts that consents names first, or come to the window.",
        ),
    ),
    Reason.NOT_ELIGIBLE: Row(
        403, Text("不符合预约条件", "Not eligible"), Text("不符合预约条件。", "This booking is not allowed.")
    ),
    Reason.NOT_RELEASED: Row(
        409,
        Text("尚未放号", "Not released yet"),
        Text(
            "该时段的号尚未放出，放号时间见 opens_at。",
            "Numbers of this slot open at the time given in opens_at.",
        ),
    ),
    Reason.BOOKING_CLOSED: Row(
        409,
        Text("已停止预约", "Booking has closed"),
        Text(
            "该时段已停止网上预约，如需就诊请到窗口办理。",
            "This slot is too near to be booked online; ask at the window.",
        ),
    ),
    Reason.SESSION_PAUSED: Row(
        409,
        Text("暂停预约", "Booking is paused"),
        Text(
            "该门诊暂停预约，请稍后再试或选择其他医生。",
            "Booking for this session is paused; try later or choose another.",
        ),
    ),
    Reason.SESSION_SUSPENDED: Row(
        409,
        Text("已停诊", "The session is called off"),
        Text(
            "该门诊已停诊，请选择其他医生或日期。",
            "This session is called off; please choose another.",
        ),
    ),
    Reason.VISIT_LIMIT: Row(
        409,
        Text("初诊或复诊名额已满", "No room for this kind of visit"),
        Text(
            "该门诊此类就诊（初诊或复诊）的名额已满，上限 {limit} 人。",
            "This session takes {limit} visits of this kind, first or follow-up, and has them.",
        ),
    ),
    Reason.GROUP_DOES_NOT_FIT: Row(
        409,
        Text("没有相邻的时段", "No neighbouring times"),
        Text(
            "附近没有足够的相邻时段，请换一个时间或减少人数。",
            "There are not enough seats at neighbouring times; choose another time or fewer people.",
        ),
    ),
    Reason.CANCEL_TOO_LATE: Row(
        409,
        Text("已过取消时限", "Too late to cancel"),
        Text(
            "已过线上取消的截止时间（见 until），请到窗口办理。",
            "The last moment to cancel online was the one in until; ask at the window.",
        ),
    ),
    Reason.CHANGE_TOO_LATE: Row(
        409,
        Text("已过改签时限", "Too late to change"),
        Text(
            "已过线上改签的截止时间（见 until），请到窗口办理。",
            "The last moment to change online was the one in until; ask at the window.",
        ),
    ),
    Reason.TOO_MANY_CHANGES: Row(
        409,
        Text("改签次数已达上限", "Changed too often"),
        Text(
            "该预约已改签 {limit} 次，不能再改签。",
            "This booking has been changed {limit} times, which is the most allowed.",
        ),
    ),
    Reason.NOT_BOOKED: Row(
        409,
        Text("预约尚未确认", "Not booked yet"),
        Text(
            "该预约尚未支付或确认，请先确认，或取消后重新预约。",
            "This number is not confirmed yet; confirm it first, or cancel it and book anew.",
        ),
    ),
    Reason.CHANGE_UNSETTLED: Row(
        409,
        Text("改签尚未完成", "The change is not finished"),
        Text(
            "该号是为改签保留的，请用改签操作完成。",
            "This number is kept for a change; finish it by changing the booked one.",
        ),
    ),
    Reason.CHANGE_GIVEN_UP: Row(
        409,
        Text("改签未成功", "The change was given up"),
        Text(
            "改签未完成，原预约仍然有效，请重新选择。",
            "The change was not made; the old booking stands. Please choose again.",
        ),
    ),
    Reason.STALE_REVISION: Row(
        409,
        Text("排班已被他人修改", "Somebody else changed it"),
        Text(
            "该排班已被修改（当前版本 {revision}），请刷新后再操作。",
            "This day was changed meanwhile (now at revision {revision}); look again and repeat.",
        ),
    ),
    Reason.NO_SUCH_SESSION: Row(
        404,
        Text("没有该门诊时段", "No such session"),
        Text(
            "该医生当天没有这个午别的门诊。",
            "This practitioner has no such session on that day.",
        ),
    ),
    Reason.SESSIONS_OVERLAP: Row(
        409,
        Text("门诊时间重叠", "Sessions overlap"),
        Text(
            "与该医生当天已有的门诊时间重叠，或午别信息不一致。",
            "It overlaps another session of this practitioner on that day, or contradicts it.",
        ),
    ),
    Reason.BELOW_SOLD: Row(
        409,
        Text("号数少于已约人数", "Fewer seats than are sold"),
        Text(
            "时段 {clock} 已有 {sold} 人，减号前请先为他们改签，或减少幅度。",
            "Slot {clock} has {sold} people; move some of them first, or take fewer seats away.",
        ),
    ),
    Reason.IN_THE_PAST: Row(
        409,
        Text("时间已过", "In the past"),
        Text(
            "不能修改已经开始或结束的门诊。",
            "What has begun or ended cannot be changed.",
        ),
    ),
    Reason.TOO_LARGE: Row(
        422,
        Text("数量超出范围", "Too many"),
        Text(
            "数量超出允许的范围，上限 {limit}，且每人只能出现一次。",
            "That is more than the limit of {limit}, or names somebody twice.",
        ),
    ),
    Reason.FATE_DECIDED: Row(
        409,
        Text("已处理", "Already decided"),
        Text(
            "该预约的停诊安排已经确定。",
            "What becomes of this number has been decided already.",
        ),
    ),
    Reason.NOT_SUSPENDED: Row(
        409,
        Text("未停诊", "Not called off"),
        Text(
            "该预约所在的门诊没有停诊。",
            "The session of this number is not called off.",
        ),
    ),
    Reason.NO_SUBSTITUTE: Row(
        409,
        Text("没有替诊", "No substitute"),
        Text(
            "该门诊没有替诊医生，无需确认。",
            "Nobody substitutes in this session, so there is nothing to agree to.",
        ),
    ),
    Reason.WRONG_STATE: Row(
        409,
        Text("当前状态不允许", "Not in this state"),
        Text(
            "该预约当前的状态不允许此操作。",
            "The appointment is not in a state that allows this.",
        ),
    ),
    Reason.NO_SUCH_WISH: Row(
        404,
        Text("没有该候补", "No such wish"),
        Text(
            "没有找到该候补，或它不属于当前账号。",
            "No such wish belongs to this account.",
        ),
    ),
    Reason.WAITLIST_CLOSED: Row(
        409,
        Text("候补已截止", "The waiting list is closed"),
        Text(
            "该时段的候补已截止或未开放。",
            "Waiting for these slots has closed, or is not offered.",
        ),
    ),
    Reason.WAITLIST_FULL: Row(
        409,
        Text("候补人数已满", "The waiting list is full"),
        Text(
            "该医生当天的候补人数已满（{limit} 人）。",
            "The waiting list of that day is full ({limit} wishes).",
        ),
    ),
    Reason.NO_SUCH_WAITING_ROOM: Row(
        404,
        Text("没有该候诊区", "No such waiting room"),
        Text(
            "没有找到该科室当天的候诊信息，请核对科室和日期。",
            "This department has no waiting room on that day; check the department and the date.",
        ),
    ),
    Reason.WRONG_DEPARTMENT: Row(
        409,
        Text("科室不符", "Another department"),
        Text(
            "该预约是科室 {department_id} 的，请到该科室签到。",
            "This number is for department {department_id}; check in there.",
        ),
    ),
    Reason.WRONG_DAY: Row(
        409,
        Text("日期不符", "Another day"),
        Text(
            "该预约的就诊日期是 {day}，请在当天签到。",
            "This number is for {day}; check in on that day.",
        ),
    ),
    Reason.WRONG_PATIENT: Row(
        409,
        Text("就诊人不符", "Another patient"),
        Text(
            "该预约不属于这位就诊人，请核对证件。",
            "This number belongs to another patient; check the document.",
        ),
    ),
    Reason.ALREADY_CHECKED_IN: Row(
        409,
        Text("已经签到", "Already checked in"),
        Text(
            "该预约已签到，候诊号是 {number}，无需重复签到。",
            "This number has been checked in as {number}; nothing more to do.",
        ),
    ),
    Reason.PATIENT_WAITS_ALREADY: Row(
        409,
        Text("已在本科室候诊", "Waiting here already"),
        Text(
            "该就诊人已在本科室候诊，候诊号 {number}。",
            "This patient waits in this department already, as {number}.",
        ),
    ),
    Reason.PLACE_UNKNOWN: Row(
        422,
        Text("无法确认位置", "Place unknown"),
        Text(
            "请允许获取位置信息后再签到，或到自助机、分诊台签到。",
            "Allow your location to be read, or check in at a kiosk or the desk.",
        ),
    ),
    Reason.TOO_FAR: Row(
        409,
        Text("距离医院太远", "Too far away"),
        Text(
            "您距医院约 {metres} 米，到院后（{at_most} 米以内）才能签到；也可到自助机或分诊台签到。",
            "You are {metres} m away; check in within {at_most} m, at a kiosk or at the desk.",
        ),
    ),
    Reason.CHECK_IN_TOO_EARLY: Row(
        409,
        Text("尚未到签到时间", "Too early to check in"),
        Text(
            "{from} 起可以签到。",
            "Check-in opens at {from}.",
        ),
    ),
    Reason.CHECK_IN_TOO_LATE: Row(
        409,
        Text("已过签到时间", "Too late to check in"),
        Text(
            "签到已于 {until} 截止，请到分诊台处理。",
            "Check-in ended at {until}; please go to the desk.",
        ),
    ),
    Reason.NO_SUCH_QUEUE: Row(
        404,
        Text("没有该队列", "No such queue"),
        Text(
            "没有找到该候诊队列，请刷新后重试。",
            "There is no such queue; look again and repeat.",
        ),
    ),
    Reason.NO_SUCH_TICKET: Row(
        404,
        Text("没有该候诊号", "No such ticket"),
        Text(
            "没有找到该候诊号，或它不属于当前账号。",
            "No such ticket, or it belongs to somebody else.",
        ),
    ),
    Reason.UNKNOWN_PRIORITY: Row(
        422,
        Text("没有该优先类别", "Unknown priority"),
        Text(
            "没有该优先类别或急诊级别，请核对医院的候诊规则。",
            "There is no such priority class or emergency level in this hospital's rules.",
        ),
    ),
    Reason.NUMBERS_EXHAUSTED: Row(
        409,
        Text("号码已用完", "No numbers left"),
        Text(
            "该队列的号码已发到 {last}，请联系分诊台更换号段。",
            "This queue has given out its numbers up to {last}; ask the desk for another range.",
        ),
    ),
    Reason.NUMBERS_OVERLAP: Row(
        409,
        Text("号段重叠", "Numbers overlap"),
        Text(
            "该号段与队列 {queue_id} 重叠，请换前缀或号段。",
            "These numbers overlap those of queue {queue_id}; choose another prefix or range.",
        ),
    ),
    Reason.STALE_VERSION: Row(
        409,
        Text("已被他人操作", "Somebody was quicker"),
        Text(
            "该候诊号或诊室刚刚有变化（当前版本 {version}），请刷新后再操作。",
            "It has changed meanwhile (now at version {version}); look again and repeat.",
        ),
    ),
    Reason.WRONG_STATUS: Row(
        409,
        Text("当前状态不能这样操作", "Not in this status"),
        Text(
            "候诊号 {number} 当前状态是 {ticket_status}，不能这样操作。",
            "Ticket {number} is {ticket_status}, so this cannot be done now.",
        ),
    ),
    Reason.REASON_NEEDED: Row(
        422,
        Text("请填写原因", "A reason is needed"),
        Text(
            "人工调整需要填写原因，原因会被记录。",
            "What is done by hand needs a reason; it is recorded.",
        ),
    ),
    Reason.ROOM_BUSY: Row(
        409,
        Text("诊室正忙", "The room is busy"),
        Text(
            "诊室里还有 {number}，请先就诊、过号或完成。",
            "{number} is called or being seen there; start, pass or finish that one first.",
        ),
    ),
    Reason.ROOM_NOT_OPEN: Row(
        409,
        Text("诊室未开诊", "The room is not open"),
        Text(
            "该诊室当前未开诊，请先开诊。",
            "This room is not open now; open it first.",
        ),
    ),
    Reason.ROOM_IN_USE: Row(
        409,
        Text("诊室已有医生", "The room is in use"),
        Text(
            "该诊室今天由 {practitioner_id} 使用，请先关闭或换诊室。",
            "{practitioner_id} uses this room; close it first, or take another one.",
        ),
    ),
    Reason.PRACTITIONER_ELSEWHERE: Row(
        409,
        Text("已在其他诊室开诊", "Open elsewhere"),
        Text(
            "您已在诊室 {room_id} 开诊，请先在那里停诊。",
            "You are open in room {room_id}; close that one first.",
        ),
    ),
    Reason.NOT_SERVED_HERE: Row(
        409,
        Text("不在本诊室就诊", "Not served here"),
        Text(
            "该候诊号所在的队列不由这个诊室叫号。",
            "This room does not call from that ticket's queue, or not for that practitioner.",
        ),
    ),
    Reason.DOOR_FULL: Row(
        409,
        Text("诊室门口已满", "The door is full"),
        Text(
            "该诊室门口最多 {at_most} 人候诊。",
            "At most {at_most} people wait at this door.",
        ),
    ),
    Reason.NOBODY_WAITS: Row(
        409,
        Text("没有候诊的患者", "Nobody waits"),
        Text(
            "当前没有可以呼叫的患者。",
            "There is nobody to call now.",
        ),
    ),
    Reason.TOO_SOON: Row(
        409,
        Text("操作太快", "Too soon"),
        Text(
            "{again_at} 之后可以再次呼叫。",
            "It can be called again after {again_at}.",
        ),
    ),
    Reason.CALLS_MAX: Row(
        409,
        Text("已达呼叫次数上限", "Called often enough"),
        Text(
            "已呼叫 {calls} 次，{passed_at} 自动过号；也可以现在过号。",
            "Called {calls} times; it is passed over at {passed_at}, or pass it now.",
        ),
    ),
    Reason.PASSED_TOO_OFTEN: Row(
        409,
        Text("过号次数过多", "Passed over too often"),
        Text(
            "已过号 {times} 次，请到分诊台处理。",
            "Passed over {times} times; please go to the desk.",
        ),
    ),
    Reason.PEOPLE_WAIT: Row(
        409,
        Text("还有患者在等", "People wait"),
        Text(
            "还有 {waiting} 位患者在等这位医生，请先说明转到哪里，或让他们继续等。",
            "{waiting} people wait for this practitioner; say where they go, or that they keep waiting.",
        ),
    ),
    Reason.NOTHING_TO_UNDO: Row(
        409,
        Text("没有可撤销的操作", "Nothing to undo"),
        Text(
            "该候诊号没有可以撤销的操作。",
            "This ticket has no step that could be taken back.",
        ),
    ),
    Reason.BUSY: Row(
        503,
        Text("系统繁忙", "Busy"),
        Text(
            "当前预约人数较多，请稍后用同一个 Idempotency-Key 重试。",
            "Too many requests are under way; retry in a moment with the same Idempotency-Key.",
        ),
        retry_after=1,
    ),
    Reason.AWAY: Row(
        503,
        Text("系统正在恢复", "The system is recovering"),
        Text(
            "预约服务正在恢复，本次操作没有执行，请稍后用同一个键重试。",
            "Booking is recovering; nothing was done. Please try again in a moment with the same key.",
        ),
        retry_after=1,
    ),
    Reason.BILL_UNKNOWN: Row(
        404,
        Text("没有该账单", "No such bill"),
        Text(
            "没有找到该账单，请刷新后重试。",
            "There is no such bill; please reload and try again.",
        ),
    ),
    Reason.BILL_UNFIT: Row(
        422,
        Text("账单内容有误", "The bill is wrong"),
        Text(
            "账单或退款的明细有误，原因见 why，没有执行。",
            "The lines are wrong for the reason given in why; nothing was done.",
        ),
    ),
    Reason.BILL_PAID: Row(
        409,
        Text("账单已支付", "Already paid"),
        Text(
            "该账单已支付或无需支付，请勿重复付款。",
            "This bill is paid, or there is nothing to pay; please do not pay again.",
        ),
    ),
    Reason.BILL_CLOSED: Row(
        409,
        Text("账单已关闭", "The bill is closed"),
        Text(
            "该账单已关闭，无需再付款；如已付款，将原路退回。",
            "This bill is closed. Do not pay it; money that was paid all the same is sent back.",
        ),
    ),
    Reason.WRONG_BILL_STATE: Row(
        409,
        Text("账单状态不允许", "Not in this state of the bill"),
        Text(
            "账单当前的状态不允许此操作。",
            "The bill is not in a state that allows this.",
        ),
    ),
    Reason.PROVIDER_OFF: Row(
        409,
        Text("不支持该支付方式", "Not offered here"),
        Text(
            "本院未开通该支付方式，请换一种方式支付。",
            "This hospital does not offer that way of paying; please choose another.",
        ),
    ),
    Reason.AT_HOSPITAL_NOT_ALLOWED: Row(
        403,
        Text("不能到院支付", "Not to be paid at the hospital"),
        Text(
            "该账单不能选择到院支付，原因见 why，请在线支付。",
            "This bill cannot be paid at the hospital for the reason given in why; please pay online.",
        ),
    ),
    Reason.PAYMENT_UNDER_WAY: Row(
        409,
        Text("正在支付中", "A payment is under way"),
        Text(
            "该账单已有一笔支付正在进行，请先完成它，或稍候再试。",
            "A payment of this bill is under way; finish that one, or try again in a moment.",
        ),
    ),
    Reason.TOO_MANY_PAYMENTS: Row(
        409,
        Text("次数过多", "Too many times"),
        Text(
            "该账单的支付或退款次数已达上限 {limit}，请到收费窗口办理。",
            "The limit of {limit} for this bill is reached; please come to the cashier.",
        ),
    ),
    Reason.NO_SUCH_PAYMENT: Row(
        404,
        Text("没有该笔支付", "No such payment"),
        Text(
            "该账单没有这笔支付。",
            "The bill has no such payment.",
        ),
    ),
    Reason.FOREIGN_MERCHANT: Row(
        403,
        Text("不是本院的交易", "Not our transaction"),
        Text(
            "商户号或支付渠道与本院的订单不符，没有执行。",
            "Merchant or provider are not those of our order; nothing was done.",
        ),
    ),
    Reason.AMOUNT_MISMATCH: Row(
        422,
        Text("金额不符", "Another amount"),
        Text(
            "金额与账单不符，没有执行。",
            "The amount is not that of the bill; nothing was done.",
        ),
    ),
    Reason.CURRENCY_MISMATCH: Row(
        422,
        Text("币种不符", "Another currency"),
        Text(
            "只接受人民币，没有执行。",
            "Only CNY is taken; nothing was done.",
        ),
    ),
    Reason.PAYMENT_CONTRADICTS: Row(
        409,
        Text("交易相互矛盾", "Contradicts what is known"),
        Text(
            "该订单已记录了另一笔交易，没有执行，请收费窗口核对。",
            "Another transaction is known for this order; nothing was done and the cashier must look at it.",
        ),
    ),
    Reason.NO_SUCH_REFUND: Row(
        404,
        Text("没有该笔退款", "No such refund"),
        Text(
            "该账单没有这笔退款。",
            "The bill has no such refund.",
        ),
    ),
    Reason.REFUND_TOO_LARGE: Row(
        409,
        Text("退款超出实付", "More than was paid"),
        Text(
            "退款超出该项尚可退的金额（{limit} 分），没有执行。",
            "That is more than the {limit} fen which are left to refund; nothing was done.",
        ),
    ),
    Reason.REFUND_UNSETTLED: Row(
        409,
        Text("退款结果未定", "The refund is unsettled"),
        Text(
            "该笔退款在支付渠道的结果未定，确定失败后才能由窗口退款。",
            "The provider may still pay this refund; the desk may only after the provider has refused.",
        ),
    ),
    Reason.REFUND_CONTRADICTS: Row(
        409,
        Text("退款相互矛盾", "Contradicts what is known"),
        Text(
            "该笔退款已以另一方式完成，没有执行，请收费窗口核对。",
            "This refund was done in another way; nothing was done and the cashier must look at it.",
        ),
    ),
    Reason.TOO_LATE: Row(
        503,
        Text("处理超时", "Not done in time"),
        Text(
            "请求未能在时限内处理，没有执行；请用同一个 Idempotency-Key 重试。",
            "The deadline passed before this was done; retry with the same Idempotency-Key.",
        ),
        retry_after=1,
    ),
    Fault.MALFORMED_REQUEST: Row(
        400,
        Text("请求格式错误", "Malformed request"),
        Text("这不是合法的 HTTP 请求。", "This is not a valid HTTP request."),
    ),
    Fault.MALFORMED_JSON: Row(
        400,
        Text("JSON 格式错误", "Malformed JSON"),
        Text("请求体不是合法的 UTF-8 JSON。", "The body is not valid JSON in UTF-8."),
    ),
    Fault.DUPLICATE_KEY: Row(
        400,
        Text("JSON 键重复", "Duplicate JSON key"),
        Text(
            "请求体中的键「{key}」出现了不止一次。",
            'An object of the body has the key "{key}" twice.',
        ),
    ),
    Fault.MISSING_IDEMPOTENCY_KEY: Row(
        400,
        Text("缺少 Idempotency-Key", "Idempotency-Key missing"),
        Text(
            "该操作需要 Idempotency-Key 请求头，重试时请使用同一个值。",
            "This request needs an Idempotency-Key header; keep its value when you retry.",
        ),
    ),
    Fault.INVALID_IDEMPOTENCY_KEY: Row(
        400,
        Text("Idempotency-Key 无效", "Idempotency-Key invalid"),
        Text(
            "Idempotency-Key 须为 1 到 128 个可见 ASCII 字符，且只出现一次。",
            "An Idempotency-Key is 1 to 128 visible ASCII characters, sent once.",
        ),
    ),
    Fault.UNAUTHENTICATED: Row(
        401,
        Text("未登录", "Not signed in"),
        Text("请先登录。", "Send a valid access token: Authorization: Bearer ..."),
    ),
    Fault.TOKEN_EXPIRED: Row(
        401,
        Text("登录已过期", "Token expired"),
        Text(
            "登录已过期，请用 refresh_token 换取新的令牌或重新登录。",
            "The token has expired; get another with the refresh token, or sign in again.",
        ),
    ),
    Fault.SESSION_ENDED: Row(
        401,
        Text("登录已结束", "The session has ended"),
        Text(
            "您已退出登录，或登录因超时、权限变更等原因已结束，请重新登录。",
            "You have signed out, or the session has ended by its time or a change of rights; sign in again.",
        ),
    ),
    Fault.REFRESH_REUSED: Row(
        401,
        Text("登录凭证已被使用过", "Refresh token used before"),
        Text(
            "该 refresh_token 早已换过新的令牌，再次出现说明它可能被他人复制；"
            "为安全起见，本次登录已结束，请重新登录。",
            "This refresh token had been exchanged before: somebody may have copied it. The session has"
            " ended; sign in again.",
        ),
    ),
    Fault.CSRF_REFUSED: Row(
        403,
        Text("缺少防伪令牌", "CSRF token missing"),
        Text(
            "用 Cookie 登录的网页在提交时须带 X-CSRF-Token（见 GET /api/v1/sessions/current），"
            "且只能由本站网页发出。",
            "With a cookie, a request that changes something carries X-CSRF-Token, which GET"
            " /api/v1/sessions/current tells, and comes from a page of ours.",
        ),
    ),
    Fault.NO_SUCH_SIGN_IN: Row(
        404,
        Text("没有该登录", "No such sign-in"),
        Text("没有找到该登录，它可能已经结束。", "You have no such session; it may have ended."),
    ),
    Fault.OTP_NEEDED: Row(
        403,
        Text("需要动态验证码", "A code is needed"),
        Text(
            "请同时提交身份验证器上的六位动态码（otp），或一个恢复码。",
            "Send the six digits of your authenticator as otp, or a recovery code.",
        ),
    ),
    Fault.SECOND_FACTOR_NEEDED: Row(
        403,
        Text("请先绑定身份验证器", "Set up a second factor first"),
        Text(
            "密码正确，但尚未绑定身份验证器。请用 step_token 在 {expires_in} 秒内完成绑定。",
            "The password is right, but there is no second factor yet: use step_token to set one up within"
            " {expires_in} seconds.",
        ),
    ),
    Fault.PASSWORD_CHANGE_NEEDED: Row(
        403,
        Text("请先修改密码", "Change your password first"),
        Text(
            "密码由他人设置或已到期。请用 step_token 在 {expires_in} 秒内设置新密码。",
            "Somebody else chose this password, or it is too old: use step_token to set a new one within"
            " {expires_in} seconds.",
        ),
    ),
    Fault.SIGN_IN_STEP_OVER: Row(
        403,
        Text("该步骤已失效", "This step is over"),
        Text("step_token 已用过或已过期，请重新登录。", "step_token was used or has expired; sign in again."),
    ),
    Fault.PROOF_REFUSED: Row(
        403,
        Text("密码或验证码不正确", "The password or code is wrong"),
        Text(
            "密码或验证码不正确，或尝试次数过多，请稍后再试。",
            "The password or the code is wrong, or was tried too often; try again later.",
        ),
    ),
    Fault.CODE_WRONG: Row(
        422,
        Text("验证码不正确", "The code is wrong"),
        Text(
            "验证码不正确或已用过，请等待下一个动态码，并检查手机时间。",
            "The code is wrong or was used; wait for the next one, and look at the telephone's clock.",
        ),
    ),
    Fault.NO_PENDING_SECOND_FACTOR: Row(
        409,
        Text("没有待确认的绑定", "Nothing to confirm"),
        Text(
            "没有待确认的身份验证器，或已超时，请重新开始绑定。",
            "Nothing waits to be confirmed; begin again.",
        ),
    ),
    Fault.NO_SECOND_FACTOR: Row(
        409,
        Text("未绑定身份验证器", "No second factor"),
        Text("当前账号没有绑定身份验证器。", "This account has no second factor."),
    ),
    Fault.PASSWORD_UNFIT: Row(
        422,
        Text("密码不符合要求", "This password will not do"),
        Text("新密码不符合要求，原因见 errors。", "The new password will not do; errors says why."),
    ),
    Fault.SIGN_IN_REFUSED: Row(
        401,
        Text("登录失败", "Sign-in refused"),
        Text(
            "登录凭证无效、已使用或暂被锁定（密码连续错误 5 次锁定 15 分钟），请核对后重新登录。",
            "The code or password is wrong or used up, or locked for 15 minutes after 5 wrong passwords.",
        ),
    ),
    Fault.FORBIDDEN: Row(
        403,
        Text("没有权限", "Not permitted"),
        Text(
            "该操作不在您的岗位权限或所管科室范围内；由角色决定时，可操作的角色见 roles。",
            "Your roles or your department do not cover this; roles lists who may, where roles decide it.",
        ),
    ),
    Fault.INVALID_RESOURCE: Row(
        422,
        Text("资源不正确", "The resource is not valid"),
        Text("errors 列出不符合要求之处。", "errors lists what is not as it should be, and where."),
    ),
    Fault.NOT_ACCEPTABLE: Row(
        406,
        Text("不支持该返回格式", "No such format"),
        Text("此接口只返回 application/fhir+json。", "This answers application/fhir+json alone."),
    ),
    Fault.VERSION_STALE: Row(
        412,
        Text("内容已被更改", "It has changed"),
        Text(
            "If-Match 中的版本已不是最新，请重新读取后再试。",
            "The version of If-Match is not the newest: read it again.",
        ),
    ),
    Fault.PERSONAL_IN_ADDRESS: Row(
        400,
        Text("证件号码不得出现在网址中", "No document numbers in addresses"),
        Text(
            "网址会留在日志里。请以表单 POST 到 _search 提交证件号码。",
            "Addresses are kept in logs: send it as a form, by POST to _search.",
        ),
    ),
    Fault.SCOPE_MISSING: Row(
        403,
        Text("凭据无此权限", "The scope is missing"),
        Text(
            "该操作需要权限 {scope}，此凭据或令牌没有。请向医院信息科申请。",
            "This needs the scope {scope}, which these credentials or this token lack. Ask the hospital.",
        ),
    ),
    Fault.OUT_OF_RELATION: Row(
        403,
        Text("与该患者无就诊关系", "Not your patient"),
        Text(
            "医生只能查阅本人的患者，护士和窗口只能查阅今天在本科室的患者。确有需要时，医生和护士可说明理由申请紧急授权："
            "POST /api/v1/break-glass，有效 60 分钟，逐条复核。",
            "Doctors read their own patients, nurses and desks those who are in the department today. In an"
            " emergency, doctors and nurses break the glass with a reason: POST /api/v1/break-glass gives 60"
            " minutes, and every one is reviewed.",
        ),
    ),
    Fault.NOT_BY_ONESELF: Row(
        403,
        Text("不能对本人操作", "Not to oneself"),
        Text(
            "该操作须由他人对您的账号进行，或由他人复核。",
            "Somebody else must do this to your account, or review what you have done.",
        ),
    ),
    Fault.NOT_BY_MAKER: Row(
        403,
        Text("建账与授权须分开", "Not by who made it"),
        Text(
            "新建该账号的人不能再为其授予岗位，请由另一位安全管理员操作。",
            "Who made this account does not give it roles as well: ask another security administrator.",
        ),
    ),
    Fault.ONLY_AT_THE_MACHINE: Row(
        403,
        Text("须在服务器上操作", "Only at the machine"),
        Text(
            "管理员的岗位、停用、密码和身份验证器只能在服务器上用 xinglin staff 命令办理。",
            "Administrators are made, changed, disabled and let in again at the machine, with xinglin staff.",
        ),
    ),
    Fault.STAFF_REFUSED: Row(
        422,
        Text("账号内容不符合要求", "The account cannot be so"),
        Text("没有作任何更改：{why}", "Nothing was changed: {why}"),
    ),
    Fault.NO_SUCH_STAFF: Row(
        404,
        Text("没有该职工账号", "No such staff account"),
        Text("没有找到该职工账号。", "There is no such account of staff."),
    ),
    Fault.NO_SUCH_BREAK_GLASS: Row(
        404,
        Text("没有该紧急授权", "No such breaking of the glass"),
        Text("没有找到该紧急授权记录。", "There is no such record."),
    ),
    Fault.ALREADY_REVIEWED: Row(
        409,
        Text("已经复核", "Reviewed already"),
        Text("该紧急授权已有复核结论，不再更改。", "It has been judged, and stays as it was judged."),
    ),
    Fault.NOT_FOUND: Row(
        404, Text("没有找到", "Not found"), Text("请求的内容不存在。", "There is nothing at this address.")
    ),
    Fault.NOT_HERE: Row(
        404,
        Text("本服务不提供该功能", "Another service does this"),
        Text(
            "该地址由 {service} 服务提供，请向该服务请求。",
            "This address is of the service {service}: ask there.",
        ),
    ),
    Fault.NO_SUCH_DEPARTMENT: Row(
        404,
        Text("没有该科室", "No such department"),
        Text("没有找到该科室。", "There is no such department."),
    ),
    Fault.NO_SUCH_PRACTITIONER: Row(
        404,
        Text("没有该医生", "No such practitioner"),
        Text("没有找到该医生。", "There is no such practitioner."),
    ),
    Fault.NO_SUCH_PATIENT: Row(
        404,
        Text("没有该就诊人", "No such patient"),
        Text("没有找到该就诊人，或其不属于当前账号。", "No such patient belongs to this account."),
    ),
    Fault.NO_SUCH_REPORT: Row(
        404,
        Text("没有该报告", "No such report"),
        Text("没有找到该报告，或其不属于当前账号。", "No such report belongs to this account's people."),
    ),
    Fault.NO_SUCH_MESSAGE: Row(
        404,
        Text("没有该报文", "No such message"),
        Text("没有找到该报文，或它已不再等待处理。", "There is no such message, or it waits no more."),
    ),
    Fault.HELD_AT_INTAKE: Row(
        422,
        Text("报文未通过校验，已隔离", "Held at the intake"),
        Text(
            "findings 列出未通过的规则。报文已加密保存，规则或数据更正后将重新处理；"
            "也可更正后以同一编号重发。",
            "findings lists the rules that it broke. It is kept, sealed, and tried again when the rule or the"
            " data is mended; or correct it and send it again.",
        ),
    ),
    Fault.NO_SUCH_STUDY: Row(
        404,
        Text("没有该影像检查", "No such examination"),
        Text("没有找到该影像检查，或您无权查看。", "No such examination is yours to see."),
    ),
    Fault.NO_SUCH_PICTURE: Row(
        404,
        Text("没有该影像", "No such picture"),
        Text(
            "影像系统中没有这幅影像，可能已被删除或替换，请重新打开检查。",
            "The archive does not have it; it may have been replaced. Open the examination anew.",
        ),
    ),
    Fault.WINDOW_HALF: Row(
        422,
        Text("窗位与窗宽须一并给出", "Window centre and width come together"),
        Text("请同时给出 center 与 width，或都不给出。", "Give both center and width, or neither."),
    ),
    Fault.PICTURES_AWAY: Row(
        503,
        Text("影像系统暂时没有答复", "The picture archive does not answer"),
        Text("请稍后重试。", "Ask again in a moment."),
        retry_after=5,
    ),
    Fault.PICTURES_UNFIT: Row(
        502,
        Text("影像不完整或不属于该患者，未予显示", "The picture is damaged or not this patient's"),
        Text(
            "影像系统返回的数据未通过检查，为避免误读没有显示。请联系影像科。",
            "What the archive sent did not pass the checks and is not shown. Call the imaging department.",
        ),
    ),
    Fault.FHIR_UNREADABLE: Row(
        422,
        Text("不是可以读取的 FHIR 资源", "Not a FHIR resource that can be read"),
        Text(
            "须为 FHIR R4 的 JSON：Encounter、Condition、MedicationRequest、MedicationStatement、"
            "AllergyIntolerance，或由它们组成的 Bundle；place 指出位置，problem 说明原因。",
            "Send FHIR R4 as JSON: one of these, or a Bundle of them. place says where, problem why.",
        ),
    ),
    Fault.NO_SUCH_BILL: Row(
        404,
        Text("没有该账单", "No such bill"),
        Text("没有找到该账单，或它不属于当前账号。", "No such bill belongs to this account."),
    ),
    Fault.NO_SUCH_ALARM: Row(
        404,
        Text("没有该告警", "No such alarm"),
        Text(
            "没有这条支付告警，或已有人处理完毕，请刷新查看。",
            "There is no such alarm, or somebody has settled it; look at the list again.",
        ),
    ),
    Fault.COUPON_UNKNOWN: Row(
        404,
        Text("没有该优惠券", "No such coupon"),
        Text(
            "没有这张优惠券，请核对券码；指定给他人的券不能使用。",
            "There is no such coupon for this patient; check its code.",
        ),
    ),
    Fault.COUPON_UNFIT: Row(
        409,
        Text("优惠券不适用", "The coupon does not fit"),
        Text(
            "该优惠券不能用于此账单，原因见 why；可不使用优惠券支付。",
            "This coupon cannot be used for this bill for the reason given in why; pay without it.",
        ),
    ),
    Fault.COUPON_USED: Row(
        409,
        Text("优惠券已使用", "The coupon is used"),
        Text(
            "该优惠券已用于另一账单；该账单关闭或全额退款后可再次使用。",
            "Another bill has this coupon; it is free again once that one is closed or refunded in full.",
        ),
    ),
    Fault.PRICE_CHANGED: Row(
        409,
        Text("价格已变化", "The price has changed"),
        Text(
            "该就诊人的另一账单刚刚享用了同一优惠，请刷新价格后重试。",
            "Another bill of this patient was given the same discount just now; look at the price again.",
        ),
    ),
    Fault.METHOD_NOT_ALLOWED: Row(
        405,
        Text("请求方法不允许", "Method not allowed"),
        Text("该地址不支持此请求方法。", "This address does not take that method; see the Allow header."),
    ),
    Fault.IDENTITY_MISMATCH: Row(
        409,
        Text("证件信息不一致", "Identity mismatch"),
        Text(
            "该证件号码已登记，但与所填姓名、出生日期或性别不一致，请核对或到窗口办理。",
            "This identity is known, but with another name, birth date or sex; check them, or ask us.",
        ),
    ),
    Fault.REAL_NAME_MISMATCH: Row(
        409,
        Text("姓名与证件号码不符", "Name and number do not match"),
        Text(
            "实名核验未通过：姓名与证件号码不一致，请核对后重试，或携带证件到窗口办理。",
            "The register of real names does not know this number under this name; check both, or bring the"
            " document to the desk.",
        ),
    ),
    Fault.TOO_MANY_MISMATCHES: Row(
        429,
        Text("今日核验次数已用完", "Too many mismatches today"),
        Text(
            "姓名与证件号码多次不符（每日最多 {limit} 次），请明天再试，或携带证件到窗口办理。",
            "Names and numbers did not match {limit} times within a day; try again tomorrow, or bring the"
            " document to the desk.",
        ),
    ),
    Fault.PAYING_NOT_DELEGATED: Row(
        403,
        Text("未授权支付", "Paying was not allowed"),
        Text(
            "该就诊人没有授权当前账号为其支付。",
            "This patient does not let this account pay for them.",
        ),
    ),
    Fault.GUARDIAN_NEEDED: Row(
        409,
        Text("需要监护人办理", "A guardian is needed"),
        Text(
            "未满 14 周岁的就诊人须由监护人添加：监护人先在本账号添加本人，再以“子女”或“被监护人”添加。",
            "Who is under 14 is added by a guardian: add yourself first, then the child as child or ward.",
        ),
    ),
    Fault.PERSON_MUST_CONSENT: Row(
        409,
        Text("须本人同意", "The person must consent"),
        Text(
            "该就诊人已有自己的账号，请重新添加，由其本人同意。",
            "This person has an account of their own by now; add them again, and they are asked there.",
        ),
    ),
    Fault.NO_SUCH_DELEGATION: Row(
        404,
        Text("没有该授权或申请", "No such delegation"),
        Text(
            "没有找到该授权或申请，或它与当前账号无关。",
            "There is no such right or request, or it does not concern you.",
        ),
    ),
    Fault.DELEGATION_DECIDED: Row(
        409,
        Text("该申请已处理或已过期", "Already decided"),
        Text(
            "该申请已被答复、撤回或已过期，请重新申请。",
            "This request was answered or withdrawn, or is over; it has to be made anew.",
        ),
    ),
    Fault.PHONE_CODE_REFUSED: Row(
        422,
        Text("手机号授权无效", "The phone code was refused"),
        Text(
            "手机号授权码无效或已使用，请重新授权。",
            "WeChat refused this code; ask the person for their number again.",
        ),
    ),
    Fault.PHONE_UNAVAILABLE: Row(
        503,
        Text("暂时无法绑定手机号", "Phones cannot be bound now"),
        Text("微信暂时无法提供手机号，请稍后重新授权。", "WeChat does not answer; try again in a moment."),
        retry_after=5,
    ),
    Fault.HOSPITAL_BILLING_OFF: Row(
        404,
        Text("未接入收费系统", "No billing is connected"),
        Text(
            "本院的药品、检查费请在窗口或自助机缴纳。",
            "Drugs and examinations are paid at the hospital's windows.",
        ),
    ),
    Fault.HOSPITAL_BILLING_AWAY: Row(
        503,
        Text("收费系统暂时没有答复", "The hospital's billing does not answer"),
        Text(
            "暂时无法确认这笔费用，没有扣款；请稍后再试，或到窗口缴纳。",
            "What is to be paid cannot be confirmed now; nothing was taken. Try again, or pay at a window.",
        ),
        retry_after=5,
    ),
    Fault.BILLING_CALL_REFUSED: Row(
        401,
        Text("签名无效", "Not signed by the billing"),
        Text(
            "签名、时间或随机数不符，请求未执行。",
            "Signature, time or nonce do not fit; nothing was done.",
        ),
    ),
    Fault.BILLING_CALL_UNFIT: Row(
        422,
        Text("内容有误", "The call does not add up"),
        Text("{why}：请求未执行。", "{why}: nothing was done."),
    ),
    Fault.TOO_MANY_PATIENTS: Row(
        409,
        Text("就诊人数已达上限", "Too many patients"),
        Text("每个账号最多添加 {limit} 位就诊人。", "An account may have up to {limit} patients."),
    ),
    Fault.NO_SUCH_PENALTY: Row(
        404,
        Text("没有该处罚记录", "No such penalty"),
        Text(
            "没有找到该处罚记录，或它与当前账号无关。",
            "There is no such penalty, or it does not concern you.",
        ),
    ),
    Fault.DELEGATION_REVOKED: Row(
        409,
        Text("代预约权限已撤销", "The right was taken back"),
        Text(
            "为该就诊人预约的权限已被撤销；如需恢复，请重新添加就诊人。",
            "The right to book for this patient was taken back; add the patient again to give it anew.",
        ),
    ),
    Fault.CHILD_IS_GROWN_UP: Row(
        409,
        Text("就诊人已成年", "The child has grown up"),
        Text(
            "该就诊人已年满 18 周岁，监护关系不能续期；请经本人同意后重新添加。",
            "This patient has turned 18, so a parent's right is over; ask them, and add them again.",
        ),
    ),
    Fault.ID_DIGITS_MISMATCH: Row(
        422,
        Text("证件号码后四位不符", "The last digits differ"),
        Text(
            "证件号码后四位与登记的不一致，请核对后重试。",
            "These are not the last four characters of the number that we know.",
        ),
    ),
    Fault.PENALTY_OVER: Row(
        409,
        Text("处罚已结束", "The penalty is over"),
        Text("该处罚已结束或已撤销，无需申诉。", "This penalty has ended or was lifted; it blocks nobody."),
    ),
    Fault.ALREADY_APPEALED: Row(
        409,
        Text("已申诉", "Already appealed"),
        Text(
            "每项处罚只能申诉一次，请等待或查看处理结果。",
            "A penalty may be appealed once; see what was decided.",
        ),
    ),
    Fault.NO_OPEN_APPEAL: Row(
        409,
        Text("没有待处理的申诉", "No open appeal"),
        Text(
            "该处罚没有待处理的申诉，可能已由他人处理。",
            "No appeal waits for a decision here; perhaps a colleague has decided it.",
        ),
    ),
    Fault.WAY_UNKNOWN: Row(
        422,
        Text("路程未知", "Unknown way"),
        Text(
            "请填写到医院的分钟数；若提供位置，医院须已登记院区坐标。",
            "Say how many minutes the way takes. A position helps only where the hospital has said where its"
            " campus is.",
        ),
    ),
    Fault.WISH_IMPOSSIBLE: Row(
        409,
        Text("候补无法满足", "This wish can never be met"),
        Text("没有符合条件的门诊。", "No session can meet this wish."),
    ),
    Fault.WISH_TOO_WIDE: Row(
        422,
        Text("候补范围过大", "The wish is too wide"),
        Text(
            "符合条件的排班有 {found} 个，一个候补最多 {limit} 个；请缩小医生或日期范围。",
            "{found} schedules would do, and a wish waits at {limit} at most; name doctors, or fewer days.",
        ),
    ),
    Fault.BODY_TOO_LARGE: Row(
        413,
        Text("请求体过大", "Body too large"),
        Text("请求体超过了 {limit} 字节的上限。", "The body is larger than {limit} bytes."),
    ),
    Fault.UNSUPPORTED_MEDIA_TYPE: Row(
        415,
        Text("不支持的内容类型", "Unsupported media type"),
        Text("请求体须为 application/json（UTF-8）。", "The body must be application/json in UTF-8."),
    ),
    Fault.EXPECTATION_FAILED: Row(
        417,
        Text("不支持的 Expect", "Expectation failed"),
        Text("只支持 Expect: 100-continue。", "Only Expect: 100-continue is supported."),
    ),
    Fault.INVALID_BODY: Row(
        422,
        Text("请求内容有误", "Invalid body"),
        Text("请求体中有字段不符合要求，详见 errors。", "Some fields of the body are not valid; see errors."),
    ),
    Fault.INVALID_QUERY: Row(
        422,
        Text("查询参数有误", "Invalid query"),
        Text("查询参数不符合要求，详见 errors。", "Some query parameters are not valid; see errors."),
    ),
    Fault.INVALID_NAME: Row(
        422,
        Text("姓名有误", "Invalid name"),
        Text("姓名须为 1 到 64 个文字，可含间隔号。", "A name is 1 to 64 letters of any script."),
    ),
    Fault.INVALID_ID_NUMBER: Row(
        422,
        Text("证件号码有误", "Invalid identity number"),
        Text("证件号码不正确，请核对证件类型与号码。", "The number does not fit its kind of document."),
    ),
    Fault.INVALID_BIRTH_DATE: Row(
        422,
        Text("出生日期有误", "Invalid birth date"),
        Text("出生日期不正确，或与证件不一致。", "The birth date is impossible or contradicts the document."),
    ),
    Fault.INVALID_SEX: Row(
        422,
        Text("性别有误", "Invalid sex"),
        Text("性别与证件不一致。", "The sex contradicts the document."),
    ),
    Fault.INVALID_PHONE: Row(
        422,
        Text("手机号有误", "Invalid phone"),
        Text(
            "请填写大陆手机号，或以 + 开头的国际号码。",
            "Give a mainland mobile number, or an international one that starts with +.",
        ),
    ),
    Fault.UNSUPPORTED_PROVIDER: Row(
        422,
        Text("暂不支持该支付方式", "This way of paying is not offered"),
        Text(
            "本院或当前账号不能使用该支付方式，可用的方式见账单的 providers。",
            "This hospital, or this account, cannot use it; `providers` of the bill names what can be used.",
        ),
    ),
    Fault.PROVIDER_AWAY: Row(
        503,
        Text("支付平台暂时没有答复", "The payment provider does not answer"),
        Text(
            "请稍后用同一个 Idempotency-Key 重试，不会重复扣款。",
            "Ask again in a moment with the same Idempotency-Key: nothing is taken twice.",
        ),
        retry_after=2,
    ),
    Fault.PAYMENT_OVER: Row(
        409,
        Text("该次支付已关闭", "This attempt to pay is over"),
        Text(
            "该次支付未成功且已关闭，没有扣款；请换一个新的 Idempotency-Key 重新支付。",
            "It was not paid and is closed, and nothing was taken; pay again with a new Idempotency-Key.",
        ),
    ),
    Fault.COUPON_TOO_LATE: Row(
        409,
        Text("账单已开出", "The bill is open already"),
        Text(
            "优惠券只能在首次支付时使用；该账单已按现价开出，请直接支付。",
            "A coupon goes with the first payment; this bill was opened without it, so pay it as it is.",
        ),
    ),
    Fault.CALLBACK_UNSIGNED: Row(
        401,
        Text("签名无效", "Not signed by them"),
        Text("通知的签名、证书或时间无效。", "The message's signature, its key or its time is not good."),
    ),
    Fault.CALLBACK_REFUSED: Row(
        400,
        Text("通知未被接受", "Refused"),
        Text("通知与本院的订单不符，未作任何更改。", "It does not fit our orders, and nothing was changed."),
    ),
    Fault.CALLBACK_LATER: Row(
        503,
        Text("请稍后再通知", "Tell us again later"),
        Text("暂时无法记录，请稍后重发。", "It could not be committed in time; please send it again."),
        retry_after=2,
    ),
    Fault.OIDC_STATE_REFUSED: Row(
        400,
        Text("登录已失效", "Sign-in is over"),
        Text(
            "这次登录不是从本浏览器发起的，或已超过十分钟，请重新登录。",
            "This sign-in did not begin in this browser, or it took longer than ten minutes; sign in again.",
        ),
    ),
    Fault.OIDC_NOT_LINKED: Row(
        403,
        Text("账号未关联", "Not linked"),
        Text(
            "统一身份认证已通过，但尚未关联本系统的职工账号，请联系管理员。",
            "The identity provider knows you, but no account here is linked to you; ask an administrator.",
        ),
    ),
    Fault.OIDC_FACTOR_NEEDED: Row(
        403,
        Text("需要双因素认证", "A second factor is needed"),
        Text(
            "请在统一身份认证中使用双因素认证后重新登录。",
            "Sign in at the identity provider with a second factor, then come back.",
        ),
    ),
    Fault.UNSUPPORTED_GRANT: Row(
        422,
        Text("不支持的登录方式", "Unsupported grant"),
        Text("暂不支持这种登录方式。", "This way of signing in is not offered here."),
    ),
    Fault.NO_SUCH_TOPIC: Row(
        404,
        Text("没有该主题", "No such topic"),
        Text(
            "该主题不可订阅；可订阅 schedule/<排班>、department/<科室>、practitioner/<医生>。",
            "Topics are schedule/<id>, department/<id> and practitioner/<id>.",
        ),
    ),
    Fault.TOO_MANY_TOPICS: Row(
        409,
        Text("订阅过多", "Too many topics"),
        Text(
            "一个连接最多订阅 {limit} 个主题，请先退订。",
            "One connection may have {limit} topics; unsubscribe from some first.",
        ),
    ),
    Fault.TOPIC_TOO_WIDE: Row(
        409,
        Text("主题过宽", "The topic is too wide"),
        Text(
            "该主题超过 {limit} 个排班，请订阅其下级科室或医生。",
            "The topic has more than {limit} schedules; take a department below it, or a practitioner.",
        ),
    ),
    Fault.FOREIGN_ORIGIN: Row(
        403,
        Text("来源不被允许", "Foreign origin"),
        Text("该网页的来源不被允许。", "Pages of this origin may not ask here."),
    ),
    Fault.TOO_MANY_REQUESTS: Row(
        429,
        Text("请求过于频繁", "Too many requests"),
        Text(
            "请求过于频繁，请在 {retry_after} 秒后重试；本次请求未做任何处理。",
            "You ask too often; nothing was done. Retry in {retry_after} s.",
        ),
    ),
    Fault.REQUEST_TIMEOUT: Row(
        408,
        Text("请求接收超时", "The request came too slowly"),
        Text(
            "请求未在规定时间内传完；未做任何处理。",
            "The request did not arrive in time; nothing was done.",
        ),
    ),
    Fault.HEAD_TOO_LARGE: Row(
        431,
        Text("请求头过大", "Head too large"),
        Text("请求头过大。", "The head of the request is too large."),
    ),
    Fault.UPGRADE_REQUIRED: Row(
        426,
        Text("需要 WebSocket", "WebSocket required"),
        Text("请以 WebSocket 连接该地址。", "This address speaks WebSocket only."),
    ),
    Fault.STREAM_FULL: Row(
        503,
        Text("连接过多", "Too many connections"),
        Text(
            "实时连接已满，请稍后重试；仍可查询余号。",
            "No more live connections for now; retry shortly. Reading the slots still works.",
        ),
        retry_after=5,
    ),
    Fault.WHAT_IF_BUSY: Row(
        503,
        Text("测算繁忙", "Still reckoning"),
        Text(
            "正在测算另一份出诊模板，请稍后重试。",
            "Another week is being reckoned; retry shortly.",
        ),
        retry_after=10,
    ),
    Fault.NO_SUCH_CONSENT: Row(
        404,
        Text("没有该告知书", "No such text"),
        Text("没有这种告知书，或没有可以撤回的同意。", "There is no such text, or no consent to withdraw."),
    ),
    Fault.CONSENT_OUTDATED: Row(
        409,
        Text("告知书已更新", "The text is not the newest"),
        Text(
            "告知书已更新为 {newest} 版，请重新阅读后再同意。",
            "Version {newest} is in force now; read it, then agree to it.",
        ),
    ),
    Fault.CONSENT_OF_WHOM: Row(
        422,
        Text("请说明为谁同意", "Say for whom"),
        Text(
            "监护人同意书须针对一位就诊人，请填写 patient_id。",
            "A guardian agrees for one child: give patient_id.",
        ),
    ),
    Fault.ERASURE_BLOCKED: Row(
        409,
        Text("暂不能删除", "Not yet"),
        Text(
            "还有未办结的事项（见 obstacles），请先取消预约、撤回候补或等待处理完毕。",
            "Some things are not settled (see obstacles): cancel, withdraw or wait for them first.",
        ),
    ),
    Fault.ERASURE_REFUSED: Row(
        403,
        Text("不能代为删除", "Not yours to erase"),
        Text(
            "只有本人或监护人可以要求删除，且证件号码后四位须相符。",
            "Only the person or a child's guardian may ask, naming the document's last four characters.",
        ),
    ),
    Fault.CURSOR_BROKEN: Row(
        400,
        Text("游标无效", "Not a cursor of ours"),
        Text(
            "after 不是本系统给出的 cursor，或已损坏。请原样使用上一页的 cursor。",
            "`after` is no cursor of this system, or was changed. Hand back the last page's cursor as it is.",
        ),
    ),
    Fault.CURSOR_AHEAD: Row(
        410,
        Text("游标已失效", "The cursor is no more"),
        Text(
            "游标所指的事件已不存在（数据库曾恢复到更早的时间）。请核对数据后不带 after 重新开始。",
            "The events it points behind are not there: the database was put back. Compare, then begin anew.",
        ),
    ),
    Fault.EVENTS_BUSY: Row(
        503,
        Text("等待者过多", "Too many readers wait"),
        Text("等待事件的连接过多，请稍后再试。", "Too many readers wait for events; retry shortly."),
        retry_after=5,
    ),
    Fault.NO_SUCH_EVENT: Row(
        404,
        Text("没有该事件", "No such event"),
        Text("没有该编号的事件，或该事件不对外发布。", "No event has this id, or it is not told outside."),
    ),
    Fault.WEBHOOKS_OFF: Row(
        409,
        Text("未启用 Webhook", "Webhooks are off"),
        Text(
            "本院未启用 Webhook，请联系信息科，或改用事件流。",
            "This hospital delivers no webhooks. Ask it to, or read the feed of events.",
        ),
    ),
    Fault.NO_SUCH_WEBHOOK: Row(
        404,
        Text("没有该 Webhook", "No such webhook"),
        Text("没有该 Webhook，或不属于本系统。", "There is no such webhook, or it is not yours."),
    ),
    Fault.WEBHOOK_ADDRESS_REFUSED: Row(
        422,
        Text("地址不可用", "The address will not do"),
        Text(
            "地址须为 https://，不含用户名与片段，且不得指向内网或本机（原因：{why}）。",
            "It must be https://, without user or fragment, and outside this network (because: {why}).",
        ),
    ),
    Fault.TOO_MANY_WEBHOOKS: Row(
        409,
        Text("Webhook 过多", "Too many webhooks"),
        Text("最多登记 {limit} 个 Webhook。", "At most {limit} webhooks."),
    ),
    Fault.EXPORT_BUSY: Row(
        503,
        Text("导出繁忙", "Exports are busy"),
        Text("正在为其他人导出，请稍后再试。", "Others are exporting just now; retry shortly."),
        retry_after=5,
    ),
    Fault.CORRECTION_REFUSED: Row(
        409,
        Text("不能这样更正", "Not corrected like this"),
        Text(
            "证件号码与该就诊人不符，或没有需要更正的内容，或信息已删除。",
            "The document is not this patient's, or nothing differs, or the data is erased.",
        ),
    ),
    Fault.NO_SUCH_ROOM: Row(
        422,
        Text("没有该诊室", "No such room"),
        Text("没有诊室 {room}，请核对诊室编号。", "There is no room {room}; check its id."),
    ),
    Fault.NO_SUCH_NUMBER_CLASS: Row(
        422,
        Text("没有该号别", "No such number class"),
        Text("没有号别 {number_class}，请核对。", "There is no number class {number_class}; check its id."),
    ),
    Fault.NO_SUCH_REQUEST: Row(
        404,
        Text("没有该申请", "No such request"),
        Text("没有找到该变更申请。", "There is no such change request."),
    ),
    Fault.NO_SUCH_DIFFERENCE: Row(
        404,
        Text("没有该差异", "No such difference"),
        Text("没有找到该对账差异。", "There is no such difference."),
    ),
    Fault.DIFFERENCE_CLOSED: Row(
        409,
        Text("差异已了结", "The difference is closed"),
        Text(
            "该差异已经消除或由他人处理，请刷新查看。",
            "It is gone, or somebody has seen to it already; look at it again.",
        ),
    ),
    Fault.DAY_NOT_OVER: Row(
        409,
        Text("当天尚未结束", "The day is not over"),
        Text("只能对账或关账已经结束的日期。", "Only days that are over are reconciled or closed."),
    ),
    Fault.DAY_CLOSED: Row(
        409,
        Text("该日已关账", "The day is closed"),
        Text(
            "该日已经关账；之后的变动计入其发生日的调整。",
            "It is closed already; what came later is an adjustment of the day on which it came.",
        ),
    ),
    Fault.REQUEST_DECIDED: Row(
        409,
        Text("申请已处理", "Already decided"),
        Text(
            "该申请已处理或正在执行（{request_status}），请刷新查看。",
            "This request is decided or being carried out ({request_status}); look at it again.",
        ),
    ),
    Fault.ROOM_TAKEN: Row(
        409,
        Text("诊室已被占用", "The room is taken"),
        Text(
            "诊室 {room} 在该时间已用于 {schedule_id}；换诊室，或说明原因并以 force 强制。",
            "Room {room} is used by {schedule_id} at that time; choose another, or force it with a note.",
        ),
    ),
    Fault.PRACTITIONER_BUSY: Row(
        409,
        Text("该医生同一时间有其他门诊", "The practitioner is busy"),
        Text(
            "医生 {practitioner_id} 在该时间有门诊 {schedule_id}（{start}–{end}）。",
            "Practitioner {practitioner_id} holds {schedule_id} at that time ({start}-{end}).",
        ),
    ),
    Fault.SUBSTITUTE_UNFIT: Row(
        409,
        Text("不能替诊", "Not fit to substitute"),
        Text(
            "替诊医生须为同科室、职称不低于原医生的其他医生（不符：{unfit}）。",
            "A substitute is another one of the same department and at least the same title ({unfit} fails).",
        ),
    ),
    Fault.INVALID_TIMES: Row(
        422,
        Text("时间有误", "The times do not fit"),
        Text(
            "起止时间须为半点或整点、先后正确，且当天确有该时刻（夏令时会跳过一些）。",
            "Times are on the half hour, in order, and exist on that day: daylight saving leaves some out.",
        ),
    ),
    Fault.INVALID_WEEK: Row(
        422,
        Text("出诊安排有误", "The week does not fit"),
        Text("出诊模板或调整不符合要求，详见 errors。", "Sessions are not as they should be; see errors."),
    ),
    Fault.NOTHING_TO_CHANGE: Row(
        409,
        Text("没有需要变更的内容", "Nothing to change"),
        Text("门诊已是所要求的状态。", "The sessions are already as asked for."),
    ),
    Fault.NOT_ON_DUTY: Row(
        409,
        Text("该医生今天不在这里出诊", "Not on duty here"),
        Text(
            "医生 {practitioner_id} 今天在本科室没有门诊，也没有开诊，转过去的患者会没有人叫。",
            "{practitioner_id} has no session and no open room here that day: nobody would call the patient.",
        ),
    ),
    Fault.NOT_TODAY: Row(
        409,
        Text("不是今天的候诊", "Not today's waiting room"),
        Text(
            "只能操作今天（{day}）的候诊，跨夜时可操作昨天的；请刷新页面。",
            "Only today's waiting room ({day}) can be changed, or yesterday's after midnight; look again.",
        ),
    ),
    Fault.REQUEST_REFUSED: Row(
        400, Text("请求被拒绝", "Request refused"), Text("该请求无法处理。", "This request cannot be served.")
    ),
    Fault.QR_INVALID: Row(
        422,
        Text("二维码无效", "Not such a code"),
        Text(
            "这不是本院的签到二维码，请在小程序里重新打开。",
            "This is not a check-in code of this hospital; open it anew in the mini-program.",
        ),
    ),
    Fault.QR_EXPIRED: Row(
        422,
        Text("二维码已过期", "The code has expired"),
        Text(
            "二维码两分钟内有效，截图不能使用，请在小程序里刷新。",
            "A code is good for two minutes, so a screenshot does not do; refresh it in the mini-program.",
        ),
    ),
    Fault.SEVERAL_NUMBERS: Row(
        409,
        Text("今天有多个号", "Several numbers today"),
        Text(
            "今天有多个可以签到的号，请从 choices 中选择一个再试。",
            "More than one number could be checked in; choose one of choices and ask again.",
        ),
    ),
    Fault.NO_NUMBER_TODAY: Row(
        404,
        Text("今天没有号", "No number today"),
        Text(
            "没有找到今天可以签到的号，请核对证件，或到窗口办理。",
            "There is no number of today to check in; check the document, or ask at the window.",
        ),
    ),
    Fault.NO_WALK_INS: Row(
        409,
        Text("不接受现场取号", "No walk-ins"),
        Text(
            "该科室只接诊已预约的患者，请先预约，或到分诊台咨询。",
            "This department sees booked patients only; book a number, or ask at the desk.",
        ),
    ),
    Fault.SAY_WHO: Row(
        422,
        Text("请说明是谁", "Say who it is"),
        Text(
            "请出示证件、二维码或选择就诊人，且只用其中一种。",
            "Give a document, a QR code or a patient: one of them, and only one.",
        ),
    ),
    Fault.INTERNAL: Row(
        500,
        Text("系统错误", "Internal error"),
        Text(
            "系统出现错误，请稍后重试；如需帮助请提供编号 {request_id}。",
            "Something went wrong on our side; when you ask for help, name request {request_id}.",
        ),
    ),
    Fault.SIGN_IN_UNAVAILABLE: Row(
        503,
        Text("暂时无法登录", "Sign-in unavailable"),
        Text(
            "登录服务暂时不可用，请稍后重新登录。",
            "The sign-in service is away; sign in again shortly.",
        ),
        retry_after=2,
    ),
    Fault.DATABASE_DOWN: Row(
        503,
        Text("服务暂不可用", "Service unavailable"),
        Text("数据服务暂不可用，请稍后重试。", "The database is away for a moment; please retry."),
        retry_after=2,
    ),
    Fault.OUTCOME_UNKNOWN: Row(
        503,
        Text("结果未知", "Outcome unknown"),
        Text(
            "请求可能已经成功，也可能没有；请用同一个 Idempotency-Key 再问一次，不会重复预约。",
            "Perhaps done, perhaps not. Ask again with the same Idempotency-Key: nothing is done twice.",
        ),
        retry_after=1,
    ),
}

RULES: Final[dict[str, Text]] = {
    "patient_of_another_account": Text(
        "该就诊人不属于当前账号，请先添加就诊人。",
        "This patient is not one of this account's.",
    ),
    "delegation_expired": Text(
        "当前账号为该就诊人预约的权限已到期或已撤销，请先续期或重新添加就诊人。",
        "This account's right to book for this patient has ended; renew it, or add the patient again.",
    ),
    "delegation_without_booking": Text(
        "该就诊人没有授权当前账号为其预约。",
        "This patient lets this account see, but not book for them.",
    ),
    "real_name_required": Text(
        "本院要求实名核验后预约；该就诊人尚未核验，请稍后再试，或携带证件到窗口核验。",
        "Patients book here once their real name is verified, and this one's is not yet; try again later, or"
        " bring the document to the desk.",
    ),
    "day_appointments_max": Text(
        "该就诊人当天在全院已有 {limit} 个号，达到每日上限。",
        "This patient already has {limit} numbers on that day, over all departments: the most allowed.",
    ),
    "active_appointments_max": Text(
        "该就诊人已有 {limit} 个未就诊的预约，达到上限。",
        "This patient already has {limit} appointments ahead, which is the most allowed.",
    ),
    "account_holds_max": Text(
        "当前账号已有 {limit} 个待支付的预约，请先支付或取消。",
        "This account has {limit} unpaid holds; pay or cancel one first.",
    ),
    "not_a_follow_up": Text(
        "该就诊人 {limit} 天内没有在本科室就诊，请预约初诊号。",
        "This patient has not been seen here within {limit} days; book a first visit.",
    ),
    "department_sex": Text(
        "该科室的接诊性别与就诊人不符。", "This department does not see patients of this sex."
    ),
    "department_age": Text(
        "就诊人年龄不在该科室的接诊范围内（界限 {limit} 周岁）。",
        "The patient's age is outside what this department sees (limit: {limit} years).",
    ),
}
"""What `not_eligible` says for each rule of engine.domain.eligibility."""

BOOKINGS: Final[dict[str, Text]] = {
    "booking_pending": Text(
        "该预约尚未支付或确认，请先确认后再签到。",
        "This number is not confirmed yet; confirm it, then check in.",
    ),
    "booking_waitlist": Text("该候补尚未成功，还没有号。", "This wish was not met: there is no number."),
    "booking_cancelled": Text("该预约已取消，不能签到。", "This number was cancelled."),
    "booking_noshow": Text(
        "该预约已记为爽约，请到分诊台办理。", "This number was marked as missed; please go to the desk."
    ),
    "booking_fulfilled": Text("该预约已就诊完成。", "This visit has taken place already."),
    "booking_suspended": Text(
        "该门诊已停诊，不能签到；请查看停诊安排或到窗口办理。",
        "This session was called off; see what was arranged instead, or ask at the window.",
    ),
    "nobody_on_duty": Text(
        "该科室今天没有医生出诊，请改日预约。",
        "Nobody sees patients in this department today; book another day.",
    ),
}
"""What `not_booked` says at check-in, by what the number is instead; and `no_walk_ins` without a rule."""

WISHES: Final[dict[str, Text]] = {
    "wishes_max": Text(
        "当前账号已有 {limit} 个进行中的候补，达到上限；请先撤回一个。",
        "This account has {limit} open wishes, which is the most allowed; withdraw one first.",
    ),
    "no_session": Text(
        "所选日期内没有符合条件的门诊，也不会放号。",
        "There is no such clinic on these days, and none will be published.",
    ),
    "not_at_these_times": Text(
        "所选日期的门诊不在所选时间内。", "The clinics of these days are at other times."
    ),
    "not_earlier": Text("没有早于现有预约的门诊时段。", "No slot begins before the one you have."),
    "over": Text(
        "所选时段已开始或候补已截止。", "All these slots have begun, or their waiting lists have closed."
    ),
    "suspended": Text("所选门诊均已停诊。", "All these sessions were called off."),
    "no_waitlist": Text("所选门诊不开放候补。", "These clinics have no waiting list."),
    "booked_each_day": Text(
        "就诊人在所选的每一天都已有该科室的号，或时间冲突。",
        "On each of these days the patient has a number in this department, or another one at these times.",
    ),
    "another_patient": Text(
        "要提前的预约不属于所选就诊人。", "The appointment to be replaced is another patient's."
    ),
}
"""What is said of a wish that cannot be: `wish_impossible` (engine/views/places.py), or too many of them."""

PENALTIES: Final[dict[str, Text]] = {
    "no_show": Text(
        "因多次爽约，已按规则「{rule}」暂停预约，恢复时间见 until；可就 penalty_id 申诉。",
        'Visits were missed, so rule "{rule}" stops booking until the time given; you may appeal.',
    ),
    "late_cancel": Text(
        "因多次临近就诊才取消，已按规则「{rule}」暂停预约，恢复时间见 until；可就 penalty_id 申诉。",
        'Visits were cancelled late, so rule "{rule}" stops booking until the time given; you may appeal.',
    ),
    "cancel": Text(
        "因频繁取消预约，已按规则「{rule}」暂停预约，恢复时间见 until；可就 penalty_id 申诉。",
        'Numbers were cancelled too often, so rule "{rule}" stops booking until the time given;'
        " you may appeal.",
    ),
    "dropped_hold": Text(
        "因多次占号不付，已按规则「{rule}」暂停预约，恢复时间见 until；可就 penalty_id 申诉。",
        'Numbers were held and let go unpaid, so rule "{rule}" stops booking until the time given;'
        " you may appeal.",
    ),
}
"""What `not_eligible` says where a hospital's own conduct rule stopped somebody, for each offence."""

INVALID: Final[dict[str, Text]] = {
    "delegation_until": Text("须在今天起 {days} 天之内", "must lie within {days} days from today"),
    "session_twice": Text(
        "同一天的同一午别出现了两次", "the same session of the same weekday is there twice"
    ),
    "session_overlap": Text(
        "与当天另一午别重叠或次序颠倒", "overlaps another session of that day, or is in the wrong order"
    ),
    "closed_with_hours": Text(
        "停开的门诊不能再填时间和号数", "a session that is closed has neither hours nor seats"
    ),
    "department_above": Text(
        "请填写其下级科室，患者在那里挂号", "has departments below it, and patients book those"
    ),
    "password_too_short": Text("密码至少 {min} 个字符", "must have at least {min} characters"),
    "password_too_long": Text("密码最多 {max} 个字符", "must have at most {max} characters"),
    "password_too_plain": Text(
        "密码须包含大写字母、小写字母、数字、其他符号中的至少 {kinds} 种",
        "must mix at least {kinds} of small letters, capitals, digits and other signs",
    ),
    "password_has_name": Text("密码不能包含用户名或姓名", "must not have the username or the name in it"),
    "password_common": Text("密码过于常见，容易被猜到", "is too common, or too easily guessed"),
    "password_used_before": Text("不能使用现在或近期用过的密码", "was used before"),
    "missing": Text("缺少必填项", "is required"),
    "extra_forbidden": Text("未知的字段", "is not a known field"),
    "model_type": Text("须为 JSON 对象", "must be an object"),
    "model_attributes_type": Text("须为 JSON 对象", "must be an object"),
    "dataclass_type": Text("须为 JSON 对象", "must be an object"),
    "dict_type": Text("须为 JSON 对象", "must be an object"),
    "list_type": Text("须为数组", "must be an array"),
    "string_type": Text("须为字符串", "must be a string"),
    "string_too_short": Text("至少 {min_length} 个字符", "must have at least {min_length} characters"),
    "string_too_long": Text("最多 {max_length} 个字符", "must have at most {max_length} characters"),
    "string_pattern_mismatch": Text("格式不正确", "is not spelled as it should be"),
    "int_type": Text("须为整数", "must be an integer"),
    "int_parsing": Text("须为整数", "must be an integer"),
    "int_from_float": Text("须为整数", "must be an integer"),
    "bool_type": Text("须为 true 或 false", "must be true or false"),
    "bool_parsing": Text("须为 true 或 false", "must be true or false"),
    "greater_than_equal": Text("不得小于 {ge}", "must be at least {ge}"),
    "less_than_equal": Text("不得大于 {le}", "must be at most {le}"),
    "uuid_type": Text("须为 UUID", "must be a UUID"),
    "uuid_parsing": Text("须为 UUID", "must be a UUID"),
    "literal_error": Text("须为以下之一：{expected}", "must be one of {expected}"),
    "enum": Text("须为以下之一：{expected}", "must be one of {expected}"),
    "union_tag_not_found": Text("缺少必填项 {discriminator}", "must name its {discriminator}"),
    "union_tag_invalid": Text("须为以下之一：{expected_tags}", "must be one of {expected_tags}"),
    "reference": Text("须为对本系统 {kind} 的引用", "must be a reference to a {kind} of this system"),
    "too_wide": Text(
        "范围过大：请指明排班、医生、科室，或不超过一天的时间",
        "asks for too much: name a schedule, a practitioner, a department, or a day at most",
    ),
    "other_than_slot": Text("与所选时段不一致", "is not the time of the slot"),
    "one_patient": Text("须有且仅有一位患者", "must name one Patient, and no more"),
    "modifier": Text("不支持 modifierExtension", "modifier extensions are not known here"),
    "too_many": Text("最多 {limit} 项", "must have at most {limit}"),
    "fhir_date": Text(
        "须为 FHIR 日期或时间，前缀限 eq、ge、gt、le、lt、sa、eb",
        "must be a date or time of FHIR's, with eq, ge, gt, le, lt, sa or eb before it",
    ),
    "iso_date": Text("须为 yyyy-mm-dd 格式的日期", "must be a date, yyyy-mm-dd"),
    "zoned_time": Text("须为带时区的 ISO 8601 时间", "must be an ISO 8601 time with its offset"),
    "below_diastolic": Text("收缩压须高于舒张压", "must be above the diastolic pressure"),
    "repeated": Text("只能出现一次", "may be given once only"),
}
"""Words for pydantic's error types, which are also the `code` of each entry in `errors`."""

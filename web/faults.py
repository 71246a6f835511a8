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
    SIGN_IN_REFUSED = "sign_in_refused"
    NOT_FOUND = "not_found"
    NO_SUCH_DEPARTMENT = "no_such_department"
    NO_SUCH_PRACTITIONER = "no_such_practitioner"
    NO_SUCH_PATIENT = "no_such_patient"
    NO_SUCH_BILL = "no_such_bill"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    IDENTITY_MISMATCH = "identity_mismatch"
    TOO_MANY_PATIENTS = "too_many_patients"
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
    REQUEST_REFUSED = "request_refused"
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
    Reason.NOT_ELIGIBLE: Row(
        403, Text("不符合预约条件", "Not eligible"), Text("不符合预约条件。", "This booking is not allowed.")
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
    Fault.SIGN_IN_REFUSED: Row(
        401,
        Text("登录失败", "Sign-in refused"),
        Text("登录凭证无效或已使用，请重新登录。", "The sign-in code is invalid or was used; sign in again."),
    ),
    Fault.NOT_FOUND: Row(
        404, Text("没有找到", "Not found"), Text("请求的内容不存在。", "There is nothing at this address.")
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
    Fault.NO_SUCH_BILL: Row(
        404,
        Text("没有该账单", "No such bill"),
        Text("没有找到该账单，或它不属于当前账号。", "No such bill belongs to this account."),
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
    Fault.TOO_MANY_PATIENTS: Row(
        409,
        Text("就诊人数已达上限", "Too many patients"),
        Text("每个账号最多添加 {limit} 位就诊人。", "An account may have up to {limit} patients."),
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
            "本院目前只支持到院支付（at_hospital）。",
            "This hospital takes payment at the window only for now (at_hospital).",
        ),
    ),
    Fault.UNSUPPORTED_GRANT: Row(
        422,
        Text("不支持的登录方式", "Unsupported grant"),
        Text("暂不支持这种登录方式。", "This way of signing in is not offered here."),
    ),
    Fault.REQUEST_REFUSED: Row(
        400, Text("请求被拒绝", "Request refused"), Text("该请求无法处理。", "This request cannot be served.")
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
    "blocked": Text(
        "该就诊人因多次爽约被暂停预约，恢复时间见 until。",
        "This patient missed visits and may not book before the time given in until.",
    ),
    "active_appointments_max": Text(
        "该就诊人已有 {limit} 个未就诊的预约，达到上限。",
        "This patient already has {limit} appointments ahead, which is the most allowed.",
    ),
    "account_holds_max": Text(
        "当前账号已有 {limit} 个待支付的预约，请先支付或取消。",
        "This account has {limit} unpaid holds; pay or cancel one first.",
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

INVALID: Final[dict[str, Text]] = {
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
    "iso_date": Text("须为 yyyy-mm-dd 格式的日期", "must be a date, yyyy-mm-dd"),
    "zoned_time": Text("须为带时区的 ISO 8601 时间", "must be an ISO 8601 time with its offset"),
    "repeated": Text("只能出现一次", "may be given once only"),
}
"""Words for pydantic's error types, which are also the `code` of each entry in `errors`."""

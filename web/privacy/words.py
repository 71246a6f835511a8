"""What people are told about their rights, Chinese first."""

from collections.abc import Mapping
from typing import Final

from engine.domain.consents import ConsentKind
from engine.domain.retention import Datum, Fate, Obstacle
from web.faults import Text

ENDS: Final[Mapping[ConsentKind, Text]] = {
    ConsentKind.PRIVACY_POLICY: Text(
        "如本院以此为前提，将不能再在线添加就诊人和预约。",
        "Where the hospital asks for it, people are no longer added and numbers no longer booked online.",
    ),
    ConsentKind.HEALTH_DATA: Text(
        "如本院以此为前提，将不能再在线添加就诊人和预约。",
        "Where the hospital asks for it, people are no longer added and numbers no longer booked online.",
    ),
    ConsentKind.GUARDIAN: Text(
        "如本院以此为前提，将不能再为该儿童在线预约。",
        "Where the hospital asks for it, no more numbers are booked for this child online.",
    ),
    ConsentKind.MESSAGES: Text("不再向您发送提醒。", "You are sent no more reminders."),
    ConsentKind.RESEARCH: Text(
        "此后不再将您的数据用于研究。", "From now on your data is not used for research."
    ),
    ConsentKind.CROSS_BORDER: Text(
        "此后不再向境外提供您的数据。", "From now on your data is not sent abroad."
    ),
}
"""What a withdrawal ends, at once."""

STAYS: Final = Text(
    "已经预约的号仍然有效；撤回前的处理不受影响；门诊病历依法保存。您仍可到窗口就诊，也可以随时重新同意。",
    "Numbers that are booked stay booked, what was done before stays lawful, and records are kept as the law"
    " says. You are seen at the window all the same, and may agree again at any time.",
)
"""What it does not end."""

DATA: Final[Mapping[Datum, Text]] = {
    Datum.IDENTITY: Text("姓名、证件、出生日期", "name, document, birth date"),
    Datum.VISITS: Text("预约与就诊记录", "bookings and visits"),
    Datum.CLINICAL: Text("体征与备注", "what was measured and noted"),
    Datum.CONTACT: Text("手机号", "telephone numbers"),
    Datum.APPEALS: Text("申诉内容与处理意见", "appeals and their answers"),
    Datum.CALLS: Text("电话回访备注", "notes of telephone calls"),
    Datum.NOTICES: Text("提醒与路程", "notices, and how long the way is"),
    Datum.DELEGATIONS: Text("代预约关系", "who may book for whom"),
    Datum.SIGN_IN: Text("登录身份、会话与设备", "sign-in, sessions and devices"),
    Datum.WISHES: Text("候补记录", "wishes on waiting lists"),
    Datum.PENALTIES: Text("处罚记录（仅编号与时间）", "penalties: ids and times"),
    Datum.CONSENTS: Text("同意与撤回的记录", "what was agreed to and withdrawn"),
    Datum.TRAIL: Text("查阅与操作的审计记录", "the audit of readings and changes"),
}

FATES: Final[Mapping[Fate, Text]] = {
    Fate.ERASED: Text("立即删除，备份中也无法再读取", "erased at once, unreadable in backups, too"),
    Fate.RESTRICTED: Text(
        "依法保存至该日，期间不再用于日常业务",
        "kept until that day because the law says so, and used for nothing else",
    ),
    Fate.UNNAMED: Text("仅保留编号，不含姓名", "stays as numbers, without a name"),
    Fate.KEPT: Text("作为依法履责的证明保留，不含姓名", "kept as evidence, without a name"),
}

OBSTACLES: Final[Mapping[Obstacle, Text]] = {
    Obstacle.BOOKING_AHEAD: Text(
        "有尚未就诊的预约，请先取消。", "A number is booked ahead: cancel it first."
    ),
    Obstacle.BILL_OPEN: Text(
        "有待支付的预约，请先支付或取消。", "A number waits for its payment: pay or cancel it first."
    ),
    Obstacle.WAITING_TODAY: Text(
        "今天正在候诊，请就诊结束后再办理。", "A ticket is in a waiting room today."
    ),
    Obstacle.WISH_OPEN: Text("有进行中的候补，请先撤回。", "A wish is on a waiting list: withdraw it first."),
    Obstacle.PENALTY_IN_FORCE: Text(
        "账号处于暂停预约期，期满后可注销。", "A penalty stops this account; it is erased once that is over."
    ),
    Obstacle.APPEAL_OPEN: Text("有申诉尚未处理，请等待结果。", "An appeal is not decided yet."),
}

"""A valid request for every operation of the API, about an object that is the caller's or somebody else's.

In addresses and bodies `{word}` stands for what tests/integration/test_rights.py has prepared of that side:
`department`, `practitioner`, `schedule` (tomorrow's), `slot`, `appointment`, `ticket`, `patient`, `room` …
What a body asks for mostly cannot be done (a revision, a version that is not there): then the answer is 409
after the rights were looked at, and the next caller finds everything as it was.
"""

from dataclasses import dataclass, field
from typing import Any, Final

STALE: Final = 999_999


@dataclass(frozen=True, slots=True)
class Example:
    path: dict[str, str] = field(default_factory=dict)
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    sided: bool = True
    """There is one of the caller's and one of somebody else's."""
    bodies: dict[str, Any] = field(default_factory=dict)
    """Of callers who must say it in another way."""
    codes: tuple[str, ...] = ()
    """Refusals, or a part that is not there, that speak of what was said and not of who may say it."""
    missing: str = ""
    """Why the object cannot be there: 404 is a right answer then to whoever may."""


def _at(name: str = "id", of: str = "", **body: Any) -> Example:
    return Example({name: f"{{{of or name}}}"}, body or None)


NONE: Final = Example(sided=False)
_WEEKDAY: Final = {
    "weekday": 1,
    "period": "morning",
    "starts": "08:00",
    "ends": "09:00",
    "capacity": 1,
    "number_class_id": "expert",
}
_PERSON: Final = {
    "name": "诸葛亮",
    "id_type": "passport",
    "id_number": "{fresh}",
    "phone": "13900000001",
}


_ISSUED: Final = "the tokens of the test are signed, and no session is kept of them: test_sessions.py"
_AGREED: Final = "two accounts must have spoken of the same person: test_people.py"
_NO_REFUND: Final = "nobody has paid here, so nothing is refunded: test_cashier.py"
_NO_MONEY: Final = "nobody has paid here, so nothing differs: test_reconciliation.py"
_NO_DEAD: Final = "nobody outside has refused anything here: test_outbox.py"
_NO_STUDY: Final = "no archive has told of an examination: test_imaging.py"
_NO_WEBHOOK: Final = "webhooks are off here, so there is none: test_webhooks.py"
_WEBHOOK: Final = {"address": "https://example.com/hook", "types": ["*"]}
_NOT_HELD: Final = "nothing of that id is held back here: test_intake_routes.py"
_PROOF: Final = ("proof_refused",)
_STEP: Final = "x" * 43
_STEP_OVER: Final = ("sign_in_step_over",)


def _ticket(**body: Any) -> Example:
    return Example({"department_id": "{department}", "ticket_id": "{ticket}"}, body)


def _room(**body: Any) -> Example:
    return Example({"department_id": "{department}", "room_id": "{room}"}, body)


def _day(**body: Any) -> Example:
    return Example({"id": "{schedule}"}, {"revision": STALE, **body})


def _parameters(**said: dict[str, Any]) -> dict[str, Any]:
    named = [{"name": name, **value} for name, value in said.items()]
    return {"resourceType": "Parameters", "parameter": named}


_TAKE: Final = _parameters(
    slot={"valueReference": {"reference": "Slot/{slot}"}}, patient={"valueString": "{patient}"}
)

EXAMPLES: Final[dict[str, Example]] = {
    # Open.
    "create_session": Example(body={"grant": "wechat", "code": "sandbox:x"}, sided=False),
    "hospital_billing_calls": Example(body={}, sided=False, codes=("hospital_billing_off",)),
    "list_departments": NONE,
    "list_practitioners": _at(of="department"),
    "read_practitioner": _at(of="practitioner"),
    "list_schedules": NONE,
    "list_slots": _at(of="schedule"),
    # People.
    "add_patient": Example(body={**_PERSON, "relation": "other"}, sided=False),
    "list_patients": NONE,
    "renew_patient": _at(of="patient", id_digits="0000"),
    "revoke_patient": _at(of="spare"),
    "patient_qr": _at(of="patient"),
    # Appointments.
    "hold_appointment": Example(body={"slot_id": "{slot}", "patient_id": "{patient}"}),
    "hold_any_doctor": Example(
        body={"department": "{department}", "date": "{tomorrow}", "patient_id": "{patient}"}
    ),
    "hold_group": Example(body={"slot_id": "{slot}", "patient_ids": ["{patient}", "{relative}"]}),
    "list_appointments": NONE,
    "read_appointment": _at(of="appointment"),
    "read_appointment_history": _at(of="appointment"),
    "confirm_appointment": _at(of="appointment"),
    "confirm_attendance": _at(of="appointment"),
    "cancel_appointment": _at(of="cancelled"),
    "reschedule_appointment": _at(of="appointment", slot_id="{slot}"),
    "answer_substitute": _at(of="appointment", accepted=False),
    "pay_bill": _at(of="bill", provider="at_hospital"),
    "check_payment": Example({"id": "{bill}", "payment": "{nothing}"}, missing="nobody has paid it"),
    "read_bill": _at(of="bill"),
    "list_bills": NONE,
    "hear_wechat_pay": Example(sided=False, codes=("unsupported_provider",)),
    "hear_alipay": Example(sided=False, codes=("unsupported_provider",)),
    "read_outstanding": Example({"id": "{patient}"}, codes=("hospital_billing_off",)),
    "appointment_qr": _at(of="appointment"),
    "check_in_by_oneself": Example({"id": "{appointment}"}, {}),
    "read_outlook": _at(of="appointment"),
    "keep_way": _at(of="appointment", minutes=30),
    "list_notices": NONE,
    # Waiting for numbers, penalties.
    "join_waitlist": Example(
        body={
            "patient_ids": ["{patient}"],
            "department": "{department}",
            "from": "{tomorrow}",
            "to": "{tomorrow}",
        }
    ),
    "list_wishes": NONE,
    "read_wish": Example({"id": "{wish}"}),
    "withdraw_wish": Example({"id": "{wish}"}),
    "list_penalties": NONE,
    "appeal_penalty": _at(of="penalty", text="当天地铁停运"),
    # Waiting rooms.
    "list_queues": NONE,
    "read_board": Example({"department_id": "{department}"}),
    "read_queue_forecast": Example({"department_id": "{department}"}),
    "list_tickets": NONE,
    "read_ticket": _at(of="ticket"),
    "read_ahead": _at(of="ticket"),
    "return_ticket": Example({"id": "{ticket}"}, {}),
    "leave_ticket": _at(of="left"),
    "delay_ticket": _at(of="ticket", ahead=1),
    "take_number": Example(
        body={
            "department_id": "{department}",
            "practitioner_id": "{practitioner}",
            "patient_id": "{patient}",
        },
        bodies={"kiosk": {"department_id": "{department}", "id_type": "passport", "id_number": "{document}"}},
    ),
    "check_in_here": Example(body={"appointment_id": "{appointment}"}),
    "look_up_check_ins": Example(body={"id_type": "passport", "id_number": "{document}"}, sided=False),
    "record_vitals": _at(of="ticket", systolic=120, diastolic=80),
    "read_vitals": _at(of="ticket"),
    "list_imaging": _at(of="patient"),
    "read_imaging_study": Example({"id": "{nothing}"}, sided=False, missing=_NO_STUDY),
    "read_imaging_frame": Example(
        {"id": "{nothing}", "series": "1.2", "instance": "1.2.3", "frame": "1"},
        sided=False,
        missing=_NO_STUDY,
    ),
    "list_encounters": _at(of="patient"),
    "list_conditions": _at(of="patient"),
    "list_medications": _at(of="patient"),
    "list_allergies": _at(of="patient"),
    "take_emr": Example(
        body={
            "resourceType": "AllergyIntolerance",
            "id": "a1",
            "meta": {"lastUpdated": "2026-11-20T08:00:00Z"},
            "patient": {"reference": "Patient/nobody"},
            "clinicalStatus": {"coding": [{"code": "active"}]},
            "code": {"text": "青霉素"},
        },
        sided=False,
    ),
    "call_next": Example({"department_id": "{department}"}, {"room_id": "{room}", "expected_version": STALE}),
    "call_ticket": _ticket(room_id="{room}", expected_version=STALE),
    "recall_ticket": _ticket(expected_version=STALE),
    "start_ticket": _ticket(expected_version=STALE),
    "pass_ticket": _ticket(expected_version=STALE),
    "park_ticket": _ticket(reason="去取报告", expected_version=STALE),
    "readmit_ticket": _ticket(),
    "finish_ticket": _ticket(expected_version=STALE),
    "transfer_ticket": _ticket(reason="换诊室", queue_id="general", expected_version=STALE),
    "move_ticket": _ticket(reason="有急事", ahead=0, expected_version=STALE),
    "classify_ticket": _ticket(reason="核实后更改", expected_version=STALE),
    "send_ticket_to_door": _ticket(reason="提前到门口", room_id="{room}", expected_version=STALE),
    "let_ticket_leave": _ticket(reason="不等了", expected_version=STALE),
    "undo_step": _ticket(reason="点错了", expected_version=STALE),
    "open_room": _room(expected_version=STALE),
    "pause_room": _room(expected_version=STALE),
    "close_room": _room(expected_version=STALE),
    "sound_alarm": _room(on=True),
    "set_queue": Example(
        {"department_id": "{department}", "queue_id": "blood"}, {"prefix": "B", "first": 1, "last": 9}
    ),
    "read_ticket_history": Example({"department_id": "{department}", "ticket_id": "{ticket}"}),
    "read_room_history": Example({"department_id": "{department}"}),
    "explain_order": Example(
        {"department_id": "{department}", "ticket_id": "{ticket}"}, query={"other": "{left}"}
    ),
    "read_screens": NONE,
    # The desk.
    "register_at_desk": Example(body={"slot_id": "{slot}", "patient": _PERSON}),
    "record_attendance": _at(of="appointment", status="arrived"),
    "cancel_at_desk": _at(of="cancelled", note="患者来电"),
    "reschedule_at_desk": _at(of="cancelled", slot_id="{slot}"),
    "read_day_sheet": _at(of="schedule"),
    "open_session": _day(period="night", starts="19:00", ends="20:00", capacity=1, number_class_id="expert"),
    "change_capacity": _day(period="morning", delta=1),
    "add_seats": _day(slot="{clock}", count=1),
    "add_patient_to_slot": _day(slot="{clock}", patient_id="{patient}", account_id="{account}"),
    "move_session": _day(period="morning", starts="10:00"),
    "set_session_status": _day(period="morning", status="open"),
    "suspend_session": _day(period="morning", reason="leave"),
    "substitute_session": _day(period="morning", practitioner_id="{colleague}"),
    "preview_change": _day(command="change_capacity", period="morning", delta=1),
    "read_suspension": _at(of="schedule"),
    "read_schedule_history": _at(of="schedule"),
    "read_week": _at(of="practitioner"),
    "read_week_history": _at(of="practitioner"),
    "replace_week": _at(of="practitioner", revision="no such", templates=[]),
    "put_override": Example(
        {"id": "{practitioner}", "day": "{tomorrow}", "period": "morning"},
        {"revision": "no such", "closed": True},
    ),
    "what_if_seats_were_added": _at(of="practitioner", templates=[_WEEKDAY]),
    "list_change_requests": NONE,
    "decide_change_request": _at(of="request", decision="reject", reason="人手不够"),
    "read_calling_list": Example(query={"department": "{department}", "day": "{tomorrow}"}),
    "note_call": _at(of="appointment", outcome="not_reached"),
    "list_appeals": NONE,
    "decide_appeal": _at(of="appealed", decision="uphold", reason="证据充分"),
    "read_indicators": Example(query={"department": "{department}"}),
    "read_calibration": NONE,
    "read_actors": NONE,
    # The cashier's desk. Bills are opened by what prepares the sides; nobody has the right amount.
    "find_bills": Example(body={"appointment_id": "{appointment}"}),
    "read_bill_at_desk": _at(of="bill"),
    "open_bill_at_desk": Example({"id": "{appointment}"}, {}),
    "take_at_desk": _at(of="bill", fee=1),
    "request_refund": _at(of="bill", lines=[{"line_id": "registration", "fee": 1}], reason="未就诊"),
    "pay_refund_at_desk": Example(
        {"id": "{bill}", "refund": "{nothing}"}, {"reason": "退现金"}, missing=_NO_REFUND
    ),
    "retry_refund": Example({"id": "{bill}", "refund": "{nothing}"}, {"reason": "再试"}, missing=_NO_REFUND),
    "print_receipt": _at(of="bill"),
    "list_desk_work": NONE,
    "settle_alarm": Example({"id": "1"}, {"reason": "已核对"}, sided=False, missing=_NO_REFUND),
    "read_shift": NONE,
    "list_outbox": NONE,
    "replay_dead_letter": Example({"subscriber": "his", "id": "1"}, sided=False, missing=_NO_DEAD),
    "drop_dead_letter": Example(
        {"subscriber": "his", "id": "1"}, {"reason": "已电话告知"}, sided=False, missing=_NO_DEAD
    ),
    # Records, and breaking the glass.
    "read_patient_record": _at(of="patient"),
    "list_reports": _at(of="patient"),
    "read_report": _at(of="report"),
    "read_report_attachment": Example({"id": "{report}", "n": "1"}),
    "break_the_glass": Example(
        body={"patient_id": "{patient}", "kind": "emergency", "reason": "抢救室会诊，需了解既往就诊情况"},
        sided=False,  # else the other patient would be open to them from then on
    ),
    # Administrators: the other side is oneself.
    "list_staff_accounts": NONE,
    "add_staff_account": Example(
        body={"username": "{fresh_name}", "name": "新来的", "password": "a long phrase nobody guesses"},
        sided=False,
    ),
    "disable_staff_account": _at(of="somebody"),
    "enable_staff_account": _at(of="somebody"),
    "give_staff_roles": _at(of="somebody", roles=["nurse"]),
    "unlock_staff_account": _at(of="somebody"),
    "set_staff_password": _at(of="somebody", password="quite another phrase"),
    "reset_staff_second_factor": _at(of="somebody"),
    "list_staff_sessions": _at(of="somebody"),
    "revoke_staff_sessions": _at(of="somebody"),
    "read_settings": NONE,
    "read_vault_keys": NONE,
    "list_broken_glass": NONE,
    "review_broken_glass": Example(
        {"id": "{glass}"}, {"verdict": "justified", "note": "确为抢救"}, sided=False
    ),
    # Sessions and oneself.
    "list_sessions": NONE,
    "read_current_session": NONE,
    "end_current_session": NONE,
    "end_session": Example({"id": "{nothing}"}, missing=_ISSUED),
    "end_sessions": NONE,
    "read_account": NONE,
    "bind_phone": Example(
        body={"code": "x"}, sided=False, codes=("sign_in_unavailable", "unsupported_grant")
    ),
    "list_accesses": _at(of="patient"),
    "change_own_password": Example(
        body={"password": "not this one", "new_password": "another good phrase 7"}, sided=False, codes=_PROOF
    ),
    "read_own_second_factor": NONE,
    "enrol_second_factor": Example(body={"password": "not this one"}, sided=False, codes=_PROOF),
    "confirm_second_factor": Example(body={"code": "000000"}, sided=False),
    "remove_second_factor": Example(body={"password": "not this one"}, sided=False, codes=_PROOF),
    "renew_recovery_codes": Example(body={"password": "not this one"}, sided=False, codes=_PROOF),
    "enrol_at_sign_in": Example(body={"step_token": _STEP}, sided=False, codes=_STEP_OVER),
    "confirm_at_sign_in": Example(
        body={"step_token": _STEP, "code": "123456"}, sided=False, codes=_STEP_OVER
    ),
    "set_password_at_sign_in": Example(
        body={"step_token": _STEP, "new_password": "a new good phrase"}, sided=False, codes=_STEP_OVER
    ),
    # Consents, delegations, what is known of oneself.
    "read_consents": NONE,
    "give_consent": Example(body={"kind": "messages", "version": "{version}", "patient_id": "{patient}"}),
    "withdraw_consent": Example({"kind": "messages"}, query={"patient_id": "{patient}"}),
    "list_delegations": NONE,
    "approve_delegation": Example({"id": "{nothing}"}, {}, missing=_AGREED),
    "reject_delegation": Example({"id": "{nothing}"}, missing=_AGREED),
    "change_delegation": Example({"id": "{nothing}"}, {}, missing=_AGREED),
    "end_delegation": Example({"id": "{nothing}"}, missing=_AGREED),
    "approve_at_desk": Example({"id": "{nothing}"}, {}, missing=_AGREED),
    "read_verification": _at(of="patient"),
    "verify_at_desk": _at(of="spare", outcome="verified", document="passport"),
    "preview_erasure": NONE,
    "erase_account": Example(
        body={"confirm": "erase", "id_digits": "0000"}, sided=False, codes=("erasure_refused",)
    ),
    "erase_patient": Example(
        {"id": "{patient}"}, {"confirm": "erase", "id_digits": "0000"}, codes=("erasure_refused",)
    ),
    "export_account": NONE,
    "export_account_page": NONE,
    "correct_patient": Example({"id": "{spare}"}, {**_PERSON, "reason": "录入有误"}, sided=False),
    # The audit.
    "list_audit_entries": NONE,
    "export_audit": NONE,
    "read_audit_chain": NONE,
    "list_affected": Example(
        query={"by_id": "{somebody}", "since": "{since}", "until": "{until}"}, sided=False
    ),
    # Reconciliation, and the day's end. A day to come is not over: 409, after the rights were looked at.
    "start_reconciliation": Example(body={"date": "{tomorrow}"}, sided=False, codes=("day_not_over",)),
    "list_reconciliations": NONE,
    "list_differences": NONE,
    "read_difference": Example({"id": "{nothing}"}, sided=False, missing=_NO_MONEY),
    "settle_difference": Example({"id": "{nothing}"}, {"reason": "已核对"}, sided=False, missing=_NO_MONEY),
    "read_settlement": Example({"date": "{tomorrow}"}, sided=False),
    "export_settlement": Example({"date": "{tomorrow}"}, sided=False),
    "print_settlement": Example({"date": "{tomorrow}"}, sided=False),
    "close_settlement": Example({"date": "{tomorrow}"}, {}, sided=False, codes=("day_not_over",)),
    # Other systems, and FHIR.
    "create_partner_token": NONE,
    "receive_lab_report": Example(
        body={"resourceType": "DiagnosticReport"}, sided=False, codes=("held_at_intake",)
    ),
    "receive_lab_bundle": Example(body={"resourceType": "Bundle"}, sided=False, codes=("held_at_intake",)),
    "list_intake": NONE,
    "retry_intake": Example({"id": "{nothing}"}, sided=False, missing=_NOT_HELD),
    "drop_intake": Example({"id": "{nothing}"}, {"reason": "测试报文"}, sided=False, missing=_NOT_HELD),
    "fhir_read_capabilities": NONE,
    "fhir_read_practitioner": Example({"id": "{practitioner}"}, sided=False),
    "fhir_search_practitioners": NONE,
    "fhir_post_search_practitioners": Example(sided=False, codes=("unsupported_media_type",)),
    "fhir_read_schedule": Example({"id": "{schedule}"}, sided=False),
    "fhir_search_schedules": NONE,
    "fhir_post_search_schedules": Example(sided=False, codes=("unsupported_media_type",)),
    "fhir_read_slot": Example({"id": "{slot}"}, sided=False),
    "fhir_search_slots": Example(query={"schedule": "{schedule}"}, sided=False),
    "fhir_post_search_slots": Example(sided=False, codes=("unsupported_media_type",)),
    "fhir_find": Example(query={"schedule": "{schedule}"}, sided=False),
    "fhir_find_by_parameters": Example(body=_parameters(schedule={"valueString": "{schedule}"}), sided=False),
    "fhir_create_patient": Example(
        body={
            "resourceType": "Patient",
            "identifier": [{"system": "urn:xinglin:fhir:document:passport", "value": "{fresh}"}],
            "name": [{"text": "诸葛亮"}],
            "telecom": [{"system": "phone", "value": "13900000001"}],
        },
        sided=False,
    ),
    "fhir_read_patient": _at(of="patient"),
    "fhir_search_patients": Example(query={"_id": "{patient}"}, sided=False),
    "fhir_post_search_patients": Example(sided=False, codes=("unsupported_media_type",)),
    "fhir_create_appointment": Example(
        body={
            "resourceType": "Appointment",
            "status": "booked",
            "slot": [{"reference": "Slot/{slot}"}],
            "participant": [{"actor": {"reference": "Patient/{patient}"}, "status": "accepted"}],
        }
    ),
    "fhir_read_appointment": _at(of="appointment"),
    "fhir_search_appointments": NONE,
    "fhir_post_search_appointments": Example(sided=False, codes=("unsupported_media_type",)),
    "fhir_hold": Example(body=_TAKE),
    "fhir_book": Example(body=_TAKE),
    "fhir_confirm": _at(of="appointment"),
    "fhir_cancel": _at(of="cancelled"),
    "fhir_reschedule": Example(
        {"id": "{appointment}"}, _parameters(slot={"valueReference": {"reference": "Slot/{slot}"}})
    ),
    # Our numbers beside the HIS's.
    "compare_with_his": Example(body={"date": "{tomorrow}"}, sided=False),
    "list_his_comparisons": NONE,
    "list_his_differences": NONE,
    "settle_his_difference": Example(
        {"id": "1"}, {"reason": "已核对"}, sided=False, missing="no HIS that differs"
    ),
    # Events for other systems. Webhooks are off in the tests' system: then none can be there.
    "list_event_types": NONE,
    "read_events": NONE,
    **{
        name.format(whose): one
        for whose in ("", "own_")
        for name, one in {
            "list_{}webhooks": NONE,
            "add_{}webhook": Example(body=_WEBHOOK, sided=False, codes=("webhooks_off",)),
            "change_{}webhook": Example({"id": "{nothing}"}, _WEBHOOK, sided=False, missing=_NO_WEBHOOK),
            "remove_{}webhook": Example({"id": "{nothing}"}, sided=False, missing=_NO_WEBHOOK),
            "rotate_{}webhook_secret": Example({"id": "{nothing}"}, sided=False, missing=_NO_WEBHOOK),
            "set_{}webhook_state": Example(
                {"id": "{nothing}"}, {"enabled": True}, sided=False, missing=_NO_WEBHOOK
            ),
            "ping_{}webhook": Example({"id": "{nothing}"}, sided=False, missing=_NO_WEBHOOK),
            "list_{}webhook_deliveries": Example({"id": "{nothing}"}, sided=False, missing=_NO_WEBHOOK),
            "redeliver_{}webhook_event": Example(
                {"id": "{nothing}", "event_id": "0-1"}, sided=False, missing=_NO_WEBHOOK
            ),
        }.items()
    },
    # OpenID Connect.
    "begin_oidc": NONE,
    "come_back_from_oidc": NONE,
    "script_of_oidc": NONE,
}

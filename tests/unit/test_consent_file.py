"""consents.yaml: read whole, or refused with every error and its line."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from engine.domain.consents import ConsentKind
from engine.domain.policy import Policy
from engine.records.consent_file import ConsentsRefused, read_consents
from engine.records.consents import ConsentText
from engine.records.policy_file import PolicyRefused, read_policy

ZONE = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)

GOOD = """
privacy_policy:
  version: "2027.1"
  valid_from: 2027-01-01
  renew: yes
  zh: {title: 个人信息处理规则, text: "第一条 …"}
  en: {title: Privacy, text: "1. …"}
research:
  version: r1
  zh: {title: 研究, text: 同意}
"""


def test_what_a_file_says() -> None:
    privacy, research = read_consents(GOOD, ZONE, NOW)
    assert (privacy.kind, privacy.version, privacy.renew) == (ConsentKind.PRIVACY_POLICY, "2027.1", True)
    assert privacy.valid_from == datetime(2027, 1, 1, tzinfo=ZONE)
    assert privacy.texts["en"] == ConsentText("Privacy", "1. …")
    assert (research.valid_from, research.renew, research.in_("en")[0]) == (NOW, False, "zh")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("cookies: {}", 1, "unknown key"),
        ("research: {version: r1}", 1, "missing key 'zh'"),
        ("research:\n  version: 第一版\n  zh: {title: a, text: b}", 2, "a version has"),
        ("research:\n  version: r1\n  valid_from: soon\n  zh: {title: a, text: b}", 3, "write a day"),
        ("research:\n  version: r1\n  zh: {title: a}", 3, "missing key 'text'"),
        ("research:\n  version: r1\n  renew: perhaps\n  zh: {title: a, text: b}", 3, "yes or no"),
        ("research:\n  version: r1\n  zh: {title: a, text: b}\n  en: {title: a}", 4, "missing key 'text'"),
    ],
)
def test_what_is_wrong_is_told_in_its_place(text: str, line: int, words: str) -> None:
    with pytest.raises(ConsentsRefused) as refused:
        read_consents(text, ZONE, NOW)
    (error,) = refused.value.errors
    assert error.line == line and words in error.reason


def test_a_policy_says_what_a_hospital_will_not_do_without() -> None:
    said = "privacy:\n  consents_required: [health_data, privacy_policy]\n  staff_names: yes\n"
    policy = read_policy(said, Policy())
    assert policy.consents_required == (ConsentKind.PRIVACY_POLICY, ConsentKind.HEALTH_DATA)
    assert policy.staff_named_to_patients
    assert Policy().consents_required == () and not Policy().staff_named_to_patients
    with pytest.raises(PolicyRefused, match="must be one of privacy_policy"):
        read_policy("privacy: {consents_required: [cookies]}", Policy())
    with pytest.raises(PolicyRefused, match="must be a list"):
        read_policy("privacy: {consents_required: health_data}", Policy())

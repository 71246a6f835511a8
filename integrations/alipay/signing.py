"""RSA2: RSA-SHA256 (PKCS #1 v1.5), base64. Pure.

    a request   its parameters without `sign` and without empty ones, by name, as k=v&k=v, not url-quoted
    an answer   the JSON text of its node, byte for byte as it came
    a notice    all its parameters without `sign` and `sign_type`, sorted likewise, empty ones too

Nothing else of an answer or a notice is looked at before its signature holds.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

KEY_BITS_MIN: Final = 2048
SIGN_TYPE: Final = "RSA2"

_ARMOUR: Final = re.compile(r"-----[A-Z ]+-----|\s")
_WHITE: Final = re.compile(r"[ \t\r\n]*")
_CODE: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)
_DECODER: Final = json.JSONDecoder()


class NotBelieved(Exception):
    """An answer that is not signed by Alipay. Nothing in it counts; its words are for the log only."""


def private_key(text: str) -> RSAPrivateKey:
    """PEM, or its base64 alone, as Alipay's tool writes it. Raises ValueError, which quotes nothing of it."""
    try:
        key = load_der_private_key(_der(text), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("alipay: the app's private key is none") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < KEY_BITS_MIN:
        raise ValueError(f"alipay: the app's private key is no RSA key of {KEY_BITS_MIN} bits")
    return key


def public_key(text: str) -> RSAPublicKey:
    """PEM, or its base64 alone, as Alipay's console shows it. Raises ValueError."""
    try:
        key = load_der_public_key(_der(text))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("alipay: Alipay's public key is none") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < KEY_BITS_MIN:
        raise ValueError(f"alipay: Alipay's public key is no RSA key of {KEY_BITS_MIN} bits")
    return key


def sign(key: RSAPrivateKey, text: str) -> str:
    return base64.b64encode(key.sign(text.encode(), PKCS1v15(), SHA256())).decode()


def is_signed(key: RSAPublicKey, text: str, signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), text.encode(), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def of_request(parameters: Mapping[str, str]) -> str:
    """The text that is signed."""
    return "&".join(
        f"{name}={value}" for name, value in sorted(parameters.items()) if value and name != "sign"
    )


def of_notice(parameters: Mapping[str, str]) -> str:
    """The text that is signed. Empty ones count: else anybody could add some."""
    return "&".join(
        f"{name}={value}" for name, value in sorted(parameters.items()) if name not in ("sign", "sign_type")
    )


def node_name(method: str) -> str:
    """alipay.trade.query -> alipay_trade_query_response."""
    return f"{method.replace('.', '_')}_response"


def believed(raw: bytes, method: str, key: RSAPublicKey) -> dict[str, Any]:
    """The node of an answer, once its signature holds. Raises NotBelieved.

    What is returned is read from the very text that was verified, never from the answer around it.
    """
    try:
        parts = _parts(raw.decode())
    except (ValueError, RecursionError):
        raise NotBelieved("no JSON object") from None
    text = parts.get(node_name(method)) or parts.get("error_response")
    if text is None:
        raise NotBelieved("an answer to something else")
    signature = json.loads(parts.get("sign", "null"))
    if not isinstance(signature, str) or not signature:
        raise NotBelieved(f"unsigned: {_words(text)}")
    # Some of their JSON writers quote slashes after signing; their own SDKs look past that, too.
    for version in dict.fromkeys((text, text.replace("\\/", "/"))):
        if is_signed(key, version, signature):
            try:
                node = json.loads(version)
            except ValueError:
                break
            if isinstance(node, dict):
                return node
    raise NotBelieved(f"signed by another: {_words(text)}")


def _parts(text: str) -> dict[str, str]:
    """Each member of a JSON object as its own text. Raises ValueError; a name given twice is one."""
    found: dict[str, str] = {}
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if not isinstance(name, str) or name in found or text[at : at + 1] != ":":
            raise ValueError("no object")
        start = _skip(text, at + 1)
        _, at = _DECODER.raw_decode(text, start)
        found[name] = text[start:at]
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "}":
            raise ValueError("no object")
    if _skip(text, at + 1) != len(text):
        raise ValueError("something after the object")
    return found


def _skip(text: str, at: int) -> int:
    found = _WHITE.match(text, at)
    return found.end() if found else at


def _words(text: str) -> str:
    """Their codes alone: the rest of a forged answer may say anything."""
    try:
        node = json.loads(text)
    except (ValueError, RecursionError):
        return "?"
    if not isinstance(node, dict):
        return "?"
    codes = [str(node.get("code")), str(node.get("sub_code"))]
    return " ".join(code if _CODE.fullmatch(code) else "?" for code in codes)


def _der(text: str) -> bytes:
    try:
        return base64.b64decode(_ARMOUR.sub("", text), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("no base64") from None

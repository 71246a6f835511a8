"""Signature Version 4, by the examples of Amazon's own pages."""

from datetime import UTC, datetime

import pytest

from integrations.object_store.signing import Credentials, query_text, quoted, signed

# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
AT = datetime(2013, 5, 24, tzinfo=UTC)
HOST = {"host": "examplebucket.s3.amazonaws.com"}


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signature"),
    [
        pytest.param(
            "GET",
            "/test.txt",
            {},
            {**HOST, "Range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            id="get",
        ),
        pytest.param(
            "PUT",
            "/test$file.text",
            {},
            {**HOST, "Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            id="put",
        ),
        pytest.param(
            "GET",
            "/",
            {"lifecycle": ""},
            HOST,
            b"",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            id="lifecycle",
        ),
        pytest.param(
            "GET",
            "/",
            {"prefix": "J", "max-keys": "2"},
            HOST,
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            id="list",
        ),
    ],
)
def test_amazons_examples(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes, signature: str
) -> None:
    sent = signed(EXAMPLE, method, path, query, headers, body, AT)
    assert sent["authorization"].endswith(f"Signature={signature}")
    assert "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request" in sent["authorization"]


def test_names_are_quoted_as_they_are_signed() -> None:
    assert quoted("/b/base-1.00000 ~é") == "/b/base-1.00000%20~%C3%A9"
    assert query_text({"prefix": "a/b+c", "list-type": "2"}) == "list-type=2&prefix=a%2Fb%2Bc"


def test_credentials_do_not_show_the_secret() -> None:
    assert EXAMPLE.secret_key not in repr(EXAMPLE)

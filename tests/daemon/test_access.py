"""Who may write over HTTP: each sentence of the design's "safe from the first day" as a row."""

from base64 import b64encode

import pytest

from fairlead_daemon.decisions.access import Request, Rules, is_ours, judge

RULES = Rules(names=frozenset({"box", "box.example"}))
LOCKED = Rules(names=frozenset({"box"}), token="s3cret")
JSON = "application/json"


def post(**changes: object) -> Request:
    return Request(
        **{"method": "POST", "path": "/v2/apps", "host": "box:8080", "content_type": JSON, "has_body": True, **changes}
    )


@pytest.mark.parametrize(
    "host", ["box", "BOX:8080", "box.example.", "localhost:80", "127.0.0.1:5050", "[::1]:8080", "10.2.3.4"]
)
def test_our_names_and_any_address_are_ours(host: str):
    """An address cannot be rebound by a foreign DNS server; a name can."""
    assert is_ours(host, RULES.names)


@pytest.mark.parametrize("host", ["evil.example", "box.evil.example", "", "null", "127.0.0.1.evil.example", "[::1"])
def test_a_foreign_host_is_refused(host: str):
    """DNS rebinding: the browser sends the attacker's name."""
    denied = judge(post(host=host), RULES)

    assert denied is not None
    assert 403 == denied.status


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_foreign_origin_is_refused_whatever_the_method(method: str):
    """A page of another site, with or without a body."""
    denied = judge(post(method=method, origin="https://evil.example", has_body=False), RULES)

    assert denied is not None
    assert 403 == denied.status


def test_our_own_page_may_write():
    """Origin is sent by our own console too."""
    assert None is judge(post(origin="http://box:8000"), RULES)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 400),
    ],
)
def test_a_body_wants_the_content_type_its_api_defines(kind: str, status: int):
    """What a form can send without asking is not taken."""
    denied = judge(post(content_type=kind), RULES)

    assert denied is not None
    assert status == denied.status


def test_a_write_without_a_body_is_taken():
    """`curl -X DELETE` has neither body nor type."""
    assert None is judge(post(method="DELETE", content_type="", has_body=False), RULES)


@pytest.mark.parametrize(
    "given",
    [
        {"authorization": "Bearer s3cret"},
        {"authorization": "token=s3cret"},
        {"authorization": "Token token=s3cret"},
        {"authorization": "Basic " + b64encode(b"anyone:s3cret").decode()},
        {"token_query": "s3cret"},
    ],
)
def test_the_token_is_taken_in_every_form_clients_send(given: dict[str, str]):
    """Bearer, `token=`, or the Basic password (pymesos' secret, marathon-python's password)."""
    assert None is judge(post(**given), LOCKED)


@pytest.mark.parametrize(
    "authorization", ["", "Bearer wrong", "Basic !!!", "Basic " + b64encode(b"s3cret:").decode(), "s3cret"]
)
def test_a_write_without_the_token_is_401(authorization: str):
    """Garbage in the header is no crash and no entrance."""
    denied = judge(post(authorization=authorization), LOCKED)

    assert denied is not None
    assert 401 == denied.status


def test_reads_need_no_token():
    """Watching is open to whoever may connect."""
    assert None is judge(post(method="GET", has_body=False), LOCKED)


@pytest.mark.parametrize(("path", "status"), [("/v2/services", 401), ("/v2/services/x", 401), ("/metrics", 200)])
def test_reads_of_closed_paths_want_the_token_too(path: str, status: int):
    """Where the registry itself is closed to who asks."""
    closed = Rules(names=frozenset({"box"}), token="s3cret", closed=("/v2",))
    read = post(method="GET", path=path, has_body=False, content_type="")
    denied = judge(read, closed)
    with_token = judge(post(method="GET", path=path, has_body=False, authorization="Bearer s3cret"), closed)

    assert status == (200 if denied is None else denied.status)
    assert None is with_token

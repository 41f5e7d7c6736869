"""The pure half of the SSRF guard: which addresses and URLs are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.errors import EgressRefused
from crmbridge.toolkit.addresses import EgressPolicy, check_url

CLOSED = EgressPolicy()

INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.255",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "::ffff:10.0.0.1",
    "::ffff:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
]
NEVER_BY_NAME = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "::127.0.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:1234::1",
    "2001:db8::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "4000::1",
    "64:ff9b:1::1",
]
PUBLIC = ["93.184.216.34", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", INSIDE + NEVER_BY_NAME)
def test_refusal_when_address_is_not_public_then_it_names_why(address: str) -> None:
    assert CLOSED.refusal(address, host="crm.example.com", port=443)


@pytest.mark.parametrize("address", PUBLIC)
def test_refusal_when_address_is_public_then_empty(address: str) -> None:
    assert CLOSED.refusal(address, host="crm.example.com", port=443) == ""


@pytest.mark.parametrize("address", INSIDE)
def test_refusal_when_name_is_listed_then_inside_addresses_are_open(address: str) -> None:
    policy = EgressPolicy(("odoo.internal",))
    assert policy.refusal(address, host="odoo.internal", port=8069) == ""
    assert policy.refusal(address, host="other.internal", port=8069)


@pytest.mark.parametrize("address", NEVER_BY_NAME)
def test_refusal_when_name_is_listed_then_metadata_and_reserved_stay_shut(address: str) -> None:
    assert EgressPolicy(("odoo.internal",)).refusal(address, host="odoo.internal", port=80)


def test_refusal_when_cidr_or_address_is_listed_then_only_that_opens() -> None:
    policy = EgressPolicy(("10.0.0.0/8", "169.254.169.254", "127.0.0.1:20001", "[::1]:20002"))
    assert policy.refusal("10.9.9.9", host="x.example", port=1) == ""
    assert policy.refusal("::ffff:10.9.9.9", host="x.example", port=1) == ""
    assert policy.refusal("169.254.169.254", host="x.example", port=80) == ""
    assert policy.refusal("127.0.0.1", host="127.0.0.1", port=20001) == ""
    assert policy.refusal("127.0.0.1", host="127.0.0.1", port=20002)
    assert policy.refusal("::1", host="::1", port=20002) == ""
    assert policy.refusal("::1", host="::1", port=20001)
    assert policy.refusal("192.168.0.1", host="x.example", port=1)


def test_allows_name_when_port_is_listed_then_only_that_port() -> None:
    policy = EgressPolicy(("crm.local:8443",))
    assert policy.allows_name("crm.local", 8443)
    assert not policy.allows_name("crm.local", 443)
    assert not policy.allows_name("sub.crm.local", 8443)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "http://crm.local",
        "crm.local/path",
        "crm.local:0",
        "crm.local:99999",
        "crm.local:x",
        "10.0.0.0/99",
        "a b",
        "127.1",
        "0x7f.1",
        "crm.local:²",
        "[::1]x",
    ],
)
def test_policy_when_entry_is_unreadable_then_value_error_names_it(entry: str) -> None:
    with pytest.raises(ValueError, match="egress allow-list"):
        EgressPolicy((entry,))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://crm.example.com/",
        "file:///etc/passwd",
        "gopher://crm.example.com",
        "//crm.example.com",
        "crm.example.com",
        "",
        "https://",
        "https:///path",
        "https://user:pass@crm.example.com/",
        "https://user@crm.example.com/",
        "https://@crm.example.com/",
        "http://crm.example.com/",
        "https://crm.example.com:0/",
        "https://crm.example.com:99999/",
        "https://crm.example.com:port/",
        "https://[::1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1/",
        "https://127.0.0.1./",
        "https://1.1.1.1.5/",
        "https://0x7f.1/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://api.localhost/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://169.254.169.254/latest/meta-data",
        "https://crm.example.com\\@127.0.0.1/",
        "https://crm.example.com/\r\nHost: x",
        "https://crm.exa mple.com/",
        "https://crm_.example.com-/",
        "https://crm..example.com/",
        "https://münchen.example/",
        "https://①②⑦.0.0.1/",
        "https://crm.example.com/" + "a" * 20_000,
    ],
)
def test_check_url_when_odd_or_inside_then_refused(url: str) -> None:
    with pytest.raises(EgressRefused):
        check_url(url, CLOSED)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://API.Example.com/v1", "api.example.com", 443),
        ("https://api.example.com:8443/v1?x=1", "api.example.com", 8443),
        ("https://api.example.com./", "api.example.com", 443),
        ("https://xn--mnchen-3ya.example/", "xn--mnchen-3ya.example", 443),
        ("https://1.1.1.1/", "1.1.1.1", 443),
        ("https://[2606:4700::1111]:444/", "2606:4700::1111", 444),
    ],
)
def test_check_url_when_public_https_then_answers_where_it_points(url: str, host: str, port: int) -> None:
    assert check_url(url, CLOSED) == ("https", host, port)


def test_check_url_when_host_is_listed_then_http_and_inside_are_open() -> None:
    policy = EgressPolicy(("odoo.internal", "127.0.0.1:20001", "localhost:20002", "10.0.0.0/8"))
    assert check_url("http://odoo.internal/jsonrpc", policy).port == 80
    assert check_url("http://127.0.0.1:20001/", policy).port == 20001
    assert check_url("http://localhost:20002/", policy).port == 20002
    assert check_url("http://10.1.2.3/", policy).host == "10.1.2.3"
    for url in ("http://127.0.0.1:20009/", "http://localhost/", "http://other.internal/", "http://11.1.2.3/"):
        with pytest.raises(EgressRefused):
            check_url(url, policy)


def test_check_url_when_refused_then_message_holds_no_query() -> None:
    with pytest.raises(EgressRefused) as caught:
        check_url("http://crm.example.com/?api_key=hush&email=a@b.example", CLOSED)
    assert "hush" not in str(caught.value) and "a@b" not in str(caught.value)


@given(st.text(max_size=80).map(lambda text: "https://" + text) | st.text(max_size=80))
def test_check_url_when_any_text_then_answers_or_refuses(url: str) -> None:
    try:
        endpoint = check_url(url, CLOSED)
    except EgressRefused:
        return
    assert endpoint.host and 0 < endpoint.port < 65536


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_refusal_when_address_is_not_global_by_the_standard_library_then_refused(address: object) -> None:
    import ipaddress

    assert isinstance(address, (ipaddress.IPv4Address, ipaddress.IPv6Address))
    if not address.is_global and address not in ipaddress.ip_network("64:ff9b::/96"):
        assert CLOSED.refusal(str(address), host="crm.example.com", port=443)

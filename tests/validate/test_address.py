import pytest

from limbeck.validate.address import chat_address, is_loopback


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1/chat/completions"),
        ("https://api.example.org/v1/", "https://api.example.org/v1/chat/completions"),
        ("https://host/v2/chat/completions", "https://host/v2/chat/completions"),
    ],
)
def test_a_base_url_becomes_the_chat_endpoint(url: str, address: str) -> None:
    assert chat_address(url) == address
    assert chat_address(address) == address


@pytest.mark.parametrize(
    "url", ["", "host:80", "ftp://host", "http://", "http://h:99999", "http://[::1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http or https URL"):
        chat_address(url)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:1/v1", True),
        ("http://127.1.2.3/v1", True),
        ("http://[::1]:80/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example.org/v1", False),
    ],
)
def test_loopback_is_known(url: str, here: bool) -> None:
    assert is_loopback(url) is here

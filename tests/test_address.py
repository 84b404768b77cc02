import pytest

from limbeck.address import check_address
from limbeck.errors import RecipeError


@pytest.mark.parametrize(
    "url", ["https://api.example.com/v1", "http://127.0.0.1:8000/v1", "http://[::1]:1/v1"]
)
def test_a_plain_address_passes(url: str) -> None:
    check_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:s3cret@api.example.com/v1",
        "https://s3cret@api.example.com/v1",
        "https://api.example.com/v1?key=s3cret",
        "https://api.example.com/v1#s3cret",
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(RecipeError, match="key_variable") as caught:
        check_address(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["api.example.com/v1", "ftp://example.com", "https:///v1", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(RecipeError, match="must begin with https://"):
        check_address(url)

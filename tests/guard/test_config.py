"""guard.toml: what it may say, and what is said about what it may not."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import GuardError
from limbeck.guard.config import load_config, parse_config, served_models, setting_of
from limbeck.guard.interface.admit import ServedModel
from limbeck.guard.upstream.door import read_address
from limbeck.guard.upstream.open import open_upstream
from limbeck.guard.upstream.pool import Pool


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"upstreams": {}}, "there is no key upstreams; the keys there are upstream, models"),
        ({"limits": {"body": 1}}, "no key limits.body; the keys there are body_bytes"),
        (
            {"models": {"m": {"price": 1}}},
            "no key models.m.price; the keys there are upstream, starts_thinking",
        ),
        ({"server": {"workers": 0}}, "server.workers"),
        ({"interface": {"unknown": "maybe"}}, "interface.unknown"),
    ],
)
def test_an_unknown_key_or_value_is_named_with_the_known_ones(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(GuardError, match=said.replace(".", r"\.")):
        parse_config(values)


def test_the_accounts_own_table_is_left_to_them() -> None:
    assert parse_config({"state": {"database": "sqlite:///x.db"}}) == parse_config({})


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "guard.toml"
    path.write_text(
        '[server]\nport = 1\nworkers = 3\n[upstream]\nurl = "http://a:1"\n', encoding="utf-8"
    )
    config = load_config(path, {"server": {"port": 2}})
    assert (config.server.port, config.server.workers, config.upstream.url) == (2, 3, "http://a:1")


@pytest.mark.parametrize("text", ["[server", "\xff\xfe"])
def test_a_file_that_is_none_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "guard.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(GuardError, match=r"guard\.toml"):
        load_config(path)
    with pytest.raises(GuardError, match="cannot be read"):
        load_config(tmp_path / "missing.toml")


def test_the_upstreams_key_comes_from_the_environment_or_not_at_all() -> None:
    config = parse_config({"upstream": {"key_env": "K"}})
    assert setting_of(config, {}, {"K": "secret"}).upstream_headers == (
        (b"authorization", b"Bearer secret"),
    )
    assert "secret" not in repr(setting_of(config, {}, {"K": "secret"}))
    with pytest.raises(GuardError, match="K"):
        setting_of(config, {}, {})


def test_models_and_extra_parameters_become_what_requests_are_judged_by() -> None:
    config = parse_config(
        {
            "models": {"m": {"upstream": "real", "starts_thinking": True, "completion_price": 600}},
            "interface": {
                "extra": [
                    {
                        "path": "/v1/completions",
                        "name": "top_k",
                        "type": "integer",
                        "least": 1,
                        "most": 9,
                    }
                ]
            },
        }
    )
    setting = setting_of(config, served_models(config))
    assert setting.models == {"m": ServedModel("m", "real", True)}
    check = setting.sealing.extra["/v1/completions"]["top_k"].check
    assert check(9) is None
    assert check(10) is not None
    assert setting.prices["m"].of(100, 1001) == 601


def test_an_extra_parameter_cannot_take_the_place_of_a_known_one() -> None:
    extra = {"path": "/v1/chat/completions", "name": "logit_bias", "type": "string"}
    with pytest.raises(GuardError, match="logit_bias"):
        setting_of(parse_config({"interface": {"extra": [extra]}}), {})


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "http://", "http://x:port", "http://u:p@x", "http://x?y=1", "x:80"]
)
def test_what_is_no_upstream_is_refused(url: str) -> None:
    with pytest.raises(GuardError):
        read_address(url)


def test_an_upstreams_address_is_read_in_all_its_forms() -> None:
    one = read_address("http://127.0.0.1:8000/v1/")
    assert (one.host, one.port, one.base, one.authority) == (
        "127.0.0.1",
        8000,
        "",
        "127.0.0.1:8000",
    )
    assert read_address("https://api.example.org/llm/v1").base == "/llm"
    assert read_address("http://[::1]:80").authority == "[::1]"
    assert read_address("unix:/run/model.sock").socket == "/run/model.sock"


def test_tls_and_proxies_get_the_other_client() -> None:
    assert isinstance(open_upstream(parse_config({"upstream": {"url": "http://x"}})), Pool)
    for more in ({"url": "https://x"}, {"url": "http://x", "proxy": "http://y"}):
        assert not isinstance(open_upstream(parse_config({"upstream": more})), Pool)


def test_texts_stand_in_the_traffic_log_only_with_a_reason_and_an_end() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guard.md").read_text(encoding="utf-8")
    printed = page.partition("    [traffic]")[2].partition("A line holds")[0]
    table = parse_config(tomllib.loads("[traffic]" + printed)).traffic
    assert (table.folder, table.texts[0].account, table.texts[0].days) == ("traffic", "a-17", 7)
    assert parse_config({}).traffic.folder is None
    for texts in (
        {"account": "a", "days": 7},
        {"account": "a", "reason": " ", "days": 7},
        {"account": "a", "reason": "r"},
    ):
        with pytest.raises(GuardError, match=r"traffic.texts"):
            parse_config({"traffic": {"texts": [texts]}})

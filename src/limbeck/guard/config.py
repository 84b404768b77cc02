"""guard.toml, apart from `[state]`: what the gateway serves, how strictly, and what it does when a part is away."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from limbeck.errors import GuardError
from limbeck.guard.interface import shapes
from limbeck.guard.interface.admit import Handling, Sealing, ServedModel
from limbeck.guard.interface.body import MAX_DEPTH
from limbeck.guard.interface.endpoints import ENDPOINTS, Parameter
from limbeck.guard.seal.tags import PAIRS, Tags
from limbeck.guard.server import Limits
from limbeck.guard.setting import Price, Setting
from limbeck.guard.upstream.door import Patience

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=1024)]
Count = Annotated[int, Field(ge=1)]
WhenAway = Literal["open", "closed"]
_STATE = "state"
"""The table that `limbeck.guard.state` reads."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UpstreamTable(_Table):
    """The model server."""

    url: str | None = None
    """`http://HOST:PORT`, `https://HOST`, or `unix:PATH`; `--upstream` wins."""
    key_env: str | None = None
    """The environment variable that holds the upstream's key; nothing is sent without one."""
    headers: dict[str, str] = {}
    """Headers that every request upstream has; no secrets."""
    proxy: str | None = None
    """A proxy's URL; requests then go through aiohttp."""
    connections: Count = 1024
    """Of one worker."""
    connect_s: Seconds = 5.0
    place_s: Seconds = 10.0
    first_byte_s: Seconds = 600.0
    between_s: Seconds = 120.0


class ModelTable(_Table):
    """One model under the name that clients use."""

    upstream: str | None = None
    """Its name there, if another."""
    starts_thinking: bool = False
    """Whether answers begin inside the reasoning, because the model's template opens it in the prompt."""
    prompt_price: Annotated[int, Field(ge=0)] = 0
    """Millionths of the currency unit for a thousand tokens."""
    completion_price: Annotated[int, Field(ge=0)] = 0


class ExtraParameter(_Table):
    """A parameter of one's own upstream that the sealed interface lets through."""

    path: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
    name: str
    type: Literal["number", "integer", "boolean", "string"]
    least: float | None = None
    most: float | None = None


class InterfaceTable(_Table):
    """How strictly the interface is sealed."""

    unknown: Handling = "refuse"
    """Parameters that no list has: refuse the request, or drop them."""
    beyond_plan: Handling = "refuse"
    """Parameters that the plan does not grant."""
    extra: tuple[ExtraParameter, ...] = ()
    bias_with_logprobs: bool = False
    """Allows logit_bias and log-probabilities in one request, which gives the model's output layer away."""
    max_depth: Annotated[int, Field(ge=4, le=512)] = MAX_DEPTH
    reasoning_tags: tuple[tuple[str, str], ...] = PAIRS
    """How reasoning is marked in plain text."""


class ServerTable(_Table):
    """The listening side. `host`, `port` and `workers` hold from the start to the end of the process."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    admin_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Where metrics, the admin API and the console are; None: the gateway's port + 1."""
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    client_ip_header: str | None = None
    """The header in which a proxy of yours says whom a request is from."""
    drain_s: Seconds = 30.0
    """How long requests under way may take at a shutdown."""


class LimitsTable(_Table):
    """What one client may take."""

    body_bytes: Bytes = 20 * 1024 * 1024
    reply_bytes: Bytes = 256 * 1024 * 1024
    header_bytes: Bytes = 32 * 1024
    header_count: Count = 100
    header_s: Seconds = 10.0
    body_s: Seconds = 60.0
    write_s: Seconds = 60.0
    idle_s: Seconds = 75.0
    connections: Count = 20_000
    in_flight: Count = 4096
    output_tokens: Count = 4096
    """What a request without a limit of its own reserves of a budget."""


class LadderTable(_Table):
    """What the ladder's rungs do on the data path; their rules are the accounts' (`limbeck guard rules`)."""

    slowed_per_minute: Count = 6
    """Requests a minute of an account whose pace was lowered, in each worker."""


class WatchTable(_Table):
    """The signals."""

    policy: str | None = None
    """The policy file, relative to guard.toml; None: the one that comes with Limbeck."""
    when_away: WhenAway = "open"
    """While the keeper is away or behind: serve at the last known standing, or refuse with 503."""
    burst: Count = 600
    """Requests of an account that the signals all look at, saved up; see `per_s`."""
    per_s: Annotated[float, Field(gt=0)] = 5.0
    """What an account saves up a second. Of a flood beyond that, a random sample at this pace is looked at, and
    the rest is counted."""
    queue_bytes: Bytes = 8 * 1024 * 1024
    """What one worker keeps for a keeper that is behind; beyond it requests become a counted gap."""


class LedgerTable(_Table):
    """The record of decisions."""

    folder: str = "ledger"
    """The folder of the log and its keys, relative to guard.toml."""
    name: str = "limbeck-guard"
    """The log's name in its signed checkpoints."""
    sketches: bool = True
    """Record keyed sketches of requests, not only decisions."""
    when_away: WhenAway = "open"
    """While nothing can be recorded: serve on without new sanctions, or refuse with 503."""


class CoinsTable(_Table):
    """Sealed coins (`limbeck trace collect`). The folder's `coins.jsonl` then holds prompts and answers of the accounts concerned."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of an account's requests that are answered twice, so that a keyed bit decides which is served."""
    accounts: tuple[str, ...] = ()
    """The accounts concerned; none named means all."""
    key_env: str = "LIMBECK_COIN_KEY"
    """The environment variable with the coins' key, 64 hexadecimal digits."""
    beacon: str = ""
    """The public value that was published after the key was committed to."""


class TelemetryTable(_Table):
    """OpenTelemetry traces, by the extra `otel`."""

    endpoint: str | None = None
    """The collector's URL for OTLP over HTTP; None sends nothing."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class TextTable(_Table):
    """An account whose texts stand in the traffic log."""

    account: Annotated[str, Field(min_length=1)]
    """Users behind a reseller count as the reseller."""
    reason: Annotated[str, Field(min_length=1, pattern=r"\S")]
    """Why; it stands beside every text."""
    days: Annotated[int, Field(ge=1, le=3650)]
    """How long a text is kept; it is gone by the midnight (UTC) after."""


class TrafficTable(_Table):
    """The traffic log, which `limbeck guard replay` reads. It holds from the start of the guard."""

    folder: str | None = None
    """Where, relative to guard.toml; None writes none."""
    days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long lines are kept."""
    texts: tuple[TextTable, ...] = ()
    """Accounts whose texts it holds; of all others, numbers and keyed hashes."""


class LogTable(_Table):
    """JSON lines on standard error."""

    requests: bool = False
    """One line for every request; refusals and errors are always logged."""


class GuardConfig(_Table):
    """guard.toml as a value."""

    upstream: UpstreamTable = UpstreamTable()
    models: dict[str, ModelTable] = {}
    """The models that are served, and nothing else; empty: those that the upstream lists when the guard starts."""
    interface: InterfaceTable = InterfaceTable()
    server: ServerTable = ServerTable()
    limits: LimitsTable = LimitsTable()
    ladder: LadderTable = LadderTable()
    watch: WatchTable = WatchTable()
    ledger: LedgerTable = LedgerTable()
    coins: CoinsTable = CoinsTable()
    telemetry: TelemetryTable = TelemetryTable()
    log: LogTable = LogTable()
    traffic: TrafficTable = TrafficTable()

    @property
    def patience(self) -> Patience:
        """Return how long the upstream is waited for."""
        up = self.upstream
        return Patience(up.connect_s, up.place_s, up.first_byte_s, up.between_s)

    @property
    def connection_limits(self) -> Limits:
        """Return what one connection may take."""
        one = self.limits
        return Limits(
            one.header_bytes,
            one.header_count,
            one.header_s,
            one.body_s,
            one.write_s,
            one.idle_s,
            one.connections,
        )


def load_config(
    path: Path, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> GuardConfig:
    """Read guard.toml.

    Args:
        path: The file.
        overrides: Tables whose keys win over the file's, from the command line.

    Raises:
        GuardError: The file is missing or no TOML, or a key or value is none; names it and the known ones.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GuardError(f"{path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GuardError(f"{path} is not TOML: {error}") from None
    for name, table in (overrides or {}).items():
        values[name] = {**values.get(name, {}), **table}
    return parse_config(values, str(path))


def parse_config(values: Mapping[str, Any], where: str = "guard.toml") -> GuardConfig:
    """Check the tables of guard.toml.

    Raises:
        GuardError: A key or value is none.
    """
    try:
        return GuardConfig.model_validate({k: v for k, v in values.items() if k != _STATE})
    except ValidationError as error:
        raise GuardError(_sentence(error, where)) from None


def setting_of(
    config: GuardConfig,
    models: Mapping[str, ServedModel],
    environment: Mapping[str, str] = os.environ,
) -> Setting:
    """Return the configuration prepared for the data path.

    Args:
        config: guard.toml.
        models: What is served, from `served_models` or from the upstream's list.
        environment: Where the upstream's key is.

    Raises:
        GuardError: The environment lacks the upstream's key.
    """
    table, header = config.interface, config.server.client_ip_header
    extra: dict[str, dict[str, Parameter]] = {}
    for one in table.extra:
        extra.setdefault(one.path, {})[one.name] = _parameter(one)
    return Setting(
        models=models,
        sealing=Sealing(
            table.unknown, table.beyond_plan, extra, table.bias_with_logprobs, table.max_depth
        ),
        tags=Tags(table.reasoning_tags),
        prices={
            name: Price(one.prompt_price, one.completion_price)
            for name, one in config.models.items()
        },
        body_bytes=config.limits.body_bytes,
        reply_bytes=config.limits.reply_bytes,
        in_flight=config.limits.in_flight,
        slowed_per_minute=config.ladder.slowed_per_minute,
        output_tokens=config.limits.output_tokens,
        upstream_headers=_upstream_headers(config.upstream, environment),
        client_ip_header=None if header is None else header.lower().encode(),
    )


def served_models(config: GuardConfig) -> dict[str, ServedModel]:
    """Return the models that guard.toml names."""
    return {
        name: ServedModel(name, one.upstream or name, one.starts_thinking)
        for name, one in config.models.items()
    }


def _upstream_headers(
    table: UpstreamTable, environment: Mapping[str, str]
) -> tuple[tuple[bytes, bytes], ...]:
    headers = [(name.lower().encode(), value.encode()) for name, value in table.headers.items()]
    if table.key_env is not None:
        key = environment.get(table.key_env)
        if not key:
            raise GuardError(
                f"the environment must hold the upstream's key in {table.key_env}; it does not"
            )
        headers.append((b"authorization", b"Bearer " + key.encode()))
    return tuple(headers)


def _parameter(one: ExtraParameter) -> Parameter:
    if one.name in ENDPOINTS[one.path].parameters:
        raise GuardError(f"interface.extra: {one.name!r} is a parameter of {one.path} already")
    least = -1e9 if one.least is None else one.least
    most = 1e9 if one.most is None else one.most
    checks = {
        "number": shapes.number(least, most),
        "integer": shapes.integer(int(least), int(most)),
        "boolean": shapes.boolean,
        "string": shapes.text(int(most)),
    }
    return Parameter(checks[one.type])


def _sentence(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{where}, {key}: {first['msg']}, got {first['input']!r}"
    known = _known(first["loc"][:-1])
    return f"{where}: there is no key {key}; the keys there are {', '.join(known)}"


def _known(place: tuple[int | str, ...]) -> list[str]:
    table: Any = GuardConfig
    for part in place:
        if part == "models":
            return list(ModelTable.model_fields)
        if part == "extra":
            return list(ExtraParameter.model_fields)
        if part == "texts":
            return list(TextTable.model_fields)
        table = table.model_fields[part].annotation
    names = list(table.model_fields)
    return [*names, _STATE] if table is GuardConfig else names

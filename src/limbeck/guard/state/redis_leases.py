"""Leases in Redis or Valkey, where every call is one script and so one transaction.

Run the server with `appendonly yes`: what it forgets in a crash, the budgets forget. One primary, no cluster. Budgets go
up to 2^53 - 1, because its scripts count in doubles.

Under `limbeck:`, `taken:HOLDER` and `leased:HOLDER` count each meter of a holder, `workers` the beats, and
`leases:WORKER` holds `amount charged meter holder` by lease id.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from limbeck.errors import LostError, StateError
from limbeck.extras import need
from limbeck.guard.account import Measure, Window
from limbeck.guard.state.leases import Grant, Meter, Want
from limbeck.guard.window import DAY_S

_TIMEOUT_S = 2.0
_KEPT_S = {
    Window.MINUTE: 600,
    Window.DAY: 100 * DAY_S,
    Window.MONTH: 800 * DAY_S,
    Window.LIFE: 0,
}
_LOST = "LOST"

_COMMON = """
local function text(n) return string.format('%.0f', n) end
local function key(what, name) return 'limbeck:' .. what .. ':' .. name end
local function lease(worker, id)
  local row = redis.call('HGET', key('leases', worker), id)
  if not row then return nil end
  local amount, charged, meter, holder = row:match('^(%S+) (%S+) (%S+) (.*)$')
  return {amount = tonumber(amount), charged = tonumber(charged), meter = meter, holder = holder}
end
local function put(worker, id, l)
  local row = text(l.amount) .. ' ' .. text(l.charged) .. ' ' .. l.meter .. ' ' .. l.holder
  redis.call('HSET', key('leases', worker), id, row)
end
local function add(what, l, n)
  return redis.call('HINCRBY', key(what, l.holder), l.meter, text(n))
end
local function finish(worker, id, charged)
  local l = lease(worker, id)
  if not l then return end
  add('taken', l, charged - l.amount)
  add('leased', l, l.charged - l.amount)
  redis.call('HDEL', key('leases', worker), id)
end
local function forget_old(holder, meter, kept)
  local kind, starts = meter:match('^(.*/)(%d+)$')
  for _, old in ipairs(redis.call('HKEYS', key('taken', holder))) do
    local old_kind, began = old:match('^(.*/)(%d+)$')
    if old_kind == kind and tonumber(began) < tonumber(starts) - kept then
      redis.call('HDEL', key('taken', holder), old)
      redis.call('HDEL', key('leased', holder), old)
    end
  end
end
local worker = ARGV[1]
local known = redis.call('HEXISTS', 'limbeck:workers', worker) == 1
"""

_GRANT = """
if not known then return redis.error_reply('LOST worker') end
local wants, all = {}, true
for i = 2, #ARGV, 6 do
  local w = {holder = ARGV[i], meter = ARGV[i+1], limit = tonumber(ARGV[i+2]),
    need = tonumber(ARGV[i+3]), id = ARGV[i+4], kept = tonumber(ARGV[i+5])}
  w.had = redis.call('HGET', key('taken', w.holder), w.meter)
  w.left = w.limit - tonumber(w.had or '0')
  w.amount = 0
  if w.need <= w.left then w.amount = math.max(w.need, math.floor(w.left / 16)) end
  if w.amount <= 0 then all = false end
  if w.id ~= '0' then
    w.lease = lease(worker, w.id)
    if not w.lease then return redis.error_reply('LOST lease') end
  end
  wants[#wants + 1] = w
end
local answer = {}
for _, w in ipairs(wants) do
  if all then
    if not w.had then forget_old(w.holder, w.meter, w.kept) end
    local l = w.lease or {amount = 0, charged = 0, meter = w.meter, holder = w.holder}
    local id = w.id
    if id == '0' then id = text(redis.call('INCR', 'limbeck:last_lease')) end
    l.amount = l.amount + w.amount
    put(worker, id, l)
    add('taken', l, w.amount)
    add('leased', l, w.amount)
    answer[#answer + 1] = {tonumber(id), w.amount, w.left - w.amount, 0}
  else
    local mine = 0
    if w.lease then mine = w.lease.amount - w.lease.charged end
    local leased = tonumber(redis.call('HGET', key('leased', w.holder), w.meter) or '0')
    answer[#answer + 1] = {0, 0, w.left, leased - mine}
  end
end
return answer
"""

_REPORT = """
if not known then return redis.error_reply('LOST worker') end
redis.call('HINCRBY', 'limbeck:workers', worker, 1)
local named = {}
for i = 3, #ARGV, 2 do
  named[ARGV[i]] = true
  local l = lease(worker, ARGV[i])
  if l then
    add('leased', l, l.charged - tonumber(ARGV[i+1]))
    l.charged = tonumber(ARGV[i+1])
    put(worker, ARGV[i], l)
  end
end
if ARGV[2] == '1' then
  for _, id in ipairs(redis.call('HKEYS', key('leases', worker))) do
    if not named[id] then finish(worker, id, 0) end
  end
end
"""

_CLOSE = "for i = 2, #ARGV, 2 do finish(worker, ARGV[i], tonumber(ARGV[i+1])) end"

_LEAVE = """
local charged = {}
for i = 3, #ARGV, 2 do charged[ARGV[i]] = tonumber(ARGV[i+1]) end
for _, id in ipairs(redis.call('HKEYS', key('leases', worker))) do
  local l = lease(worker, id)
  local rest = l.amount
  if ARGV[2] == '1' then rest = l.charged end
  finish(worker, id, charged[id] or rest)
end
redis.call('HDEL', 'limbeck:workers', worker)
"""

_CHARGE = """
for i = 2, #ARGV, 3 do
  add('taken', {holder = ARGV[i], meter = ARGV[i+1]}, tonumber(ARGV[i+2]))
end
"""


class RedisLeases:
    """Owns a connection pool.

    Args:
        url: `redis://HOST:PORT/DB`, `rediss://…` or `unix://…`. A password belongs into the environment's URL.

    Raises:
        StateError: The URL is no such URL.
        MissingDependencyError: The client is not installed.
    """

    def __init__(self, url: str) -> None:
        need("state.counters", "redis", "redis")
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            self._redis: Any = Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),  # a grant that is sent twice is leased twice
            )
        except ValueError as error:
            raise StateError(f"state.counters must be redis://HOST/DB: {error}") from error
        scripts = {"grant": _GRANT, "report": _REPORT, "close": _CLOSE, "leave": _LEAVE}
        self._scripts = {
            name: self._redis.register_script(_COMMON + body)
            for name, body in {**scripts, "charge": _CHARGE}.items()
        }

    def join(self, worker: str, host: str) -> None:
        """Enter a worker; `host` is part of its name already."""
        with _translated():
            self._redis.hset("limbeck:workers", worker, 0)

    def grant(self, worker: str, wants: Sequence[Want]) -> list[Grant]:
        """Lease what is wanted, all or nothing."""
        arguments: list[object] = []
        for want in wants:
            kept = _KEPT_S[want.meter.window]
            arguments += [want.meter.holder, _name(want.meter)]
            arguments += [want.limit, want.need, want.lease, kept]
        return [Grant(*answer) for answer in self._run("grant", worker, *arguments)]

    def report(self, worker: str, charged: Mapping[int, int], *, complete: bool = False) -> None:
        """Say that the worker lives, and what it has charged."""
        self._run("report", worker, int(complete), *_flat(charged))

    def close(self, worker: str, charged: Mapping[int, int]) -> None:
        """End leases; what was charged stays taken."""
        self._run("close", worker, *_flat(charged))

    def charge(self, debts: Mapping[Meter, int]) -> None:
        """Take amounts that were spent without a lease."""
        arguments: list[object] = []
        for meter, amount in debts.items():
            arguments += [meter.holder, _name(meter), amount]
        self._run("charge", "", *arguments)

    def leave(self, worker: str, charged: Mapping[int, int], *, forgive: bool) -> None:
        """End every lease of a worker and forget it."""
        self._run("leave", worker, int(forgive), *_flat(charged))

    def beats(self) -> dict[str, int]:
        """Return how often each worker has reported."""
        with _translated():
            return {k: int(v) for k, v in self._redis.hgetall("limbeck:workers").items()}

    def spent(self, holder: str) -> dict[Meter, tuple[int, int]]:
        """Return what is charged and what is leased out beside it, of each meter of a holder."""
        with _translated():
            taken = self._redis.hgetall(f"limbeck:taken:{holder}")
            leased = self._redis.hgetall(f"limbeck:leased:{holder}")
        found = {_meter(holder, n): (int(t), int(leased.get(n, 0))) for n, t in taken.items()}
        ordered = sorted(found, key=lambda meter: meter.starts)
        return {m: (found[m][0] - found[m][1], found[m][1]) for m in ordered}

    def prune(self, now: float) -> None:
        """Do nothing: a holder's old meters go when a new one begins."""

    def shut(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _run(self, script: str, worker: str, *arguments: object) -> Any:
        with _translated():
            return self._scripts[script](args=[worker, *arguments])


@contextmanager
def _translated() -> Generator[None]:
    from redis.exceptions import RedisError

    try:
        yield
    except RedisError as error:
        if str(error).startswith(_LOST):
            raise LostError("this worker was given up as lost") from error
        raise StateError(f"redis: {error}") from error


def _name(meter: Meter) -> str:
    return f"{meter.measure.value}/{meter.window.value}/{meter.starts}"


def _meter(holder: str, name: str) -> Meter:
    measure, window, starts = name.split("/")
    return Meter(holder, Measure(measure), Window(window), int(starts))


def _flat(charged: Mapping[int, int]) -> list[int]:
    return [number for pair in charged.items() for number in pair]

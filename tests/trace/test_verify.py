"""Each attack of an accuser who holds all keys, and would like an innocent model to look guilty."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import LimbeckError, TraceError
from limbeck.ledger.container import read_container
from limbeck.ledger.encoding import canonical
from limbeck.ledger.keys import new_keys
from limbeck.ledger.note import COSIGNATURE, PublicKey, cosign, new_signer, sign
from limbeck.ledger.record import Entry
from limbeck.trace.bundle import record_run, register
from limbeck.trace.coins import toss
from limbeck.trace.registration import TRACE, Named, write_registration
from limbeck.trace.sealing import COMMITMENT, KEY
from limbeck.trace.verify import verify_trace
from smalltrace import BEACON_AT, PLAN, SOURCE, VALUE, Case, resealed

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    made = Case(tmp_path_factory.mktemp("trace"))
    made.honest()
    return made


@pytest.fixture(scope="module")
def bundle(case: Case) -> Path:
    return case.folder / "bundle.zip"


@pytest.fixture
def fresh(tmp_path: Path) -> Case:
    return Case(tmp_path)


def attacked(case: Case, bundle: Path, tmp_path: Path, change: Callable[[Files], object]) -> Path:
    return resealed(bundle, case.keys, tmp_path / "attacked.zip", change)


def edit(files: Files, name: str, change: Callable[[Any], None]) -> None:
    value = json.loads(files[name])
    change(value)
    files[name] = canonical(value)


# Sound bundles.


def test_an_honest_audit_of_a_copy_verifies_and_finds_it(case: Case, bundle: Path) -> None:
    shown = verify_trace(bundle, public_key=case.keys.signer.public, beacon=VALUE)
    (run,) = shown.runs
    assert run.distilled
    assert run.suspect == "suspect"
    assert 0 < run.coins <= run.at_hand == 80
    assert shown.registration.alpha == 0.01
    assert shown.registration.beacon_source == SOURCE
    assert shown.other_registrations == 0
    assert shown.recorded_at < BEACON_AT


def test_an_honest_audit_of_an_innocent_model_verifies_and_shows_nothing(fresh: Case) -> None:
    (run,) = verify_trace(fresh.honest(gain=0.0)).runs
    assert not run.distilled
    assert run.coins == 80


def test_what_was_not_checked_is_said(case: Case, bundle: Path) -> None:
    least = verify_trace(bundle, public_key=case.keys.signer.public, beacon=VALUE).rests_on
    most = verify_trace(bundle).rests_on
    assert any("log-likelihoods" in sentence for sentence in least)
    assert any("owner's clock" in sentence for sentence in least)
    assert {s.split(";")[0] for s in most} > {s.split(";")[0] for s in least}
    assert any("whose key it is" in sentence for sentence in most)
    assert any("look up what test beacon, round 7 published" in sentence for sentence in most)


def test_several_suspects_and_accounts_share_the_level(fresh: Case) -> None:
    fresh.commit(count=120)
    fresh.register(replace(PLAN, suspects=2, by_account=True, candidates=("suspect", "other")))
    fresh.seal()
    each = 0.01 / (2 * 3)
    reports = [
        fresh.audit(6.0, alpha=each),
        fresh.audit(0.0, alpha=each, name="other"),
        fresh.audit(6.0, alpha=each, accounts=["account 1"]),
    ]
    shown = verify_trace(fresh.export(*reports))
    assert [(r.suspect, r.accounts, r.distilled) for r in shown.runs] == [
        ("suspect", (), True),
        ("other", (), False),
        ("suspect", ("account 1",), True),
    ]
    assert shown.registration.alpha_each == pytest.approx(each)


def test_exporting_twice_numbers_no_run_twice(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    fresh.seal()
    report = fresh.audit()
    fresh.export(report)
    assert len(verify_trace(fresh.export(report, out="again.zip")).runs) == 1


def test_fixed_weights_verify_too(fresh: Case) -> None:
    fresh.commit()
    fresh.register(replace(PLAN, weights="one"))
    fresh.seal()
    assert verify_trace(fresh.export(fresh.audit(weights="one"))).runs[0].distilled


# A key ground until it fits.


def test_a_key_ground_after_the_beacon_is_rejected(fresh: Case) -> None:
    """The beacon is public, the accuser draws keys until an innocent model leans to the bits, then commits."""
    fresh.clock.now = BEACON_AT + 1000
    fresh.commit()
    with pytest.raises(TraceError, match="is public before the registration"):
        fresh.register()
    # So the owner's own code is changed: the registration and the commitment claim to be older than the ledger is.
    fresh.clock.now = BEACON_AT + 1000
    note = _backdated_registration(fresh)
    fresh.seal()
    with pytest.raises(
        TraceError, match="was public before the coins were committed to and recorded"
    ):
        verify_trace(_export_with(fresh, note))


def _backdated_registration(case: Case) -> str:
    made: list[str] = []

    def act(log: Any) -> None:
        real, log.now = log.now, lambda: BEACON_AT - 60_000
        register(case.coins, PLAN, log, case.keys)
        log.now = real
        made.append((case.coins / "registration.note").read_text())

    _backdate_commitment(case)
    case.log(act)
    return made[0]


def _backdate_commitment(case: Case) -> None:
    path = case.coins / COMMITMENT
    values = json.loads(path.read_text())
    text = values["committed"].split("\n\n")[0] + "\n"
    early = datetime.fromtimestamp(BEACON_AT / 1000 - 120, UTC).isoformat()
    text = re.sub(r'"created":"[^"]*"', f'"created":"{early}"', text)
    path.write_text(json.dumps({**values, "committed": sign(text, case.keys.signer)}))


def _export_with(case: Case, note: str) -> Path:
    assert note
    return case.export(case.audit())


def test_another_key_than_the_committed_one_is_rejected(
    case: Case, bundle: Path, tmp_path: Path
) -> None:
    """Ground in secret, swapped in with bits that fit it."""

    def change(files: Files) -> None:
        key = bytes(range(32))
        rows = [json.loads(line) for line in files["coins.jsonl"].splitlines()]
        for row in rows:
            row["served"] = toss(key, VALUE, bytes.fromhex(row["hash"]))
        files["coins.jsonl"] = b"".join(json.dumps(r).encode() + b"\n" for r in rows)
        files["coin.key"] = key.hex().encode() + b"\n"

    with pytest.raises(TraceError, match=r"coin.key is not the key that was committed to"):
        verify_trace(attacked(case, bundle, tmp_path, change))


def test_many_commitments_of_which_the_fitting_one_is_shown_are_rejected(fresh: Case) -> None:
    """Keys cannot be ground after the beacon, so many are registered before it; the ledger shows them all."""
    fresh.commit()
    fresh.register()
    for n in range(7):
        other = Case(fresh.folder / f"other-{n}", fresh.keys, fresh.clock)
        other.commit()
        fresh.log(lambda log, other=other: register(other.coins, PLAN, log, other.keys))
    fresh.seal()
    out = fresh.export(fresh.audit())
    with pytest.raises(TraceError, match=r"8 registrations together allow .* a chance of 0.08"):
        verify_trace(out)
    shown = verify_trace(out, most_alpha=0.1)
    assert shown.other_registrations == 7
    assert any("7 further registrations" in sentence for sentence in shown.rests_on)


# Prompts picked after looking; coins added late; edited answers.


def _coins(files: Files, change: Callable[[list[Any]], list[Any]]) -> None:
    rows = change([json.loads(line) for line in files["coins.jsonl"].splitlines()])
    files["coins.jsonl"] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _rehashed(row: Any) -> Any:
    from limbeck.trace.coins import Pair

    pair = Pair(row["prompt"], row["y0"], row["y1"], row["account"])
    key = bytes(32)
    return {**row, "hash": pair.hash.hex(), "served": toss(key, VALUE, pair.hash)}


COINS: dict[str, tuple[Callable[[list[Any]], list[Any]], str]] = {
    "prompts picked": (lambda rows: rows[::2], "are not the 80 that were committed to"),
    "one coin dropped": (lambda rows: rows[:-1], "are not the 80 that were committed to"),
    "a coin added late": (
        lambda rows: [*rows, _rehashed({**rows[0], "prompt": "a late one"})],
        "are not the 80 that were committed to",
    ),
    "a coin twice": (lambda rows: [*rows[:-1], rows[0]], "stands twice"),
    "coins reordered": (
        lambda rows: [rows[1], rows[0], *rows[2:]],
        "are not the 80 that were committed to",
    ),
    "an edited answer": (lambda rows: [{**rows[0], "y0": "edited"}, *rows[1:]], "was edited"),
    "an edited answer with its hash": (
        lambda rows: [_rehashed({**rows[0], "y0": "edited"}), *rows[1:]],
        "are not the 80 that were committed to",
    ),
    "a swapped account": (
        lambda rows: [_rehashed({**rows[0], "account": "account 1"}), *rows[1:]],
        "are not the 80 that were committed to",
    ),
    "a flipped bit": (
        lambda rows: [{**rows[0], "served": 1 - rows[0]["served"]}, *rows[1:]],
        "has a bit that the key and the beacon do not give",
    ),
}


@pytest.mark.parametrize("attack", COINS)
def test_coins_that_were_touched_are_rejected(
    attack: str, case: Case, bundle: Path, tmp_path: Path
) -> None:
    change, words = COINS[attack]
    with pytest.raises(TraceError, match=words):
        verify_trace(attacked(case, bundle, tmp_path, lambda files: _coins(files, change)))


SPELLING: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "a prompt twice in one coin": (
        "coins.jsonl",
        lambda data: data.replace(b'{"prompt"', b'{"prompt": "another question", "prompt"', 1),
        "spelt otherwise",
    ),
    "a tab for a space": (
        "coins.jsonl",
        lambda data: data.replace(b" ", b"\t", 1),
        "spelt otherwise",
    ),
    "a key in capitals": ("coin.key", lambda data: data.upper(), "in small letters"),
}


@pytest.mark.parametrize("attack", SPELLING)
def test_evidence_that_is_spelt_otherwise_is_rejected(
    attack: str, case: Case, bundle: Path, tmp_path: Path
) -> None:
    name, change, words = SPELLING[attack]

    def respell(files: Files) -> None:
        files[name] = change(files[name])

    with pytest.raises(TraceError, match=words):
        verify_trace(attacked(case, bundle, tmp_path, respell))


def test_prompts_picked_within_a_run_are_rejected(fresh: Case) -> None:
    """The accuser scores all coins and reports those that lean the right way."""
    fresh.commit()
    fresh.register()
    fresh.seal()
    report = fresh.audit(0.0, stop_early=False)
    figures = json.loads(report.read_text())
    leaning = [i for i in figures["items"] if (i["d"] > 0) == bool(i["bit"])]
    figures |= {"items": leaning, "coins_used": len(leaning), "verdict": "distilled"}
    report.write_text(json.dumps(figures))
    with pytest.raises(
        TraceError, match=r"is not the .*registered coin: one was left out, added or moved"
    ):
        verify_trace(fresh.export(report))


def test_an_account_picked_after_looking_is_rejected(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    fresh.seal()
    with pytest.raises(
        TraceError, match="is about the accounts account 1, which was not registered"
    ):
        verify_trace(fresh.export(fresh.audit(accounts=["account 1"])))


# A second run hidden.


def test_a_run_that_is_hidden_at_the_export_is_asked_for(fresh: Case) -> None:
    fresh.commit()
    fresh.register(replace(PLAN, suspects=2))
    fresh.seal()
    first, second = fresh.audit(0.0, alpha=0.005), fresh.audit(6.0, alpha=0.005, name="other")
    fresh.export(first)
    with pytest.raises(TraceError, match="2 runs of this registration; give the report of run 1"):
        fresh.export(second, out="hiding.zip")


def test_a_run_hidden_from_the_bundle_is_missed(fresh: Case, tmp_path: Path) -> None:
    fresh.commit()
    fresh.register(replace(PLAN, suspects=2))
    fresh.seal()
    first, second = fresh.audit(0.0, alpha=0.005), fresh.audit(6.0, alpha=0.005, name="other")
    out = fresh.export(first, second)
    verify_trace(out)

    def hide(files: Files) -> None:
        del files["run-1.json"], files["run-1.html"]

    with pytest.raises(TraceError, match=r"run 1 stands in the ledger, .*a run is hidden"):
        verify_trace(attacked(fresh, out, tmp_path, hide))

    def rename(files: Files) -> None:
        files["run-1.json"], files["run-1.html"] = files.pop("run-2.json"), files.pop("run-2.html")

    with pytest.raises(TraceError, match="is not the report that the ledger recorded as run 1"):
        verify_trace(attacked(fresh, out, tmp_path, rename))


def test_an_older_ledger_without_the_second_run_does_not_go_on_from_a_checkpoint_seen_since(
    fresh: Case, tmp_path: Path
) -> None:
    """The ledger is copied before the unwelcome run, and the copy is shown; whoever has a later checkpoint sees it."""
    fresh.commit()
    fresh.register(replace(PLAN, suspects=2))
    fresh.seal()
    copy = Case(tmp_path / "copy", fresh.keys, fresh.clock)
    shutil.copytree(fresh.folder, copy.folder, ignore=shutil.ignore_patterns("copy"))
    fresh.export(fresh.audit(0.0, alpha=0.005))
    seen = fresh.log(lambda log: log.sign().checkpoint)
    out = copy.export(copy.audit(6.0, alpha=0.005, name="other"))
    verify_trace(out)
    with pytest.raises(LimbeckError, match=r"known checkpoint|forked"):
        verify_trace(out, known=[seen])


def test_more_runs_or_suspects_than_registered_are_rejected(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    fresh.seal()
    one, two = fresh.audit(0.0), fresh.audit(6.0, name="other")
    with pytest.raises(TraceError, match="2 suspects were tried, but 1 registered"):
        verify_trace(fresh.export(one, two))


def test_a_run_repeated_until_it_fits_is_rejected(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    fresh.seal()
    reports = [fresh.audit(6.0), fresh.audit(6.0, stop_early=False)]
    with pytest.raises(TraceError, match="2 runs were made, but 1 tests registered"):
        verify_trace(fresh.export(*reports))


def test_a_suspect_that_is_no_candidate_is_rejected(fresh: Case) -> None:
    fresh.commit()
    fresh.register(replace(PLAN, candidates=("another",)))
    fresh.seal()
    with pytest.raises(TraceError, match="suspect, which was not registered as a candidate"):
        verify_trace(fresh.export(fresh.audit()))


# A swapped reference, another level, another statistic.


def test_a_swapped_reference_is_rejected(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    fresh.seal()
    report = fresh.audit(reference=Named("teacher", "cd" * 32))
    with pytest.raises(TraceError, match="uses other references than were registered"):
        verify_trace(fresh.export(report))


def test_a_changed_level_is_rejected(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    fresh.seal()
    with pytest.raises(TraceError, match=r"judged at alpha = 0.2, but 0.01 was registered"):
        verify_trace(fresh.export(fresh.audit(2.0, alpha=0.2)))


def test_a_level_that_is_not_shared_among_the_tests_is_rejected(fresh: Case) -> None:
    fresh.commit()
    fresh.register(replace(PLAN, suspects=4))
    fresh.seal()
    with pytest.raises(TraceError, match=r"0.01 was registered for 4 tests: 0.0025 each"):
        verify_trace(fresh.export(fresh.audit(alpha=0.01)))


def test_other_weights_than_registered_are_rejected(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    fresh.seal()
    with pytest.raises(TraceError, match="other weights or bets"):
        verify_trace(fresh.export(fresh.audit(weights="one")))


def _changed(fresh: Case, change: Callable[[Any], None], gain: float = 0.0) -> Path:
    fresh.commit()
    fresh.register()
    fresh.seal()
    report = fresh.audit(gain, stop_early=False)
    figures = json.loads(report.read_text())
    change(figures)
    report.write_text(json.dumps(figures))
    return fresh.export(report)


REPORTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "another verdict": (lambda r: r.update(verdict="distilled"), "gives the verdict 'distilled'"),
    "another e-value": (lambda r: r.update(log_e_value=9.0), "says log_e_value = 9.0"),
    "another peak": (lambda r: r.update(peak_log_e_value=9.0), "says peak_log_e_value = 9.0"),
    "another crossing": (lambda r: r.update(crossing=5), "says crossing = 5"),
    "another path": (lambda r: r["path"].__setitem__(3, 4.0), "draws another path"),
    "another d": (lambda r: r["items"][3].update(d=7.0), "says d = 7, but"),
    "another bit": (lambda r: r["items"][3].update(bit=1 - r["items"][3]["bit"]), "another bit"),
    "another log-likelihood": (lambda r: r["items"][3]["suspect"].__setitem__(0, -1.0), "says d ="),
    "fewer coins told": (lambda r: r.update(coins_used=7), "says coins_used = 7"),
    "more coins at hand": (lambda r: r.update(coins_at_hand=900), "says coins_at_hand = 900"),
    "other bets": (lambda r: r["statistic"]["bets"].__setitem__(0, 99.0), "other weights or bets"),
    "another statistic": (lambda r: r["statistic"].update(name="cosine"), "the statistic 'cosine'"),
    "a reference left out": (lambda r: r["items"][2]["references"].clear(), "has 0 references"),
    "no items": (lambda r: r["items"].clear(), "scored 0 coins"),
    "an infinite score": (lambda r: r["items"][0].update(suspect=["inf", 0.0]), "two finite"),
    "another agreement": (lambda r: r["agreement"].update(value=0.99), "says agreement = 0.99"),
    "another teacher": (lambda r: r["teacher"].update(name="x"), "names another teacher"),
    "other coins": (lambda r: r["coins"].update(root="ab" * 32), "is about other coins"),
    "an e-value for reading": (lambda r: r.update(e_value=1e6), "says e_value = 1000000.0"),
    "an account named": (lambda r: r.update(accounts={"tested": [], "found": ["account 1"]}), "says which account leaked, which was not registered"),
    "a missing figure": (lambda r: r.pop("path"), "lacks the field 'path'"),
}  # fmt: skip


@pytest.mark.parametrize("attack", REPORTS)
def test_a_report_that_was_touched_is_rejected(
    attack: str, fresh: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limbeck.trace.bundle.render_html", str)
    change, words = REPORTS[attack]
    with pytest.raises(LimbeckError, match=re.escape(words)):
        verify_trace(_changed(fresh, change))


# A wrong beacon, or one from before.


def test_another_beacon_than_was_published_is_rejected(bundle: Path) -> None:
    with pytest.raises(TraceError, match="is '5f3c9a11' in the bundle, but 'ffff' was published"):
        verify_trace(bundle, beacon="ffff")


def test_a_beacon_swapped_in_the_signed_note_is_rejected(
    case: Case, bundle: Path, tmp_path: Path
) -> None:
    def change(files: Files) -> None:
        text = files["sealed.note"].decode().split("\n\n")[0] + "\n"
        files["sealed.note"] = sign(text.replace(VALUE, "ffff"), case.keys.signer).encode()

    with pytest.raises(TraceError, match="has a bit that the key and the beacon do not give"):
        verify_trace(attacked(case, bundle, tmp_path, change))


def test_a_beacon_of_another_moment_than_registered_is_rejected(fresh: Case) -> None:
    """One among many rounds, chosen because it fits."""
    fresh.commit()
    fresh.register()
    fresh.seal(at=BEACON_AT + 30_000)
    with pytest.raises(TraceError, match=r"the beacon is of .*, but .* was registered"):
        verify_trace(fresh.export(fresh.audit()))


def test_a_beacon_from_before_the_commitment_cannot_be_registered(fresh: Case) -> None:
    fresh.commit()
    with pytest.raises(TraceError, match="is public before the registration of"):
        fresh.register(replace(PLAN, beacon_at=fresh.clock.now - 1000))


def test_coins_without_a_beacon_are_rejected(fresh: Case) -> None:
    from limbeck.trace.sealing import seal

    fresh.commit()
    fresh.register()
    fresh.clock.now = BEACON_AT + 1000
    seal(fresh.coins, fresh.keys.signer, None)
    with pytest.raises(TraceError, match="without a public beacon"):
        verify_trace(fresh.export(fresh.audit()))


def test_a_run_recorded_before_its_beacon_was_public_is_rejected(fresh: Case) -> None:
    """Whoever runs before the value is published made the value up."""
    fresh.commit()
    fresh.register()
    before = fresh.clock.now
    fresh.seal()
    fresh.clock.now = before
    with pytest.raises(TraceError, match="a run was recorded before the beacon was public"):
        verify_trace(fresh.export(fresh.audit()))


# A witness instead of the owner's clock.


def _cosigned(case: Case, seconds: int) -> tuple[str, PublicKey]:
    witness = new_signer("witness.example", kind=COSIGNATURE)
    note = case.log(lambda log: log.sign().checkpoint)
    return cosign(note, witness, seconds), witness.public


def test_a_witness_of_the_ledger_before_the_beacon_replaces_the_owner_s_clock(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    seen, witness = _cosigned(fresh, BEACON_AT // 1000 - 600)
    fresh.seal()
    out = fresh.export(fresh.audit(), known=[seen])
    shown = verify_trace(out, witness=witness)
    assert shown.seen_at == datetime.fromtimestamp(BEACON_AT // 1000 - 600, UTC)
    assert not any("owner's clock" in sentence for sentence in shown.rests_on)


def test_a_witness_that_saw_the_registration_after_the_beacon_does_not_help(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    seen, witness = _cosigned(fresh, BEACON_AT // 1000 + 5)
    fresh.seal()
    out = fresh.export(fresh.audit(), known=[seen])
    with pytest.raises(
        TraceError, match=r"was seen by witness\.example at .*, not before the beacon"
    ):
        verify_trace(out, witness=witness)


def test_a_witness_that_saw_the_ledger_without_the_registration_does_not_help(fresh: Case) -> None:
    fresh.log(lambda log: log.append([Entry("gap", None, {})]))
    seen, witness = _cosigned(fresh, BEACON_AT // 1000 - 600)
    fresh.commit()
    fresh.register()
    fresh.seal()
    out = fresh.export(fresh.audit(), known=[seen])
    with pytest.raises(TraceError, match="cosigned no checkpoint that has the registration"):
        verify_trace(out, witness=witness)


# A plan made or chosen after looking.


def test_a_plan_for_coins_that_are_sealed_is_refused(fresh: Case) -> None:
    fresh.commit()
    fresh.seal()
    with pytest.raises(TraceError, match="is sealed already: its bits are known"):
        fresh.register()


def test_coins_that_were_never_registered_make_no_bundle(fresh: Case) -> None:
    fresh.commit()
    fresh.seal()
    with pytest.raises(TraceError, match="was never registered"):
        fresh.export(fresh.audit())


def test_two_plans_for_the_same_coins_are_rejected(fresh: Case) -> None:
    """One with each of two references, so that the better one can be shown."""
    fresh.commit()
    fresh.register()
    (fresh.coins / "registration.note").unlink()
    fresh.register(replace(PLAN, references=(Named("other", "cd" * 32),)))
    fresh.seal()
    report = fresh.audit(reference=Named("other", "cd" * 32))
    with pytest.raises(TraceError, match="several plans were registered for these coins"):
        verify_trace(fresh.export(report))


def test_a_plan_that_the_ledger_never_recorded_is_rejected(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    from limbeck.trace.registration import read_registration

    path = fresh.coins / "registration.note"
    plan = read_registration(path.read_text(), fresh.keys.signer.public)
    path.write_text(write_registration(replace(plan, alpha=0.02), fresh.keys.signer))
    fresh.seal()
    with pytest.raises(TraceError, match="the registration is not in the owner's ledger"):
        verify_trace(fresh.export(fresh.audit(alpha=0.02)))


def test_a_plan_recorded_with_another_level_is_rejected(fresh: Case) -> None:
    """Many plans with a tiny level in the ledger, so that their sum looks small, and a large one in the note."""
    fresh.commit()
    real = fresh.log

    def lying(act: Callable[[Any], Any]) -> Any:
        def wrapped(log: Any) -> Any:
            plain = log.append

            def append(entries: list[Entry]) -> Any:
                told = [
                    replace(e, content={**e.content, "alpha": 1e-9})
                    if e.kind == "registration"
                    else e
                    for e in entries
                ]
                return plain(told)

            log.append = append
            return act(log)

        return real(wrapped)

    lying(lambda log: register(fresh.coins, PLAN, log, fresh.keys))
    fresh.seal()
    with pytest.raises(TraceError, match="with other coins or another level"):
        verify_trace(fresh.export(fresh.audit()))


# Which account leaked.


def _accounts(case: Case, change: Callable[[Any], None] = lambda _: None) -> Path:
    """An audit of all coins at once that says which of two accounts leaked; the suspect learned from one alone."""
    case.commit(count=160)
    case.register(replace(PLAN, by_account=True))
    case.seal()
    report = case.audit(6.0, alpha=0.01 / 3, stop_early=False, learned="account 1", by_account=True)
    figures = json.loads(report.read_text())
    change(figures)
    report.write_text(json.dumps(figures))
    return case.export(report)


def test_the_account_that_leaked_comes_out_again(fresh: Case) -> None:
    out = _accounts(fresh)
    assert verify_trace(out).runs[0].coins == 160
    report = json.loads(read_container(out)["run-1.json"])
    assert report["accounts"]["found"] == ["account 1"]


ACCOUNTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "another found": (lambda r: r["accounts"].update(found=["account 0"]), "account 0 leaked, but account 1"),
    "one hidden": (lambda r: r["accounts"].update(found=[]), "none leaked, but account 1"),
    "a mark moved": (lambda r: r["accounts"]["tested"][0].update(found=False), "but account 1"),
    "another e-value": (lambda r: r["accounts"]["tested"][1].update(e_value=9e9), "other e-values"),
    "an account left out": (lambda r: r["accounts"]["tested"].pop(), "other e-values of accounts"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ACCOUNTS)
def test_another_account_than_comes_out_is_rejected(attack: str, fresh: Case) -> None:
    change, words = ACCOUNTS[attack]
    with pytest.raises(TraceError, match=words):
        verify_trace(_accounts(fresh, change))


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1e6), max_size=8), st.floats(1e-4, 0.5))
def test_e_bh_is_what_the_audit_uses(e_values: dict[str, float], alpha: float) -> None:
    from limbeck.trace.many import discover
    from limbeck.trace.rerun import found_by_e_bh

    if e_values:
        assert found_by_e_bh(e_values, alpha) == set(discover(e_values, alpha).found)


# Outsiders, and what is no bundle.


@settings(max_examples=60)
@given(st.data())
def test_any_byte_changed_anywhere_fails(bundle: Path, data: st.DataObject) -> None:
    raw = bytearray(bundle.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    other = bundle.with_name("other.zip")
    other.write_bytes(raw)
    with pytest.raises(LimbeckError):
        verify_trace(other)


@settings(max_examples=60)
@given(st.data())
def test_any_evidence_changed_and_sealed_again_fails(
    case: Case, bundle: Path, data: st.DataObject
) -> None:
    """The owner flips a byte in anything but the prose and the pages, and seals again with the real key."""

    def change(files: Files) -> None:
        prose = {"README.txt", "environment.json", "run-1.html"}
        name = data.draw(st.sampled_from(sorted(files.keys() - prose)))
        raw = bytearray(files[name])
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        files[name] = bytes(raw)

    with pytest.raises(LimbeckError):
        verify_trace(attacked(case, bundle, bundle.parent, change))


def test_a_bundle_under_another_key_fails_where_the_key_is_pinned(bundle: Path) -> None:
    with pytest.raises(LimbeckError, match="is sealed with the key"):
        verify_trace(bundle, public_key=new_keys("example.org/owner").signer.public)


def test_a_ledger_of_another_account_is_rejected(case: Case, bundle: Path, tmp_path: Path) -> None:
    from limbeck.ledger.bundle import account_files
    from limbeck.ledger.container import to_zip

    def act(log: Any) -> bytes:
        log.append([Entry("decision", "anna", {})])
        log.pin()
        return to_zip(account_files(log.reading, case.keys, "anna")[0])

    inner = case.log(act)
    with pytest.raises(TraceError, match="is about the account 'anna'"):
        verify_trace(attacked(case, bundle, tmp_path, lambda f: f.update({"ledger.zip": inner})))


@pytest.mark.parametrize(
    "name", ["coins.jsonl", "coin.key", "ledger.zip", "run-1.html", "sealed.note", "README.txt"]
)
def test_a_bundle_that_lacks_a_file_is_rejected(
    name: str, case: Case, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(LimbeckError, match=re.escape(name)):
        verify_trace(attacked(case, bundle, tmp_path, lambda files: files.pop(name)))


def test_a_file_more_is_rejected(case: Case, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"what no ledger knows of: run-2.json"):
        verify_trace(attacked(case, bundle, tmp_path, lambda f: f.update({"run-2.json": b"{}"})))


def test_a_run_of_another_registration_counts_for_that_one_alone(fresh: Case) -> None:
    fresh.commit()
    fresh.register()
    fresh.seal()
    report = fresh.audit()
    fresh.log(
        lambda log: record_run(log, fresh.keys, "another note", json.loads(report.read_text()))
    )
    assert len(verify_trace(fresh.export(report)).runs) == 1
    assert TRACE == "limbeck trace"
    assert (fresh.coins / KEY).is_file()


def test_the_verifier_needs_the_standard_library_and_cryptography_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import limbeck.trace.verify; "
        "found = {m.split('.')[0] for m in set(sys.modules) - before} - sys.stdlib_module_names; "
        "print(sorted(found - {'limbeck', 'cryptography', '_cffi_backend', '_openssl'}))"
    )
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "[]\n"

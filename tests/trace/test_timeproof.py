"""Time-stamps by a real authority: one that OpenSSL plays on this machine."""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from limbeck.errors import TraceError
from limbeck.trace.timeproof import is_over, stamped_at
from limbeck.trace.verify import verify_trace
from smalltrace import PLAN, Case

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")

CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
[stamping]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
"""


@dataclass
class Authority:
    folder: Path

    @property
    def roots(self) -> Path:
        return self.folder / "ca.pem"

    def run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

    def stamp(self, path: Path) -> Path:
        query, reply = path.with_suffix(".tsq"), path.with_suffix(".tsr")
        self.run("ts", "-query", "-data", str(path), "-sha512", "-cert", "-out", str(query))
        self.run("ts", "-reply", "-config", "ts.cnf", "-queryfile", str(query), "-out", str(reply))
        return reply


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("tsa"))
    (made.folder / "ts.cnf").write_text(CONFIG.format(folder=made.folder))
    (made.folder / "serial").write_text("01\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    new = ("req", *curve, "-nodes", "-config", "/dev/null")
    made.run(*new, "-x509", "-subj", "/CN=Test root", "-keyout", "ca.key", "-out", "ca.pem",
             "-addext", "basicConstraints=critical,CA:true", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    made.run(*new, "-subj", "/CN=Test TSA", "-keyout", "tsa.key", "-out", "tsa.csr")
    made.run("x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
             "-extfile", "ts.cnf", "-extensions", "stamping", "-out", "tsa.pem")  # fmt: skip
    return made


def test_a_stamp_says_when_a_note_existed(authority: Authority, tmp_path: Path) -> None:
    note = tmp_path / "a.note"
    note.write_bytes(b"a plan\n")
    token = authority.stamp(note).read_bytes()
    found = stamped_at(token, note.read_bytes(), authority.roots)
    assert abs((datetime.now(UTC) - found).total_seconds()) < 120


def test_a_stamp_over_something_else_is_refused(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "a.note").write_bytes(b"a plan\n")
    token = authority.stamp(tmp_path / "a.note").read_bytes()
    with pytest.raises(TraceError, match="does not hold for the registration"):
        stamped_at(token, b"another plan\n", authority.roots)


def test_a_stamp_of_an_authority_that_is_not_trusted_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "a.note").write_bytes(b"a plan\n")
    token = authority.stamp(tmp_path / "a.note").read_bytes()
    authority.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "/dev/null", "-x509", "-subj",
                  "/CN=Other root", "-keyout", "other.key", "-out", "other.pem")  # fmt: skip
    with pytest.raises(TraceError, match="does not hold for the registration"):
        stamped_at(token, b"a plan\n", authority.folder / "other.pem")


@pytest.mark.parametrize("token", [b"", b"nonsense", b"\x30\x03\x02\x01\x00"])
def test_what_is_no_stamp_is_refused(token: bytes, authority: Authority) -> None:
    with pytest.raises(TraceError, match="does not hold for the registration"):
        stamped_at(token, b"a plan\n", authority.roots)


def test_a_bundle_with_a_stamp_does_not_rest_on_the_owner_s_clock(
    authority: Authority, tmp_path: Path
) -> None:
    case, later = Case(tmp_path / "case"), round(datetime.now(UTC).timestamp() * 1000) + 600_000
    case.clock.now = later - 660_000
    case.commit()
    case.register(replace(PLAN, beacon_at=later))
    token = authority.stamp(case.coins / "registration.note")
    case.seal(at=later)
    case.clock.now = later + 60_000
    out = case.export(case.audit(), timestamp=token)
    shown = verify_trace(out, timestamp_roots=authority.roots)
    assert shown.seen_at is not None
    assert not any("owner's clock" in sentence for sentence in shown.rests_on)
    unchecked = verify_trace(out)
    assert unchecked.seen_at is None
    assert any("give --timestamp-roots" in sentence for sentence in unchecked.rests_on)


def test_a_stamp_from_after_the_beacon_is_rejected(authority: Authority, tmp_path: Path) -> None:
    """The whole ledger was forged after the beacon; the authority's clock cannot be."""
    case = Case(tmp_path / "case")
    case.commit()
    case.register()
    token = authority.stamp(case.coins / "registration.note")
    case.seal()
    out = case.export(case.audit(), timestamp=token)
    with pytest.raises(TraceError, match=r"was stamped at .*, not before the beacon"):
        verify_trace(out, timestamp_roots=authority.roots)


def test_a_wanted_stamp_must_be_there(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"the bundle has no registration\.tsr"):
        verify_trace(Case(tmp_path / "case").honest(), timestamp_roots=authority.roots)


def test_an_opentimestamps_proof_must_be_over_the_registration(tmp_path: Path) -> None:
    case = Case(tmp_path / "case")
    case.commit()
    case.register()
    note = (case.coins / "registration.note").read_bytes()
    magic = b"\x00OpenTimestamps\x00\x00Proof\x00\xbf\x89\xe2\xe8\x84\xe8\x92\x94\x01\x08"
    proof = tmp_path / "a.ots"
    proof.write_bytes(magic + hashlib.sha256(note).digest() + b"the rest of the proof")
    case.seal()
    report = case.audit()
    shown = verify_trace(case.export(report, opentimestamps=proof))
    assert any("a Bitcoin node can check its block" in sentence for sentence in shown.rests_on)
    proof.write_bytes(magic + hashlib.sha256(b"another").digest())
    assert not is_over(proof.read_bytes(), note)
    with pytest.raises(TraceError, match="is not an OpenTimestamps proof over the registration"):
        verify_trace(case.export(report, out="b.zip", opentimestamps=proof))

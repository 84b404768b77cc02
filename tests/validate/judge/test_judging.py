import json
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from limbeck.errors import JudgeError
from limbeck.validate.judge import (
    JudgeSpec,
    endpoint,
    judged_ledger,
    judging,
    paper,
    parse_judge,
)
from limbeck.validate.judge.ballot import Ballot, read_ballot
from limbeck.validate.ledger import NO_JUDGE, JudgedLedger, VerifiedOutcome

TRUE_RATE = (
    0.4  # of ten sums the student alone has one right, the teacher alone three, and six are even
)


def _ledger(sums: Any, judges: Any, **more: Any) -> JudgedLedger:
    given: dict[str, Any] = {"seed": 0} | more
    return judged_ledger(sums.questions, sums.teacher, sums.student, sums.verified, judges, **given)


def _says(said: str, _: Ballot) -> str:
    return said


def _always_a(_: Ballot) -> str:
    return "[[A]]"


def test_without_judges_nothing_is_claimed(sums: Any) -> None:
    assert _ledger(sums, []) == NO_JUDGE


def test_only_the_oracle_gets_a_licence_and_its_claim_holds_the_truth(
    sums: Any, spoken: Any
) -> None:
    bad = {"always-a": "[[A]]", "garbage": "x7;", "tie": "[[C]]"}
    judges = [spoken(name, partial(_says, said)) for name, said in bad.items()]
    ledger = _ledger(sums, [*judges, spoken("oracle", sums.oracle)])
    assert [r.name for r in ledger.judges if r.licensed] == ["oracle"]
    assert all(r.reasons for r in ledger.judges)
    assert ledger.win_rate is not None
    point, low, high = ledger.win_rate
    assert low <= TRUE_RATE <= high
    assert low <= point <= high
    assert ledger.effective_votes == 1
    assert ledger.reason is None
    assert ledger.claim is not None
    assert "oracle" in ledger.claim
    assert "always-a" not in ledger.claim


def test_without_written_answers_judges_have_nothing_to_do(spoken: Any) -> None:
    judge = spoken("gold", _always_a)
    ledger = judged_ledger([], [], [], [], [judge], seed=0)
    assert ledger.claim is None
    assert ledger.reason == "there are no written answers to compare"
    assert not ledger.judges[0].licensed
    assert judge.asked == 0


def test_without_a_licensed_judge_nothing_is_claimed_and_no_vote_is_asked(
    sums: Any, spoken: Any
) -> None:
    judge = spoken("always-a", _always_a)
    ledger = _ledger(sums, [judge])
    assert (ledger.claim, ledger.win_rate, ledger.effective_votes) == (None, None, None)
    assert ledger.reason == "no judge qualified"
    assert judge.asked == ledger.judges[0].figures["sums/replies"]


def test_kin_of_the_teacher_never_judges_however_good_it_is(sums: Any, spoken: Any) -> None:
    judge = spoken("smollm2-1.7b", sums.oracle)
    ledger = _ledger(sums, [judge], lineage=["packaged:smollm2-135m-instruct"])
    assert not ledger.judges[0].licensed
    assert "family" in ledger.judges[0].reasons[0]
    assert judge.asked == 0


def test_items_that_no_program_checked_are_judged_too(make_sums: Any, spoken: Any) -> None:
    sums = make_sums(900, verified=400)
    judge = spoken("oracle", sums.oracle)
    ledger = _ledger(sums, [judge])
    assert ledger.win_rate is not None
    assert ledger.win_rate[1] <= TRUE_RATE <= ledger.win_rate[2]
    assert ledger.claim is not None
    assert "900 of 900 items" in ledger.claim
    assert "200 verified outcomes" in ledger.claim


def test_a_licence_counts_for_its_family_alone(make_sums: Any, spoken: Any) -> None:
    good, few = make_sums(400), make_sums(30, family="few")
    both = type(good)(
        *(
            [*getattr(good, f), *getattr(few, f)]
            for f in ("questions", "teacher", "student", "verified")
        )
    )
    ledger = _ledger(both, [spoken("oracle", both.oracle)])
    (report,) = ledger.judges
    assert report.licensed
    assert any(r.startswith("few: the examination cannot be set") for r in report.reasons)
    assert any(r.startswith("sums: it passed") for r in report.reasons)
    assert ledger.claim is not None
    assert ledger.claim.endswith("nothing is claimed for few")


def test_too_few_clusters_to_correct_by_make_no_claim(
    sums: Any, spoken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "FEWEST_CLUSTERS", 201)
    ledger = _ledger(sums, [spoken("oracle", sums.oracle)])
    assert ledger.claim is None
    assert ledger.win_rate is None
    assert ledger.reason is not None
    assert "200 verified clusters" in ledger.reason
    assert "201 needed" in ledger.reason


def test_a_judge_that_falls_silent_after_its_licence_makes_no_claim(sums: Any, spoken: Any) -> None:
    exam = _ledger(sums, [spoken("oracle", sums.oracle)]).judges[0].figures["sums/replies"]
    asked = iter(range(10_000))

    def tiring(ballot: Ballot) -> str:
        return sums.oracle(ballot) if next(asked) < exam + 100 else "zzz"

    ledger = _ledger(sums, [spoken("tiring", tiring)])
    assert ledger.judges[0].licensed
    assert ledger.claim is None
    assert ledger.reason is not None
    assert "a verdict on" in ledger.reason


def test_two_judges_that_err_on_the_same_items_are_worth_one_vote(sums: Any, spoken: Any) -> None:
    def often_right(ballot: Ballot) -> str:
        tied = sums.oracle(ballot) == "[[C]]"
        return "[[C]]" if tied or sum(map(ord, ballot.question)) % 12 == 0 else sums.oracle(ballot)

    ledger = _ledger(sums, [spoken("one", often_right), spoken("two", often_right)])
    assert all(report.licensed for report in ledger.judges)
    assert ledger.effective_votes == pytest.approx(1)


def test_the_same_seed_gives_the_same_ledger(sums: Any, spoken: Any) -> None:
    judges = [spoken("oracle", sums.oracle)]
    assert _ledger(sums, judges, seed=5) == _ledger(sums, judges, seed=5)


def test_asking_may_stop_early(make_sums: Any, spoken: Any) -> None:
    sums = make_sums(2000, verified=1200)
    judge = spoken("oracle", sums.oracle)
    ledger = _ledger(sums, [judge], precision=0.1)
    assert ledger.win_rate is not None
    assert ledger.win_rate[2] - ledger.win_rate[1] <= 0.2
    assert ledger.win_rate[1] <= TRUE_RATE <= ledger.win_rate[2]
    assert ledger.claim is not None
    assert "valid at any time" in ledger.claim
    assert judge.asked < 2 * 2000


@pytest.mark.parametrize("wrong", [{"precision": 0.6}, {"confidence": 1.0}])
def test_settings_out_of_range_are_refused(sums: Any, spoken: Any, wrong: dict[str, float]) -> None:
    with pytest.raises(JudgeError, match=next(iter(wrong))):
        _ledger(sums, [spoken("oracle", sums.oracle)], **wrong)


def test_two_judges_of_one_name_are_refused(sums: Any, spoken: Any) -> None:
    twins = [spoken("gold", sums.oracle), spoken("gold", sums.oracle)]
    with pytest.raises(JudgeError, match="a name of its own"):
        _ledger(sums, twins)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Ballot], str]], str]]:
    """Serve voices on loopback as an OpenAI-compatible endpoint."""
    servers: list[ThreadingHTTPServer] = []

    def start(voice: Callable[[Ballot], str]) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = voice(read_ballot(body["messages"][-1]["content"]))
                data = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_judges_are_reached_over_http_and_a_second_run_asks_nothing(
    make_sums: Any, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper, "DAMAGED", 12)
    monkeypatch.setattr(paper, "KNOWN", 20)
    sums = make_sums(300)
    asked: list[Ballot] = []

    def counted(ballot: Ballot) -> str:
        asked.append(ballot)
        return sums.oracle(ballot)

    judge = parse_judge(f"gold={serve(counted)}", {})
    first = _ledger(sums, [judge], cache=tmp_path / "replies.jsonl")
    count = len(asked)
    assert first.judges[0].licensed
    again = _ledger(sums, [judge], cache=tmp_path / "replies.jsonl")
    assert len(asked) == count
    assert again.win_rate == first.win_rate
    assert again.judges[0].figures["sums/cached"] == again.judges[0].figures["sums/replies"]


def test_a_judge_that_is_not_there_is_reported_and_the_others_go_on(
    sums: Any, spoken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)
    gone = JudgeSpec("gone", "http://127.0.0.1:9/v1/chat/completions")
    ledger = _ledger(sums, [gone, spoken("oracle", sums.oracle)])
    assert "cannot be reached" in ledger.judges[0].reasons[0]
    assert ledger.claim is not None


def test_clusters_count_as_one_wherever_items_share_their_luck(make_sums: Any, spoken: Any) -> None:
    sums = make_sums(400)
    wide = [
        VerifiedOutcome(o.item, f"passage {i // 2}", o.teacher, o.student)
        for i, o in enumerate(sums.verified)
    ]
    clustered = type(sums)(sums.questions, sums.teacher, sums.student, wide)
    ledger = _ledger(clustered, [spoken("oracle", sums.oracle)])
    alone = _ledger(sums, [spoken("oracle", sums.oracle)])
    assert ledger.win_rate is not None
    assert alone.win_rate is not None
    assert ledger.win_rate != alone.win_rate
    assert ledger.win_rate[1] <= TRUE_RATE <= ledger.win_rate[2]

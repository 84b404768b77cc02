from pathlib import Path

from limbeck.validate.judge.cache import ReplyCache, request_key


def test_a_reply_is_kept_from_run_to_run(tmp_path: Path) -> None:
    path = tmp_path / "new" / "replies.jsonl"
    ReplyCache(path).put("key", "[[A]]\nline two ✓")
    assert ReplyCache(path).get("key") == "[[A]]\nline two ✓"
    assert ReplyCache(path).get("other") is None


def test_a_line_cut_short_loses_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    cache = ReplyCache(path)
    cache.put("one", "[[A]]")
    cache.put("two", "[[B]]")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    again = ReplyCache(path)
    assert len(again) == 1
    again.put("three", "[[C]]")
    assert ReplyCache(path).get("one") == "[[A]]"
    assert ReplyCache(path).get("three") == "[[C]]"


def test_the_question_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    key = request_key("http://judge", {"messages": ["a private prompt"]})
    ReplyCache(path).put(key, "[[A]]")
    assert "private" not in path.read_text(encoding="utf-8")


def test_another_judge_or_another_question_is_another_key() -> None:
    keys = {
        request_key(url, {"model": model}) for url in ("http://a", "http://b") for model in "xy"
    }
    assert len(keys) == 4

"""Routes to people, against real servers on this machine: what goes out, and what becomes of everything that can go wrong."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import gzip
import hashlib
import hmac
import json
import logging
import socket
import threading
import time
import tracemalloc
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests import secure
from tests.conftest import missing
from tests.services.letterbox import Answer, Postman, mail_server, scripted, smtp, web_server

from penstock.alerts import hooks, mail
from penstock.alerts.message import Message, message_of, messages
from penstock.alerts.routes import Delayed, Route, Undeliverable, routes_of
from penstock.errors import SettingError
from penstock.evidence import facts
from penstock.local import port as ports
from penstock.records import Alarm, Notice
from penstock.settings import load as settings

KEY = "whsec_" + base64.b64encode(b"twenty-four bytes or more").decode()


def notice(number: int, subject: str = "late", cause: str = "drift", state: str = "raised", **evidence: Any) -> Notice:
    at = datetime(2013, 2, 8, number, tzinfo=UTC)
    said = Alarm(id=f"{subject}/{cause}/{number}", model=subject, signal=cause, state=state, at=at, evidence=evidence)
    return Notice(id=said.id, subject=subject, cause=cause, state=state, alarms=[said])


MESSAGE = message_of("flights", [notice(1, inputs=[{"input": "delay <b>", "ks": 0.3141}])])


def route(**said: str) -> Route:
    (found,) = routes_of(settings(**{f"alert_{name}": value for name, value in said.items()}))
    return found


def sent(way: Route, message: Message = MESSAGE) -> str:
    return asyncio.run(way.send(message))


def by_mail(port: int, scheme: str = "smtp+plain", user: str = "", **said: str) -> Route:
    return route(smtp=f"{scheme}://{user}127.0.0.1:{port}", **{"from": "penstock@example.org", "to": "ada@example.org", **said})


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := secure.available():
        missing("certificates", reason)
    return secure.certify(tmp_path_factory.mktemp("keys"))


# -- What is said ------------------------------------------------------------------------------------------------------


def test_notices_of_one_cause_are_one_message_that_says_how_things_stand_by_now() -> None:
    storm = [notice(1), notice(2, "fares"), notice(3, state="held"), notice(4, cause="skill"), notice(5, state="cleared")]
    found = messages("flights", storm)
    assert [(m.subject, m.cause, m.state) for m in found] == [
        ("late", "drift", "cleared"), ("fares", "drift", "raised"), ("late", "skill", "raised"),
    ]  # fmt: skip


def test_what_began_and_ended_before_anybody_was_told_is_said_to_have_come_and_gone() -> None:
    message = message_of("flights", [notice(1, skill=0.01), notice(3, state="held"), notice(5, state="cleared")])
    assert (message.title, message.state) == ("[flights] late: drift came and went", "cleared")
    assert message.lines == ["drift came and went: raised at 2013-02-08 01:00 UTC, over at 2013-02-08 05:00 UTC", "  skill 0.01"]
    assert [(alarm.id, alarm.state) for alarm in message.alarms] == [("late/drift/1", "raised"), ("late/drift/5", "cleared")]


def test_the_end_of_what_was_told_before_is_only_that() -> None:
    message = message_of("flights", [notice(3, state="held"), notice(5, state="cleared", since="2013-02-08")])
    assert message.title == "[flights] late: drift is over"
    assert message.lines == ["drift cleared at 2013-02-08 05:00 UTC, since 2013-02-08"]


def test_what_was_raised_and_still_lasts_is_said_as_raised_however_often_it_was_said_since() -> None:
    message = message_of("flights", [notice(1), notice(3, state="held", skill=0.01)])
    assert (message.title, message.state) == ("[flights] late: drift alarm", "raised")
    assert message.lines == ["drift raised at 2013-02-08 01:00 UTC, held at 2013-02-08 03:00 UTC", "  skill 0.01"]


def test_of_what_came_and_went_again_and_again_the_last_time_is_told_and_the_others_are_counted() -> None:
    states = ("raised", "cleared", "raised", "cleared")
    gone = message_of("flights", [notice(hour, state=state) for hour, state in enumerate(states)])
    assert gone.lines == [
        "drift came and went: raised at 2013-02-08 02:00 UTC, over at 2013-02-08 03:00 UTC",
        "since the last message 1 more came and went",
    ]
    back = message_of("flights", [notice(hour, state=state) for hour, state in enumerate((*states, "raised"))])
    assert (back.title, back.state) == ("[flights] late: drift alarm", "raised")
    assert back.lines == ["drift raised at 2013-02-08 04:00 UTC", "since the last message 2 more came and went"]


def test_an_input_that_moved_is_told_in_words() -> None:
    moved = {"input": "usual_amount", "excess": 8.14, "influence": 1.0, "ks": 0.4071, "critical": 0.031, "floor": 0.05, "p": 0.0}
    message = message_of("flights", [notice(1, inputs=[moved, {**moved, "input": "wind", "floor": None}])])
    assert message.lines[1:] == [
        "  usual_amount moved by 0.407 (limit 0.05), beyond it",
        "  wind moved by 0.407 (limit 0.031), beyond it",
    ]
    assert message.alarms[0].evidence["inputs"][0] == moved


def test_the_id_of_a_message_follows_from_its_notices_alone() -> None:
    assert message_of("flights", [notice(1)]).id == message_of("flights", [notice(1, ks=0.5)]).id
    assert len({message_of("flights", group).id for group in ([notice(1)], [notice(2)], [notice(1), notice(2)])}) == 3


def test_whatever_evidence_holds_it_is_a_few_short_lines() -> None:
    monstrous: dict[str, Any] = {
        "inputs": [{"input": "x" * 2_000, "nested": {"deep": [1, 2]}}] * 50, "example": "two\nlines\r\nBcc: \0all\x1b[2J",
        "none": None,
    }  # fmt: skip
    lines = facts(monstrous)
    assert len(lines) <= 6 and all(len(line) <= 300 and line.isprintable() for line in lines)


def test_a_storm_is_one_message_of_bounded_length() -> None:
    said = [Alarm(id=str(n), model="", signal=f"quality/trips/{n}", state="raised", at=datetime(2013, 1, 1, tzinfo=UTC),
                  evidence={"share": n / 500}) for n in range(500)]  # fmt: skip
    one = message_of("flights", [Notice(id="1", subject="trips", cause="quality", state="raised", alarms=said)])
    assert one.title == "[flights] trips: quality alarm (500 alarms)"
    assert len(one.alarms) == 20 and one.lines[-1] == "and 480 more: penstock alerts list"


# -- Webhook -----------------------------------------------------------------------------------------------------------


def test_a_webhook_says_all_of_it_and_is_signed_as_standard_webhooks_says() -> None:
    with web_server() as web:
        answer = sent(route(webhook=web.url, webhook_key=KEY))
    (post,) = web.posts
    said = json.loads(post.body)
    assert (said["type"], said["data"]["subject"], said["data"]["id"]) == ("alarm.raised", "late", MESSAGE.id)
    assert said["data"]["alarms"][0]["evidence"] == {"inputs": [{"input": "delay <b>", "ks": 0.3141}]}
    assert post.headers["webhook-id"] == MESSAGE.id
    signed = f"{MESSAGE.id}.{post.headers['webhook-timestamp']}.".encode() + post.body
    digest = hmac.new(b"twenty-four bytes or more", signed, hashlib.sha256).digest()
    assert post.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert answer == f"{web.url.removesuffix('/hook/secret')} answered 200: ok"


def test_without_a_key_it_is_not_signed() -> None:
    with web_server() as web:
        sent(route(webhook=web.url))
    assert "webhook-signature" not in web.posts[0].headers


@pytest.mark.parametrize(("status", "after"), [(500, 0), (503, 120), (429, 30), (408, 0)])
def test_a_server_in_trouble_is_asked_again_when_it_says(status: int, after: int) -> None:
    headers = {"retry-after": str(after)} if after else {}
    with web_server([Answer(status, headers)]) as web, pytest.raises(Delayed, match=str(status)) as delayed:
        sent(route(webhook=web.url))
    assert delayed.value.after == after


@pytest.mark.parametrize("status", [400, 401, 404, 410])
def test_a_refusal_is_final_and_in_the_server_s_own_words(status: int) -> None:
    answer = Answer(status, body=b"no\n such hook" * 500)
    with web_server([answer]) as web, pytest.raises(Undeliverable, match=f"{status}: no such hook") as final:
        sent(route(webhook=web.url))
    assert len(str(final.value)) < 300 and "secret" not in str(final.value)


def test_a_redirect_is_not_followed() -> None:
    with (
        web_server() as other,
        web_server([Answer(307, {"location": other.url})]) as web,
        pytest.raises(Undeliverable, match="307"),
    ):
        sent(route(webhook=web.url))
    assert other.posts == []


def test_a_server_that_is_down_or_silent_is_one_to_come_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Delayed, match="does not answer"):
        sent(route(webhook=f"http://127.0.0.1:{ports.free()}/"))
    monkeypatch.setattr(hooks, "SECONDS", 0.1)
    with web_server([Answer(after=1.0)]) as web, pytest.raises(Delayed, match="does not answer"):
        sent(route(webhook=web.url))


@pytest.mark.parametrize(
    "answer",
    [
        Answer(headers={"content-encoding": "gzip"}, body=b"no gzip"),
        Answer(headers={"content-length": "1000"}),
        Answer(headers={"transfer-encoding": "chunked"}, body=b"no chunk\r\n"),
    ],
)
def test_what_was_taken_is_not_sent_again_whatever_is_wrong_with_the_rest_of_the_answer(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "SECONDS", 0.3)
    with web_server([answer]) as web:
        assert "answered 200" in sent(route(webhook=web.url))


def test_an_answer_of_few_bytes_does_not_unfold_to_many() -> None:
    folded = Answer(headers={"content-encoding": "gzip"}, body=gzip.compress(bytes(40 << 20)))
    with web_server([Answer(), folded]) as web:
        way = route(webhook=web.url)
        sent(way)  # what is imported at first is not measured
        tracemalloc.start()
        try:
            sent(way)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_repeats_the_path_does_not_give_the_secret_away(status: int) -> None:
    refusal = Answer(status, body=b"Cannot POST /hook/secret")
    with web_server([refusal]) as web, pytest.raises((Undeliverable, Delayed), match="Cannot POST") as told:
        sent(route(webhook=web.url))
    assert "secret" not in str(told.value)


def test_the_url_is_in_no_log_however_much_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("httpx").setLevel(logging.NOTSET)
    with web_server() as web, caplog.at_level(logging.DEBUG):
        sent(route(webhook=web.url))
    assert "secret" not in caplog.text


def test_what_a_server_says_steers_no_terminal() -> None:
    with web_server([Answer(body=b"\x1b[2Jok\r\n\0")]) as web:
        assert sent(route(webhook=web.url)).isprintable()
    with mail_server(Postman(["554 \x1b[2Jno"])) as port, pytest.raises(Undeliverable, match="554") as told:
        sent(by_mail(port))
    assert str(told.value).isprintable()


def test_headers_that_make_no_sense_change_nothing_about_the_answer() -> None:
    answers = [
        Answer(307, {"location": "http://["}), Answer(503, {"retry-after": "Thu, 01 Jan 1970 00:01:00 +99999999999999"}),
    ]  # fmt: skip
    with web_server(answers) as web:
        with pytest.raises(Undeliverable, match="307"):
            sent(route(webhook=web.url))
        with pytest.raises(Delayed, match="503"):
            sent(route(webhook=web.url))


def test_a_certificate_that_nobody_vouches_for_gets_nothing_and_one_of_ours_does(keys: Path) -> None:
    with web_server(keys=keys) as web:
        with pytest.raises(Undeliverable, match="certificate"):
            sent(route(webhook=web.url))
        assert web.posts == []
        sent(route(webhook=web.url, ca=str(keys / "cert.pem")))
        assert len(web.posts) == 1


# -- Slack -------------------------------------------------------------------------------------------------------------


def test_slack_gets_a_text_and_blocks_within_its_limits_and_without_markup_of_others() -> None:
    lines = [f"{number} <!channel> & co " + "x" * 200 for number in range(40)]
    long = Message(**{**{f: getattr(MESSAGE, f) for f in MESSAGE.__struct_fields__}, "lines": lines, "title": "t" * 300})
    with web_server() as web:
        sent(route(slack=web.url), long)
    said = json.loads(web.posts[0].body)
    assert said["blocks"][0] == {"type": "header", "text": {"type": "plain_text", "text": "t" * 150}}
    texts = [block["text"]["text"] for block in said["blocks"][1:]]
    assert all(len(text) <= 3_000 for text in texts) and "<!channel>" not in "".join(texts)
    assert [line for text in texts for line in text.strip("`").split("\n") if line] == [
        line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in lines
    ]


def test_what_somebody_sent_does_not_end_the_block_that_quotes_it() -> None:
    with web_server() as web:
        sent(route(slack=web.url), msgspec.structs.replace(MESSAGE, lines=["``` *all is well*", "drift raised"]))
    (section,) = json.loads(web.posts[0].body)["blocks"][1:]
    assert section["text"]["text"].count("```") == 2


# -- E-mail ------------------------------------------------------------------------------------------------------------


def test_a_letter_is_plain_text_with_an_id_that_is_the_same_at_every_attempt() -> None:
    postman = Postman()
    with mail_server(postman) as port:
        for _ in range(2):
            sent(by_mail(port, to="ada@example.org, bob@example.org"))
    letters = [email.message_from_bytes(content, policy=email.policy.default) for _, content in postman.letters]
    assert [who for who, _ in postman.letters] == [["ada@example.org", "bob@example.org"]] * 2
    assert {letter["Message-ID"] for letter in letters} == {f"<{MESSAGE.id}@example.org>"}
    assert letters[0]["Subject"] == "[flights] late: drift alarm"
    assert letters[0].get_content().splitlines()[:2] == ["drift raised at 2013-02-08 01:00 UTC", "  delay <b> moved by 0.314"]


def test_a_name_with_a_line_break_makes_no_header() -> None:
    postman = Postman()
    with mail_server(postman) as port:
        sent(by_mail(port), message_of("flights", [notice(1, subject="late\r\nBcc: all@example.org")]))
    assert b"\nBcc:" not in postman.letters[0][1]


def test_names_and_values_may_be_in_any_script() -> None:
    postman, words = Postman(), "verspätet ✈ 遅延"
    with mail_server(postman) as port, web_server() as web:
        said = message_of("flights", [notice(1, subject=words, example=words)])
        sent(by_mail(port), said)
        sent(route(slack=web.url), said)
    letter = email.message_from_bytes(postman.letters[0][1], policy=email.policy.default)
    assert letter["Subject"] == f"[flights] {words}: drift alarm" and words in letter.get_content()
    assert words in json.loads(web.posts[0].body)["text"]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # the server knows TLS by STARTTLS only
@pytest.mark.parametrize("implicit", [False, True])
def test_login_goes_over_tls_only(keys: Path, implicit: bool) -> None:
    postman, scheme = Postman(), "smtps" if implicit else "smtp"
    with mail_server(postman, keys, implicit, login=("ada", "love/lace")) as port:
        with pytest.raises(Undeliverable, match="certificate"):
            sent(by_mail(port, scheme, "ada:love%2Flace@"))
        sent(by_mail(port, scheme, "ada:love%2Flace@", ca=str(keys / "cert.pem")))
        with pytest.raises(Undeliverable, match="refused the login: 535"):
            sent(by_mail(port, scheme, "ada:wrong@", ca=str(keys / "cert.pem")))
    assert len(postman.letters) == 1


def test_where_starttls_is_not_offered_nothing_is_sent() -> None:
    postman = Postman()
    with mail_server(postman) as port, pytest.raises(Undeliverable, match="STARTTLS"):
        sent(by_mail(port, "smtp"))
    assert postman.letters == []


def test_a_mail_server_that_is_busy_or_down_is_one_to_come_back_to() -> None:
    with mail_server(Postman(["451 try later", "554 no spam"])) as port:
        with pytest.raises(Delayed, match="451 try later"):
            sent(by_mail(port))
        with pytest.raises(Undeliverable, match="554 no spam"):
            sent(by_mail(port))
    with pytest.raises(Delayed, match="does not answer"):
        sent(by_mail(ports.free()))


def test_one_of_the_recipients_who_is_unknown_does_not_keep_it_from_the_others() -> None:
    postman = Postman(refuses=["bob@example.org"])
    with mail_server(postman) as port:
        assert sent(by_mail(port, to="ada@example.org,bob@example.org")).endswith("but not for bob@example.org")
        with pytest.raises(Undeliverable, match="550 no such person"):
            sent(by_mail(port, to="bob@example.org"))


def test_who_is_to_wait_gets_it_later_and_the_others_no_second_time() -> None:
    postman = Postman(later={"bob@example.org": 2}, refuses=["eve@example.org"])
    with mail_server(postman) as port:
        way = by_mail(port, to="ada@example.org,bob@example.org,eve@example.org")
        for _ in range(2):
            with pytest.raises(Delayed, match=r"not yet for bob@example\.org"):
                sent(way)
        assert sent(way).endswith("took the letter, but not for eve@example.org")
    assert [to for to, _ in postman.letters] == [["ada@example.org"], ["bob@example.org"]]
    assert len({email.message_from_bytes(letter)["Message-ID"] for _, letter in postman.letters}) == 1


def test_a_full_mailbox_keeps_others_waiting_once_and_for_minutes_only() -> None:
    postman = Postman(later={"bob@example.org": 1_000})
    with mail_server(postman) as port:
        way = by_mail(port, to="ada@example.org,bob@example.org")
        for _ in range(mail.ATTEMPTS - 1):
            with pytest.raises(Delayed):
                sent(way)
        assert sent(way).endswith("but not for bob@example.org")
        again = message_of("flights", [notice(2)])
        assert sent(way, again).endswith("but not for bob@example.org"), "nobody waits for it twice"
        postman.later.clear()
        assert sent(way, message_of("flights", [notice(3)])).endswith("took the letter")
    assert [to for to, _ in postman.letters] == [["ada@example.org"]] * 2 + [["ada@example.org", "bob@example.org"]]


def test_a_letter_that_was_taken_is_not_sent_again_whatever_is_said_to_quit() -> None:
    letters = list[bytes]()
    with scripted(partial(smtp, letters=letters, farewell=b"421 too busy for that")) as port:
        assert sent(by_mail(port)).endswith("took the letter")
    assert len(letters) == 1


def test_a_login_that_mail_cannot_say_is_refused_without_being_quoted() -> None:
    with scripted(partial(smtp, letters=[])) as port, pytest.raises(Undeliverable, match="not ASCII") as told:
        sent(by_mail(port, user="ada:geh%C3%A4im@"))
    assert "xe4" not in str(told.value) and "\u00e4" not in str(told.value)


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".org"])
def test_a_host_that_cannot_be_one_gets_nothing(host: str) -> None:
    for said in ({"smtp": f"smtp+plain://{host}", "from": "a@b.c", "to": "a@b.c"}, {"webhook": f"http://{host}/"}):
        with pytest.raises((Undeliverable, Delayed)):
            sent(route(**said))


@pytest.mark.parametrize("scheme", ["smtp+plain", "smtps"])
def test_a_mail_server_that_never_comes_to_an_end_holds_no_thread(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "SECONDS", 0.1)
    ended = threading.Event()
    threading.Timer(5.0, ended.set).start()

    def talk(line: socket.socket) -> None:
        line.send(b"\x16\x03\x03\x40\x00" if scheme == "smtps" else b"220-")  # the head of a long record, of many lines
        while not ended.wait(0.02):
            line.send(b"2")

    began = time.monotonic()
    with scripted(talk) as port, pytest.raises(Delayed):
        sent(by_mail(port, scheme))  # asyncio.run waits for threads
    assert time.monotonic() - began < 4
    ended.set()


# -- Settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"webhook": "ftp://x"}, "PENSTOCK_ALERT_WEBHOOK is no http"),
        ({"webhook": "https://x/", "webhook_key": "secret"}, "no key of Standard Webhooks"),
        ({"webhook": "https://x:99999/secret"}, "PENSTOCK_ALERT_WEBHOOK is no http"),
        ({"webhook": "https://[x/secret"}, "PENSTOCK_ALERT_WEBHOOK is no http"),
        ({"slack": "https://x:secret/"}, "PENSTOCK_ALERT_SLACK is no http"),
        ({"smtp": "smtp://u:secret/x@m:25", "from": "a@b.c", "to": "a@b.c"}, "no address of a mail server"),
        ({"slack": "hooks.slack.com/x"}, "PENSTOCK_ALERT_SLACK is no http"),
        ({"smtp": "mail.example.org"}, "no address of a mail server"),
        ({"smtp": "smtps://m", "from": "me"}, "PENSTOCK_ALERT_FROM is me"),
        ({"smtp": "smtps://m", "from": "a@b.c"}, "PENSTOCK_ALERT_TO is not set"),
        ({"smtp": "smtp+plain://u:p@mail.example.org", "from": "a@b.c", "to": "a@b.c"}, "password in the clear"),
        ({"webhook": "https://x/", "ca": "/nowhere.pem"}, "PENSTOCK_ALERT_CA"),
    ],
)
def test_a_route_that_cannot_be_is_refused_in_words(said: dict[str, str], words: str) -> None:
    with pytest.raises(SettingError, match=words) as refused:
        route(**said)
    assert refused.value.fix and "secret" not in str(refused.value)


def test_no_route_is_declared_unless_somebody_does() -> None:
    assert routes_of(settings()) == []
    assert mail.SCHEMES["smtps"] == 465

"""`ps.compute` on DataFrames gives what `ps.replay`, the written-down meaning, gives: for any history, any keys, any order of
rows in the frames, ties and late events included."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.event import event_of, from_micros, to_micros
from penstock.feature import view_of


@ps.event("deposits")
class Deposit:
    deposit_id: ps.Id[str]
    account: ps.Key[str]
    branch: int | None
    amount: float
    fee: float | None
    note: str | None
    at: ps.EventTime


@ps.event("logins")
class Login:
    account: ps.Key[str]
    branch: int | None
    ok: bool
    at: ps.EventTime


@ps.features(by=[Deposit.account, Login.account])
class Account:
    deposits_1h = ps.count(Deposit, over="1h")
    amount_24h = ps.sum(Deposit.amount, over="24h")
    amount_30d = ps.mean(Deposit.amount, over="30d")
    least_90m = ps.min(Deposit.amount, over="90m")
    fee_24h = ps.max(Deposit.fee, over="24h")
    newest_fee = ps.last(Deposit.fee)
    logins_3h = ps.count(Login, over="3h")
    failing = ps.mean(Login.ok, over="7d")
    idle = ps.since_last(Login)

    @ps.derived
    def surge(self, now: Deposit) -> float:
        return now.amount / (self.deposits_1h + 1.0)

    @ps.derived
    def total(self) -> float:
        return self.deposits_1h + self.logins_3h


@ps.features(by=[(Deposit.account, Deposit.branch), (Login.account, Login.branch)])
class Desk:
    """By a compound key, of which a part may be missing."""

    amount_7d = ps.sum(Deposit.amount, over="7d")
    logins_1h = ps.count(Login, over="1h")


@ps.features(by=[Deposit.branch])
class Branch:
    fees_24h = ps.sum(Deposit.fee, over="24h")


@ps.features(by=[Deposit.account, Login.account], lateness="2h", ttl="60d")
class Habits:
    """Everything else that a view may know, with texts, conditions, categories and bounds on how late and how old."""

    spread_7d = ps.std(Deposit.amount, over="7d")
    earliest_24h = ps.first(Deposit.amount, over="24h")
    recent = ps.last_k(Deposit.amount, 3)
    middle_30d = ps.quantile(Deposit.amount, 0.5, over="30d")
    fading = ps.decayed_sum(Deposit.amount, "6h")
    ids_7d = ps.distinct(Deposit.deposit_id, over="7d")
    usual = ps.top(Deposit.note, 2)
    last_note = ps.last(Deposit.note)
    by_note = ps.sum(Deposit.amount, over="24h", per=ps.among(Deposit.note, "x", "é"))
    by_branch = ps.count(Login, over="30d", per=ps.among(Login.branch, 1, 11))
    free_24h = ps.count(Deposit, over="24h", where=lambda d: d.fee is None)
    large = ps.ratio(ps.count(Deposit, "7d", where=lambda d: d.amount > 3.0 and d.note == "x"), ps.count(Deposit, "7d"))
    ever = ps.sum(Deposit.amount)
    idle = ps.since_last(Login, where=lambda login: login.ok)


VIEWS = (Account, Desk, Branch, Habits)
START = datetime(2026, 3, 1, tzinfo=UTC)
KEYS = ["1", "11", "111", "a b", 'a","b', "é/[1]", "\U0001f600", "None", "nan"]
STEPS = [0, 0, 0, 1, 299, 300, 3600, 5400, 86400, 8 * 86400]

amounts = st.integers(-40, 40).map(lambda quarters: quarters / 4)  # sums are exact in any order of adding
sure = settings(max_examples=25, deadline=None)


@st.composite
def histories(draw: st.DrawFn, late: bool = False) -> list[Any]:
    """Events in the order in which they were published, to two topics of one partition each."""
    moment, events = START, list[Any]()
    for i in range(draw(st.integers(0, 30))):
        moment += timedelta(seconds=draw(st.sampled_from(STEPS)))
        at = moment - timedelta(seconds=draw(st.sampled_from(STEPS))) if late and draw(st.booleans()) else moment
        key, branch = draw(st.sampled_from(KEYS)), draw(st.none() | st.sampled_from([1, 11, 111]))
        if draw(st.booleans()):
            events.append(Login(key, branch, draw(st.booleans()), at))
        else:
            name = f"{draw(st.integers(0, 99)):02}-{i}"
            note = draw(st.sampled_from([None, "x", "é", "z"]))
            events.append(Deposit(name, key, branch, draw(amounts), draw(st.none() | amounts), note, at))
    return events


def framed(kind: type, events: Sequence[Any], shuffled: int = 0) -> pd.DataFrame:
    """The events of one kind with their offsets, rows shuffled, an index that repeats itself, and a column nobody declared."""
    names = list(event_of(kind).columns)
    own = [e for e in events if isinstance(e, kind)]
    frame = pd.DataFrame({name: [getattr(e, name) for e in own] for name in names}, columns=names)
    frame = frame.astype({"at": "datetime64[us, UTC]", "account": "str", "branch": "Int64"})
    frame = frame.astype({"deposit_id": "str", "note": object}) if kind is Deposit else frame
    frame["partition"], frame["offset"], frame["unknown"] = 0, np.arange(len(frame)), "\0"
    order = np.random.default_rng(shuffled).permutation(len(frame))
    return frame.iloc[order].set_axis(np.arange(len(frame)) // 2)


def frames(events: Sequence[Any], shuffled: int = 0) -> dict[type, pd.DataFrame]:
    return {Deposit: framed(Deposit, events, shuffled), Login: framed(Login, events, shuffled)}


def processed(events: Sequence[Any]) -> list[Any]:
    """The stream's order: by effective time within the topic, late ones last, kind, id of those on time (a login's is its key),
    offset."""
    lines: list[tuple[Any, ...]] = []
    for rank, kind in enumerate((Deposit, Login)):
        own: list[Any] = [e for e in events if isinstance(e, kind)]
        newest = accumulate((e.at for e in own), max)
        names = [e.deposit_id if rank == 0 else e.account for e in own]
        lines += [
            (t, e.at < t, rank, "" if e.at < t else name, i, e)
            for i, (t, name, e) in enumerate(zip(newest, names, own, strict=True))
        ]
    return [line[-1] for line in sorted(lines, key=lambda line: line[:-1])]


def same(got: pd.DataFrame, meant: Sequence[object], view: type) -> None:
    names = list(view_of(view).columns)
    assert list(got.columns) == names and len(got) == len(meant)
    want = np.array([list(flat(row)) for row in meant], float).reshape(-1, len(names))
    want[~np.isfinite(want)] = np.nan
    np.testing.assert_allclose(
        got.to_numpy(), want, rtol=0.0 if view is not Habits else 1e-9, atol=0.0 if view is not Habits else 1e-6
    )


def flat(row: Any) -> Iterator[float]:
    """The values of a row by column."""
    view = view_of(type(row))
    for item in (*view.features, *view.derived):
        found = row.__dict__[item.name]
        yield from found if isinstance(found, tuple) else found.values() if isinstance(found, dict) else [found]


def of_deposits(view: type, order: Sequence[Any], frame: pd.DataFrame) -> list[Any]:
    """What replay gives for each deposit, in the order of the frame."""
    known = [e for e in order if event_of(type(e)) in view_of(view).by]
    replayed: list[Any] = ps.replay(view, known)
    rows = {e.deposit_id: row for e, row in zip(known, replayed, strict=True) if isinstance(e, Deposit)}
    return [rows[name] for name in frame["deposit_id"]]


# --- laws ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
@given(events=histories(), shuffled=st.integers(0, 3))
@sure
def test_a_row_for_each_event_is_the_row_of_the_stream(view: type, events: list[Any], shuffled: int) -> None:
    given = frames(events, shuffled)
    got = ps.compute(view, given, at=Deposit)
    same(got, of_deposits(view, processed(events), given[Deposit]), view)
    assert got.index.equals(given[Deposit].index)


@pytest.mark.parametrize("view", VIEWS)
@given(events=histories(late=True), shuffled=st.integers(0, 3))
@sure
def test_late_events_count_from_when_they_arrived_where_that_is_asked_for(view: type, events: list[Any], shuffled: int) -> None:
    given = frames(events, shuffled)
    got = ps.compute(view, given, at=Deposit, order="arrival")
    same(got, of_deposits(view, processed(events), given[Deposit]), view)


@pytest.mark.parametrize("view", VIEWS)
@given(events=histories(late=True), shuffled=st.integers(0, 3))
@sure
def test_without_the_order_of_arrival_late_events_are_where_their_time_is(view: type, events: list[Any], shuffled: int) -> None:
    given = frames(events, shuffled)
    by_time = sorted(events, key=lambda e: (e.at, isinstance(e, Login), e.deposit_id if isinstance(e, Deposit) else e.account))
    same(ps.compute(view, given, at=Deposit), of_deposits(view, by_time, given[Deposit]), view)


@pytest.mark.parametrize("view", VIEWS)
@given(
    events=histories(),
    asked=st.lists(
        st.tuples(
            st.sampled_from(KEYS), st.none() | st.sampled_from([1, 11]), st.sampled_from(STEPS), st.integers(0, 30), amounts
        ),
        max_size=8,
    ),
)
@sure
def test_a_row_at_a_time_covers_the_events_strictly_before_it(view: type, events: list[Any], asked: list[Any]) -> None:
    probes = []
    for i, (key, branch, ago, near, amount) in enumerate(asked):
        moment = events[near % len(events)].at if events else START  # at the very time of an event, or a step from it
        probes.append(Deposit(f"p{i}", key, branch, amount, None, None, moment + timedelta(seconds=ago)))
    meant = list[Any]()
    for probe in probes:
        before = [e for e in processed(events) if e.at < probe.at and event_of(type(e)) in view_of(view).by]
        meant.append(ps.replay(view, [*before, probe])[-1])
    at = framed(Deposit, probes)
    at = at.assign(order=at["offset"]).drop(columns=["partition", "offset"])
    same(ps.compute(view, frames(events), at=at), [meant[i] for i in at["order"]], view)


@given(events=histories(late=True))
@sure
def test_rows_that_are_read_change_nothing(events: list[Any]) -> None:
    """Every row asked for alone has the same bits as among all others."""
    at = pd.DataFrame(
        {"account": [e.account for e in events], "at": pd.to_datetime([e.at for e in events], utc=True)},
        columns=["account", "at"],
    ).astype({"at": "datetime64[us, UTC]", "account": "str"})
    orders: tuple[Literal["time", "arrival"], ...] = ("time", "arrival")
    for order in orders:
        whole = ps.compute(Account, frames(events), at=at, order=order).to_numpy()
        for i in range(0, len(at), 5):
            alone = ps.compute(Account, frames(events), at=at.iloc[[i]], order=order).to_numpy()
            assert alone.tobytes() == whole[[i]].tobytes()


def test_many_entities_in_groups_have_the_same_bits_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, n = np.random.default_rng(3), 5_000
    frame = pd.DataFrame(
        {
            "deposit_id": [f"d{i}" for i in range(n)], "account": rng.integers(0, 200, n).astype(str), "branch": 1,
            "amount": rng.normal(size=n), "fee": rng.normal(size=n),
            "at": START + pd.to_timedelta(rng.integers(0, 40 * 86400, n), unit="s"),
        }
    )  # fmt: skip
    given = {Deposit: frame, Login: pd.DataFrame()}
    whole = ps.compute(Account, given, at=Deposit)
    monkeypatch.setattr("penstock.frames.compute.STATE_BYTES", 1)
    monkeypatch.setattr("penstock.frames.compute.AT_ONCE", 7)
    assert ps.compute(Account, given, at=Deposit).to_numpy().tobytes() == whole.to_numpy().tobytes()


# --- keys, gaps, and what is refused -------------------------------------------------------------------------------------


def paid(**columns: Any) -> pd.DataFrame:
    n = len(next(iter(columns.values()))) if columns else 2
    known: dict[str, Any] = {
        "deposit_id": [f"d{i}" for i in range(n)], "account": ["a"] * n, "branch": [1] * n, "amount": [1.0] * n, "fee": [0.5] * n,
        "note": ["x"] * n,
        "at": pd.to_datetime([START + timedelta(minutes=i) for i in range(n)]),
    }  # fmt: skip
    return pd.DataFrame(known | columns)


def account(deposits: pd.DataFrame, at: Any = Deposit) -> pd.DataFrame:
    return ps.compute(Account, {Deposit: deposits, Login: pd.DataFrame()}, at=at)


def test_names_that_look_alike_when_put_together_are_two_entities() -> None:
    frame = paid(account=["1", "11", "1", "11"], branch=[11, 1, 11, 1], amount=[1.0, 10.0, 100.0, 1000.0])
    got = ps.compute(Desk, {Deposit: frame, Login: pd.DataFrame()}, at=Deposit)
    assert got["Desk.amount_7d"].tolist() == [0.0, 0.0, 1.0, 10.0]


def test_a_row_without_a_name_or_of_an_unknown_one_has_the_values_of_nobody() -> None:
    at = pd.DataFrame({"account": ["b", None, "a"], "at": [START + timedelta(hours=1)] * 3}, index=["x", "x", "y"])
    got = account(paid(), at)
    assert got["Account.amount_24h"].tolist() == [0.0, 0.0, 2.0] and got["Account.amount_30d"].isna().tolist() == [
        True,
        True,
        False,
    ]
    assert got.index.tolist() == ["x", "x", "y"]


def test_a_row_without_a_time_is_missing_and_stays() -> None:
    at = pd.DataFrame({"account": ["a", "a"], "at": [pd.NaT, pd.Timestamp(START + timedelta(hours=1))]})
    assert account(paid(), at)["Account.deposits_1h"].isna().tolist() == [True, False]


def test_nothing_asked_and_nothing_known_give_empty_answers() -> None:
    nothing = pd.DataFrame({"account": [], "at": pd.to_datetime([], utc=True)})
    assert account(paid(), nothing).shape == (0, 11)
    assert account(pd.DataFrame(), paid()[["account", "at"]])["Account.deposits_1h"].tolist() == [0.0, 0.0]
    assert account(paid().iloc[:0], Deposit).shape == (0, 11)


def test_zones_are_only_ways_of_writing_a_time() -> None:
    zoned = [START.astimezone(timezone(timedelta(hours=h))) + timedelta(minutes=h) for h in (0, 9)]
    meant = account(paid()).iloc[:0]
    for column in (
        pd.Series(zoned, dtype=object),
        pd.to_datetime(pd.Series(zoned, dtype=object), utc=True).dt.tz_convert("Asia/Tokyo"),
        pd.to_datetime(pd.Series(zoned, dtype=object), utc=True).astype("datetime64[ns, UTC]"),
        pd.Series(zoned, dtype=pd.ArrowDtype(__import__("pyarrow").timestamp("us", "UTC"))),
    ):
        got = account(paid(at=column))
        assert got["Account.deposits_1h"].tolist() == [0.0, 1.0] and list(got.columns) == list(meant.columns)


def test_every_way_of_holding_a_text_or_a_number_is_the_same() -> None:
    meant = account(paid(account=["a", "b", "a"]))
    dtype: Any
    for dtype in (object, "str", "string", "category", "string[pyarrow]"):
        assert account(paid(account=pd.Series(["a", "b", "a"]).astype(dtype))).equals(meant), dtype
    for dtype in (object, "int8", "Int64", "float32", "double[pyarrow]", "bool"):
        assert account(paid(amount=pd.Series([1, 1, 1]).astype(dtype), account=["a", "b", "a"])).equals(meant), dtype
    halves = ps.compute(Branch, {Deposit: paid(branch=[1, None, 1, 11])}, at=Deposit)  # integers with gaps are floats in pandas
    assert halves["Branch.fees_24h"].tolist() == [0.0, 0.0, 0.5, 0.0]


def test_derived_features_of_an_event_are_missing_where_the_row_is_not_about_one() -> None:
    at = pd.DataFrame({"account": ["a"], "at": [START + timedelta(hours=1)]})
    got = account(paid(), at)
    assert math.isnan(got["Account.surge"][0]) and got["Account.total"][0] == 2.0
    about = account(paid(), at.assign(amount=6.0, fee=math.nan, branch=1))
    assert about["Account.surge"][0] == 2.0


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (paid().drop(columns="amount"), r"the frame of Deposit has no column amount"),
        (paid(amount=["1", "2"]), r"Deposit.amount is declared float, and its frame has (str|object)"),
        (paid(amount=[1.0, math.nan]), r"Deposit.amount is missing in 1 rows, and the stream refuses such events"),
        (paid(amount=[1.0, math.inf]), r"Deposit.amount is infinite"),
        (paid(fee=[10**400, 1]), r"Deposit.fee"),
        (paid(account=[1, 11]), r'Deposit.account is declared str, and its frame has int64: "1" and 1 are two names'),
        (paid(at=pd.to_datetime(["2026-03-01", "2026-03-02"])), r"Deposit.at is datetime64\[\w+\]: times without a zone"),
        (paid(at=["2026-03-01", "2026-03-02"]), r"Deposit.at (holds what is no|is str, not a) time with a zone"),
        (paid(at=pd.Series([START, START.replace(tzinfo=None)], dtype=object)), r"Deposit.at holds what is no time with a zone"),
        (paid(at=pd.Series([START, None], dtype="datetime64[us, UTC]")), r"Deposit.at is missing in 1 rows"),
        (paid(at=pd.to_datetime(["1969-12-31"] * 2, utc=True)), r"Deposit.at lies before 1970"),
    ],
)
def test_what_the_stream_would_refuse_is_refused_in_words(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(ps.PenstockError, match=said) as error:
        account(frame)
    assert error.value.fix


@pytest.mark.parametrize(
    ("branch", "said"),
    [
        (pd.Series([2**63, 1], dtype="uint64"), "integers beyond 64 bits"),
        ([2**70, 1], "integers beyond 64 bits"),
        ([1.5, 1.0], "has fractions"),
        ([float(2**60), 1.0], "floats beyond 2\\^53"),
    ],
)
def test_integers_that_do_not_fit_are_refused(branch: Any, said: str) -> None:
    with pytest.raises(ps.PenstockError, match=said):
        ps.compute(Branch, {Deposit: paid(branch=branch)}, at=Deposit)


def test_large_integers_name_what_they_name() -> None:
    got = ps.compute(Branch, {Deposit: paid(branch=[2**62, 2**62 + 1, 2**62])}, at=Deposit)
    assert got["Branch.fees_24h"].tolist() == [0.0, 0.0, 0.5]


def test_a_question_that_cannot_be_meant_is_answered_in_words() -> None:
    with pytest.raises(ps.PenstockError, match="Account aggregates Login, and no frame of it is given"):
        ps.compute(Account, {Deposit: paid()}, at=Deposit)
    with pytest.raises(ps.PenstockError, match="rows are asked for each Login, which names no entity of Branch"):
        ps.compute(Branch, {Deposit: paid()}, at=Login)
    with pytest.raises(ps.PenstockError, match="`at` has no column that names an entity of Account"):
        account(paid(), pd.DataFrame({"acount": ["a"], "at": [START]}))
    with pytest.raises(ps.PenstockError, match="`at` has no column at"):
        account(paid(), pd.DataFrame({"account": ["a"], "when": [START]}))
    with pytest.raises(ps.PenstockError, match="`at` is a list"):
        account(paid(), [1])
    assert account(paid(), pd.DataFrame({"account": ["a"], "time": [START]}))["Account.deposits_1h"].tolist() == [0.0]


def test_times_are_exact_to_the_microsecond() -> None:
    late = from_micros(to_micros(datetime(2099, 1, 1, tzinfo=UTC)) + 1)
    frame = paid(at=pd.Series([late, late + timedelta(microseconds=1)]))
    at = pd.DataFrame({"account": ["a", "a"], "at": [late, late + timedelta(microseconds=1)]})
    assert account(frame, at)["Account.deposits_1h"].tolist() == [0.0, 1.0]

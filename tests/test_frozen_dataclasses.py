"""Records behave as dataclasses with generated methods do."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from airflow_provider_smtpcm import Attachment, Delivery, Mail, SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.faults import Fault, FaultCode
from airflow_provider_smtpcm.errors import Reply
from airflow_provider_smtpcm.frozen_dataclasses import Record
from airflow_provider_smtpcm.mail import Address

REPLY = Reply(code=250, text="ok")
RECORDS = (
    REPLY,
    Address(display_name="Jane", local_part="jane", domain="corp.example"),
    Attachment("/srv/a.csv"),
    Attachment(content=b"x", name="a.csv"),
    Mail(to="a@corp.example", attachments="/srv/a.csv"),
    Delivery(message_id="<1@corp.example>", outcome="accepted", refused={"a@corp.example": REPLY}),  # type: ignore[arg-type]
    SmtpConnectionManager(host="mail.corp.example", from_address="a@corp.example", notes=("note",)),
    Fault(field="host", code=FaultCode.NO_HOST),
)
every_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)


def generated(record: Record) -> object:
    """The same record, as an instance of a class whose methods `dataclass` generates."""
    kind = type(record)
    fields = [
        (field.name, object, dataclasses.field(repr=field.repr, compare=field.compare)) for field in all_of(record)
    ]
    made = dataclasses.make_dataclass(kind.__name__, fields, frozen=True, kw_only=True)
    return made(**{field.name: getattr(record, field.name) for field in all_of(record)})


def all_of(record: Record) -> tuple[dataclasses.Field[object], ...]:
    """Its fields."""
    return dataclasses.fields(record)  # type: ignore[arg-type]


@every_record
def test_its_repr_is_the_generated_one(record: Record) -> None:
    """Without the fields that are kept out of it, such as a password."""
    assert repr(record) == repr(generated(record))


@every_record
def test_it_equals_its_copies_and_nothing_of_another_class(record: Record) -> None:
    """Nor the generated one, which has the same fields."""
    for same in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):  # noqa: S301
        assert same == record
        assert type(same) is type(record)
    assert record != generated(record)
    assert record not in [other for other in RECORDS if other is not record]


@every_record
def test_its_hash_is_the_generated_one(record: Record) -> None:
    """Also where a field has no hash."""
    try:
        expected = hash(generated(record))
    except TypeError as error:
        with pytest.raises(TypeError, match=str(error)):
            hash(record)
    else:
        assert hash(record) == expected


def test_fields_that_are_not_compared_do_not_count() -> None:
    """Such as the warnings of parsing."""
    manager = SmtpConnectionManager(host="mail.corp.example")
    assert dataclasses.replace(manager, notes=("note",)) == manager
    assert dataclasses.replace(manager, port=2525) != manager


@every_record
def test_it_is_frozen(record: Record) -> None:
    """As a dataclass is."""
    first = all_of(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, first, "another")


def test_a_subclass_may_be_a_dataclass_of_its_own() -> None:
    """With generated methods, and with fields of its own."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Numbered(Reply):
        number: int = 0

    assert Numbered(code=250, number=1) == Numbered(code=250, number=1) != Numbered(code=250, number=2)
    assert repr(Numbered(code=250, number=1)).endswith("Numbered(code=250, enhanced=None, text='', number=1)")
    assert len({Numbered(code=250, number=1), Numbered(code=250, number=1)}) == 1

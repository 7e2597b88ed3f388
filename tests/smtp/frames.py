"""What an error collector can see of an error: every local variable of every frame, and all that hangs on it."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager

# The modules whose objects are looked into; of any other object its repr is looked at.
_OURS = ("airflow_provider_smtpcm", "spnego", "krb5", "gssapi")
# What the sign-in is made from: the definition itself, wherever it is held, holds the password.
_DEFINITION = (SmtpConnectionManager,)


def visible(error: BaseException) -> Iterator[tuple[str, bytes]]:
    """Each text and each run of octets that can be reached from an error, and on which way.

    The frames of tests are left out: they hold what they compare with.
    """
    todo: deque[tuple[str, object]] = deque([("error", error)])
    seen: dict[int, object] = {}
    while todo:
        way, thing = todo.popleft()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType):
            continue
        seen[id(thing)] = thing
        match thing:
            case str():
                yield way, thing.encode("utf-8", "surrogatepass")
            case bytes() | bytearray():
                yield way, bytes(thing)
            case memoryview():
                try:
                    yield way, bytes(thing)
                except ValueError:  # it was released
                    continue
            case _:
                yield f"repr of {way}", _repr(thing).encode("utf-8", "backslashreplace")
                todo += [(f"{way} > {name}", inner) for name, inner in _inside(thing)]


def secrets_in(error: BaseException, secrets: Iterable[bytes]) -> list[str]:
    """The ways to each secret that can be reached from an error."""
    wanted = list(secrets)
    return [f"{way}: {secret!r}" for way, octets in visible(error) for secret in wanted if secret in octets]


def _repr(thing: object) -> str:
    try:
        return repr(thing)
    except Exception:  # noqa: BLE001 - half an object, of an interrupted construction
        return ""


def _inside(thing: object) -> Iterator[tuple[str, object]]:
    match thing:
        case BaseException():
            yield from _of_error(thing)
        case Mapping():
            yield from ((f"key {key!r}", key) for key in thing)
            yield from ((f"[{key!r}]", thing[key]) for key in thing)
        case list() | tuple() | set() | frozenset() | deque():
            yield from ((f"[{number}]", inner) for number, inner in enumerate(thing))
        case types.GeneratorType():
            yield from () if thing.gi_frame is None else _of_frame(thing.gi_frame)
            yield "yield from", thing.gi_yieldfrom
        case types.MethodType():
            yield from (("self", thing.__self__), ("function", thing.__func__))
        case types.FunctionType():
            yield from (("closure", cell.cell_contents) for cell in thing.__closure__ or () if cell != types.CellType())
        case _ if type(thing).__module__.startswith(_OURS) and not isinstance(thing, _DEFINITION):
            yield from getattr(thing, "__dict__", {}).items()
            slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
            yield from ((name, getattr(thing, name)) for name in slots if hasattr(thing, name))


def _of_error(error: BaseException) -> Iterator[tuple[str, object]]:
    yield from (("args", error.args), ("vars", vars(error)), ("object", getattr(error, "object", None)))
    yield from (("cause", error.__cause__), ("context", error.__context__))
    traceback = error.__traceback__
    while traceback is not None:
        yield from _of_frame(traceback.tb_frame)
        traceback = traceback.tb_next


def _of_frame(frame: types.FrameType) -> Iterator[tuple[str, object]]:
    if "/tests/" not in frame.f_code.co_filename:
        yield from ((f"{frame.f_code.co_qualname}: {name}", held) for name, held in frame.f_locals.items())

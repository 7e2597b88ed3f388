"""Makes a Kerberos ticket as large as one with hundreds of Active Directory groups. Run as a program.

A client may ask a KDC to put authorization data into a ticket (RFC 4120 5.4.1, enc-authorization-data). MIT's KDC does,
and a service ignores unknown data. The ticket is stored in the credential cache as if it had been requested without
the data: otherwise a later client, which requests none, would not find it and would request another ticket.

    python bulky_ticket.py CCACHE SERVICE OCTETS
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int32, c_uint, c_void_p

#: Taken from RFC 4120 5.2.6: negative numbers are for local use.
LOCAL_USE = -1000
KRB5_GC_NO_STORE = 8


class Keyblock(ctypes.Structure):
    _fields_ = (("magic", c_int32), ("enctype", c_int32), ("length", c_uint), ("contents", c_void_p))


class TicketTimes(ctypes.Structure):
    _fields_ = tuple((name, c_int32) for name in ("authtime", "starttime", "endtime", "renew_till"))


class Data(ctypes.Structure):
    _fields_ = (("magic", c_int32), ("length", c_uint), ("data", c_void_p))


class Authdata(ctypes.Structure):
    _fields_ = (("magic", c_int32), ("ad_type", c_int32), ("length", c_uint), ("contents", c_char_p))


class Creds(ctypes.Structure):
    """`krb5_creds` of <krb5/krb5.h>."""

    _fields_ = (
        ("magic", c_int32),
        ("client", c_void_p),
        ("server", c_void_p),
        ("keyblock", Keyblock),
        ("times", TicketTimes),
        ("is_skey", c_uint),
        ("ticket_flags", c_int32),
        ("addresses", c_void_p),
        ("ticket", Data),
        ("second_ticket", Data),
        ("authdata", POINTER(POINTER(Authdata))),
    )


def main(ccache: str, service: str, octets: int) -> None:
    """Request the ticket and store it in the cache."""
    krb5 = ctypes.CDLL("libkrb5.so.3")
    krb5.krb5_get_error_message.restype = c_char_p
    context, cache, client, server = c_void_p(), c_void_p(), c_void_p(), c_void_p()

    def check(code: int) -> None:
        if code:
            sys.exit(krb5.krb5_get_error_message(context, code).decode(errors="replace"))

    check(krb5.krb5_init_context(byref(context)))
    check(krb5.krb5_cc_resolve(context, ccache.encode(), byref(cache)))
    check(krb5.krb5_cc_get_principal(context, cache, byref(client)))
    check(krb5.krb5_parse_name(context, service.encode(), byref(server)))
    bulk = Authdata(ad_type=LOCAL_USE, length=octets, contents=os.urandom(octets))
    wanted = Creds(client=client, server=server, authdata=(POINTER(Authdata) * 2)(ctypes.pointer(bulk), None))
    got = POINTER(Creds)()
    check(krb5.krb5_get_credentials(context, c_int32(KRB5_GC_NO_STORE), cache, byref(wanted), byref(got)))
    got.contents.authdata = None
    check(krb5.krb5_cc_store_cred(context, cache, got))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

"""The NT hash of a password (MS-NLMP 3.3.1, NTOWFv1), for NTLM inside SPNEGO. Knows nothing else.

pyspnego keeps Kerberos out of SPNEGO only for a credential that is such a hash; and MD4 (RFC 1320), of which it is
made, is in no OpenSSL of today.
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
# Each round: what it adds, by how much it rotates, and in which order it takes the sixteen words (RFC 1320 3.4).
_ROUNDS = (
    (0x00000000, (3, 7, 11, 19), tuple(range(16))),
    (0x5A827999, (3, 5, 9, 13), (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)),
    (0x6ED9EBA1, (3, 9, 11, 15), (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)),
)


def nt_hash(password: str) -> str:
    """The hash in hexadecimal digits."""
    return md4(password.encode("utf-16-le", "surrogatepass")).hex()


def md4(message: bytes) -> bytes:
    """RFC 1320."""
    padded = message + b"\x80" + b"\x00" * ((55 - len(message)) % 64) + struct.pack("<Q", len(message) * 8)
    state: tuple[int, ...] = _START
    for at in range(0, len(padded), 64):
        words = struct.unpack("<16I", padded[at : at + 64])
        a, b, c, d = state
        for number, (constant, shifts, order) in enumerate(_ROUNDS):
            for step, word in enumerate(order):
                total = (a + _mix(number, b, c, d) + words[word] + constant) & _MASK
                shift = shifts[step % 4]
                a, b, c, d = d, (total << shift | total >> (32 - shift)) & _MASK, b, c
        state = tuple((old + new) & _MASK for old, new in zip(state, (a, b, c, d), strict=True))
    return struct.pack("<4I", *state)


def _mix(number: int, b: int, c: int, d: int) -> int:
    """The functions F, G and H of the three rounds."""
    return ((b & c) | (~b & d & _MASK), (b & c) | (b & d) | (c & d), b ^ c ^ d)[number]

"""Scans the opcodes of a pickle before it is unpickled, without executing them or making values.

Refuses opcodes that no pickler writes, that would take far more memory than the file's size, or that would overflow the
stack of the C code that reads, hashes and frees nested objects.
"""

from __future__ import annotations

import mmap
import pickletools

MOST_NESTED = 200  # nesting depth; picklers cannot go beyond a few hundred, because their stack ends
SPARE = 100  # how far a memo number may exceed the count of opcodes before it

Data = bytes | mmap.mmap


class _Opcode:
    """An opcode's argument and its effect on the stack, from pickletools."""

    def __init__(self, opcode: pickletools.OpcodeInfo):
        kind = opcode.arg.n if opcode.arg else 0
        self.name = opcode.name
        self.lines = 0 if kind != pickletools.UP_TO_NEWLINE else 2 if opcode.name in ("GLOBAL", "INST") else 1
        self.fixed = max(kind, 0)
        self.counted = {
            pickletools.TAKEN_FROM_ARGUMENT1: 1,
            pickletools.TAKEN_FROM_ARGUMENT4: 4,
            pickletools.TAKEN_FROM_ARGUMENT4U: 4,
            pickletools.TAKEN_FROM_ARGUMENT8U: 8,
        }.get(kind, 0)  # bytes of the length prefix
        self.takes_all = pickletools.markobject in opcode.stack_before  # down to the mark
        self.takes = len(opcode.stack_before)
        self.gives = len(opcode.stack_after)
        self.changes = opcode.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
        self.puts = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
        self.gets = opcode.name in ("GET", "BINGET", "LONG_BINGET")


_OPCODES = {ord(opcode.code): _Opcode(opcode) for opcode in pickletools.opcodes}

# Length, with the argument, of the frequent opcodes that only push one object; 0 for the others.
_LENGTHS = [0] * 256
for _code, _one in _OPCODES.items():
    if _one.gives and not (_one.takes or _one.lines or _one.counted or _one.gets or _one.name == "MARK"):
        _LENGTHS[_code] = 1 + _one.fixed


def scan_pickle(data: Data, start: int = 0) -> int:
    """Return the position where the pickle that begins at ``start`` ends.

    An accepted pickle takes at most about 250 bytes of memory per byte (an empty set has one byte), besides the results
    of the functions that it calls. Time is linear in the pickle's size. Raises EOFError if it is truncated, and
    ValueError if it is not a pickle, uses memo numbers above its count of opcodes, or nests more than MOST_NESTED deep.
    """
    at, count, end = start, 0, len(data)
    stack: list[int] = []  # nesting depth of each object on the unpickler's stack
    marked: list[list[int]] = []
    memo: dict[int, int] = {}
    while at < end:
        code, count = data[at], count + 1
        if length := _LENGTHS[code]:
            at += length
            stack.append(0)
            continue
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise ValueError(f"it has the byte {code:#04x} where a pickle has an instruction")
        at = argument = at + 1
        if opcode.counted:
            argument = at + opcode.counted
            at = argument + int.from_bytes(data[at:argument], "little")
        elif opcode.lines:
            for _ in range(opcode.lines):
                at = data.find(b"\n", at) + 1 or end + 1
        else:
            at += opcode.fixed
        if at > end:
            raise EOFError(f"its pickle is truncated: expected {at - argument} bytes, it has {max(0, end - argument)}")
        try:
            if opcode.puts:
                number = len(memo) if opcode.name == "MEMOIZE" else _number(opcode, data[argument:at])
                if number > count + SPARE:
                    raise ValueError(f"its pickle has the object number {number}")
                memo[number] = stack[-1]
            elif opcode.gets:
                stack.append(memo[_number(opcode, data[argument:at])])
            elif opcode.takes_all:
                items, stack = stack, marked.pop()
                _give(stack, opcode, items)
            elif opcode.name == "MARK":
                marked.append(stack)
                stack = []
            elif opcode.name == "STOP":
                return at
            elif opcode.name == "DUP":
                stack.append(stack[-1])
            elif opcode.name == "POP" and not stack:  # pops the mark
                stack = marked.pop()
            elif opcode.takes:
                items = stack[-opcode.takes + opcode.changes :]
                if len(items) + opcode.changes < opcode.takes:
                    raise IndexError
                del stack[len(stack) - len(items) :]
                _give(stack, opcode, items)
            elif opcode.gives:
                stack.append(0)
        except (IndexError, KeyError):
            raise ValueError("its pickle uses objects that it has not made") from None
    raise EOFError("its pickle is truncated: it has no end")


def _number(opcode: _Opcode, argument: bytes) -> int:
    """Parse a memo number, in decimal digits or bytes."""
    if not opcode.lines:
        return int.from_bytes(argument, "little")
    if len(argument) > 20:
        raise ValueError(f"its pickle has the object number {argument[:20].decode('latin-1')}...")
    return int(argument)


def _give(stack: list[int], opcode: _Opcode, items: list[int]) -> None:
    """Push the object that an opcode makes from ``items``, or add them to the object that it changes."""
    depth = 1 + max(items, default=0)
    if depth > MOST_NESTED:
        raise ValueError(f"its pickle nests objects more than {MOST_NESTED} deep")
    if opcode.changes:
        stack[-1] = max(stack[-1], depth)
    elif opcode.gives:
        stack.append(depth)

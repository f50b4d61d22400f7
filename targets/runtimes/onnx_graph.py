"""What is in an ONNX file, by the field numbers of its published protobuf schema: the onnx package may be absent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


class Node(NamedTuple):
    """A node of an ONNX graph."""

    name: str
    operation: str
    inputs: list[str]
    outputs: list[str]


def read_graph(model: bytes) -> list[Node]:
    """Nodes of an ONNX file, in order."""
    nodes = []
    for graph in _messages(memoryview(model), 7):
        for message in _messages(graph, 1):
            inputs, outputs, name, operation = (
                [str(text, "utf-8") for text in _messages(message, number)] for number in (1, 2, 3, 4)
            )
            nodes.append(Node("".join(name), "".join(operation), inputs, outputs))
    return nodes


def read_input_types(model: bytes) -> dict[str, str]:
    """Name → numpy type name of every input; in old files, of every initialiser as well."""
    types = {}
    for graph in _messages(memoryview(model), 7):
        for value in _messages(graph, 11):
            name = "".join(str(text, "utf-8") for text in _messages(value, 1))
            for tensor in (tensor for kind in _messages(value, 2) for tensor in _messages(kind, 1)):
                types[name] = _TYPES[next(found for number, found in _fields(tensor) if number == 1)]
    return types


def read_weights(model: bytes) -> dict[str, NDArray[Any]]:
    """Name → values [n] of every fp32 or int8 initialiser that is stored in the file itself, flat and in place."""
    weights = {}
    for graph in _messages(memoryview(model), 7):
        for tensor in _messages(graph, 5):
            kind = next((_TYPES.get(value) for number, value in _fields(tensor) if number == 2), None)
            raw = list(_messages(tensor, 9))
            if kind in ("float32", "int8") and raw:
                name = "".join(str(text, "utf-8") for text in _messages(tensor, 8))
                weights[name] = np.frombuffer(raw[0], kind)
    return weights


def _messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """Contents of every length-delimited field ``number`` of a protobuf message."""
    for found, value in _fields(message):
        if found == number and isinstance(value, memoryview):
            yield value


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of every field: an integer, or bytes in place."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        size, position = _varint(message, position) if kind == 2 else ({1: 8, 5: 4}[kind], position)
        yield tag >> 3, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and the position behind it."""
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position

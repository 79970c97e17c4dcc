"""Alterations of a file's bytes, each drawn from a random number generator: a seed and a name say which."""

import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import load, save

Mutation = Callable[[bytes, random.Random], bytes]

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**62, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, 1e-320, "", "x", "0", "..",
    "/", "../x",
    "/etc/passwd", "\n", "\0", "\ud7ff", "x" * 300, [], [0], [[]], ["a", 1], {}, {"": 0}, {"a": {"b": []}},
    [1] * 1000, float("inf"), float("nan"), "NaN", "1e9", "<script>", "a\nb", [2**62, 2**62],
]  # fmt: skip
"""What is put in the place of a value."""


# -- any file ----------------------------------------------------------------------------------------


def empty(data: bytes, rng: random.Random) -> bytes:
    return b""


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[
        : rng.choice([rng.randrange(len(data)), len(data) // 2, len(data) - 1, rng.randrange(min(16, len(data)))])
    ]


def flipped(data: bytes, rng: random.Random) -> bytes:
    """A few bits, mostly near the beginning or the end, where the structure is."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        out[_place(out, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwritten(data: bytes, rng: random.Random) -> bytes:
    """A number of some width by an extreme one, or a few bytes by random ones."""
    out, at = bytearray(data), _place(data, rng)
    new = rng.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * rng.choice([1, 2, 4, 8]) if rng.random() < 0.7 else (
        rng.randbytes(rng.randrange(1, 16))
    )  # fmt: skip
    out[at : at + len(new)] = new
    return bytes(out)


def spliced(data: bytes, rng: random.Random) -> bytes:
    """A piece of the file inserted elsewhere, left out, or repeated."""
    a, b = sorted((_place(data, rng), min(len(data), _place(data, rng) + rng.randrange(64))))
    piece, at = data[a : min(b, a + 256)], _place(data, rng)
    return rng.choice(
        [data[:at] + piece + data[at:], data[:a] + data[min(b, a + 256) :], data[:a] + piece * 3 + data[a:]]
    )


def foreign(data: bytes, rng: random.Random) -> bytes:
    """Something else altogether."""
    array, archive, state = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, np.ones(3))
    with zipfile.ZipFile(archive, "w") as entries:
        entries.writestr("x", "y")
    torch.save({"x": torch.ones(2)}, state)
    return rng.choice([
        b"\0", b"null", b"{}", b"[]", b"3", b"\xff\xfe\0", rng.randbytes(100), b"\x80\x05K\x01.", pickle.dumps([1]),
        array.getvalue(), archive.getvalue(), state.getvalue(), save({"x": torch.ones(2)}), b"\x89HDF", b"PAR1",
        b"PK\3\4",
        b"[" * rng.choice([10, 5_000]), b'{"a":' * rng.choice([10, 5_000]), b"\x1f\x8b\x08\0", b"GIF89a",
        b"version https",
    ])  # fmt: skip


ANY: list[Mutation] = [empty, truncated, flipped, overwritten, spliced, foreign]


# -- trees of values ---------------------------------------------------------------------------------


def altered(tree: Any, rng: random.Random) -> Any:
    """The tree with one value replaced, left out, moved, wrapped or given another name."""
    places = list(_places(tree))
    parent, key = rng.choice(places) if places else (None, None)
    if parent is None:
        return rng.choice(ODD)
    what = rng.randrange(8)
    if what == 0 and isinstance(parent, dict):
        del parent[key]
    elif what == 1 and isinstance(parent, dict):
        parent[rng.choice(["x", "", "files", "id", "../x", "a\nb", f"{key} "])] = parent.pop(key)
    elif what == 2:
        parent[key] = rng.choice([[parent[key]], {"a": parent[key]}, str(parent[key])])
    elif what == 3:
        other, place = rng.choice(places)
        parent[key] = json.loads(json.dumps(other[place]))
    elif what == 4 and isinstance(parent, list):
        parent.append(parent[key])
    elif what == 5 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = rng.choice(
            [parent[key] + 1, -parent[key], parent[key] * 10**9, float(parent[key]), parent[key] * 2]
        )
    else:
        parent[key] = rng.choice(ODD)
    return tree


def json_value(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(altered(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def json_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json_value(lines[at], rng)
    return b"\n".join([*lines, b""])


def yaml_value(data: bytes, rng: random.Random) -> bytes:
    return yaml.safe_dump(altered(yaml.safe_load(data), rng), allow_unicode=False).encode()


def yaml_text(data: bytes, rng: random.Random) -> bytes:
    """What YAML can do besides plain values."""
    lines = data.decode().splitlines()
    at = rng.randrange(len(lines))
    new = rng.choice([
        "a: !!python/object/apply:os.system ['true']", "a: &a [*a]", "<<: {hidden: 3}", "? [1, 2]\n: 3", "a: 1:30:00",
        "a: 2001-01-01", "a: !!binary aGk=", "a: !!set {x}", "--- ", "%YAML 9.9", "a: 0x_", "\t- x", "a: 1_000",
        "a: .inf", "b: ~",
        "a: " + "[" * 500 + "]" * 500, "a: !!int x", "a: !!float ''", "a: !!timestamp x", "a: 1" + "0" * 5000,
        "hidden: 0b1_",
    ])  # fmt: skip
    return "\n".join([*lines[:at], new, *lines[at + rng.randrange(2) :], ""]).encode()


# -- formats -----------------------------------------------------------------------------------------


def safetensors_header(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(altered(json.loads(data[8 : 8 + size]), rng)).encode("utf-8", "surrogatepass")
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def safetensors_values(data: bytes, rng: random.Random) -> bytes:
    return save(tensors(load(data), rng))


def tensors(weights: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Tensors with one of another value, type or shape, left out, added, or under another name."""
    name = rng.choice(sorted(weights))
    old = weights.pop(name)
    new = {
        0: lambda: {name: old.flatten().contiguous()}, 1: lambda: {}, 2: lambda: {f"{name}x": old},
        3: lambda: {name: torch.full_like(old, rng.choice([float("nan"), float("inf"), 3e38, 0]))},
        4: lambda: {name: old.to(rng.choice([torch.float16, torch.float64, torch.int64, torch.bool, torch.bfloat16]))},
        5: lambda: {name: torch.zeros(rng.choice([(), (0,), (0, 3), (1, 1, 1, 1, 1), (7,)]))},
        6: lambda: {name: old, "extra": torch.ones(2)}, 7: lambda: {name: old.transpose(0, -1).contiguous()},
        8: lambda: {name: torch.cat([old.reshape(-1), old.reshape(-1)]).reshape(2, *old.shape)},
    }[rng.randrange(9)]()  # fmt: skip
    return weights | new


def npy_header(data: bytes, rng: random.Random) -> bytes:
    shape = rng.choice(
        ["(6, 3)", "(10**9, 3)", "(6, 99999999999)", "(-1, 3)", "6", "('a',)", "(6, 3, 1)", "(18,)", "()"]
    )
    kind = rng.choice(["<f4", ">f4", "<f2", "O", "|O", "<U9", "[('a','<f4')]", "<f8", "x", "V4", "<c8", "<M8[s]"])
    order = rng.choice(["True", "False", "3", "[]"])
    text = f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text = rng.choice([text, text + b" " * 60, text[:-4], b"__import__('os')"]) + b"\n"
    return b"\x93NUMPY" + rng.choice([b"\1\0", b"\2\0", b"\4\0"]) + len(text).to_bytes(2, "little") + text + data[128:]


def parquet_table(data: bytes, rng: random.Random) -> bytes:
    """Another table, or the same written otherwise."""
    table = pq.read_table(io.BytesIO(data))
    rows = table.num_rows
    odd = rng.choice([
        {"episode": ["x"] * rows}, {"episode": [None] * rows}, {"episode": [[1]] * rows}, {},
        {"episode": list(range(3))},
        {"episode": [0.5] * rows}, {"episode": [2**62] * rows}, {"a\nb": [1] * rows}, {"episode": [{"a": 1}] * rows},
    ])  # fmt: skip
    made = rng.choice(
        [pa.table(odd), table, table.slice(0, 3), pa.concat_tables([table, table]), table.drop_columns(["episode"])]
    )
    out = io.BytesIO()
    pq.write_table(
        made, out, compression=rng.choice(["snappy", "gzip", "zstd", "none", "brotli", "lz4"]),
        version=rng.choice(["1.0", "2.6"]),
        use_dictionary=rng.random() < 0.5, row_group_size=rng.choice([None, 5]),
        data_page_version=rng.choice(["1.0", "2.0"]),
    )  # fmt: skip
    return out.getvalue()


# -- the same content, written otherwise -------------------------------------------------------------


def same_json(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(json.loads(data), indent=rng.choice([None, 0, 3]), sort_keys=rng.random() < 0.5).encode()


def same_json_lines(data: bytes, rng: random.Random) -> bytes:
    return b"".join(json.dumps(json.loads(line), sort_keys=True).encode() + b"\n\n" for line in data.splitlines())


def same_yaml(data: bytes, rng: random.Random) -> bytes:
    flow = rng.choice([True, False, None])
    return yaml.safe_dump(yaml.safe_load(data), default_flow_style=flow, sort_keys=rng.random() < 0.5).encode()


def same_tensors(data: bytes, rng: random.Random) -> bytes:
    """In another order in the file, with metadata."""
    weights = load(data)
    names = rng.sample(sorted(weights), len(weights))
    start, body, header = 0, b"", {"__metadata__": {"format": "pt"}}
    for name in names:
        tensor = weights[name].contiguous()
        content = tensor.view(-1).view(torch.uint8).numpy().tobytes()
        entry = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, start + len(content)]}
        start, body, header = start + len(content), body + content, header | {name: entry}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def same_table(data: bytes, rng: random.Random) -> bytes:
    table, out = pq.read_table(io.BytesIO(data)), io.BytesIO()
    table = table.select(rng.sample(table.column_names, table.num_columns))
    pq.write_table(
        table, out, compression=rng.choice(["snappy", "none"]), version=rng.choice(["1.0", "2.6"]),
        use_dictionary=rng.random() < 0.5, row_group_size=rng.choice([None, 5]),
        data_page_version=rng.choice(["1.0", "2.0"]), write_statistics=rng.random() < 0.5,
    )  # fmt: skip
    return out.getvalue()


SAME: list[Mutation] = [same_json, same_json_lines, same_yaml, same_tensors, same_table]


def archived_bytes(data: bytes, rng: random.Random) -> bytes:
    """An entry of an archive altered, with its checksum made right, or the archive written otherwise."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    name = rng.choice([each for each in entries if each.endswith("data.pkl")] * 3 + sorted(entries))
    what = rng.randrange(6)
    if what == 0:
        del entries[name]
    elif what == 1:
        entries[name + rng.choice(["x", "/../../x"])] = entries.pop(name)
    elif entries[name]:
        entries[name] = rng.choice([flipped, overwritten, spliced, truncated, pickle_code])(entries[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED) as archive:
        for each, content in entries.items():
            archive.writestr(each, content)
    return out.getvalue()


def pickle_code(data: bytes, rng: random.Random) -> bytes:
    """Operations of a pickle put anywhere into it."""
    at = rng.randrange(2, max(3, min(len(data), 4000)))
    new = rng.choice([
        b"c__builtin__\neval\n(X\x04\0\0\0True\x85R", b"cos\nsystem\nX\x04\0\0\0true\x85R", b"0", b"R", b"b", b"u",
        b"s", b"(",
        b"t", b"}", b"]", b"]a", b"h\0", b"r\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8,
        b"\x96" + b"\xff" * 7 + b"\x0f", b"N\x85" * 50,
        b"\x85" * 40_000, b"c__builtin__\nbytearray\nJ\0\0\0\x7f\x85R", b"ccollections\nOrderedDict\n)R", b"Q",
        b"\x82\x01", b"1",
        b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R", b"ibuiltins\nexec\n", b"2" * 5000, b"\x88",
        b"G\x7f\xf0\0\0\0\0\0\0",
    ])  # fmt: skip
    return data[:at] + new + data[at + rng.randrange(3) :]


def _place(data: bytes | bytearray, rng: random.Random) -> int:
    near = min(len(data), 512)
    return rng.choice([rng.randrange(len(data)), rng.randrange(near), len(data) - 1 - rng.randrange(near)])


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every value's container and key, those of the outer ones first."""
    found: list[tuple[Any, Any]] = []
    level = [tree]
    while level:
        below = []
        for each in level:
            keys = each.keys() if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
            found += [(each, key) for key in keys]
            below += [each[key] for key in keys]
        level = below
    return found

"""Decodes coded weights with nothing but docs/coding.md and docs/formats.md.

`--check` compares with the golden bytes of sparq-coding; `CODED DENSE` compares a coded checkpoint, weight by weight, with
what `export --format dense --dtype f32` made of the same solution.
"""

import json
import pathlib
import struct
import sys
import zlib


def number(stream) -> int:
    """The next number of an iterator over bytes."""
    byte = next(stream)
    return byte if byte < 0x80 else (byte & 0x7F) + 0x80 * number(stream)


def decode(data: bytes) -> tuple[tuple[int, int], list[int]]:
    """Shape of the matrix, and its codes row by row."""
    magic, version, class_count, rows, columns, block_rows, length = struct.unpack_from("<4sHHIIII", data)
    assert (magic, version) == (b"SPQC", 1), "not of this format"
    assert zlib.crc32(data[: length - 4]) == int.from_bytes(data[length - 4 : length], "little"), "header"
    width = max(class_count - 1, 0).bit_length()
    after_classes = 24 + (columns * width + 7) // 8
    packed = int.from_bytes(data[24:after_classes], "little")
    classes = [packed >> column * width & (1 << width) - 1 for column in range(columns)]
    stream = iter(data[after_classes:])
    tables = []  # one for each class: of each slot the code (None: escape), the frequency and the distance
    for _ in range(class_count):
        low, count, escape = (number(stream) for _ in range(3))
        low = low >> 1 ^ -(low & 1)
        symbols = [(code, number(stream)) for code in range(low, low + count)] + [(None, escape)]
        tables.append([(code, frequency, distance) for code, frequency in symbols for distance in range(frequency)])
    codes, begin = [0] * (rows * columns), length
    starts = range(0, rows if columns else 0, block_rows)
    entries = struct.iter_unpack("<II", data[length - 4 - 8 * len(starts) : length - 4])
    for start, (size, checksum) in zip(starts, entries):
        block, begin, end = data[begin : begin + size], begin + size, min(start + block_rows, rows)
        assert zlib.crc32(block) == checksum, f"block of row {start}"
        words = iter(struct.unpack(f"<{size // 2}H", block))
        states = [next(words) | next(words) << 16 for _ in range(min(16, end - start))]
        for group, column in ((group, column) for group in range(start, end, 16) for column in range(columns)):
            places = [row * columns + column for row in range(group, min(group + 16, end))]
            for lane, place in enumerate(places):
                codes[place], frequency, distance = tables[classes[column]][states[lane] % 4096]
                states[lane] = frequency * (states[lane] // 4096) + distance
                if states[lane] < 65536:
                    states[lane] = states[lane] << 16 | next(words)
            for place in (place for place in places if codes[place] is None):
                codes[place] = (next(words) ^ 0x8000) - 0x8000
        assert set(states) == {65536} and next(words, None) is None, f"end of the block of row {start}"
    return (rows, columns), codes


def single(value: float) -> float:
    """Rounded to single precision."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def tensors(directory: str):
    """Of every tensor of a checkpoint by name: type, shape, bytes."""
    found = {}
    for path in sorted(pathlib.Path(directory).glob("*.safetensors")):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        for name, of in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                begin, end = of["data_offsets"]
                found[name] = of["dtype"], of["shape"], data[8 + length + begin : 8 + length + end]
    return found


def floats(dtype: str, data: bytes) -> list[float]:
    """Values of a tensor."""
    if dtype == "BF16":
        data = b"".join(b"\0\0" + data[at : at + 2] for at in range(0, len(data), 2))
    kind, size = ("e", 2) if dtype == "F16" else ("f", 4)
    return list(struct.unpack(f"<{len(data) // size}{kind}", data))


def weights(directory: str):
    """Every coded weight of a checkpoint: its name and values, row by row."""
    stored = tensors(directory)
    config = json.loads((pathlib.Path(directory) / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["version"]) == ("sparq", 1)
    sizes = {module: grid["group_size"] for grid in config.get("grids", []) for module in grid["modules"]}
    part = lambda name: floats(stored[name][0], stored[name][2])
    for name in (name for name in stored if name.endswith(".codes")):
        module = name.removesuffix(".codes")
        (rows, columns), codes = decode(stored[name][2])
        if f"{module}.steps" in stored:
            steps, factors = part(f"{module}.steps"), part(f"{module}.rows")
            value = lambda row, column, code: single(factors[row] * single(steps[column] * code))
        else:
            scales, size = part(f"{module}.scales"), sizes[module] or columns
            value = lambda row, column, code: single(scales[row * -(-columns // size) + column // size] * code)
        yield module, [value(at // columns, at % columns, code) for at, code in enumerate(codes)]


if sys.argv[1:] == ["--check"]:
    for case in json.loads((pathlib.Path(__file__).parents[2] / "crates/sparq-coding/tests/golden.json").read_text()):
        codes = dict(case["nonzero"])
        expected = [codes.get(place, 0) for place in range(case["rows"] * case["columns"])]
        assert decode(bytes.fromhex("".join(case["bytes"]))) == ((case["rows"], case["columns"]), expected)
    print("every golden matrix is decoded to its codes")
elif len(sys.argv) == 3:
    dense, compared = tensors(sys.argv[2]), 0
    for module, values in weights(sys.argv[1]):
        assert values == floats(dense[f"{module}.weight"][0], dense[f"{module}.weight"][2]), module
        compared += 1
    print(f"{compared} coded weights are those of the dense checkpoint, value by value")

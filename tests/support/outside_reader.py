#!/usr/bin/python3
"""Reads a generation of checkpoints without any code of Quorate's.

    outside_reader.py stock|chunks DIRECTORY GENERATION OUT [replica]

stock: as any user of h5py would, with HDF5's own filters and the plugins it finds. chunks: takes the stored chunks one by
one, sums them up and decompresses them with the compressors' libraries, as no plugin for Zstd is packaged; virtual datasets
are followed by hand. Writes OUT.votes (uint8) and OUT.state (float32), all agents in order.
"""

import ctypes
import os
import struct
import sys
from glob import glob

import h5py
import numpy as np

FLETCHER32, LZ4, ZSTD = 3, 32004, 32015


def fletcher32(data: bytes) -> int:
    words = np.frombuffer(data + b"\0" * (len(data) % 2), dtype=">u2").astype(object)
    first = int(words.sum())
    second = int((words * np.arange(len(words), 0, -1)).sum())

    def fold(total: int) -> int:
        return (total - 1) % 65535 + 1 if total else 0

    return fold(second) << 16 | fold(first)


def unlz4(data: bytes) -> bytes:
    library = ctypes.CDLL("liblz4.so.1")
    total, block = struct.unpack(">QI", data[:12])
    out, at = b"", 12
    while len(out) < total:
        wanted = min(block, total - len(out))
        (stored,) = struct.unpack(">I", data[at : at + 4])
        piece = data[at + 4 : at + 4 + stored]
        at += 4 + stored
        if stored != wanted:
            room = ctypes.create_string_buffer(wanted)
            assert library.LZ4_decompress_safe(piece, room, len(piece), wanted) == wanted
            piece = room.raw
        out += piece
    assert at == len(data)
    return out


def unzstd(data: bytes, wanted: int) -> bytes:
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    room = ctypes.create_string_buffer(wanted)
    assert library.ZSTD_decompress(room, wanted, data, len(data)) == wanted
    return room.raw


def read_chunks(dataset: h5py.Dataset) -> np.ndarray:
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    assert filters[-1][0] == FLETCHER32, filters
    kinds = [f[0] for f in filters[:-1]]
    out = np.zeros(dataset.shape, dataset.dtype)
    size = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    for i in range(dataset.id.get_num_chunks()):
        start = dataset.id.get_chunk_info(i).chunk_offset
        mask, stored = dataset.id.read_direct_chunk(start)
        assert mask == 0
        data, kept = stored[:-4], struct.unpack("<I", stored[-4:])[0]
        assert fletcher32(data) == kept, "checksum"
        if kinds == [LZ4]:
            assert filters[0][2][0] >= struct.unpack(">I", data[8:12])[0]
            data = unlz4(data)
        elif kinds == [ZSTD]:
            data = unzstd(data, size)
        else:
            assert kinds == []
        chunk = np.frombuffer(data, dataset.dtype).reshape(dataset.chunks)
        rows = min(dataset.chunks[0], dataset.shape[0] - start[0])
        assert not chunk[rows:].any(), "padding"
        out[start[0] : start[0] + rows] = chunk[:rows]
    return out


def read_any(path: str, name: str) -> np.ndarray:
    with h5py.File(path, "r") as file:
        dataset = file[name]
        if not dataset.is_virtual:
            return read_chunks(dataset)
        out = np.zeros(dataset.shape, dataset.dtype)
        read, covered = {}, 0
        for source in dataset.virtual_sources():
            inner = path if source.file_name == "." else os.path.join(os.path.dirname(path), source.file_name)
            key = (inner, source.dset_name)
            if key not in read:
                read[key] = read_any(inner, source.dset_name)
            low, high = source.vspace.get_select_bounds()
            assert source.src_space.get_select_bounds() == (low, high)
            out[low[0] : high[0] + 1] = read[key][low[0] : high[0] + 1]
            covered += high[0] + 1 - low[0]
        assert covered == dataset.shape[0], "agents left out"
        return out


def main() -> int:
    how, directory, generation, to = sys.argv[1:5]
    ending = ".replica.h5" if len(sys.argv) > 5 else ".h5"
    paths = glob(f"{directory}/generation-{int(generation):08d}.s*{ending}")
    parts = {}
    for path in paths:
        if path.endswith(".replica.h5") != (ending == ".replica.h5"):
            continue
        with h5py.File(path, "r") as file:
            assert file.attrs["generation"] == int(generation) and file.attrs["deck"] and file.attrs["version"]
            for name, group in file.items():
                parts[int(group.attrs["first_agent"])] = (path, name, int(group.attrs["count"]), sorted(group))
    with open(f"{to}.votes", "wb") as votes, open(f"{to}.state", "wb") as state:
        at = 0
        for first, (path, name, count, datasets) in sorted(parts.items()):
            assert first == at, "agents are missing"
            at += count
            for kind, out in (("votes", votes), ("state", state)):
                if kind not in datasets:
                    assert kind == "state"
                    continue
                if how == "stock":
                    with h5py.File(path, "r") as file:
                        values = file[name][kind][()]
                else:
                    values = read_any(path, f"{name}/{kind}")
                assert len(values) == count
                out.write(np.ascontiguousarray(values).tobytes())
    return 0 if at > 0 else 1


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Compile every src/kernels/**/*.cu into src/kernels/device_code, which the crate embeds.

    python3 -m venv .cuda && .cuda/bin/pip install -r scripts/requirements-device-code.txt
    .cuda/bin/python scripts/build_device_code.py          # write it
    .cuda/bin/python scripts/build_device_code.py --check  # fail when it and the sources differ, or it is too large
    python3 scripts/build_device_code.py --unpack FOLDER   # write what is embedded as .ptx and .cubin files

A kernel's file, `<domain>/<name>.bin`, holds PTX and machine code for several compute capabilities, compressed;
src/cuda/device_code.rs has the format. resources.md has what ptxas allots to each entry: registers, stack, spills, shared
memory.

Neither a GPU nor a driver is needed. The compiler is found among the installed packages, so a
folder filled by `pip install --target DIR` works too, with DIR on PYTHONPATH.
"""

import argparse
import ctypes
import difflib
import lzma
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "src" / "kernels"
DEVICE_CODE = KERNELS / "device_code"
# Headers that kernels share; a kernel's own lie beside its source.
INCLUDE = KERNELS / "include"

# compute_75 (Turing) is the oldest target that CUDA 13 drivers still take, and nothing here needs
# a newer one: the driver compiles the PTX for the GPU that it finds. Division, square root and
# denormals keep NVRTC's IEEE defaults, on which the f64 accuracy rests; -fmad=true is the default
# too, and is written out because results depend on it.
OLDEST_ARCHITECTURE = "compute_75"
OPTIONS = [
    "--std=c++17",
    "--device-as-default-execution-space",
    "--fmad=true",
]
# Machine code for these is embedded beside the PTX, so that a first request need not wait for the
# driver's compiler. src/cuda/device_code.rs chooses among them.
CUBIN_TARGETS = ["sm_80", "sm_90", "sm_100"]
RESOURCE_TARGETS = ["sm_75", *CUBIN_TARGETS]
# A source that mentions this macro has variants: it is compiled for each of these architectures, and the machine code is
# made of what it compiles to, so that it may use matrix operations that older ones do not have. The embedded PTX stays
# that of the oldest architecture, for which the source has another way.
VARIANT_MACRO = "__CUDA_ARCH__"
# What sm_90a has is in no other architecture, so its machine code is for sm_90 alone. The pinned NVRTC knows no newer one.
VARIANTS = {"sm_80": ("compute_80", "sm_80"), "sm_90": ("compute_90a", "sm_90a"), "sm_100": ("compute_80", "sm_100")}
RESOURCES = DEVICE_CODE / "resources.md"
# Bytes of device code in the crate: with all else the package stays below the 10 MB that crates.io takes, with room for
# the domains to come.
TOTAL_BUDGET = 3 << 20
LARGEST_BUDGET = 256 << 10
HEAD = """# Registers and spills

What ptxas allots to each entry, written and compared by `scripts/build_device_code.py`; the compilers are pinned in
`scripts/requirements-device-code.txt`. A spill is memory traffic that the source does not show.

| entry | target | registers | stack B | spill stores B | spill loads B | shared B |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
"""


def installed(pattern):
    """The one installed file that matches `pattern` below a site-packages folder.

    Two would make the output depend on the order of the search.
    """
    found = sorted({path for folder in sys.path for path in pathlib.Path(folder or ".").glob(pattern)})
    if not found:
        sys.exit(f"no {pattern} on the Python path: pip install -r scripts/requirements-device-code.txt")
    if len(found) > 1:
        sys.exit(f"several {pattern}: {', '.join(map(str, found))}")
    return found[0]


class Nvrtc:
    """The few calls of NVRTC's C interface that turn one source into PTX."""

    def __init__(self):
        self.lib = ctypes.CDLL(str(installed("nvidia/cuda_nvrtc/lib/libnvrtc.so.*")))
        self.lib.nvrtcGetErrorString.restype = ctypes.c_char_p

    def call(self, name, *arguments):
        code = getattr(self.lib, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name}: {self.lib.nvrtcGetErrorString(code).decode()}")

    def text(self, what, program):
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, buffer)
        return buffer.value.decode()

    def compile(self, source, architecture=OLDEST_ARCHITECTURE):
        program = ctypes.c_void_p()
        # Headers go by name and text: a path would differ from one checkout to the next.
        headers = sorted([*source.parent.glob("*.cuh"), *INCLUDE.glob("*.cuh")])
        texts = (ctypes.c_char_p * len(headers))(*(header.read_bytes() for header in headers))
        names = (ctypes.c_char_p * len(headers))(*(header.name.encode() for header in headers))
        self.call(
            "nvrtcCreateProgram", ctypes.byref(program), source.read_bytes(),
            source.name.encode(), len(headers), texts, names,
        )
        options = [f"--gpu-architecture={architecture}", *OPTIONS]
        options = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        try:
            self.call("nvrtcCompileProgram", program, len(options), options)
        except RuntimeError as error:
            sys.exit(f"{source}: {error}\n{self.text('ProgramLog', program)}")
        log = self.text("ProgramLog", program).strip()
        if log:
            sys.exit(f"{source}: the compiler warns\n{log}")
        ptx = self.text("PTX", program)
        self.call("nvrtcDestroyProgram", ctypes.byref(program))
        return ptx


def pack(images):
    """The file of a kernel: its images by target, 0 for PTX. See src/cuda/device_code.rs."""
    packed = []
    for image in images.values():
        dictionary = max(4096, 1 << (len(image) - 1).bit_length())
        filters = [{"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
        packed.append(lzma.compress(image, format=lzma.FORMAT_ALONE, filters=filters))
    file = struct.pack("<I", len(images))
    for (target, image), stream in zip(images.items(), packed):
        file += struct.pack("<III", target, len(image), len(stream))
    return file + b"".join(packed)


def unpack(file):
    """The images of a file that `pack` wrote."""
    (count,) = struct.unpack_from("<I", file)
    offset = 4 + 12 * count
    images = {}
    for index in range(count):
        target, length, packed = struct.unpack_from("<III", file, 4 + 12 * index)
        images[target] = lzma.decompress(file[offset:offset + packed], format=lzma.FORMAT_ALONE)
        assert len(images[target]) == length
        offset += packed
    return images


def unpack_all(folder):
    """Writes the images of every embedded file, as its kernel's name with `.ptx` or `.sm_NN.cubin`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(DEVICE_CODE.rglob("*.bin")):
        for target, image in unpack(path.read_bytes()).items():
            ending = f".sm_{target}.cubin" if target else ".ptx"
            (folder / (path.stem + ending)).write_bytes(image if target else image.removesuffix(b"\0"))


def check(path, new):
    """Whether the checked-in file is what its source compiles to; prints where it is not."""
    name = path.relative_to(ROOT)
    if not path.exists():
        print(f"{name}: missing")
        return False
    old = path.read_bytes()
    if path.suffix == ".bin":
        # What is compressed is compared, and not its compressed form, which another liblzma may write otherwise.
        old, new = unpack(old), unpack(new)
        differ = [target for target in old.keys() | new.keys() if old.get(target) != new.get(target)]
        print(f"{name}: " + (f"differs for targets {sorted(differ)}" if differ else "up to date"))
        return not differ
    if old == new:
        print(f"{name}: up to date")
        return True
    old, new = old.decode().splitlines(), new.decode().splitlines()
    print(f"{name}: differs")
    print("\n".join(list(difflib.unified_diff(old, new, "checked in", "compiled", "", "", 1))[:20]))
    return False


def check_budget(files):
    """Prints what each kernel adds to the crate; whether that is within the budgets."""
    sizes = {path: len(content) for path, content in files.items() if path.suffix == ".bin"}
    for path, size in sizes.items():
        print(f"{path.relative_to(DEVICE_CODE)}: {size:7} bytes")
    total = sum(sizes.values())
    print(f"{len(sizes)} files of {total} bytes ({TOTAL_BUDGET} allowed), {LARGEST_BUDGET} allowed for one")
    return total <= TOTAL_BUDGET and max(sizes.values()) <= LARGEST_BUDGET


def assemble(source, ptx, target):
    """Machine code of `ptx` for `target`, and what ptxas says of it."""
    ptxas = installed("nvidia/cuda_nvcc/bin/ptxas")
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "kernel.ptx").write_text(ptx)
        # By a relative name: a path would differ from one run to the next.
        command = [ptxas, "-v", f"--gpu-name={target}", "--output-file", "kernel.cubin", "kernel.ptx"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{source}: ptxas fails for {target}\n{done.stdout}")
        return (pathlib.Path(folder) / "kernel.cubin").read_bytes(), done.stdout


def resources(log, target):
    """Rows of the table, one an entry, in the order of their names."""
    counts = [
        r"Used (\d+) registers", r"(\d+) bytes stack frame", r"(\d+) bytes spill stores",
        r"(\d+) bytes spill loads", r"(\d+) bytes smem",
    ]
    rows = []
    for part in log.split("Compiling entry function '")[1:]:
        entry = part.split("'")[0]
        found = [re.search(count, part) for count in counts]
        if found[0] is None:
            sys.exit(f"ptxas does not say how many registers {entry} has:\n{log}")
        rows.append((entry, target, *(match.group(1) if match else "0" for match in found)))
    return rows


def embedded_path(source):
    """Where the code of a source goes: by the id of its kernel."""
    domain = source.relative_to(KERNELS).parts[0]
    return DEVICE_CODE / domain / (source.stem.replace("_", "-") + ".bin")


def outputs(sources):
    """What is to be checked in: path and content."""
    nvrtc = Nvrtc()
    files, rows = {}, []
    for source in sources:
        ptx = nvrtc.compile(source)
        has_variants = VARIANT_MACRO in source.read_text()
        images = {0: ptx.encode() + b"\0"}
        for target in RESOURCE_TARGETS:
            if has_variants and target in VARIANTS:
                architecture, machine = VARIANTS[target]
                cubin, log = assemble(source, nvrtc.compile(source, architecture), machine)
            else:
                cubin, log = assemble(source, ptx, target)
            rows += resources(log, target)
            if target in CUBIN_TARGETS:
                images[int(target.removeprefix("sm_"))] = cubin
        files[embedded_path(source)] = pack(images)
    order = {target: place for place, target in enumerate(RESOURCE_TARGETS)}
    rows.sort(key=lambda row: (row[0], order[row[1]]))
    files[RESOURCES] = (HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)).encode()
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is checked in and write nothing")
    parser.add_argument("--unpack", metavar="FOLDER", type=pathlib.Path, help="write the embedded images there")
    arguments = parser.parse_args()
    if arguments.unpack:
        unpack_all(arguments.unpack)
        return

    sources = sorted(KERNELS.rglob("*.cu"))
    if not sources:
        sys.exit(f"no .cu below {KERNELS}")
    files = outputs(sources)
    # Code whose source is gone would still be embedded by whoever names it.
    orphans = sorted(path for path in DEVICE_CODE.rglob("*.bin") if path not in files)
    for path in orphans:
        print(f"{path.relative_to(ROOT)}: has no source")
    stale = len(orphans)
    for path, content in files.items():
        if arguments.check:
            stale += not check(path, content)
        elif not path.exists() or not check(path, content):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            print(f"{path.relative_to(ROOT)}: written")
    fits = check_budget(files)
    if stale:
        sys.exit(f"{stale} files differ from their sources: run scripts/build_device_code.py and commit the result")
    if not fits:
        sys.exit("the device code is larger than its budget")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Compile every src/kernels/**/*.cu to the .ptx beside it, which the crate embeds.

    python3 -m venv .cuda && .cuda/bin/pip install -r scripts/requirements-ptx.txt
    .cuda/bin/python scripts/build_ptx.py              # write the PTX
    .cuda/bin/python scripts/build_ptx.py --check      # fail when PTX and source differ
    .cuda/bin/python scripts/build_ptx.py --resources  # registers, spills, shared memory per entry

Neither a GPU nor a driver is needed. The compiler is found among the installed packages, so a
folder filled by `pip install --target DIR` works too, with DIR on PYTHONPATH.
"""

import argparse
import ctypes
import difflib
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "src" / "kernels"

# compute_75 (Turing) is the oldest target that CUDA 13 drivers still take, and nothing here needs
# a newer one: the driver compiles the PTX for the GPU that it finds. Division, square root and
# denormals keep NVRTC's IEEE defaults, on which the f64 accuracy rests; -fmad=true is the default
# too, and is written out because results depend on it.
OPTIONS = [
    "--gpu-architecture=compute_75",
    "--std=c++17",
    "--device-as-default-execution-space",
    "--fmad=true",
]
RESOURCE_TARGETS = ["sm_80", "sm_90"]


def installed(pattern):
    """The one installed file that matches `pattern` below a site-packages folder.

    Two would make the output depend on the order of the search.
    """
    found = sorted({path for folder in sys.path for path in pathlib.Path(folder or ".").glob(pattern)})
    if not found:
        sys.exit(f"no {pattern} on the Python path: pip install -r scripts/requirements-ptx.txt")
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

    def compile(self, source):
        program = ctypes.c_void_p()
        # Headers go by name and text: a path would differ from one checkout to the next.
        headers = sorted(source.parent.glob("*.cuh"))
        texts = (ctypes.c_char_p * len(headers))(*(header.read_bytes() for header in headers))
        names = (ctypes.c_char_p * len(headers))(*(header.name.encode() for header in headers))
        self.call(
            "nvrtcCreateProgram", ctypes.byref(program), source.read_bytes(),
            source.name.encode(), len(headers), texts, names,
        )
        options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
        try:
            self.call("nvrtcCompileProgram", program, len(OPTIONS), options)
        except RuntimeError as error:
            sys.exit(f"{source}: {error}\n{self.text('ProgramLog', program)}")
        log = self.text("ProgramLog", program).strip()
        if log:
            sys.exit(f"{source}: the compiler warns\n{log}")
        ptx = self.text("PTX", program)
        self.call("nvrtcDestroyProgram", ctypes.byref(program))
        return ptx


def check(target, ptx):
    """Whether the checked-in PTX is what its source compiles to; prints where it is not."""
    name = target.relative_to(ROOT)
    if not target.exists():
        print(f"{name}: missing")
        return False
    old = target.read_text()
    if old == ptx:
        print(f"{name}: up to date")
        return True
    changes = list(difflib.unified_diff(old.splitlines(), ptx.splitlines(), "checked in", "compiled", "", "", 1))
    added = sum(line.startswith("+") and not line.startswith("+++") for line in changes)
    removed = sum(line.startswith("-") and not line.startswith("---") for line in changes)
    print(f"{name}: differs, {added} lines compiled anew, {removed} lines only in the checked-in file")
    print("\n".join(changes[:20]))
    return False


def resources(sources, nvrtc):
    """Prints what ptxas allots to each entry, as a Markdown table."""
    ptxas = installed("nvidia/cuda_nvcc/bin/ptxas")
    print("| entry | target | registers | stack B | spill stores B | spill loads B | shared B |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for source in sources:
        with tempfile.TemporaryDirectory() as folder:
            ptx = pathlib.Path(folder) / "kernel.ptx"
            ptx.write_text(nvrtc.compile(source))
            for target in RESOURCE_TARGETS:
                done = subprocess.run(
                    [ptxas, "-v", f"--gpu-name={target}", "--output-file", f"{folder}/kernel.cubin", ptx],
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                )
                if done.returncode != 0:
                    sys.exit(f"{source}: ptxas fails for {target}\n{done.stdout}")
                report(done.stdout, target)


def report(log, target):
    counts = [
        r"Used (\d+) registers", r"(\d+) bytes stack frame", r"(\d+) bytes spill stores",
        r"(\d+) bytes spill loads", r"(\d+) bytes smem",
    ]
    for part in log.split("Compiling entry function '")[1:]:
        entry = part.split("'")[0]
        found = [re.search(count, part) for count in counts]
        print(f"| {entry} | {target} | " + " | ".join(match.group(1) if match else "0" for match in found) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compare with the checked-in PTX and write nothing")
    what.add_argument("--resources", action="store_true", help="print what ptxas allots to each entry")
    arguments = parser.parse_args()

    sources = sorted(KERNELS.rglob("*.cu"))
    if not sources:
        sys.exit(f"no .cu below {KERNELS}")
    nvrtc = Nvrtc()
    if arguments.resources:
        resources(sources, nvrtc)
        return
    stale = 0
    for source in sources:
        target = source.with_suffix(".ptx")
        ptx = nvrtc.compile(source)
        if arguments.check:
            stale += not check(target, ptx)
        else:
            target.write_text(ptx)
            print(f"{target.relative_to(ROOT)}: {len(ptx)} bytes")
    if arguments.check:
        # A PTX whose source is gone would still be embedded by whoever names it.
        orphans = [path for path in sorted(KERNELS.rglob("*.ptx")) if not path.with_suffix(".cu").exists()]
        for path in orphans:
            print(f"{path.relative_to(ROOT)}: has no source")
        stale += len(orphans)
    if stale:
        sys.exit(f"{stale} PTX files differ from their sources: run scripts/build_ptx.py and commit the result")


if __name__ == "__main__":
    main()

"""Each folder of src/ includes only what stands below it; files, MPI and CUDA are touched only where that is somebody's
job. The built binaries keep to it too: nothing but the CUDA module needs CUDA, and the module opens no files."""

import glob
import os
import re
import subprocess
import sys

SOURCE_DIR = os.environ["SOURCE_DIR"]
ALLOWED = {
    "base": {"base"},
    "deck": {"deck", "base"},
    "model": {"model", "deck", "base"},
    "network": {"network", "deck", "base"},
    "backend": {"backend", "model", "network", "deck", "base"},
    "comm": {"comm", "backend", "model", "network", "deck", "base"},
    "consensus": {"consensus", "comm", "backend", "model", "network", "deck", "base"},
    "queue": {"queue", "base"},
    "page": {"page", "queue", "backend", "model", "network", "deck", "base"},
    "io": {"io", "queue", "base"},
    "run": {"run", "io", "page", "queue", "consensus", "comm", "backend", "network", "model", "deck", "base"},
}
# Headers of libraries, and the folders that may include them.
LIBRARIES = {
    r"mpi\.h": {"comm", "run", "main.c"},
    r"hdf5\.h|H5.*\.h": {"io"},
    r"yaml\.h": {"deck"},
    r"zlib\.h": {"network", "io"},
    r"fcntl\.h|sys/stat\.h|dirent\.h": {"io"},
    r"cuda.*\.h|nccl\.h": {"backend/cuda"},
    r"dlfcn\.h": {"run"},
}
# Calls that open files belong to io; only main decides to exit.
OPENING = re.compile(r"\b(fopen|open|openat|creat|mkstemp|mkdir|rename|unlink)\s*\(")
LEAVING = re.compile(r"\b(exit|_exit|abort|MPI_Abort)\s*\(")


def code_only(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return re.sub(r'"(\\.|[^"\\\n])*"', '""', text)


def sources():
    for folder, _, names in os.walk(os.path.join(SOURCE_DIR, "src")):
        for name in names:
            if name.endswith((".c", ".h")):
                path = os.path.join(folder, name)
                yield path, os.path.relpath(path, os.path.join(SOURCE_DIR, "src")).split(os.sep)[0]


def check_file(path, owner):
    inner = os.path.relpath(path, os.path.join(SOURCE_DIR, "src"))
    with open(path, encoding="utf-8") as file:
        text = file.read()
    faults = []
    for own, header in re.findall(r'^#include ([<"])([^>"]+)[>"]', text, flags=re.M):
        folder = header.split("/")[0]
        if own == '"' and folder in ALLOWED and owner in ALLOWED and folder not in ALLOWED[owner]:
            faults.append(f"includes {header}, which stands above it")
        for library, owners in LIBRARIES.items():
            if own == "<" and re.fullmatch(library, header) and not owners & {owner, os.path.dirname(inner)}:
                faults.append(f"includes <{header}>")
    code = code_only(text)
    if owner != "io":
        faults += [f"calls {call}" for call in OPENING.findall(code)]
    # A damaged result file is surveyed in a child process, which ends by _exit.
    if owner != "main.c" and not path.endswith("io/info.c"):
        faults += [f"calls {call}" for call in LEAVING.findall(code)]
    return [f"{os.path.relpath(path, SOURCE_DIR)} {fault}" for fault in faults]


def symbols(arguments, path):
    out = subprocess.run(["nm", *arguments, path], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].split("@")[0] for line in out.splitlines() if line.strip()}


def check_binaries():
    """Faults of what was built, and a word on the module."""
    build = os.environ["BUILD_DIR"]
    faults = []
    needed = subprocess.run(["ldd", os.environ["QUORATE"]], capture_output=True, text=True, check=True).stdout
    faults += [f"the executable needs {line.strip()}" for line in needed.splitlines() if re.search("cuda|nccl", line)]
    for name in ("libqr_io.a", "libqr_queue.a"):
        undefined = symbols(["--undefined-only"], os.path.join(build, name))
        faults += [f"{name} calls {symbol}" for symbol in sorted(undefined) if re.match("cuda|cu[A-Z]|nccl", symbol)]
    objects = glob.glob(os.path.join(build, "CMakeFiles/quorate_cuda.dir/**/*.o"), recursive=True)
    if not os.path.exists(os.path.join(build, "libquorate_cuda.so")):
        return faults, "there is no CUDA module in this build"
    if len(objects) < 8:
        faults.append(f"only {len(objects)} objects of the CUDA module were found")
    opening = re.compile(r"(f?open(at)?(64)?|fdopen|creat|mkdir|rename|unlink|H5.*|MPI_.*)")
    for path in objects:
        calls = [s for s in sorted(symbols(["--undefined-only"], path)) if opening.fullmatch(s)]
        faults += [f"{os.path.basename(path)} of the CUDA module calls {symbol}" for symbol in calls]
    return faults, f"the CUDA module's {len(objects)} objects open no files"


def main():
    faults = []
    count = 0
    for path, owner in sources():
        faults += check_file(path, owner)
        count += 1
    more, module = check_binaries()
    faults += more
    if count < 50:
        faults.append(f"only {count} files were found")
    print("\n".join(faults) if faults else f"{count} files keep to their layer; the executable needs no CUDA; {module}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()

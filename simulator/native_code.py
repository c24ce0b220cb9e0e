"""Native code: kernels that numba compiles once, and later processes run without numba.

A kernel is a function of numbers in arrays.  numba makes LLVM's language of it, and llvmlite makes
machine code of that, keeps it on disk and loads it: a process that finds it there is ready in a
tenth of a second, where numba alone takes most of a second to be imported.

What is kept has a name made of everything that it depends on, and begins with its own digest: a
file of another version or processor, or one that is cut off, is never run.  No fast-math: nothing
is fused or reordered.
"""

import ctypes
import os
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nonn_common.document import write_atomic
from nonn_common.errors import NonnError

Floats = NDArray[np.float64]
Wholes = NDArray[np.int64]

Tables = Sequence[Floats]
WholeTables = Sequence[Wholes]

Entry = Callable[[Wholes, Tables, WholeTables], None]
"""A kernel: some numbers, then tables of arrays of floats and of whole numbers, all contiguous."""

F = TypeVar("F", bound=Callable[..., Any])

_PARTS: list[Callable[..., Any]] = []
_SYMBOL = "nonn_kernel"
_OPTIONS = {"error_model": "numpy"}  # a division by 0 is not looked for


def part(function: F) -> F:
    """Let kernels call `function`, which stays a function of Python, too."""
    _PARTS.append(function)
    return function


class Kernel:
    """A kernel: its `entry`, and the modules whose parts it calls."""

    def __init__(self, entry: Entry, *modules: str) -> None:
        self._entry, self._modules = entry, modules
        self._engine: Any = None
        self._run: Any = None

    @property
    def is_loaded(self) -> bool:
        """Whether it can be called."""
        return self._run is not None

    def find(self) -> bool:
        """Whether it is loaded, or was found on disk and loaded now, without numba."""
        return self.is_loaded or (find_spec("llvmlite") is not None and self._succeeds(self._seek))

    def make(self) -> bool:
        """Whether it is loaded, found on disk or compiled now, which takes some ten seconds."""
        return self.find() or self._succeeds(self._compile)

    def _succeeds(self, step: Callable[[], None]) -> bool:
        """Whether it is loaded after a step, which may fail in many ways."""
        try:
            step()
        except NonnError:  # somebody stops the program
            raise
        except Exception:  # errors of files, numba and LLVM share no other base
            return False
        return self.is_loaded

    def _seek(self) -> None:
        name = self._name()
        found = (_content(folder / name) for folder in _folders())
        machine_code = next((each for each in found if each is not None), None)
        if machine_code is not None:
            self._load(machine_code)

    def _compile(self) -> None:
        machine_code = _machine_code(self._entry)
        _keep(self._name(), machine_code)
        self._load(machine_code)

    def __call__(self, numbers: Wholes, floats: Tables, wholes: WholeTables) -> None:
        """Run it; raises TypeError for an array of another kind."""
        tables = (
            np.array([_address(each, kind) for each in arrays], dtype=np.uintp)
            for arrays, kind in ((floats, np.float64), (wholes, np.int64))
        )
        self._run(_address(numbers, np.int64), *(_address(each, np.uintp) for each in tables))

    def _name(self) -> str:
        """Name of its file: all that its code depends on."""
        import llvmlite.binding as llvm

        digest = sha256()
        for name in ("numba", "llvmlite"):
            digest.update(version(name).encode())
        digest.update(llvm.get_process_triple().encode() + llvm.get_host_cpu_name().encode())
        digest.update(llvm.get_host_cpu_features().flatten().encode())
        files = (self._entry.__code__.co_filename, __file__, *map(_source, self._modules))
        for file in files:
            digest.update(Path(file).read_bytes())
        return f"{self._entry.__module__}-{digest.hexdigest()[:24]}.o"

    def _load(self, machine_code: bytes) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
        self._engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, *(3 * [ctypes.c_void_p]))
        self._run = kind(self._engine.get_function_address(_SYMBOL))


Heap = tuple[Floats, Wholes, Wholes]
"""A heap: times, keys that tell equal times apart, and what is to happen; the first comes first."""


@part
def push(heap: Heap, size: int, time: float, key: int, code: int) -> None:
    """Put one more onto a heap of `size`."""
    times, keys, codes = heap
    place = size
    while place:
        above = (place - 1) // 2
        if times[above] < time or (times[above] == time and keys[above] < key):
            break
        times[place], keys[place], codes[place] = times[above], keys[above], codes[above]
        place = above
    times[place], keys[place], codes[place] = time, key, code


@part
def pop(heap: Heap, size: int) -> None:
    """Take the first one off a heap, of which `size` are left."""
    times, keys, codes = heap
    place, below = 0, 1
    while below < size:
        below += below + 1 < size and _is_before(times, keys, below + 1, below)
        if _is_before(times, keys, size, below):
            break
        times[place], keys[place], codes[place] = times[below], keys[below], codes[below]
        place, below = below, 2 * below + 1
    times[place], keys[place], codes[place] = times[size], keys[size], codes[size]


@part
def _is_before(times: Floats, keys: Wholes, one: int, other: int) -> bool:
    return bool(
        times[one] < times[other] or (times[one] == times[other] and keys[one] < keys[other])
    )


def flat_lists(lists: Iterable[Iterable[int]]) -> tuple[Wholes, Wholes]:
    """Lists in one array: list i is items[begins[i]:begins[i + 1]]; begins, and items."""
    made = [list(each) for each in lists]
    begins = np.cumsum([0, *map(len, made)], dtype=np.int64)
    return begins, np.array([item for each in made for item in each], dtype=np.int64)


def has_place() -> bool:
    """Whether there is a folder in which machine code can be kept."""
    return any(map(_is_writable, _folders()))


def _folders() -> list[Path]:
    """Folders for machine code, the best first; numba's variable names another one."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen)]
    shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [Path(__file__).parent / "__pycache__", shared / "nonn-plan"]


def _is_writable(folder: Path) -> bool:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _source(module: str) -> str:
    spec = find_spec(module)
    return (spec and spec.origin) or ""


def _address(array: NDArray[Any], kind: type) -> int:
    if array.dtype != kind or not array.flags.c_contiguous:
        raise TypeError(f"a kernel takes contiguous {kind.__name__}; found {array.dtype}")
    return int(array.ctypes.data)


def _content(path: Path) -> bytes | None:
    """Machine code of a file that is whole; None of any other."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, machine_code = content[:32], content[32:]
    return machine_code if sha256(machine_code).digest() == digest else None


def _keep(name: str, machine_code: bytes) -> None:
    """Write machine code into the first folder, in place of an older version's."""
    for folder in filter(_is_writable, _folders()):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, sha256(machine_code).digest() + machine_code)
        for other in folder.glob(f"{name.rpartition('-')[0]}-*.o"):
            if other.name != name:
                other.unlink(missing_ok=True)
        return


def _target_machine() -> Any:
    import llvmlite.binding as llvm

    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="jitdefault",
        jit=True,
    )


def _machine_code(entry: Entry) -> bytes:
    """Machine code of a kernel, which calls nothing but itself.

    What numba adds for errors falls away as LLVM sees that there are none.  Raises ValueError where
    something is left that a process without numba lacks.
    """
    import llvmlite.binding as llvm

    numba, extending = import_module("numba"), import_module("numba.extending")
    for each in _PARTS:
        extending.register_jitable(**_OPTIONS)(each)
    pointer, floats, wholes = numba.types.CPointer, numba.types.float64, numba.types.int64
    takes = (pointer(wholes), pointer(pointer(floats)), pointer(pointer(wholes)))
    made = numba.cfunc(numba.types.void(*takes), **_OPTIONS)(entry)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(made.inspect_llvm())
    for function in module.functions:
        if function.name == made.native_name:
            function.name = _SYMBOL
        elif not function.is_declaration:
            function.linkage = "internal"
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    machine = _target_machine()
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    names = {each.name for each in module.functions if each.is_declaration}
    if left := {name for name in names if not name.startswith(("llvm.", "mem"))}:
        raise ValueError(f"a kernel may call nothing outside; found {sorted(left)}")
    return bytes(machine.emit_object(module))

"""Documents: versioned, validated files that are read whole and written whole or not at all.

Every file that crosses a command, a wire or a person's editor is one of these.  JSON for what
programs write, YAML for what people write; the suffix decides.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nonn_common.errors import InputError, NonnError

PNG = b"\x89PNG"
"""How a picture begins."""

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, ten times faster, where PyYAML was built with it (its wheels are)."""

RepeatedKey = tuple[object, Sequence[int]]
"""Key that a mapping has more than once, and its lines, as far as they are known."""

_MOST_NAMED = 5
MOST_LEVELS = 100
"""Levels of lists and mappings that a YAML file may have; its parser calls itself for each."""

_YAML_SLIPS = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""Plain errors that PyYAML lets through: a malformed date or tagged scalar, a list as a key."""


class Record(BaseModel):
    """A validated, immutable part of a document; unknown fields are refused.

    `mistake` is the error that wrong content raises.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)
    error_class: ClassVar[type[InputError]] = InputError

    @classmethod
    def check(cls, content: object, where: str) -> Self:
        """Validate plain `content` that came from `where`; raises InputError."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise _input_error(error, cls, where) from None


class Document(Record):
    """A record that is a file of its own."""

    schema_version: Literal[1] = Field(default=1, description="Version of this file's schema.")

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read and validate `path`.

        `warnings`, which `--json` prints beside a document, are no part of it and left aside.
        Raises InputError that names the file, the field, what was found and what is allowed.
        """
        content = read_plain(Path(path))
        if isinstance(content, dict) and "warnings" not in cls.model_fields:
            content.pop("warnings", None)
        return cls.check(content, where=str(path))

    def write(self, path: Path | str) -> None:
        """Write atomically, as YAML for `.yaml`/`.yml` and as JSON otherwise.

        Raises InputError, and writes nothing, where the file holds something of another kind.
        """
        target = Path(path)
        self.check_target(target)
        plain = self.model_dump(mode="json")
        if is_yaml(target):
            text = _yaml(plain)
        else:
            text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
        # A name that is no text (a file name may be any bytes) is written escaped.
        write_atomic(target, text.encode(errors="backslashreplace"))

    @classmethod
    def check_target(cls, target: Path) -> None:
        """Make sure that `write` may write there, before the work that makes its content.

        Raises what `check_place` raises, and InputError where the file holds another kind.
        """
        check_place(target)
        if not target.exists():
            return
        try:
            cls.read(target)
        except InputError:
            raise InputError(
                f"holds something else than a {cls.__name__} and is not replaced",
                where=str(target),
                fix="choose another output or remove the file",
            ) from None


def check_place(path: Path) -> None:
    """Make sure that `path` can be written, before the work that makes its content.

    Creates its folder.  Raises InputError where a folder or a file is in the way, NonnError where
    the system refuses.
    """
    try:
        if path.is_dir():
            raise InputError("is a folder; a file is to be written here", where=str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent):
            pass
    except (FileExistsError, NotADirectoryError):
        raise InputError("a file is where its folder should be", where=str(path)) from None
    except OSError as error:
        raise NonnError(
            f"{path}: cannot be written: {error.strerror or error}; choose another place"
        ) from None


def check_own_place(path: Path, start: bytes) -> None:
    """`check_place` for a file without a schema, known by its `start`.

    A file that is there must begin so, or be empty.

    Raises also InputError where the file holds something else.
    """
    check_place(path)
    try:
        with path.open("rb") as file:
            found = file.read(len(start))
    except FileNotFoundError:
        return
    except OSError as error:
        raise NonnError(f"{path}: cannot be read: {error.strerror or error}") from None
    if found not in (b"", start):
        raise InputError(
            "holds something else than what is to be written, and is not replaced",
            where=str(path),
            fix="choose another output or remove the file",
        )


def check_suffix(path: Path, *allowed: str) -> None:
    """Refuse a file whose name would say that it is of another kind; raises InputError."""
    if path.suffix not in allowed:
        raise InputError(
            "the name does not end as the file's kind does",
            where=str(path),
            found=path.suffix or None,
            allowed=" or ".join(allowed),
        )


def check_picture(path: Path) -> None:
    """`check_own_place` for a picture, whose name ends in .png."""
    check_suffix(path, ".png")
    check_own_place(path, PNG)


def _yaml(plain: dict[str, Any]) -> str:
    """Write `plain` as YAML with letters of every script as they are.

    Except beside one of the line breaks that only Unicode has: PyYAML folds those into spaces
    unless it escapes everything.
    """
    breaks = set("\x85\u2028\u2029") & set(json.dumps(plain, ensure_ascii=False))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=not breaks, width=100)


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all.

    Temporary name in the same folder, fsync, rename, fsync of the folder.  On failure the
    temporary file is removed, the old file stays, and NonnError says why.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise NonnError(
            f"{path}: could not be written: {error.strerror or error}; nothing was changed; "
            "make room or choose another place, and run the command again"
        ) from error
    finally:
        # Also on Ctrl-C; after the rename there is nothing left under the temporary name.
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _umask() -> int:
    """The process's umask, which the system only tells by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut; raises NonnError when the system cannot."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise NonnError(
            f"{folder}: a file was written here, but the system could not confirm that it would "
            f"survive a power cut: {error.strerror or error}; check the disk"
        ) from error


def is_yaml(path: Path | str) -> bool:
    """Whether a file of this name is YAML; the others are JSON."""
    return Path(path).suffix.lower() in (".yaml", ".yml")


def read_plain(path: Path) -> object:
    """Read the plain content of a YAML or JSON file.

    Raises InputError, also for a key that a mapping has twice: only one of the two would count.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read: {why}", where=str(path)) from None
    return _parsed_yaml(text, path) if is_yaml(path) else _parsed_json(text, path)


def _parsed_json(text: str, path: Path) -> object:
    repeated: list[RepeatedKey] = []

    def mapping(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            repeated.extend((name, ()) for name in found if names.count(name) > 1)
        return found

    try:
        content: object = json.loads(text, object_pairs_hook=mapping)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}", where=str(path)) from None
    if repeated:
        with suppress(yaml.YAMLError):
            # JSON is YAML, whose reader counts lines; it takes no tabs between tokens.
            plain_yaml(text.expandtabs(), str(path))
        raise _given_twice(repeated, str(path))
    return content


def plain_yaml(text: str, where: str | None = None) -> object:
    """Parse plain content from YAML that came from `where`.

    Raises PyYAML's errors, and InputError for a key that a mapping has twice, and for too many
    levels: the native parser would end the process.
    """
    _check_levels(text, where)
    loader = YAML_LOADER(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        repeated = list(_repeated_keys(loader, root))
        if repeated:
            raise _given_twice(repeated, where)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _check_levels(text: str, where: str | None) -> None:
    """Refuse YAML of too many levels, by its stream of events; raises InputError."""
    level = 0
    for event in yaml.parse(text, Loader=YAML_LOADER):
        level += isinstance(event, yaml.CollectionStartEvent)
        level -= isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            line = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
            raise InputError(
                f"{line}too many levels of lists and mappings",
                where=where,
                allowed=f"up to {MOST_LEVELS}",
            )


def _repeated_keys(loader: Any, root: yaml.Node) -> Iterator[RepeatedKey]:
    """Keys that a mapping at or below `root` has more than once.

    A key that `<<` takes over from another mapping may be given again.
    """
    for mapping in _mappings(root):
        lines: dict[object, list[int]] = {}
        for key, _ in mapping.value:
            # `<<` stands for no value that could be built.
            merge = key.tag == "tag:yaml.org,2002:merge"
            name = key.value if merge else loader.construct_object(key, deep=True)
            lines.setdefault(name, []).append(key.start_mark.line + 1)
        yield from ((name, found) for name, found in lines.items() if len(found) > 1)


def _mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Mappings at and below `root`, in the order of the file.

    Each comes once: nodes may form loops.
    """
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [each for pair in reversed(node.value) for each in reversed(pair)]
        else:
            waiting += reversed(node.value)


def _given_twice(repeated: Sequence[RepeatedKey], where: str | None) -> InputError:
    said = []
    for key, lines in repeated[:_MOST_NAMED]:
        times = f"{len(lines)} times" if len(lines) > 2 else "twice"
        numbers = ", ".join(str(line) for line in dict.fromkeys(lines))
        place = f" (line{'s' * (len(set(lines)) > 1)} {numbers})" if lines else ""
        said.append(f"key `{key}` is given {times}{place}")
    more = len(repeated) - len(said)
    return InputError(
        "; ".join([*said, *([f"and {more} more"] if more else [])]),
        where=where,
        fix="keep one of them",
    )


def _parsed_yaml(text: str, path: Path) -> object:
    try:
        return plain_yaml(text, str(path))
    except (yaml.YAMLError, *_YAML_SLIPS) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"is not YAML: {detail}", where=str(path)) from None


def _input_error(error: ValidationError, kind: type[Record], where: str) -> InputError:
    """Turn the first of pydantic's complaints into one sentence; say how many more there are."""
    errors = error.errors(include_url=False)
    first, top = errors[0], [one for one in errors if len(one["loc"]) == 1]
    strange = [str(one["loc"][0]) for one in top if one["type"] == "extra_forbidden"]
    missing = [one for one in top if one["type"] == "missing"]
    if missing and 2 * len(strange) > len(missing[0]["input"]):
        names = ", ".join(str(one["loc"][0]) for one in missing[:_MOST_NAMED])
        return kind.error_class(
            f"is a file of another kind; it has no {names}",
            where=f"{where} ({kind.__name__})",
            found=", ".join(strange[:_MOST_NAMED]),
            fix="docs/file-formats.md says which command writes which file",
        )
    field = ".".join(str(part) for part in first["loc"]) or "the whole file"
    more = error.error_count() - 1
    return kind.error_class(
        f"field {field}: {_sentence(dict(first))}",
        where=f"{where} ({kind.__name__})",
        # A check of our own has said what it found.
        found=None if first["type"] == "value_error" else _offender(first["input"]),
        fix=f"and {more} more such field{'s' * (more > 1)}" if more else None,
    )


def _sentence(detail: dict[str, Any]) -> str:
    if detail["type"] == "extra_forbidden":
        return "is not a field of this file"
    if detail["type"] == "missing":
        return "is required and missing"
    if detail["type"] == "model_type":
        return "must be a mapping of fields"
    message: str = detail["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _offender(value: object) -> object | None:
    """Show scalars; a whole mapping in a message helps nobody."""
    return value if isinstance(value, str | int | float | bool) else None

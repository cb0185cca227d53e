# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Imports ansible modules and module_utils from bundles as if from core's module zip.

Lives in a nursery (which preloads) and in its forked job children (which run one module each); single-threaded until
a module starts threads, and read-only from then on.

Theory of operation
1. An Image answers for one path, its *root*: the path of a module zip. It is installed as a `sys.path_hooks` entry, so
   `sys.path`, `__path__`, `extend_path`, `pkgutil` and `importlib.resources` work as with zipimport.
2. Its file table is that of a manifest. While the nursery preloads, each name looked up is recorded with the digest
   found, or None: the *signature*. Another manifest that answers all those look-ups alike would have led to the
   same imports, so its jobs may run in children of this nursery. This includes files that were *not* there.
3. A child adopts the manifest and bundle of its job. What the nursery preloaded stays; the rest is imported on demand.
4. A real zip with the same files is at the root before a module starts (a hard link the zygote makes), so code that
   opens the zip finds it. All preloaded code names the root of slot 0; when that slot is taken by another
   running job, a child moves the image to its own root: files, paths, constants and code objects alike.
"""

from __future__ import annotations

import _imp
import importlib
import importlib.machinery
import importlib.util
import pathlib
import sys
import zipimport

from ansible_mitogen_svc.target import light_commands, rehearsal, standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import CodeType, ModuleType
    from typing import Any

    from ansible_mitogen_svc.target.bundle import Bundle

PRELOAD = ('ansible.module_utils.basic', 'ansible.module_utils._internal._ansiballz._loader')
"""What every module payload of ansible-core needs before its own code runs."""

DIRECTORY = 'directory'


def matches(signature: Mapping[str, str | None], files: Mapping[str, str]) -> bool:
    """Say whether a manifest's files answer every look-up of a signature as the preloaded manifest did."""
    for path, digest in signature.items():
        if path.endswith('/'):
            if (digest is not None) != any(name.startswith(path) for name in files):
                return False
        elif files.get(path) != digest:
            return False
    return True


class Image:
    """The files of one manifest, importable below `root`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: Mapping[str, str] = {}
        self.signature: dict[str, str | None] = {}
        """Every path looked up since `record`, and what was found."""
        self.rehearsal: Callable[[], None] | None = None
        """What a child does while it waits (rehearsal.py); the nursery has it."""
        self._recording = False
        self._bundles: list[Bundle] = []
        self._codes: dict[tuple[str, str], CodeType] = {}
        self._directories: set[str] | None = None

    def install(self) -> None:
        """Answer for the root from now on in this process."""
        sys.path_hooks.insert(0, self.finder)
        sys.path_importer_cache.clear()

    def finder(self, path: str) -> Finder:
        """Path hook. Raises ImportError for paths that are not below the root."""
        if path == self.root:
            return Finder(self, '')
        if path.startswith(self.root + '/'):
            return Finder(self, path[len(self.root) + 1:] + '/')
        raise ImportError(path)

    def adopt(self, bundle: Bundle) -> None:
        """Be the files of this bundle's manifest; what was imported from earlier ones stays imported."""
        self.files = bundle.files
        self._directories = None
        self.hold(bundle)

    def hold(self, bundle: Bundle) -> None:
        """Keep a bundle's code within reach without becoming its manifest."""
        if bundle not in self._bundles:
            self._bundles.insert(0, bundle)

    def held(self, identity: str) -> Bundle | None:
        """Return the bundle of a manifest, when it is held."""
        for bundle in self._bundles:
            if bundle.identity == identity:
                return bundle
        return None

    def release(self, identity: str) -> None:
        """Forget the code of a manifest."""
        self._bundles = [held for held in self._bundles if held.identity != identity]
        kept = {(path, held.files[path]) for held in self._bundles for path in held.paths()}
        for key in [key for key in self._codes if key not in kept]:
            del self._codes[key]

    def warm(self, bundle: Bundle) -> None:
        """Unmarshal a bundle's code now, and make its imports, so that children forked later find it done."""
        for path in bundle.paths():
            key = (path, bundle.files[path])
            if key not in self._codes:
                self._codes[key] = self._placed(bundle.code(path), path)
                standard_library.import_ahead(self._codes[key])

    def lookup(self, path: str) -> str | None:
        """Return the digest of a file of the manifest, or None."""
        digest = self.files.get(path)
        if self._recording:
            self.signature[path] = digest
        return digest

    def lookup_directory(self, path: str) -> bool:
        """Say whether some file of the manifest lies below `path` (in the signature: with a slash at its end)."""
        found = self._is_directory(path)
        if self._recording:
            self.signature[path + '/'] = DIRECTORY if found else None
        return found

    def _is_directory(self, path: str) -> bool:
        if self._directories is None:
            self._directories = set()
            for name in self.files:
                while '/' in name:
                    name = name.rpartition('/')[0]
                    self._directories.add(name)
        return path in self._directories

    def code(self, path: str) -> CodeType:
        """Return the code of a file. Raises SyntaxError where the source has one, as zipimport would, and OSError."""
        digest = self.files[path]
        code = self._codes.get((path, digest))
        if code is None:
            for bundle in self._bundles:
                if path in bundle and bundle.files[path] == digest:
                    code = self._placed(bundle.code(path), path)
                    break
            else:
                code = compile(self.data(path), f'{self.root}/{path}', 'exec', dont_inherit=True)
            self._codes[path, digest] = code
        return code

    def data(self, path: str) -> bytes:
        """Return the bytes of a file, from the zip. Raises OSError."""
        self.lookup(path)
        try:
            data: bytes = zipimport.zipimporter(self.root).get_data(f'{self.root}/{path}')
        except zipimport.ZipImportError as error:
            raise OSError(0, str(error), path) from None
        return data

    def names(self, prefix: str) -> Iterator[tuple[str, bool]]:
        """Yield (name, is it a package) of the importable things directly in a directory ('' or ending in '/')."""
        seen = set()
        for path in self.files:
            if path.startswith(prefix):
                name, slash, rest = path[len(prefix):].partition('/')
                if slash and rest == '__init__.py':
                    seen.add((name, True))
                elif not slash and name.endswith('.py') and name != '__init__.py':
                    seen.add((name[:-3], False))
        yield from sorted(seen)

    def preload(self) -> dict[str, str | None]:
        """Import the base set and return its signature."""
        self._recording = True
        try:
            for name in PRELOAD:
                importlib.import_module(name)
            self.rehearsal = rehearsal.prepare()
            light_commands.install()
        finally:
            self._recording = False
            # Another zip will be at the root next time; children must not inherit this one's directory.
            zipimport._zip_directory_cache.pop(self.root, None)  # type: ignore[attr-defined]
        return self.signature

    def _placed(self, code: CodeType, path: str) -> CodeType:
        """Give a code object the file name it has below the root, as importlib does with a moved .pyc."""
        _imp._fix_co_filename(code, f'{self.root}/{path}')  # type: ignore[attr-defined]
        return code

    # Moving to another root

    def move(self, root: str) -> None:
        """Rename everything that was imported, or will be, from below the old root to `root`. Before a module runs."""
        old, self.root = self.root, root
        for path in [path for path in sys.path_importer_cache if _is_below(path, old)]:
            del sys.path_importer_cache[path]
        sys.path[:] = [_moved(path, old, root) for path in sys.path]
        for (path, _), code in self._codes.items():
            _imp._fix_co_filename(code, f'{root}/{path}')  # type: ignore[attr-defined]
        for module in list(sys.modules.values()):
            spec = getattr(module, '__spec__', None)
            if isinstance(getattr(spec, 'loader', None), Loader):
                _move_module(module, old, root)


def _is_below(path: object, root: str) -> bool:
    return isinstance(path, str) and (path == root or path.startswith(root + '/'))


def _moved(path: str, old: str, new: str) -> str:
    return new + path[len(old):] if _is_below(path, old) else path


def _move_module(module: ModuleType, old: str, new: str) -> None:
    """Rename an imported module's places, and the constants it derived from them while it was imported."""
    space = module.__dict__
    for name, value in list(space.items()):
        if isinstance(value, str):
            if _is_below(value, old):
                space[name] = _moved(value, old, new)
        elif isinstance(value, pathlib.PurePath):
            if _is_below(str(value), old):
                space[name] = type(value)(_moved(str(value), old, new))
    spec = module.__spec__
    assert spec is not None
    if spec.origin is not None:
        spec.origin = _moved(spec.origin, old, new)
    if spec.cached is not None:
        spec.cached = _moved(spec.cached, old, new)
    for places in (space.get('__path__'), spec.submodule_search_locations):
        if isinstance(places, list):
            places[:] = [_moved(place, old, new) for place in places]


class Finder:
    """Path entry finder of one directory of an image."""

    __slots__ = ('_image', '_prefix')

    def __init__(self, image: Image, prefix: str) -> None:
        self._image = image
        self._prefix = prefix

    def find_spec(self, fullname: str, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """Find a package, a module or a namespace portion, in zipimport's order."""
        image = self._image
        stem = self._prefix + fullname.rpartition('.')[2]
        path = stem + '/__init__.py'
        is_package = image.lookup(path) is not None
        if not is_package:
            path = stem + '.py'
            if image.lookup(path) is None:
                if not image.lookup_directory(stem):
                    return None
                spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
                spec.submodule_search_locations = [f'{image.root}/{stem}']
                return spec
        origin = f'{image.root}/{path}'
        loader: Any = Loader(image, path)
        spec = importlib.machinery.ModuleSpec(fullname, loader, origin=origin, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [f'{image.root}/{stem}']
        return spec

    def iter_modules(self, prefix: str = '') -> Iterator[tuple[str, bool]]:
        """For pkgutil."""
        return ((prefix + name, is_package) for name, is_package in self._image.names(self._prefix))

    def invalidate_caches(self) -> None:
        """There are none."""


class Loader:
    """Loads one file of an image; the methods are those of importlib's InspectLoader and ResourceLoader."""

    __slots__ = ('_image', '_path')

    def __init__(self, image: Image, path: str) -> None:
        self._image = image
        self._path = path

    def create_module(self, spec: object) -> None:
        """Let importlib make an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        exec(self._image.code(self._path), module.__dict__)

    def get_code(self, fullname: str) -> CodeType:
        return self._image.code(self._path)

    def get_source(self, fullname: str) -> str:
        """Return the source. Raises ImportError for another module's name, so that tracebacks show what they do cold:

        before Python 3.13 linecache asks for `__main__` here, and zipimport does not know it.
        """
        stem = self._path[:-len('/__init__.py')] if self.is_package(fullname) else self._path[:-len('.py')]
        if fullname.rpartition('.')[2] != stem.rpartition('/')[2]:
            raise ImportError(f'{self._path} is not {fullname}', name=fullname)
        return importlib.util.decode_source(self._image.data(self._path))

    def get_filename(self, fullname: str) -> str:
        return f'{self._image.root}/{self._path}'

    def is_package(self, fullname: str) -> bool:
        return self._path.endswith('/__init__.py')

    def get_data(self, path: str) -> bytes:
        """Return the bytes of a file below the root, or of a plain file. Raises OSError."""
        root = self._image.root + '/'
        if path.startswith(root):
            return self._image.data(path[len(root):])
        with open(path, 'rb') as file:
            return file.read()

    def get_resource_reader(self, fullname: str) -> object:
        """Leave resources to zipimport on the real zip."""
        parent = self._path.rpartition('/')[0].rpartition('/')[0]
        place = f'{self._image.root}/{parent}' if parent else self._image.root
        return zipimport.zipimporter(place).get_resource_reader(fullname)

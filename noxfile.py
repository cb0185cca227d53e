# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""All checks, each as a session of nox in an environment of its own. `nox -l` lists them; `make test-all` runs them.

Every tool is the ecosystem's: ansible-test, ansible-lint, antsibull, ruff, mypy, pytest, coverage, build, twine, reuse,
ansible-builder, ansible-runner, molecule, Sphinx.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    *("ruff", "types", "licences", "artifacts", "docs", "collection_docs", "changelog", "lint", "sanity", "tests"),
]

ROOT = pathlib.Path(__file__).resolve().parent
#: (Python of the controller, ansible-core): each release with its oldest and its newest Python.
SUPPORTED = (
    ("3.11", "2.19.14"),
    ("3.13", "2.19.14"),
    ("3.12", "2.20.10"),
    ("3.13", "2.20.10"),
    ("3.12", "2.21.5"),
    ("3.13", "2.21.5"),
    ("3.13", "2.22.0rc1"),
)
#: What `password_hash` needs in releases before 2.21; core's own target `become` is skipped without it.
HASHES = {"2.19.14": ("passlib",), "2.20.10": ("passlib",)}
#: The release that single checks use.
CORE = "ansible-core==2.21.5"
#: (part of the package, data that has its lines, least per cent of them)
COVERED = (
    ("controller", "controller", 90),
    ("service", "controller", 90),
    ("services", "controller", 90),
    ("target", "target", 85),
)
#: What is selected, and what there is.
PYENV_QUESTIONS = (("version-name",), ("versions", "--bare"))
#: The pip that this release's ansible-test makes its environments with.
SANITY_PIP = "25.2"


def offer_pyenvs() -> None:
    """Let pyenv's `pythonX.Y` on PATH start all versions that are supported, not the selected one alone.

    nox passes over a session whose Python it does not find, which is easily taken for a success.
    """
    if shutil.which("pyenv") and "PYENV_VERSION" not in os.environ:
        asked = [subprocess.run(["pyenv", *words], capture_output=True, text=True) for words in PYENV_QUESTIONS]
        selected, installed = (done.stdout.split() for done in asked)
        supported = {python for python, _ in SUPPORTED}
        others = [version for version in installed if version.rpartition(".")[0] in supported]
        os.environ["PYENV_VERSION"] = ":".join([*selected, *others])


offer_pyenvs()


def collection_tree(session: nox.Session) -> pathlib.Path:
    """Build the collection and unpack it as it installs; returns its directory."""
    tree, built = pathlib.Path(session.create_tmp()) / "collections", ROOT / "dist"
    shutil.rmtree(tree, ignore_errors=True)
    session.run("ansible-galaxy", "collection", "build", "--force", "--output-path", str(built), str(ROOT))
    artifact = max(built.glob("ansible_mitogen-svc-*.tar.gz"), key=lambda path: path.stat().st_mtime)
    session.run("ansible-galaxy", "collection", "install", "--force", "--offline", "-p", str(tree), str(artifact))
    return tree / "ansible_collections/ansible_mitogen/svc"


@nox.session
def ruff(session: nox.Session) -> None:
    """Style and common mistakes."""
    session.install("ruff")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.install("mypy", CORE, "mitogen>=0.3.54")
    session.run("mypy")


@nox.session
def licences(session: nox.Session) -> None:
    """Every file says its licence and copyright (REUSE)."""
    session.install("reuse")
    session.run("reuse", "lint")


@nox.session
def artifacts(session: nox.Session) -> None:
    """Both artifacts build, and their metadata is valid."""
    session.install("build", "twine", "check-wheel-contents", CORE)
    out = pathlib.Path(session.create_tmp()) / "dist"
    shutil.rmtree(out, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(out), ".")
    session.run("twine", "check", "--strict", *map(str, sorted(out.iterdir())))
    # W002: modules of two plugins may be alike; W009: a collection is a second top level.
    session.run("check-wheel-contents", "--ignore", "W002,W009", *map(str, out.glob("*.whl")))
    collection_tree(session)


@nox.session
def docs(session: nox.Session) -> None:
    """The pages, with the plugins' options by antsibull-docs; a warning is an error."""
    session.install("sphinx", "myst-parser", "furo", "antsibull-docs", CORE, "mitogen>=0.3.54")
    tree = collection_tree(session)
    shutil.rmtree(ROOT / "docs/plugins", ignore_errors=True)
    (ROOT / "docs/plugins").mkdir()
    session.run(
        *("antsibull-docs", "collection", "--use-current", "--squash-hierarchy", "--cleanup", "everything"),
        *("--dest-dir", "docs/plugins", "ansible_mitogen.svc"),
        env={"ANSIBLE_COLLECTIONS_PATH": str(tree.parents[2])},
    )
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", "build/docs")


@nox.session
def collection_docs(session: nox.Session) -> None:
    """What ansible-doc and Galaxy read of the collection."""
    session.install("antsibull-docs", CORE, "mitogen>=0.3.54")
    session.run(
        "antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", str(collection_tree(session))
    )


@nox.session
def changelog(session: nox.Session) -> None:
    """The fragments are right, and a release can be made of them: tried in a copy, and shown."""
    session.install("antsibull-changelog", CORE, "mitogen>=0.3.54")
    session.run("antsibull-changelog", "lint")
    tree = pathlib.Path(session.create_tmp()) / "ansible_collections/ansible_mitogen/svc"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("ansible_mitogen_svc", "changelogs", "meta", "plugins"):
        shutil.copytree(ROOT / name, tree / name)
    shutil.copy(ROOT / "galaxy.yml", tree)
    with session.chdir(tree):
        session.run("antsibull-changelog", "release")  # of the version in galaxy.yml
        session.log(pathlib.Path("CHANGELOG.rst").read_text())


@nox.session
def lint(session: nox.Session) -> None:
    """ansible-lint, production profile, on playbooks, scenarios and examples."""
    session.install("ansible-lint", CORE, "mitogen>=0.3.54")
    tree = collection_tree(session)
    places = ["molecule", "examples", "demo/playbook.yml", "ansible_mitogen_svc/command/cleaning/playbook.yml"]
    session.run(
        *("ansible-lint", *places),
        env={"ANSIBLE_COLLECTIONS_PATH": str(tree.parents[2])},
    )


@nox.session
def sanity(session: nox.Session) -> None:
    """ansible-test sanity on the collection as it installs; `-- --test import` and the like choose among its tests."""
    session.install(CORE, "mitogen>=0.3.54")
    tree = collection_tree(session)
    shutil.copytree(ROOT / "tests/sanity", tree / "tests/sanity")
    home = session.cache_dir.resolve() / "sanity"
    offer_pip(session, home / f".ansible/test/cache/get_pip_{SANITY_PIP.replace('.', '_')}.py")
    with session.chdir(tree):
        # ansible-test asks git which files there are; the checkout around this tree ignores it.
        session.run("git", "init", "-q", external=True)
        session.run("git", "add", "-A", external=True)
        places = {"HOME": str(home), "PATH": starting_pythons(session)}
        session.run("ansible-test", "sanity", "--color", "no", *session.posargs, env=places)


def starting_pythons(session: nox.Session) -> str:
    """PATH without directories whose Pythons do not start, such as a version manager's for versions it has not.

    ansible-test takes each `pythonX.Y` it finds for one that runs; those it does not find it names and skips.
    """
    kept = []
    for directory in os.environ["PATH"].split(os.pathsep):
        named = pathlib.Path(directory).glob("python3.[0-9]*")
        pythons = [path for path in named if path.name.rpartition(".")[2].isdecimal() and path.exists()]
        if all(subprocess.run([path, "-c", ""], capture_output=True).returncode == 0 for path in pythons):
            kept.append(directory)
    return os.pathsep.join([session.bin, *kept])


def offer_pip(session: nox.Session, place: pathlib.Path) -> None:
    """Put a script where ansible-test looks for get-pip before it downloads it: one that asks the session's own pip.

    It runs in environments that have no pip yet, with pip's options and requirements as its arguments.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(pathlib.Path(session.bin) / "python"), "-m", "pip", "--python"]
    lines = ["import subprocess, sys", "wanted = [word for word in sys.argv[1:] if not word.startswith('--no-')]"]
    lines.append(f"sys.exit(subprocess.call([*{pip!r}, sys.executable, 'install', *wanted]))")
    place.write_text("\n".join(lines) + "\n")


@nox.session
@nox.parametrize(("python", "core"), SUPPORTED)
def tests(session: nox.Session, core: str) -> None:
    """The tests of one supported pair; `-- tests/unit` and the like choose among them."""
    session.install("-e", ".[test]", f"ansible-core=={core}", *HASHES.get(core, ()))
    # The tests see the machine as it is, but for its Python.
    chosen = session.posargs or ["tests/unit", "tests/integration"]
    session.run("pytest", "--timeout=900", *chosen, env={"PYENV_VERSION": None})


@nox.session(python="3.13")
def coverage(session: nox.Session) -> None:
    """Lines that the tests run: of controller, service and services 90 %, of target 85 %, there in real children.

    `-- --add tests/unit/target` runs some tests only and adds their lines to what earlier runs have found.
    """
    session.install("-e", ".[test]", CORE, "coverage>=7.10")
    place = session.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", silent=True)
    lines = pathlib.Path(str(place).strip()) / "target_lines.txt"
    # Not with create_tmp, which makes its directory the tests' TMPDIR as well: too long for ssh's sockets.
    data = session.cache_dir.resolve() / "coverage"
    if session.posargs[:1] != ["--add"] or not lines.exists():
        shutil.rmtree(data, ignore_errors=True)
        lines.write_text("")
        lines.chmod(0o666)
    data.mkdir(exist_ok=True)
    # What runs under core alone, for comparison, runs no line of ours; in other Pythons than this one none is seen.
    unseen = ["passes_under_core", "give_the_same_results", "python3.8", "python3.9", "python3.11"]
    fast = ["-m", "not long", "-k", " and ".join(f"not {name}" for name in unseen)]
    chosen = [word for word in session.posargs if word != "--add"] or [*fast, "tests/unit", "tests/integration"]
    environment = {"COVERAGE_FILE": str(data / "controller")}
    begin = lines.with_suffix(".pth")
    shutil.copy(ROOT / "tests/rig/target_lines.py", lines.parent)
    begin.write_text("import target_lines\n")
    # The figures are of interest also where a test has failed.
    session.run("coverage", "run", "-m", "pytest", "--timeout=900", *chosen, env=environment, success_codes=[0, 1])
    begin.unlink()
    session.run("coverage", "combine", "--quiet", "--append", env=environment)
    for left in data.glob("controller.*"):
        left.unlink()  # of a process that was killed while it wrote
    session.run("python", str(lines.with_suffix(".py")), str(ROOT), str(data / "target"))
    report_coverage(session, data)


def report_coverage(session: nox.Session, data: pathlib.Path) -> None:
    """Print which lines no test runs, and fail where there are too many of them."""
    failed = []
    for part, file, least in COVERED:
        where = {"COVERAGE_FILE": str(data / file)}
        chosen = [f"--include=*/ansible_mitogen_svc/{part}/*", "--precision=1"]
        # Status 1: none of its lines ran, which may be where only some tests do.
        session.run("coverage", "report", "--skip-covered", "--show-missing", *chosen, env=where, success_codes=[0, 1])
        shown = ("coverage", "report", "--format=total", *chosen)
        total = str(session.run(*shown, env=where, silent=True, success_codes=[0, 1])).split()[-1]
        reached = float(total) if total.replace(".", "").isdecimal() else 0.0
        session.log(f"{part}: {reached} % of its lines, of {least} %")
        if reached < least:
            failed.append(part)
    if failed:
        session.error("too few lines are tested of: " + ", ".join(failed))

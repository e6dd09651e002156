"""Runs the demo or the tests in an environment of their own, `.venv` beside this file, which it makes when needed.

    python3 run.py demo [arguments of `scarlet-backup-mcp demo`]
    python3 run.py test [arguments of pytest]
    python3 run.py bundle [directory]

The last one needs no environment: it writes the .mcpb bundle into `dist`, or the directory.

Standard library only. An older Python 3 can read this file, so that it gets as far as the version check.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (the version nobody can assume yet is what this is about)
    sys.exit(
        "run.py needs Python 3.11 or newer; this is {}.{} ({}).\n"
        "Run it with a newer one, for example: python3.12 run.py demo".format(*sys.version_info[:2], sys.executable)
    )

import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "set-up-complete"
LEVELS = {"demo": ["run"], "test": ["run", "test"]}
"""The files in requirements/ that each command's environment satisfies: the last one, which holds the others."""


class SetUpFailed(Exception):
    """The environment could not be made. The message says why and what to do."""


def main(arguments: list[str]) -> int:
    """Run the command; its exit code is ours."""
    if arguments[:1] == ["bundle"] and len(arguments) <= 2:
        print(bundle(Path(*arguments[1:]) if arguments[1:] else ROOT / "dist"))
        return 0
    if not arguments or arguments[0] not in LEVELS:
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    command, rest = arguments[0], arguments[1:]
    signal.signal(signal.SIGTERM, interrupt)
    try:
        set_up(LEVELS[command])
    except SetUpFailed as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrun.py: interrupted; the next run sets .venv up again.", file=sys.stderr)
        return 130
    if command == "test":
        os.chdir(ROOT)
        return become([str(PYTHON), "-m", "pytest", *rest])
    # -P: a file in the user's directory must not stand in for a module.
    return become([str(PYTHON), "-P", "-m", "scarlet_backup_mcp", "demo", *rest])


def bundle(directory: Path) -> Path:
    """Write the .mcpb bundle, the same bytes each time: the package, and what uv needs to install and start it."""
    sources = [path for path in (ROOT / "scarlet_backup_mcp").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files = {path.relative_to(ROOT).as_posix(): path for path in sources}
    files |= {name: ROOT / name for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE")}
    files |= {path.name: path for path in (ROOT / "bundle").iterdir() if path.is_file()}
    version = json.loads(files["manifest.json"].read_text(encoding="utf-8"))["version"]
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"scarlet-backup-mcp-{version}.mcpb"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name)  # whose time is always the same
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, files[name].read_bytes())
    return target


def set_up(levels: list[str]) -> None:
    """Make `.venv` satisfy `levels`, or do nothing where its stamp says that it does.

    The stamp is taken away first and written last: an interrupted set-up is done again from nothing.
    """
    wanted = [digest(level) for level in levels]
    present = STAMP.read_text().split() if STAMP.is_file() and PYTHON.exists() else []
    if wanted[-1] in present:
        return
    if Path(sys.prefix) == VENV:
        raise SetUpFailed("the environment .venv is in use and has to be renewed: leave it (`deactivate`), then again.")
    say("setting up .venv beside run.py (downloads and installs packages: about a minute) ...")
    host_pip = has_pip_for_others()
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON)] if host_pip else [str(PYTHON), "-m", "pip"]
    try:
        STAMP.unlink(missing_ok=True)
        if wanted[0] not in present:
            make_venv(with_pip=not host_pip)
        requirements = str(ROOT / "requirements" / f"{levels[-1]}.txt")
        install([*pip, "install", "-qq", "--require-hashes", "-r", requirements])
        install([*pip, "install", "-qq", "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
        STAMP.write_text("\n".join(wanted))
    except OSError as error:
        raise SetUpFailed(f"can't make .venv: {error}. It has to be writable, and not in use.") from error
    say("done.")


def digest(level: str) -> str:
    """Changes with all that an installed environment depends on: this Python, this directory, what is required."""
    circumstances = "\n".join([sys.version, sys.base_prefix, str(ROOT), level])
    files = [ROOT / "pyproject.toml", ROOT / "requirements" / f"{level}.txt"]
    return hashlib.sha256(b"\0".join([os.fsencode(circumstances), *(file.read_bytes() for file in files)])).hexdigest()


def has_pip_for_others() -> bool:
    """Whether this Python has a pip that can install into another environment: `pip --python`, new in 22.3.

    That is quicker than a pip inside the environment, and works where ensurepip is missing (Debian splits it off).
    """
    asked = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, text=True, check=False)
    version = re.match(r"pip (\d+)\.(\d+)", asked.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= (22, 3)


def make_venv(*, with_pip: bool) -> None:
    """Make `.venv` anew, in the place of what may lie there."""
    if with_pip and importlib.util.find_spec("ensurepip") is None:
        raise SetUpFailed(
            f"{sys.executable} has neither pip (22.3 or newer) nor ensurepip. "
            "Install one of them (on Debian and Ubuntu: apt install python3-venv), then again."
        )
    try:
        venv.EnvBuilder(clear=True, symlinks=os.name != "nt", with_pip=with_pip).create(VENV)
    except subprocess.CalledProcessError as error:
        raise SetUpFailed(f"ensurepip failed in .venv:\n{error.stdout or error}") from error


def install(command: list[str]) -> None:
    """Run pip, out of reach of settings that would make it install somewhere else than into `.venv`."""
    elsewhere = {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONHOME", "PYTHONPATH"}
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    environment |= {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "TMPDIR": str(VENV)}
    # A group of its own, so that pip can be ended together with the pip it starts for `--python`; else that one would
    # go on in .venv. On Windows Ctrl-C ends both.
    with subprocess.Popen(command, env=environment, process_group=None if os.name == "nt" else 0) as pip:
        try:
            code = pip.wait()
        except BaseException:
            if os.name != "nt":
                os.killpg(pip.pid, signal.SIGTERM)
            raise
    if code != 0:
        raise SetUpFailed(f"pip failed with exit code {code}; what it said stands above.")


def become(command: list[str]) -> int:
    """Go on as that program, so that signals and the exit code are its own.

    Windows has no exec that keeps the console waiting: there it is a child, which gets Ctrl-C itself.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return subprocess.run(command, check=False).returncode


def interrupt(number: int, frame: object) -> None:
    """SIGTERM ends a set-up as Ctrl-C does."""
    raise KeyboardInterrupt


def say(text: str) -> None:
    """What is going on is no output of the command: it goes to stderr."""
    print(f"run.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
